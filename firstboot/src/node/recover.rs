// SPDX-License-Identifier: Apache-2.0
//! What a device is when its journal is lost with both copies: read off its disk.
//!
//! A certificate of kubelet says that the device joined, and by which name. So it stays the node that it is, takes no other
//! seed, and can be reset: for that the effects are taken from the list of what firstboot makes on a node.

use crate::certificate;
use crate::host::{Host, STATE_DIR, backup_path};
use crate::journal::facts::Fact;
use crate::journal::{Effect, Record};
use crate::kube::kubeconfig;
use crate::kube::pin;
use crate::paths::{
    CNI_BIN, CNI_CONF, CONTAINERD_CONFIG, CURRENT_PEM, DROP_IN, HOSTNAME, HOSTS, KUBELET_ARGS, KUBELET_CONF,
    KUBERNETES, REGISTRIES, RESOLV_CONF, SETTINGS, SWAP_TARGET, WANTS,
};
use anyhow::Result;

/// Stands for the digest of the seed by which a device joined whose journal is lost: no seed has it.
const LOST_SEED: &str = "lost";

/// Directories whose entries with this prefix firstboot made.
const PREFIXED: &[(&str, &str)] = &[
    ("/etc/systemd/network", "05-firstboot"),
    ("/etc/systemd/network", "50-firstboot"),
    ("/etc/NetworkManager/system-connections", "firstboot"),
    ("/etc/NetworkManager/conf.d", "firstboot"),
    ("/etc/systemd/timesyncd.conf.d", "50-firstboot"),
    ("/etc/modprobe.d", "firstboot"),
    ("/etc/modules-load.d", "firstboot"),
    ("/etc/modules-load.d", "99-firstboot"),
    ("/etc/sysctl.d", "90-firstboot"),
    ("/etc/sysctl.d", "99-firstboot"),
    ("/etc/wpa_supplicant", "wpa_supplicant-"),
    (CNI_CONF, "99-firstboot"),
];

/// Files of the image that firstboot replaces: without a copy from before they are left as they are.
const REPLACED: &[&str] =
    &[HOSTNAME, HOSTS, "/etc/machine-id", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", RESOLV_CONF];

/// Files and links that firstboot makes on a node, besides those in its own directories.
const MADE: &[&str] = &[
    KUBELET_ARGS,
    CONTAINERD_CONFIG,
    "/etc/ssh/sshd_config",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    SWAP_TARGET,
];

/// Directories that are firstboot's with everything in them.
const TREES: &[&str] = &[SETTINGS, REGISTRIES, "/etc/ssh/authorized_keys.d"];

/// Directories that a reset removes where firstboot made them: they hold nothing of an image.
const DIRECTORIES: &[&str] = &[KUBERNETES, CNI_CONF, "/etc/cni", CNI_BIN, "/opt/cni", "/etc/containerd"];

/// Fills a lost journal with what the disk shows. Nothing happens while the journal has a record, and on a device that
/// never joined. A disk that takes no writes is no hindrance: the records are then held in memory.
///
/// # Errors
/// When a directory cannot be read.
pub fn recover(host: &Host) -> Result<()> {
    let lost = host.journal().records().iter().all(|r| matches!(r, Record::Fact { name, .. } if *name == Fact::Damage));
    if !lost {
        return Ok(());
    }
    // Another join (a person's `kubeadm join`) has neither.
    if host.read_text(DROP_IN)?.is_none() && !host.exists(STATE_DIR)? {
        return Ok(());
    }
    let Some(node) = node_name(host)? else { return Ok(()) };
    let line = format!("the journal is lost: this device is node {node} by its certificate, and stays it");
    let mut records = vec![
        Record::Begun {
            version: env!("CARGO_PKG_VERSION").into(),
            seed: LOST_SEED.into(),
            boot: host.boot_id()?.unwrap_or_default(),
        },
        Record::Fact { name: Fact::Node, value: node },
    ];
    records.extend(effects(host)?.into_iter().map(Record::Effect));
    records.push(Record::Sealed);
    host.assume(records);
    if host.is_reading() {
        return Ok(());
    }
    host.sys().say(&format!("firstboot: {line}"));
    if let Err(error) = host.settle_journal().and_then(|()| host.note_damage(&line)) {
        host.sys().say(&format!("firstboot: the recovered journal is not written: {error:#}"));
    }
    Ok(())
}

/// The node's name by the certificate that kubelet shows to the API server; none without kubelet.conf, or without one.
fn node_name(host: &Host) -> Result<Option<String>> {
    let conf = host.read_text(KUBELET_CONF)?.and_then(|conf| kubeconfig::read(&conf).ok());
    let pem = host.read_utf8(CURRENT_PEM)?;
    let leaf = pem.and_then(|pem| pin::certificates(&pem)).and_then(|chain| chain.into_iter().next());
    let subject = leaf.and_then(|leaf| certificate::parse(&leaf)).map(|certificate| certificate.subject);
    let names = subject.iter().flat_map(|subject| subject.0.iter()).flat_map(|part| part.0.iter());
    let name = names
        .filter_map(|name| std::str::from_utf8(name.value.value()).ok())
        .find_map(|text| text.strip_prefix("system:node:"));
    Ok(name.filter(|_| conf.is_some()).map(str::to_owned))
}

/// What firstboot has made on this device, as far as it is there, in an order that a reset can take back.
fn effects(host: &Host) -> Result<Vec<Effect>> {
    let mut all = Vec::new();
    let directories = DIRECTORIES.iter().copied().filter(|path| host.exists(path).unwrap_or(false));
    all.extend(directories.map(|path| Effect::Directory { path: path.into() }));
    for path in TREES.iter().filter(|path| host.exists(path).unwrap_or(false)) {
        all.push(Effect::Tree { path: (*path).into() });
    }
    // Without a copy from before, a file is firstboot's own where `made` says so.
    let mut file = |path: String, made: bool| {
        let backup = backup_path(&path);
        if host.exists(&backup).unwrap_or(false) {
            all.push(Effect::Replaced { path, backup });
        } else if made && host.exists(&path).unwrap_or(false) {
            all.push(Effect::Created { path });
        }
    };
    REPLACED.iter().for_each(|path| file((*path).into(), false));
    MADE.iter().for_each(|path| file((*path).into(), true));
    for (directory, prefix) in PREFIXED {
        for name in host.list(directory)?.iter().filter(|name| name.starts_with(prefix)) {
            file(format!("{directory}/{name}"), true);
        }
    }
    for unit in ["containerd.service", "kubelet.service", "ssh.service"] {
        let path = format!("{WANTS}/{unit}");
        if host.exists(&path)? {
            all.push(Effect::Enabled { unit: unit.into(), path });
            all.push(Effect::Started { unit: unit.into() });
        }
    }
    Ok(all)
}
