// SPDX-License-Identifier: Apache-2.0
//! Makes the container images of the lock, as OCI archives: from components, Debian programs with the libraries that
//! they need, or a registry. Kept in the cache like components.

use crate::arch::Arch;
use crate::component;
use crate::debian::Debian;
use crate::lock::{Image, ImageFile, ImageSource, Lock};
use crate::oci::{self, Entry, Run, Tree};
use crate::source::Request;
use crate::{cache, digest, elf, registry};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Name of the archive in its cache directory.
const ARCHIVE: &str = "image.tar";

/// An image of a lock, for one Kubernetes minor and architecture.
#[derive(Clone, Copy)]
pub struct ImageRequest<'a> {
    /// The lock.
    pub lock: &'a Lock,
    /// The image.
    pub image: &'a Image,
    /// Kubernetes minor that its components are taken for.
    pub minor: &'a str,
    /// Architecture.
    pub arch: Arch,
}

/// The OCI archive of an image, from the cache when it is there.
pub fn ensure(request: &ImageRequest) -> Result<PathBuf> {
    let key = key(request).with_context(|| format!("find what image {} is made of", request.image.reference))?;
    let dir = cache::dir()?.join("components").join(key);
    cache::once(&dir, |scratch| {
        let image = make(request, scratch).with_context(|| format!("make image {}", request.image.reference))?;
        oci::write(&image, &request.image.reference, request.arch, &scratch.join(ARCHIVE))?;
        remove_all_but_archive(scratch)
    })?;
    Ok(dir.join(ARCHIVE))
}

fn remove_all_but_archive(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        if path != dir.join(ARCHIVE) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Hex digest of all that the archive's bytes depend on. Needs no network once the cache is warm.
pub fn key(request: &ImageRequest) -> Result<String> {
    let mut parts = vec!["image 1".to_owned(), request.arch.to_string(), serde_json::to_string(request.image)?];
    if let ImageSource::Build { files, debian, .. } = &request.image.from {
        for file in files.values() {
            parts.push(component::key(&component_request(request, file)?)?);
        }
        if !debian.is_empty() {
            let names: Vec<&str> = debian.iter().map(String::as_str).collect();
            let packages = Debian::open(request.arch)?.resolve(&names, true)?;
            parts.extend(packages.iter().map(|p| format!("{} {}", p.name, p.version)));
        }
    }
    Ok(digest::bytes(&serde_json::to_vec(&parts)?)[..32].to_owned())
}

fn component_request<'a>(request: &ImageRequest<'a>, file: &ImageFile) -> Result<Request<'a>> {
    let component = request.lock.component(&file.component, request.minor)?;
    Ok(Request { lock: request.lock, component, arch: request.arch })
}

fn make(request: &ImageRequest, scratch: &Path) -> Result<oci::Image> {
    match &request.image.from {
        ImageSource::Registry { image, digest, plain_http } => {
            registry::pull(&request.image.name, image, digest, *plain_http, request.arch, scratch)
        }
        ImageSource::Build { files, debian, programs, extra, links, entrypoint, user, path } => {
            let mut tree = Tree::new();
            if !debian.is_empty() {
                add_programs(&mut tree, request.arch, debian, programs, extra)?;
            }
            for (at, file) in files {
                let built = component::ensure_of(&component_request(request, file)?)?;
                let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
                let entry = Entry::File { bytes, mode: 0o755, net_bind_service: file.net_bind_service };
                tree.insert(at.clone(), entry);
            }
            tree.extend(links.iter().map(|(at, target)| (at.clone(), Entry::Link(target.clone()))));
            let run = Run { entrypoint: entrypoint.clone(), user: user.clone(), path: path.clone() };
            oci::image(&tree, &run, request.arch)
        }
    }
}

/// Adds programs of Debian packages and all that they need to run.
fn add_programs(tree: &mut Tree, arch: Arch, packages: &[String], programs: &[String], extra: &[String]) -> Result<()> {
    let debian = Debian::open(arch)?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().context("create a scratch directory")?;
    merge_usr(dir.path())?;
    for deb in debian.download(&names, true)? {
        debian.unpack(&deb, dir.path())?;
    }
    let mut closure = Closure { root: dir.path(), arch, tree };
    for program in programs {
        closure.add(program)?;
    }
    for pattern in extra {
        closure.add_matching(pattern)?;
    }
    Ok(())
}

/// The links of a merged /usr, which Debian's packages require and none of them contains.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let directory = root.join("usr").join(name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let link = root.join(name);
        std::os::unix::fs::symlink(format!("usr/{name}"), &link)
            .with_context(|| format!("create {}", link.display()))?;
    }
    Ok(())
}

/// Copies files out of an unpacked system into an image, each with what it needs.
struct Closure<'a> {
    root: &'a Path,
    arch: Arch,
    tree: &'a mut Tree,
}

impl Closure<'_> {
    /// Adds the file at an absolute path, the links on the way to it, and, of a program or library, its dynamic
    /// linker and libraries.
    fn add(&mut self, path: &str) -> Result<()> {
        let at = self.follow(path)?;
        if self.tree.contains_key(&at) {
            return Ok(());
        }
        let file = self.root.join(at.trim_start_matches('/'));
        let bytes = fs::read(&file).with_context(|| format!("read {path} of the unpacked packages"))?;
        let mode =
            fs::metadata(&file).with_context(|| format!("read the mode of {path}"))?.permissions().mode() & 0o777;
        let needs = if elf::is_elf(&bytes) { Some(elf::needs(&bytes)?) } else { None };
        self.tree.insert(at.clone(), Entry::File { bytes, mode, net_bind_service: false });
        let Some(needs) = needs else {
            return Ok(());
        };
        if needs.arch != self.arch {
            bail!("add {path}: it is for {}, the image for {}", needs.arch, self.arch);
        }
        if let Some(interpreter) = needs.interpreter {
            self.add(&interpreter).with_context(|| format!("add the dynamic linker of {path}"))?;
        }
        for library in needs.libraries {
            let found = self.library(&library).with_context(|| format!("find {library}, needed by {path}"))?;
            self.add(&found)?;
        }
        Ok(())
    }

    /// Adds all files whose path is `pattern`, or starts with it when it ends in `*`. None is an error.
    fn add_matching(&mut self, pattern: &str) -> Result<()> {
        let pattern = pattern.replace("{triplet}", self.arch.triplet());
        let Some(start) = pattern.strip_suffix('*') else {
            return self.add(&pattern);
        };
        let (directory, _) = start.rsplit_once('/').with_context(|| format!("read pattern {pattern}: no directory"))?;
        let list = || fs::read_dir(self.root.join(directory.trim_start_matches('/')));
        let mut found = Vec::new();
        for entry in list().with_context(|| format!("list {directory} of the unpacked packages"))? {
            let path = format!("{directory}/{}", entry?.file_name().to_string_lossy());
            if path.starts_with(start) {
                found.push(path);
            }
        }
        if found.is_empty() {
            bail!("find {pattern} in the unpacked packages");
        }
        found.sort();
        found.iter().try_for_each(|path| self.add(path))
    }

    /// Where the dynamic linker looks for a library by default.
    fn library(&self, name: &str) -> Option<String> {
        let directories = [format!("/usr/lib/{}", self.arch.triplet()), "/usr/lib".to_owned()];
        let paths = directories.iter().map(|directory| format!("{directory}/{name}"));
        paths.into_iter().find(|path| self.root.join(path.trim_start_matches('/')).symlink_metadata().is_ok())
    }

    /// Walks an absolute path as the device would, below the root. Adds each link on the way to the image and returns
    /// the path without links.
    fn follow(&mut self, path: &str) -> Result<String> {
        let mut todo: Vec<String> = parts(path);
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{done}/{part}");
            let real = self.root.join(next.trim_start_matches('/'));
            let Ok(target) = fs::read_link(&real) else {
                done = next;
                continue;
            };
            links += 1;
            if links > 40 {
                bail!("follow {path}: too many links");
            }
            let target = target.to_str().with_context(|| format!("read link {next}"))?.to_owned();
            if target.starts_with('/') {
                done.clear();
            }
            todo.extend(parts(&target));
            self.tree.insert(next, Entry::Link(target));
        }
        Ok(done)
    }
}

/// The parts of a path, last first.
fn parts(path: &str) -> Vec<String> {
    let normal = Path::new(path).components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    normal.rev().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
