// SPDX-License-Identifier: Apache-2.0
//! What `[harden]` may say: where this node's host is to be more open, or more closed, than others.
//!
//! It is kept on the device (`/etc/firstboot/harden.json`), because the guard applies it at every boot when the seed is
//! long gone. Messages of `parse` say what was expected, never what was found.

use crate::fault::Code;
use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::character;
use super::reader::{Reader, Value, misplaced, quoted};
use crate::names;

/// Keys of `[harden]`.
pub(super) const KEYS: [&str; 6] = ["open", "kubelet-from", "egress", "forward", "sysctl", "modules"];

/// What kubelet's protectKernelDefaults requires: with any other value kubelet ends (pkg/util/sysctl of Kubernetes).
pub(crate) const KUBELETS: [(&str, &str); 6] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];

/// Table `[harden]`. Everything in it but an egress list is an exception, and `firstboot status` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harden {
    /// Ports of this node that anybody may reach: of the host, and of NodePorts.
    pub open: Vec<OpenPort>,
    /// Who may reach kubelet (port 10250) beside the API servers.
    pub kubelet_from: Vec<IpNet>,
    /// The only networks that this node and its pods may open connections to, beside the API servers, name servers,
    /// time servers and the proxy; none: all.
    pub egress: Option<Vec<IpNet>>,
    /// Whether this device routes between its links, as a router would. For its pods it always does.
    #[serde(default)]
    pub forward: bool,
    /// Kernel settings that differ from the hardened ones, by name with dots.
    pub sysctl: BTreeMap<String, String>,
    /// Kernel modules that may be loaded although the hardened host refuses them.
    pub modules: Vec<String>,
}

/// Transport protocol of an open port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// `PROTOCOL/PORT` or `PROTOCOL/FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last one; the same for a single port.
    pub last: u16,
}

impl OpenPort {
    /// Reads `udp/8472`, `tcp/30000-30010`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected PROTOCOL/PORT or PROTOCOL/FIRST-LAST, as in udp/8472 or tcp/30000-30010".to_owned();
        let (protocol, ports) = text.split_once('/').ok_or_else(expected)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(expected()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(expected)
        };
        let (first, last) = (port(first)?, port(last)?);
        match first <= last {
            true => Ok(OpenPort { protocol, first, last }),
            false => Err("expected the first port before the last, as in tcp/30000-30010".to_owned()),
        }
    }
}

impl fmt::Display for OpenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}/{}", self.protocol, self.first),
            false => write!(f, "{}/{}-{}", self.protocol, self.first, self.last),
        }
    }
}

/// A network, or one address for a network of its own; bits behind the prefix are refused, for then something else was
/// meant.
pub(super) fn source(text: &str) -> Result<IpNet, String> {
    let expected = || "expected an address or a network, as in 10.0.0.7, 10.0.0.0/24 or 2001:db8::/64".to_owned();
    let net = match text.contains('/') {
        true => names::network(text).ok_or_else(expected)?,
        false => IpNet::from(text.parse::<std::net::IpAddr>().map_err(|_| expected())?),
    };
    // A packet's source is one or the other, and sshd and nft read such a network differently.
    if net.addr() != net.addr().to_canonical() {
        return Err(
            "expected an IPv4 address or network as such, as in 10.0.0.0/24, not within an IPv6 address".to_owned()
        );
    }
    match net.trunc() == net {
        true => Ok(net),
        false => Err("expected a network without bits behind its prefix, as in 10.0.0.0/24".to_owned()),
    }
}

/// Name of a kernel module: letters, digits, `_` and `-`.
fn module(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    match (1..=55).contains(&text.len()) && text.bytes().all(good) {
        true => Ok(text.replace('-', "_")),
        false => Err("expected the name of a kernel module, as in sctp".to_owned()),
    }
}

/// Whether it is the name of a setting below /proc/sys, with dots.
fn is_setting(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-/".contains(&b))
            && !part.contains("//")
    };
    let tables = ["kernel", "net", "vm", "fs", "user", "dev", "abi"];
    name.len() <= 120
        && name.split('.').all(good)
        && name.split_once('.').is_some_and(|(table, _)| tables.contains(&table))
}

impl Reader {
    pub(super) fn harden(&mut self, table: &DeTable<'_>) -> Option<Harden> {
        self.unknown_keys("harden", table, &KEYS);
        let open = table.get("open").map_or(Some(Vec::new()), |v| self.strings(v, "open", "harden", OpenPort::parse));
        let kubelet_from =
            table.get("kubelet-from").map_or(Some(Vec::new()), |v| self.strings(v, "kubelet-from", "harden", source));
        let egress = table.get("egress").map(|v| self.strings(v, "egress", "harden", source));
        let forward = table.get("forward").map_or(Some(false), |v| self.boolean(v, "forward", "harden"));
        let sysctl = table.get("sysctl").map_or(Some(BTreeMap::new()), |v| self.sysctl(v));
        let modules = table.get("modules").map_or(Some(Vec::new()), |v| self.strings(v, "modules", "harden", module));
        let egress = match egress {
            Some(list) => Some(list?),
            None => None,
        };
        let (open, kubelet_from, forward) = (open?, kubelet_from?, forward?);
        Some(Harden { open, kubelet_from, egress, forward, sysctl: sysctl?, modules: modules? })
    }

    fn sysctl(&mut self, value: &Value<'_>) -> Option<BTreeMap<String, String>> {
        let Some(table) = value.get_ref().as_table() else {
            self.error(
                value.span().start,
                Code::BadValue,
                "sysctl in [harden] must be a table: sysctl = { \"NAME\" = \"VALUE\" }",
            );
            return None;
        };
        let mut settings = BTreeMap::new();
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            let good = |v: &str| {
                (1..=80).contains(&v.len())
                    && v.trim() == v
                    && v.bytes().all(|b| b == b' ' || b.is_ascii_graphic() && b != b'#' && b != b';')
            };
            match value.get_ref().as_str() {
                _ if !is_setting(name) => {
                    let text = format!("unknown setting {} in [harden] sysctl{}", quoted(name), misplaced(name));
                    self.error(at, Code::UnknownKey, text);
                }
                Some(text) if KUBELETS.iter().any(|(key, value)| *key == name && *value != text) => {
                    self.error(
                        at,
                        Code::SettingNotAllowed,
                        format!("{name} in [harden] sysctl is refused: kubelet ends with another value than its own"),
                    );
                }
                Some(text) if good(text) => {
                    settings.insert(name.to_owned(), text.to_owned());
                }
                text => {
                    let odd = text.and_then(character::in_value).map(|odd| format!(": {odd}"));
                    let text = format!("value of {} in [harden] sysctl must be a string in quotes", quoted(name));
                    self.error(at, Code::BadValue, text + &odd.unwrap_or_default());
                }
            }
        }
        (settings.len() == table.len()).then_some(settings)
    }
}
