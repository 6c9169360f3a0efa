// SPDX-License-Identifier: Apache-2.0
//! How a test is skipped. libtest has no skip at run time and counts such a test as passed, so it prints a line that
//! `run-tests` subtracts. Every crate's tests include this file by its path: no crate is below all of them.

#![allow(dead_code)] // each crate uses a part

use std::io::Write;

/// How the line of a skipped test begins.
pub const SKIPPED: &str = "SKIPPED: ";

/// Reports that the running test is skipped for want of something that set-up cannot give, such as a right or a part
/// of the kernel. The test has to return then.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    // Not println!: libtest keeps that back unless the test fails. On a line of its own, after libtest's dots.
    let _ = std::io::stdout().write_all(format!("\n{SKIPPED}{test}: {reason}\n").as_bytes());
}

/// Like [`skip`], for want of a tool that set-up installs or of user namespaces. In CI that is a failure.
///
/// # Panics
/// With `reason`, where the environment variable `CI` is set.
pub fn skip_unless_ci(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    skip(reason);
}
