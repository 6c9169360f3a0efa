// SPDX-License-Identifier: Apache-2.0
//! Runs every test and adds up the results: the last line is `N passed, N failed, N skipped`.
//!
//! Usage: run-tests [--fast | --long | --attacks] [--only WORDS], or run-tests --image ARCHITECTURE, which builds the image that
//! guests boot, as one of those tests. All tests run, also after one failed. It fails when a test failed, when a
//! program failed without a number or ran no test, and when no test has the words in its name. A test that was skipped
//! (`tests/skip.rs`) is not counted as passed.

use anyhow::{Context, Result, bail};
use e2e::schedule::plan::{self, Choice};
use e2e::schedule::results::{FAILED, Sum, report};
use e2e::schedule::times::Times;
use e2e::schedule::{Ended, Job, Kind, Limits, run};
use imagebuild::arch::Arch;
use imagebuild::repo;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// What all programs print goes here, below the clone.
const LOGS: &str = "out/test";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, arch] = words.as_slice()
        && word == "--image"
    {
        return image(arch);
    }
    let choice = match arguments(words.into_iter()) {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("run-tests: {error:#}; usage: run-tests [--fast | --long | --attacks] [--only WORDS]");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let mut all = All::default();
    if let Err(error) = test(&choice, &mut all) {
        println!("run-tests: {error:#}");
        all.sum += FAILED;
    }
    all.print(start);
    if all.sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds the image of an architecture, so that no test has to wait for another one that builds it.
fn image(arch: &str) -> ExitCode {
    match arch.parse::<Arch>().and_then(e2e::image) {
        Ok(image) => {
            println!("{}\n1 passed, 0 failed, 0 skipped", image.path().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("build the image of {arch}: {error:#}\n{FAILED}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Choice> {
    let mut choice = Choice::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--fast" => choice.fast = true,
            "--long" => choice.long = true,
            "--attacks" => choice.attacks = true,
            "--only" => choice.only = Some(words.next().context("read --only: words are missing")?),
            other => bail!("read {other}: it is not known"),
        }
    }
    if [choice.fast, choice.long, choice.attacks].into_iter().filter(|chosen| *chosen).count() > 1 {
        bail!("read --fast --long --attacks: only one of them");
    }
    Ok(choice)
}

/// All results so far.
#[derive(Default)]
struct All {
    sum: Sum,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl All {
    /// What failed and what was skipped, then the sum: the last line, which CI reads.
    fn print(&self, start: Instant) {
        self.skipped.iter().for_each(|what| println!("skipped: {what}"));
        self.failed.iter().for_each(|what| println!("FAILED: {what}"));
        let cpu = qemu::process::cpu_of_children().map_or(0.0, |time| time.as_secs_f64());
        let seconds = start.elapsed().as_secs_f64();
        println!("{seconds:.0} s ({cpu:.0} s of CPU); what each program printed is in {LOGS}");
        println!("{}", self.sum);
    }
}

fn test(choice: &Choice, all: &mut All) -> Result<()> {
    let variables = tools()?;
    println!("== building the tests");
    let start = Instant::now();
    let programs = plan::build()?;
    let mut times = Times::read();
    let root = rustix::process::geteuid().is_root();
    let mut jobs = plan::jobs(choice, &programs, &times, root)?;
    jobs.iter_mut().for_each(|job| job.variables.extend(variables.iter().cloned()));
    let limits = Limits::of_this_machine()?;
    let at_once = match jobs.iter().any(|job| job.kind == Kind::Guest) {
        true => format!("{} at once, {} of them with a guest", limits.jobs, limits.guests),
        false => format!("{} at once", limits.natives),
    };
    println!("== {} programs, {at_once} (built in {:.0} s)", jobs.len(), start.elapsed().as_secs_f64());
    if !root && choice.only.is_none() && !choice.long {
        all.skipped.push("systemd-networkd: not root".to_owned());
        all.sum.skipped += 1;
    }
    let whole = choice.only.is_none() && !choice.attacks;
    run(jobs, limits, &repo::root()?.join(LOGS), |job, ended| {
        let succeeded = take_in(job, ended, all);
        if whole {
            times.learn(&job.name, job.kind, ended.seconds, succeeded);
            // At once: the next run may follow one that was broken off.
            times.write();
        }
    })
}

/// Environment variables of all test programs: where the programs are that set-up keeps in the cache.
fn tools() -> Result<Vec<(&'static str, OsString)>> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let more = imagebuild::setup::registry()?;
    let path = std::env::join_paths(std::env::split_paths(&own).chain(more)).context("extend PATH")?;
    Ok(vec![
        ("PATH", path),
        // firstboot/src/harden/access/sshd_tests.rs
        ("FIRSTBOOT_SSHD", imagebuild::setup::sshd()?.into()),
        // Set-up has run: a test that misses a tool fails instead of being skipped.
        ("CI", "1".into()),
    ])
}

/// Prints and adds up what came of a program; whether all went well.
fn take_in(job: &Job, ended: &Ended, all: &mut All) -> bool {
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let output = read(&ended.output);
    let found = report(&output, ended.status.success());
    let failed = found.sum.failed > 0;
    if failed {
        let rule = "-".repeat(20);
        println!("{rule} {} printed:\n{output}\n{}{rule} end of {}", job.name, read(&ended.errors), job.name);
    }
    let verdict = if failed { "FAILED" } else { "ok" };
    let why = found.why.map(|why| format!("; {why} ({})", ended.status)).unwrap_or_default();
    println!("  {verdict} {}: {} in {:.0} s ({:.0} s of CPU){why}", job.name, found.sum, ended.seconds, ended.cpu);
    all.sum += found.sum;
    all.skipped.extend(found.skipped);
    match found.why {
        Some(why) => all.failed.push(format!("{}: {why}", job.name)),
        None => all.failed.extend(found.failed.iter().map(|test| format!("{} {test}", job.name))),
    }
    !failed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_choose_tests() {
        let read = |line: &str| arguments(line.split_whitespace().map(str::to_owned));
        assert_eq!(read("").unwrap(), Choice::default());
        assert_eq!(read("--fast").unwrap(), Choice { fast: true, ..Choice::default() });
        let only = Choice { long: true, only: Some("reset".into()), ..Choice::default() };
        assert_eq!(read("--long --only reset").unwrap(), only);
        assert_eq!(read("--only").unwrap_err().to_string(), "read --only: words are missing");
        assert_eq!(read("--short").unwrap_err().to_string(), "read --short: it is not known");
        read("--fast --long").unwrap_err();
    }
}
