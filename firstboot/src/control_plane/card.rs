// SPDX-License-Identifier: Apache-2.0
//! What a control plane leaves on its boot partition: a seed for the next device, and the administrator's kubeconfig
//! without its key.
//!
//! The seed holds a bootstrap token that ends within hours, and is renewed while the device is on. It is the one secret of
//! the cluster that is meant to be on a FAT partition.

use super::ADMIN_CONF;
use crate::boot_partition::BootPartition;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::admin::AdminClient;
use crate::kube::pin;
use crate::node::client::cluster;
use crate::seed::{JoinToken, VXLAN};
use crate::text::{timestamp, unix_seconds};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

pub use crate::boot_partition::{ADMIN_KUBECONFIG as KUBECONFIG, JOIN_SEED};

/// How long a signature may take.
const SIGNED: Duration = Duration::from_secs(120);
const HOUR: u64 = 3600;

/// What is known of the seed for the next device, kept as [`Fact::JoinSeed`]: `HOURS END FLANNEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSeed {
    /// Life of each token.
    pub hours: u32,
    /// When the last one ends, seconds since 1970; 0 before the first.
    pub ends: u64,
    /// Whether nodes have to reach each other by VXLAN.
    pub flannel: bool,
}

impl JoinSeed {
    /// As it was kept; none on a device that makes no such seed.
    pub fn kept(host: &Host) -> Option<Self> {
        let journal = host.journal();
        let mut words = journal.fact(Fact::JoinSeed)?.split_whitespace();
        let hours = words.next()?.parse().ok()?;
        let ends = words.next()?.parse().ok()?;
        Some(JoinSeed { hours, ends, flannel: words.next()? == "true" })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn keep(&self, host: &Host) -> Result<()> {
        let JoinSeed { hours, ends, flannel } = self;
        host.note(Fact::JoinSeed, &format!("{hours} {ends} {flannel}"))
    }

    /// Whether a new token is due: half of the last one's life is over.
    fn due(&self, now: SystemTime) -> bool {
        unix_seconds(now) + u64::from(self.hours) * HOUR / 2 >= self.ends
    }
}

/// Writes the seed for the next device, with a new token where one is due; whether it was written.
///
/// # Errors
/// The host's: no token is made, or the boot partition cannot be written. The next try makes another token.
pub fn renew(host: &Host, boot: &BootPartition) -> Result<bool, Fault> {
    let Some(mut seed) = JoinSeed::kept(host) else { return Ok(false) };
    let there = boot.read(JOIN_SEED).owned_by(Owner::Host)?.is_some();
    if there && !seed.due(host.now()) {
        return Ok(false);
    }
    let (_, ca) = cluster(host).coded(Code::NodeCredential)?;
    let pins: Vec<String> = pin::certificates(&ca)
        .unwrap_or_default()
        .iter()
        .filter_map(|der| pin::pin_of(der))
        .map(|pin| format!("\"{pin}\""))
        .collect();
    let ttl = format!("{}h0m0s", seed.hours);
    let describe = format!("firstboot: {JOIN_SEED}");
    seed.ends = unix_seconds(host.now()) + u64::from(seed.hours) * HOUR;
    // It comes by a pipe, and is an argument of no command.
    let made = host
        .run(&["kubeadm", "token", "create", "--kubeconfig", ADMIN_CONF, "--ttl", &ttl, "--description", &describe])
        .map(Zeroizing::new)
        .coded(Code::ControlPlane)?;
    let token = made.lines().rev().map(str::trim).find_map(|line| JoinToken::parse(line).ok());
    let token = token.context("read the token that kubeadm made: there is none").coded(Code::ControlPlane)?;
    let fact = |fact| host.journal().fact(fact).unwrap_or_default().to_owned();
    let text = join_seed(&seed, &fact(Fact::Node), &fact(Fact::ClusterServer), &token, &pins.join(", "));
    let work = || -> Result<()> {
        host.change_boot("write", JOIN_SEED, || boot.write(JOIN_SEED, text.as_bytes()))?;
        seed.keep(host)
    };
    work().owned_by(Owner::Host)?;
    Ok(true)
}

/// The text of the seed for the next device, of the same length for each token: it is overwritten in place.
fn join_seed(seed: &JoinSeed, node: &str, server: &str, token: &JoinToken, pins: &str) -> Zeroizing<String> {
    let end = timestamp(seed.ends);
    let bearer = token.bearer();
    let mut text = Zeroizing::new(format!(
        "# Seed for the next device of the cluster that {node} created. Copy it to the boot partition of that device's\r\n\
         # card as seed.toml. Until {end} this file is enough to add a machine to the cluster. {node}\r\n\
         # renews it while it is on.\r\n\
         version = 1\r\n\r\n[cluster]\r\napiserver = \"{server}\"\r\ntoken = \"{}\"\r\nca-cert-hashes = [{pins}]\r\ntoken-expires = \
         {end}\r\n",
        *bearer
    ));
    if seed.flannel {
        text.push_str(&format!(
            "\r\n# Pods on different nodes reach each other by VXLAN.\r\n[harden]\r\nopen = [\"{VXLAN}\"]\r\n"
        ));
    }
    text
}

/// Has the administrator's certificate signed, and writes the kubeconfig without the key, which only its owner has.
///
/// # Errors
/// The cluster's: it is not signed. The host's: the boot partition cannot be written.
pub fn administrator(host: &Host, boot: &BootPartition, request: &str, server: &str) -> Result<(), Fault> {
    let certificate = admin_client(host)?.sign(request, SIGNED)?;
    let (_, ca) = cluster(host).coded(Code::NodeCredential)?;
    let text = kubeconfig(server, &ca, &certificate);
    let write = || host.change_boot("write", KUBECONFIG, || boot.write(KUBECONFIG, text.as_bytes()));
    write().owned_by(Owner::Host)
}

/// The administrator of the cluster that this device created.
///
/// # Errors
/// The host's: kubeadm's file is not there or cannot be used.
pub fn admin_client(host: &Host) -> Result<AdminClient, Fault> {
    let conf = host.read_utf8(ADMIN_CONF).owned_by(Owner::Host)?;
    let conf = conf.map(Zeroizing::new).with_context(|| format!("find {ADMIN_CONF}")).coded(Code::NodeCredential)?;
    AdminClient::new(&conf)
}

fn kubeconfig(server: &str, ca: &str, certificate: &str) -> String {
    let (ca, certificate) = (STANDARD.encode(ca), STANDARD.encode(certificate));
    format!(
        "# Without the private key, which is on the machine that made the request:\n\
         # imagebuild cluster kubeconfig puts both together.\n\
         apiVersion: v1\nkind: Config\ncurrent-context: admin@kubernetes\n\
         clusters:\n- name: kubernetes\n  cluster:\n    server: https://{server}\n    certificate-authority-data: {ca}\n\
         contexts:\n- name: admin@kubernetes\n  context:\n    cluster: kubernetes\n    user: admin\n\
         users:\n- name: admin\n  user:\n    client-certificate-data: {certificate}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::kube::kubeconfig::read;
    use crate::seed;

    #[test]
    fn the_seed_for_the_next_device_is_one_that_it_takes() {
        let of = |flannel| JoinSeed { hours: 24, ends: 1_795_365_108, flannel };
        let server = "192.0.2.7:6443";
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let pins = format!("\"sha256:{:064}\"", 7);
        let parsed = seed::parse(join_seed(&of(true), "edge-1", server, &token, &pins).as_bytes()).unwrap();
        let cluster = parsed.join().unwrap();
        assert_eq!((cluster.token.id(), cluster.apiserver[0].to_string()), ("abcdef", "192.0.2.7:6443".to_owned()));
        assert_eq!(cluster.token_expires.map(unix_seconds), Some(1_795_365_108));
        assert_eq!(parsed.harden.open[0].to_string(), "udp/8472");
        assert!(
            seed::parse(join_seed(&of(false), "edge-1", server, &token, &pins).as_bytes())
                .unwrap()
                .harden
                .open
                .is_empty()
        );
    }

    #[test]
    fn a_token_is_renewed_when_half_of_its_life_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(JoinSeed::kept(&host), None);
        let seed = JoinSeed { hours: 24, ends: 24 * HOUR, flannel: true };
        seed.keep(&host).unwrap();
        assert_eq!(JoinSeed::kept(&host), Some(seed.clone()));
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * HOUR);
        assert!(!seed.due(at(0)) && !seed.due(at(11)) && seed.due(at(12)) && seed.due(at(40)));
    }

    #[test]
    fn a_kubeconfig_without_a_key() {
        let text = kubeconfig("api.example.com:6443", "CA\n", "CERT\n");
        let read = read(&text).unwrap();
        assert_eq!((read.server.as_str(), read.ca_pem.as_str()), ("https://api.example.com:6443", "CA\n"));
        assert!(!text.contains("client-key"));
    }
}
