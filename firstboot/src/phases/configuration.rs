// SPDX-License-Identifier: Apache-2.0
//! The configuration that values of a seed go into, by the program that reads it. Pure.
//!
//! A device writes each of these files in the phase that it belongs to. Here they stand side by side, so that a test can
//! give them to the programs themselves.

use super::{clock, kubelet_config, registries};
use crate::firewall::peers::ClusterPeers;
use crate::firewall::render;
use crate::harden::access::sshd;
use crate::harden::overrides::SeedOverrides;
use crate::kube::config;
use crate::network::{Link, networkd, wifi};
use crate::node::proxy_env;
use crate::seed::{Interface, Seed};
use anyhow::Result;
use zeroize::Zeroizing;

/// A program that reads values of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// systemd-networkd.
    Networkd,
    /// wpa_supplicant.
    WpaSupplicant,
    /// systemd, which gives containerd and kubelet the proxy as environment variables.
    Environment,
    /// systemd-timesyncd.
    Timesyncd,
    /// containerd.
    Containerd,
    /// systemd, which gives kubelet its flags.
    KubeletFlags,
    /// kubelet.
    KubeletConfiguration,
    /// sshd.
    Sshd,
    /// sshd, for the keys of the account.
    AuthorizedKeys,
    /// nft.
    Nftables,
}

/// One file.
#[derive(Debug)]
pub struct Configuration {
    /// The program that reads it.
    pub reader: Reader,
    /// Absolute, as on the device.
    pub path: String,
    /// Whole content; it may hold a secret.
    pub text: Zeroizing<String>,
}

/// All files for `seed` on a device whose node is called `node`, and whose interface, where only one is used, is
/// `interface`.
///
/// # Errors
/// Never in practice: every value can be encoded.
pub fn configuration(seed: &Seed, node: &str, interface: &str) -> Result<Vec<Configuration>> {
    let network = &seed.network;
    let link = match &network.interface {
        Some(Interface::Name(name)) => Link::Name(name.clone()),
        Some(Interface::Mac(mac)) => Link::Mac(mac.clone()),
        None if network.addresses.is_empty() && network.vlan.is_none() && network.wifi.is_none() => Link::EveryWired,
        None => Link::Name(interface.to_owned()),
    };
    let mut all = Vec::new();
    let mut add = |reader, path: &str, text: &str| {
        all.push(Configuration { reader, path: path.to_owned(), text: Zeroizing::new(text.to_owned()) });
    };
    for file in networkd::files(network, &link) {
        add(Reader::Networkd, &file.path, &file.text);
    }
    if let Some(network) = &network.wifi {
        let file = wifi::file(network, interface);
        add(Reader::WpaSupplicant, &file.path, &file.text);
    }
    for file in proxy_env::files("", &network.via) {
        add(Reader::Environment, &file.path, &file.text);
    }
    if let Some(text) = clock::ntp_file(&seed.time.servers) {
        add(Reader::Timesyncd, clock::NTP_FILE, &text);
    }
    for file in registries::files(&seed.registries) {
        add(Reader::Containerd, &file.path, &file.text);
    }
    let labels = config::labels(seed.node.role, node, &seed.node.labels);
    let flags = config::flags_env(node, node, &network.node_ips(), &labels, &seed.node.taints);
    add(Reader::KubeletFlags, crate::paths::KUBEADM_FLAGS, &flags);
    for (path, text) in kubelet_config::drop_ins(&seed.kubelet)? {
        add(Reader::KubeletConfiguration, path, &text);
    }
    if !seed.access.keys.is_empty() {
        let user = &seed.access.user;
        add(Reader::Sshd, crate::harden::access::CONFIG, &sshd::config(user));
        add(Reader::AuthorizedKeys, &format!("{}/{user}", sshd::KEYS_DIR), &sshd::keys(&seed.access));
    }
    let peers = ClusterPeers::from_seed(seed, ClusterPeers::default());
    add(Reader::Nftables, "/dev/stdin", &render::rules(&SeedOverrides::of(seed), &peers));
    Ok(all)
}
