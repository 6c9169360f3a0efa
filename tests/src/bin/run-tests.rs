// SPDX-License-Identifier: Apache-2.0
//! Runs every test and adds up the results of all cargo runs: the last line is `N passed, N failed, N skipped`.
//!
//! Output streams as it comes. All steps run, also after one failed. It fails when a test failed, when a step
//! failed without a number, and when a step ran no test at all. A test that was skipped (`tests/skip.rs`) is not
//! counted as passed.

use anyhow::{Context, Result};
use e2e::skip::SKIPPED;
use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// One cargo run.
struct Step {
    name: &'static str,
    words: &'static [&'static str],
    /// Skipped, with that as the reason, where `run-tests` does not run as root.
    needs_root: bool,
}

const fn step(name: &'static str, words: &'static [&'static str]) -> Step {
    Step { name, words, needs_root: false }
}

/// What `make test` runs, the fast steps first.
const TEST: &[Step] = &[
    step("check", &["run", "--quiet", "--locked", "--package", "imagebuild", "--", "check"]),
    step("unit tests", &["test", "--quiet", "--locked", "--workspace", "--exclude", "e2e", "--no-fail-fast"]),
    // Files that firstboot writes, read by the systemd-networkd of this machine. `cargo test` alone leaves these out.
    Step {
        needs_root: true,
        ..step(
            "systemd-networkd",
            &["test", "--quiet", "--locked", "--package", "firstboot", "--lib", "--", "--ignored"],
        )
    },
    step("fuzzing", &["run", "--quiet", "--locked", "--package", "e2e", "--bin", "run-fuzz", "--", "--short"]),
    // One at a time: each may run an emulated machine with all the processors there are.
    step("end to end", &["test", "--locked", "--package", "e2e", "--no-fail-fast", "--", "--test-threads=1"]),
];

/// What `make test-long` runs: the tests marked as too long for every change.
const LONG: &[Step] =
    &[step("long", &["test", "--locked", "--package", "e2e", "--no-fail-fast", "--", "--test-threads=1", "--ignored"])];

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, more: Sum) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl Display for Sum {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One failure that no test reported.
const FAILED: Sum = Sum { passed: 0, failed: 1, skipped: 0 };

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let steps = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => TEST,
        ["--long"] => LONG,
        _ => {
            eprintln!("usage: run-tests [--long]; not {}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    let tools = match tools() {
        Ok(tools) => tools,
        Err(e) => {
            println!("set up the tests: {e:#}\n{FAILED}");
            return ExitCode::FAILURE;
        }
    };
    let mut all = Sum::default();
    for step in steps {
        let start = Instant::now();
        println!("== {} (cargo {})", step.name, step.words.join(" "));
        let sum = match run(step, &tools) {
            Ok((sum, succeeded)) => judge(step.name, sum, succeeded),
            Err(e) => {
                println!("{}: {e:#}", step.name);
                FAILED
            }
        };
        println!("== {}: {sum} in {:.0} s", step.name, start.elapsed().as_secs_f64());
        all += sum;
    }
    println!("{all}");
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts as failed what failed without a number: a test that does not compile, and a step without tests.
fn judge(name: &str, mut sum: Sum, succeeded: bool) -> Sum {
    if !succeeded && sum.failed == 0 {
        println!("{name}: failed without a number");
        sum.failed = 1;
    } else if sum == Sum::default() {
        println!("{name}: ran no test");
        sum.failed = 1;
    }
    sum
}

/// Environment variables that lead tests to the programs that set-up keeps in the cache.
fn tools() -> Result<[(&'static str, OsString); 2]> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let more = imagebuild::setup::registry()?;
    let path = std::env::join_paths(std::env::split_paths(&own).chain(more)).context("extend PATH")?;
    // firstboot/src/harden/access/sshd_tests.rs
    Ok([("PATH", path), ("FIRSTBOOT_SSHD", imagebuild::setup::sshd()?.into())])
}

/// Runs one step, passes its output on and adds up its results; and whether it succeeded.
fn run(step: &Step, tools: &[(&str, OsString)]) -> Result<(Sum, bool)> {
    if step.needs_root && !rustix::process::geteuid().is_root() {
        println!("{SKIPPED}{}: not root", step.name);
        return Ok((Sum { skipped: 1, ..Sum::default() }, true));
    }
    let mut child = Command::new("cargo")
        .args(step.words)
        // Set-up has run: a test that misses a tool fails instead of being skipped.
        .env("CI", "1")
        .envs(tools.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start cargo for {}", step.name))?;
    let output = child.stdout.take().context("read cargo's output")?;
    let sum = add_up(BufReader::new(output));
    let status = child.wait().with_context(|| format!("wait for cargo for {}", step.name))?;
    Ok((sum?, status.success()))
}

/// Prints `output` line by line and adds up its results.
fn add_up(output: impl BufRead) -> Result<Sum> {
    let (mut sum, mut skipped) = (Sum::default(), 0);
    for line in output.split(b'\n') {
        let line = line.context("read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(one) = result(&line) {
            sum += one;
        }
        skipped += u64::from(line.starts_with(SKIPPED));
    }
    // libtest counts a skipped test as passed.
    sum.passed = sum.passed.checked_sub(skipped).context("count skipped tests: more than passed")?;
    sum.skipped += skipped;
    Ok(sum)
}

/// Reads cargo's `test result: ok. 15 passed; 0 failed; …`, and `15 passed, 0 failed, 1 skipped` of our own programs.
fn result(line: &str) -> Option<Sum> {
    let (numbers, separator) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, "; "),
        None => (line, ", "),
    };
    let number = |word: &str| numbers.split(separator).find_map(|p| p.strip_suffix(word)?.parse::<u64>().ok());
    let (passed, failed) = (number(" passed")?, number(" failed")?);
    Some(Sum { passed, failed, skipped: number(" skipped").unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sum(passed: u64, failed: u64, skipped: u64) -> Sum {
        Sum { passed, failed, skipped }
    }

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 15 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(result(line), Some(sum(15, 2, 0)));
        assert_eq!(result("6 passed, 0 failed, 1 skipped"), Some(sum(6, 0, 1)));
        // What is read is what is written.
        assert_eq!(result(&sum(7, 1, 2).to_string()), Some(sum(7, 1, 2)));
    }

    #[test]
    fn skipped_test_is_not_passed() {
        let output = b"running 3 tests\n.\nSKIPPED: a: no tool\n..\ntest result: ok. 3 passed; 0 failed; 0 ignored\n";
        assert_eq!(add_up(&output[..]).unwrap(), sum(2, 0, 1));
        assert_eq!(add_up(&b"5 passed, 0 failed, 1 skipped\n"[..]).unwrap(), sum(5, 0, 1));
        add_up(&b"SKIPPED: a: no tool\n"[..]).unwrap_err();
    }

    #[test]
    fn other_lines_are_not_results() {
        assert_eq!(result("test boot ... ok"), None);
        assert_eq!(result("test result: nonsense"), None);
        assert_eq!(result("  test result: ok. 1 passed; 0 failed"), None);
        assert_eq!(result("== check: 6 passed, 0 failed, 1 skipped in 3 s"), None);
    }

    #[test]
    fn silence_is_no_success() {
        assert_eq!(judge("a", sum(0, 0, 0), true), FAILED);
        assert_eq!(judge("a", sum(0, 0, 0), false), FAILED);
        assert_eq!(judge("a", sum(3, 0, 0), false), sum(3, 1, 0));
        assert_eq!(judge("a", sum(3, 2, 0), false), sum(3, 2, 0));
        assert_eq!(judge("a", sum(3, 0, 1), true), sum(3, 0, 1));
    }
}
