// SPDX-License-Identifier: Apache-2.0
//! Runs every test and adds up the results of all cargo runs: the last line is `N passed, N failed`.
//!
//! Output streams as it comes. All steps run, also after one failed. It fails when a test failed, when a step
//! ended badly without saying why, and when a step ran no test at all.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// One cargo run.
struct Step {
    name: &'static str,
    words: &'static [&'static str],
}

/// What `make test` runs, cheap before dear.
const TEST: &[Step] = &[
    Step { name: "check", words: &["run", "--quiet", "--locked", "--package", "imagebuild", "--", "check"] },
    Step {
        name: "unit tests",
        words: &["test", "--quiet", "--locked", "--workspace", "--exclude", "e2e", "--no-fail-fast"],
    },
    Step {
        name: "fuzzing",
        words: &["run", "--quiet", "--locked", "--package", "e2e", "--bin", "run-fuzz", "--", "--short"],
    },
    // One at a time: each may run an emulated machine with all the processors there are.
    Step {
        name: "end to end",
        words: &["test", "--locked", "--package", "e2e", "--no-fail-fast", "--", "--test-threads=1"],
    },
];

/// What `make test-long` runs: the tests marked as too long for every change.
const LONG: &[Step] = &[Step {
    name: "long",
    words: &["test", "--locked", "--package", "e2e", "--no-fail-fast", "--", "--test-threads=1", "--ignored"],
}];

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
}

fn main() -> ExitCode {
    let steps = match std::env::args().nth(1).as_deref() {
        None => TEST,
        Some("--long") => LONG,
        Some(other) => {
            eprintln!("usage: run-tests [--long]; not {other}");
            return ExitCode::from(2);
        }
    };
    let tools = match tools() {
        Ok(tools) => tools,
        Err(e) => {
            println!("set up the tests: {e:#}\n{}", shown(Sum { passed: 0, failed: 1 }));
            return ExitCode::FAILURE;
        }
    };
    let mut all = Sum::default();
    for step in steps {
        let start = Instant::now();
        println!("== {} (cargo {})", step.name, step.words.join(" "));
        let sum = match run(step, &tools) {
            Ok((sum, ended_well)) => judge(step.name, sum, ended_well),
            Err(e) => {
                println!("{}: {e:#}", step.name);
                Sum { passed: 0, failed: 1 }
            }
        };
        println!("== {}: {} in {:.0} s", step.name, shown(sum), start.elapsed().as_secs_f64());
        all = Sum { passed: all.passed + sum.passed, failed: all.failed + sum.failed };
    }
    println!("{}", shown(all));
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shown(sum: Sum) -> String {
    format!("{} passed, {} failed", sum.passed, sum.failed)
}

/// Counts as failed what failed without a number: a test that does not compile, and a step without tests.
fn judge(name: &str, mut sum: Sum, ended_well: bool) -> Sum {
    if !ended_well && sum.failed == 0 {
        println!("{name}: ended badly");
        sum.failed = 1;
    } else if sum == Sum::default() {
        println!("{name}: ran no test");
        sum.failed = 1;
    }
    sum
}

/// Environment by which tests find the programs that set-up keeps in the cache.
fn tools() -> Result<[(&'static str, OsString); 2]> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let more = imagebuild::setup::registry()?;
    let path = std::env::join_paths(std::env::split_paths(&own).chain(more)).context("extend PATH")?;
    // firstboot/src/harden/access/sshd_tests.rs
    Ok([("PATH", path), ("FIRSTBOOT_SSHD", imagebuild::setup::sshd()?.into())])
}

/// Runs one step, passes its output on and adds up its results.
fn run(step: &Step, tools: &[(&str, OsString)]) -> Result<(Sum, bool)> {
    let mut child = Command::new("cargo")
        .args(step.words)
        // Set-up has been here: a test that finds a tool missing fails instead of passing by.
        .env("CI", "1")
        .envs(tools.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start cargo for {}", step.name))?;
    let mut sum = Sum::default();
    let output = child.stdout.take().context("read cargo's output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(one) = result(&line) {
            sum = Sum { passed: sum.passed + one.passed, failed: sum.failed + one.failed };
        }
    }
    let status = child.wait().with_context(|| format!("wait for cargo for {}", step.name))?;
    Ok((sum, status.success()))
}

/// Reads `test result: ok. 15 passed; 0 failed; …`, and the same of `check` and `fuzz`.
fn result(line: &str) -> Option<Sum> {
    let rest = ["test", "check", "fuzz"].into_iter().find_map(|w| line.strip_prefix(w)?.strip_prefix(" result: "))?;
    let (_, numbers) = rest.split_once(". ")?;
    let number = |word: &str| {
        let part = numbers.split(';').map(str::trim).find(|p| p.ends_with(word))?;
        part.strip_suffix(word)?.trim().parse::<u64>().ok()
    };
    Some(Sum { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 15 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(result(line), Some(Sum { passed: 15, failed: 2 }));
        let line = "check result: ok. 6 passed; 0 failed; 1 skipped";
        assert_eq!(result(line), Some(Sum { passed: 6, failed: 0 }));
        assert_eq!(result("fuzz result: FAILED. 7 passed; 1 failed"), Some(Sum { passed: 7, failed: 1 }));
    }

    #[test]
    fn other_lines_are_not_results() {
        assert_eq!(result("test boot ... ok"), None);
        assert_eq!(result("test result: nonsense"), None);
        assert_eq!(result("  test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn silence_is_no_success() {
        let none = Sum::default();
        assert_eq!(judge("a", none, true), Sum { passed: 0, failed: 1 });
        assert_eq!(judge("a", none, false), Sum { passed: 0, failed: 1 });
        assert_eq!(judge("a", Sum { passed: 3, failed: 0 }, false), Sum { passed: 3, failed: 1 });
        assert_eq!(judge("a", Sum { passed: 3, failed: 2 }, false), Sum { passed: 3, failed: 2 });
        assert_eq!(judge("a", Sum { passed: 3, failed: 0 }, true), Sum { passed: 3, failed: 0 });
    }
}
