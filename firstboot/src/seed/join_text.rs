// SPDX-License-Identifier: Apache-2.0
//! Finds join commands in text that has other text around them: a shell's prompt, warnings, all of what `kubeadm init`
//! prints.

use super::character::{is_curly, is_dash, is_invisible};

/// Programs whose `join` is read.
const PROGRAMS: [&str; 2] = ["kubeadm", "edgeadm"];

/// The commands in a text, each from its program to its end, over lines that continue it.
pub(super) fn commands(text: &str) -> Vec<&str> {
    let (mut found, mut at, mut done) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if at >= done
            && let Some((start, quote)) = start(line)
        {
            let rest = &text[at + start..];
            let command = &rest[..length(rest)];
            // What was put between quotation marks, or marks of HTML, ends at the second one.
            let closes = |quote: char, c: char| match quote {
                '>' => c == '<',
                quote => c == quote || is_curly(quote) && is_curly(c),
            };
            let end = quote.and_then(|quote| command.find(|c| closes(quote, c))).unwrap_or(command.len());
            found.push(&command[..end]);
            done = at + start + command.len();
        }
        at += line.len();
    }
    found
}

/// Where a command begins in a line, and the quotation mark that it follows. Before it only a prompt, `sudo` and
/// variables may stand: in the middle of a sentence it is no command.
fn start(line: &str) -> Option<(usize, Option<char>)> {
    let places = PROGRAMS.iter().flat_map(|program| line.match_indices(program));
    let mut places: Vec<(usize, &str)> = places.collect();
    places.sort_unstable();
    places.into_iter().find_map(|(at, program)| {
        let after = line[at + program.len()..].trim_start_matches(is_gap);
        let separated = after.len() < line.len() - at - program.len();
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(|c: char| is_gap(c) || c == '\\');
        if !separated || !after.strip_prefix("join").is_some_and(ends) {
            return None;
        }
        // Up to the path of the program: /usr/bin/kubeadm.
        let before = line[..at].trim_end_matches(|c: char| !is_gap(c) && !is_quote(c));
        let path = &line[before.len()..at];
        let is_path = path.is_empty() || path.ends_with('/');
        if is_path { Some((at, prompt(before)?)) } else { None }
    })
}

/// What a command may be put between: quotation marks, or marks of HTML.
fn is_quote(c: char) -> bool {
    "'\"`>".contains(c) || is_curly(c)
}

/// Whitespace, or what looks like nothing.
fn is_gap(c: char) -> bool {
    c.is_whitespace() || is_invisible(c)
}

/// The quotation mark, if any, at the end of a text in which nothing else stands than a shell's prompt, the mark of a list
/// or of a quotation, `sudo` and variables; none where something else does.
fn prompt(text: &str) -> Option<Option<char>> {
    let mut words: Vec<&str> = text.split(is_gap).filter(|w| !w.is_empty()).collect();
    let is_variable = |word: &&str| word.contains('=') && !word.starts_with('-');
    let is_sudo = |word: &&str| word.trim_start_matches(is_quote).rsplit('/').next() == Some("sudo");
    let mut quote = None;
    if let Some(sudo) = words.iter().rposition(is_sudo)
        && words[sudo + 1..].iter().all(|word| word.starts_with('-') || is_variable(word))
    {
        quote = words[sudo].chars().next().filter(|c| is_quote(*c));
        words.truncate(sudo);
    }
    while words.last().is_some_and(is_variable) {
        words.pop();
    }
    // At the end of the text itself: a prompt that ends in > is followed by a space.
    let quote = quote.or_else(|| text.chars().next_back().filter(|c| is_quote(*c)));
    let is_number = |word: &str| {
        let number = word.trim_end_matches(['.', ')']);
        number.len() < word.len() && number.bytes().all(|b| b.is_ascii_digit())
    };
    let is_mark = |last: &str| last.ends_with(|c| "$#%>❯➜»:*-[+•".contains(c)) || is_number(last);
    let is_prompt = words.last().is_none_or(|last| is_mark(last));
    (is_prompt || quote.is_some()).then_some(quote)
}

/// Length of the command that a text begins with: its line, the lines that it says are to follow, and lines of flags.
fn length(text: &str) -> usize {
    let (mut end, mut continued) = (0, true);
    for line in text.split_inclusive('\n') {
        let ended = !continued || line.trim().is_empty();
        if end > 0 && ended && !is_flags(line) {
            break;
        }
        end += line.len();
        continued = line.trim_end_matches(is_gap).ends_with(['\\', '^', '`']);
    }
    end
}

/// Whether a line begins with a flag; a list and a rule do not.
fn is_flags(line: &str) -> bool {
    let line = line.trim_start_matches(is_gap);
    let name = line.strip_prefix("--").or_else(|| line.strip_prefix(is_dash));
    name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_among_other_text() {
        let text = "W1127 warning: don't <panic>\n\nroot@cp1:~# kubeadm join a:1 \\\n\t--token b ^\n --hash c\n\
                    --node-name d\nroot@cp1:~# exit\n  sudo -E /usr/bin/kubeadm join e:1\nDone.\n> `edgeadm join f` done\n";
        assert_eq!(
            commands(text),
            ["kubeadm join a:1 \\\n\t--token b ^\n --hash c\n--node-name d\n", "kubeadm join e:1\n", "edgeadm join f"]
        );
        for line in [
            "kubeadm join a",
            "$ kubeadm join a",
            "[root@cp1 ~]# kubeadm\u{a0} join a",
            "\u{feff}kubeadm join a",
            "C:\\> kubeadm join a",
            "LANG=C sudo kubeadm join a",
            "sudo LANG=C kubeadm join a",
            "- kubeadm join a",
            "  - \"kubeadm join a\"",
            "Run this: ./kubeadm join a",
            "then run `sudo kubeadm join a`",
            "1. kubeadm join a",
            "2) sudo kubeadm join a",
        ] {
            assert_eq!(commands(line).len(), 1, "{line}");
        }
        for line in [
            "“kubeadm join a”",
            "<p><code>kubeadm join a</code></p>",
            "run ‘sudo kubeadm join a’ then",
            "PS>kubeadm join a",
        ] {
            assert_eq!(commands(line), ["kubeadm join a"], "{line}");
        }
        for line in
            ["", "ssh node kubeadm join a", "see kubeadm join", "kubeadm joined", "kubeadmjoin", "mykubeadm join a"]
        {
            assert_eq!(commands(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn a_blank_line_ends_a_command() {
        assert_eq!(commands("kubeadm join a \\\n\n--token b"), ["kubeadm join a \\\n"]);
        assert_eq!(commands("kubeadm join a\r\n\r\nnext"), ["kubeadm join a\r\n"]);
        assert_eq!(commands("kubeadm join a\n----------\n"), ["kubeadm join a\n"]);
        assert_eq!(commands("kubeadm join a\n–token b\n").len(), 1);
    }
}
