// SPDX-License-Identifier: Apache-2.0
//! Licences, bans and sources of dependencies, as deny.toml has them.
//!
//! The same file serves cargo-deny, which does this where it is installed. Compiling it takes longer than
//! everything else in `make check` together, so it is not required.

use crate::{check::Verdict, cmd};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The parts of deny.toml that are used here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// The parts of `cargo metadata` that are used here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the workspace's own packages.
    source: Option<String>,
}

/// Crates that only the device needs. Compiling them would delay the first `imagebuild seed check` of a new clone.
const DEVICE_ONLY: [&str; 6] = ["caps", "landlock", "prost", "redb", "seccompiler", "tonic"];

/// Checks that `imagebuild` compiles nothing that only the device needs (feature `device` of firstboot).
///
/// # Errors
/// Names the crates that it compiles all the same.
pub fn check_tools(root: &Path) -> Result<Verdict> {
    let words =
        ["tree", "--locked", "--package", "imagebuild", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree =
        cmd::output(Command::new("cargo").args(words).current_dir(root)).context("list imagebuild's packages")?;
    let tree = String::from_utf8_lossy(&tree);
    let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let found: Vec<&str> = DEVICE_ONLY.into_iter().filter(|name| packages.contains(name)).collect();
    ensure!(packages.contains("firstboot"), "list imagebuild's packages: firstboot is not among them");
    ensure!(found.is_empty(), "keep {} out of imagebuild: only the device needs it", found.join(", "));
    Ok(Verdict::Ok(format!("{} packages, none of the device alone", packages.len())))
}

/// Checks every package in Cargo.lock, for all platforms.
///
/// # Errors
/// Lists what deny.toml does not allow.
pub fn check(root: &Path) -> Result<Verdict> {
    if cmd::found("cargo-deny") {
        let words = ["deny", "--locked", "check", "licenses", "bans", "sources"];
        cmd::run(Command::new("cargo").args(words).current_dir(root)).context("check dependencies with cargo-deny")?;
        return Ok(Verdict::Ok("licences, bans and sources, by cargo-deny".into()));
    }
    let path = root.join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let rules: Rules = toml::from_str(&text).context("read deny.toml")?;
    let words = ["metadata", "--format-version", "1", "--locked"];
    let json = cmd::output(Command::new("cargo").args(words).current_dir(root)).context("list dependencies")?;
    let metadata: Metadata = serde_json::from_slice(&json).context("read the list of dependencies")?;
    let allowed = allow_list(&rules)?;
    let wrong: Vec<String> = metadata.packages.iter().filter_map(|p| objection(p, &rules, &allowed)).collect();
    ensure!(wrong.is_empty(), "check dependencies against deny.toml:\n{}", wrong.join("\n"));
    Ok(Verdict::Ok(format!("licences, bans and sources of {} packages", metadata.packages.len())))
}

fn allow_list(rules: &Rules) -> Result<Vec<spdx::Licensee>> {
    let parse = |l: &String| spdx::Licensee::parse(l).with_context(|| format!("read licence {l} in deny.toml"));
    rules.licenses.allow.iter().map(parse).collect()
}

/// What is wrong with `package`, one line.
fn objection(package: &Package, rules: &Rules, allowed: &[spdx::Licensee]) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    if let Some(ban) = rules.bans.deny.iter().find(|b| b.name == package.name) {
        return Some(format!("{name}: banned: {}", ban.reason));
    }
    if package.source.as_ref().is_some_and(|s| !s.starts_with("registry+")) {
        return Some(format!("{name}: does not come from the registry"));
    }
    let Some(licence) = &package.license else { return Some(format!("{name}: states no licence")) };
    // Lax: accepts the old slash for OR.
    let Ok(expression) = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX) else {
        return Some(format!("{name}: states a licence that cannot be read: {licence}"));
    };
    let fits = expression.evaluate(|term| allowed.iter().any(|a| a.satisfies(term)));
    (!fits).then(|| format!("{name}: licence not allowed: {licence}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn objection_to(name: &str, license: Option<&str>, source: Option<&str>) -> Option<String> {
        let rules: Rules = toml::from_str(include_str!("../../deny.toml")).unwrap();
        let package = Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
        };
        objection(&package, &rules, &allow_list(&rules).unwrap())
    }

    const REGISTRY: Option<&str> = Some("registry+index");

    #[test]
    fn good_packages_pass() {
        assert_eq!(objection_to("a", Some("MIT/Apache-2.0"), REGISTRY), None);
        assert_eq!(objection_to("a", Some("Apache-2.0 AND ISC"), REGISTRY), None);
        assert_eq!(objection_to("a", Some("GPL-2.0-only OR MIT"), REGISTRY), None);
        assert_eq!(objection_to("own", Some("Apache-2.0"), None), None);
    }

    #[test]
    fn bad_licences_are_named() {
        let text = |l| objection_to("a", l, REGISTRY).unwrap();
        assert_eq!(text(Some("GPL-3.0-only")), "a 1.0.0: licence not allowed: GPL-3.0-only");
        assert_eq!(text(Some("MIT AND GPL-3.0-only")), "a 1.0.0: licence not allowed: MIT AND GPL-3.0-only");
        assert_eq!(text(Some("do what you like")), "a 1.0.0: states a licence that cannot be read: do what you like");
        assert_eq!(text(None), "a 1.0.0: states no licence");
    }

    #[test]
    fn banned_crates_and_other_sources_are_named() {
        assert_eq!(
            objection_to("openssl-sys", Some("MIT"), REGISTRY).unwrap(),
            "openssl-sys 1.0.0: banned: rustls serves: no C library on the device"
        );
        assert_eq!(
            objection_to("a", Some("MIT"), Some("git+somewhere")).unwrap(),
            "a 1.0.0: does not come from the registry"
        );
    }
}
