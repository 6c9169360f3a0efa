// SPDX-License-Identifier: Apache-2.0
//! Certificates in a seed: `ca-cert` of the cluster, `ca` of a registry.
//!
//! People paste them in many forms: indented, in one line, with other text around, as base64 out of a kubeconfig. What
//! can only mean one thing is taken, and kept in the one form that Go reads (`pem.Decode`). Whatever else is there is
//! named, and never shown: it may be a private key.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::DecodePaddingMode::Indifferent;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::error::Error;
use crate::certificate::Certificate;
use crate::certificate::algorithm::BETTER;
use crate::fault::Code;
use crate::text::rfc3339;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Characters in a line of PEM (RFC 7468, section 2).
const LINE: usize = 64;
/// Shortest text that is taken for base64 of a certificate, and not for a word.
const SHORTEST: usize = 200;
/// Padding may be lost with the end of a line.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(Indifferent));

/// Takes certificates that a cluster's servers can be held against; gives them back as Go reads them.
pub(super) fn of_cluster(text: &str) -> Result<String, String> {
    let all = certificates(text, "a CA certificate")?;
    for (n, (_, read)) in all.iter().enumerate() {
        let name = if all.len() == 1 { "the certificate".to_owned() } else { format!("certificate {}", n + 1) };
        if let Some(why) = read.cannot_sign() {
            let own = "give the cluster's CA certificate, /etc/kubernetes/pki/ca.crt of a control plane";
            return Err(format!("{name} {why}: {own}"));
        }
        if let Some(why) = read.key.refusal() {
            return Err(format!("{name} {why}: the cluster needs a CA with {BETTER}"));
        }
        if let Some(why) = read.cannot_serve() {
            return Err(format!("{name} {why}: the cluster needs another CA"));
        }
    }
    Ok(all.iter().map(|(der, _)| pem(der)).collect())
}

/// Takes certificates that a registry is held against: a CA's, or the registry's own.
pub(super) fn of_registry(text: &str) -> Result<String, String> {
    let all = certificates(text, "a certificate")?;
    Ok(all.iter().map(|(der, _)| pem(der)).collect())
}

/// `Trust::check_dates` of certificates that [`of_cluster`] has taken.
pub(super) fn check_dates(pem: &str, now: SystemTime) -> Result<(), Error> {
    check_end(pem, now)?;
    let all = certificates(pem, "").unwrap_or_default();
    if all.is_empty() || all.iter().any(|(_, read)| read.not_before <= now && now <= read.not_after) {
        return Ok(());
    }
    let begin = all.iter().map(|(_, read)| read.not_before).filter(|begin| now < *begin).min().unwrap_or(now);
    Err(out_of_date(format!("is not valid before {}: is the clock of this machine right?", rfc3339(begin))))
}

/// `Trust::check_end` of the same.
pub(super) fn check_end(pem: &str, now: SystemTime) -> Result<(), Error> {
    let all = certificates(pem, "").unwrap_or_default();
    match all.iter().map(|(_, read)| read.not_after).max() {
        Some(end) if end < now => {
            Err(out_of_date(format!("expired at {}: give the cluster's present CA certificate", rfc3339(end))))
        }
        _ => Ok(()),
    }
}

fn out_of_date(what: String) -> Error {
    Error { code: Code::BadValue, line: None, text: format!("ca-cert in [cluster] {what}") }
}

/// The certificates in a text, DER and what is read of it, each once. `wanted` is for the message.
fn certificates(text: &str, wanted: &str) -> Result<Vec<(Vec<u8>, Certificate)>, String> {
    // In a TOML string in single quotes, and in JSON that was copied, line breaks are written out.
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let mut all: Vec<(Vec<u8>, Certificate)> = Vec::new();
    for der in ders(&text, wanted)? {
        let number = all.len() + 1;
        let broken = || format!("certificate {number} is cut off or damaged: copy it again, whole");
        let read = Certificate::read(&der).ok_or_else(broken)?;
        if all.iter().all(|(known, _)| *known != der) {
            all.push((der, read));
        }
    }
    Ok(all)
}

fn ders(text: &str, wanted: &str) -> Result<Vec<Vec<u8>>, String> {
    if text.contains(BEGIN) {
        return blocks(text);
    }
    let expected = format!("expected {wanted} in PEM, from {BEGIN}CERTIFICATE{DASHES} to {END}CERTIFICATE{DASHES}");
    if text.trim().is_empty() {
        return Err(format!("it is empty: {expected}"));
    }
    if text.contains(END) {
        return Err(format!("the line {BEGIN}CERTIFICATE{DASHES} is missing: copy the file whole"));
    }
    if let Some(bytes) = Some(text.trim()).filter(|t| t.len() >= SHORTEST).and_then(decode) {
        // certificate-authority-data of a kubeconfig is PEM in base64.
        return match String::from_utf8(bytes) {
            Ok(inner) if inner.contains(BEGIN) => blocks(&inner),
            Ok(_) => Err(expected),
            Err(der) => Ok(vec![der.into_bytes()]),
        };
    }
    let word = text.trim();
    let ends = [".crt", ".pem", ".cer", ".key"];
    if word.starts_with("sha256:") {
        return Err("that is a digest: write it to ca-cert-hashes".to_owned());
    }
    if !word.contains('\n') && (word.starts_with(['/', '~', '.']) || ends.iter().any(|end| word.ends_with(end))) {
        return Err("that is a path, and no file is read: write the content of the file here".to_owned());
    }
    if word.contains("certificate-authority-data") {
        return Err("that is a kubeconfig: give the value of certificate-authority-data alone".to_owned());
    }
    Err(expected)
}

/// The certificates between the lines of PEM, with any blanks; other text before, between and behind is left out.
fn blocks(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (label, body) = after.split_once(DASHES).ok_or("a line -----BEGIN … is cut off: copy the file whole")?;
        let kind = label.trim();
        if kind.ends_with("PRIVATE KEY") {
            return Err("there is a private key in it, which must not leave the control plane: give the certificate \
                        alone, and replace that key"
                .to_owned());
        }
        if kind != "CERTIFICATE" {
            return Err(match kind {
                "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                    "that is a request for a certificate: give the certificate".to_owned()
                }
                "PUBLIC KEY" | "RSA PUBLIC KEY" => "that is a public key: give the certificate".to_owned(),
                "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => {
                    format!("Kubernetes leaves out a block with the label {kind}: convert it with openssl x509")
                }
                "PKCS7" => "that is PKCS #7: convert it with openssl pkcs7 -print_certs".to_owned(),
                _ => "it has a block that is no certificate: give certificates alone".to_owned(),
            });
        }
        let number = all.len() + 1;
        let end = format!("the line {END}CERTIFICATE{DASHES} of certificate {number} is missing: copy the file whole");
        let (body, after) = body.split_once(END).filter(|(body, _)| !body.contains(BEGIN)).ok_or(end)?;
        if body.contains(':') {
            return Err(format!(
                "certificate {number} has headers, and Kubernetes leaves such a block out: remove them"
            ));
        }
        let broken = || format!("certificate {number} is cut off or damaged: copy it again, whole");
        all.push(decode(body).filter(|der| !der.is_empty()).ok_or_else(broken)?);
        rest = after;
    }
    Ok(all)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let letters: String = text.split_whitespace().collect();
    LENIENT.decode(letters).ok()
}

fn pem(der: &[u8]) -> String {
    let letters = STANDARD.encode(der);
    let mut text = format!("{BEGIN}CERTIFICATE{DASHES}\n");
    let mut rest = letters.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE.min(rest.len()));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("{END}CERTIFICATE{DASHES}\n")
}

#[cfg(test)]
#[path = "ca_cert_tests.rs"]
mod tests;
