// SPDX-License-Identifier: Apache-2.0
//! What a seed's values may be: each type can only be made out of text that obeys its rule.
//!
//! Messages of `parse` say what was expected, never what was found: a value may hold the token, typed into the
//! wrong place. Rules: `kubeadm-1.36` discovery tokens and pins, Kubernetes label, taint and object names.

use crate::names::{is_dns_subdomain, is_label_value, is_qualified_name};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use super::{character, foreign};
use crate::secret::Secret;

/// Port of the API server when the seed names none.
pub const DEFAULT_PORT: u16 = 6443;

/// A bootstrap token, `id.secret`; only the id may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: Secret<String>,
}

impl JoinToken {
    /// What firstboot leaves in place of the secret once the certificate works.
    pub const ERASED: &str = "****************";

    /// Whether the secret was overwritten by an earlier run; if the power went meanwhile, only a part of it was.
    pub fn is_erased(&self) -> bool {
        self.secret.expose().contains('*')
    }

    /// Reads `abcdef.0123456789abcdef`: 6 and 16 characters a-z0-9, or the secret overwritten ([`Self::ERASED`]), if only
    /// in part.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        match text.split_once('.') {
            Some((id, secret))
                if (id.len(), secret.len()) == (6, 16)
                    && id.bytes().all(plain)
                    && secret.bytes().all(|b| plain(b) || b == b'*') =>
            {
                Ok(JoinToken { id: id.to_owned(), secret: Secret::new(secret.to_owned()) })
            }
            _ => Err(Self::why_not(text)),
        }
    }

    /// What is wrong with a text that is no token.
    fn why_not(text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        match foreign::token(text) {
            Some(what) => what.to_owned(),
            None if text != lower && JoinToken::parse(&lower).is_ok() => {
                "expected a token in lower case, as in abcdef.0123456789abcdef".to_owned()
            }
            None if text.split_whitespace().any(|word| word != text && JoinToken::parse(word).is_ok()) => {
                "expected the token alone".to_owned()
            }
            None => match character::not_ascii(text) {
                Some(odd) => odd,
                None => "expected 6 and 16 characters a-z0-9, as in abcdef.0123456789abcdef".to_owned(),
            },
        }
    }

    /// The public half; the cluster shows it too (`kubeadm token list`).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half, 16 characters: the key of the cluster-info signature.
    pub fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// The whole token, as it is sent to the API server; zeroed when dropped.
    pub fn bearer(&self) -> Zeroizing<String> {
        // One allocation of the right size: none that grew leaves a part behind.
        Zeroizing::new([self.id.as_str(), ".", self.secret()].concat())
    }
}

/// The token as if it were used up: `abcdef.****************`.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, Self::ERASED)
    }
}

/// SHA-256 of a CA certificate's public key (DER SubjectPublicKeyInfo), as `kubeadm token create` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaPin(pub [u8; 32]);

impl CaPin {
    /// Reads `sha256:` and 64 hexadecimal digits, in either case.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || Self::why_not(text);
        let (scheme, hex) = text.split_once(':').ok_or_else(expected)?;
        if !scheme.eq_ignore_ascii_case("sha256") || hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(expected());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| expected())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| expected())?;
        }
        Ok(CaPin(digest))
    }

    /// What is wrong with a text that is no digest.
    fn why_not(text: &str) -> String {
        let is_digest = |t: &str| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit());
        let last_word = text.rsplit([' ', '=', '-']).next().unwrap_or_default();
        let alone = |word: &str| word != text && CaPin::parse(word).is_ok();
        let pairs: Vec<&str> = last_word.split(':').collect();
        let is_fingerprint = pairs.len() == 32 && pairs.iter().all(|p| p.len() == 2);
        let base64 = text.trim_start_matches(|c: char| c != '/').trim_start_matches('/');
        let is_base64 = |t: &str| t.len() == 44 && STANDARD.decode(t).is_ok_and(|bytes| bytes.len() == 32);
        let known = if is_digest(text) {
            "sha256: is missing before the 64 digits"
        } else if is_digest(last_word) && text.contains("stdin") {
            "this is all of openssl's output; expected sha256: and its 64 digits alone"
        } else if is_digest(last_word) || text.split_whitespace().any(alone) {
            "expected sha256: with the 64 digits right after it, and nothing else"
        } else if is_fingerprint {
            "this is the fingerprint of a certificate; the hash is one of its public key, as kubeadm token create \
             --print-join-command prints it"
        } else if is_base64(text) || is_base64(base64) {
            "this is a hash in base64; expected sha256: and 64 hexadecimal digits"
        } else if text.contains("-----BEGIN") {
            "this is a certificate; give it as ca-cert in [cluster]"
        } else if text.contains(',') {
            "expected one hash; a list is [\"sha256:…\", \"sha256:…\"]"
        } else if JoinToken::parse(text).is_ok() {
            "this is a token, and not a hash"
        } else {
            ""
        };
        match known {
            "" => character::not_ascii(text).unwrap_or("expected sha256: and 64 hexadecimal digits".to_owned()),
            known => known.to_owned(),
        }
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Host and port of an API server; `Display` gives `host:port`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name in ASCII or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port`, `host` (port 6443), `[v6]:port` or `[v6]`. As for kubeadm a name may have underscores, letters
    /// of any script, and a dot at its end (then no search domain is added).
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected host:port, as in 10.0.0.1:6443".to_owned();
        let brackets = || Err("expected an IPv6 address in brackets, as in [fd00::1]:6443".to_owned());
        let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
        if text.contains("://") {
            return Err("expected host:port without https://, as in 10.0.0.1:6443".to_owned());
        }
        if text.contains("kubeadm join") {
            return Err("this is a join line; give it as join, before any table".to_owned());
        }
        if text.contains(',') {
            return Err("expected one address; a list is [\"HOST:PORT\", \"HOST:PORT\"]".to_owned());
        }
        if text.contains('/') {
            return Err("expected host:port without a path, as in 10.0.0.1:6443".to_owned());
        }
        if let Some((address, _)) = text.split_once('%')
            && is_v6(address.trim_start_matches('['))
        {
            return Err("expected an IPv6 address without a zone (%): it holds on one link only".to_owned());
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (v6, rest) = rest.split_once(']').ok_or_else(expected)?;
            if !is_v6(v6) {
                return brackets();
            }
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(expected)?) };
            (v6, port)
        } else if is_v6(text) || text.rsplit_once(':').is_some_and(|(head, _)| is_v6(head)) {
            return brackets();
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => {
                p.parse().ok().filter(|p| *p != 0).ok_or("expected a port from 1 to 65535")?
            }
            Some(p) if p.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("--") => {
                return Err("expected a space after the port".to_owned());
            }
            Some(p) => return Err(character::not_ascii(p).unwrap_or_else(expected)),
        };
        let host = match host.parse::<IpAddr>() {
            Ok(_) => host.to_ascii_lowercase(),
            Err(_) => server_name(host)?,
        };
        Ok(Endpoint { host, port })
    }
}

/// The name of a server as DNS, TLS and URLs take it: lower case, other letters than ASCII in their ASCII form (IDNA).
fn server_name(text: &str) -> Result<String, String> {
    let expected = || "expected host:port, as in 10.0.0.1:6443".to_owned();
    // All digits and dots but no address: a mistyped one, not a name.
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(match text.bytes().any(|b| b.is_ascii_digit()) {
            true => "expected an IPv4 address of four numbers from 0 to 255, as in 10.0.0.1:6443".to_owned(),
            false => expected(),
        });
    }
    let odd = |c: &char| !c.is_alphanumeric() && !"-_.".contains(*c) || character::in_syntax(*c).is_some();
    match text.chars().find(odd) {
        Some(c) if c.is_ascii_graphic() => return Err(format!("a host name has no {c}")),
        Some(' ') => return Err("a host name has no space".to_owned()),
        Some(c) => {
            let other = || format!("a host name has no character {}", character::number(c));
            return Err(character::in_syntax(c).unwrap_or_else(other));
        }
        None => {}
    }
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a host name does not end in a number: it is taken for an IPv4 address".to_owned());
    }
    let url = Url::parse(&format!("https://{text}")).map_err(|_| expected())?;
    let host = url.host_str().unwrap_or_default();
    let same = !text.is_ascii() || host == text.to_ascii_lowercase();
    match same && ServerName::try_from(host).is_ok() {
        true => Ok(host.to_owned()),
        false => Err(expected()),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What kind of node this becomes; decides the labels that edgeadm would set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Node at the edge.
    Edge,
    /// Ordinary worker (edgeadm's `--enable-edge=false`).
    Worker,
    /// One of the machines that run the API server and etcd.
    ControlPlane,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Edge => "edge",
            Role::Worker => "worker",
            Role::ControlPlane => "control-plane",
        })
    }
}

impl Role {
    /// Reads `edge`, `worker` or `control-plane`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "edge" => Ok(Role::Edge),
            "worker" => Ok(Role::Worker),
            "control-plane" => Ok(Role::ControlPlane),
            _ => Err("expected \"edge\", \"worker\" or \"control-plane\"".to_owned()),
        }
    }
}

/// Who gives pods their network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cni {
    /// The cluster's own, when it has one; otherwise bridge.
    Auto,
    /// firstboot's bridge configuration.
    Bridge,
    /// No user of this device.
    None,
}

impl Cni {
    /// Reads `auto`, `bridge` or `none`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Cni::Auto),
            "bridge" => Ok(Cni::Bridge),
            "none" => Ok(Cni::None),
            _ => Err("expected \"auto\", \"bridge\" or \"none\"".to_owned()),
        }
    }
}

/// Template of a node name: literal text and `{serial}`, `{mac}`, `{machine-id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// What may stand in braces.
    pub const PLACEHOLDERS: [&'static str; 3] = ["serial", "mac", "machine-id"];

    /// Reads a template; what it gives with the shortest values must be a node name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = NodeName(text.to_owned());
        name.render(|_| Some("0".to_owned()))?;
        Ok(name)
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, with `value` asked for each placeholder; lower case, valid as a node name.
    ///
    /// # Errors
    /// A placeholder without a value, or a result that is no node name (DNS-1123, at most 63 characters).
    pub fn render(&self, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = self.0.as_str();
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            let (key, tail) = rest[open + 1..].split_once('}').ok_or("expected } after { in the name".to_owned())?;
            let others: Vec<String> =
                Self::PLACEHOLDERS.iter().filter(|p| **p != key).map(|p| format!("{{{p}}}")).collect();
            if others.len() == Self::PLACEHOLDERS.len() {
                return Err(format!("expected only {} in braces", others.join(", ")));
            }
            match value(key).filter(|v| !v.is_empty()) {
                Some(v) => out.push_str(&v),
                None => return Err(format!("this device has no {{{key}}}; use {}", others.join(" or "))),
            }
            rest = tail;
        }
        out.push_str(rest);
        let out = out.to_lowercase();
        match out.len() <= 63 && is_dns_subdomain(&out) {
            true => Ok(out),
            false => Err("expected a node name: at most 63 characters a-z, 0-9, - and .".to_owned()),
        }
    }
}

/// A label that kubelet sets on its own Node when it registers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeLabel {
    /// `name` or `prefix/name`.
    pub key: String,
    /// At most 63 characters, may be empty.
    pub value: String,
}

/// Keys in Kubernetes' own name spaces that a kubelet may set (`kubelet/pkg/apis/well_known_labels.go`, 1.36).
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

impl NodeLabel {
    /// Checks key and value, and that a node may give itself this label.
    pub fn parse(key: &str, value: &str) -> Result<Self, String> {
        if !is_qualified_name(key) {
            return Err("expected a label key: NAME or PREFIX/NAME, the name at most 63 characters".to_owned());
        }
        if !is_label_value(value) {
            return Err("expected a label value: at most 63 characters A-Z, a-z, 0-9, -, _ and .".to_owned());
        }
        if !kubelet_may_set(key) {
            return Err(format!(
                "a node may not give itself this label; an administrator does, once it has joined: \
                 kubectl label node NAME {}=VALUE",
                if may_show(key) { key } else { "KEY" }
            ));
        }
        Ok(NodeLabel { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Whether kubelet starts with this key in `--node-labels`; with any other it refuses to start.
pub(super) fn kubelet_may_set(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let below = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    if !below("kubernetes.io") && !below("k8s.io") {
        return true;
    }
    below("kubelet.kubernetes.io") || below("node.kubernetes.io") || KUBELET_LABELS.contains(&key)
}

/// A taint that kubelet puts on its own Node when it registers; `Display` gives kubelet's own form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// `name` or `prefix/name`.
    pub key: String,
    /// May be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads `key=value:Effect` or `key:Effect`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected KEY=VALUE:EFFECT with effect NoSchedule, PreferNoSchedule or NoExecute, \
             as in edge=true:NoSchedule"
                .to_owned()
        };
        let (pair, effect) = text.rsplit_once(':').ok_or_else(expected)?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
            || !is_qualified_name(key)
            || !is_label_value(value)
        {
            return Err(expected());
        }
        Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.is_empty() {
            true => write!(f, "{}:{}", self.key, self.effect),
            false => write!(f, "{}={}:{}", self.key, self.value, self.effect),
        }
    }
}

/// Whether text out of a seed may be repeated in a message: printable, short, and without a run of 16 characters
/// a-z0-9, which a token's secret, typed into the wrong place, would be.
pub fn may_show(s: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    s.len() <= 80 && s.chars().all(|c| c.is_ascii_graphic()) && s.split(|c| !plain(c)).all(|run| run.len() < 16)
}
