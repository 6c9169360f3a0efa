// SPDX-License-Identifier: Apache-2.0
//! Small files that the node or its network does not start without, restored when a power cut or a worn card has damaged
//! them.
//!
//! Copies are kept when the device is sealed, and at later boots of what was changed since; the guard looks at every boot,
//! before anything reads the files. A file that only says something else is left alone: `kubeadm upgrade node`, or an
//! administrator, wrote it, and the file system has the time of that. Where it has not, the medium changed the file. No
//! private key is among them, and nothing of the image's own directory /usr, which is never written.

use crate::host::kept::{NODE_FILES, OVERRIDES};
use crate::host::{Host, Stamp};
use crate::journal::{Effect, Record};
use crate::kube::pin;
use crate::paths::{
    CA_FILE, CONTAINERD_CONFIG, CURRENT_PEM, DROP_IN, INSTANCE_CONFIG, KUBEADM_FLAGS, KUBELET_ARGS, KUBELET_CONF,
    KUBELET_CONFIG, SEED_DROP_IN,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How a whole file differs from a torn one.
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
    (KUBELET_CONFIG, Form::Yaml),
    (INSTANCE_CONFIG, Form::Yaml),
    (KUBEADM_FLAGS, Form::Text),
    (KUBELET_ARGS, Form::Text),
    (DROP_IN, Form::Yaml),
    (SEED_DROP_IN, Form::Yaml),
    (KUBELET_CONF, Form::Yaml),
    (CONTAINERD_CONFIG, Form::Toml),
];
/// Of files of [`FILES`].
const MODE: u32 = 0o600;

/// Directories in which every file that firstboot wrote is kept as well: what is damaged there may cost the network. One that
/// is gone is left alone, for an administrator may have removed it.
const DIRECTORIES: [&str; 10] = [
    "/etc/firstboot/",
    "/etc/systemd/network/",
    "/etc/NetworkManager/",
    "/etc/systemd/timesyncd.conf.d/",
    "/etc/wpa_supplicant/",
    "/etc/containerd/",
    "/etc/cni/net.d/",
    "/etc/modprobe.d/",
    "/etc/modules-load.d/",
    "/etc/sysctl.d/",
];
/// Longest file that is kept, bytes.
const LONGEST: usize = 64 << 10;

/// A file as it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Copy {
    text: String,
    mode: u32,
    /// When the original was written.
    stamp: Option<Stamp>,
}

/// Copies, by path.
type Copies = BTreeMap<String, Copy>;

fn read_copies(host: &Host) -> Copies {
    // Copies of a version to come repair nothing.
    host.read_kept(NODE_FILES.path).bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The CA certificates of the cluster that this device belongs to, PEM: kubelet's file, or the copy of it where that is
/// gone or damaged. None where there is neither.
///
/// # Errors
/// When the file is there but cannot be read at all.
pub fn cluster_ca(host: &Host) -> Result<Option<String>> {
    let copy = || read_copies(host).remove(CA_FILE).map(|copy| copy.text);
    let whole = |text: &String| Form::Certificates.holds(text);
    Ok(host.read_utf8(CA_FILE)?.filter(whole).or_else(copy).filter(whole))
}

/// Every file of which a copy is kept, with its form and whether the node does not start without it.
fn files(host: &Host) -> Vec<(String, Form, bool)> {
    let journal = host.journal();
    let written = journal.records().iter().filter_map(|record| match record {
        Record::Effect(Effect::Created { path } | Effect::Replaced { path, .. }) => Some(path.as_str()),
        _ => None,
    });
    let ours = |path: &&str| DIRECTORIES.iter().any(|directory| path.starts_with(directory)) && *path != OVERRIDES.path;
    let others: BTreeSet<&str> = written.filter(ours).filter(|path| !FILES.iter().any(|(p, _)| p == path)).collect();
    let needed = FILES.iter().map(|(path, form)| ((*path).to_owned(), *form, true));
    needed.chain(others.into_iter().map(|path| (path.to_owned(), Form::Text, false))).collect()
}

/// Keeps copies of those files that are there and whole; of one that is not, the copy that there is stays. Nothing is written
/// where nothing has changed.
///
/// # Errors
/// When a file cannot be read or the copies cannot be written.
pub fn keep(host: &Host) -> Result<()> {
    let before = read_copies(host);
    let mut copies = Copies::new();
    for (path, form, _) in files(host) {
        let now = host.read_utf8(&path)?.filter(|text| text.len() <= LONGEST);
        let old = before.get(&path);
        match now.filter(|text| form.is_whole(Some(text), old.map_or("", |old| &old.text))) {
            Some(text) => {
                let mode = host.size_and_mode(&path)?.map_or(MODE, |(_, mode)| mode);
                copies.insert(path.clone(), Copy { text, mode, stamp: host.stamp(&path)? });
            }
            None => copies.extend(old.map(|old| (path.clone(), old.clone()))),
        }
    }
    let bytes = serde_json::to_vec(&copies).context("encode copies of the node's files")?;
    host.keep(NODE_FILES, &bytes)
}

/// Restores what is missing, empty, cut short or unparsable, and what differs though the file system says that it was not
/// written since the copy was made; says so and notes it; returns which.
///
/// Without the node's certificate nothing is restored: `kubeadm reset` removes that as well, and kubelet must not start on
/// the rest.
///
/// # Errors
/// When a file cannot be read or written.
pub fn repair(host: &Host) -> Result<Vec<String>> {
    let mut repaired = Vec::new();
    let copies = read_copies(host);
    if host.read(CURRENT_PEM)?.is_none_or(|pem| pem.is_empty()) {
        return Ok(repaired);
    }
    for (path, copy) in &copies {
        let needed = FILES.iter().find(|(p, _)| p == path);
        let form = needed.map_or(Form::Text, |(_, form)| *form);
        let now = host.read(path)?;
        let whole = match &now {
            None => needed.is_none(),
            Some(bytes) => form.is_whole(std::str::from_utf8(bytes).ok(), &copy.text),
        };
        if whole && !host.is_corrupted(path, copy.stamp, copy.text.as_bytes())? {
            continue;
        }
        host.write(path, copy.text.as_bytes(), copy.mode)?;
        host.note_damage(&format!("read {path}: it was missing or damaged, its copy stands in"))?;
        repaired.push(path.clone());
    }
    // A file that was restored has another time.
    if !repaired.is_empty() {
        keep(host)?;
    }
    Ok(repaired)
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
    use crate::host::fake::{Fake, Recorded};
    use std::rc::Rc;

    const CONFIG: &str = "/var/lib/kubelet/config.yaml";
    const NETWORK: &str = "/etc/systemd/network/50-firstboot.network";
    const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";

    fn sealed(root: &std::path::Path) -> (Host, Rc<Recorded>) {
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
        host.write(NETWORK, b"[Match]\nType=ether\n", 0o644).unwrap();
        host.write(CURRENT_PEM, b"pair", 0o600).unwrap();
        keep(&host).unwrap();
        (host, seen)
    }

    #[test]
    fn whatever_is_damaged_comes_back_and_what_was_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = sealed(dir.path());
        assert!(repair(&host).unwrap().is_empty());
        let files = FILES.iter().map(|(path, _)| (*path, true)).filter(|(path, _)| *path != SEED_DROP_IN);
        for (path, needed) in files.chain([(NETWORK, false)]) {
            let good = host.read(path).unwrap().unwrap();
            let on_disk = dir.path().join(&path[1..]);
            let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
            damaged.extend([b"\n".to_vec(), vec![0; good.len()], b"\xff\xfe".to_vec(), b"A=\"b\"\0\0".to_vec()]);
            for bytes in damaged {
                std::fs::write(&on_disk, &bytes).unwrap();
                assert_eq!(repair(&host).unwrap(), [path], "{:?}", String::from_utf8_lossy(&bytes));
                assert_eq!(host.read(path).unwrap().unwrap(), good);
            }
            for at in 0..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 0x10;
                let modified = std::fs::metadata(&on_disk).unwrap().modified().unwrap();
                std::fs::write(&on_disk, &bytes).unwrap();
                std::fs::File::options().write(true).open(&on_disk).unwrap().set_modified(modified).unwrap();
                assert_eq!(repair(&host).unwrap(), [path], "byte {at}");
                assert_eq!(host.read(path).unwrap().unwrap(), good, "byte {at}");
            }
            std::fs::remove_file(&on_disk).unwrap();
            assert_eq!(repair(&host).unwrap().len(), usize::from(needed), "{path}");
            host.write(path, &good, 0o600).unwrap();
            keep(&host).unwrap();
        }
        let line = format!("firstboot: repaired: read {CONFIG}: it was missing or damaged, its copy stands in");
        assert!(seen.lines.take().contains(&line));
        host.write(CONFIG, b"kind: X\nlist: []\n", 0o600).unwrap();
        host.write(FLAGS, b"A=\"b\"\nC=d\n", 0o600).unwrap();
        assert!(repair(&host).unwrap().is_empty());
        // What was written is kept at the next boot, and comes back as it was written.
        keep(&host).unwrap();
        host.write(CONFIG, b"{kind: X", 0o600).unwrap();
        assert_eq!(repair(&host).unwrap(), [CONFIG]);
        assert_eq!(host.read(CONFIG).unwrap().unwrap(), b"kind: X\nlist: []\n");
    }

    #[test]
    fn a_node_that_was_reset_by_kubeadm_stays_reset() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        for path in [CURRENT_PEM, KUBELET_CONF, CONFIG] {
            host.remove(path).unwrap();
        }
        assert!(repair(&host).unwrap().is_empty());
        assert_eq!(host.read(CONFIG).unwrap(), None);
    }

    #[test]
    fn damaged_copies_repair_nothing_and_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        host.keep(NODE_FILES, b"{\"/etc").unwrap();
        assert!(repair(&host).unwrap().is_empty());
        keep(&host).unwrap();
        host.remove(CONFIG).unwrap();
        assert_eq!(repair(&host).unwrap(), [CONFIG]);
    }
}
