// SPDX-License-Identifier: Apache-2.0
//! Builds the fuzz program with coverage instrumentation, runs its targets, prints the result of each, and writes
//! `out/fuzz/report.json`. The instrumentation is a pass of LLVM that stable rustc runs by name.
//!
//! Usage: run-fuzz [--short | --runs N | --minimise] [TARGET…]. Fails when a target found something.

use anyhow::{Context, Result, ensure};
use e2e::fuzzing::{Outcome, Stats};
use fuzz::{TARGETS, Target};
use imagebuild::{cmd, repo};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// The coverage that libFuzzer needs (SanitizerCoverage in LLVM's documentation): counters for edges, their addresses,
/// and operands of comparisons.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Longest time for one input, seconds.
const TIMEOUT: u32 = 5;
/// Most memory of the whole process, MiB.
const MEMORY: u32 = 512;
/// Runs and seconds in `make test`, whichever comes first; always from the same random seed, so that only a change of
/// the code makes it fail.
const SHORT: (u64, u32) = (200_000, 3);

/// Most bytes of libFuzzer's inputs that the repository keeps for one target.
const KEPT: u64 = 24 * 1024;

/// What to do with each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Short,
    Runs(u64),
    /// Reduces the corpus in the repository to the fewest inputs with the same coverage.
    Minimise,
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)).and_then(|(job, targets)| run(job, &targets)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("fuzz: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<(Job, Vec<&'static Target>)> {
    let (mut job, mut targets) = (Job::Runs(10_000_000), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => job = Job::Short,
            "--minimise" => job = Job::Minimise,
            "--runs" => {
                let number = words.next().context("read --runs: a number is missing")?;
                job = Job::Runs(number.parse().with_context(|| format!("read --runs {number}"))?);
            }
            name => {
                let known = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
                let target = TARGETS.iter().find(|t| t.name == name);
                targets.push(target.with_context(|| format!("find target {name}: there are {}", known()))?);
            }
        }
    }
    if targets.is_empty() {
        targets = TARGETS.iter().collect();
    }
    Ok((job, targets))
}

/// Runs the targets; returns the number of those that found something.
fn run(job: Job, targets: &[&'static Target]) -> Result<usize> {
    let root = repo::root()?;
    let start = Instant::now();
    let program = build(&root)?;
    println!("fuzz: built in {:.0} s", start.elapsed().as_secs_f64());
    if job == Job::Minimise {
        targets.iter().try_for_each(|t| minimise(&root, &program, t))?;
        return Ok(0);
    }
    println!("{}", Stats::HEAD);
    // One at a time for a measurement; a short run uses all processors.
    let at_once = match job {
        Job::Short => std::thread::available_parallelism().map_or(1, Into::into),
        _ => 1,
    };
    let (next, done) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(targets.len()) {
            scope.spawn(|| {
                loop {
                    let Some(target) = next.lock().ok().and_then(|mut n| n.next()) else { return };
                    let outcome = one(&root, &program, target, job);
                    match &outcome {
                        Ok(outcome) => println!("{outcome}"),
                        Err(e) => println!("{}: {e:#}", target.name),
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push(outcome);
                    }
                }
            });
        }
    });
    let outcomes: Vec<Outcome> = done.into_inner().unwrap_or_default().into_iter().collect::<Result<_>>()?;
    let failed = outcomes.iter().filter(|o| o.finding.is_some()).count();
    let report = root.join("out/fuzz/report.json");
    let json = json!({ "targets": outcomes.iter().map(Outcome::json).collect::<Vec<_>>() });
    std::fs::write(&report, format!("{json:#}\n")).with_context(|| format!("write {}", report.display()))?;
    println!("{} passed, {failed} failed, 0 skipped", outcomes.len() - failed);
    Ok(failed)
}

/// The instrumented program. Its target triple is named so that build scripts and macros are not instrumented.
fn build(root: &Path) -> Result<PathBuf> {
    ensure!(cmd::found("g++"), "find g++, which compiles libFuzzer: make test and make fuzz install it");
    let version = cmd::output(Command::new("rustc").arg("-vV")).context("ask rustc for this machine's name")?;
    let version = String::from_utf8_lossy(&version).into_owned();
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).context("find this machine's name")?;
    let words = ["build", "--quiet", "--locked", "--package", "fuzz", "--features", "engine", "--profile", "fuzz"];
    let mut command = Command::new("cargo");
    command.args(words).args(["--target", host, "--message-format", "json-render-diagnostics"]).current_dir(root);
    command.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    let json = cmd::output(&mut command).context("build the fuzz program")?;
    let messages = json.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<serde_json::Value>(l).ok());
    let mut programs = messages.filter_map(|m| Some(PathBuf::from(m["executable"].as_str()?)));
    programs.next_back().context("find the fuzz program that cargo built")
}

/// libFuzzer on one target, with what all jobs have in common.
fn command(root: &Path, program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    // Errors are no findings; their backtraces would take a fifth of the time.
    command.env("FUZZ_TARGET", target.name).env("RUST_LIB_BACKTRACE", "0").current_dir(root);
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-max_len={}", target.max_len)).arg("-print_final_stats=1");
    let words = root.join("fuzz/dictionaries").join(format!("{}.dict", target.name));
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    command
}

fn corpus(root: &Path, target: &Target) -> PathBuf {
    root.join("fuzz/corpus").join(target.name)
}

/// Directory of new inputs and findings.
fn found(root: &Path, target: &Target) -> Result<PathBuf> {
    let dir = root.join("out/fuzz").join(target.name);
    std::fs::create_dir_all(dir.join("corpus")).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

fn one(root: &Path, program: &Path, target: &Target, job: Job) -> Result<Outcome> {
    let dir = found(root, target)?;
    let mut command = command(root, program, target);
    match job {
        Job::Short => {
            // The inputs of earlier runs would make this run differ from CI's.
            let new = dir.join("short");
            let _ = std::fs::remove_dir_all(&new);
            std::fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
            command.args(["-seed=1".to_owned(), format!("-runs={}", SHORT.0), format!("-max_total_time={}", SHORT.1)]);
            command.arg(new);
        }
        Job::Runs(runs) => {
            command.arg(format!("-runs={runs}")).arg(dir.join("corpus"));
        }
        Job::Minimise => {}
    }
    command.arg(corpus(root, target)).arg(format!("-artifact_prefix={}/", dir.display()));
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("start {}", program.display()))?;
    let mut stats = Stats::default();
    let output = child.stderr.take().context("read libFuzzer's output")?;
    for line in BufReader::new(output).split(b'\n') {
        stats.see(&String::from_utf8_lossy(&line.context("read libFuzzer's output")?));
    }
    let status = child.wait().context("wait for libFuzzer")?;
    let replay = format!("FUZZ_TARGET={} {}", target.name, program.display());
    Ok(stats.judge(target.name, start.elapsed(), status.success(), &replay))
}

/// Rebuilds the repository's corpus from all known inputs. Inputs with a name of their own stay. Of those that
/// libFuzzer found (named by a digest), the smallest ones with the same coverage stay, up to [`KEPT`].
fn minimise(root: &Path, program: &Path, target: &Target) -> Result<()> {
    let (kept, dir) = (corpus(root, target), found(root, target)?);
    let new = dir.join("minimised");
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    let mut command = command(root, program, target);
    command.args(["-set_cover_merge=1", "-use_counters=0"]).args([&new, &dir.join("corpus"), &kept]);
    cmd::run(&mut command).with_context(|| format!("minimise the corpus of {}", target.name))?;
    let by_digest = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit())
    };
    for old in list(&kept)?.iter().map(|(_, path)| path).filter(|p| by_digest(p)) {
        std::fs::remove_file(old).with_context(|| format!("remove {}", old.display()))?;
    }
    let mut room = KEPT;
    for (bytes, path) in list(&new)? {
        let Some(left) = room.checked_sub(bytes) else { break };
        room = left;
        let to = kept.join(path.file_name().unwrap_or_default());
        std::fs::copy(&path, &to).with_context(|| format!("copy to {}", to.display()))?;
    }
    let all = list(&kept)?;
    println!("{}: {} inputs, {} bytes", target.name, all.len(), all.iter().map(|(bytes, _)| bytes).sum::<u64>());
    Ok(())
}

/// Files of a directory, smallest first.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let file = |entry: std::io::Result<std::fs::DirEntry>| -> std::io::Result<(u64, PathBuf)> {
        let entry = entry?;
        Ok((entry.metadata()?.len(), entry.path()))
    };
    let mut all: Vec<_> =
        entries.map(file).collect::<Result<_, _>>().with_context(|| format!("list {}", dir.display()))?;
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unknown_target_is_an_error() {
        let read = |line: &str| arguments(line.split_whitespace().map(str::to_owned));
        assert_eq!(read("").unwrap().1.len(), TARGETS.len());
        let (job, targets) = read("--runs 5 date").unwrap();
        assert_eq!((job, targets.len()), (Job::Runs(5), 1));
        let error = read("dates").err().unwrap().to_string();
        assert!(error.starts_with("find target dates: there are seed, "), "{error}");
    }
}
