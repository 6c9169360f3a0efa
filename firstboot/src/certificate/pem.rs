// SPDX-License-Identifier: Apache-2.0
//! Certificates in PEM, exactly as Go finds them: `Decode` (encoding/pem, Go 1.26) and `ParseCertsPEM` (client-go,
//! util/cert/pem.go), which kubeadm reads CA bundles with.
//!
//! A block begins and ends at the begin of a line. Other text, blocks with another label or with headers, and blocks
//! that are not base64 are left out.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "\n-----END ";
const DASHES: &str = "-----";
const LABEL: &str = "CERTIFICATE";
/// Go leaves the bits behind the last byte out of account.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The content of each certificate's block, DER if all is well. No other block is decoded: it may be a key.
pub fn certificates(text: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(END) {
        rest = after;
        if let Some((label, body, behind)) = block(before, after) {
            rest = behind;
            let der = body.filter(|_| label == LABEL).and_then(decode);
            all.extend(der.filter(|der| !der.is_empty()));
        }
    }
    all
}

/// The block that ends at an END line: its label, its base64 unless it has headers, and the text behind that line.
/// `before` is the text up to the END line, and `after` begins behind its `-----END `.
fn block<'t>(before: &'t str, after: &'t str) -> Option<(&'t str, Option<&'t str>, &'t str)> {
    let begin = before.rfind(BEGIN)?;
    if begin > 0 && !before[..begin].ends_with('\n') {
        return None;
    }
    let (first, mut body) = line(&before[begin + BEGIN.len()..]);
    let label = first.strip_suffix(DASHES)?;
    let trailer = after.strip_prefix(label)?.strip_prefix(DASHES)?;
    let (blank, behind) = line(trailer);
    if !blank.is_empty() {
        return None;
    }
    let mut headers = false;
    while let (header, Some(next)) = line_of(body)
        && header.contains(':')
    {
        (headers, body) = (true, next);
    }
    // Headers up to the END line: Go does not take that for a block.
    if body.contains(':') && line_of(body).1.is_none() {
        return None;
    }
    Some((label, (!headers).then_some(body), behind))
}

/// The first line without blanks at its end, and what follows it.
fn line(text: &str) -> (&str, &str) {
    let (first, rest) = line_of(text);
    let first = if rest.is_some() { first.strip_suffix('\r').unwrap_or(first) } else { first };
    (first.trim_end_matches([' ', '\t']), rest.unwrap_or(""))
}

/// The first line, and what follows its end; none when the text has no end of line.
fn line_of(text: &str) -> (&str, Option<&str>) {
    text.split_once('\n').map_or((text, None), |(first, rest)| (first, Some(rest)))
}

fn decode(body: &str) -> Option<Vec<u8>> {
    let letters: String = body.chars().filter(|c| ![' ', '\t', '\r', '\n'].contains(c)).collect();
    BASE64.decode(letters).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the number of blocks that Go finds; more forms are in tests/judge/certificates.
    #[test]
    fn blocks_as_go_finds_them() {
        let plain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, count) in [
            (plain.to_owned(), 1),
            (plain.repeat(3), 3),
            (plain.trim_end().to_owned(), 1),
            (plain.replace('\n', "\r\n"), 1),
            (plain.replace('\n', " \t\n"), 1),
            (plain.replace("AAAA", " AA\tAA "), 1),
            (plain.replace("AAAA", "AAA="), 1),
            (plain.replace("AAAA", "AAB="), 1),
            (format!("text\n{plain}text\n{plain}"), 2),
            (format!("-----BEGIN CERTIFICATE-----\n{plain}"), 1),
            (plain.replace("AAAA\n", ""), 0),
            (format!(" {plain}"), 0),
            (plain.replace("\n-----E", "\n -----E"), 0),
            (plain.replace("\n-----E", " -----E"), 0),
            (plain.replace('\n', " "), 0),
            (plain.replace('\n', "\r"), 0),
            (plain.replace("AAAA", "AAA"), 0),
            (plain.replace("AAAA", "A!AA"), 0),
            (plain.replace("AAAA", "a: b\n\nAAAA"), 0),
            (plain.replace("AAAA", "a: b"), 0),
            (plain.replace("END CERTIFICATE", "END KEY"), 0),
            (plain.replace("END CERTIFICATE-----", "END CERTIFICATE----- x"), 0),
            (plain.replace("CERTIFICATE", "PRIVATE KEY"), 0),
            (format!("{}{plain}", plain.replace("AAAA", "A!AA")), 1),
            (format!("{}{plain}", plain.replace("CERTIFICATE", "PRIVATE KEY")), 1),
            (format!("{}{plain}", plain.replace("AAAA", "a: b\n\nAAAA")), 1),
            (String::new(), 0),
        ] {
            assert_eq!(certificates(&text).len(), count, "{text}");
        }
    }
}
