// SPDX-License-Identifier: Apache-2.0
//! kubeadm's own line, `kubeadm join HOST:PORT --token … --discovery-token-ca-cert-hash …`, as people paste it.
//!
//! Flags: `kubeadm join --help`, 1.36. What a device cannot honour is refused with the reason; nothing is ignored.
//! No message repeats a value: any of them may be the token.

use super::types::{CaPin, Endpoint, JoinToken, NodeName, may_show};

/// What the line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinLine {
    /// API server.
    pub apiserver: Endpoint,
    /// Token, for discovery and for the certificate request alike.
    pub token: JoinToken,
    /// Digests of the cluster's CA; may be empty, then the CA must come from elsewhere.
    pub ca_cert_hashes: Vec<CaPin>,
    /// `--node-name`.
    pub node_name: Option<NodeName>,
}

/// Flags that take no value and that a device cannot honour, with the reason.
const REFUSED_SWITCHES: [(&str, &str); 5] = [
    ("--control-plane", "firstboot joins nodes, not control planes"),
    ("--experimental-control-plane", "firstboot joins nodes, not control planes"),
    (
        "--discovery-token-unsafe-skip-ca-verification",
        "with it any machine that answers is taken for the cluster; give --discovery-token-ca-cert-hash",
    ),
    ("--dry-run", "a device joins or does not"),
    ("--help", "it joins nothing"),
];

/// Flags with a value that a device cannot honour, with the reason.
const REFUSED_FLAGS: [(&str, &str); 12] = [
    ("--discovery-file", "a device has no such file; put token and CA hash into the line, or use [cluster]"),
    ("--config", "a device has no such file; put token and CA hash into the line, or use [cluster]"),
    ("--certificate-key", "it belongs to control planes, and firstboot joins nodes"),
    ("--apiserver-advertise-address", "it belongs to control planes, and firstboot joins nodes"),
    ("--apiserver-bind-port", "it belongs to control planes, and firstboot joins nodes"),
    ("--cri-socket", "the image brings its own container runtime"),
    ("--ignore-preflight-errors", "firstboot has checks of its own, and none that could be skipped"),
    ("--patches", "a device has no such directory; use [kubelet.config]"),
    ("--skip-phases", "firstboot has phases of its own, and none that could be skipped"),
    ("--rootfs", "firstboot works on the device that it runs on"),
    ("-v", "it only says how much kubeadm prints"),
    ("--v", "it only says how much kubeadm prints"),
];

/// Reads the line, over several lines or one, quoted as for a shell, with or without `sudo`.
///
/// # Errors
/// What was expected or why a flag is refused, without any value.
pub fn parse(line: &str) -> Result<JoinLine, String> {
    let words = words(line)?;
    let mut words = after_command(&words)?.iter();
    let (mut apiserver, mut token, mut tls_token) = (None, None, None);
    let (mut ca_cert_hashes, mut node_name) = (Vec::new(), None);
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            if word.starts_with(['–', '—', '−']) {
                return Err("a hyphen was replaced by a dash; write flags with two hyphens, --".to_owned());
            }
            once("API server address", &mut apiserver, Endpoint::parse(word))?;
            continue;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word.as_str(), None),
        };
        refused(flag)?;
        let value = value.or_else(|| words.next().map(String::as_str)).filter(|v| !v.is_empty());
        let value = value.ok_or_else(|| format!("{flag} has no value"))?;
        match flag {
            // kubeadm takes --token for both of the others (ApplyTokenFlags).
            "--token" => {
                once(flag, &mut token, JoinToken::parse(value))?;
                once(flag, &mut tls_token, JoinToken::parse(value))?;
            }
            "--discovery-token" => once(flag, &mut token, JoinToken::parse(value))?,
            "--tls-bootstrap-token" => once(flag, &mut tls_token, JoinToken::parse(value))?,
            "--node-name" => once(flag, &mut node_name, NodeName::parse(value))?,
            _ => {
                for hash in value.split(',') {
                    ca_cert_hashes.push(CaPin::parse(hash).map_err(|why| format!("{flag}: {why}"))?);
                }
            }
        }
    }
    let apiserver = apiserver.ok_or("it names no API server: expected kubeadm join HOST:PORT")?;
    let token = token.ok_or("--token is missing")?;
    if tls_token.is_some_and(|t| t != token) {
        return Err("--tls-bootstrap-token differs from the discovery token; firstboot uses one for both".to_owned());
    }
    Ok(JoinLine { apiserver, token, ca_cert_hashes, node_name })
}

fn once<T>(what: &str, slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    match slot.replace(value.map_err(|why| format!("{what}: {why}"))?) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

fn refused(flag: &str) -> Result<(), String> {
    const KNOWN: [&str; 5] =
        ["--token", "--discovery-token", "--tls-bootstrap-token", "--discovery-token-ca-cert-hash", "--node-name"];
    if KNOWN.contains(&flag) {
        return Ok(());
    }
    match REFUSED_SWITCHES.iter().chain(&REFUSED_FLAGS).find(|(name, _)| *name == flag) {
        Some((_, why)) => Err(format!("{flag} is refused: {why}")),
        None if may_show(flag) => Err(format!("{flag} is refused: firstboot does not know this flag")),
        None => Err(format!("a flag of {} characters is refused: firstboot does not know it", flag.chars().count())),
    }
}

/// What follows `kubeadm join`; before it only a prompt and `sudo` may stand.
fn after_command(words: &[String]) -> Result<&[String], String> {
    let expected = || "expected the line that kubeadm token create --print-join-command prints".to_owned();
    let mut rest = words;
    if let [first, tail @ ..] = rest
        && (first == "$" || first == "#")
    {
        rest = tail;
    }
    if let [first, tail @ ..] = rest
        && first.rsplit('/').next() == Some("sudo")
    {
        let options = tail.iter().take_while(|w| w.starts_with('-')).count();
        rest = &tail[options..];
    }
    match rest {
        [program, join, tail @ ..] if program.rsplit('/').next() == Some("kubeadm") && join == "join" => Ok(tail),
        _ => Err(expected()),
    }
}

/// Words as a POSIX shell would split them (Shell Command Language, 2.2 and 2.3); what a shell would expand or act on
/// is refused.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match skip_line_end(&mut chars) {
                true => {}
                false => word.get_or_insert_default().extend(chars.next()),
            },
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(other) => word.push(other),
                        None => return Err(format!("a quotation mark {c} is not closed")),
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            '$' | '#' if word.is_none() && chars.peek().is_none_or(|c| c.is_whitespace()) => words.push(c.into()),
            ';' | '&' | '|' | '<' | '>' | '$' | '`' | '(' | ')' => {
                return Err(format!("{c} is refused: give the one command, without what a shell makes of more"));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// After a backslash: skips to the next line, over blanks that an editor left before its end. Whether there was one.
fn skip_line_end(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let ahead: String = chars.clone().take_while(|c| c.is_whitespace()).collect();
    match ahead.find('\n') {
        Some(end) => {
            chars.nth(ahead[..end].chars().count());
            true
        }
        // The line's end itself: nothing is to be continued.
        None => chars.peek().is_none(),
    }
}

#[cfg(test)]
#[path = "join_line_tests.rs"]
mod tests;
