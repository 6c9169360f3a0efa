// SPDX-License-Identifier: Apache-2.0
//! kubeadm's own line: what was put into a line comes out of it, however it is quoted and spaced; no message holds a
//! value.
//!
//! Input: a zero byte and a line; or any other byte, then choices from which a good line is made.

use firstboot::seed::join_line::{JoinLine, parse};
use firstboot::seed::{CaPin, Endpoint, JoinToken, NodeName};

use crate::secrets::{EXAMPLE, long_runs, tokens, twin};

pub fn run(input: &[u8]) {
    match input.split_first() {
        None => {}
        Some((0, line)) => std::str::from_utf8(line).map_or((), any),
        Some((_, choices)) => made(&mut Choices(choices)),
    }
}

fn shown(result: &Result<JoinLine, String>) -> String {
    match result {
        Ok(line) => format!("{line:?}"),
        Err(why) => why.clone(),
    }
}

/// Any text at all.
fn any(text: &str) {
    let output = shown(&parse(text));
    assert!(!output.chars().any(char::is_control), "more than a line: {output:?}");
    let secrets = tokens(text);
    match parse(text) {
        Err(_) => {
            let leak = long_runs(&output).find(|run| *run != EXAMPLE && text.contains(run));
            assert_eq!(leak, None, "the message shows something that may be a token");
        }
        // A host or a name may well look like a token; it is shown, and kubeadm shows it too.
        Ok(line) if secrets.len() != 1 || text[secrets[0].clone()] != *line.token.secret() => return,
        // The same, of the very characters of a token that stands elsewhere in two pieces.
        Ok(line) if format!("{:?} {:?}", line.apiserver, line.node_name).contains(line.token.secret()) => return,
        Ok(_) => {}
    }
    assert_eq!(output, shown(&parse(&twin(text, secrets))), "it depends on a token");
}

/// Bytes that choose.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn of<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all[usize::from(self.next()) % all.len()]
    }

    fn text(&mut self, len: usize, from: &str) -> String {
        (0..len).map(|_| char::from(from.as_bytes()[usize::from(self.next()) % from.len()])).collect()
    }

    /// A word as a shell reads it back.
    fn quoted(&mut self, word: &str) -> String {
        match self.next() % 5 {
            0 => format!("'{word}'"),
            1 => format!("\"{word}\""),
            2 => word.chars().flat_map(|c| ['\\', c]).collect(),
            3 => {
                let at = usize::from(self.next()) % word.len();
                format!("{}\"{}\"", &word[..at], &word[at..])
            }
            _ => word.to_owned(),
        }
    }

    fn space(&mut self) -> &'static str {
        self.of(&[" ", "  ", "\t", " \\\n  ", " \\\r\n\t", " \\ \n ", "\n"])
    }
}

/// A good line, and what it says.
fn made(choices: &mut Choices<'_>) {
    const PLAIN: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
    let host = choices.of(&["10.0.0.1:6443", "api.example.org", "[fd00::1]:443", "a:1", "Api.Example:65535"]);
    let token = format!("{}.{}", choices.text(6, PLAIN), choices.text(16, PLAIN));
    let pins: Vec<String> =
        (0..choices.next() % 4).map(|_| format!("sha256:{}", choices.text(64, "0123456789abcdefABCDEF"))).collect();
    let name = (choices.next().is_multiple_of(2)).then(|| choices.text(8, PLAIN));

    let mut flags: Vec<(&str, String)> = Vec::new();
    match choices.next() % 4 {
        0 => flags.extend([("--discovery-token", token.clone()), ("--tls-bootstrap-token", token.clone())]),
        1 => flags.push(("--discovery-token", token.clone())),
        _ => flags.push(("--token", token.clone())),
    }
    match choices.next() % 2 {
        0 => flags.extend(pins.iter().map(|p| ("--discovery-token-ca-cert-hash", p.clone()))),
        _ if pins.is_empty() => {}
        _ => flags.push(("--discovery-token-ca-cert-hash", pins.join(","))),
    }
    flags.extend(name.iter().map(|n| ("--node-name", n.clone())));
    let turn = usize::from(choices.next()) % flags.len();
    flags.rotate_left(turn);
    let place = usize::from(choices.next()) % (flags.len() + 1);
    // In the order in which the line has them.
    let given = flags.iter().filter(|(flag, _)| *flag == "--discovery-token-ca-cert-hash");
    let pins = given.flat_map(|(_, all)| all.split(',')).map(|p| CaPin::parse(p).expect("a pin")).collect();

    let mut line = choices.of(&["", "$ ", "# ", "sudo ", "# sudo -E ", "\n"]).to_owned();
    line.push_str(choices.of(&["kubeadm", "/usr/bin/kubeadm"]));
    line.push_str(choices.space());
    line.push_str("join");
    for number in 0..=flags.len() {
        if number == place {
            line.push_str(choices.space());
            line.push_str(&choices.quoted(host));
        }
        let Some((flag, value)) = flags.get(number) else { break };
        line.push_str(choices.space());
        line.push_str(&choices.quoted(flag));
        line.push_str(if choices.next().is_multiple_of(2) { "=" } else { choices.space() });
        line.push_str(&choices.quoted(value));
    }
    line.push_str(choices.of(&["", "\n", " ", " \\", "\r\n"]));

    let want = JoinLine {
        apiserver: Endpoint::parse(host).expect("an endpoint"),
        token: JoinToken::parse(&token).expect("a token"),
        ca_cert_hashes: pins,
        node_name: name.map(|n| NodeName::parse(&n).expect("a name")),
        role: None,
    };
    assert_eq!(parse(&line), Ok(want), "{line}");
}
