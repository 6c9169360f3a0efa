// SPDX-License-Identifier: Apache-2.0
//! Known vulnerabilities (RustSec) in the packages of Cargo.lock.
//!
//! The database is data from the network. Without it the check is skipped with the reason, never passed.

use crate::check::Verdict;
use crate::{cache, cmd};
use anyhow::{Context, Result, bail, ensure};
use rustsec::{Database, Lockfile, Report, report::Settings};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use time::{Date, Duration, OffsetDateTime};

/// Environment variable that names a directory with the database; no other place is looked at then.
const DATABASE_ENV: &str = "FIRSTBOOT_ADVISORY_DB";
/// Where the database is published.
const URL: &str = "https://github.com/RustSec/advisory-db";
/// Where clones are kept, in the cache.
const CACHE: &str = "advisories";
/// Several advisories are published every week. A database whose newest one is older than this says nothing about
/// what is known today.
const MAX_AGE: Duration = Duration::days(60);

/// Compares Cargo.lock with the advisory database.
///
/// # Errors
/// Lists the vulnerable packages. Also when the database or Cargo.lock cannot be read.
pub fn check(root: &Path) -> Result<Verdict> {
    let today = OffsetDateTime::now_utc().date();
    let dir = match std::env::var_os(DATABASE_ENV) {
        Some(dir) => named(dir)?,
        None => match fetch(today).or_else(|e| kept().ok_or(e)) {
            Ok(dir) => dir,
            Err(e) => return Ok(Verdict::Skipped(skip_reason(&e))),
        },
    };
    compare(&root.join("Cargo.lock"), &dir, today)
}

/// The directory that [`DATABASE_ENV`] names. A wrong path there is a mistake, not a missing database.
fn named(dir: OsString) -> Result<PathBuf> {
    let dir = PathBuf::from(dir);
    ensure!(dir.is_dir(), "read {DATABASE_ENV}={}: no such directory", dir.display());
    Ok(dir)
}

/// Today's database: one shallow clone a day, kept in the cache.
fn fetch(today: Date) -> Result<PathBuf> {
    let parent = cache::dir()?.join(CACHE);
    let dir = parent.join(today.to_string());
    if dir.exists() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
    let scratch =
        tempfile::tempdir_in(&parent).with_context(|| format!("create a directory in {}", parent.display()))?;
    let clone = scratch.path().join("clone");
    // A network that drops packets must not hold up the other checks.
    let mut command = Command::new("timeout");
    command.args(["60", "git", "clone", "--quiet", "--depth=1", URL]).arg(&clone);
    cmd::run(command.env("GIT_TERMINAL_PROMPT", "0"))?;
    for old in clones(&parent) {
        std::fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    std::fs::rename(&clone, &dir).with_context(|| format!("rename {} to {}", clone.display(), dir.display()))?;
    Ok(dir)
}

/// The newest copy that is on this machine: an earlier day's, or the one that cargo-audit keeps.
fn kept() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let audit = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home)?.join("advisory-db");
    let earlier = cache::dir().map(|dir| clones(&dir.join(CACHE))).unwrap_or_default();
    earlier.into_iter().next_back().or_else(|| audit.is_dir().then_some(audit))
}

/// Whole clones in `dir`, oldest first.
fn clones(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    // Scratch directories begin with a dot.
    let mut names: Vec<OsString> = entries.map(|e| e.file_name()).filter(|n| !n.as_bytes().starts_with(b".")).collect();
    names.sort();
    names.into_iter().map(|name| dir.join(name)).collect()
}

fn skip_reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    // Of a command's output, what it said last.
    let last = text.lines().next_back().unwrap_or_default();
    format!("the RustSec database cannot be fetched ({last}); {DATABASE_ENV} names a directory with a copy of it")
}

/// Compares the packages of `lock` with the database in `dir`.
fn compare(lock: &Path, dir: &Path, today: Date) -> Result<Verdict> {
    let database = Database::open(dir).with_context(|| format!("read the advisory database {}", dir.display()))?;
    let newest = database.iter().map(|advisory| advisory.date().as_str()).max();
    let Some(newest) = newest else { bail!("read the advisory database {}: it is empty", dir.display()) };
    let lock = Lockfile::load(lock).with_context(|| format!("read {}", lock.display()))?;
    let published = lock.packages.iter().filter(|p| p.source.as_ref().is_some_and(|s| s.is_default_registry())).count();
    let report = Report::generate(&database, &lock, &Settings::default());
    let found: Vec<String> = report.vulnerabilities.list.iter().map(line).collect();
    ensure!(found.is_empty(), "check dependencies against known advisories:\n{}", found.join("\n"));
    // Both are written year first, so text compares as time.
    if *newest < *(today - MAX_AGE).to_string() {
        return Ok(Verdict::Skipped(format!("the newest advisory in {} is of {newest}: too old", dir.display())));
    }
    let count = database.iter().count();
    Ok(Verdict::Ok(format!("{published} packages, {count} advisories up to {newest}")))
}

fn line(found: &rustsec::Vulnerability) -> String {
    let (package, advisory) = (&found.package, &found.advisory);
    let patched: Vec<String> = found.versions.patched().iter().map(ToString::to_string).collect();
    let remedy = match patched.as_slice() {
        [] => "no version is fixed".to_owned(),
        versions => format!("fixed in {}", versions.join(" or ")),
    };
    format!("{} {}: {}: {}; {remedy}", package.name, package.version, advisory.id, advisory.title)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TODAY: Date = time::macros::date!(2026 - 11 - 28);

    /// A lock file with one package, and a database with `advisories`, each a file of its own.
    fn compare_with(advisories: &[String]) -> Result<Verdict, String> {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("Cargo.lock");
        let source = "registry+https://github.com/rust-lang/crates.io-index";
        let text =
            format!("version = 4\n\n[[package]]\nname = \"thing\"\nversion = \"1.2.3\"\nsource = \"{source}\"\n");
        std::fs::write(&lock, text).unwrap();
        let database = dir.path().join("db");
        std::fs::create_dir_all(database.join("crates/thing")).unwrap();
        for (number, text) in advisories.iter().enumerate() {
            std::fs::write(database.join(format!("crates/thing/RUSTSEC-2026-{:04}.md", number + 1)), text).unwrap();
        }
        compare(&lock, &database, TODAY).map_err(|e| format!("{e:#}").replace(dir.path().to_str().unwrap(), "DIR"))
    }

    fn advisory(date: &str, patched: &str, more: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"thing\"\ndate = \"{date}\"\n{more}\n\
             [versions]\npatched = [{patched}]\n```\n\n# Things break\n\nThey do.\n"
        )
    }

    fn passed(result: Result<Verdict, String>) -> String {
        match result {
            Ok(Verdict::Ok(text)) => text,
            Ok(Verdict::Skipped(text)) => panic!("skipped: {text}"),
            Err(text) => panic!("{text}"),
        }
    }

    #[test]
    fn vulnerable_package_fails() {
        assert_eq!(
            compare_with(&[advisory("2026-11-01", "\">=1.2.4\"", "")]).err().unwrap(),
            "check dependencies against known advisories:\n\
             thing 1.2.3: RUSTSEC-2026-0001: Things break; fixed in >=1.2.4"
        );
        let unfixed = compare_with(&[advisory("2026-11-01", "", "")]).err().unwrap();
        assert!(unfixed.ends_with("thing 1.2.3: RUSTSEC-2026-0001: Things break; no version is fixed"), "{unfixed}");
    }

    #[test]
    fn patched_version_passes() {
        let text = passed(compare_with(&[advisory("2026-11-01", "\">=1.2.3\"", "")]));
        assert_eq!(text, "1 packages, 1 advisories up to 2026-11-01");
    }

    #[test]
    fn withdrawn_advisory_passes() {
        passed(compare_with(&[advisory("2026-11-01", "", "withdrawn = \"2026-11-02\"")]));
    }

    /// An unmaintained package is no vulnerability.
    #[test]
    fn informational_advisory_passes() {
        passed(compare_with(&[advisory("2026-11-01", "", "informational = \"unmaintained\"")]));
    }

    #[test]
    fn old_database_proves_nothing() {
        let harmless = |date| compare_with(&[advisory(date, "\">=1\"", "")]);
        assert!(matches!(harmless("2026-09-28"), Ok(Verdict::Skipped(_))));
        passed(harmless("2026-09-29"));
        // What it knows counts all the same.
        compare_with(&[advisory("2020-01-01", "", "")]).err().unwrap();
    }

    #[test]
    fn malformed_database_is_an_error() {
        let error = compare_with(&["```toml\n[advisory]\nid = 7\n```\n\n# Title\n".to_owned()]).err().unwrap();
        assert!(error.starts_with("read the advisory database DIR/db: "), "{error}");
        assert!(error.contains("RUSTSEC-2026-0001.md"), "{error}");
        assert_eq!(compare_with(&[]).err().unwrap(), "read the advisory database DIR/db: it is empty");
        let dir = tempfile::tempdir().unwrap();
        let error = compare(&dir.path().join("Cargo.lock"), dir.path(), TODAY).err().unwrap();
        assert!(format!("{error:#}").starts_with("read the advisory database "), "{error:#}");
    }

    #[test]
    fn absent_database_is_a_skip_with_its_reason() {
        let error = anyhow::anyhow!("run `git clone` (exit status: 128):\nfatal: could not resolve host");
        assert_eq!(
            skip_reason(&error),
            "the RustSec database cannot be fetched (fatal: could not resolve host); FIRSTBOOT_ADVISORY_DB names a \
             directory with a copy of it"
        );
        assert_eq!(
            named("/no/such/place".into()).unwrap_err().to_string(),
            "read FIRSTBOOT_ADVISORY_DB=/no/such/place: no such directory"
        );
    }
}
