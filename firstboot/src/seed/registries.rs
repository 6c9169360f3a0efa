// SPDX-License-Identifier: Apache-2.0
//! What `[registries]` may say: where container images are pulled from.

use crate::fault::Code;
use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use reqwest::Url;
use toml::de::DeTable;
use zeroize::Zeroizing;

use super::ca_cert;
use super::reader::{OtherKeys, Reader, Value, misplaced, quoted};
use super::types::may_show;
use crate::names::is_dns_subdomain;
use crate::proxy::is_server;
use crate::secret::Secret;

/// Table `[registries."NAME"]`. `Debug` leaves the credentials out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// As image names have it: `HOST` or `HOST:PORT`; `*` stands for every registry without a table of its own.
    pub name: String,
    /// SeedRequest before the registry itself, in order.
    pub mirrors: Vec<Mirror>,
    /// CA certificates of the mirrors, or without mirrors of the registry; PEM.
    pub ca: Option<String>,
    /// Credentials for the mirrors, or without mirrors for the registry: `USER:PASSWORD` in base64 (RFC 7617).
    pub auth: Option<Secret<String>>,
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
            return Err(
                "expected a URL without user name and password: write them as username and password in this table"
                    .to_owned(),
            );
        }
        let host = url.host_str().unwrap_or_default();
        if url.query().is_some() || url.fragment().is_some() || !is_server(host) || url.port() == Some(0) {
            return Err(expected());
        }
        let path = url.path().trim_end_matches('/');
        // What would have to be escaped in a file of TOML is in no registry's path, and what containerd would read as an
        // escape of a URL is not either.
        match path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~:@".contains(&b)) && !path.contains("//") {
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

/// Other names of Docker Hub: in an image's name the first is read as docker.io, and the others do not occur there.
const DOCKER_HUB: [&str; 4] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"];

/// Whether it is a registry's name as image names have it (`reference.ParseNormalizedNamed` of distribution/reference):
/// host, with or without port, or `*`; else what was expected.
fn check_name(name: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "expected HOST, HOST:PORT or *, as in [registries.\"docker.io\"]";
    if name == "*" {
        return Ok(());
    }
    if name.contains("://") || name.contains('/') {
        return Err("expected HOST or HOST:PORT without https:// and path, as in [registries.\"docker.io\"]");
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("expected a name in lower case, as in image names");
    }
    if DOCKER_HUB.contains(&name) {
        return Err("Docker Hub's images are of docker.io: write [registries.\"docker.io\"]");
    }
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (name, None),
    };
    let digits = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let port_is_good = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n != 0 && n.to_string() == p));
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<Ipv6Addr>().is_ok());
    let host_is_good = v6 || host.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4()) || (!digits && is_dns_subdomain(host));
    // Otherwise the first part of an image's name is a part of its path, and the registry is docker.io.
    let is_host = host.contains('.') || port.is_some() || v6 || host == "localhost";
    match (host_is_good && port_is_good, is_host) {
        (true, true) => Ok(()),
        (true, false) => Err("expected a HOST with a dot or a port, as in image names"),
        (false, _) => Err(EXPECTED),
    }
}

/// Keys of each table in `[registries]`.
pub(super) const KEYS: [&str; 5] = ["mirrors", "ca", "username", "password", "auth"];

/// Keys of other programs, and what to do instead.
const FOREIGN: [OtherKeys; 4] = [
    (
        &["insecure_skip_verify", "insecure-skip-verify", "skip_verify", "skip-verify", "insecure", "tls"],
        "no key skips the verification of certificates: give the registry's CA as ca",
    ),
    (&["endpoint", "endpoints", "mirror", "host", "server"], "write URLs as mirrors = [\"https://…\"]"),
    (&["ca_file", "ca-file", "cafile", "ca-cert"], "write the certificate's PEM text as ca"),
    (&["identity_token", "identitytoken", "token"], "it is not supported: give username and password, or auth"),
];

/// Base64 with or without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a part of credentials. RFC 7617, 2: no control characters.
fn part(text: &str) -> Result<Secret<String>, String> {
    match !text.is_empty() && !text.chars().any(char::is_control) {
        true => Ok(Secret::new(text.to_owned())),
        false => Err("expected one character or more, and no control characters".to_owned()),
    }
}

/// Reads a user name, which ends at the first colon (RFC 7617, 2).
fn username(text: &str) -> Result<Secret<String>, String> {
    match text.contains(':') {
        true => Err("expected a name without a colon".to_owned()),
        false => part(text),
    }
}

/// Reads `USER:PASSWORD` in base64, as in Docker's config.json; gives it back with its padding.
fn auth(text: &str) -> Result<Secret<String>, String> {
    let bytes = LENIENT.decode(text.trim()).map(Zeroizing::new).unwrap_or_default();
    let colon = bytes.iter().position(|b| *b == b':');
    let good = colon.is_some_and(|at| at > 0 && at + 1 < bytes.len()) && !bytes.iter().any(u8::is_ascii_control);
    match good {
        true => Ok(Secret::new(STANDARD.encode(&*bytes))),
        false => Err("expected USER:PASSWORD in base64, as in Docker's config.json".to_owned()),
    }
}

/// A name whose parts were read as tables of tables, because it stands without quotation marks; none where they are no
/// such tables.
fn without_quotes(name: &str, value: &Value<'_>) -> Option<String> {
    let table = value.get_ref().as_table()?;
    let (key, inner) = table.iter().next()?;
    let inner_table = inner.get_ref().as_table()?;
    let whole = format!("{name}.{}", key.get_ref());
    let known = inner_table.keys().any(|k| KEYS.contains(&k.get_ref().as_ref()));
    Some(if known { whole } else { without_quotes(&whole, inner).unwrap_or(whole) })
}

impl Reader {
    pub(super) fn registries(&mut self, table: &DeTable<'_>) -> Option<Vec<Registry>> {
        let mut registries = Vec::new();
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if let Some((code, text)) = wrong_name(name, value) {
                self.error(at, code, text);
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
        let before = self.errors.len();
        self.unknown_keys_but(&place, table, &KEYS, &FOREIGN);
        let mirrors =
            table.get("mirrors").map_or(Some(Vec::new()), |v| self.strings(v, "mirrors", &place, Mirror::parse));
        let ca = table.get("ca").map(|v| self.string(v, "ca", &place, ca_cert::of_registry));
        let auth = self.credentials(&place, table);
        let (mirrors, ca) = (mirrors?, ca.map_or(Some(None), |ca| ca.map(Some))?);
        if self.errors.len() > before {
            return None;
        }
        if mirrors.is_empty() && (ca.is_none() && auth.is_none() || name == "*") {
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
        if auth.is_some() && !mirrors.iter().all(Mirror::is_https) {
            let text = format!("mirrors in [{place}] has an http:// one, which would get the password in the clear");
            self.error(at, Code::ConflictingKeys, text);
        }
        (self.errors.len() == before).then(|| Registry { name: name.to_owned(), mirrors, ca, auth })
    }

    /// `username` and `password`, or `auth`; none where there are none, or where they are wrong.
    fn credentials(&mut self, place: &str, table: &DeTable<'_>) -> Option<Secret<String>> {
        self.secrets.extend(["password", "auth"].iter().filter_map(|key| Some(table.get(*key)?.span())));
        let at = |key: &str| table.get_key_value(key).map(|(key, _)| key.span().start);
        match (at("username"), at("password"), at("auth")) {
            (Some(at), _, Some(_)) | (None, Some(at), Some(_)) => {
                let text = format!("auth and username or password are both set in [{place}]: keep one of them");
                self.error(at, Code::ConflictingKeys, text);
                None
            }
            (None, None, Some(_)) => table.get("auth").and_then(|v| self.string(v, "auth", place, auth)),
            (Some(at), None, None) => {
                self.error(at, Code::MissingKey, format!("password is missing in [{place}]"));
                None
            }
            (None, Some(at), None) => {
                self.error(at, Code::MissingKey, format!("username is missing in [{place}]"));
                None
            }
            (Some(_), Some(_), None) => {
                let user = table.get("username").and_then(|v| self.string(v, "username", place, username));
                let password = table.get("password").and_then(|v| self.string(v, "password", place, part));
                let (user, password) = (user?, password?);
                let whole = Zeroizing::new([user.expose(), ":", password.expose()].concat());
                Some(Secret::new(STANDARD.encode(whole.as_bytes())))
            }
            (None, None, None) => None,
        }
    }
}

/// What is wrong with the name of a table in `[registries]`.
fn wrong_name(name: &str, value: &Value<'_>) -> Option<(Code, String)> {
    let hint = misplaced(name);
    if !hint.is_empty() {
        return Some((Code::BadValue, format!("malformed registry {} in [registries]{hint}", quoted(name))));
    }
    let is_table = value.get_ref().is_table();
    if is_table && ["mirrors", "configs", "auths"].contains(&name) {
        let text = format!(
            "unknown table \"{name}\" in [registries]: write one table for each registry, as in [registries.\"docker.io\"] \
             with mirrors = [\"https://…\"]"
        );
        return Some((Code::UnknownKey, text));
    }
    let why = check_name(name).err()?;
    Some(match without_quotes(name, value) {
        Some(whole) if may_show(&whole) => {
            let text = format!("registry {whole} in [registries] needs quotation marks: [registries.\"{whole}\"]");
            (Code::UnknownKey, text)
        }
        _ => (Code::BadValue, format!("malformed registry {} in [registries]: {why}", quoted(name))),
    })
}
