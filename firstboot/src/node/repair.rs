// SPDX-License-Identifier: Apache-2.0
//! Small files that the node or its network does not start without, restored when a power cut or a worn card has damaged
//! them.
//!
//! Copies are kept when the device is sealed, and at later boots of what was changed since; the guard looks at every boot,
//! before anything reads the files. A file that only says something else is left alone: `kubeadm upgrade node`, or an
//! administrator, wrote it, and the file system has the time of that. Where it has not, the medium changed the file. Nothing
//! of the image's own directory /usr is among them, which is never written. The keys of a control plane are, readable for
//! root alone like the keys themselves; the node's own key has a copy elsewhere ([`super::credential`]).

use crate::host::kept::{NODE_FILES, OVERRIDES};
use crate::host::{Host, Stamp};
use crate::journal::{Effect, Record};
use crate::kube::pin;
use crate::paths::{
    CA_FILE, CLUSTER_PKI, CONTAINERD_CONFIG, CURRENT_PEM, DROP_IN, ETCD_PKI, HOSTNAME, HOSTS, INSTANCE_CONFIG,
    KUBEADM_FLAGS, KUBELET_ARGS, KUBELET_CONF, KUBELET_CONFIG, KUBERNETES, MANIFESTS, RESOLV_CONF, SEED_DROP_IN,
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
    /// Lines of text that firstboot alone writes.
    Text,
    /// Lines of text that administrators and their programs write, too: the last ones may have been taken out.
    Lines,
}

/// Without them the node does not start. Each with its form.
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
/// Files that are others' as well, in which firstboot changed lines. Each may cost the network or the node: its name, that
/// name's address, the accounts of networkd and resolved, name servers. Those with passwords are not among them.
const SHARED: [&str; 5] = [HOSTNAME, HOSTS, "/etc/passwd", "/etc/group", RESOLV_CONF];
/// What kubeadm made of a control plane, and static pods of any node: directories, and how the names in them end. A flipped
/// byte in one of them may cost the cluster.
const KUBEADM: [(&str, &[&str]); 4] =
    [(KUBERNETES, &[".conf"]), (MANIFESTS, &[".yaml"]), (CLUSTER_PKI, &PAIRED), (ETCD_PKI, &PAIRED)];
/// Ends of the names of files that are only good together: a certificate and its key, or both keys of a pair.
const PAIRED: [&str; 3] = [".crt", ".key", ".pub"];
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

/// Every file of which a copy is kept.
fn files(host: &Host) -> Result<Vec<String>> {
    let journal = host.journal();
    let written = journal.records().iter().filter_map(|record| match record {
        Record::Effect(Effect::Created { path } | Effect::Replaced { path, .. }) => Some(path.as_str()),
        _ => None,
    });
    let ours = |path: &&str| {
        SHARED.contains(path)
            || DIRECTORIES.iter().any(|directory| path.starts_with(directory)) && *path != OVERRIDES.path
    };
    let mut others: BTreeSet<String> = written.filter(ours).map(str::to_owned).collect();
    for (directory, ends) in KUBEADM {
        let names = host.list(directory)?;
        let meant = names.iter().filter(|name| ends.iter().any(|end| name.ends_with(end)));
        others.extend(meant.map(|name| format!("{directory}/{name}")));
    }
    others.retain(|path| needed(path).is_none());
    Ok(FILES.iter().map(|(path, _)| (*path).to_owned()).chain(others).collect())
}

/// The form of a file without which the node does not start; none of another file.
fn needed(path: &str) -> Option<Form> {
    FILES.iter().find(|(known, _)| *known == path).map(|(_, form)| *form)
}

/// The form of any file that is kept.
fn form(path: &str) -> Form {
    needed(path).unwrap_or(match stem(path) {
        Some((_, ".crt")) => Form::Certificates,
        Some(_) => Form::Text,
        None if SHARED.contains(&path) || path.starts_with(KUBERNETES) => Form::Lines,
        None => Form::Text,
    })
}

/// Name without its end, and the end, of a file of a pair ([`PAIRED`]).
fn stem(path: &str) -> Option<(&str, &'static str)> {
    PAIRED.iter().find_map(|end| path.strip_suffix(end).map(|stem| (stem, *end)))
}

/// Keeps copies of those files that are there and whole; of one that is not, the copy that there is stays. Nothing is written
/// where nothing has changed.
///
/// # Errors
/// When a file cannot be read or the copies cannot be written.
pub fn keep(host: &Host) -> Result<()> {
    let before = read_copies(host);
    let mut copies = Copies::new();
    for path in files(host)? {
        let now = host.read_utf8(&path)?.filter(|text| text.len() <= LONGEST);
        let old = before.get(&path);
        match now.filter(|text| form(&path).is_whole(Some(text), old.map_or("", |old| &old.text))) {
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
    let (mut repaired, mut failed) = (Vec::new(), None);
    let copies = read_copies(host);
    if host.read(CURRENT_PEM)?.is_none_or(|pem| pem.is_empty()) {
        return Ok(repaired);
    }
    for (path, copy) in &copies {
        let mut one = || -> Result<()> {
            if is_whole(host, path, copy)? {
                return Ok(());
            }
            host.write(path, copy.text.as_bytes(), copy.mode)?;
            for (other, copy) in beside(&copies, path) {
                // A key that an administrator keeps elsewhere does not come back.
                if host.exists(other)? {
                    host.write(other, copy.text.as_bytes(), copy.mode)?;
                }
            }
            host.note_damage(&format!("read {path}: it was missing or damaged, its copy stands in"))?;
            repaired.push(path.clone());
            Ok(())
        };
        // The others may be what the node starts with.
        failed = failed.or(one().err());
    }
    // A file that was restored has another time.
    if !repaired.is_empty() {
        keep(host)?;
    }
    failed.map_or(Ok(repaired), Err)
}

/// Whether a file may stay as it is.
fn is_whole(host: &Host, path: &str, copy: &Copy) -> Result<bool> {
    let whole = match host.read(path)? {
        None => needed(path).is_none(),
        Some(bytes) => form(path).is_whole(std::str::from_utf8(&bytes).ok(), &copy.text),
    };
    Ok(whole && !host.is_corrupted(path, copy.stamp, copy.text.as_bytes())?)
}

/// Copies of the files that a file is only good with: of a pair that was just renewed, half may be left.
fn beside<'c>(copies: &'c Copies, path: &str) -> Vec<(&'c String, &'c Copy)> {
    let Some((name, _)) = stem(path) else { return Vec::new() };
    let same = |other: &str| other != path && stem(other).is_some_and(|(stem, _)| stem == name);
    copies.iter().filter(|(other, _)| same(other)).collect()
}

impl Form {
    /// Whether `found` may stay; `copy` is what once stood there.
    fn is_whole(self, found: Option<&str>, copy: &str) -> bool {
        let Some(text) = found else { return false };
        // Half of a file may parse as well.
        let cut_short = text.len() < copy.len() && copy.starts_with(text);
        let taken_out = matches!(self, Form::Lines | Form::Certificates) && text.ends_with('\n');
        (!cut_short || taken_out) && self.holds(text)
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
            Form::Text | Form::Lines => true,
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
                Form::Text | Form::Lines => "A=\"b\"\n",
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
    fn lines_that_others_take_out_stay_out_and_what_a_worn_card_changes_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        let text = b"systemd-network:x:998:998::/:/usr/sbin/nologin\nadmin:x:1000:1000::/:/bin/sh\n".to_vec();
        for path in SHARED {
            let on_disk = dir.path().join(&path[1..]);
            host.write(path, &text, 0o644).unwrap();
            keep(&host).unwrap();
            for at in 0..text.len() {
                let mut bytes = text.clone();
                bytes[at] ^= 0x10;
                let modified = std::fs::metadata(&on_disk).unwrap().modified().unwrap();
                std::fs::write(&on_disk, &bytes).unwrap();
                std::fs::File::options().write(true).open(&on_disk).unwrap().set_modified(modified).unwrap();
                assert_eq!(repair(&host).unwrap(), [path], "byte {at}");
                assert_eq!(host.read(path).unwrap().unwrap(), text, "byte {at}");
            }
            let first = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            for torn in [&[][..], &[0; 40], &text[..first - 1], &text[..first + 5]] {
                std::fs::write(&on_disk, torn).unwrap();
                assert_eq!(repair(&host).unwrap(), [path]);
            }
            // An account that an administrator removed.
            std::fs::write(&on_disk, &text[..first]).unwrap();
            assert!(repair(&host).unwrap().is_empty());
            keep(&host).unwrap();
            std::fs::write(&on_disk, [0; 20]).unwrap();
            assert_eq!(repair(&host).unwrap(), [path]);
            assert_eq!(host.read(path).unwrap().unwrap(), text[..first]);
            std::fs::remove_file(&on_disk).unwrap();
            assert!(repair(&host).unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_that_cannot_be_restored_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        // Before all others in the order of names; no file can take the place of a directory.
        host.write("/etc/containerd/a.toml", b"a = 1\n", 0o600).unwrap();
        keep(&host).unwrap();
        std::fs::remove_file(dir.path().join("etc/containerd/a.toml")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc/containerd/a.toml/b")).unwrap();
        std::fs::write(dir.path().join(&CONFIG[1..]), b"").unwrap();
        assert!(repair(&host).is_err());
        assert_eq!(host.read(CONFIG).unwrap().unwrap(), b"kind: X\nlist:\n- 1\n");
    }

    /// Certificate and key of an API server, its static pod and a kubeconfig.
    fn control_plane(host: &Host) -> [String; 4] {
        let pair = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let texts = [
            ("/etc/kubernetes/pki/apiserver.crt", pair.cert.pem()),
            ("/etc/kubernetes/pki/apiserver.key", pair.signing_key.serialize_pem()),
            ("/etc/kubernetes/manifests/kube-apiserver.yaml", "kind: Pod\nspec: {}\n".to_owned()),
            ("/etc/kubernetes/scheduler.conf", "kind: Config\nusers: []\n".to_owned()),
        ];
        texts.map(|(path, text)| {
            host.write(path, text.as_bytes(), 0o600).unwrap();
            path.to_owned()
        })
    }

    #[test]
    fn a_control_plane_survives_a_changed_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        let files = control_plane(&host);
        keep(&host).unwrap();
        let read = |path: &str| host.read(path).unwrap().unwrap();
        let before: Vec<Vec<u8>> = files.iter().map(|path| read(path)).collect();
        let place = |path: &str| dir.path().join(&path[1..]);
        for (path, good) in files.iter().zip(&before) {
            for at in [0, good.len() / 2, good.len() - 1] {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                let modified = std::fs::metadata(place(path)).unwrap().modified().unwrap();
                std::fs::write(place(path), &bytes).unwrap();
                std::fs::File::options().write(true).open(place(path)).unwrap().set_modified(modified).unwrap();
                assert_eq!(repair(&host).unwrap(), [path.as_str()], "byte {at}");
                assert_eq!(&read(path), good, "{path}");
            }
        }
        // kubeadm has renewed a pair, and a power cut has torn its key: half of either pair is worth nothing.
        let [certificate, key, pod, conf] = &files;
        let renewed = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        host.write(certificate, renewed.as_bytes(), 0o600).unwrap();
        std::fs::write(place(key), b"").unwrap();
        assert_eq!(repair(&host).unwrap(), [key.as_str()]);
        assert_eq!((read(certificate), read(key)), (before[0].clone(), before[1].clone()));
        // What an administrator has taken away stays away, and so do lines.
        std::fs::remove_file(place(key)).unwrap();
        std::fs::write(place(certificate), b"").unwrap();
        std::fs::remove_file(place(pod)).unwrap();
        std::fs::write(place(conf), b"kind: Config\n").unwrap();
        assert_eq!(repair(&host).unwrap(), [certificate.as_str()]);
        assert_eq!(read(certificate), before[0]);
        assert_eq!([key, pod].map(|path| host.exists(path).unwrap()), [false; 2]);
        assert_eq!(read(conf), b"kind: Config\n");
        keep(&host).unwrap();
        let kept = String::from_utf8(host.read(NODE_FILES.path).unwrap().unwrap()).unwrap();
        assert!(!kept.contains("apiserver.key") && !kept.contains("PRIVATE KEY"));
    }

    #[test]
    fn a_certificate_that_was_taken_out_of_a_bundle_stays_out() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = sealed(dir.path());
        let [new, old] = [(); 2].map(|()| rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem());
        host.write(CA_FILE, format!("{new}{old}").as_bytes(), 0o644).unwrap();
        keep(&host).unwrap();
        host.write(CA_FILE, new.as_bytes(), 0o644).unwrap();
        assert!(repair(&host).unwrap().is_empty());
        host.write(CA_FILE, format!("{new}{}", &old[..old.len() / 2]).as_bytes(), 0o644).unwrap();
        assert_eq!(repair(&host).unwrap(), [CA_FILE]);
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
