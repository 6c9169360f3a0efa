// SPDX-License-Identifier: Apache-2.0
//! Debian packages of any architecture, resolved and downloaded by apt under a root directory of its own: the
//! build machine's apt state is neither read nor changed, apart from its choice of mirror and proxy.
//!
//! Packages once downloaded stay in the cache, and so do the package lists: a warm build contacts no mirror and
//! gets the same versions. [`Debian::refresh`] fetches new lists.

use crate::arch::Arch;
use crate::{cache, cmd, digest};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that images are made of.
pub const SUITE: &str = "trixie";
/// Names the mirror (`http://HOST/debian`) when the build machine's own apt does not use a Debian one.
pub const MIRROR_ENV: &str = "FIRSTBOOT_DEBIAN_MIRROR";
/// Public keys of the Debian archive; package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The package archive of [`SUITE`] for one architecture.
pub struct Debian {
    arch: Arch,
    root: PathBuf,
    debs: PathBuf,
}

/// A package at one version, as the archive offers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Version with epoch.
    pub version: String,
    /// `arm64`, `amd64` or `all`.
    pub arch: String,
}

impl Package {
    /// File name as apt writes it: `name_version_arch.deb`, with the colon of an epoch escaped.
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.arch)
    }
}

impl Debian {
    /// Opens the archive for `arch`; fetches the package lists when there are none yet.
    pub fn open(arch: Arch) -> Result<Debian> {
        let base = cache::dir()?.join("debs");
        let debian = Debian { arch, root: base.join(format!("apt-{SUITE}-{arch}")), debs: base.join("archive") };
        fs::create_dir_all(&debian.debs).with_context(|| format!("create {}", debian.debs.display()))?;
        let _lock = debian.lock()?;
        if !debian.root.join("updated").exists() || !debian.root.join("answers/essential").exists() {
            debian.update()?;
        }
        Ok(debian)
    }

    /// Fetches new package lists, so that the next build takes the newest versions.
    pub fn refresh(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.update()
    }

    /// The packages that apt would install for `names` on an empty system: with their dependencies (without
    /// recommendations), or alone. Sorted by name. Needs no network.
    pub fn resolve(&self, names: &[&str], with_dependencies: bool) -> Result<Vec<Package>> {
        let question = digest::key(&[&names.join(" "), &with_dependencies.to_string()]);
        if let Some(known) = self.answer(&question) {
            return Ok(known);
        }
        let mut packages = if with_dependencies {
            let text = cmd::output(self.apt("apt-get").args(["-qq", "--simulate", "install"]).args(names))?;
            parse_simulation(&String::from_utf8_lossy(&text))?
        } else {
            let text = cmd::output(self.apt("apt-cache").args(["--no-all-versions", "show"]).args(names))?;
            parse_records(&String::from_utf8_lossy(&text))?
        };
        packages.sort();
        packages.dedup();
        if packages.is_empty() {
            bail!("resolve Debian packages {}: apt names none", names.join(" "));
        }
        let lines = packages.iter().map(|p| format!("{} {} {}\n", p.name, p.version, p.arch));
        self.write(&format!("answers/{question}"), &lines.collect::<String>())?;
        Ok(packages)
    }

    /// What apt said to the same question, with the same lists.
    fn answer(&self, question: &str) -> Option<Vec<Package>> {
        let text = fs::read_to_string(self.root.join("answers").join(question)).ok()?;
        let package = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Package { name: words.next()?, version: words.next()?, arch: words.next()? })
        };
        text.lines().map(package).collect()
    }

    /// Names of the packages that Debian marks essential.
    pub fn essential(&self) -> Result<Vec<String>> {
        let path = self.root.join("answers/essential");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads packages, with their dependencies or alone; returns the .deb files, sorted by name.
    /// What the cache already has is not fetched again.
    pub fn download(&self, names: &[&str], with_dependencies: bool) -> Result<Vec<PathBuf>> {
        self.fetch(&self.resolve(names, with_dependencies)?)
    }

    /// Downloads exactly these packages; returns the .deb files in the order asked.
    pub fn fetch(&self, packages: &[Package]) -> Result<Vec<PathBuf>> {
        let _lock = self.lock()?;
        let missing: Vec<&Package> = packages.iter().filter(|p| !self.debs.join(p.file_name()).exists()).collect();
        if !missing.is_empty() {
            let scratch = self.root.join("download");
            let _ = fs::remove_dir_all(&scratch);
            fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
            let wanted = missing.iter().map(|p| format!("{}={}", p.name, p.version));
            cmd::run(self.apt("apt-get").args(["-qq", "download"]).args(wanted).current_dir(&scratch))
                .context("download Debian packages (lists too old? `imagebuild build --refresh` fetches new ones)")?;
            for package in missing {
                let name = package.file_name();
                fs::rename(scratch.join(&name), self.debs.join(&name)).with_context(|| format!("store {name}"))?;
            }
        }
        Ok(packages.iter().map(|p| self.debs.join(p.file_name())).collect())
    }

    /// Unpacks the files of one .deb below `dir`, without running anything of the package.
    pub fn unpack(&self, deb: &Path, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut source = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(deb)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start dpkg-deb")?;
        let stream = source.stdout.take().context("take the output of dpkg-deb")?;
        // Links of the merged /usr exist already; keep them and write through.
        let unpacked = Command::new("tar")
            .args(["--extract", "--preserve-permissions", "--keep-directory-symlink", "--file=-", "--directory"])
            .arg(dir)
            .stdin(stream)
            .status()
            .context("start tar")?;
        let sent = source.wait().context("wait for dpkg-deb")?;
        ensure!(unpacked.success() && sent.success(), "unpack {} below {}", deb.display(), dir.display());
        Ok(())
    }

    fn update(&self) -> Result<()> {
        let answers = self.root.join("answers");
        if answers.exists() {
            fs::remove_dir_all(&answers).with_context(|| format!("remove {}", answers.display()))?;
        }
        for dir in ["answers", "etc/parts", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        self.write("state/status", crate::rootfs::OWN_PACKAGE)?;
        self.write("etc/sources.list", &sources()?)?;
        self.write("apt.conf", &self.configuration()?)?;
        cmd::run(self.apt("apt-get").args(["-qq", "update"])).context("fetch Debian package lists")?;
        let all = cmd::output(self.apt("apt-cache").arg("dumpavail"))?;
        self.write("answers/essential", &(essentials(&String::from_utf8_lossy(&all)).join("\n") + "\n"))?;
        self.write("updated", "")
    }

    fn configuration(&self) -> Result<String> {
        // Proxies and certificates of the build machine's apt stay in force.
        let acquire = cmd::output(Command::new("apt-config").args(["dump", "--no-empty", "Acquire"]))?;
        let acquire = String::from_utf8_lossy(&acquire);
        let (root, arch) = (self.root.display(), self.arch);
        Ok(format!(
            "{acquire}\n\
             APT::Architecture \"{arch}\";\n\
             APT::Architectures {{ \"{arch}\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Get::AllowUnauthenticated \"false\";\n\
             APT::Get::Assume-Yes \"true\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::AllowInsecureRepositories \"false\";\n\
             Acquire::Retries \"3\";\n\
             Debug::NoLocking \"true\";\n\
             Dir \"{root}\";\n\
             Dir::State \"{root}/state\";\n\
             Dir::State::status \"{root}/state/status\";\n\
             Dir::Cache \"{root}/cache\";\n\
             Dir::Etc \"{root}/etc\";\n\
             Dir::Etc::parts \"{root}/etc/parts\";\n\
             Dir::Etc::sourcelist \"{root}/etc/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Dir::Etc::netrc \"/etc/apt/auth.conf\";\n\
             Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n\
             Dir::Bin::methods \"/usr/lib/apt/methods\";\n\
             Dir::Log \"{root}/log\";\n"
        ))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.root.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.root.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// Held while apt runs: two builds share one cache.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.root).with_context(|| format!("create {}", self.root.display()))?;
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }
}

/// The content of sources.list: the mirrors that the build machine itself uses, for our suite.
fn sources() -> Result<String> {
    let (main, security) = match std::env::var(MIRROR_ENV) {
        Ok(mirror) if !mirror.is_empty() => (Some(mirror), None),
        _ => {
            let format = "$(REPO_URI) $(LABEL)";
            let text = cmd::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
            let text = String::from_utf8_lossy(&text);
            (mirror(&text, "Debian"), mirror(&text, "Debian-Security"))
        }
    };
    let main = main.with_context(|| format!("find a Debian mirror: apt names none; set {MIRROR_ENV}"))?;
    ensure!(Path::new(KEYRING).exists(), "read {KEYRING}: install package debian-archive-keyring");
    let mut text = format!("deb [signed-by={KEYRING}] {main} {SUITE} main\n");
    text += &format!("deb [signed-by={KEYRING}] {main} {SUITE}-updates main\n");
    if let Some(security) = security {
        text += &format!("deb [signed-by={KEYRING}] {security} {SUITE}-security main\n");
    }
    Ok(text)
}

/// The first repository with this label in the output of `apt-get indextargets`.
fn mirror(targets: &str, label: &str) -> Option<String> {
    targets.lines().filter_map(|l| l.split_once(' ')).find(|(_, l)| *l == label).map(|(uri, _)| uri.to_owned())
}

/// Names of the records marked essential, sorted.
fn essentials(records: &str) -> Vec<&str> {
    let marked = |record: &&str| record.lines().any(|l| l == "Essential: yes");
    let names: BTreeSet<&str> =
        records.split("\n\n").filter(marked).filter_map(|record| field(record, "Package")).collect();
    names.into_iter().collect()
}

/// Reads `Inst name (version suite [arch])` lines.
fn parse_simulation(text: &str) -> Result<Vec<Package>> {
    let line = |l: &str| -> Option<Package> {
        let (name, rest) = l.split_once(" (")?;
        let version = rest.split(' ').next()?;
        let arch = rest.split_once("])")?.0.rsplit_once('[')?.1;
        Some(Package { name: name.split(':').next()?.to_owned(), version: version.to_owned(), arch: arch.to_owned() })
    };
    text.lines()
        .filter_map(|l| l.strip_prefix("Inst "))
        .map(|l| line(l).with_context(|| format!("read apt's answer: unknown line `Inst {l}`")))
        .collect()
}

/// Reads records as `apt-cache show` prints them.
fn parse_records(text: &str) -> Result<Vec<Package>> {
    let record = |r: &str| -> Option<Package> {
        Some(Package {
            name: field(r, "Package")?.to_owned(),
            version: field(r, "Version")?.to_owned(),
            arch: field(r, "Architecture")?.to_owned(),
        })
    };
    text.split("\n\n")
        .filter(|r| !r.trim().is_empty())
        .map(|r| record(r).context("read apt's answer: record without name, version or architecture"))
        .collect()
}

/// One field of a Debian control record, first line only.
pub fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn simulation_lines_become_packages() {
        let text = "Inst gcc-14-base (14.2.0-19 Debian:13.1/stable [arm64])\n\
                    Conf gcc-14-base (14.2.0-19 Debian:13.1/stable [arm64])\n\
                    Inst dash (0.5.12-12 Debian:13.1/stable [arm64]) [libc6:arm64 ]\n";
        let got = parse_simulation(text).unwrap();
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].file_name(), "gcc-14-base_14.2.0-19_arm64.deb");
        assert_eq!(got[1].file_name(), "dash_0.5.12-12_arm64.deb");
        assert_eq!(
            parse_simulation("Inst broken\n").unwrap_err().to_string(),
            "read apt's answer: unknown line `Inst broken`"
        );
    }

    #[test]
    fn epochs_are_escaped_in_file_names() {
        let got = parse_records("Package: zlib1g\nVersion: 1:1.3.dfsg-1\nArchitecture: amd64\nFoo: x\n\n").unwrap();
        assert_eq!(got[0].file_name(), "zlib1g_1%3a1.3.dfsg-1_amd64.deb");
        assert!(parse_records("Package: x\n\n").is_err());
    }

    #[test]
    fn essential_packages_are_found_once() {
        let text = "Package: b\nEssential: yes\n\nPackage: a\nEssential: yes\n\nPackage: b\nEssential: yes\n\n\
                    Package: c\nDescription: Essential: yes\n";
        assert_eq!(essentials(text), ["a", "b"]);
    }

    #[test]
    fn the_mirror_is_the_one_with_debians_label() {
        let text = "https://example.net/other Other\nhttp://example.org/debian-security Debian-Security\n\
                    http://example.org/debian Debian\n";
        assert_eq!(mirror(text, "Debian").unwrap(), "http://example.org/debian");
        assert_eq!(mirror(text, "Debian-Security").unwrap(), "http://example.org/debian-security");
        assert_eq!(mirror(text, "Nothing"), None);
    }
}
