// SPDX-License-Identifier: Apache-2.0
//! Small files that the node does not start without, put back when a power cut or a worn card has torn them.
//!
//! Copies are kept when the device is sealed; the guard looks at every boot, before anything reads the files. A file
//! that only says something else is left alone: `kubeadm upgrade node`, or an administrator, wrote it. Nothing secret is
//! among them, and nothing of the image's own folder /usr, which nobody writes to.

use crate::host::{Host, STATE_DIR};
use crate::kube::config::CA_FILE;
use crate::kube::files::KUBELET_CONF;
use crate::kube::kubeconfig::CURRENT_PEM;
use crate::kube::pin;
use crate::node::paths::{CONTAINERD_CONFIG, DROP_IN, SEED_DROP_IN};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How a file is told from a torn one.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// A YAML mapping; JSON is one.
    Yaml,
    /// A TOML document.
    Toml,
    /// PEM certificates.
    Certificates,
    /// Lines of text.
    Text,
}

/// Each with its form.
const FILES: &[(&str, Form)] = &[
    (CA_FILE, Form::Certificates),
    ("/var/lib/kubelet/config.yaml", Form::Yaml),
    ("/var/lib/kubelet/instance-config.yaml", Form::Yaml),
    ("/var/lib/kubelet/kubeadm-flags.env", Form::Text),
    ("/etc/default/kubelet", Form::Text),
    (DROP_IN, Form::Yaml),
    (SEED_DROP_IN, Form::Yaml),
    (KUBELET_CONF, Form::Yaml),
    (CONTAINERD_CONFIG, Form::Toml),
];
/// Of all of them, and of their copies.
const MODE: u32 = 0o600;

/// Copies, by path.
type Copies = BTreeMap<String, String>;

fn copies_path() -> String {
    format!("{STATE_DIR}/node-files.json")
}

/// Keeps copies of those files that are there and whole.
///
/// # Errors
/// When a file cannot be read or the copies cannot be written.
pub fn keep(host: &Host) -> Result<()> {
    let mut copies = Copies::new();
    for (path, form) in FILES {
        if let Some(text) = host.read_utf8(path)?.filter(|text| form.holds(text)) {
            copies.insert((*path).to_owned(), text);
        }
    }
    let bytes = serde_json::to_vec(&copies).context("encode copies of the node's files")?;
    host.write(&copies_path(), &bytes, MODE)
}

/// Puts back what is missing, empty, cut short or unparsable, and says so; returns which.
///
/// Without the node's certificate nothing is put back: `kubeadm reset` removes that as well, and kubelet must not start on
/// the rest.
///
/// # Errors
/// When a file cannot be read or written.
pub fn mend(host: &Host) -> Result<Vec<&'static str>> {
    let mut mended = Vec::new();
    let copies: Copies = match host.read(&copies_path())? {
        // Torn copies, or those of a version to come, mend nothing.
        Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        None => return Ok(mended),
    };
    if host.read(CURRENT_PEM)?.is_none_or(|pem| pem.is_empty()) {
        return Ok(mended);
    }
    for (path, form) in FILES {
        let Some(copy) = copies.get(*path) else { continue };
        if form.is_whole(host.read_utf8(path)?.as_deref(), copy) {
            continue;
        }
        host.write(path, copy.as_bytes(), MODE)?;
        let line =
            format!("firstboot: put back {path}, which was missing or torn, as it was when this device was sealed");
        host.sys().say(&line);
        mended.push(*path);
    }
    Ok(mended)
}

impl Form {
    /// Whether `found` may stay; `copy` is what once stood there.
    fn is_whole(self, found: Option<&str>, copy: &str) -> bool {
        let Some(text) = found else { return false };
        // Half of a file may parse as well.
        let cut_short = text.len() < copy.len() && copy.starts_with(text);
        !cut_short && self.holds(text)
    }

    fn holds(self, text: &str) -> bool {
        // What a file system without the data of a file fills it with.
        if text.trim().is_empty() || text.contains('\0') {
            return false;
        }
        match self {
            Form::Yaml => serde_yaml_ng::from_str::<serde_yaml_ng::Mapping>(text).is_ok(),
            Form::Toml => text.parse::<toml::Table>().is_ok(),
            Form::Certificates => pin::certificates(text).is_some(),
            Form::Text => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Fake, Seen};
    use std::rc::Rc;

    const CONFIG: &str = "/var/lib/kubelet/config.yaml";
    const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";

    fn sealed(root: &std::path::Path) -> (Host, Rc<Seen>) {
        let (fake, seen) = Fake::new();
        let host = Host::open(root, Box::new(fake)).unwrap();
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        for (path, form) in FILES.iter().filter(|(path, _)| *path != SEED_DROP_IN) {
            let text = match form {
                Form::Yaml => "kind: X\nlist:\n- 1\n",
                Form::Toml => "version = 3\n[a]\nb = \"c\"\n",
                Form::Certificates => &certificate,
                Form::Text => "A=\"b\"\n",
            };
            host.write(path, text.as_bytes(), MODE).unwrap();
        }
        host.write(CURRENT_PEM, b"pair", 0o600).unwrap();
        keep(&host).unwrap();
        (host, seen)
    }

    #[test]
    fn whatever_is_torn_comes_back_and_what_differs_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = sealed(dir.path());
        assert!(mend(&host).unwrap().is_empty());
        for (path, _) in FILES.iter().filter(|(path, _)| *path != SEED_DROP_IN) {
            let good = host.read(path).unwrap().unwrap();
            for torn in [&b""[..], b"\n", b"\0\0\0\0", &good[..good.len() / 2], b"\xff\xfe", b"A=\"b\"\0\0"] {
                std::fs::write(dir.path().join(&path[1..]), torn).unwrap();
                assert_eq!(mend(&host).unwrap(), [*path], "{torn:?}");
                assert_eq!(host.read(path).unwrap().unwrap(), good);
            }
            std::fs::remove_file(dir.path().join(&path[1..])).unwrap();
            assert_eq!(mend(&host).unwrap(), [*path]);
            assert_eq!(host.size_and_mode(path).unwrap(), Some((good.len() as u64, 0o600)));
        }
        let line =
            format!("firstboot: put back {CONFIG}, which was missing or torn, as it was when this device was sealed");
        assert!(seen.lines.take().contains(&line));
        host.write(CONFIG, b"kind: X\nlist: []\n", 0o600).unwrap();
        host.write(FLAGS, b"A=\"b\"\nC=d\n", 0o600).unwrap();
        assert!(mend(&host).unwrap().is_empty());
        // Unparsable where there was YAML.
        host.write(CONFIG, b"{kind: X", 0o600).unwrap();
        assert_eq!(mend(&host).unwrap(), [CONFIG]);
    }

    #[test]
    fn a_node_that_was_reset_by_kubeadm_stays_reset() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        for path in [CURRENT_PEM, KUBELET_CONF, CONFIG] {
            host.remove(path).unwrap();
        }
        assert!(mend(&host).unwrap().is_empty());
        assert_eq!(host.read(CONFIG).unwrap(), None);
    }

    #[test]
    fn torn_copies_mend_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        host.write(&copies_path(), b"{\"/etc", 0o600).unwrap();
        host.remove(CONFIG).unwrap();
        assert!(mend(&host).unwrap().is_empty());
    }
}
