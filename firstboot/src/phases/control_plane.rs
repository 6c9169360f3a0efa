// SPDX-License-Identifier: Apache-2.0
//! One more control plane: the bundle's kubeadm makes it of a node that has joined its cluster (`kubeadm join
//! --control-plane`, without the steps that the phases before this one have done).
//!
//! Trying again is safe: kubeadm takes up what is there. Nothing of etcd's data is removed, since the other members may
//! count on this one as soon as it has been added. What it needs to be one is on the disk by then: where there were two, the
//! other one cannot go on without it, and could not let it in again either.

use super::context::PhaseContext;
use super::create::why;
use super::join::node_name;
use super::seal::erase_token;
use crate::boot_partition::JOIN_CONTROL_PLANE_SEED;
use crate::containerd::cri::SOCKET;
use crate::control_plane::in_memory::with_file;
use crate::control_plane::kubeadm::{More, Part, discovery, join_configuration};
use crate::control_plane::{ETCD, address, fits, patches, virtual_ip};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::discover_peers;
use crate::flush::FlushSite;
use crate::host::Host;
use crate::journal::Record;
use crate::journal::facts::{self, Fact};
use crate::kube::kubeconfig;
use crate::node::client::{cluster, node_client};
use crate::paths::{CA_FILE, CLUSTER_PKI, KUBERNETES};
use crate::seed::{CertificateKey, Cluster};
use anyhow::Result;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// The unit that runs `kubeadm join`.
const UNIT: &str = "firstboot-join-control-plane.service";
/// Configuration of kubeadm, with token and key.
const CONFIG: &str = "kubeadm-join.yaml";
/// The kubeconfig that it names.
const DISCOVERY: &str = "cluster.conf";
/// Kubeconfigs of a control plane, which kubeadm keeps where they are.
const CONFS: [&str; 4] = ["admin.conf", "controller-manager.conf", "scheduler.conf", "super-admin.conf"];

/// What control planes share of their certificates and keys, below [`CLUSTER_PKI`]: kubeadm downloads it.
const SHARED: [&str; 8] =
    ["ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"];
/// Certificates that each control plane makes for itself. Where one half of a pair is there, kubeadm fails to load it.
const OWN: [&str; 7] = [
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "front-proxy-client",
    "etcd/healthcheck-client",
    "etcd/peer",
    "etcd/server",
];
/// How often what kubeadm writes is flushed while this device becomes a member of etcd: kubelet needs seconds from etcd's
/// manifest to an etcd that is in step.
const FLUSHED: Duration = Duration::from_millis(500);

/// What kubeadm says where an API server or another member of etcd does not answer.
const OF_CLUSTER: [&str; 6] = ["etcd", "API Server", "dial tcp", "timeout", "deadline exceeded", "EOF"];

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    Ok(cx.seed.joins_control_plane().is_none() || cx.host.journal().is_set(Fact::ControlPlaneJoined))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let Some((joined, key)) = cx.seed.joins_control_plane() else { return Ok(()) };
    if !cx.host.journal().is_set(Fact::ControlPlaneJoined) {
        fits(&cx.bundle.manifest, &cx.image.target)?;
        let own = address::own(&cx.host, &cx.seed.network, pods_are_v4(&cx.host))?;
        // What can be refused is refused before etcd counts this device.
        if let Some(shared) = joined.virtual_ip {
            virtual_ip::fits(&cx.host, shared, own)?;
        }
        prepare(&cx.host).owned_by(Owner::Host)?;
        join(cx, joined, key, own)?;
        if let Some(shared) = joined.virtual_ip {
            virtual_ip::put(&cx.host, shared, own, false)?;
        }
        keep(cx)?;
    }
    erase_token(cx)
}

/// What kubeadm needs. That etcd's directory is this device's own is on record: a reset removes it.
fn prepare(host: &Host) -> Result<()> {
    clear(host)?;
    host.mkdir(ETCD, 0o700)?;
    patches::put(host)
}

/// Removes certificates and kubeconfigs of which a power cut left a part: kubeadm would stop at them.
fn clear(host: &Host) -> Result<()> {
    let path = |name: &str| format!("{CLUSTER_PKI}/{name}");
    for shared in SHARED.map(path).iter().filter(|path| *path != CA_FILE) {
        remove_unless_whole(host, shared, is_whole(host, shared, is_pem)?)?;
    }
    for pair in OWN.map(|name| [path(&format!("{name}.crt")), path(&format!("{name}.key"))]) {
        let whole = pair.iter().map(|half| is_whole(host, half, is_pem)).collect::<Result<Vec<_>>>()?;
        pair.iter().try_for_each(|half| remove_unless_whole(host, half, whole == [true, true]))?;
    }
    for path in CONFS.map(|name| format!("{KUBERNETES}/{name}")) {
        let is_conf = |text: &str| kubeconfig::read(text).is_ok() && kubeconfig::user_pem(text).is_ok();
        remove_unless_whole(host, &path, is_whole(host, &path, is_conf)?)?;
    }
    Ok(())
}

fn is_pem(text: &str) -> bool {
    text.trim_end().ends_with("-----")
}

/// Whether a file is there, and all of it.
fn is_whole(host: &Host, path: &str, is: impl Fn(&str) -> bool) -> Result<bool> {
    Ok(host.read_utf8(path)?.is_some_and(|text| is(&text)))
}

fn remove_unless_whole(host: &Host, path: &str, whole: bool) -> Result<()> {
    if whole || !host.exists(path)? {
        return Ok(());
    }
    host.sys().say(&format!("firstboot: removed {path}, which was torn: kubeadm makes it anew"));
    host.remove_entry(path)
}

/// Runs one part of `kubeadm join`, of which the configuration is in place; whether it has succeeded.
fn run(host: &Host, part: Part) -> Result<bool> {
    if part != Part::Etcd {
        return Ok(host.start_unit(UNIT).is_ok());
    }
    host.flush(FlushSite::ControlPlaneKeys)?;
    host.note(Fact::EtcdJoining, &facts::flag(true))?;
    host.begin_unit(UNIT)?;
    loop {
        host.sys().sleep(FLUSHED);
        let shown = host.run(&["systemctl", "show", "--property=Job,ActiveState", UNIT])?;
        // What it wrote until it ended is flushed, too.
        host.flush(FlushSite::EtcdJoins)?;
        // A property that is asked for by name is shown without a value where it has none.
        let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if value("Job").is_none_or(str::is_empty) {
            return Ok(value("ActiveState") != Some("failed"));
        }
    }
}

/// Runs `kubeadm join`. Token and key are in a file in memory for as long as that takes.
fn join(cx: &PhaseContext, joined: &Cluster, key: &CertificateKey, own: IpAddr) -> Result<(), Fault> {
    let host = &cx.host;
    let (server, ca) = cluster(host).coded(Code::NodeCredential)?;
    let (name, token) = (node_name(cx)?, joined.token.bearer());
    let failed = with_file(host, DISCOVERY, &discovery(&server, &ca), |discovery| {
        let more = More {
            name: &name,
            address: own,
            cri_socket: SOCKET,
            discovery,
            token: &token,
            certificate_key: key.expose(),
        };
        let whole = |name: &&str| is_whole(host, &format!("{CLUSTER_PKI}/{name}"), is_pem).unwrap_or_default();
        for (part, what) in [
            (
                Part::Certificates { all: SHARED.iter().all(whole) },
                "this node gets the certificates of a control plane",
            ),
            (Part::Etcd, "this node joins etcd"),
            (Part::ApiServer, "this node becomes a control plane"),
        ] {
            host.sys().notify(&format!("STATUS={what}"));
            let text = join_configuration(&more, &cx.seed.node, part);
            if !with_file(host, CONFIG, &text, |_| run(host, part).owned_by(Owner::Host))? {
                return Ok(Some(why(host, UNIT)));
            }
        }
        Ok(None)
    })?;
    let Some(why) = failed else { return Ok(()) };
    // kubeadm removes the Secret when the token ends that belongs to it.
    if why.contains("kubeadm-certs") || why.contains("decrypt") || why.contains("Unauthorized") {
        let text = format!(
            "become a control plane: the key in {} is good for no certificates of the cluster any more; drop a new {}: {why}",
            cx.seed_name, JOIN_CONTROL_PLANE_SEED,
        );
        return Err(Fault::new(Code::TokenExpired, text));
    }
    // What heals in the cluster is tried again soon.
    let code = if OF_CLUSTER.iter().any(|words| why.contains(words)) { Code::Cluster } else { Code::ControlPlane };
    Err(Fault::new(code, format!("become a control plane: {why}; see journalctl -u {UNIT}")))
}

/// The family of addresses that pods have first.
fn pods_are_v4(host: &Host) -> bool {
    let journal = host.journal();
    let first = journal.fact(Fact::ClusterNetworks).and_then(|nets| nets.split(',').next()?.parse::<IpNet>().ok());
    first.is_none_or(|net| net.addr().is_ipv4())
}

/// Puts on record that this device is a control plane. Before that, all that kubeadm wrote is on the disk: it flushes nothing.
fn keep(cx: &PhaseContext) -> Result<(), Fault> {
    let host = &cx.host;
    let client = node_client(host)?;
    client.node()?;
    let work = || -> Result<()> {
        host.flush(FlushSite::ControlPlaneJoined)?;
        host.record(Record::Fact { name: Fact::ControlPlaneJoined, value: facts::flag(true) })?;
        discover_peers::from_cluster(host, &client)
    };
    work().owned_by(Owner::Host)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cx, images, kubeadm_fails};
    use super::*;
    use crate::control_plane::COMPONENTS;
    use crate::host::fake::{Fake, Recorded};
    use crate::kube::kubeconfig::kubelet_conf;
    use crate::test_files::put_for_tests;
    use std::path::Path;
    use std::rc::Rc;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A node whose kubeadm fails with these lines.
    fn node(root: &Path, log: &'static str) -> (PhaseContext, Rc<Recorded>) {
        let (fake, seen) = Fake::new();
        let given = root.join("run/firstboot/kubeadm-join.yaml");
        let answers = kubeadm_fails(UNIT, log);
        let fake = fake.answering(move |argv| {
            if argv == ["systemctl", "start", UNIT] {
                let text = std::fs::read_to_string(&given).unwrap();
                assert!(text.contains(KEY) && text.contains("abcdef.0123456789abcdef"), "{text}");
            }
            answers(argv)
        });
        let seed = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.7\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
             \"sha256:{:064}\"\ncertificate-key = \"{KEY}\"\n[node]\nrole = \"control-plane\"\n",
            0
        );
        let mut cx = cx(root, fake, &seed);
        cx.bundle.manifest.images = images(&COMPONENTS);
        cx.bundle.manifest.kubernetes = "1.36.3".into();
        cx.host.note(Fact::Node, "edge-2").unwrap();
        put_for_tests(root, "etc/kubernetes/kubelet.conf", &kubelet_conf("https://192.0.2.7:6443", "CA\n"));
        put_for_tests(root, "etc/kubernetes/pki/ca.crt", "CA\n");
        (cx, seen)
    }

    #[test]
    fn a_key_that_has_ended_asks_for_another_seed() {
        let dir = tempfile::tempdir().unwrap();
        let log = "error execution phase control-plane-prepare/download-certs: error downloading certs: error downloading the secret: \
                   Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace\n";
        let (cx, seen) = node(dir.path(), log);
        assert!(!check(&cx).unwrap());
        let fault = apply(&cx).unwrap_err();
        assert_eq!(fault.code, Code::TokenExpired);
        assert!(fault.to_string().contains("drop a new join-control-plane.toml"), "{fault}");
        assert!(cx.host.list("/run/firstboot").unwrap().is_empty(), "the file with the key is gone");
        assert!(!seen.commands.borrow().iter().any(|command| command.contains(KEY) || command.contains("reset")));
        let dir = tempfile::tempdir().unwrap();
        let (cx, _) = node(dir.path(), "error execution phase etcd-join: etcd is not healthy\n");
        let fault = apply(&cx).unwrap_err();
        let want = "become a control plane: error execution phase etcd-join: etcd is not healthy; see journalctl -u \
                    firstboot-join-control-plane.service";
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::Cluster, want));
        let dir = tempfile::tempdir().unwrap();
        let (cx, _) = node(dir.path(), "error: unable to select an IP from lo network interface\n");
        assert_eq!(apply(&cx).unwrap_err().code, Code::ControlPlane);
    }

    #[test]
    fn what_is_torn_is_made_anew_and_what_is_whole_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (cx, seen) = node(dir.path(), "");
        let whole = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        for (name, text) in [
            ("pki/apiserver.crt", whole),
            ("pki/apiserver.key", "-----BEGIN EC PRIV"),
            // Its key never came to the disk.
            ("pki/etcd/peer.crt", whole),
            ("pki/etcd/server.crt", whole),
            ("pki/etcd/server.key", whole),
            ("pki/etcd/ca.crt", ""),
            ("pki/sa.pub", whole),
            ("admin.conf", "apiVersion: v1\n"),
        ] {
            put_for_tests(dir.path(), &format!("etc/kubernetes/{name}"), text);
        }
        clear(&cx.host).unwrap();
        let there = |path: &str| cx.host.exists(&format!("/etc/kubernetes/{path}")).unwrap();
        for path in ["pki/ca.crt", "pki/etcd/server.crt", "pki/etcd/server.key", "pki/sa.pub", "kubelet.conf"] {
            assert!(there(path), "{path}");
        }
        // kubeadm makes a pair anew, and never half of one.
        for path in ["pki/apiserver.crt", "pki/apiserver.key", "pki/etcd/peer.crt", "pki/etcd/ca.crt", "admin.conf"] {
            assert!(!there(path), "{path}");
        }
        assert_eq!(seen.lines.borrow().len(), 5);
    }

    /// Each part by itself: the keys are on the disk, and it is on record, before etcd counts this device.
    #[test]
    fn a_member_of_etcd_is_on_record_before_it_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let (cx, seen) = node(dir.path(), "error execution phase etcd-join: etcd is not healthy\n");
        assert_eq!(apply(&cx).unwrap_err().code, Code::Cluster);
        assert!(!cx.host.journal().is_set(Fact::EtcdJoining), "the certificates were not made");
        assert!(cx.host.exists(ETCD).unwrap());
        seen.commands.take();
        assert!(run(&cx.host, Part::Etcd).unwrap());
        assert!(cx.host.journal().is_set(Fact::EtcdJoining));
        let commands = seen.commands.take();
        let begins = format!("systemctl start --no-block {UNIT}");
        assert!(commands.contains(&begins), "{commands:?}");
    }

    /// kubeadm is waited for while its unit has a job. What systemd 257 prints: a property without a value, too.
    #[test]
    fn the_end_of_kubeadm_is_seen() {
        for (ended, succeeded) in [("Job=\nActiveState=inactive\n", true), ("Job=\nActiveState=failed\n", false)] {
            let dir = tempfile::tempdir().unwrap();
            let (fake, seen) = Fake::new();
            let asked = Rc::new(std::cell::Cell::new(0));
            let fake = fake.answering(move |argv| match argv {
                ["systemctl", "show", ..] => {
                    asked.set(asked.get() + 1);
                    assert!(asked.get() <= 3, "it is asked again after the end");
                    let said = if asked.get() < 3 { "Job=812\nActiveState=activating\n" } else { ended };
                    Some(Ok(said.to_owned()))
                }
                _ => None,
            });
            put_for_tests(dir.path(), "etc/kubernetes/pki/ca.crt", "CA\n");
            put_for_tests(dir.path(), "var/lib/etcd/member", "");
            let host = Host::open(dir.path(), Box::new(fake)).unwrap();
            assert_eq!(run(&host, Part::Etcd).unwrap(), succeeded, "{ended}");
            assert_eq!(seen.waited(), 3 * FLUSHED);
        }
    }
}
