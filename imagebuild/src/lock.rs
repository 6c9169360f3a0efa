// SPDX-License-Identifier: Apache-2.0
//! `components.lock`: every component with its version, source and digest, for several Kubernetes minors.
//!
//! Only reads and selects; [`crate::source`] fetches, [`crate::component`] caches.

use crate::arch::Arch;
use crate::go::Pinned;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the lock, at the root of the repository.
pub const FILE: &str = "components.lock";
/// The component whose versions are those of Kubernetes.
const KUBELET: &str = "kubelet";

/// The whole lock, as parsed and checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Format of this file; 1.
    pub version: u32,
    /// The Kubernetes minor that is built when none is asked for, for example `1.36`.
    pub kubernetes: String,
    /// The Go that builds them, where the build machine has none.
    pub go: Option<Pinned>,
    /// Go modules that components are built from, by the name of their wrapper directory.
    #[serde(default)]
    pub wrapper: BTreeMap<String, Wrapper>,
    /// Programs.
    #[serde(default, rename = "component")]
    pub components: Vec<Component>,
    /// Container images.
    #[serde(default, rename = "image")]
    pub images: Vec<Image>,
    /// Directory of the lock: where wrapper directories and local files are looked up.
    #[serde(skip)]
    pub root: PathBuf,
}

/// A Go module, built through a wrapper module `imagebuild/components/<name>` whose go.sum locks what it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wrapper {
    /// Module path, `k8s.io/kubernetes`.
    pub module: String,
    /// Version without the leading `v`.
    pub version: String,
    /// `h1:` sum of the module's zip, as in go.sum.
    pub digest: String,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Flags for the linker, in addition to `-s -w`.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Present when C is linked in: statically, with these libraries.
    pub cgo: Option<Cgo>,
}

/// What a Go program with C in it is linked with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cgo {
    /// Debian development packages, unpacked privately for the device's architecture, never installed.
    pub debian: Vec<String>,
}

/// One program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Component {
    /// Name, unique within one Kubernetes minor.
    pub name: String,
    /// Version without the leading `v`.
    pub version: String,
    /// The Kubernetes minor that it belongs to; absent: all.
    pub kubernetes: Option<String>,
    /// Path in the bundle, `bin/kubelet`; absent: not part of the bundle's files.
    pub install: Option<String>,
    /// Permission bits.
    #[serde(default = "executable")]
    pub mode: u32,
    /// Where it comes from.
    pub source: Source,
}

/// Where a component comes from, with what pins it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Source {
    /// A package of a locked Go module, built here.
    GoModule {
        /// Key of [`Lock::wrapper`].
        wrapper: String,
        /// Import path of the program.
        package: String,
    },
    /// One C file inside a locked Go module, compiled statically here.
    CFile {
        /// Key of [`Lock::wrapper`].
        wrapper: String,
        /// Path inside the module.
        path: String,
        /// `NAME=VALUE` for the preprocessor.
        #[serde(default)]
        define: Vec<String>,
    },
    /// A Go program in this repository.
    GoDirectory {
        /// Directory, relative to the lock.
        directory: String,
        /// Key of [`Lock::wrapper`] whose modules it imports; absent: it needs nothing but Go's own library.
        wrapper: Option<String>,
    },
    /// A download.
    Url {
        /// Address by architecture.
        url: BTreeMap<Arch, String>,
        /// Hex SHA-256 of what the address answers, by architecture.
        sha256: BTreeMap<Arch, String>,
        /// Path inside, when the download is a `.tar.gz`.
        member: Option<String>,
    },
    /// A file on the build machine.
    File {
        /// Path by architecture, relative to the lock or absolute.
        path: BTreeMap<Arch, String>,
        /// Hex SHA-256 of the file, by architecture.
        sha256: BTreeMap<Arch, String>,
    },
    /// A file of a Debian package.
    Debian {
        /// Package name.
        package: String,
        /// Exact version; absent: what the suite carries, vouched for by the archive's signature alone.
        version: Option<String>,
        /// Path inside the package, without the leading slash.
        path: String,
        /// Hex SHA-256 of the `.deb` by architecture; needed when a version is given.
        #[serde(default)]
        sha256: BTreeMap<Arch, String>,
    },
}

/// One container image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Component name that the manifest gives, `pause`.
    pub name: String,
    /// Full reference under which it is imported.
    pub reference: String,
    /// Version without the leading `v`.
    pub version: String,
    /// The Kubernetes minor that it belongs to; absent: all.
    pub kubernetes: Option<String>,
    /// True for the image that every pod's sandbox is made of.
    #[serde(default)]
    pub sandbox: bool,
    /// True for an image that only a control plane runs: no other bundle has it.
    // Not in the image's key: it says nothing of how the image is made.
    #[serde(default, skip_serializing)]
    pub control_plane: bool,
    /// How it is made.
    pub from: ImageSource,
}

/// How a container image is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ImageSource {
    /// Written here from components and Debian packages.
    Build {
        /// Files, by absolute path in the image.
        files: BTreeMap<String, ImageFile>,
        /// Debian programs with the libraries they need, taken from these packages and what they depend on.
        #[serde(default)]
        debian: Vec<String>,
        /// Absolute paths of the programs to keep of those packages.
        #[serde(default)]
        programs: Vec<String>,
        /// Files of those packages that are loaded by name while a program runs: paths that end in `*` match a start.
        #[serde(default)]
        extra: Vec<String>,
        /// Symbolic links: path and target.
        #[serde(default)]
        links: BTreeMap<String, String>,
        /// Argument vector.
        entrypoint: Vec<String>,
        /// `uid:gid`; absent: root.
        user: Option<String>,
        /// PATH for the container; absent: none is set.
        path: Option<String>,
    },
    /// Taken from a registry.
    Registry {
        /// `host[:port]/name`.
        image: String,
        /// `sha256:` digest of the manifest or of the list of manifests.
        digest: String,
        /// Speak HTTP without TLS; the digest still holds.
        #[serde(default)]
        plain_http: bool,
    },
}

/// One file of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageFile {
    /// Name of the component that it is.
    pub component: String,
    /// True when the program may bind ports below 1024 as any user (file capability, as in the upstream image).
    #[serde(default)]
    pub net_bind_service: bool,
}

fn executable() -> u32 {
    0o755
}

impl Lock {
    /// Reads the repository's lock, looked for from the working directory upwards.
    pub fn find() -> Result<Lock> {
        let here = std::env::current_dir().context("read the working directory")?;
        match here.ancestors().find(|d| d.join(FILE).is_file()) {
            Some(root) => Lock::read(&root.join(FILE)),
            None => bail!("find {FILE}: neither in {} nor above it", here.display()),
        }
    }

    /// Reads a lock. Relative paths in it count from its directory.
    pub fn read(path: &Path) -> Result<Lock> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = std::fs::canonicalize(root).with_context(|| format!("find the directory of {}", path.display()))?;
        Lock::parse(&text, &root).with_context(|| format!("read {}", path.display()))
    }

    /// Parses and checks the text of a lock whose relative paths count from `root`.
    pub fn parse(text: &str, root: &Path) -> Result<Lock> {
        let mut lock: Lock = toml::from_str(text)?;
        lock.root = root.to_owned();
        if lock.version != 1 {
            bail!("lock version {} is unknown: this imagebuild reads version 1", lock.version);
        }
        for component in &lock.components {
            lock.check(component)?;
        }
        for image in &lock.images {
            lock.check_image(image)?;
        }
        lock.minor(None)?;
        Ok(lock)
    }

    fn check(&self, component: &Component) -> Result<()> {
        let name = &component.name;
        match &component.source {
            Source::GoModule { wrapper, .. } => {
                let module = self.wrapper(wrapper).with_context(|| format!("check component {name}"))?;
                if module.version != component.version {
                    let found = &module.version;
                    bail!("check component {name}: version {} but wrapper {wrapper} is {found}", component.version);
                }
            }
            Source::CFile { wrapper, .. } => {
                self.wrapper(wrapper).with_context(|| format!("check component {name}"))?;
            }
            Source::Debian { version: Some(_), sha256, .. } if sha256.is_empty() => {
                bail!("check component {name}: a Debian package of a fixed version needs sha256");
            }
            _ => {}
        }
        let twin = |c: &&Component| c.name == *name && c.kubernetes == component.kubernetes;
        if self.components.iter().filter(twin).count() > 1 {
            bail!("check component {name}: it is listed twice for the same Kubernetes minor");
        }
        Ok(())
    }

    fn check_image(&self, image: &Image) -> Result<()> {
        let name = &image.name;
        if image.sandbox && image.control_plane {
            bail!("check image {name}: every node needs the sandbox image, so it takes no `control-plane = true`");
        }
        let twin = |i: &&Image| i.reference == image.reference && i.kubernetes == image.kubernetes;
        if self.images.iter().filter(twin).count() > 1 {
            bail!("check image {name}: {} is listed twice for the same Kubernetes minor", image.reference);
        }
        Ok(())
    }

    /// The wrapper of this name.
    pub fn wrapper(&self, name: &str) -> Result<&Wrapper> {
        self.wrapper.get(name).with_context(|| format!("find wrapper {name:?} in {FILE}"))
    }

    /// The directory of a wrapper module.
    pub fn wrapper_dir(&self, name: &str) -> PathBuf {
        self.root.join("imagebuild/components").join(name)
    }

    /// The Kubernetes minor that `version` means: `1.36`, `v1.36`, `1.36.3`; none means the lock's default.
    /// An unknown one is an error that lists what is there.
    pub fn minor(&self, version: Option<&str>) -> Result<String> {
        let there: BTreeMap<&str, &str> = self
            .components
            .iter()
            // Others have versions of their own.
            .filter(|c| c.name == KUBELET)
            .filter_map(|c| c.kubernetes.as_deref().map(|minor| (minor, c.version.as_str())))
            .collect();
        let wanted = version.unwrap_or(&self.kubernetes).trim_start_matches('v');
        match there.iter().find(|(minor, version)| wanted == **minor || wanted == **version) {
            Some((minor, _)) => Ok((*minor).to_owned()),
            None => {
                let list: Vec<&str> = there.into_values().collect();
                bail!("find Kubernetes {wanted} in {FILE}: it holds {}", list.join(", "))
            }
        }
    }

    /// All components for one Kubernetes minor, in the lock's order.
    pub fn components_for<'a, 'm>(&'a self, minor: &'m str) -> impl Iterator<Item = &'a Component> + use<'a, 'm> {
        self.components.iter().filter(move |c| c.kubernetes.as_deref().is_none_or(|k| k == minor))
    }

    /// All images for one Kubernetes minor, in the lock's order.
    pub fn images_for<'a, 'm>(&'a self, minor: &'m str) -> impl Iterator<Item = &'a Image> + use<'a, 'm> {
        self.images.iter().filter(move |i| i.kubernetes.as_deref().is_none_or(|k| k == minor))
    }

    /// One component for one Kubernetes minor. An unknown name is an error that lists what is there.
    pub fn component(&self, name: &str, minor: &str) -> Result<&Component> {
        match self.components_for(minor).find(|c| c.name == name) {
            Some(component) => Ok(component),
            None => {
                let names: Vec<&str> = self.components_for(minor).map(|c| c.name.as_str()).collect();
                bail!("find component {name} in {FILE}: it holds {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
#[path = "lock/tests.rs"]
mod tests;
