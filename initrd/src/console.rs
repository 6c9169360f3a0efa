// SPDX-License-Identifier: Apache-2.0
//! What the person in front of the device reads.

use std::fs;
use std::io::Write;

/// One line on every active console, whatever the kernel's log level. A console that does not answer is passed over.
pub fn say(line: &str) {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut names: Vec<&str> = active.split_whitespace().collect();
    if names.is_empty() {
        names.push("console");
    }
    let line = format!("initrd: {}\n", line.replace('\n', " "));
    for name in names {
        // Opened by hand: a terminal that init opens must not become its controlling one.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        if let Ok(terminal) = rustix::fs::open(format!("/dev/{name}"), flags, rustix::fs::Mode::empty()) {
            let _ = fs::File::from(terminal).write_all(line.as_bytes());
        }
    }
}
