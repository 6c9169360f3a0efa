// SPDX-License-Identifier: Apache-2.0
//! Keys and signatures of certificates by name, and which of them can serve.
//!
//! Kubernetes' programs are written in Go, so the measure is Go's crypto/x509 (x509.go, `signatureAlgorithmDetails` and
//! `checkSignature`): SHA-256, SHA-384 or SHA-512 with RSA of 1024 bits or more, with ECDSA on P-224, P-256, P-384 or
//! P-521, or Ed25519.

use std::fmt;

use x509_cert::der::asn1::{ContextSpecific, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};

/// Smallest RSA key that Go takes, bits (crypto/rsa, `checkKeySize`).
pub const RSA_MIN: usize = 1024;
/// Smallest RSA key that firstboot verifies with every hash and padding, bits: what ring takes.
pub const RSA_FULL: usize = 2048;
/// Largest RSA key that firstboot verifies, bits: what ring takes, and what Go takes of a server (crypto/tls,
/// `checkKeySize`).
pub const RSA_MAX: usize = 8192;
/// What to have in place of keys and signatures that cannot serve.
pub const BETTER: &str = "RSA with 2048 bits or more, ECDSA or Ed25519, and SHA-256 or longer";

/// The key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA, with the length of its modulus in bits.
    Rsa(usize),
    /// ECDSA on this curve.
    Ecdsa(Curve),
    /// Ed25519.
    Ed25519,
    /// Any other, by name or object identifier.
    Other(String),
}

/// The elliptic curves of Go's crypto/x509.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Curve {
    P224,
    P256,
    P384,
    P521,
}

/// The algorithm by which a certificate is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// RSA with the padding of PKCS #1 version 1.5.
    Rsa(Hash),
    /// RSA with the padding PSS.
    RsaPss(Hash),
    /// ECDSA, on the curve of the signer's key.
    Ecdsa(Hash),
    /// Ed25519.
    Ed25519,
    /// Any other, by name or object identifier.
    Other(String),
}

/// The hash in a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Names of keys that Go's crypto/x509 does not know.
const OTHER_KEYS: [(&str, &str); 7] = [
    ("1.2.840.113549.1.1.10", "RSA for PSS alone"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.3.101.113", "Ed448"),
    ("1.3.132.0.10", "ECDSA on secp256k1"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

/// Name of a key or signature that nothing here verifies; its object identifier where it has none.
fn other(oid: ObjectIdentifier) -> String {
    let dotted = oid.to_string();
    let name = OTHER_KEYS.iter().find(|(known, _)| *known == dotted);
    name.map_or_else(|| format!("algorithm {dotted}"), |(_, name)| (*name).to_owned())
}

impl Key {
    /// The key in a certificate.
    pub fn of(info: &SubjectPublicKeyInfoOwned) -> Self {
        const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
        match info.algorithm.oid {
            RSA => info.subject_public_key.as_bytes().and_then(modulus).map_or_else(|| other(RSA).into(), Key::Rsa),
            EC => {
                let named = info.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
                match named.map(|oid| (oid, oid.to_string())) {
                    Some((_, dotted)) if dotted == "1.3.132.0.33" => Key::Ecdsa(Curve::P224),
                    Some((_, dotted)) if dotted == "1.2.840.10045.3.1.7" => Key::Ecdsa(Curve::P256),
                    Some((_, dotted)) if dotted == "1.3.132.0.34" => Key::Ecdsa(Curve::P384),
                    Some((_, dotted)) if dotted == "1.3.132.0.35" => Key::Ecdsa(Curve::P521),
                    Some((oid, dotted)) if OTHER_KEYS.iter().any(|(known, _)| *known == dotted) => other(oid).into(),
                    Some((_, dotted)) => Key::Other(format!("ECDSA on curve {dotted}")),
                    None => Key::Other("ECDSA on a curve without a name".to_owned()),
                }
            }
            ED25519 => Key::Ed25519,
            oid => other(oid).into(),
        }
    }

    /// Why no certificate that this key signed can be verified: by Go, or by firstboot; a predicate of the certificate.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Key::Rsa(bits) if *bits < RSA_MIN => Some(format!("has {self}, which Kubernetes refuses")),
            Key::Rsa(bits) if *bits > RSA_MAX => Some(format!("has {self}, which firstboot cannot verify")),
            Key::Ecdsa(Curve::P224) => Some(format!("has {self}, which firstboot cannot verify")),
            Key::Other(_) => Some(format!("has {self}, which Kubernetes cannot verify")),
            _ => None,
        }
    }

    /// Why this key should be replaced although Kubernetes takes it; a predicate of the certificate.
    pub fn weakness(&self) -> Option<String> {
        match self {
            Key::Rsa(bits) if *bits < RSA_FULL => Some(format!("has {self}, which is too weak: replace it soon")),
            _ => None,
        }
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Key::Other(name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Rsa(bits) => write!(f, "an RSA key of {bits} bits"),
            Key::Ecdsa(curve) => write!(f, "an ECDSA key on {curve}"),
            Key::Ed25519 => f.write_str("an Ed25519 key"),
            Key::Other(name) => write!(f, "a key of type {name}"),
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Curve::P224 => "P-224",
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
            Curve::P521 => "P-521",
        })
    }
}

/// Bits of an RSA key's modulus (RFC 8017, A.1.1).
fn modulus(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let bytes = reader.sequence(|r| {
        let modulus = UintRef::decode(r)?;
        UintRef::decode(r)?;
        Ok(modulus.as_bytes())
    });
    let bytes = bytes.ok()?;
    Some(bytes.len() * 8 - usize::try_from(bytes.first()?.leading_zeros()).ok()?)
}

impl Signature {
    /// The algorithm that a certificate names.
    pub fn of(algorithm: &AlgorithmIdentifierOwned) -> Self {
        let dotted = algorithm.oid.to_string();
        let rsa = dotted.strip_prefix("1.2.840.113549.1.1.").and_then(|last| last.parse::<u8>().ok());
        let ecdsa = dotted.strip_prefix("1.2.840.10045.4.");
        match (rsa, ecdsa) {
            (Some(4), _) => Signature::Rsa(Hash::Md5),
            (Some(5), _) => Signature::Rsa(Hash::Sha1),
            (Some(10), _) => Signature::RsaPss(pss_hash(algorithm)),
            (Some(11), _) => Signature::Rsa(Hash::Sha256),
            (Some(12), _) => Signature::Rsa(Hash::Sha384),
            (Some(13), _) => Signature::Rsa(Hash::Sha512),
            (Some(14), _) => Signature::Rsa(Hash::Sha224),
            (_, Some("1")) => Signature::Ecdsa(Hash::Sha1),
            (_, Some("3.1")) => Signature::Ecdsa(Hash::Sha224),
            (_, Some("3.2")) => Signature::Ecdsa(Hash::Sha256),
            (_, Some("3.3")) => Signature::Ecdsa(Hash::Sha384),
            (_, Some("3.4")) => Signature::Ecdsa(Hash::Sha512),
            _ if dotted == "1.3.101.112" => Signature::Ed25519,
            _ => Signature::Other(other(algorithm.oid)),
        }
    }

    fn hash(&self) -> Option<Hash> {
        match self {
            Signature::Rsa(hash) | Signature::RsaPss(hash) | Signature::Ecdsa(hash) => Some(*hash),
            Signature::Ed25519 | Signature::Other(_) => None,
        }
    }

    /// Why a signature of this kind by `key` cannot be verified, by Go or by firstboot; a predicate of the certificate.
    pub fn refusal(&self, key: &Key) -> Option<String> {
        let verifier = match (self, key) {
            (Signature::Other(_), _) | (_, Key::Other(_)) => "Kubernetes cannot verify",
            _ if self.hash().is_some_and(|hash| hash < Hash::Sha256) => "Kubernetes refuses",
            (_, Key::Ecdsa(Curve::P224)) => "firstboot cannot verify",
            (_, Key::Rsa(bits)) if *bits < RSA_MIN => "Kubernetes refuses",
            (Signature::Rsa(_) | Signature::RsaPss(_), Key::Rsa(bits)) if *bits > RSA_MAX => "firstboot cannot verify",
            // ring has no other for keys below 2048 bits.
            (Signature::Rsa(Hash::Sha384) | Signature::RsaPss(_), Key::Rsa(bits)) if *bits < RSA_FULL => {
                "firstboot cannot verify"
            }
            // A certificate that names an algorithm which its signer's key cannot have is forged or broken.
            _ => return None,
        };
        let signed = match key {
            Key::Ecdsa(curve) if matches!(self, Signature::Ecdsa(_)) => format!("{self} on {curve}"),
            Key::Rsa(bits) if *bits < RSA_FULL || *bits > RSA_MAX => format!("{self} and {key}"),
            Key::Other(_) => format!("{self} and {key}"),
            _ => self.to_string(),
        };
        Some(format!("is signed by {signed}, which {verifier}: reissue it with {BETTER}"))
    }
}

impl PartialOrd for Hash {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some((*self as u8).cmp(&(*other as u8)))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signature::Rsa(hash) => write!(f, "RSA with {hash}"),
            Signature::RsaPss(hash) => write!(f, "RSA-PSS with {hash}"),
            Signature::Ecdsa(hash) => write!(f, "ECDSA with {hash}"),
            Signature::Ed25519 => f.write_str("Ed25519"),
            Signature::Other(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hash::Md5 => "MD5",
            Hash::Sha1 => "SHA-1",
            Hash::Sha224 => "SHA-224",
            Hash::Sha256 => "SHA-256",
            Hash::Sha384 => "SHA-384",
            Hash::Sha512 => "SHA-512",
        })
    }
}

/// The hash of a PSS signature (RFC 4055, 3.1); SHA-1 where it names none.
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Hash {
    let read = || {
        let parameters = algorithm.parameters.as_ref()?;
        let mut reader = SliceReader::new(parameters.value()).ok()?;
        let hash =
            ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut reader, TagNumber::N0).ok()??;
        Some(hash.value.oid.to_string())
    };
    match read().as_deref() {
        Some("2.16.840.1.101.3.4.2.1") => Hash::Sha256,
        Some("2.16.840.1.101.3.4.2.2") => Hash::Sha384,
        Some("2.16.840.1.101.3.4.2.3") => Hash::Sha512,
        Some("2.16.840.1.101.3.4.2.4") => Hash::Sha224,
        _ => Hash::Sha1,
    }
}
