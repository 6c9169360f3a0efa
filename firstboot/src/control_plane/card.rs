// SPDX-License-Identifier: Apache-2.0
//! What a control plane leaves on its boot partition: seeds for the next devices, and the administrator's kubeconfig
//! without its key.
//!
//! Such a seed holds a bootstrap token that ends within hours, and is renewed while the device is on. That of one more
//! control plane also holds the key of Secret `kubeadm-certs`, which kubeadm removes after two hours. They are the one
//! secret of the cluster that is meant to be on a FAT partition.

use super::kubeadm::upload_configuration;
use super::{ADMIN_CONF, in_memory};
use crate::boot_partition::BootPartition;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::admin::AdminClient;
use crate::kube::pin;
use crate::node::client::cluster;
use crate::paths::KUBEADM_CONFIG;
use crate::secret::Secret;
use crate::seed::{self, JoinToken, Role, VXLAN};
use crate::text::{hex, timestamp, unix_seconds};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

pub use crate::boot_partition::{ADMIN_KUBECONFIG as KUBECONFIG, JOIN_CONTROL_PLANE_SEED, JOIN_SEED};

/// How long a signature may take.
const SIGNED: Duration = Duration::from_secs(120);
const HOUR: u64 = 3600;

/// How long the key of the uploaded certificates stays the same, hours. There is one Secret: with another key each copy of an
/// earlier seed is worthless, so it does not change with each token. And it does change, so that an old copy is worth
/// nothing to those who have a newer token.
const KEY_HOURS: u64 = 24;
/// Life of the certificates that kubeadm uploads, and so of the token beside their key (`copycerts.UploadCerts`).
pub const CONTROL_PLANE_HOURS: u32 = 2;
/// Configuration of kubeadm with the key of the certificates, while they are uploaded.
const UPLOAD: &str = "upload-certs.yaml";

/// For which kind of device a seed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A node.
    Node,
    /// One more control plane.
    ControlPlane,
}

impl For {
    /// All of them.
    pub const ALL: [For; 2] = [For::Node, For::ControlPlane];

    /// Name of the file.
    pub fn file(self) -> &'static str {
        match self {
            For::Node => JOIN_SEED,
            For::ControlPlane => JOIN_CONTROL_PLANE_SEED,
        }
    }

    fn fact(self) -> Fact {
        match self {
            For::Node => Fact::JoinSeed,
            For::ControlPlane => Fact::ControlPlaneSeed,
        }
    }
}

/// What is known of a seed for the next device, kept as [`Fact::JoinSeed`] or [`Fact::ControlPlaneSeed`]: `HOURS END
/// FLANNEL`, and the virtual address where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSeed {
    /// For which kind of device.
    pub which: For,
    /// Life of each token.
    pub hours: u32,
    /// When the last one ends, seconds since 1970; 0 before the first.
    pub ends: u64,
    /// Whether nodes have to reach each other by VXLAN.
    pub flannel: bool,
    /// Address that the control planes share.
    pub virtual_ip: Option<IpAddr>,
}

impl JoinSeed {
    /// All that are kept on this device; none where it makes no such seed.
    pub fn all(host: &Host) -> Vec<Self> {
        For::ALL.into_iter().filter_map(|which| JoinSeed::kept(host, which)).collect()
    }

    /// As it was kept; none on a device that makes no such seed.
    fn kept(host: &Host, which: For) -> Option<Self> {
        let journal = host.journal();
        let mut words = journal.fact(which.fact())?.split_whitespace();
        let hours = words.next()?.parse().ok()?;
        let ends = words.next()?.parse().ok()?;
        let flannel = words.next()? == "true";
        let virtual_ip = words.next().and_then(|word| word.parse().ok());
        Some(JoinSeed { which, hours, ends, flannel, virtual_ip })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn keep(&self, host: &Host) -> Result<()> {
        let JoinSeed { which, hours, ends, flannel, virtual_ip } = self;
        let virtual_ip = virtual_ip.map(|address| format!(" {address}")).unwrap_or_default();
        host.note(which.fact(), &format!("{hours} {ends} {flannel}{virtual_ip}"))
    }

    /// Whether a new token is due: half of the last one's life is over.
    fn due(&self, now: SystemTime) -> bool {
        unix_seconds(now) + u64::from(self.hours) * HOUR / 2 >= self.ends
    }
}

/// Writes the seeds for the next devices, each with a new token where one is due.
///
/// # Errors
/// The host's: no token is made, or the boot partition cannot be written. The next try makes another token.
pub fn renew(host: &Host, boot: &BootPartition) -> Result<(), Fault> {
    JoinSeed::all(host).into_iter().try_for_each(|seed| renew_one(host, boot, seed))
}

fn renew_one(host: &Host, boot: &BootPartition, mut seed: JoinSeed) -> Result<(), Fault> {
    let name = seed.which.file();
    let there = boot.read(name).owned_by(Owner::Host)?.map(Zeroizing::new);
    if there.is_some() && !seed.due(host.now()) {
        return Ok(());
    }
    let (_, ca) = cluster(host).coded(Code::NodeCredential)?;
    let pins: Vec<String> = pin::certificates(&ca)
        .unwrap_or_default()
        .iter()
        .filter_map(|der| pin::pin_of(der))
        .map(|pin| format!("\"{pin}\""))
        .collect();
    let key = match seed.which {
        For::Node => None,
        For::ControlPlane => Some(upload_certificates(host, there.and_then(|bytes| key_of(host, &seed, &bytes)))?),
    };
    let ttl = format!("{}h0m0s", seed.hours);
    let describe = format!("firstboot: {name}");
    seed.ends = unix_seconds(host.now()) + u64::from(seed.hours) * HOUR;
    // It comes by a pipe, and is an argument of no command.
    let made = host
        .run(&["kubeadm", "token", "create", "--kubeconfig", ADMIN_CONF, "--ttl", &ttl, "--description", &describe])
        .map(Zeroizing::new)
        .coded(Code::ControlPlane)?;
    let token = made.lines().rev().map(str::trim).find_map(|line| JoinToken::parse(line).ok());
    let token = token.context("read the token that kubeadm made: there is none").coded(Code::ControlPlane)?;
    let fact = |fact| host.journal().fact(fact).unwrap_or_default().to_owned();
    let (node, server) = (fact(Fact::Node), fact(Fact::ClusterServer));
    let text = join_seed(&seed, &node, &server, &token, key.as_ref(), &pins.join(", "));
    let work = || -> Result<()> {
        host.change_boot("write", name, || boot.write(name, text.as_bytes()))?;
        seed.keep(host)
    };
    work().owned_by(Owner::Host)
}

/// The key in a seed for one more control plane, as long as copies of that seed may be under way with it.
fn key_of(host: &Host, seed: &JoinSeed, bytes: &[u8]) -> Option<Secret<String>> {
    let now = unix_seconds(host.now());
    let made: u64 = host.journal().fact(Fact::CertificateKeyMade)?.parse().ok()?;
    let counts = now < seed.ends && made <= now && now < made + KEY_HOURS * HOUR;
    let parsed = counts.then(|| seed::parse(bytes).ok()).flatten()?;
    let (_, key) = parsed.joins_control_plane()?;
    Some(Secret::new(key.expose().to_owned()))
}

fn new_key(host: &Host) -> Result<Secret<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let random = SystemRandom::new().fill(&mut *bytes);
    random.map_err(|_| anyhow::anyhow!("make a random key: the kernel gives no random numbers"))?;
    host.note(Fact::CertificateKeyMade, &unix_seconds(host.now()).to_string())?;
    Ok(Secret::new(hex(&*bytes)))
}

/// Has kubeadm upload the certificates that control planes share, encrypted by this key, or else by a new one; which that is.
/// The key is in a file in memory for as long as that takes, and in no command line.
fn upload_certificates(host: &Host, key: Option<Secret<String>>) -> Result<Secret<String>, Fault> {
    let key = key.map_or_else(|| new_key(host), Ok).owned_by(Owner::Host)?;
    let text = Zeroizing::new(host.read_text(KUBEADM_CONFIG).owned_by(Owner::Host)?.unwrap_or_default());
    let version = host.journal().fact(Fact::ClusterVersion).unwrap_or_default().to_owned();
    let text = upload_configuration(&text, &version, &key);
    in_memory::with_file(host, UPLOAD, &text, |path| {
        let words = ["kubeadm", "init", "phase", "upload-certs", "--upload-certs", "--skip-certificate-key-print"];
        host.run(&[&words[..], &["--config", path]].concat()).map(drop).coded(Code::ControlPlane)
    })?;
    Ok(key)
}

/// The text of a seed for the next device, of the same length for each token: it is overwritten in place.
fn join_seed(
    seed: &JoinSeed,
    node: &str,
    server: &str,
    token: &JoinToken,
    key: Option<&Secret<String>>,
    pins: &str,
) -> Zeroizing<String> {
    let end = timestamp(seed.ends);
    let bearer = token.bearer();
    let (next, worth) = match seed.which {
        For::Node => ("the next device", "add a machine to the cluster"),
        For::ControlPlane => ("one more control plane", "take the cluster over"),
    };
    let mut text = Zeroizing::new(format!(
        "# Seed for {next} of the cluster that {node} created. Copy it to the boot partition of that device's\r\n\
         # card as seed.toml. Until {end} this file is enough to {worth}. {node}\r\n\
         # renews it while it is on.\r\n\
         version = 1\r\n\r\n[cluster]\r\napiserver = \"{server}\"\r\ntoken = \"{}\"\r\nca-cert-hashes = [{pins}]\r\ntoken-expires = \
         {end}\r\n",
        *bearer
    ));
    if let Some(key) = key {
        text.push_str("certificate-key = \"");
        text.push_str(key.expose());
        text.push_str("\"\r\n");
        text.push_str(&seed.virtual_ip.map(|address| format!("virtual-ip = \"{address}\"\r\n")).unwrap_or_default());
        text.push_str(&format!("\r\n[node]\r\nrole = \"{}\"\r\n", Role::ControlPlane));
    }
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

    fn seed_of(which: For, hours: u32, flannel: bool) -> JoinSeed {
        JoinSeed { which, hours, ends: 1_795_365_108, flannel, virtual_ip: Some(IpAddr::from([192, 0, 2, 10])) }
    }

    #[test]
    fn the_seed_for_the_next_device_is_one_that_it_takes() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let pins = format!("\"sha256:{:064}\"", 7);
        let read = |seed: &JoinSeed, key: Option<&Secret<String>>| {
            let text = join_seed(seed, "edge-1", "192.0.2.7:6443", &token, key, &pins);
            seed::parse(text.as_bytes()).unwrap()
        };
        let parsed = read(&seed_of(For::Node, 24, true), None);
        let cluster = parsed.join().unwrap();
        assert_eq!((cluster.token.id(), cluster.apiserver[0].to_string()), ("abcdef", "192.0.2.7:6443".to_owned()));
        assert_eq!(cluster.token_expires.map(unix_seconds), Some(1_795_365_108));
        assert_eq!(parsed.harden.open[0].to_string(), "udp/8472");
        assert!(!parsed.is_control_plane());
        assert!(read(&seed_of(For::Node, 24, false), None).harden.open.is_empty());
        let key = Secret::new("0f".repeat(32));
        let parsed = read(&seed_of(For::ControlPlane, 2, true), Some(&key));
        assert_eq!(parsed.joins_control_plane().unwrap().1.expose(), key.expose());
        assert_eq!(parsed.virtual_ip(), Some(IpAddr::from([192, 0, 2, 10])));
        let ports: Vec<String> = parsed.ports_of_control_plane().iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["tcp/6443", "tcp/2379-2380"]);
    }

    #[test]
    fn a_token_is_renewed_when_half_of_its_life_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(JoinSeed::kept(&host, For::Node), None);
        let seed = JoinSeed { ends: 24 * HOUR, ..seed_of(For::Node, 24, true) };
        seed.keep(&host).unwrap();
        assert_eq!(JoinSeed::kept(&host, For::Node), Some(seed.clone()));
        assert_eq!(JoinSeed::kept(&host, For::ControlPlane), None);
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * HOUR);
        assert!(!seed.due(at(0)) && !seed.due(at(11)) && seed.due(at(12)) && seed.due(at(40)));
    }

    #[test]
    fn the_key_of_the_certificates_is_in_no_command_and_its_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let key = upload_certificates(&host, None).unwrap();
        assert_ne!(key.expose(), upload_certificates(&host, None).unwrap().expose());
        assert_eq!(
            upload_certificates(&host, Some(Secret::new(key.expose().to_owned()))).unwrap().expose(),
            key.expose()
        );
        let commands = seen.commands.borrow();
        assert!(
            commands[0].starts_with("kubeadm init phase upload-certs ") && !commands[0].contains(key.expose().as_str())
        );
        assert!(host.list("/run/firstboot").unwrap().is_empty());
    }

    /// A seed that was copied is good for its two hours, whatever the device writes on its own card meanwhile.
    #[test]
    fn the_key_outlives_the_tokens_and_not_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let now = unix_seconds(host.now());
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let key = Secret::new("0f".repeat(32));
        let seed = |ends| JoinSeed { ends, ..seed_of(For::ControlPlane, 2, false) };
        let pins = format!("\"sha256:{:064}\"", 7);
        let text = join_seed(&seed(now + 60), "edge-1", "192.0.2.7:6443", &token, Some(&key), &pins);
        let kept = |ends, made: u64| {
            host.note(Fact::CertificateKeyMade, &made.to_string()).unwrap();
            key_of(&host, &seed(ends), text.as_bytes()).map(|key| key.expose().to_owned())
        };
        assert_eq!(key_of(&host, &seed(now + 60), text.as_bytes()).map(|_| ()), None, "of an unknown age");
        assert_eq!(kept(now + 60, now - 23 * HOUR), Some(key.expose().to_owned()));
        assert_eq!(
            (kept(now + 60, now - 24 * HOUR), kept(now, now - HOUR), kept(now + 60, now + 1)),
            (None, None, None)
        );
        assert!(key_of(&host, &seed(now + 60), b"version = 1\n").is_none());
    }

    #[test]
    fn a_kubeconfig_without_a_key() {
        let text = kubeconfig("api.example.com:6443", "CA\n", "CERT\n");
        let read = read(&text).unwrap();
        assert_eq!((read.server.as_str(), read.ca_pem.as_str()), ("https://api.example.com:6443", "CA\n"));
        assert!(!text.contains("client-key"));
    }
}
