// SPDX-License-Identifier: Apache-2.0
//! Reads `[cluster]`, or what kubeadm's line says of it.

use super::ca_cert;
use super::certificate_key::CertificateKey;
use super::character;
use super::error::Error;
use super::join_line::JoinLine;
use super::model::{Cluster, Trust};
use super::reader::{Reader, Value};
use super::text;
use super::types::{CaPin, Endpoint, JoinToken};
use crate::fault::Code;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use toml::de::{DeTable, DeValue};

/// Keys of `[cluster]`: first those of a device that joins, then one of both, then those of one that creates its cluster.
pub(super) const KEYS: [&str; 16] = [
    "apiserver",
    "token",
    "ca-cert-hashes",
    "ca-cert",
    "token-expires",
    "certificate-key",
    "virtual-ip",
    "create",
    "endpoint",
    "pod-subnet",
    "service-subnet",
    "cert-sans",
    "admin-request",
    "join-seed-hours",
    "join-control-plane",
    "kubeadm",
];
/// Those of a device that joins.
pub(super) const OF_JOIN: &[&str] = KEYS.split_at(6).0;
/// Those of a device that creates its cluster.
pub(super) const OF_CREATE: &[&str] = KEYS.split_at(7).1;

/// An address that control planes share.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>().ok().filter(|a| !a.is_unspecified() && !a.is_loopback() && !a.is_multicast());
    address.ok_or_else(|| "expected an IP address of the devices' network, as in 192.0.2.10".to_owned())
}

impl Trust {
    /// Holds the dates of `ca-cert` against a clock that can be believed. One valid certificate is enough.
    ///
    /// # Errors
    /// None is valid at `now`.
    pub fn check_dates(&self, now: SystemTime) -> Result<(), Error> {
        match self {
            Trust::Ca(pem) => ca_cert::check_dates(pem, now),
            Trust::Pins(_) => Ok(()),
        }
    }

    /// The same against a clock that may stand still, but is never ahead.
    ///
    /// # Errors
    /// All have expired at `now`.
    pub fn check_end(&self, now: SystemTime) -> Result<(), Error> {
        match self {
            Trust::Ca(pem) => ca_cert::check_end(pem, now),
            Trust::Pins(_) => Ok(()),
        }
    }
}

impl Reader {
    /// `[cluster]`, or what kubeadm's line says of it; `at` is where the one of them that counts begins.
    pub(super) fn cluster(&mut self, at: usize, table: &DeTable<'_>, join: Option<JoinLine>) -> Option<Cluster> {
        self.unknown_keys("cluster", table, &KEYS);
        self.without_create(table);
        let beside = OF_JOIN[..3].iter().filter(|_| join.is_some()).filter_map(|k| table.get_key_value(*k));
        for (key, _) in beside {
            let text = format!("join and {} in [cluster] are both set: the line says it already", key.get_ref());
            self.error(key.span().start, Code::ConflictingKeys, text);
        }
        let from_line = join.is_some();
        let (apiserver, token, pins) = match join {
            Some(JoinLine { apiserver, token, ca_cert_hashes, .. }) => {
                let pins = (!ca_cert_hashes.is_empty()).then_some(Some(ca_cert_hashes));
                (Some(Some(vec![apiserver])), Some(Some(token)), pins)
            }
            None => (
                table.get("apiserver").map(|v| self.strings(v, "apiserver", "cluster", Endpoint::parse)),
                table.get("token").map(|v| self.string(v, "token", "cluster", JoinToken::parse)),
                table.get("ca-cert-hashes").map(|v| self.strings(v, "ca-cert-hashes", "cluster", CaPin::parse)),
            ),
        };
        let ca = table.get("ca-cert").map(|v| self.string(v, "ca-cert", "cluster", ca_cert::of_cluster));
        let token_expires = table.get("token-expires").map(|v| self.datetime(v));
        let certificate_key = table.get("certificate-key").map(|v| {
            self.secrets.push(v.span());
            self.string(v, "certificate-key", "cluster", CertificateKey::parse)
        });
        if let (Some(_), Some(_), Some(v)) = (&pins, &ca, table.get("ca-cert")) {
            let text = match from_line {
                true => {
                    "ca-cert in [cluster] and --discovery-token-ca-cert-hash in join are both set: give one of them"
                }
                false => "ca-cert and ca-cert-hashes are both set in [cluster]: give one of them",
            };
            self.error(v.span().start, Code::ConflictingKeys, text);
        }
        if self.errors.is_empty() {
            const IMPOSTOR: &str = "without it the cluster cannot be distinguished from an impostor";
            let missing = match (&apiserver, &token, &pins, &ca) {
                (None, ..) => "apiserver is missing in [cluster]".to_owned(),
                (_, None, ..) => "token is missing in [cluster]".to_owned(),
                (_, _, None, None) if from_line => {
                    format!(
                        "join has no --discovery-token-ca-cert-hash: {IMPOSTOR} (ca-cert in [cluster] does as well)"
                    )
                }
                (_, _, None, None) => {
                    format!("ca-cert-hashes is missing in [cluster]: {IMPOSTOR} (ca-cert does as well)")
                }
                _ => String::new(),
            };
            if !missing.is_empty() {
                self.error(at, Code::MissingKey, missing);
            }
        }
        let trust = match (pins.flatten(), ca.flatten()) {
            (Some(pins), None) => Some(Trust::Pins(pins)),
            (None, Some(ca)) => Some(Trust::Ca(ca)),
            _ => None,
        };
        let virtual_ip = table.get("virtual-ip").map(|v| self.string(v, "virtual-ip", "cluster", address));
        if let (Some(v), None) = (table.get("virtual-ip"), &certificate_key) {
            let text = "virtual-ip in [cluster] needs certificate-key or create = true: control planes share it, no other node";
            self.error(v.span().start, Code::ConflictingKeys, text);
        }
        Some(Cluster {
            virtual_ip: virtual_ip.flatten(),
            apiserver: apiserver??,
            token: token??,
            trust: trust?,
            token_expires: token_expires.flatten(),
            certificate_key: certificate_key.flatten(),
        })
    }

    fn datetime(&mut self, value: &Value<'_>) -> Option<SystemTime> {
        let parsed = match value.get_ref() {
            DeValue::Datetime(d) => text::rfc3339(&d.to_string()),
            DeValue::String(s) => text::rfc3339(s),
            _ => None,
        };
        if parsed.is_none() {
            let odd = value.get_ref().as_str().and_then(character::in_value);
            let why = odd.unwrap_or("expected a time with zone, as in 2026-11-23T12:00:00Z".to_owned());
            self.error(value.span().start, Code::BadValue, format!("malformed token-expires in [cluster]: {why}"));
        }
        parsed.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}
