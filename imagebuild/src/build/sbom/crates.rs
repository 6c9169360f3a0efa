// SPDX-License-Identifier: Apache-2.0
//! The crates that are compiled into a program of ours: what `cargo tree` says of its target and features.

use super::document::{Component, Kind, encoded};
use crate::{cmd, repo};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;

/// Hex SHA-256 of the archives of crates, by name and version; none of our own packages.
pub type Checksums = BTreeMap<(String, String), Option<String>>;

#[derive(Deserialize)]
struct CargoLock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// What Cargo.lock has.
pub fn checksums() -> Result<Checksums> {
    let path = repo::root()?.join("Cargo.lock");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lock: CargoLock = toml::from_str(&text).context("read Cargo.lock")?;
    Ok(lock.package.into_iter().map(|p| ((p.name, p.version), p.checksum)).collect())
}

/// A package of the workspace, and the crates that are compiled into it for the target `triple`. Derive macros, build
/// scripts and what only tests need are not among them.
///
/// # Errors
/// When cargo cannot list them, or the package itself is not in the list.
pub fn of(package: &str, triple: &str, checksums: &Checksums) -> Result<(Component, Vec<Component>)> {
    let words = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let mut command = Command::new("cargo");
    command.args(words).args(["--package", package, "--target", triple]).current_dir(repo::root()?);
    let tree = cmd::output(&mut command).with_context(|| format!("list the crates of {package}"))?;
    parse(package, &String::from_utf8_lossy(&tree), checksums)
}

fn parse(package: &str, tree: &str, checksums: &Checksums) -> Result<(Component, Vec<Component>)> {
    let (mut own, mut others) = (None, BTreeMap::new());
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|v| v.strip_prefix('v'))) else {
            continue;
        };
        let key = (name.to_owned(), version.to_owned());
        let checksum = checksums.get(&key);
        ensure!(checksum.is_some(), "list the crates of {package}: {name} {version} is not in Cargo.lock");
        match checksum.and_then(Option::as_ref) {
            Some(checksum) => {
                let purl = format!("pkg:cargo/{name}@{}", encoded(version));
                let mut component = Component::new(Kind::Library, name, version, Some(purl));
                component.hash(checksum);
                others.insert(key, component);
            }
            None if name == package => own = Some(Component::new(Kind::Application, name, version, None)),
            // Other packages of ours are part of the program.
            None => {}
        }
    }
    let own = own.with_context(|| format!("list the crates of {package}: it is not among them"))?;
    Ok((own, others.into_values().collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_a_list_without_repetition() {
        let key = |name: &str| (name.to_owned(), "1.0.0".to_owned());
        let sums = Checksums::from([(key("own"), None), (key("a"), Some("aa".into())), (key("b"), Some("bb".into()))]);
        let (own, others) = parse("own", "own v1.0.0 (/x)\nb v1.0.0\na v1.0.0\nb v1.0.0 (*)\n", &sums).unwrap();
        let references: Vec<&str> = others.iter().map(|c| c.reference.as_str()).collect();
        assert_eq!(
            (own.reference.as_str(), references.as_slice()),
            ("own@1.0.0", &["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"][..])
        );
        let error = |tree: &str| parse("own", tree, &sums).unwrap_err().to_string();
        assert_eq!(error("a v1.0.0\n"), "list the crates of own: it is not among them");
        assert_eq!(error("own v1.0.0\nc v2.0.0\n"), "list the crates of own: c 2.0.0 is not in Cargo.lock");
    }

    #[test]
    fn the_device_binary_has_what_it_compiles_and_no_more() {
        let (own, others) = of("firstboot", "x86_64-unknown-linux-musl", &checksums().unwrap()).unwrap();
        let has = |name: &str| others.iter().any(|c| c.reference.starts_with(&format!("pkg:cargo/{name}@")));
        assert!(own.reference.starts_with("firstboot@"));
        assert!(has("tonic") && has("ring") && has("zeroize"), "of its feature `device`, too");
        assert!(!has("clap") && !has("serde_derive") && !has("windows-sys"), "tools, macros, other systems");
    }
}
