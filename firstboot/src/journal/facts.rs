// SPDX-License-Identifier: Apache-2.0
//! Every fact of the journal: what a phase found or decided, and what later phases, boots and runs have to know.
//!
//! A fact is a name and a text; the latest value counts. All facts end with a reset, except those that a reset carries
//! into the next installation. The functions below are the forms of values that are more than a text.

use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// The name of a fact. On disk it is the variant in kebab case, or what `rename` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The node's name. Written by the phase `identity` and after a lost journal; read everywhere.
    Node,
    /// The node's name before the last reset. Written by that reset; read by the phase `identity` of the next installation, and
    /// carried by each further reset.
    NodeBefore,
    /// MAC address of the interface that was chosen because it had a link. Written and read by the choice of the link.
    Interface,
    /// Lines `NAME: TEXT` of preflight. Written and replaced by the phase `preflight`; read by the status.
    Warnings,
    /// Digest of the seed by which the node joined. Written last by the phase `join`; read by its check.
    JoinedBy,
    /// Version of the API server. Written by the phase `join`; read by the receipt of the phase `seal`.
    ClusterVersion,
    /// Flag: the cluster had a Node of this name already. Written by the phase `join`; read by the phase `ready`.
    LeftOverNode,
    /// Networks of pods and Services, joined by commas. Written by the phase `join`; read by proxies and packet filter.
    ClusterNetworks,
    /// Range of NodePorts, `FIRST-LAST`. Written by the phase `join`; read by the packet filter.
    NodePorts,
    /// Address of Service `kubernetes`, or empty. Written by the phase `join`; read by the cache of the API server.
    ApiService,
    /// Flag: this device has created its cluster. Written by the phase `create`, when all of it is on the disk; from then on
    /// no phase removes anything of it.
    ClusterCreated,
    /// `HOST:PORT` at which others reach the API server of the cluster that this device created. Written by the phase
    /// `create`; read by what is left on the boot partition.
    ClusterServer,
    /// `HOURS END FLANNEL` of the seed for the next device. Written by the phase `create`, and with each new token; read
    /// by its renewal.
    JoinSeed,
    /// Flag: etcd may count this device among its members, although it is no control plane yet. Written by the phase
    /// `control-plane` before kubeadm adds it; read by a reset.
    EtcdJoining,
    /// When the key of Secret `kubeadm-certs` was made, seconds since 1970. Written by the renewal of the seed for one more
    /// control plane; read by it.
    CertificateKeyMade,
    /// Flag: kubeadm has made this node one more control plane of its cluster. Written by the phase `control-plane`, when all
    /// of it is on the disk.
    ControlPlaneJoined,
    /// As [`Fact::JoinSeed`], of the seed for one more control plane.
    ControlPlaneSeed,
    /// Time at which kubelet was started. Written and replaced by the phase `kubelet`; read by the phases after it.
    KubeletStarted,
    /// Lines: commands that only a cluster's administrator may run. Written by the phase `ready`; read by the last message.
    #[serde(rename = "left-to-do")]
    ManualSteps,
    /// Lines: SHA-256 of the token's secret, in hexadecimal, and of those of the other seeds on the card. Written by the
    /// phase `seal` before the seed is destroyed; read by its search for copies.
    TokenDigest,
    /// Lines: files of the boot partition that still held the token. Written and read by the phase `seal`.
    TokenCopies,
    /// `DIGEST NUMBER`: by which seed the device joined, and how many were on its card, its own included. Written by the phase
    /// `seal` before the others are destroyed; read by the status and the receipt.
    SeedsOnCard,
    /// Digest of the seed whose Event was made, or refused. Written and read by the Event of the join, once until a reset.
    JoinedEvent,
    /// `NUMBER BOOT STAGE` of the last rebuild of containerd's state, which `containerd/rebuild_record.rs` writes and
    /// reads.
    RuntimeSetAside,
    /// Lines: damage that was found and repaired. Written by the door, also after a lost journal; read by status and Event.
    Damage,
    /// The value of [`Fact::Damage`] that an Event reported. Written and read by the run that reports damage.
    DamageReported,
    /// Flag: the reset has restored every file, and only its own state is left. Written and read by the reset.
    #[serde(rename = "put-back")]
    Restored,
    /// Digest of the seed that asked for the last reset. Written by that reset and carried by each further one; read when
    /// a seed asks again.
    ResetBy,
    /// Lines: public keys of the owner, as in `authorized_keys`. Written when a seed is begun; read when a stick is found.
    OwnerKeys,
    /// Boot in which a seed's reset has ended: the machine restarts before it takes a seed. Written by that reset; read by
    /// the next run.
    RestartDue,
    /// Letter of a slot that used up its tries; empty where none did. Written at each boot, read by the status.
    FailedSlot,
    /// A fact that only a later version knows. It is kept as it is.
    #[serde(untagged)]
    Other(String),
}

/// Value of a flag.
pub fn flag(value: bool) -> String {
    value.to_string()
}

/// Value of a list of lines.
pub fn lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> String {
    lines.into_iter().map(|line| line.as_ref().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Value of a time: whole seconds since 1970; an earlier time counts as 1970.
pub fn time(time: SystemTime) -> String {
    crate::text::unix_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;

    #[test]
    fn names_on_disk_stay() {
        let text = |fact: Fact| serde_json::to_string(&fact).unwrap();
        for (fact, name) in [
            (Fact::Node, "node"),
            (Fact::NodeBefore, "node-before"),
            (Fact::Interface, "interface"),
            (Fact::Warnings, "warnings"),
            (Fact::JoinedBy, "joined-by"),
            (Fact::ClusterVersion, "cluster-version"),
            (Fact::LeftOverNode, "left-over-node"),
            (Fact::ClusterNetworks, "cluster-networks"),
            (Fact::NodePorts, "node-ports"),
            (Fact::ApiService, "api-service"),
            (Fact::ClusterCreated, "cluster-created"),
            (Fact::ClusterServer, "cluster-server"),
            (Fact::JoinSeed, "join-seed"),
            (Fact::ControlPlaneJoined, "control-plane-joined"),
            (Fact::EtcdJoining, "etcd-joining"),
            (Fact::CertificateKeyMade, "certificate-key-made"),
            (Fact::ControlPlaneSeed, "control-plane-seed"),
            (Fact::KubeletStarted, "kubelet-started"),
            (Fact::ManualSteps, "left-to-do"),
            (Fact::TokenDigest, "token-digest"),
            (Fact::TokenCopies, "token-copies"),
            (Fact::SeedsOnCard, "seeds-on-card"),
            (Fact::JoinedEvent, "joined-event"),
            (Fact::RuntimeSetAside, "runtime-set-aside"),
            (Fact::FailedSlot, "failed-slot"),
            (Fact::Damage, "damage"),
            (Fact::DamageReported, "damage-reported"),
            (Fact::Restored, "put-back"),
            (Fact::ResetBy, "reset-by"),
            (Fact::OwnerKeys, "owner-keys"),
            (Fact::RestartDue, "restart-due"),
        ] {
            assert_eq!(text(fact.clone()), format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Fact>(&format!("\"{name}\"")).unwrap(), fact);
        }
    }

    #[test]
    fn a_fact_of_a_later_version_is_kept_as_it_is() {
        let json = r#"{"fact":{"name":"from-2030","value":"x"}}"#;
        let record: Record = serde_json::from_str(json).unwrap();
        assert_eq!(record, Record::Fact { name: Fact::Other("from-2030".into()), value: "x".into() });
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
    }
}
