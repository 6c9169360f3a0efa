// SPDX-License-Identifier: Apache-2.0
//! The cluster of a seed with `create = true`: the bundle's kubeadm makes it, and its pod network is deployed.
//!
//! Until the cluster is on record as created, no other machine knows of it and nothing runs in it. So what a power cut has
//! left half done is taken away by `kubeadm reset`, and made anew. From that record on nothing here removes anything.

use super::context::PhaseContext;
use super::join::node_name;
use super::kubelet_config;
use crate::containerd::cri::SOCKET;
use crate::control_plane::card::{CONTROL_PLANE_HOURS, For, JoinSeed};
use crate::control_plane::kubeadm::{Device, complaint, configuration, networking};
use crate::control_plane::{
    ADMIN_CONF, ETCD, address, card, fits, flannel, is_created, may_be_member, patches, virtual_ip,
};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::discover_peers;
use crate::flush::FlushSite;
use crate::host::Host;
use crate::journal::Record;
use crate::journal::facts::{self, Fact};
use crate::kube::config;
use crate::node::client::node_client;
use crate::node::credential::credential;
use crate::paths::{CA_FILE, KUBEADM_CONFIG, KUBELET_DIR, KUBELET_UNIT, KUBELET_WANTED, KUBERNETES, MANIFESTS};
use crate::seed::{Cni, DEFAULT_PORT, Endpoint, NewCluster};
use anyhow::Result;
use std::net::IpAddr;
use std::time::Duration;

/// The unit that runs `kubeadm init`.
const UNIT: &str = "firstboot-create.service";
/// How long an API server that has just started may refuse what is deployed.
const DEPLOYED: Duration = Duration::from_secs(300);
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    if cx.seed.create().is_none() {
        return Ok(true);
    }
    let usable = || -> Result<bool> { Ok(credential(&cx.host)?.usable() && cx.host.read(ADMIN_CONF)?.is_some()) };
    Ok(is_created(&cx.host) && usable().owned_by(Owner::Host)?)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let Some(cluster) = cx.seed.create() else { return Ok(()) };
    if is_created(&cx.host) {
        // The power went between that record and the end of this phase.
        if check(cx)? {
            return peers(&cx.host);
        }
        let text = format!(
            "use the cluster that this device created: {ADMIN_CONF} or the node's certificate is gone; reset this device to \
             create another, or restore /etc/kubernetes from a backup"
        );
        return Err(Fault::new(Code::ControlPlane, text));
    }
    if may_be_member(&cx.host) {
        let text = "create a cluster: this device was about to become a control plane of another one, which may count on it; \
                    reset it first";
        return Err(Fault::new(Code::SettingDoesNotFit, text));
    }
    if cx.removable {
        let text = format!(
            "create a cluster by {}: it is on a stick, which goes to other devices, and each would create one of its own; \
             put the seed on the boot partition",
            cx.seed_name
        );
        return Err(Fault::new(Code::SettingDoesNotFit, text));
    }
    fits(&cx.bundle.manifest, &cx.image.target)?;
    let images = flannel::Images::of(&cx.bundle.manifest, &cx.image.target);
    let images = if cx.seed.node.cni == Cni::Auto { Some(images?) } else { None };
    let host = &cx.host;
    let v4 = cluster.pod_subnet.first().is_none_or(|net| net.addr().is_ipv4());
    let own = address::own(host, &cx.seed.network, v4)?;
    clear(host)?;
    prepare(cx, &text(cx, cluster, own)?).owned_by(Owner::Host)?;
    if let Some(shared) = cluster.virtual_ip {
        virtual_ip::put(host, shared, own, true)?;
    }
    init(cx)?;
    let client = card::admin_client(host)?;
    let network = images.map(|images| flannel::objects(&cluster.pod_subnet, &images, &server(cluster, own)));
    for (path, object) in network.unwrap_or_default() {
        retried(host, || client.apply(&path, &object))?;
    }
    keep(cx, cluster, own)
}

/// What `kubeadm init` is given.
fn text(cx: &PhaseContext, cluster: &NewCluster, own: IpAddr) -> Result<String, Fault> {
    let name = node_name(cx)?;
    let device = Device {
        node: &name,
        address: own,
        node_ips: cx.seed.network.node_ips(),
        version: &cx.bundle.manifest.kubernetes,
        labels: config::labels(cx.seed.node.role, &name, &cx.seed.node.labels),
        cri_socket: SOCKET,
    };
    Ok(configuration(cluster, &cx.seed.node, &device))
}

/// Where others reach the API server.
fn server(cluster: &NewCluster, own: IpAddr) -> Endpoint {
    let by_address = || Endpoint { host: own.to_string(), port: DEFAULT_PORT };
    cluster.endpoint.clone().unwrap_or_else(by_address)
}

/// Takes away what an attempt has left that was cut off.
fn clear(host: &Host) -> Result<(), Fault> {
    let left = || -> Result<bool> {
        Ok([MANIFESTS, ETCD].iter().any(|path| host.list(path).is_ok_and(|names| !names.is_empty()))
            || host.read(CA_FILE)?.is_some())
    };
    if !left().owned_by(Owner::Host)? {
        return Ok(());
    }
    host.sys().say("firstboot: an attempt to create the cluster was cut off: it begins anew");
    let socket = format!("--cri-socket={SOCKET}");
    // In a unit of its own: kubelet's volumes are mounted, and firstboot.service may unmount nothing.
    let unit = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--unit=firstboot-clear.service"];
    let reset = [&unit[..], &["kubeadm", "reset", "--force", &socket]].concat();
    host.run(&reset).map(drop).coded(Code::ControlPlane)
}

/// The packet filter learns where the API servers are.
fn peers(host: &Host) -> Result<(), Fault> {
    discover_peers::from_cluster(host, &node_client(host)?).owned_by(Owner::Host)
}

/// What kubeadm needs, and what a reset has to know of what it will make.
fn prepare(cx: &PhaseContext, text: &str) -> Result<()> {
    let host = &cx.host;
    for (directory, mode) in [(KUBERNETES, 0o755), (MANIFESTS, 0o755), (KUBELET_DIR, 0o755), (ETCD, 0o700)] {
        host.mkdir(directory, mode)?;
    }
    // kubeadm starts kubelet, which is to be the hardened one from its first start.
    kubelet_config::put(host, &cx.seed.kubelet, false)?;
    host.enable_unit(KUBELET_WANTED, KUBELET_UNIT)?;
    patches::put(host)?;
    // Fields of the seed may hold a secret.
    host.write(KUBEADM_CONFIG, text.as_bytes(), 0o600)?;
    host.will_start("kubelet.service")?;
    host.record(Record::Fact { name: Fact::KubeletStarted, value: facts::time(host.now()) })
}

/// Runs `kubeadm init` to its end.
fn init(cx: &PhaseContext) -> Result<(), Fault> {
    let host = &cx.host;
    host.sys().notify("STATUS=kubeadm creates the cluster");
    if host.start_unit(UNIT).is_ok() {
        return Ok(());
    }
    let why = why(host, UNIT);
    let seed = cx.seed.create().is_some_and(|cluster| is_of_the_seed(cluster, &why));
    match seed {
        true => Err(Fault::new(Code::KubeadmRejected, format!("create the cluster, by [cluster.kubeadm]: {why}"))),
        false => Err(Fault::new(Code::ControlPlane, format!("create the cluster: {why}; see journalctl -u {UNIT}"))),
    }
}

/// Why kubeadm ended, by the journal of its unit.
pub(super) fn why(host: &Host, unit: &str) -> String {
    let log = ["journalctl", "--unit", unit, "--boot", "--lines", "200", "--output", "cat"];
    complaint(&host.run(&log).unwrap_or_default())
}

/// Whether kubeadm does not accept what `[cluster.kubeadm]` says: it names the field, or its own configuration.
fn is_of_the_seed(cluster: &NewCluster, why: &str) -> bool {
    let fields = || cluster.kubeadm.cluster.keys().chain(cluster.kubeadm.init.keys());
    let configuration = ["strict decoding error", "unable to decode", "cannot unmarshal", "Invalid value"];
    fields().any(|field| why.contains(field.as_str()))
        || fields().next().is_some() && configuration.iter().any(|words| why.contains(words))
}

/// Tries again for a while what an API server refuses that has just started.
fn retried(host: &Host, work: impl Fn() -> Result<(), Fault>) -> Result<(), Fault> {
    let until = host.sys().uptime() + DEPLOYED;
    loop {
        match work() {
            Err(fault) if fault.owner() == Owner::Cluster && host.sys().uptime() < until => {
                host.sys().sleep(INTERVAL);
            }
            done => return done,
        }
    }
}

/// Puts on record that the cluster is there. Before that, all that kubeadm wrote is on the disk: it flushes nothing.
fn keep(cx: &PhaseContext, cluster: &NewCluster, own: IpAddr) -> Result<(), Fault> {
    let host = &cx.host;
    let networking = networking(cluster);
    let server = server(cluster, own).to_string();
    let flannel = cx.seed.node.cni == Cni::Auto;
    let more = if cluster.join_control_plane { CONTROL_PLANE_HOURS } else { 0 };
    let seeds = [(For::Node, cluster.join_seed_hours), (For::ControlPlane, more)];
    let client = node_client(host)?;
    retried(host, || client.node().map(drop))?;
    let work = || -> Result<()> {
        host.flush(FlushSite::ClusterCreated)?;
        for (which, hours) in seeds.into_iter().filter(|(_, hours)| *hours > 0) {
            JoinSeed { which, hours, ends: 0, flannel, virtual_ip: cluster.virtual_ip }.keep(host)?;
        }
        for (fact, value) in [
            (Fact::ClusterVersion, format!("v{}", cx.bundle.manifest.kubernetes)),
            (Fact::ClusterNetworks, networking.ranges()),
            (Fact::ApiService, networking.api_service().map(|a| a.to_string()).unwrap_or_default()),
            (Fact::ClusterServer, server),
            (Fact::ClusterCreated, facts::flag(true)),
        ] {
            host.record(Record::Fact { name: fact, value })?;
        }
        Ok(())
    };
    work().owned_by(Owner::Host)?;
    peers(host)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cx, images, kubeadm_fails};
    use super::*;
    use crate::control_plane::COMPONENTS;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;
    use std::path::Path;

    const SEED: &str = "version = 1\n[cluster]\ncreate = true\n";

    /// A device whose bundle has all images, and whose kubeadm fails with these lines.
    fn device(root: &Path, seed: &str, log: &'static str) -> (PhaseContext, std::rc::Rc<crate::host::fake::Recorded>) {
        let (fake, seen) = Fake::new();
        let mut cx = cx(root, fake.answering(kubeadm_fails(UNIT, log)), seed);
        cx.bundle.manifest.images = images(&[&COMPONENTS[..], &["flannel", "flannel-cni-plugin"]].concat());
        cx.host.note(Fact::Node, "edge-1").unwrap();
        (cx, seen)
    }

    fn fails(cx: &PhaseContext) -> (Code, String) {
        let fault = apply(cx).unwrap_err();
        (fault.code, fault.to_string())
    }

    #[test]
    fn a_stick_and_a_plain_image_create_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut cx, seen) = device(dir.path(), SEED, "");
        cx.removable = true;
        let (code, text) = fails(&cx);
        assert_eq!(code, Code::SettingDoesNotFit);
        assert!(text.starts_with("create a cluster by seed.toml: it is on a stick"), "{text}");
        cx.removable = false;
        cx.bundle.manifest.images.retain(|image| image.component != "flannel");
        assert_eq!(fails(&cx).0, Code::ControlPlaneImages);
        cx.bundle.manifest.images.clear();
        let (code, text) = fails(&cx);
        assert_eq!(code, Code::ControlPlaneImages);
        assert!(text.contains("no container image of etcd; build one with imagebuild build --target"), "{text}");
        assert!(seen.commands.borrow().is_empty(), "{:?}", seen.commands);
    }

    #[test]
    fn why_kubeadm_ends_decides_who_has_to_act() {
        let dir = tempfile::tempdir().unwrap();
        let log = "error execution phase preflight: fatal\n[ERROR Port-6443]: Port 6443 is in use\n";
        let (cx, _) = device(dir.path(), SEED, log);
        let (code, text) = fails(&cx);
        let want = "create the cluster: Port-6443: Port 6443 is in use; see journalctl -u firstboot-create.service";
        assert_eq!((code, text.as_str()), (Code::ControlPlane, want));
        let given = cx.host.read_utf8(KUBEADM_CONFIG).unwrap().unwrap();
        assert!(given.contains("\"advertiseAddress\": \"192.0.2.7\""), "{given}");
        let dir = tempfile::tempdir().unwrap();
        let seed = format!("{SEED}[cluster.kubeadm]\nfeatureGates = {{ Nonsense = true }}\n");
        let log = "error: featureGates: Invalid value: map[string]bool{\"Nonsense\":true}: Nonsense is not a valid feature name\n";
        let (cx, _) = device(dir.path(), &seed, log);
        let (code, text) = fails(&cx);
        assert_eq!(code, Code::KubeadmRejected);
        assert!(
            text.starts_with("create the cluster, by [cluster.kubeadm]: error: featureGates: Invalid value"),
            "{text}"
        );
    }

    #[test]
    fn what_was_cut_off_is_cleared_and_what_was_created_never() {
        let dir = tempfile::tempdir().unwrap();
        let (cx, seen) = device(dir.path(), SEED, "");
        let reset = "systemd-run --quiet --wait --collect --pipe --unit=firstboot-clear.service \
                     kubeadm reset --force --cri-socket=unix:///run/containerd/containerd.sock";
        fails(&cx);
        assert!(!seen.commands.borrow().iter().any(|c| c == reset), "{:?}", seen.commands);
        put_for_tests(dir.path(), "etc/kubernetes/manifests/etcd.yaml", "");
        fails(&cx);
        assert_eq!(seen.commands.borrow().iter().filter(|c| *c == reset).count(), 1);
        seen.commands.take();
        cx.host.note(Fact::ClusterCreated, "true").unwrap();
        assert!(!check(&cx).unwrap());
        let (code, text) = fails(&cx);
        assert_eq!(code, Code::ControlPlane);
        assert!(text.starts_with("use the cluster that this device created: /etc/kubernetes/admin.conf or"), "{text}");
        assert!(seen.commands.borrow().is_empty(), "{:?}", seen.commands);
    }

    #[test]
    fn a_device_that_etcd_may_count_on_creates_no_other_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let (cx, seen) = device(dir.path(), SEED, "");
        cx.host.note(Fact::EtcdJoining, "true").unwrap();
        let (code, text) = fails(&cx);
        assert_eq!(code, Code::SettingDoesNotFit);
        assert!(text.starts_with("create a cluster: this device was about to become a control plane"), "{text}");
        assert!(seen.commands.borrow().is_empty(), "{:?}", seen.commands);
    }

    #[test]
    fn a_device_that_joins_has_nothing_to_do_here() {
        let dir = tempfile::tempdir().unwrap();
        let pin = "0".repeat(64);
        let seed = format!(
            "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \"sha256:{pin}\"\n"
        );
        let (cx, seen) = device(dir.path(), &seed, "");
        assert!(check(&cx).unwrap());
        apply(&cx).unwrap();
        assert!(seen.commands.borrow().is_empty());
    }
}
