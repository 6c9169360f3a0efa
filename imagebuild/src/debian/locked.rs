// SPDX-License-Identifier: Apache-2.0
//! `T.packages.json`: every Debian package that went into an image or was used to make it, with its digest. A build with
//! `--packages` of that file uses these and no others, whatever the archive offers meanwhile.

use super::lists::{Exception, Lists};
use super::{Debian, Package, Sums, field, parse_records, settings};
use crate::arch::Arch;
use crate::{digest, http};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The one that this process builds with.
static USED: OnceLock<PackageLock> = OnceLock::new();
/// What this process has asked apt, and the answers.
static ASKED: Mutex<BTreeMap<Arch, Answers>> = Mutex::new(BTreeMap::new());

type Answers = BTreeMap<String, Vec<Package>>;

/// Packages of a build, by architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageLock {
    /// Format of this file; 1.
    version: u32,
    /// `amd64`, `arm64`: those of the image, and those of the build machine's tools.
    architectures: BTreeMap<String, Locked>,
}

/// Packages of one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The package lists that they were chosen from.
    pub(super) lists: Lists,
    /// What these lacked, with the builder's permission.
    pub(super) exceptions: BTreeSet<Exception>,
    /// Names of the packages that Debian marks essential.
    pub(super) essential: Vec<String>,
    /// What was asked for, by which files it was answered.
    answers: BTreeMap<String, Vec<String>>,
    /// Every file, by its name.
    packages: BTreeMap<String, LockedPackage>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedPackage {
    name: String,
    version: String,
    arch: String,
    /// Hex SHA-256 of its file.
    sha256: String,
    /// Bytes of its file.
    size: u64,
    /// Where an archive of Debian has it, below its address.
    path: String,
}

/// Builds with these packages from now on, in the whole process.
///
/// # Errors
/// When the file cannot be read, or is of another format.
pub fn use_lock(file: &Path) -> Result<()> {
    let what = || format!("read {}", file.display());
    let text = fs::read(file).with_context(what)?;
    let lock: PackageLock = serde_json::from_slice(&text).with_context(what)?;
    ensure!(lock.version == 1, "{}: format {} is of another version of imagebuild", what(), lock.version);
    ensure!(USED.set(lock).is_ok(), "{}: another one is in use", what());
    Ok(())
}

/// The lock in use, as a file.
pub(super) fn of(arch: Arch) -> Result<Option<&'static Locked>> {
    let Some(lock) = USED.get() else { return Ok(None) };
    let locked = lock.architectures.get(arch.name());
    locked.map(Some).with_context(|| {
        format!("find the locked Debian packages for {arch}: the lock has none; it was made for another target")
    })
}

/// Remembers an answer of apt's.
pub(super) fn note(arch: Arch, question: &str, answer: &[Package]) {
    let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.entry(arch).or_default().insert(question.to_owned(), answer.to_vec());
}

/// Forgets all answers: another image begins.
pub fn begin() {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The lock of what was asked since [`begin`], as a file's text: the one in use, where there is one.
///
/// # Errors
/// When apt does not know a package any more, or gives no digest for it.
pub fn text() -> Result<String> {
    let lock = match USED.get() {
        Some(lock) => lock.clone(),
        None => {
            let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let lock_of = |(arch, answers): (Arch, Answers)| {
                let locked = Debian::open(arch)?.lock_of(&answers).with_context(|| format!("lock packages of {arch}"));
                Ok((arch.name().to_owned(), locked?))
            };
            PackageLock { version: 1, architectures: asked.into_iter().map(lock_of).collect::<Result<_>>()? }
        }
    };
    Ok(serde_json::to_string_pretty(&lock).context("write the lock of Debian packages")? + "\n")
}

impl Locked {
    /// The answer to a question.
    pub(super) fn answer(&self, question: &str) -> Result<Vec<Package>> {
        let files = self.answers.get(question).with_context(|| {
            format!("find locked Debian packages for `{question}`: the lock is of another target or commit")
        })?;
        files.iter().map(|file| self.package(file).map(LockedPackage::package)).collect()
    }

    fn package(&self, file: &str) -> Result<&LockedPackage> {
        self.packages.get(file).with_context(|| format!("find locked Debian package {file}: the lock does not have it"))
    }

    /// The digests of all packages.
    pub(super) fn sums(&self) -> Sums {
        Sums(self.packages.iter().map(|(file, one)| (file.clone(), BTreeSet::from([one.sha256.clone()]))).collect())
    }

    /// Downloads packages into a directory, each from the first archive that has the locked file.
    ///
    /// # Errors
    /// When none has it: with each one's answer.
    pub(super) fn download(&self, packages: &[&Package], directory: &Path) -> Result<()> {
        let archives = settings::archives(&self.exceptions)?;
        let to = |package: &Package| directory.join(package.file_name());
        packages.iter().try_for_each(|package| self.download_one(package, &archives, &to(package)))
    }

    fn download_one(&self, package: &Package, archives: &[String], to: &Path) -> Result<()> {
        let locked = self.package(&package.file_name())?;
        let mut refused = Vec::new();
        for archive in archives {
            let url = format!("{}/{}", archive.trim_end_matches('/'), locked.path);
            let mut file = fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
            match http::get(&url, http::Limit::of(locked.size), &mut file) {
                Ok(()) if digest::file(to)? == locked.sha256 => return Ok(()),
                Ok(()) => refused.push(format!("get {url}: its digest is another one")),
                Err(error) => refused.push(format!("{error:#}")),
            }
        }
        let (name, why) = (package.file_name(), refused.join("; "));
        bail!(
            "download {name}: {why}; archives remove old versions: {} may name one that keeps them",
            settings::MIRROR_ENV
        )
    }
}

impl LockedPackage {
    fn package(&self) -> Package {
        Package { name: self.name.clone(), version: self.version.clone(), arch: self.arch.clone() }
    }
}

impl Debian {
    /// The lock of these answers.
    fn lock_of(&self, answers: &Answers) -> Result<Locked> {
        let packages: BTreeSet<&Package> = answers.values().flatten().collect();
        let packages: Vec<Package> = packages.into_iter().cloned().collect();
        let files = |answer: &Vec<Package>| answer.iter().map(Package::file_name).collect();
        Ok(Locked {
            exceptions: self.exceptions()?,
            lists: self.lists()?,
            essential: self.essential()?,
            answers: answers.iter().map(|(question, answer)| (question.clone(), files(answer))).collect(),
            packages: parse(&self.records(&packages)?)?,
        })
    }
}

/// Reads records as `apt-cache show` prints them. Of two archives with the same version the first one counts.
fn parse(text: &str) -> Result<BTreeMap<String, LockedPackage>> {
    let mut packages = BTreeMap::new();
    for record in text.split("\n\n").filter(|record| !record.trim().is_empty()) {
        let package = parse_records(record)?.into_iter().next().context("read apt's answer: no record")?;
        let file = package.file_name();
        let value = |name: &str| {
            field(record, name).map(str::to_owned).with_context(|| format!("read apt's answer: no {name} of {file}"))
        };
        let size = value("Size")?.parse().with_context(|| format!("read apt's answer: the size of {file}"))?;
        let (sha256, path) = (value("SHA256")?, value("Filename")?);
        let Package { name, version, arch } = package;
        packages.entry(file).or_insert(LockedPackage { name, version, arch, sha256, size, path });
    }
    Ok(packages)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::testing::Server;

    fn record(name: &str, content: &str) -> String {
        let (sum, size) = (digest::bytes(content), content.len());
        format!(
            "Package: {name}\nVersion: 1:2\nArchitecture: all\nFilename: pool/{name}.deb\nSize: {size}\nSHA256: {sum}\n\n"
        )
    }

    fn locked(packages: &[(&str, &str)]) -> Locked {
        let text: String = packages.iter().map(|(name, content)| record(name, content)).collect();
        let packages = parse(&text).unwrap();
        let answers = BTreeMap::from([("a b".to_owned(), packages.keys().cloned().collect())]);
        let lists = Lists::read(Path::new("/nonexistent"), Path::new("/nonexistent")).unwrap();
        Locked { lists, exceptions: BTreeSet::new(), essential: vec!["a".into()], answers, packages }
    }

    #[test]
    fn a_lock_answers_what_it_was_asked_and_nothing_else() {
        let locked = locked(&[("a", "1"), ("b", "2")]);
        let names: Vec<String> = locked.answer("a b").unwrap().iter().map(Package::file_name).collect();
        assert_eq!(names, ["a_1%3a2_all.deb", "b_1%3a2_all.deb"]);
        let error = locked.answer("a").unwrap_err().to_string();
        assert_eq!(error, "find locked Debian packages for `a`: the lock is of another target or commit");
        let lock = PackageLock { version: 1, architectures: BTreeMap::from([("amd64".to_owned(), locked)]) };
        let text = serde_json::to_string(&lock).unwrap();
        assert_eq!(serde_json::from_str::<PackageLock>(&text).unwrap(), lock);
        let more = text.replacen("{\"version\":1", "{\"more\":1,\"version\":1", 1);
        serde_json::from_str::<PackageLock>(&more).unwrap_err();
    }

    #[test]
    fn a_record_without_a_digest_is_none() {
        let text = record("a", "1").replace("SHA256", "MD5sum");
        assert_eq!(parse(&text).unwrap_err().to_string(), "read apt's answer: no SHA256 of a_1%3a2_all.deb");
    }

    #[test]
    fn s12_a_locked_package_is_taken_from_an_archive_that_has_that_very_file() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.deb");
        let locked = locked(&[("a", "the file")]);
        let package = locked.answer("a b").unwrap().remove(0);
        let empty = Server::start(Vec::new()).url("/debian");
        let changed = Server::start(vec![("/debian/pool/a.deb", b"another!".to_vec())]).url("/debian");
        let good = Server::start(vec![("/debian/pool/a.deb", b"the file".to_vec())]).url("/debian");
        locked.download_one(&package, &[empty.clone(), changed.clone(), good], &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"the file");
        let error = locked.download_one(&package, &[empty.clone(), changed.clone()], &to).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "download a_1%3a2_all.deb: get {empty}/pool/a.deb: 404 Not Found; get {changed}/pool/a.deb: its digest is \
                 another one; archives remove old versions: FIRSTBOOT_DEBIAN_MIRROR may name one that keeps them"
            )
        );
    }
}
