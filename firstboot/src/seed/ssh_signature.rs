// SPDX-License-Identifier: Apache-2.0
//! A file's signature as `ssh-keygen -Y sign` writes it (SSHSIG: OpenSSH, PROTOCOL.sshsig), verified.
//!
//! It proves that a seed on a stick comes from the owner of the device. A person at a USB port chooses these bytes, so
//! nothing is read past its end, and a signature that says more than it has to is refused. Pure.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};

use super::ssh_key::{SshKey, fields};

/// What a signature has to be made for: `ssh-keygen -Y sign -n firstboot`.
pub const NAMESPACE: &str = "firstboot";
/// Longest signature file that is read, bytes. One by an ECDSA key on P-384 has about 500.
pub const MAX_SIZE: usize = 4096;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// First bytes of what is encoded between them, and of what is signed.
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// Longest number of an ECDSA signature, bytes: one of P-384, and the zero before it.
const NUMBER: usize = 49;

/// Why a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// It is not in the form that `ssh-keygen -Y sign` writes.
    Form,
    /// It is made for another purpose.
    Namespace,
    /// It is by a key that is not among the owner's.
    Key,
    /// It does not belong to these bytes.
    Content,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::Form => "it is no signature of ssh-keygen -Y sign",
            Unproven::Namespace => "it is made for another purpose than -n firstboot",
            Unproven::Key => "it is by a key that is not one of this device's owner",
            Unproven::Content => "it does not belong to this seed: the file was changed after it was signed",
        })
    }
}

/// The parts of a signature.
struct Parts<'a> {
    /// The key that it claims to be made by.
    key: &'a [u8],
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash: &'a [u8],
    /// Name of the algorithm, and the signature itself.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// Verifies that `signature`, the content of a `.sig` file, is by one of `keys` over `message`.
///
/// # Errors
/// Why it proves nothing.
pub fn verify(keys: &[SshKey], message: &[u8], signature: &[u8]) -> Result<(), Unproven> {
    verify_for(NAMESPACE, keys, message, signature)
}

/// The same for a signature that is made for another purpose.
///
/// # Errors
/// Why it proves nothing.
pub fn verify_for(namespace: &str, keys: &[SshKey], message: &[u8], signature: &[u8]) -> Result<(), Unproven> {
    let blob = blob(signature).ok_or(Unproven::Form)?;
    let parts = parts(&blob).ok_or(Unproven::Form)?;
    if parts.namespace != namespace.as_bytes() {
        return Err(Unproven::Namespace);
    }
    let is_it = |key: &&SshKey| STANDARD.decode(&key.key).is_ok_and(|bytes| bytes == parts.key);
    let key = keys.iter().find(is_it).ok_or(Unproven::Key)?;
    let hash = match parts.hash {
        b"sha256" => &SHA256,
        b"sha512" => &SHA512,
        _ => return Err(Unproven::Form),
    };
    let mut signed = MAGIC.to_vec();
    for field in [parts.namespace, parts.reserved, parts.hash, digest(hash, message).as_ref()] {
        put(&mut signed, field);
    }
    match parts.algorithm == key.algorithm.as_bytes() && fits(key, &parts, &signed).is_some() {
        true => Ok(()),
        false => Err(Unproven::Content),
    }
}

/// The key by which a signature claims to be made; none where it is no signature, or no key that OpenSSH reads.
pub fn signer(signature: &[u8]) -> Option<SshKey> {
    let blob = blob(signature)?;
    let key = parts(&blob)?.key;
    let algorithm = std::str::from_utf8(fields(key)?.first()?).ok()?;
    SshKey::parse(&format!("{algorithm} {}", STANDARD.encode(key))).ok()
}

/// Whether the signature itself is right; none when it is not.
fn fits(key: &SshKey, parts: &Parts<'_>, signed: &[u8]) -> Option<()> {
    let check = |algorithm: &'static dyn VerificationAlgorithm, public: &[u8], signature: &[u8]| {
        UnparsedPublicKey::new(algorithm, public).verify(signed, signature).ok()
    };
    // The key's parts were judged when the seed was read.
    let public = fields(parts.key)?.pop()?;
    match key.algorithm.as_str() {
        "ssh-ed25519" => check(&ED25519, public, parts.signature),
        "ecdsa-sha2-nistp256" => check(&ECDSA_P256_SHA256_ASN1, public, &der(parts.signature)?),
        "ecdsa-sha2-nistp384" => check(&ECDSA_P384_SHA384_ASN1, public, &der(parts.signature)?),
        _ => None,
    }
}

/// What stands between the two lines, decoded. White space of any kind may be lost or added on the way.
fn blob(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_SIZE {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.trim_start_matches('\u{feff}').trim();
    let inner = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    STANDARD.decode(inner.split_ascii_whitespace().collect::<String>()).ok()
}

fn parts(blob: &[u8]) -> Option<Parts<'_>> {
    let (version, rest) = blob.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let [key, namespace, reserved, hash, signature] = fields(rest)?.try_into().ok()?;
    let [algorithm, inner] = fields(signature)?.try_into().ok()?;
    let known = u32::from_be_bytes(*version) == VERSION;
    known.then_some(Parts { key, namespace, reserved, hash, algorithm, signature: inner })
}

/// Two numbers as SSH has them (RFC 5656, 3.1.2), in the form that ring reads (RFC 3279, 2.2.3). Both keep a number in
/// the fewest bytes with its sign, so the bytes are the same; ring refuses any others.
fn der(numbers: &[u8]) -> Option<Vec<u8>> {
    let [r, s]: [&[u8]; 2] = fields(numbers)?.try_into().ok()?;
    if r.len().max(s.len()) > NUMBER {
        return None;
    }
    let mut content = Vec::new();
    for number in [r, s] {
        content.extend([2, number.len() as u8]);
        content.extend_from_slice(number);
    }
    Some([&[0x30, content.len() as u8], content.as_slice()].concat())
}

/// Appends a string after its length (RFC 4251, section 5).
fn put(to: &mut Vec<u8>, field: &[u8]) {
    to.extend((field.len() as u32).to_be_bytes());
    to.extend_from_slice(field);
}

#[cfg(test)]
#[path = "ssh_signature_tests.rs"]
pub(crate) mod tests;
