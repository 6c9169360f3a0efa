// SPDX-License-Identifier: Apache-2.0
//! The join: certificate and kubelet's files, and the end of the token's use.

use super::context::PhaseContext;
use super::seal::erase_token;
use crate::clock;
use crate::containerd::cri::SOCKET;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::discover_peers;
use crate::host::{Host, STATE_DIR};
use crate::image::ImageInfo;
use crate::join_worker::privileged::{self, Obtained};
use crate::join_worker::{self, SERVICE_UNITS, SOCKET_UNIT};
use crate::journal::facts::{self, Fact};
use crate::journal::{Effect, Record};
use crate::kube::confirm;
use crate::kube::contract::{FoundCluster, JoinHost, JoinInput, Joined};
use crate::kube::csr::Request;
use crate::kube::files::{Content, files};
use crate::kube::key::Key;
use crate::node::client::node_client;
use crate::node::credential::{Credential, credential};
use crate::secret::Secret;
use crate::seed::Cluster;
use anyhow::{Context, Result};
use std::time::Duration;
use zeroize::Zeroizing;

/// Where systemd-resolved keeps the servers that pods can use; /etc/resolv.conf names its own loopback address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// How long one try waits for approval; the next one takes the same request up again.
const CSR_WAIT: Duration = Duration::from_secs(60);
/// The node monitor grace period is 50 s unless changed, and the cluster looks every 5 s.
const READY_WAIT: Duration = Duration::from_secs(90);

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    // A device that creates its cluster becomes a node in the phase `create`.
    Ok(cx.seed.create().is_some() || holds(cx)?)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let Some(cluster) = cx.seed.join() else { return Ok(()) };
    // After a power cut the certificate may be there already; then it is only proven and the token ended.
    let mut there = holds(cx)?;
    if !there && cluster.token.is_erased() && has_expired(cx)? {
        // By a clock that may be wrong: there is no other way back than this certificate.
        let by = clock::once(&cx.host, &cx.image)?;
        clock::report_change(&cx.host, by);
        there = holds(cx)?;
    }
    if !there {
        discover_peers::resolve_seed_names(&cx.host, &cx.seed.network.via).owned_by(Owner::Host)?;
        let (joined, key) = ask(cx, cluster)?;
        same_version(cx, &joined.cluster_version)?;
        keep(cx, &joined, &key.sec1_pem()?).owned_by(Owner::Host)?;
    }
    // One answered request proves the certificate, and the join has made some; from then on the token is not needed.
    let client = node_client(&cx.host)?;
    if there {
        client.node()?;
    }
    discover_peers::from_cluster(&cx.host, &client).owned_by(Owner::Host)?;
    // One more control plane needs it for the certificates: the phase `control-plane`.
    if cx.seed.joins_control_plane().is_none() {
        erase_token(cx)?;
    }
    cx.host.remove(&key_path()).owned_by(Owner::Host)
}

/// The name that the identity phase found.
pub(super) fn node_name(cx: &PhaseContext) -> Result<String, Fault> {
    let name = cx.host.journal().fact(Fact::Node).map(str::to_owned);
    name.context("find the node's name in the journal").coded(Code::StateDamaged)
}

/// Whether the cluster already had a Node of this name, which kubelet will not label.
pub(super) fn leftover(cx: &PhaseContext) -> bool {
    cx.host.journal().is_set(Fact::LeftOverNode)
}

/// kubelet's `resolvConf` where systemd-resolved runs.
pub(super) fn resolv_conf(host: &Host) -> Result<Option<&'static str>> {
    Ok(host.size_and_mode(RESOLVED)?.map(|_| RESOLVED))
}

/// Whether what is there came by this seed and still opens the API server.
fn holds(cx: &PhaseContext) -> Result<bool, Fault> {
    Ok(cx.has_joined_by_seed() && credential(&cx.host).owned_by(Owner::Host)?.usable() && node_client(&cx.host).is_ok())
}

/// Whether what is there came by this seed, and only the time speaks against it.
fn has_expired(cx: &PhaseContext) -> Result<bool, Fault> {
    let found = credential(&cx.host).owned_by(Owner::Host)?;
    Ok(cx.has_joined_by_seed() && matches!(found, Credential::Unusable { expired: Some(_), .. }))
}

fn key_path() -> String {
    format!("{STATE_DIR}/join.key")
}

/// Whether the images of this bundle are those of the cluster's control plane: their names have the version.
///
/// # Errors
/// The image's: another version.
fn same_version(cx: &PhaseContext, cluster: &str) -> Result<(), Fault> {
    let (ours, theirs) = (cx.bundle.manifest.kubernetes.as_str(), cluster.trim_start_matches('v'));
    if cx.seed.joins_control_plane().is_none() || ours == theirs {
        return Ok(());
    }
    let text = format!(
        "become a control plane: this image has Kubernetes {ours}, the cluster {theirs}, and all control planes have to be of one \
         version; build an image of that version, or upgrade the cluster"
    );
    Err(Fault::new(Code::KubeletVersion, text))
}

/// What the cluster gave, and the key that it is for: a certificate through the join worker, all else to this process.
fn ask(cx: &PhaseContext, cluster: &Cluster) -> Result<(Joined, Key), Fault> {
    if cluster.token.is_erased() {
        return Err(Fault::new(
            Code::TokenUsedUp,
            format!("use the token in {}: it was used and erased by this device; drop a new seed", cx.seed_name),
        ));
    }
    stop_kubelet(cx).owned_by(Owner::Host)?;
    let name = node_name(cx)?;
    let input = JoinInput {
        cluster: cluster.clone(),
        via: cx.seed.network.via.clone(),
        node_name: name.clone(),
        kubelet_version: cx.bundle.manifest.kubernetes.clone(),
        target: cx.image.target.clone(),
        cri_socket: SOCKET.to_owned(),
        resolv_conf: resolv_conf(&cx.host).owned_by(Owner::Host)?.map(str::to_owned),
        now: cx.host.now(),
        csr_wait: CSR_WAIT,
        ready_wait: READY_WAIT,
    };
    let mut keeper = DeviceJoinHost { host: &cx.host, image: &cx.image, node: &name, key: None };
    let obtained = obtain(cx, &input, &mut keeper);
    // A process that knows the token, and the way to start one, last as long as the attempt, whatever comes of it.
    let stopped = cx.host.run(&["systemctl", "stop", SOCKET_UNIT, SERVICE_UNITS]).owned_by(Owner::Host);
    let Obtained { cluster, certificate_pem } = obtained?;
    stopped?;
    let key = keeper.key.take().context("find the key of the certificate").owned_by(Owner::Host)?;
    let joined = confirm::joined(&input, &cluster, certificate_pem, &key.sec1_pem()?, &mut keeper)?;
    Ok((joined, key))
}

/// Starts a join worker and has it join.
fn obtain(cx: &PhaseContext, input: &JoinInput, keeper: &mut DeviceJoinHost<'_>) -> Result<Obtained, Fault> {
    cx.host.run(&["systemctl", "start", SOCKET_UNIT]).owned_by(Owner::Host)?;
    let stream = cx.host.sys().connect(join_worker::SOCKET).owned_by(Owner::Host)?;
    privileged::obtain(&stream, input, keeper)
}

/// Stops the kubelet that an earlier seed started: it would go on with what that seed gave it, and would keep the Node
/// of this name Ready, so that the name looked taken for ever.
fn stop_kubelet(cx: &PhaseContext) -> Result<()> {
    let started = Record::Effect(Effect::Started { unit: "kubelet.service".into() });
    if cx.host.journal().records().contains(&started) {
        cx.host.run(&["systemctl", "stop", "kubelet.service"])?;
    }
    Ok(())
}

/// Writes kubelet's files in their order; kubelet.conf, which tells kubelet that all is there, comes last.
fn keep(cx: &PhaseContext, joined: &Joined, key: &Secret<String>) -> Result<()> {
    let name = node_name(cx)?;
    for file in files(joined, key, &cx.seed, &name, cx.host.now()) {
        match file.content {
            Content::Dir(mode) => cx.host.mkdir(&file.path, mode)?,
            Content::File(bytes, mode) => cx.host.write(&file.path, &bytes, mode)?,
            Content::Link(target) => cx.host.symlink(&file.path, &target)?,
        }
    }
    for (fact, value) in [
        (Fact::ClusterVersion, joined.cluster_version.clone()),
        (Fact::LeftOverNode, facts::flag(joined.leftover_node)),
        (Fact::ClusterNetworks, joined.networks.clone()),
        (Fact::NodePorts, joined.node_ports.clone()),
        (Fact::ApiService, joined.api_service.clone()),
        (Fact::JoinedBy, cx.seed.digest().to_owned()),
    ] {
        cx.host.record(Record::Fact { name: fact, value })?;
    }
    Ok(())
}

/// What the join asks of this device. The key stays here; its request alone is handed out.
struct DeviceJoinHost<'a> {
    host: &'a Host,
    image: &'a ImageInfo,
    node: &'a str,
    key: Option<Key>,
}

impl DeviceJoinHost<'_> {
    /// The key that an earlier attempt kept; none when there is none that can be read.
    fn kept(&self) -> Result<Option<Key>> {
        let Some(bytes) = self.host.read(&key_path())? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        let key = std::str::from_utf8(&bytes).ok().and_then(Key::from_pem);
        if key.is_none() {
            let text = "the private key that was kept cannot be read: asking for a certificate with another";
            self.host.sys().say(&format!("firstboot: {text}"));
        }
        Ok(key)
    }
}

impl JoinHost for DeviceJoinHost<'_> {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        let kept = if fresh { None } else { self.kept().owned_by(Owner::Host)? };
        let key = match kept {
            Some(key) => key,
            None => {
                let key = Key::generate()?;
                self.host.write(&key_path(), key.pem().expose().as_bytes(), 0o600).owned_by(Owner::Host)?;
                key
            }
        };
        let request = key.request(self.node)?;
        self.key = Some(key);
        Ok(request)
    }

    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        let Some(time) = cluster.time else { return Ok(()) };
        clock::accept_server_time(self.host, self.image, time).map(|by| clock::report_change(self.host, by))
    }

    fn progress(&mut self, text: &str) {
        self.host.sys().notify(&format!("STATUS={text}"));
    }

    fn notice(&mut self, text: &str) {
        self.host.sys().say(&format!("firstboot: {text}"));
    }
}

#[cfg(test)]
#[path = "join_attack_tests.rs"]
mod attack_tests;

#[cfg(test)]
mod tests {
    use super::super::tests::cx;
    use super::*;
    use crate::host::fake::Fake;

    const SEED: &str = "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
                        \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

    #[test]
    fn a_key_is_kept_before_its_request_is_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let cx = cx(dir.path(), fake, SEED);
        let keeper = || DeviceJoinHost { host: &cx.host, image: &cx.image, node: "edge-1", key: None };
        let request = |fresh| keeper().request(fresh).unwrap();
        let first = request(false);
        assert_eq!(request(false).name, first.name, "a power cut costs nothing");
        let second = request(true);
        assert_ne!(second.name, first.name);
        assert_eq!((request(false).name, seen.lines.borrow().len()), (second.name.clone(), 0));
        assert_eq!(cx.host.size_and_mode(&key_path()).unwrap().unwrap().1, 0o600);
        cx.host.write(&key_path(), b"-----BEGIN PRIVATE KEY-----\n", 0o600).unwrap();
        assert_ne!(request(false).name, second.name);
        let reported = "firstboot: the private key that was kept cannot be read: asking for a certificate with another";
        assert_eq!(*seen.lines.borrow(), [reported]);
        // Nothing can be kept: nothing is handed out.
        seen.fuse.set(Some(0));
        assert!(keeper().request(true).unwrap_err().to_string().contains("power lost"));
    }

    #[test]
    fn all_control_planes_are_of_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let more = format!("certificate-key = \"{}\"\n[node]\nrole = \"control-plane\"\n", "0".repeat(64));
        let mut control_plane = cx(dir.path(), Fake::new().0, &format!("{SEED}{more}"));
        let node = cx(dir.path(), Fake::new().0, SEED);
        control_plane.bundle.manifest.kubernetes = "1.36.3".into();
        same_version(&control_plane, "v1.36.3").unwrap();
        same_version(&node, "v1.36.4").unwrap();
        let fault = same_version(&control_plane, "v1.36.4").unwrap_err();
        assert_eq!(fault.code, Code::KubeletVersion);
        assert!(fault.to_string().contains("this image has Kubernetes 1.36.3, the cluster 1.36.4"), "{fault}");
    }
}
