// SPDX-License-Identifier: Apache-2.0
//! Syntax rules of names and addresses: Kubernetes' for names, label keys and label values, Go's for hosts and networks.

use ipnet::IpNet;
use std::net::IpAddr;

/// `ADDRESS/PREFIX` as Go takes it (`net.ParseCIDR`). `ipnet` alone would also take zeros before a number of an IPv4
/// address, which some programs read as octal.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let (address, _) = text.split_once('/')?;
    text.parse().ok().filter(|_| address.parse::<IpAddr>().is_ok())
}

/// DNS-1123 subdomain: labels of a-z, 0-9 and inner hyphens, joined by dots, at most 253 characters.
pub fn is_dns_subdomain(s: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    s.len() <= 253
        && s.split('.').all(|label| {
            let label = label.as_bytes();
            label.len() <= 63
                && edge(label.first())
                && edge(label.last())
                && label.iter().all(|b| edge(Some(b)) || *b == b'-')
        })
}

/// Host name as resolvers take it: a DNS name in lower case whose labels may also hold underscores
/// (`isDomainName` of Go's net/dnsclient.go), not digits and dots alone, which would be a malformed address.
pub fn is_host_name(s: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
    s.len() <= 253
        && !s.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && s.split('.').all(|label| {
            let label = label.as_bytes();
            label.len() <= 63
                && edge(label.first())
                && edge(label.last())
                && label.iter().all(|b| edge(Some(b)) || *b == b'-')
        })
}

/// Kubernetes qualified name: `[DNS subdomain/]name`.
pub(crate) fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Kubernetes label value: empty, or at most 63 of A-Z a-z 0-9 - _ . with letters or digits at both ends.
pub(crate) fn is_label_value(s: &str) -> bool {
    let b = s.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    b.is_empty()
        || (b.len() <= 63
            && edge(b.first())
            && edge(b.last())
            && b.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)))
}
