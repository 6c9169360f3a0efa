// SPDX-License-Identifier: Apache-2.0
//! Lines for the person who looks at the device.

use std::fs::{self, OpenOptions};
use std::io::Write;

/// Writes one line to every console that the kernel has, whatever its log level. A console that takes none is passed over.
pub fn say(line: &str) {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    for name in active.split_whitespace() {
        // Not becoming its controlling terminal is the default for a process without a session of its own terminal.
        if let Ok(mut console) = OpenOptions::new().write(true).open(format!("/dev/{name}")) {
            let _ = console.write_all(format!("initrd: {line}\n").as_bytes());
        }
    }
}
