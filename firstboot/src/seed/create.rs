// SPDX-License-Identifier: Apache-2.0
//! Reads `[cluster]` of a device that creates its cluster: `create = true`.
//!
//! The rules for addresses are those of kubeadm (`apis/kubeadm/validation`) and of kube-apiserver and
//! kube-controller-manager, which would end with others.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde_json::Map;
use toml::de::{DeTable, DeValue};

use super::cluster::{KEYS, OF_CREATE, OF_JOIN, address};
use super::kubeadm_fields::{self, Place};
use super::model::{Kubeadm, Membership, NewCluster, Node};
use super::network::Network;
use super::reader::{Reader, Value, quoted, without_quotes};
use super::types::{DEFAULT_PORT, Endpoint, Role};
use crate::fault::Code;
use crate::names::{self, is_dns_subdomain};

/// Flannel's default, and kubeadm's.
const SUBNETS: [&str; 2] = ["10.244.0.0/16", "10.96.0.0/12"];
/// kube-controller-manager gives each node a network of this length: a cluster has 65536 of them at most.
const NODE_PREFIX: [u8; 2] = [24, 64];
/// The largest range of Services that kube-apiserver takes, bits of the host part.
const SERVICE_BITS: u8 = 20;
/// Largest life of a token in a file that lies on a card: a week.
const MOST_HOURS: u32 = 168;
/// kubeadm's own (`--ttl` of `kubeadm token create`).
const HOURS: u32 = 24;

impl Reader {
    /// Whether the table says `create = true`; a wrong value is an error.
    pub(super) fn creates(&mut self, table: &DeTable<'_>) -> Option<bool> {
        table.get("create").map_or(Some(false), |v| self.boolean(v, "create", "cluster"))
    }

    /// Keys of a cluster to create, in the table of one to join.
    pub(super) fn without_create(&mut self, table: &DeTable<'_>) {
        for key in &OF_CREATE[1..] {
            let Some((found, _)) = table.get_key_value(*key) else { continue };
            let instead = match *key {
                "endpoint" => "; the address of a cluster to join is apiserver",
                _ => "",
            };
            let text = format!("{key} in [cluster] needs create = true{instead}");
            self.error(found.span().start, Code::ConflictingKeys, text);
        }
    }

    /// `[cluster]` with `create = true`.
    pub(super) fn new_cluster(&mut self, table: &DeTable<'_>) -> Option<NewCluster> {
        let before = self.errors.len();
        self.unknown_keys("cluster", table, &KEYS);
        for key in OF_JOIN {
            let Some((found, _)) = table.get_key_value(*key) else { continue };
            let text = format!(
                "create and {key} in [cluster] are both set: a device creates a cluster or joins one, not both"
            );
            self.error(found.span().start, Code::ConflictingKeys, text);
        }
        let endpoint = table.get("endpoint").and_then(|v| self.string(v, "endpoint", "cluster", Endpoint::parse));
        let virtual_ip = table.get("virtual-ip").and_then(|v| self.string(v, "virtual-ip", "cluster", address));
        let endpoint = endpoint.or_else(|| Some(Endpoint { host: virtual_ip?.to_string(), port: DEFAULT_PORT }));
        let pods = self.subnets(table, "pod-subnet", SUBNETS[0]);
        let services = self.subnets(table, "service-subnet", SUBNETS[1]);
        if let (Some(pods), Some(services)) = (&pods, &services) {
            self.fit(table, pods, services);
        }
        let names = table.get("cert-sans").map_or(Some(Vec::new()), |v| self.strings(v, "cert-sans", "cluster", name));
        let request = table.get("admin-request").map(|v| self.string(v, "admin-request", "cluster", request));
        let hours = table.get("join-seed-hours").map_or(Some(HOURS), |v| self.hours(v));
        let more = table.get("join-control-plane").map_or(Some(false), |v| {
            let more = self.boolean(v, "join-control-plane", "cluster");
            if more == Some(true) && endpoint.is_none() {
                let text = "join-control-plane in [cluster] needs endpoint or virtual-ip: one name or address that leads to \
                            each of the control planes";
                self.error(v.span().start, Code::MissingKey, text);
                return None;
            }
            more
        });
        let kubeadm = table.get("kubeadm").map_or(Some(Kubeadm::default()), |v| self.kubeadm(v));
        (self.errors.len() == before).then_some(())?;
        Some(NewCluster {
            endpoint,
            virtual_ip,
            pod_subnet: pods?,
            service_subnet: services?,
            cert_sans: names?,
            admin_request: request.flatten(),
            join_seed_hours: hours?,
            join_control_plane: more?,
            kubeadm: kubeadm?,
        })
    }

    fn subnets(&mut self, table: &DeTable<'_>, key: &str, default: &str) -> Option<Vec<IpNet>> {
        let subnet = |text: &str| names::network(text).ok_or("expected a network, as in 10.244.0.0/16".to_owned());
        let Some(value) = table.get(key) else { return subnet(default).ok().map(|net| vec![net]) };
        let nets = self.strings(value, key, "cluster", subnet)?;
        let families: Vec<bool> = nets.iter().map(|net| net.addr().is_ipv4()).collect();
        if families.len() > 2 || families.len() == 2 && families[0] == families[1] {
            let text = format!("{key} in [cluster] has more than one network of an address family");
            self.error(value.span().start, Code::BadValue, text);
            return None;
        }
        Some(nets)
    }

    /// Whether the networks of pods and Services can be those of one cluster.
    fn fit(&mut self, table: &DeTable<'_>, pods: &[IpNet], services: &[IpNet]) {
        let at = |key: &str| table.get(key).map(|v| v.span().start);
        let (pod, service) = (at("pod-subnet"), at("service-subnet"));
        let place = pod.or(service).unwrap_or_default();
        let families = |nets: &[IpNet]| nets.iter().map(|net| net.addr().is_ipv4()).collect::<Vec<_>>();
        if families(pods) != families(services) {
            let text =
                "pod-subnet and service-subnet in [cluster] are not of the same address families, in the same order";
            self.error(place, Code::ConflictingKeys, text);
            return;
        }
        for (pods, services) in pods.iter().zip(services) {
            if overlap(pods, services) {
                let text = format!("pod-subnet {pods} and service-subnet {services} in [cluster] overlap");
                self.error(place, Code::ConflictingKeys, text);
            }
        }
        for net in pods {
            let longest = NODE_PREFIX[usize::from(net.addr().is_ipv6())];
            if net.prefix_len() > longest || longest - net.prefix_len() > 16 {
                let text = format!(
                    "pod-subnet {net} in [cluster] has to be between /{} and /{longest}: each node gets a /{longest} of it",
                    longest - 16
                );
                self.error(pod.unwrap_or(place), Code::BadValue, text);
            }
        }
        for net in services {
            let bits = net.max_prefix_len() - net.prefix_len();
            if !(4..=SERVICE_BITS).contains(&bits) {
                let (most, least) = (net.max_prefix_len() - SERVICE_BITS, net.max_prefix_len() - 4);
                let text = format!("service-subnet {net} in [cluster] has to be between /{most} and /{least}");
                self.error(service.unwrap_or(place), Code::BadValue, text);
            }
        }
    }

    /// Whether a device with these addresses, of `[network]`, is outside of its cluster's own networks.
    pub(super) fn apart(&mut self, at: usize, addresses: &[IpNet], cluster: &NewCluster) {
        let own = [("pod-subnet", &cluster.pod_subnet), ("service-subnet", &cluster.service_subnet)];
        for address in addresses {
            for (key, net) in own.iter().flat_map(|(key, nets)| nets.iter().map(move |net| (key, net))) {
                if overlap(&address.trunc(), net) {
                    let text = format!("addresses in [network] and {key} {net} in [cluster] overlap");
                    self.error(at, Code::ConflictingKeys, text);
                    return;
                }
            }
        }
    }

    /// Whether the virtual address is another one than the device's own, of their family and outside of the cluster's networks.
    pub(super) fn virtual_ip(&mut self, at: usize, network: &Network, membership: &Membership) {
        let (address, nets) = match membership {
            Membership::Create(cluster) => {
                (cluster.virtual_ip, [&cluster.pod_subnet[..], &cluster.service_subnet[..]].concat())
            }
            Membership::Join(cluster) => (cluster.virtual_ip, Vec::new()),
        };
        let Some(address) = address else { return };
        let own = network.addresses.iter().any(|net| net.addr() == address);
        if own {
            let text = format!(
                "virtual-ip {address} in [cluster] and addresses in [network] are the same: control planes share it"
            );
            self.error(at, Code::ConflictingKeys, text);
        }
        if let Some(net) = nets.iter().find(|net| net.contains(&address)) {
            let text = format!("virtual-ip {address} in [cluster] is in {net}, which is a network of pods or Services");
            self.error(at, Code::ConflictingKeys, text);
        }
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut same = network.addresses.iter().filter(of_family).peekable();
        if !network.addresses.is_empty() && !own && !same.any(|net| net.contains(&address)) {
            let text = format!("virtual-ip {address} in [cluster] is in no network of addresses in [network]");
            self.error(at, Code::ConflictingKeys, text);
        }
    }

    /// What a control plane's seed has to say, and may not say, besides its own table; the places are those of `[node]` and
    /// `[cluster]`.
    pub(super) fn control_plane(&mut self, in_node: usize, in_cluster: usize, node: &Node, membership: &Membership) {
        let conflict = |reader: &mut Self, at, text: &str| reader.error(at, Code::ConflictingKeys, text);
        let (creates, key) = match membership {
            Membership::Create(_) => (true, false),
            Membership::Join(cluster) => (false, cluster.certificate_key.is_some()),
        };
        match (node.role == Role::ControlPlane, key) {
            (true, false) if !creates => self.error(
                in_node,
                Code::MissingKey,
                "role = \"control-plane\" in [node] needs certificate-key in [cluster], of the control plane that is there",
            ),
            (false, true) => {
                conflict(self, in_cluster, "certificate-key in [cluster] needs role = \"control-plane\" in [node]");
            }
            _ => {}
        }
        if node.offline && (creates || key) {
            let what = if creates { "create" } else { "certificate-key" };
            let text = format!(
                "offline in [node] and {what} in [cluster] are both set: a control plane has its own API server"
            );
            conflict(self, in_node, &text);
        }
    }

    fn hours(&mut self, value: &Value<'_>) -> Option<u32> {
        let hours = match value.get_ref() {
            DeValue::Integer(i) => u32::from_str_radix(i.as_str(), i.radix()).ok(),
            _ => None,
        };
        let hours = hours.filter(|hours| *hours <= MOST_HOURS);
        if hours.is_none() {
            let text = format!(
                "join-seed-hours in [cluster] must be a number from 0 (no join-edge.toml) to {MOST_HOURS}{}",
                without_quotes(value)
            );
            self.error(value.span().start, Code::BadValue, text);
        }
        hours
    }

    /// `[cluster.kubeadm]`: names and types; the values are judged by kubeadm on the device.
    fn kubeadm(&mut self, value: &Value<'_>) -> Option<Kubeadm> {
        let Some(table) = value.get_ref().as_table() else {
            let text = "kubeadm in [cluster] must be a table: [cluster.kubeadm]";
            self.error(value.span().start, Code::BadValue, text);
            return None;
        };
        let before = self.errors.len();
        let mut fields = Kubeadm { cluster: Map::new(), init: Map::new() };
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            let (kind, fields) = match kubeadm_fields::find(name) {
                Some(Place::Owned(why)) => {
                    self.error(at, Code::SettingNotAllowed, format!("{name} in [cluster.kubeadm] is refused: {why}"));
                    continue;
                }
                Some(Place::Cluster(kind)) => (kind, &mut fields.cluster),
                Some(Place::Init(kind)) => (kind, &mut fields.init),
                None => {
                    let hint = kubeadm_fields::closest(name).map(|field| format!("; did you mean {field}?"));
                    let hint = hint.unwrap_or_default();
                    let text = format!("unknown field {} in [cluster.kubeadm]{hint}", quoted(name));
                    self.error(at, Code::UnknownKey, text);
                    continue;
                }
            };
            if let Some(json) = self.field(at, "cluster.kubeadm", name, kind, value) {
                fields.insert(name.to_owned(), json);
            }
        }
        (self.errors.len() == before).then_some(fields)
    }
}

/// Whether one of two networks holds the other.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// What kubeadm takes into a certificate (`ValidateCertSANs`): an address, or a name, perhaps with `*.` before it.
fn name(text: &str) -> Result<String, String> {
    let is_name = is_dns_subdomain(text.strip_prefix("*.").unwrap_or(text));
    match is_name || text.parse::<IpAddr>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err("expected a DNS name or an IP address, as in api.example.com".to_owned()),
    }
}

/// A certificate request (PKCS #10, RFC 2986) as PEM, in one form. Whom it names and whether it is signed is for the
/// cluster to judge.
fn request(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected one certificate request in PEM, as imagebuild cluster new makes it";
    if text.contains("PRIVATE KEY") {
        return Err(
            "this is a private key, which must not leave the administrator's machine; give its request".to_owned()
        );
    }
    let between = || text.trim().strip_prefix("-----BEGIN CERTIFICATE REQUEST-----")?.split_once("-----END ");
    let (data, end) = between().ok_or(EXPECTED)?;
    let data: String = data.split_whitespace().collect();
    let der = STANDARD.decode(&data).map_err(|_| EXPECTED)?;
    // A SEQUENCE with a length of its own (X.690).
    if end.trim_end() != "CERTIFICATE REQUEST-----" || der.len() < 64 || der[0] != 0x30 {
        return Err(EXPECTED.to_owned());
    }
    let lines: Vec<String> =
        data.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    Ok(format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n")))
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
