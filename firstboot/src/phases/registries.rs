// SPDX-License-Identifier: Apache-2.0
//! Where containerd pulls from: one directory for each registry, with its `hosts.toml` (containerd docs/hosts.md). containerd
//! reads it at every pull, so nothing is restarted.

use crate::host::Host;
use crate::host::managed_files::{self, Changes, File};
use crate::paths::REGISTRIES;
use crate::seed::{Mirror, Registry};
use anyhow::Result;

/// Whether firstboot configured exactly these registries.
pub(super) fn hold(host: &Host, registries: &[Registry]) -> Result<bool> {
    managed_files::hold(host, &files(registries), &directories(host)?)
}

/// Tells containerd of these registries, and of no others by us.
pub(super) fn put(host: &Host, registries: &[Registry]) -> Result<Changes> {
    managed_files::put(host, &files(registries), &directories(host)?)
}

fn directories(host: &Host) -> Result<Vec<String>> {
    Ok(host.list(REGISTRIES)?.into_iter().map(|name| format!("{REGISTRIES}/{name}")).collect())
}

pub(super) fn files(registries: &[Registry]) -> Vec<File> {
    let mut files = Vec::new();
    for registry in registries {
        // containerd's name for "any other".
        let name = if registry.name == "*" { "_default" } else { &registry.name };
        let ca_path = format!("{REGISTRIES}/{name}/ca.crt");
        let ca = registry.ca.as_ref().map(|_| ca_path.as_str());
        files.push(File::public(format!("{REGISTRIES}/{name}/hosts.toml"), &hosts(&registry.mirrors, ca)));
        if let Some(pem) = &registry.ca {
            // Text before the first certificate is skipped by all who read PEM (RFC 7468, 2).
            files.push(File::public(ca_path, pem));
        }
    }
    files
}

/// `hosts.toml`; `ca` is the path of the CA's file. The registry itself comes after the mirrors by itself; its name says what its server is.
pub fn hosts(mirrors: &[Mirror], ca: Option<&str>) -> String {
    let ca = ca.map(|path| format!("ca = \"{path}\"\n")).unwrap_or_default();
    if mirrors.is_empty() {
        return ca;
    }
    let mut text = String::new();
    for mirror in mirrors {
        // A mirror is asked for images and for what a tag stands for; nothing is pushed to it.
        text += &format!("\n[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url);
        if mirror.whole_path {
            text += "override_path = true\n";
        }
        if mirror.is_https() {
            text += &ca;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn registry(name: &str, mirrors: &[&str], ca: bool) -> Registry {
        Registry {
            name: name.into(),
            mirrors: mirrors.iter().map(|m| Mirror::parse(m).unwrap()).collect(),
            ca: ca.then(|| "-----BEGIN CERTIFICATE-----\n".into()),
        }
    }

    fn shown(registries: &[Registry]) -> String {
        files(registries).iter().map(|f| format!("{:o} {}\n{}", f.mode, f.path, *f.text)).collect()
    }

    #[test]
    fn mirrors_word_by_word() {
        let mirrors = ["https://mirror.example:5000/", "https://harbor.example/v2/hub/", "http://192.0.2.7"];
        assert_eq!(
            shown(&[registry("docker.io", &mirrors, true), registry("*", &["https://all.example"], false)]),
            "\
644 /etc/containerd/certs.d/docker.io/hosts.toml
# Written by firstboot.

[host.\"https://mirror.example:5000\"]
capabilities = [\"pull\", \"resolve\"]
ca = \"/etc/containerd/certs.d/docker.io/ca.crt\"

[host.\"https://harbor.example/v2/hub\"]
capabilities = [\"pull\", \"resolve\"]
override_path = true
ca = \"/etc/containerd/certs.d/docker.io/ca.crt\"

[host.\"http://192.0.2.7\"]
capabilities = [\"pull\", \"resolve\"]
644 /etc/containerd/certs.d/docker.io/ca.crt
# Written by firstboot.
-----BEGIN CERTIFICATE-----
644 /etc/containerd/certs.d/_default/hosts.toml
# Written by firstboot.

[host.\"https://all.example\"]
capabilities = [\"pull\", \"resolve\"]
"
        );
    }

    #[test]
    fn a_registry_with_a_ca_of_its_own() {
        assert!(shown(&[registry("registry.example:5000", &[], true)]).starts_with(
            "644 /etc/containerd/certs.d/registry.example:5000/hosts.toml\n# Written by firstboot.\nca = \
             \"/etc/containerd/certs.d/registry.example:5000/ca.crt\"\n644 "
        ));
    }

    #[test]
    fn another_seed_takes_its_registries_away_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        crate::test_files::put_for_tests(dir.path(), "etc/containerd/certs.d/theirs/hosts.toml", "server = \"a\"\n");
        let first = [registry("docker.io", &["https://a"], true), registry("quay.io", &["https://a"], false)];
        assert!(!hold(&host, &first).unwrap());
        put(&host, &first).unwrap();
        assert!(hold(&host, &first).unwrap());
        let second = [registry("quay.io", &["https://a"], false)];
        assert!(!hold(&host, &second).unwrap());
        assert_eq!(put(&host, &second).unwrap().removed.len(), 2);
        assert!(hold(&host, &second).unwrap());
        put(&host, &[]).unwrap();
        assert!(hold(&host, &[]).unwrap());
        assert_eq!(host.list("/etc/containerd/certs.d/theirs").unwrap(), ["hosts.toml"]);
        assert!(host.list("/etc/containerd/certs.d/docker.io").unwrap().is_empty());
    }
}
