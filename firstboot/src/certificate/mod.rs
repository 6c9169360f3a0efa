// SPDX-License-Identifier: Apache-2.0
//! What firstboot reads of a certificate (RFC 5280), and by which rules one may vouch for another.
//!
//! kubelet, containerd and kubeadm judge certificates by Go's crypto/x509 (verify.go, parser.go; Go 1.26), so firstboot
//! judges them by the same rules: what Go refuses would fail after the token is spent. No signature is verified here.

pub mod algorithm;
pub mod names;
pub mod pem;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};
use x509_cert::der::asn1::{BitStringRef, ObjectIdentifier};
use x509_cert::der::{AnyRef, Decode, Encode, Header, Reader, SliceReader, TagNumber, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};

use algorithm::{Key, Signature};

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for, DER Name.
    pub subject: Vec<u8>,
    /// Who signed it, DER Name.
    pub issuer: Vec<u8>,
    /// Its key, DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last moment.
    pub not_after: SystemTime,
    /// Its key.
    pub key: Key,
    /// By what it is signed.
    pub signature: Signature,
    /// Whether it holds to the names that CAs above it permit, or limits those of certificates below it.
    pub constrains_names: bool,
    /// Its names of servers (subjectAltName, dNSName).
    pub dns_names: Vec<String>,
    version3: bool,
    basic_constraints: Option<BasicConstraints>,
    /// Whether keyUsage permits that it signs certificates; none without that extension.
    key_cert_sign: Option<bool>,
    /// What extendedKeyUsage lists; empty when it is for everything.
    purposes: Vec<ObjectIdentifier>,
    /// A critical extension that Go does not know.
    unknown_critical: Option<ObjectIdentifier>,
}

/// Which end of a connection a certificate is to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The server's: serverAuth.
    Server,
    /// The client's: clientAuth.
    Client,
}

/// What a certificate signs: its content, the signature's algorithm without the outer SEQUENCE, and the signature.
pub struct Signed<'a> {
    /// DER TBSCertificate.
    pub content: &'a [u8],
    /// DER AlgorithmIdentifier, its value alone.
    pub algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

const SUBJECT_KEY_ID: &str = "2.5.29.14";
const KEY_USAGE: &str = "2.5.29.15";
const SUBJECT_ALT_NAME: &str = "2.5.29.17";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const NAME_CONSTRAINTS: &str = "2.5.29.30";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
/// Other extensions that Go processes: CRL distribution points, policies and their mappings, constraints and
/// inhibition, the authority's key.
const KNOWN: [&str; 6] = ["2.5.29.31", "2.5.29.32", "2.5.29.33", "2.5.29.35", "2.5.29.36", "2.5.29.54"];
/// extendedKeyUsage: servers, clients, and everything.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// Tag of a dNSName among GeneralName (4.2.1.6).
const DNS_NAME: TagNumber = TagNumber::N2;
/// Position of keyCertSign in keyUsage.
const KEY_CERT_SIGN: u8 = 1 << 2;

impl Certificate {
    /// Reads a certificate, DER; none when it cannot be read.
    pub fn read(der: &[u8]) -> Option<Self> {
        let tbs = parse(der)?;
        let mut read = Certificate {
            subject: tbs.subject.to_der().ok()?,
            issuer: tbs.issuer.to_der().ok()?,
            spki: tbs.subject_public_key_info.to_der().ok()?,
            not_before: tbs.validity.not_before.to_system_time(),
            not_after: tbs.validity.not_after.to_system_time(),
            key: Key::of(&tbs.subject_public_key_info),
            signature: Signature::of(&tbs.signature),
            constrains_names: false,
            dns_names: Vec::new(),
            version3: tbs.version == x509_cert::Version::V3,
            basic_constraints: None,
            key_cert_sign: None,
            purposes: Vec::new(),
            unknown_critical: None,
        };
        for extension in tbs.extensions.unwrap_or_default() {
            read.extension(&extension)?;
        }
        Some(read)
    }

    /// Takes one extension in; none when its value cannot be read.
    fn extension(&mut self, extension: &Extension) -> Option<()> {
        let value = extension.extn_value.as_bytes();
        let mut known = true;
        match extension.extn_id.to_string().as_str() {
            BASIC_CONSTRAINTS => self.basic_constraints = Some(BasicConstraints::from_der(value).ok()?),
            KEY_USAGE => {
                let bits = BitStringRef::from_der(value).ok()?.raw_bytes();
                // Go leaves a keyUsage out of account that has no bit set.
                let any = bits.iter().any(|byte| *byte != 0);
                self.key_cert_sign = any.then(|| bits.first().is_some_and(|byte| byte & KEY_CERT_SIGN != 0));
            }
            EXTENDED_KEY_USAGE => self.purposes = ExtendedKeyUsage::from_der(value).ok()?.0,
            SUBJECT_ALT_NAME => {
                let names = sequence(value)?;
                known = names.iter().any(is_checked);
                let dns = names.iter().filter(|name| name.tag().number() == DNS_NAME);
                self.dns_names = dns.map(|name| String::from_utf8_lossy(name.value()).into_owned()).collect();
            }
            NAME_CONSTRAINTS => {
                self.constrains_names = true;
                // Permitted and excluded subtrees, each with a name first (4.2.1.10).
                for subtrees in sequence(value)? {
                    for subtree in items(subtrees.value())? {
                        known &= items(subtree.value())?.first().is_some_and(is_checked);
                    }
                }
            }
            SUBJECT_KEY_ID => {}
            other => known = KNOWN.contains(&other),
        }
        if extension.critical && !known {
            self.unknown_critical = Some(extension.extn_id);
        }
        Some(())
    }

    /// Whether it is signed by its own name.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it says that it is a CA's.
    pub fn is_ca(&self) -> bool {
        self.basic_constraints.as_ref().is_some_and(|constraints| constraints.ca)
    }

    /// Why it may not sign certificates, if so; a predicate of it. A certificate of version 1 may, when it is trusted
    /// (Go's `CheckSignatureFrom`).
    pub fn cannot_sign(&self) -> Option<&'static str> {
        match &self.basic_constraints {
            Some(constraints) if !constraints.ca => Some("is not a CA's: its basicConstraints have CA:FALSE"),
            None if self.version3 => Some("is not a CA's: it has no basicConstraints"),
            _ if self.key_cert_sign == Some(false) => Some("may not sign certificates: its keyUsage lacks keyCertSign"),
            _ => None,
        }
    }

    /// Why it may not stand between a server and a CA, with `below` more such between it and the server; a predicate.
    pub fn cannot_issue(&self, trusted: bool, below: usize) -> Option<&'static str> {
        if let Some(why) = self.cannot_sign() {
            return Some(why);
        }
        let limit = self.basic_constraints.as_ref().and_then(|constraints| constraints.path_len_constraint);
        match limit {
            _ if !trusted && !self.is_ca() => Some("is not a CA's: it has no basicConstraints"),
            Some(limit) if below > limit.into() => Some("has more CAs below it than its pathLenConstraint permits"),
            _ => None,
        }
    }

    /// Why it may not be in the chain of a server at all, but for its dates; a predicate.
    pub fn cannot_serve(&self) -> Option<String> {
        self.cannot_prove(Usage::Server)
    }

    /// Why it may not be in the chain of a server or of a client at all, but for its dates; a predicate.
    pub fn cannot_prove(&self, usage: Usage) -> Option<String> {
        if let Some(oid) = self.unknown_critical {
            return Some(format!("has critical extension {oid}, which Kubernetes does not know"));
        }
        let (purpose, word, who) = match usage {
            Usage::Server => (SERVER_AUTH, "serverAuth", "servers"),
            Usage::Client => (CLIENT_AUTH, "clientAuth", "clients"),
        };
        let permits = |found: &ObjectIdentifier| [purpose, ANY_PURPOSE].contains(found);
        (!self.purposes.is_empty() && !self.purposes.iter().any(permits))
            .then(|| format!("is not for {who}: its extendedKeyUsage lacks {word}"))
    }
}

/// All of a certificate's content. Serial numbers may have any length: Go takes them.
pub fn parse(der: &[u8]) -> Option<TbsCertificateInner<Raw>> {
    CertificateInner::<Raw>::from_der(der).ok().map(|certificate| certificate.tbs_certificate)
}

/// Whether Go holds names of this kind against constraints: electronic mail, DNS, URI, IP address.
fn is_checked(name: &AnyRef<'_>) -> bool {
    [TagNumber::N1, DNS_NAME, TagNumber::N6, TagNumber::N7].contains(&name.tag().number())
}

/// The values in a SEQUENCE, DER.
fn sequence(der: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    items(AnyRef::from_der(der).ok()?.value())
}

/// The values that follow one another.
fn items(content: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(content).ok()?;
    let mut all = Vec::new();
    while !reader.is_finished() {
        all.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(all)
}

/// The parts of a certificate that its signature is about; none when it cannot be read.
pub fn signed(der: &[u8]) -> Option<Signed<'_>> {
    let mut reader = SliceReader::new(der).ok()?;
    Header::decode(&mut reader).ok()?;
    let content = reader.tlv_bytes().ok()?;
    let algorithm = AnyRef::decode(&mut reader).ok()?.value();
    let signature = BitStringRef::decode(&mut reader).ok()?.as_bytes()?;
    Some(Signed { content, algorithm, signature })
}
