// SPDX-License-Identifier: Apache-2.0
//! kubeadm's own line, `kubeadm join HOST:PORT --token … --discovery-token-ca-cert-hash …`, as people paste it, and
//! edgeadm's, which has the same flags and some of its own.
//!
//! Flags: `kubeadm join --help`, 1.36; `edgeadm join`, SuperEdge 0.8 (`pkg/util/kubeadm/join.go`). What a device cannot
//! honour is refused with the reason. No message repeats a value: any of them may be the token.

use super::advice;
use super::character::{self, is_dash, is_invisible};
use super::foreign;
use super::join_text;
use super::suggest;
use super::types::{CaPin, Endpoint, JoinToken, NodeName, Role, may_show};

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
    /// What edgeadm's `--enable-edge` says of the node; none: the line does not say.
    pub role: Option<Role>,
}

/// Flags whose values are used.
const KNOWN: [&str; 5] =
    ["--token", "--discovery-token", "--tls-bootstrap-token", "--discovery-token-ca-cert-hash", "--node-name"];

/// edgeadm's flag for the package of programs that the image has already.
const PACKAGE: &str = "--install-pkg-path";

/// edgeadm's flag for the container runtime; the image has the one of the two that it may name.
const RUNTIME: &str = "--runtime";

/// Flags that take no value and that a device cannot honour, with the reason.
const REFUSED_SWITCHES: [(&str, &str); 5] = [
    ("--control-plane", "use the seed join-control-plane.toml of the first control plane instead"),
    ("--experimental-control-plane", "use the seed join-control-plane.toml of the first control plane instead"),
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

/// Flags of edgeadm that a device cannot honour, with the reason.
const REFUSED_EDGEADM_FLAGS: [(&str, &str); 5] = [
    ("--worker-path", "it only says where edgeadm unpacks its package"),
    ("--kubeconfig", "a device has no such file"),
    ("--default-ha", "it belongs to control planes, and firstboot joins nodes"),
    ("--interface", "it belongs to control planes, and firstboot joins nodes"),
    ("--manifests-dir", "a device has no such directory"),
];

/// Reads the line, over several lines or one, quoted as for a shell, with or without `sudo`; or finds it in a text, such
/// as all of what `kubeadm init` prints.
///
/// # Errors
/// What was expected or why a flag is refused, without any value.
pub fn parse(text: &str) -> Result<JoinLine, String> {
    read(text).map(|(line, _)| line)
}

/// The same, with a note where only a part of the text was used.
///
/// # Errors
/// As [`parse`].
pub fn read(text: &str) -> Result<(JoinLine, Option<&'static str>), String> {
    if let Ok(line) = words(text).and_then(|words| command(&words)) {
        return Ok((line, None));
    }
    let mut commands = join_text::commands(text);
    // A sentence may begin with the two words; where there is a line with flags, that is the command.
    let has_flags = |command: &&str| command.contains("-token") || command.contains("--config");
    if commands.iter().any(has_flags) {
        commands.retain(has_flags);
    }
    let workers: Vec<&str> = commands.iter().copied().filter(|c| !c.contains("-control-plane")).collect();
    let (taken, note) = match workers.len() {
        some if some == commands.len() => (&commands, "took the join line alone out of the text"),
        0 => (&commands, "took the join line alone out of the text"),
        _ => (&workers, "took the worker's join line out of the text, not the control plane's"),
    };
    let mut found: Option<JoinLine> = None;
    for of_one in taken {
        let line =
            words(of_one).and_then(|words| command(&words)).map_err(|why| broken(text, of_one).unwrap_or(why))?;
        match &found {
            Some(other) if !is_same(other, &line) => {
                return Err("the text has two different join lines; keep the one that is meant".to_owned());
            }
            // Where the power went while one of them was overwritten, the other one is still to be overwritten.
            Some(_) if line.token.is_erased() => {}
            _ => found = Some(line),
        }
    }
    let expected = || {
        foreign::line(text)
            .or_else(|| token_alone(text))
            .unwrap_or_else(|| format!("expected the line that {} prints", foreign::PRINTS))
    };
    found.map(|line| (line, Some(note))).ok_or_else(expected)
}

/// What a text is that is one word, where it is a token of another tool.
fn token_alone(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    words.next().filter(|_| words.next().is_none()).and_then(foreign::token).map(str::to_owned)
}

/// Whether the command that begins at a place of a text is good but for line ends within its words, as a terminal breaks
/// it.
fn broken(text: &str, command_at: &str) -> Option<String> {
    let mut whole = String::new();
    let rest = &text[text.find(command_at)?..];
    for line in rest.lines().take_while(|line| !line.trim().is_empty()) {
        let continued = line.trim_end().ends_with(['\\', '^', '`']);
        whole.push_str(line.trim_end_matches(['\r']));
        whole.push_str(if continued { "\n" } else { "" });
    }
    let good = words(&whole).and_then(|words| command(&words)).is_ok();
    good.then(|| "a line end stands within a word; put the pieces of the word together".to_owned())
}

/// Whether two lines say the same, whatever is left of their tokens.
fn is_same(one: &JoinLine, other: &JoinLine) -> bool {
    let spent = one.token.is_erased() || other.token.is_erased();
    let token = one.token == other.token || spent && one.token.id() == other.token.id();
    token && JoinLine { token: one.token.clone(), ..other.clone() } == *one
}

/// One command, by its words.
fn command(words: &[String]) -> Result<JoinLine, String> {
    let (is_edgeadm, words) = after_program(words)?;
    let mut words = words.iter();
    let (mut apiserver, mut token, mut tls_token) = (None, None, None);
    let (mut ca_cert_hashes, mut node_name, mut role) = (Vec::new(), None, None);
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            if word.starts_with(is_dash) {
                return Err("a hyphen was replaced by a dash; write flags with two hyphens, --".to_owned());
            }
            once("API server address", &mut apiserver, word, Endpoint::parse)?;
            continue;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word.as_str(), None),
        };
        if is_edgeadm && flag == "--enable-edge" {
            // A switch has its value after = alone (pflag).
            once(flag, &mut role, value.unwrap_or("true"), enable_edge)?;
            continue;
        }
        let of_edgeadm = is_edgeadm && [PACKAGE, RUNTIME].contains(&flag);
        if !of_edgeadm {
            refused(flag, is_edgeadm)?;
        }
        let value = value.or_else(|| words.next().map(String::as_str).filter(|next| !next.starts_with("--")));
        let value = value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{flag} has no value"))?;
        let value = character::without_curly_quotes(value);
        match flag {
            // kubeadm takes --token for both of the others (ApplyTokenFlags).
            "--token" => {
                once(flag, &mut token, value, JoinToken::parse)?;
                once(flag, &mut tls_token, value, JoinToken::parse)?;
            }
            "--discovery-token" => once(flag, &mut token, value, JoinToken::parse)?,
            "--tls-bootstrap-token" => once(flag, &mut tls_token, value, JoinToken::parse)?,
            "--node-name" => once(flag, &mut node_name, value, NodeName::parse)?,
            PACKAGE => {}
            RUNTIME if value == "containerd" => {}
            RUNTIME => return Err(format!("{flag} is refused: the image brings containerd, and no other runtime")),
            _ => {
                for hash in value.split(',') {
                    let pin = advice::read(hash, CaPin::parse).map_err(|why| format!("{flag}: {why}"))?;
                    ca_cert_hashes.push(pin);
                }
            }
        }
    }
    let apiserver = apiserver.ok_or("it names no API server: expected kubeadm join HOST:PORT")?;
    let token = token.ok_or("--token is missing")?;
    if tls_token.is_some_and(|t| t != token) {
        return Err("--tls-bootstrap-token differs from the discovery token; firstboot uses one for both".to_owned());
    }
    Ok(JoinLine { apiserver, token, ca_cert_hashes, node_name, role })
}

fn once<T>(
    what: &str,
    slot: &mut Option<T>,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), String> {
    match slot.replace(advice::read(value, parse).map_err(|why| format!("{what}: {why}"))?) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

/// edgeadm's `--enable-edge`: with `false` the node gets the labels of a node in the cloud (`addCloudNodeLabel`).
fn enable_edge(value: &str) -> Result<Role, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Ok(Role::Edge),
        "false" | "f" | "0" => Ok(Role::Worker),
        _ => Err("expected true or false".to_owned()),
    }
}

fn refused(flag: &str, is_edgeadm: bool) -> Result<(), String> {
    if KNOWN.contains(&flag) {
        return Ok(());
    }
    let edgeadm: &[_] = if is_edgeadm { &REFUSED_EDGEADM_FLAGS } else { &[] };
    let all = || REFUSED_SWITCHES.iter().chain(&REFUSED_FLAGS).chain(edgeadm);
    if let Some((_, why)) = all().find(|(name, _)| *name == flag) {
        return Err(format!("{flag} is refused: {why}"));
    }
    if let Some(odd) = character::in_value(flag) {
        return Err(format!("a flag is malformed: {odd}"));
    }
    let names = KNOWN.into_iter().chain(all().map(|(name, _)| *name));
    let hint = suggest::closest(flag, names).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    match may_show(flag) {
        true => Err(format!("{flag} is refused: firstboot does not know this flag{hint}")),
        false => {
            Err(format!("a flag of {} characters is refused: firstboot does not know it{hint}", flag.chars().count()))
        }
    }
}

/// Whether the program is edgeadm, and what follows its `join`; before it only a prompt and `sudo` may stand.
fn after_program(words: &[String]) -> Result<(bool, &[String]), String> {
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
    if let [program, join, tail @ ..] = rest
        && join == "join"
    {
        match program.rsplit('/').next() {
            Some("kubeadm") => return Ok((false, tail)),
            Some("edgeadm") => return Ok((true, tail)),
            _ => {}
        }
    }
    Err(format!("expected the line that {} prints", foreign::PRINTS))
}

/// Words as a POSIX shell would split them (Shell Command Language, 2.2 and 2.3); what a shell would expand or act on
/// is refused. A line may also go on after ^ and ` as in the shells of Windows, invisible characters around a word are
/// left out, and so are curly quotation marks.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match skip_line_end(&mut chars) {
                true => {}
                false => word.get_or_insert_default().extend(chars.next()),
            },
            '^' | '`' if skip_line_end(&mut chars) => {}
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
            c if c.is_whitespace() => words.extend(word.take().and_then(visible)),
            '$' | '#' if word.is_none() && chars.peek().is_none_or(|c| c.is_whitespace()) => words.push(c.into()),
            // edgeadm prints <Path of edgeadm kube-* install package> there.
            '<' if package_follows(&words, word.as_deref()) => {
                word.get_or_insert_default().push_str("PATH");
                chars.by_ref().find(|c| *c == '>').ok_or("a bracket < is not closed")?;
            }
            ';' | '&' | '|' | '<' | '>' | '$' | '`' | '(' | ')' => return Err(of_a_shell(c, chars.collect())),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.and_then(visible));
    Ok(words)
}

/// A word without invisible characters and curly quotation marks around it; nothing where nothing else is in it.
fn visible(word: String) -> Option<String> {
    let trimmed = character::without_curly_quotes(word.trim_matches(is_invisible));
    (word.is_empty() || !trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// Whether the word that begins is the value of edgeadm's flag for its package.
fn package_follows(words: &[String], word: Option<&str>) -> bool {
    match word {
        None => words.last().is_some_and(|last| last == PACKAGE),
        Some(word) => word.strip_suffix('=') == Some(PACKAGE),
    }
}

/// Why a character that a shell acts on is refused; `rest` is what follows it.
fn of_a_shell(c: char, rest: String) -> String {
    if c == '&'
        && let Some(entity) = character::entity(&rest)
    {
        return entity;
    }
    let inside = rest.split_once('>').map(|(inside, _)| inside);
    if c == '<' && inside.is_some_and(|i| i.len() < 80 && i.starts_with(|c: char| c.is_ascii_alphabetic())) {
        return "a placeholder <…> is left in the line; put the value there".to_owned();
    }
    format!("{c} is refused: give the one command, without what a shell makes of more")
}

/// After the character that continues a line: skips to the next line, over blanks that an editor left before its end. Whether there was one.
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
