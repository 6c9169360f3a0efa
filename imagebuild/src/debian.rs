// SPDX-License-Identifier: Apache-2.0
//! Debian packages of any architecture, resolved and downloaded by apt under a root directory of its own: the
//! build machine's apt state is neither read nor changed, apart from its choice of mirror and proxy.
//!
//! Packages once downloaded stay in the cache, and so do the package lists: a warm build contacts no mirror and
//! gets the same versions. [`Debian::refresh`] fetches new lists, and [`Debian::renew`] does where they are old. Each use
//! of a package compares it with the digest in the lists, which Debian's archive signs.

pub mod lists;
pub mod locked;
mod settings;

use crate::arch::Arch;
use crate::{cache, cmd, digest};
use anyhow::{Context, Result, bail, ensure};
use lists::{Exception, Lists};
use locked::Locked;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::SystemTime;

/// The release that images are made of.
pub const SUITE: &str = "trixie";

/// The package archive of [`SUITE`] for one architecture.
pub struct Debian {
    arch: Arch,
    root: PathBuf,
    debs: PathBuf,
    /// The packages that this build is confined to.
    locked: Option<&'static Locked>,
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

/// Address of the archive that packages of [`SUITE`] come from: the builder's, or that of this machine's apt.
///
/// # Errors
/// When neither names one.
pub fn mirror() -> Result<String> {
    let archives = settings::archives(&BTreeSet::from([Exception::NoSecurity]))?;
    archives.into_iter().next().context("find a Debian mirror")
}

impl Debian {
    /// Opens the archive for `arch`; fetches the package lists when there are none yet, or none of security updates.
    ///
    /// # Errors
    /// When lists cannot be fetched, or none of security updates can be had and that is no [`Exception`] of the builder.
    pub fn open(arch: Arch) -> Result<Debian> {
        let base = cache::dir()?.join("debs");
        fs::create_dir_all(base.join("archive")).with_context(|| format!("create {}", base.display()))?;
        // apt's configuration has this path, and a cache that is reached by a link may be reached by another one later.
        let base = base.canonicalize().with_context(|| format!("resolve {}", base.display()))?;
        let (root, debs) = (base.join(format!("apt-{SUITE}-{arch}")), base.join("archive"));
        let debian = Debian { arch, root, debs, locked: locked::of(arch)? };
        if debian.locked.is_some() {
            return Ok(debian);
        }
        let _lock = debian.lock()?;
        let exceptions = lists::exceptions()?;
        // Earlier versions fetched lists of fewer components.
        let sources = fs::read_to_string(debian.root.join("etc/sources.list")).unwrap_or_default();
        let complete = ["updated", "answers/essential"].iter().all(|name| debian.root.join(name).exists())
            && sources.contains(settings::COMPONENTS)
            && (debian.lists()?.has_security() || exceptions.contains(&Exception::NoSecurity));
        if !complete {
            debian.update(&exceptions)?;
        }
        Ok(debian)
    }

    /// The package lists that this archive has, or that the locked packages were chosen from.
    pub fn lists(&self) -> Result<Lists> {
        if let Some(locked) = self.locked {
            return Ok(locked.lists.clone());
        }
        Lists::read(&self.root.join("state/lists"), &self.root.join("updated"))
    }

    /// What these lists lack, with the builder's permission.
    pub fn exceptions(&self) -> Result<BTreeSet<Exception>> {
        match self.locked {
            Some(locked) => Ok(locked.exceptions.clone()),
            None => Ok(self.lists()?.exceptions(SystemTime::now())),
        }
    }

    /// Fetches new package lists where those here are too old for an image that is handed out: older than
    /// [`lists::MAX_DAYS`], or fetched without a look at the date until which they are valid.
    ///
    /// # Errors
    /// When they cannot be fetched. With [`Exception::OldLists`] they stay as they are.
    pub fn renew(&self) -> Result<()> {
        if self.locked.is_some() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let exceptions = lists::exceptions()?;
        let Some(why) = self.lists()?.too_old(SystemTime::now()) else { return Ok(()) };
        if exceptions.contains(&Exception::OldLists) {
            return Ok(());
        }
        let (variable, word) = (lists::EXCEPTIONS_ENV, Exception::OldLists.word());
        self.update(&exceptions).with_context(|| {
            format!("renew Debian package lists ({why}; {variable}={word} uses them, and the image's manifest says so)")
        })
    }

    /// Fetches new package lists, so that the next build takes the newest versions.
    pub fn refresh(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.update(&lists::exceptions()?)
    }

    /// The packages that apt would install for `names` on an empty system: with their dependencies (without
    /// recommendations), or alone. Sorted by name. Needs no network.
    pub fn resolve(&self, names: &[&str], with_dependencies: bool) -> Result<Vec<Package>> {
        let words = names.join(" ") + if with_dependencies { ", with what they depend on" } else { "" };
        let packages = match self.locked {
            Some(locked) => locked.answer(&words)?,
            None => self.ask(names, with_dependencies)?,
        };
        locked::note(self.arch, &words, &packages);
        Ok(packages)
    }

    /// What apt says to a question.
    fn ask(&self, names: &[&str], with_dependencies: bool) -> Result<Vec<Package>> {
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
        if let Some(locked) = self.locked {
            return Ok(locked.essential.clone());
        }
        let path = self.root.join("answers/essential");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads packages, with their dependencies or alone; returns the .deb files, sorted by name.
    /// What the cache already has is not fetched again.
    pub fn download(&self, names: &[&str], with_dependencies: bool) -> Result<Vec<PathBuf>> {
        self.fetch(&self.resolve(names, with_dependencies)?)
    }

    /// Downloads exactly these packages; returns the .deb files in the order asked. Each has the digest that the lock or the
    /// package lists have for it; one in the cache that has another is downloaded again.
    pub fn fetch(&self, packages: &[Package]) -> Result<Vec<PathBuf>> {
        let _lock = self.lock()?;
        let (sums, source) = match self.locked {
            Some(locked) => (locked.sums(), "lock"),
            None => (self.sums(packages)?, "package lists"),
        };
        let mut missing = Vec::new();
        for package in packages {
            let path = self.debs.join(package.file_name());
            if !path.exists() {
                missing.push(package);
            } else if !sums.agree(package, &path)? {
                eprintln!("imagebuild: {} differs from the {source}: downloaded again", path.display());
                missing.push(package);
            }
        }
        if !missing.is_empty() {
            let scratch = self.root.join("download");
            let _ = fs::remove_dir_all(&scratch);
            fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
            match self.locked {
                Some(locked) => locked.download(&missing, &scratch)?,
                None => {
                    let wanted = missing.iter().map(|p| format!("{}={}", p.name, p.version));
                    cmd::run(self.apt("apt-get").args(["-qq", "download"]).args(wanted).current_dir(&scratch))
                        .context(
                            "download Debian packages (lists too old? `imagebuild build --refresh` fetches new ones)",
                        )?;
                }
            }
            for package in missing {
                let name = package.file_name();
                ensure!(sums.agree(package, &scratch.join(&name))?, "verify {name}: it differs from the {source}");
                fs::rename(scratch.join(&name), self.debs.join(&name)).with_context(|| format!("store {name}"))?;
            }
        }
        Ok(packages.iter().map(|p| self.debs.join(p.file_name())).collect())
    }

    /// Unpacks the files of one .deb below `dir`, without running anything of the package.
    pub fn unpack(&self, deb: &Path, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (mut source, stream) = files_of(deb)?;
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

    /// What the package lists say of the files of these packages.
    fn sums(&self, packages: &[Package]) -> Result<Sums> {
        if packages.is_empty() {
            return Ok(Sums::default());
        }
        parse_sums(&self.records(packages)?)
    }

    /// What the package lists have about these packages.
    fn records(&self, packages: &[Package]) -> Result<String> {
        let wanted = packages.iter().map(|p| format!("{}={}", p.name, p.version));
        let text = cmd::output(self.apt("apt-cache").arg("show").args(wanted))
            .context("find Debian packages in the package lists (`imagebuild build --refresh` fetches new ones)")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn update(&self, exceptions: &BTreeSet<Exception>) -> Result<()> {
        for dir in ["etc/parts", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        self.write("state/status", crate::rootfs::OWN_PACKAGE)?;
        self.write("etc/sources.list", &settings::sources(exceptions)?)?;
        self.write("apt.conf", &settings::configuration(&self.root, self.arch, exceptions)?)?;
        cmd::run(self.apt("apt-get").args(["-qq", "update"])).context("fetch Debian package lists")?;
        let answers = self.root.join("answers");
        if answers.exists() {
            fs::remove_dir_all(&answers).with_context(|| format!("remove {}", answers.display()))?;
        }
        fs::create_dir_all(&answers).with_context(|| format!("create {}", answers.display()))?;
        self.write("updated", lists::mark(exceptions))?;
        self.lists()?.check(exceptions)?;
        let all = cmd::output(self.apt("apt-cache").arg("dumpavail"))?;
        self.write("answers/essential", &(essentials(&String::from_utf8_lossy(&all)).join("\n") + "\n"))
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
        cache::lock_file(&self.root.join("lock"))
    }
}

/// The files of one .deb as a tar stream, and the program that writes it: who has read the stream to its end waits for
/// that.
///
/// # Errors
/// When dpkg-deb cannot be started.
pub fn files_of(deb: &Path) -> Result<(Child, ChildStdout)> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut source = command.spawn().context("start dpkg-deb")?;
    let stream = source.stdout.take().context("take the output of dpkg-deb")?;
    Ok((source, stream))
}

/// SHA-256 of packages' files as the package lists or a lock have them, by the files' names.
#[derive(Debug, Default)]
struct Sums(BTreeMap<String, BTreeSet<String>>);

impl Sums {
    /// Whether a file is the one of the lists.
    fn agree(&self, package: &Package, file: &Path) -> Result<bool> {
        let name = package.file_name();
        let known = self.0.get(&name).with_context(|| format!("verify {name}: the package lists do not have it"))?;
        Ok(known.contains(&digest::file(file)?))
    }
}

/// Reads the digests in records as `apt-cache show` prints them. Two archives may have the same version.
fn parse_sums(text: &str) -> Result<Sums> {
    let mut sums = Sums::default();
    for record in text.split("\n\n").filter(|r| !r.trim().is_empty()) {
        let package = parse_records(record)?.into_iter().next().context("read apt's answer: no record")?;
        let sum = field(record, "SHA256")
            .with_context(|| format!("read apt's answer: no SHA256 of {}", package.file_name()))?;
        sums.0.entry(package.file_name()).or_default().insert(sum.to_owned());
    }
    Ok(sums)
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
    fn s12_a_package_that_was_changed_in_the_cache_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a_1_all.deb");
        std::fs::write(&file, "as signed").unwrap();
        let record = |sum: &str| format!("Package: a\nVersion: 1\nArchitecture: all\n{sum}\n\n");
        let sums = parse_sums(&record(&format!("SHA256: {}", digest::bytes("as signed")))).unwrap();
        let package = |version: &str| Package { name: "a".into(), version: version.into(), arch: "all".into() };
        assert!(sums.agree(&package("1"), &file).unwrap());
        std::fs::write(&file, "an attacker's").unwrap();
        assert!(!sums.agree(&package("1"), &file).unwrap());
        let e = sums.agree(&package("2"), &file).unwrap_err().to_string();
        assert_eq!(e, "verify a_2_all.deb: the package lists do not have it");
        let e = parse_sums(&record("MD5sum: 00")).unwrap_err().to_string();
        assert_eq!(e, "read apt's answer: no SHA256 of a_1_all.deb");
    }

    /// With apt itself: a file in the cache that is not the archive's is never used.
    #[test]
    fn s12_a_changed_package_is_downloaded_again() {
        if !crate::cmd::found("apt-get") {
            return;
        }
        let shared = Debian::open(Arch::Amd64).unwrap();
        let package = shared.resolve(&["libnfnetlink0"], false).unwrap();
        let good = digest::file(&shared.fetch(&package).unwrap()[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let own = Debian { arch: Arch::Amd64, root: shared.root.clone(), debs: dir.path().to_owned(), locked: None };
        let changed = dir.path().join(package[0].file_name());
        std::fs::write(&changed, "an attacker's").unwrap();
        assert_eq!(own.fetch(&package).unwrap(), std::slice::from_ref(&changed));
        assert_eq!(digest::file(&changed).unwrap(), good);
    }
}
