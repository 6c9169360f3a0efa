// SPDX-License-Identifier: Apache-2.0
//! Where containerd pulls from: one directory for each registry, with its `hosts.toml` (containerd docs/hosts.md). containerd
//! reads it at every pull, so nothing is restarted.

use crate::host::Host;
use crate::host::managed_files::{self, Changes, File};
use crate::paths::REGISTRIES;
use crate::seed::Registry;
use anyhow::Result;
use zeroize::Zeroizing;

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
        let (path, text) = (format!("{REGISTRIES}/{name}/hosts.toml"), hosts(registry, ca));
        files.push(match registry.auth {
            Some(_) => File::secret(path, &text),
            None => File::public(path, &text),
        });
        if let Some(pem) = &registry.ca {
            // Text before the first certificate is skipped by all who read PEM (RFC 7468, 2).
            files.push(File::public(ca_path, pem));
        }
    }
    files
}

/// `hosts.toml`; `ca` is the path of the CA's file. The registry itself comes after the mirrors by itself; its name says what its server is.
///
/// Credentials are a header. containerd sends it to the host that it is written for, and to the server of tokens that
/// this host names (core/remotes/docker/authorizer.go, `WithAuthHeader`); a token takes the header's place then. HTTP
/// clients of Go drop it where a redirect leads to another host. The setting `registry.configs`, which had credentials
/// before, is deprecated, and would stand in a file that anybody may read.
pub fn hosts(registry: &Registry, ca: Option<&str>) -> Zeroizing<String> {
    let ca = ca.map(|path| format!("ca = \"{path}\"\n")).unwrap_or_default();
    let mut text = Zeroizing::new(String::new());
    // The name is written as net/http has it: `Authorization` of a token has to replace it, not to stand beside it.
    let header = |text: &mut String, table: &str| {
        if let Some(auth) = &registry.auth {
            *text += &format!("\n[{table}]\nAuthorization = \"Basic ");
            *text += auth.expose();
            *text += "\"\n";
        }
    };
    if registry.mirrors.is_empty() {
        *text += &ca;
        header(&mut text, "header");
    }
    for mirror in &registry.mirrors {
        // A mirror is asked for images and for what a tag stands for; nothing is pushed to it.
        *text += &format!("\n[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url);
        if mirror.whole_path {
            *text += "override_path = true\n";
        }
        if mirror.is_https() {
            *text += &ca;
        }
        header(&mut text, &format!("host.\"{}\".header", mirror.url));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::secret::Secret;
    use crate::seed::Mirror;

    fn registry(name: &str, mirrors: &[&str], ca: bool) -> Registry {
        Registry {
            name: name.into(),
            mirrors: mirrors.iter().map(|m| Mirror::parse(m).unwrap()).collect(),
            ca: ca.then(|| "-----BEGIN CERTIFICATE-----\n".into()),
            auth: None,
        }
    }

    /// With credentials: `u:p` in base64.
    fn with_auth(registry: Registry) -> Registry {
        Registry { auth: Some(Secret::new("dTpw".into())), ..registry }
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
    fn credentials_are_for_mirrors_or_for_the_registry_itself() {
        let mirrors = ["https://a.example", "https://b.example/v2/hub"];
        assert_eq!(
            shown(&[
                with_auth(registry("docker.io", &mirrors, false)),
                with_auth(registry("registry.example", &[], true)),
                with_auth(registry("quay.io", &[], false)),
            ]),
            "\
600 /etc/containerd/certs.d/docker.io/hosts.toml
# Written by firstboot.

[host.\"https://a.example\"]
capabilities = [\"pull\", \"resolve\"]

[host.\"https://a.example\".header]
Authorization = \"Basic dTpw\"

[host.\"https://b.example/v2/hub\"]
capabilities = [\"pull\", \"resolve\"]
override_path = true

[host.\"https://b.example/v2/hub\".header]
Authorization = \"Basic dTpw\"
600 /etc/containerd/certs.d/registry.example/hosts.toml
# Written by firstboot.
ca = \"/etc/containerd/certs.d/registry.example/ca.crt\"

[header]
Authorization = \"Basic dTpw\"
644 /etc/containerd/certs.d/registry.example/ca.crt
# Written by firstboot.
-----BEGIN CERTIFICATE-----
600 /etc/containerd/certs.d/quay.io/hosts.toml
# Written by firstboot.

[header]
Authorization = \"Basic dTpw\"
"
        );
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
