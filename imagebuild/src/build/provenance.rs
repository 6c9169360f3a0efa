// SPDX-License-Identifier: Apache-2.0
//! `T.provenance.json`: who made an image of what: an in-toto statement (in-toto attestation framework, spec v1) with a SLSA
//! provenance (<https://slsa.dev/spec/v1.1/provenance>) for its predicate.
//!
//! It says what the builder says. It is worth what the signature of `SHA256SUMS` is worth, which covers it.

use super::manifest::Packages;
use super::{Image, Parts};
use crate::{cmd, digest, lock, repo};
use anyhow::{Context, Result};
use firstboot::image::ImageInfo;
use firstboot::text::timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// `_type` of an in-toto statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a SLSA provenance.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean: docs/targets.md, "Provenance".
pub const BUILD_TYPE: &str = "urn:firstboot:image-build:1";
/// Files of the clone that lock what goes into an image.
const LOCKS: [&str; 2] = [lock::FILE, "Cargo.lock"];

/// A statement about files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// The files that it is about.
    pub subject: Vec<Resource>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// What is said.
    pub predicate: Predicate,
}

/// A file, or what a file was made of (in-toto ResourceDescriptor): a name or an address, and digests by algorithm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<String, String>,
}

impl Resource {
    fn file(name: &str, sha256: String) -> Resource {
        Resource { name: Some(name.to_owned()), uri: None, digest: BTreeMap::from([("sha256".into(), sha256)]) }
    }
}

/// How the files were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Predicate {
    /// What was asked for, and what it was made of.
    pub build_definition: Definition,
    run_details: Run,
}

/// What was asked for, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Definition {
    build_type: String,
    /// What a user chose.
    pub external_parameters: BTreeMap<String, String>,
    /// Key of the recipe: the same key is the same build.
    internal_parameters: BTreeMap<String, String>,
    /// The clone, its locks, packages, programs and container images.
    pub resolved_dependencies: Vec<Resource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Run {
    builder: Builder,
    metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Builder {
    id: String,
    version: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Metadata {
    invocation_id: String,
    /// The time that the image believes, RFC 3339: that of the build, or `SOURCE_DATE_EPOCH`.
    finished_on: String,
}

/// The predicate of an image that is being assembled: the clone may be another one when its files are written.
///
/// # Errors
/// When a lock cannot be read.
pub fn predicate(parts: &Parts, packages: &Packages, info: &ImageInfo, fixed: Option<u64>) -> Result<Predicate> {
    let root = repo::root()?;
    let mut dependencies = vec![source(&root)];
    for name in LOCKS {
        dependencies.push(Resource::file(name, digest::file(&root.join(name))?));
    }
    for package in &packages.rootfs.packages {
        let uri = format!("pkg:deb/debian/{}@{}?arch={}", package.name, package.version, package.arch);
        // The digest is that of the list, which is signed by Debian; a package is verified by it when it is fetched.
        dependencies.push(Resource { uri: Some(uri), ..Resource::default() });
    }
    let mut parameters = BTreeMap::from([("target".to_owned(), info.target.clone())]);
    if let Some(bundle) = parts.bundle.as_ref().map(|bundle| &bundle.manifest) {
        parameters.insert("kubernetes-version".to_owned(), bundle.kubernetes.clone());
        let files = bundle.files.iter().map(|file| (&file.path, &file.sha256));
        let images = bundle.images.iter().map(|image| (&image.name, &image.sha256));
        dependencies.extend(files.chain(images).map(|(name, sha256)| Resource::file(name, sha256.clone())));
    }
    parameters.extend(fixed.map(|time| ("source-date-epoch".to_owned(), time.to_string())));
    if let Some(program) = &parts.firstboot {
        dependencies.push(Resource::file("firstboot", digest::file(program)?));
    }
    Ok(Predicate {
        build_definition: Definition {
            build_type: BUILD_TYPE.to_owned(),
            external_parameters: parameters,
            internal_parameters: BTreeMap::from([("build-id".to_owned(), info.build_id.clone())]),
            resolved_dependencies: dependencies,
        },
        run_details: Run {
            builder: Builder {
                id: "urn:firstboot:imagebuild".to_owned(),
                version: BTreeMap::from([("imagebuild".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            },
            metadata: Metadata { invocation_id: info.build_id.clone(), finished_on: timestamp(info.build_time) },
        },
    })
}

/// The clone. One without git, as an unpacked archive, has no commit; one with changes says so by its name.
fn source(root: &Path) -> Resource {
    let git = |words: &[&str]| -> Option<String> {
        let output = cmd::output(Command::new("git").arg("-C").arg(root).args(words)).ok()?;
        Some(String::from_utf8_lossy(&output).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|lines| !lines.is_empty());
    let name = if changed { "firstboot, with changes that are not committed" } else { "firstboot" };
    let digest = git(&["rev-parse", "HEAD"]).map(|commit| ("gitCommit".to_owned(), commit));
    Resource { name: Some(name.to_owned()), uri: None, digest: digest.into_iter().collect() }
}

/// Writes the statement about the files of an image, by their names and digests.
///
/// # Errors
/// When the predicate cannot be read, or the statement not written.
pub fn write(image: &Image, files: &[(String, String)], to: &Path) -> Result<()> {
    let from = image.dir.join(image.file(ENDING_OF_PREDICATE));
    let text = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
    let predicate = serde_json::from_slice(&text).with_context(|| format!("read {}", from.display()))?;
    let text = serde_json::to_string_pretty(&statement(predicate, files)).context("write the provenance")? + "\n";
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

/// The predicate in the cache, from which the statement is made.
pub const ENDING_OF_PREDICATE: &str = "predicate.json";

fn statement(predicate: Predicate, files: &[(String, String)]) -> Statement {
    Statement {
        kind: STATEMENT.to_owned(),
        subject: files.iter().map(|(name, sha256)| Resource::file(name, sha256.clone())).collect(),
        predicate_type: PREDICATE.to_owned(),
        predicate,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn example() -> Value {
        let definition = Definition {
            build_type: BUILD_TYPE.into(),
            external_parameters: BTreeMap::from([("target".into(), "generic-amd64".into())]),
            internal_parameters: BTreeMap::from([("build-id".into(), "abc".into())]),
            resolved_dependencies: vec![
                source(&repo::root().unwrap()),
                Resource { uri: Some("pkg:deb/debian/libc6@2.41".into()), ..Resource::default() },
            ],
        };
        let run = Run {
            builder: Builder { id: "urn:x".into(), version: BTreeMap::new() },
            metadata: Metadata { invocation_id: "abc".into(), finished_on: timestamp(1_795_365_108) },
        };
        let predicate = Predicate { build_definition: definition, run_details: run };
        let files = [("a.img".to_owned(), "0".repeat(64)), ("a.img.zst".to_owned(), "1".repeat(64))];
        serde_json::to_value(statement(predicate, &files)).unwrap()
    }

    /// The fields that the two specifications require, with their types; what they do not have is refused.
    #[test]
    fn a_statement_has_what_in_toto_and_slsa_require() {
        let value = example();
        assert_eq!((&value["_type"], &value["predicateType"]), (&STATEMENT.into(), &PREDICATE.into()));
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&value), ["_type", "predicate", "predicateType", "subject"]);
        for subject in value["subject"].as_array().unwrap() {
            // A subject must have a digest; in-toto has hex in lower case.
            let digest = subject["digest"]["sha256"].as_str().unwrap();
            assert!(digest.len() == 64 && subject["name"].is_string());
        }
        let definition = &value["predicate"]["buildDefinition"];
        let want = ["buildType", "externalParameters", "internalParameters", "resolvedDependencies"];
        assert_eq!(names(definition), want);
        // A TypeURI has a scheme.
        assert!(definition["buildType"].as_str().unwrap().contains(':'));
        for dependency in definition["resolvedDependencies"].as_array().unwrap() {
            // At least one of uri, digest and content; the commit of a clone that has one.
            assert!(dependency["uri"].is_string() || dependency["digest"].is_object(), "{dependency}");
        }
        let commit = definition["resolvedDependencies"][0]["digest"]["gitCommit"].as_str().unwrap();
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()));
        let run = &value["predicate"]["runDetails"];
        assert_eq!(
            (names(run), names(&run["metadata"])),
            (vec!["builder".into(), "metadata".into()], vec!["finishedOn".into(), "invocationId".into()])
        );
        assert!(run["builder"]["id"].as_str().unwrap().contains(':'));
        assert_eq!(run["metadata"]["finishedOn"], "2026-11-22T16:31:48Z");
        // It is read back as it is, and nothing else is.
        let read: Statement = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
        let mut more = value;
        more["materials"] = Value::Null;
        serde_json::from_value::<Statement>(more).unwrap_err();
    }
}
