// SPDX-License-Identifier: Apache-2.0
//! One log entry with fields of its own, by journald's native protocol (systemd.io, JOURNAL_NATIVE_PROTOCOL): a datagram of
//! `NAME=value` lines. Used where standard output is journald's stream anyway, so that no entry is there twice.

use std::io::Stdout;
use std::os::unix::net::UnixDatagram;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A field's name, `A-Z`, `0-9` and `_`, and its value.
pub type Field<'a> = (&'a str, &'a str);

/// Whether the entry was given to journald. If not, standard output is still there for it.
pub(super) fn log(stdout: &Stdout, line: &str, fields: &[Field<'_>]) -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(stat) = rustix::fs::fstat(stdout) else { return false };
    // The manual of $JOURNAL_STREAM (systemd.exec(5)): a service may have sent its output elsewhere.
    if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
        return false;
    }
    UnixDatagram::unbound().and_then(|socket| socket.send_to(&entry(line, fields), SOCKET)).is_ok()
}

/// The datagram. `PRIORITY` is 6 (information) unless a field says otherwise.
fn entry(line: &str, fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |name: &str, value: &str| {
        bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            // Values of several lines come with their length.
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    };
    add("MESSAGE", line);
    add("SYSLOG_IDENTIFIER", "firstboot");
    if !fields.iter().any(|(name, _)| *name == "PRIORITY") {
        add("PRIORITY", "6");
    }
    for (name, value) in fields {
        add(name, value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_byte_by_byte() {
        let bytes = entry("phase join failed", &[("PRIORITY", "3"), ("FIRSTBOOT_PHASE", "join")]);
        let text = "MESSAGE=phase join failed\nSYSLOG_IDENTIFIER=firstboot\nPRIORITY=3\nFIRSTBOOT_PHASE=join\n";
        assert_eq!(bytes, text.as_bytes());
        let two_lines = entry("a\nb", &[]);
        assert_eq!(two_lines, b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nSYSLOG_IDENTIFIER=firstboot\nPRIORITY=6\n");
    }

    #[test]
    fn output_that_is_not_the_journals_stays_where_it_is() {
        // Under cargo, standard output is a pipe, a file or a terminal, whatever $JOURNAL_STREAM it inherited.
        assert!(!log(&std::io::stdout(), "a line", &[]));
    }
}
