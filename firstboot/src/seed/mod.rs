// SPDX-License-Identifier: Apache-2.0
//! The seed: `seed.toml`'s bytes in, a whole, validated [`Seed`] out.
//!
//! Strict: an unknown key is an error with its line. No message repeats a value, because any value may hold the
//! token. The keys are listed in docs/seed.md. Nothing here reads a file or knows a phase.

mod access;
mod advice;
mod as_text;
mod ca_cert;
mod certificate_key;
mod character;
mod cluster;
mod create;
mod error;
mod foreign;
mod harden;
pub mod join_line;
mod join_text;
mod kubeadm_fields;
pub(crate) mod kubelet;
mod kubelet_fields;
mod kubelet_values;
mod model;
mod network;
mod node;
mod owner;
pub mod preseed;
mod read_network;
mod reader;
mod recognise;
mod registries;
mod ssh_key;
pub mod ssh_signature;
mod suggest;
mod tables;
mod text;
mod types;
mod wifi;

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod harden_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod types_tests;

use std::ops::Range;

use sha2::{Digest, Sha256};
use toml::de::DeTable;
use zeroize::Zeroizing;

use crate::fault::Code;
use crate::text::hex;

pub use access::Access;
pub use certificate_key::CertificateKey;
pub use error::Error;
#[cfg(test)]
pub(crate) use harden::KUBELETS;
pub use harden::{Harden, OpenPort, Protocol};
pub use kubelet::Kubelet;
#[cfg(test)]
pub(crate) use kubelet::is_kubelet_field;
pub use model::{CONTROL_PLANE_TAINT, Cluster, Kubeadm, Membership, NewCluster, Node, Seed, SeedRequest, Trust, VXLAN};
pub use network::{Interface, Network, Time};
pub use owner::ALGORITHMS as OWNER_ALGORITHMS;
pub use registries::{Mirror, Registry};
pub use ssh_key::SshKey;
pub use text::decode;
pub use types::{CaPin, Cni, DEFAULT_PORT, Endpoint, JoinToken, NodeLabel, NodeName, Role, Taint, may_show};
pub use wifi::{Security, Wifi};

/// Largest seed that is read, bytes.
pub const MAX_SIZE: usize = 64 * 1024;

/// Every key that a seed may have, by table (`""`: before any table; a table of tables has the keys of each of them).
/// docs/seed.md is held against this list.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &reader::TOP_KEYS),
    ("cluster", &cluster::KEYS),
    ("node", &node::NODE_KEYS),
    ("network", &read_network::NETWORK_KEYS),
    ("network.wifi", &wifi::KEYS),
    ("time", &read_network::TIME_KEYS),
    ("kubelet", &kubelet::KEYS),
    ("registries", &registries::KEYS),
    ("access", &access::KEYS),
    ("owner", &owner::KEYS),
    ("harden", &harden::KEYS),
];

/// Reads a seed file, which may ask for a reset alone; otherwise as [`parse`].
///
/// # Errors
/// The first thing that is wrong, by line.
pub fn parse_request(bytes: &[u8]) -> Result<SeedRequest, Error> {
    if bytes.len() <= MAX_SIZE {
        let text = text::decode(bytes)?;
        let alone = DeTable::parse(&text).ok().and_then(|root| tables::reset_alone(root.get_ref()));
        if let Some(destroys_cluster) = alone {
            return Ok(SeedRequest::Reset { digest: digest(text.as_bytes()), destroys_cluster });
        }
    }
    parse(bytes).map(|seed| SeedRequest::Join(Box::new(seed)))
}

/// Reads a seed that joins; UTF-8 or UTF-16 with or without byte-order mark; any line ends.
///
/// # Errors
/// The first thing that is wrong, by line.
pub fn parse(bytes: &[u8]) -> Result<Seed, Error> {
    let (text, tables::Tables { seed, secrets }) = read(bytes)?;
    let public = without(&text, seed.token(), secrets, "");
    Ok(Seed { digest: digest(public.as_bytes()), ..seed })
}

/// The text of a seed with asterisks in place of its secrets; one that only resets has none.
///
/// # Errors
/// As [`parse_request`]: what cannot be read cannot be masked.
pub fn masked(bytes: &[u8]) -> Result<String, Error> {
    match parse_request(bytes)? {
        SeedRequest::Reset { .. } => text::decode(bytes).map(|text| text.to_string()),
        SeedRequest::Join(_) => {
            let (text, tables) = read(bytes)?;
            Ok(without(&text, tables.seed.token(), tables.secrets, "\"****\"").to_string())
        }
    }
}

/// A text with `mask` in place of the secrets that stand at these places, and the token as if it were used up:
/// overwriting it must not make the seed another one.
fn without(text: &str, token: Option<&JoinToken>, mut secrets: Vec<Range<usize>>, mask: &str) -> Zeroizing<String> {
    let mut public = Zeroizing::new(text.to_owned());
    secrets.sort_by_key(|s| std::cmp::Reverse(s.start));
    for secret in secrets {
        public.replace_range(secret, mask);
    }
    match token {
        Some(token) => Zeroizing::new(public.replace(token.secret(), JoinToken::ERASED)),
        None => public,
    }
}

/// The text of a seed, and what its tables say.
fn read(bytes: &[u8]) -> Result<(Zeroizing<String>, tables::Tables), Error> {
    let whole = |code: Code, text: &str| Error { code, line: None, text: text.to_owned() };
    if bytes.len() > MAX_SIZE {
        return Err(whole(Code::SeedNotText, "the file is larger than 64 KiB"));
    }
    let text = text::decode(bytes)?;
    if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err(whole(Code::SeedNotText, "the file is empty"));
    }
    let root = DeTable::parse(&text).map_err(|e| recognise::syntax(&text, &e))?;
    let known = |key: &str| KEYS.iter().any(|(table, keys)| *table == key || table.is_empty() && keys.contains(&key));
    if !root.get_ref().keys().any(|key| known(key.get_ref()))
        && let Some(other) = recognise::text(&text)
    {
        return Err(whole(Code::SeedVersion, &other));
    }
    let tables = tables::tables(&text, root.get_ref(), KEYS)?;
    // It will be overwritten where it stands, which takes that it stands there.
    if tables.seed.token().is_some_and(|token| !text.contains(token.secret())) {
        return Err(whole(Code::BadValue, "write the token in one piece, without escapes: it could not be erased"));
    }
    Ok((text, tables))
}

/// 16 hex digits that identify a seed file.
fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::new().chain_update(b"firstboot seed 1\0").chain_update(bytes).finalize();
    hex(&hash[..8])
}
