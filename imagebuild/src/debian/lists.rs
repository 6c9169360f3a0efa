// SPDX-License-Identifier: Apache-2.0
//! The package lists that are here: of which suites, how old, and what the builder permits them to lack.

use super::{SUITE, field};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// An image that is handed out is made of package lists that were fetched at most so many days ago: Debian's security
/// archive declares its lists valid for as long.
pub const MAX_DAYS: u64 = 7;
/// Names [`Exception`]s, separated by commas.
pub const EXCEPTIONS_ENV: &str = "FIRSTBOOT_DEBIAN_EXCEPTIONS";
const DAY: u64 = 24 * 60 * 60;
/// First word of the file that is written after each update. Earlier versions left it empty, and did not look at the
/// date until which lists are valid.
const CHECKED: &str = "checked";
const UNCHECKED: &str = "unchecked";

/// What a builder may permit package lists to lack. The image's manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exception {
    /// No security updates.
    NoSecurity,
    /// Lists of any age, also past the date until which their signer declares them valid.
    OldLists,
}

impl Exception {
    const ALL: [Exception; 2] = [Exception::NoSecurity, Exception::OldLists];

    /// The word for it in [`EXCEPTIONS_ENV`].
    pub fn word(self) -> &'static str {
        match self {
            Exception::NoSecurity => "no-security",
            Exception::OldLists => "old-lists",
        }
    }
}

/// The exceptions that the builder's environment names.
pub(super) fn exceptions() -> Result<BTreeSet<Exception>> {
    parse(&std::env::var(EXCEPTIONS_ENV).unwrap_or_default())
}

fn parse(text: &str) -> Result<BTreeSet<Exception>> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let known = |word: &str| Exception::ALL.into_iter().find(|e| e.word() == word);
    words
        .map(|word| {
            known(word).with_context(|| format!("read {EXCEPTIONS_ENV}: {word} is not one of no-security, old-lists"))
        })
        .collect()
}

/// What is written after an update under these exceptions.
pub(super) fn mark(exceptions: &BTreeSet<Exception>) -> &'static str {
    if exceptions.contains(&Exception::OldLists) { UNCHECKED } else { CHECKED }
}

/// The lists of one suite, as its signed Release file says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Release {
    /// The suite that was asked for: `trixie-security`.
    pub suite: String,
    /// What the file calls itself.
    #[serde(skip)]
    codename: String,
    /// When the archive wrote it.
    pub date: String,
    /// Until when the archive declares it valid; the main archive does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
}

/// All package lists of one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    /// When they were fetched, in seconds since 1970; 0 when that is not known.
    pub fetched: u64,
    /// Each suite, sorted by name.
    pub releases: Vec<Release>,
    /// Whether apt looked at the dates until which they are valid.
    #[serde(skip)]
    checked: bool,
}

impl Lists {
    /// Reads what apt left in the directory `lists`; `updated` is the file that was written after the last update.
    pub(super) fn read(lists: &Path, updated: &Path) -> Result<Lists> {
        let mut releases = Vec::new();
        for entry in fs::read_dir(lists).into_iter().flatten() {
            let path = entry.with_context(|| format!("list {}", lists.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let base = name.strip_suffix("_InRelease").or_else(|| name.strip_suffix("_Release"));
            let Some((_, suite)) = base.and_then(|base| base.rsplit_once("_dists_")) else { continue };
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let value = |name: &str| field(&text, name).map(str::to_owned);
            releases.push(Release {
                suite: suite.to_owned(),
                codename: value("Codename").unwrap_or_default(),
                date: value("Date").with_context(|| format!("read {}: it has no date", path.display()))?,
                valid_until: value("Valid-Until"),
            });
        }
        releases.sort();
        let time = fs::metadata(updated).and_then(|m| m.modified()).ok();
        let fetched = time.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
        let checked = fs::read_to_string(updated).is_ok_and(|text| text.trim() == CHECKED);
        Ok(Lists { fetched, releases, checked })
    }

    /// Whether security updates are among them.
    pub fn has_security(&self) -> bool {
        let name = format!("{SUITE}-security");
        self.releases.iter().any(|r| r.suite == name && r.codename == name)
    }

    /// The exceptions that an image of these lists needs, at the time `now`.
    pub fn exceptions(&self, now: SystemTime) -> BTreeSet<Exception> {
        let needs = |e: &Exception| match e {
            Exception::NoSecurity => !self.has_security(),
            Exception::OldLists => self.too_old(now).is_some(),
        };
        Exception::ALL.into_iter().filter(needs).collect()
    }

    /// Why they are too old for an image that is handed out, in words.
    pub(super) fn too_old(&self, now: SystemTime) -> Option<String> {
        let fetched = SystemTime::UNIX_EPOCH + Duration::from_secs(self.fetched);
        match now.duration_since(fetched) {
            Err(_) => Some("they are newer than this machine's clock".to_owned()),
            Ok(age) if age.as_secs() > MAX_DAYS * DAY => {
                Some(format!("they are {} days old; {MAX_DAYS} are allowed", age.as_secs() / DAY))
            }
            Ok(_) if !self.checked => Some("they were fetched without a check of their dates".to_owned()),
            Ok(_) => None,
        }
    }

    /// Makes sure that each suite is the one that was asked for: a mirror can hand out one signed file for another, and
    /// apt only warns.
    pub(super) fn check(&self, exceptions: &BTreeSet<Exception>) -> Result<()> {
        for Release { suite, codename, .. } in &self.releases {
            ensure!(suite == codename, "read Debian package lists: the mirror's {suite} calls itself {codename}");
        }
        ensure!(
            self.has_security() || exceptions.contains(&Exception::NoSecurity),
            "read Debian package lists: none of security updates"
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A directory of lists with these suites, each calling itself by the second name.
    fn lists(suites: &[(&str, &str)], updated: &str) -> (tempfile::TempDir, Lists) {
        let dir = tempfile::tempdir().unwrap();
        for (suite, codename) in suites {
            let text = format!(
                "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nCodename: {codename}\n\
                 Date: Wed, 25 Nov 2026 22:33:13 UTC\nValid-Until: Wed, 02 Dec 2026 22:33:13 UTC\n"
            );
            let name = format!("m.example_debian_dists_{suite}_InRelease");
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("m.example_debian_dists_trixie_main_binary-amd64_Packages"), "").unwrap();
        let file = dir.path().join("updated");
        fs::write(&file, updated).unwrap();
        let lists = Lists::read(dir.path(), &file).unwrap();
        (dir, lists)
    }

    const WHOLE: [(&str, &str); 2] = [("trixie-security", "trixie-security"), ("trixie", "trixie")];

    #[test]
    fn s12_lists_without_security_updates_are_refused() {
        let none = BTreeSet::new();
        let (_dir, whole) = lists(&WHOLE, CHECKED);
        whole.check(&none).unwrap();
        assert!(whole.exceptions(SystemTime::now()).is_empty());
        let (_dir, without) = lists(&WHOLE[1..], CHECKED);
        let e = without.check(&none).unwrap_err().to_string();
        assert_eq!(e, "read Debian package lists: none of security updates");
        without.check(&BTreeSet::from([Exception::NoSecurity])).unwrap();
        // The image's manifest says so.
        let needed = without.exceptions(SystemTime::now());
        assert_eq!(serde_json::to_string(&needed).unwrap(), "[\"no-security\"]");
        // A mirror that hands out the main archive's signed file in place of the security archive's.
        let (_dir, mixed) = lists(&[("trixie-security", "trixie"), WHOLE[1]], CHECKED);
        let e = mixed.check(&none).unwrap_err().to_string();
        assert_eq!(e, "read Debian package lists: the mirror's trixie-security calls itself trixie");
    }

    #[test]
    fn s12_old_lists_make_no_image() {
        let (_dir, lists_now) = lists(&WHOLE, CHECKED);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(lists_now.fetched + seconds);
        assert_eq!(lists_now.too_old(at(MAX_DAYS * DAY)), None);
        let old = at(180 * DAY);
        assert_eq!(lists_now.too_old(old).unwrap(), "they are 180 days old; 7 are allowed");
        assert_eq!(lists_now.exceptions(old), BTreeSet::from([Exception::OldLists]));
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(lists_now.fetched - 1);
        assert_eq!(lists_now.too_old(before).unwrap(), "they are newer than this machine's clock");
        // Those that an earlier version fetched, or that were fetched under the exception.
        for mark in ["", UNCHECKED] {
            let (_dir, lists) = lists(&WHOLE, mark);
            let why = lists.too_old(at(1)).unwrap();
            assert_eq!(why, "they were fetched without a check of their dates");
        }
    }

    #[test]
    fn s12_the_manifest_has_the_dates() {
        let (_dir, lists) = lists(&WHOLE, CHECKED);
        let json: serde_json::Value = serde_json::to_value(&lists).unwrap();
        let dates = "{\"date\":\"Wed, 25 Nov 2026 22:33:13 UTC\",\"suite\":\"trixie-security\",\
                     \"valid_until\":\"Wed, 02 Dec 2026 22:33:13 UTC\"}";
        assert_eq!(json["releases"][1].to_string(), dates);
        assert_eq!(json["fetched"], lists.fetched);
    }

    #[test]
    fn exceptions_are_words() {
        assert_eq!(parse("old-lists, no-security,").unwrap(), BTreeSet::from(Exception::ALL));
        assert!(parse("").unwrap().is_empty());
        let e = parse("all").unwrap_err().to_string();
        assert_eq!(e, "read FIRSTBOOT_DEBIAN_EXCEPTIONS: all is not one of no-security, old-lists");
    }
}
