// SPDX-License-Identifier: Apache-2.0
//! What a reset does, as a list: made from the journal, newest effect first, and from what kubelet, containerd and pod
//! networks are known to make besides. `--dry-run` prints the list, a reset carries it out; neither knows more.

use crate::control_plane::{ETCD, may_be_member};
use crate::host::exclusions::{Exclusions, is_within};
use crate::host::{Host, STATE_DIR};
use crate::join_worker::{SERVICE_UNITS, SOCKET_UNIT};
use crate::journal::facts::Fact;
use crate::journal::{Effect, Journal, Record};
use crate::offline;
use crate::paths::{CNI_BIN, CNI_CONF, CONTAINERD_ROOT, CONTAINERD_STATE, KUBELET_DIR, KUBERNETES};
use std::fmt;

/// Units of firstboot's own that must not go on while it is taken back.
pub(super) const OURS: [&str; 9] = [
    "firstboot.service",
    "firstboot-stick.service",
    "firstboot-clock.service",
    "firstboot-control-plane.service",
    "firstboot-create.service",
    "firstboot-clear.service",
    "firstboot-join-control-plane.service",
    SOCKET_UNIT,
    SERVICE_UNITS,
];
pub(super) const KUBELET: &str = "kubelet.service";
pub(super) const RUNTIME: &str = "containerd.service";
const CACHE: &str = offline::UNIT;
/// Where flannel leaves this node's subnet. With a cache, a link into `/var/lib/cni`.
const FLANNEL: &str = "/run/flannel";

/// Directories that a unit makes by itself, with everything in them; gone where firstboot started that unit.
#[rustfmt::skip]
const MADE: &[(&str, &str)] = &[
    (KUBELET, KUBELET_DIR),
    (KUBELET, "/var/log/pods"),
    (KUBELET, "/var/log/containers"),
    (RUNTIME, CONTAINERD_ROOT),
    (RUNTIME, CONTAINERD_STATE),
    (RUNTIME, "/opt/containerd"),
    (RUNTIME, "/var/lib/cni"),
    (RUNTIME, FLANNEL),
    (RUNTIME, "/var/lib/calico"),
    (RUNTIME, "/run/calico"),
    (CACHE, "/var/lib/private/firstboot-cache"),
    (CACHE, "/var/lib/firstboot-cache"),
];
/// Directories of whose content others have a part; gone whole where firstboot made the directory.
const SHARED: [&str; 5] = [KUBERNETES, CNI_CONF, CNI_BIN, KUBELET_DIR, ETCD];

/// Where journald keeps the log on disk (systemd-journald.service(8)).
const LOGS: &str = "/var/log/journal";

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The node is cordoned and its pods are evicted, while kubelet still runs.
    Leave,
    /// The other members of etcd count without this one, while kubelet still runs it.
    Member,
    /// The rest of leaving the cluster, now that kubelet has stopped.
    Depart,
    Stop(String),
    Pods,
    Unmount(Vec<String>),
    Links,
    Packets,
    Tree(String),
    Remove(String),
    Restore {
        path: String,
        backup: String,
    },
    Directory(String),
    HostName,
    MachineId,
    State,
    Filter,
    Logs(String),
    Erase,
    Journal,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Leave => f.write_str("cordon the node and evict its pods, if the cluster answers"),
            Step::Member => f.write_str("remove this device's member of etcd, if the others answer"),
            Step::Depart => f.write_str("tell the cluster that the node is not Ready; delete its Lease and CSINode"),
            Step::Stop(unit) => write!(f, "stop {unit}"),
            Step::Pods => f.write_str("stop and remove all pods"),
            Step::Unmount(directories) => write!(f, "unmount what is mounted below {}", directories.join(", ")),
            Step::Links => f.write_str("delete network interfaces of pod networks"),
            Step::Packets => f.write_str("delete Kubernetes' rules from nftables and iptables"),
            Step::Tree(path) => write!(f, "remove {path} and everything in it"),
            Step::Remove(path) => write!(f, "remove {path}"),
            Step::Restore { path, .. } => write!(f, "put {path} back as it was"),
            Step::Directory(path) => write!(f, "remove {path} if it is empty"),
            Step::HostName => f.write_str("take the host name of /etc/hostname again"),
            Step::MachineId => f.write_str("empty /etc/machine-id: a new one is made at the next boot"),
            Step::Filter => f.write_str("close the packet filter"),
            Step::Logs(path) => write!(f, "remove the log of this life: everything in {path}"),
            Step::State => write!(f, "remove everything in {STATE_DIR} but the journal"),
            Step::Erase => f.write_str("zero free space, and trim it"),
            Step::Journal => f.write_str("begin a new journal"),
        }
    }
}

/// Digest of the seed that asked for the reset which has begun, if one did.
pub(super) fn asked_by(journal: &Journal) -> Option<&str> {
    let asked = |r: &'_ Record| matches!(r, Record::Resetting { seed: Some(_), .. });
    match journal.records().iter().rev().find(|r| asked(r)) {
        Some(Record::Resetting { seed, .. }) => seed.as_deref(),
        _ => None,
    }
}

/// Whether it was said of the reset that has begun that the cluster may end with this device.
pub(super) fn destroys(journal: &Journal) -> bool {
    journal.records().iter().any(|r| matches!(r, Record::Resetting { destroy: true, .. }))
}

/// All steps in order.
pub(super) fn plan(host: &Host, keep: &Exclusions) -> Vec<Step> {
    let journal = host.journal();
    let effects: Vec<&Effect> = journal
        .records()
        .iter()
        .filter_map(|r| if let Record::Effect(effect) = r { Some(effect) } else { None })
        .collect();
    let mut steps = Vec::new();
    if journal.fact(Fact::Restored).is_none() {
        begin(&effects, may_be_member(host), keep, &mut steps);
        for effect in effects.iter().rev() {
            undo(effect, &mut steps);
        }
        steps.extend(directories(&effects));
        steps.extend([Step::HostName, Step::MachineId, Step::Logs(LOGS.into())]);
    }
    // The filter comes after what it would let through is forgotten.
    steps.extend([Step::State, Step::Filter, Step::Erase, Step::Journal]);
    let mut seen = Vec::new();
    steps.retain(|step| {
        let leaves = |p: &str| keep.covers(p) || is_within(p, STATE_DIR);
        let wanted = path(step).is_none_or(|p| !leaves(p)) && !seen.contains(step);
        seen.push(step.clone());
        wanted
    });
    steps
}

/// What ends before anything is taken away.
fn begin(effects: &[&Effect], member: bool, keep: &Exclusions, steps: &mut Vec<Step>) {
    let started = |unit: &str| effects.iter().any(|effect| starts(effect, unit));
    let made = |path: &str| effects.iter().any(|e| matches!(e, Effect::Directory { path: p } if p == path));
    // A node that never ran has nothing to leave.
    if started(KUBELET) {
        steps.push(Step::Leave);
    }
    if member {
        steps.push(Step::Member);
    }
    // First of all: a device that loses its power now starts neither at its next boot.
    for unit in [KUBELET, RUNTIME] {
        steps.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Enabled { unit: enabled, path } if enabled == unit => Some(Step::Remove(path.clone())),
            _ => None,
        }));
    }
    if started(KUBELET) {
        steps.extend([Step::Stop(KUBELET.into()), Step::Depart]);
    }
    if started(RUNTIME) {
        steps.extend([Step::Pods, Step::Stop(RUNTIME.into())]);
    }
    if started(CACHE) {
        steps.push(Step::Remove(FLANNEL.into()));
    }
    let own = MADE.iter().filter(|(unit, _)| started(unit)).map(|(_, path)| *path);
    let shared = SHARED.into_iter().filter(|path| made(path));
    let mut trees: Vec<String> = own.chain(shared).filter(|p| !keep.covers(p)).map(str::to_owned).collect();
    trees.sort();
    trees.dedup();
    if started(RUNTIME) {
        steps.extend([Step::Unmount(trees.clone()), Step::Links, Step::Packets]);
    }
    steps.extend(trees.into_iter().map(Step::Tree));
}

/// Whether this unit may have run since: what is enabled is started by systemd, too, at a boot after a power cut.
pub(super) fn starts(effect: &Effect, unit: &str) -> bool {
    match effect {
        Effect::Started { unit: started } | Effect::Enabled { unit: started, .. } => started == unit,
        _ => false,
    }
}

fn undo(effect: &Effect, steps: &mut Vec<Step>) {
    match effect {
        Effect::Started { unit } => steps.push(Step::Stop(unit.clone())),
        Effect::Created { path } => steps.push(Step::Remove(path.clone())),
        // What was enabled may run, even where systemd and not firstboot started it.
        Effect::Enabled { unit, path } => steps.extend([Step::Remove(path.clone()), Step::Stop(unit.clone())]),
        Effect::Replaced { path, backup } => {
            steps.push(Step::Restore { path: path.clone(), backup: backup.clone() });
        }
        // When everything is gone that could be in one.
        Effect::Directory { .. } => {}
        Effect::Tree { path } => steps.push(Step::Tree(path.clone())),
    }
}

/// The directories that were made, the deepest first.
fn directories(effects: &[&Effect]) -> Vec<Step> {
    let made =
        effects.iter().filter_map(|e| if let Effect::Directory { path } = e { Some(path.clone()) } else { None });
    let mut made: Vec<String> = made.collect();
    made.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    made.into_iter().map(Step::Directory).collect()
}

fn path(step: &Step) -> Option<&str> {
    match step {
        Step::Logs(path)
        | Step::Tree(path)
        | Step::Remove(path)
        | Step::Restore { path, .. }
        | Step::Directory(path) => Some(path),
        Step::MachineId => Some(crate::identity::MACHINE_ID),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn folders_go_last_and_the_deepest_of_them_first() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let tree = || Effect::Tree { path: "/opt/state/trees/1".into() };
        host.record(Record::Effect(tree())).unwrap();
        host.mkdir("/opt/state/trees/1/bin", 0o755).unwrap();
        host.symlink("/opt/state/current", "trees/1").unwrap();
        let shown: Vec<String> = plan(&host, &Exclusions::default()).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown[..6],
            [
                "remove /opt/state/current",
                "remove /opt/state/trees/1 and everything in it",
                "remove /opt/state/trees/1/bin if it is empty",
                "remove /opt/state/trees if it is empty",
                "remove /opt/state if it is empty",
                "remove /opt if it is empty",
            ]
        );
        let keep = Exclusions::parse(&["/opt/state/trees"]).unwrap();
        let kept: Vec<String> = plan(&host, &keep).iter().map(ToString::to_string).collect();
        assert!(!kept.iter().any(|step| step.contains("trees")), "{kept:#?}");
    }
}
