// SPDX-License-Identifier: Apache-2.0
//! What `[registries]` may say: where container images are pulled from.

use crate::fault::Code;
use std::net::IpAddr;

use reqwest::Url;
use toml::de::DeTable;

use super::ca_cert;
use super::reader::{Reader, misplaced, quoted};
use super::types::may_show;
use crate::names::is_dns_subdomain;

/// Table `[registries."NAME"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// As image names have it: `HOST` or `HOST:PORT`; `*` stands for every registry without a table of its own.
    pub name: String,
    /// SeedRequest before the registry itself, in order.
    pub mirrors: Vec<Mirror>,
    /// CA certificates of the mirrors, or without mirrors of the registry; PEM.
    pub ca: Option<String>,
}

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `http(s)://host[:port][/path]`, without a slash at its end.
    pub url: String,
    /// Whether the path is the whole one, so that the runtime does not add `/v2`.
    pub whole_path: bool,
}

impl Mirror {
    /// Reads a mirror's URL. A path is taken as the whole path of the registry API there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected https://HOST[:PORT][/PATH], as in https://mirror.example:5000".to_owned();
        if !text.starts_with("https://") && !text.starts_with("http://") || text.contains(char::is_whitespace) {
            return Err(expected());
        }
        let url = Url::parse(text).map_err(|_| expected())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("expected a URL without user name and password; the container runtime takes none".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() || url.host_str().is_none_or(str::is_empty) {
            return Err(expected());
        }
        let path = url.path().trim_end_matches('/');
        // What would have to be escaped in a file of TOML is in no registry's path.
        match path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%:@".contains(&b)) {
            true => Ok(Mirror {
                url: format!("{}{path}", url.origin().ascii_serialization()),
                whole_path: !path.is_empty(),
            }),
            false => Err(expected()),
        }
    }

    /// Whether it is spoken to in TLS.
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

/// Whether it is a registry's name: host, with or without port, or `*`.
pub(super) fn is_registry(name: &str) -> bool {
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (name, None),
    };
    let digits = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let port = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0) && !p.starts_with('+'));
    let host = host.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4()) || (!digits && is_dns_subdomain(host));
    name == "*" || (host && port)
}

/// Keys of each table in `[registries]`.
pub(super) const KEYS: [&str; 2] = ["mirrors", "ca"];

impl Reader {
    pub(super) fn registries(&mut self, table: &DeTable<'_>) -> Option<Vec<Registry>> {
        let mut registries = Vec::new();
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            let hint = misplaced(name);
            if !is_registry(name) || !hint.is_empty() {
                let text = match hint {
                    "" => ": expected HOST, HOST:PORT or *, as in [registries.\"docker.io\"]",
                    hint => hint,
                };
                self.error(at, Code::BadValue, format!("malformed registry {} in [registries]{text}", quoted(name)));
                continue;
            }
            match value.get_ref().as_table() {
                Some(table) => registries.extend(self.registry(at, name, table)),
                None => {
                    self.error(at, Code::BadValue, format!("registry {} in [registries] must be a table", quoted(name)))
                }
            }
        }
        registries.sort_by(|a: &Registry, b| a.name.cmp(&b.name));
        (registries.len() == table.len()).then_some(registries)
    }

    fn registry(&mut self, at: usize, name: &str, table: &DeTable<'_>) -> Option<Registry> {
        let place = if may_show(name) { format!("registries.{name}") } else { "registries".to_owned() };
        self.unknown_keys(&place, table, &KEYS);
        let mirrors =
            table.get("mirrors").map_or(Some(Vec::new()), |v| self.strings(v, "mirrors", &place, Mirror::parse));
        let ca = table.get("ca").map(|v| self.string(v, "ca", &place, ca_cert::of_registry));
        let (mirrors, ca) = (mirrors?, ca.map_or(Some(None), |ca| ca.map(Some))?);
        if mirrors.is_empty() && (ca.is_none() || name == "*") {
            self.error(at, Code::MissingKey, format!("mirrors is missing in [{place}]"));
        }
        // containerd does not read a hosts.toml that names a host twice.
        if (1..mirrors.len()).any(|n| mirrors[..n].iter().any(|m: &Mirror| m.url == mirrors[n].url)) {
            self.error(at, Code::ConflictingKeys, format!("mirrors in [{place}] names one mirror twice"));
        }
        if ca.is_some() && !mirrors.is_empty() && !mirrors.iter().any(Mirror::is_https) {
            self.error(
                at,
                Code::ConflictingKeys,
                format!("ca in [{place}] says nothing: no mirror is spoken to by https://"),
            );
        }
        Some(Registry { name: name.to_owned(), mirrors, ca })
    }
}
