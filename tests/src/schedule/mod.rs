// SPDX-License-Identifier: Apache-2.0
//! Runs many programs, as many at once as this machine can: the longest first, guests within a limit of their own and
//! after their images.
//!
//! Each program writes to two files, so that the output of one is never between the lines of another. A program ends
//! with its schedule, however that ends.

pub mod plan;
pub mod results;
pub mod times;

use anyhow::{Context, Result};
use qemu::process::{self, Process};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How often the programs that run are looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// How often is reported what still runs.
const REPORT: Duration = Duration::from_secs(60);

/// What a program is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It builds an image that most guests boot: before every guest.
    Image,
    /// It builds an image that few guests boot: after the other, whose build it would wait for, and beside guests.
    OtherImage,
    /// It boots emulated devices, which take a processor each.
    Guest,
    /// It does neither.
    Native,
}

/// One program to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// What results call it; unique.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Environment variables beside this process's own.
    pub variables: Vec<(&'static str, OsString)>,
    /// What it is about.
    pub kind: Kind,
    /// How long it is expected to take, seconds.
    pub seconds: f64,
}

/// What may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Programs, while a guest runs or waits for its turn.
    pub jobs: usize,
    /// Programs, while there is no guest.
    pub natives: usize,
    /// Programs that boot a guest; at least 1.
    pub guests: usize,
    /// Memory of all of them, MiB. A single program runs whatever it takes.
    pub mib: u64,
}

/// Memory that a program with a guest takes: the guest's own, and its control plane.
const GUEST_MIB: u64 = 3500;
/// Memory that another program takes.
const NATIVE_MIB: u64 = 1500;

impl Limits {
    /// For this machine: one guest for each processor, and one program more, for when a guest waits. With two more, guests
    /// got half a processor each, and what kubelet waits for in one took longer than it waits. Without a guest two programs
    /// for each processor, as many of them wait for a control plane for most of their time.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn of_this_machine() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        Ok(Limits {
            jobs: cores + 1,
            natives: 2 * cores,
            guests: cores,
            mib: available(&text).context("find MemAvailable")?,
        })
    }

    /// The first of `queue` that may start beside those that run.
    fn next(&self, queue: &[Job], running: &[Running]) -> Option<usize> {
        let guests_wait = queue.iter().any(|job| job.kind == Kind::Guest);
        queue.iter().position(|job| self.admit(job, running.iter().map(|r| &r.job), guests_wait))
    }

    /// Whether `job` may start beside those that run. While guests wait for their turn, their places are kept for them:
    /// they take the most time.
    fn admit<'a>(&self, job: &Job, running: impl Iterator<Item = &'a Job>, guests_wait: bool) -> bool {
        let running: Vec<&Job> = running.collect();
        let count = |kind: Kind| running.iter().filter(|other| other.kind == kind).count();
        let with_guests = guests_wait || job.kind == Kind::Guest || count(Kind::Guest) > 0;
        let most = if with_guests { self.jobs } else { self.natives };
        let others = running.len() - count(Kind::Guest);
        let fits = match job.kind {
            Kind::Image => true,
            Kind::OtherImage => count(Kind::Image) == 0,
            Kind::Guest => count(Kind::Image) == 0 && count(Kind::Guest) < self.guests,
            Kind::Native => !guests_wait || others < self.jobs.saturating_sub(self.guests).max(1),
        };
        let mib = job.mib() + running.iter().map(|other| other.mib()).sum::<u64>();
        running.is_empty() || fits && running.len() < most && mib <= self.mib
    }
}

impl Job {
    fn mib(&self) -> u64 {
        if self.kind == Kind::Guest { GUEST_MIB } else { NATIVE_MIB }
    }
}

/// `MemAvailable` of /proc/meminfo (proc(5)), in MiB.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// What came of a program.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Seconds that it took.
    pub seconds: f64,
    /// Processor time of it and of what it started, seconds.
    pub cpu: f64,
    /// File with its standard output.
    pub output: PathBuf,
    /// File with its standard error.
    pub errors: PathBuf,
}

struct Running {
    job: Job,
    process: Process,
    since: Instant,
    output: PathBuf,
    errors: PathBuf,
}

/// Runs all `jobs`, and hands each to `ended` when it has ended. Output goes to files in `logs`.
///
/// # Errors
/// When a program cannot be started or waited for. Those that run are ended then.
pub fn run(jobs: Vec<Job>, limits: Limits, logs: &Path, mut ended: impl FnMut(&Job, &Ended)) -> Result<()> {
    std::fs::create_dir_all(logs).with_context(|| format!("create {}", logs.display()))?;
    let mut queue = longest_first(jobs);
    let mut running: Vec<Running> = Vec::new();
    let (mut reported, mut used) = (Instant::now(), process::cpu_of_children()?);
    while !queue.is_empty() || !running.is_empty() {
        while let Some(next) = limits.next(&queue, &running) {
            running.push(start(queue.remove(next), logs)?);
        }
        let mut index = 0;
        while let Some(one) = running.get_mut(index) {
            let Some(status) = one.process.ended()? else {
                index += 1;
                continue;
            };
            // The kernel adds up a program when it is waited for.
            let before = std::mem::replace(&mut used, process::cpu_of_children()?);
            let cpu = used.saturating_sub(before).as_secs_f64();
            let Running { job, since, output, errors, .. } = running.remove(index);
            ended(&job, &Ended { status, seconds: since.elapsed().as_secs_f64(), cpu, output, errors });
            reported = Instant::now();
        }
        if reported.elapsed() > REPORT {
            reported = Instant::now();
            let names: Vec<String> =
                running.iter().map(|r| format!("{} ({} s)", r.job.name, r.since.elapsed().as_secs())).collect();
            println!("  ... {}; {} to start", names.join(", "), queue.len());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Images first, which guests need; then the longest, so that no long one is left alone at the end; of equal ones by
/// name.
fn longest_first(mut jobs: Vec<Job>) -> Vec<Job> {
    let rank = |job: &Job| match job.kind {
        Kind::Image => 0,
        Kind::OtherImage => 1,
        Kind::Guest | Kind::Native => 2,
    };
    jobs.sort_by(|a, b| {
        let longest = b.seconds.total_cmp(&a.seconds);
        rank(a).cmp(&rank(b)).then(longest).then_with(|| a.name.cmp(&b.name))
    });
    jobs
}

fn start(job: Job, logs: &Path) -> Result<Running> {
    let file = |kind: &str| -> Result<(PathBuf, File)> {
        let path = logs.join(format!("{}.{kind}", job.name.replace([' ', '/'], "-")));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok((path, file))
    };
    let ((output, out), (errors, err)) = (file("log")?, file("errors.log")?);
    let mut command = process::command(&job.program);
    command.args(&job.args).envs(job.variables.iter().map(|(name, value)| (name, value)));
    command.current_dir(&job.directory).stdout(out).stderr(err);
    let process = Process::spawn(&job.name, command, &output)?;
    println!("  start {}{}", job.name, times::expected(job.seconds));
    Ok(Running { job, process, since: Instant::now(), output, errors })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(name: &str, kind: Kind, seconds: f64) -> Job {
        let args = ["-c", "echo \"$WORD\"; echo beside >&2; exit 3"].map(OsString::from).to_vec();
        let (program, directory) = (PathBuf::from("/bin/sh"), PathBuf::from("/"));
        Job { name: name.into(), program, args, directory, variables: vec![("WORD", name.into())], kind, seconds }
    }

    const LIMITS: Limits = Limits { jobs: 3, natives: 4, guests: 2, mib: 2 * GUEST_MIB + NATIVE_MIB };

    #[test]
    fn as_many_at_once_as_the_limits_allow() {
        let (guest, native, image) =
            (job("g", Kind::Guest, 1.0), job("n", Kind::Native, 1.0), job("i", Kind::Image, 1.0));
        let fits = |limits: Limits, one: &Job, others: &[&Job]| limits.admit(one, others.iter().copied(), false);
        assert!(fits(LIMITS, &native, &[&guest, &guest]));
        assert!(!fits(LIMITS, &guest, &[&guest, &guest]), "a third guest");
        assert!(!fits(LIMITS, &native, &[&guest, &guest, &native]), "a fourth program");
        assert!(fits(LIMITS, &native, &[&image]) && fits(LIMITS, &image, &[&image]));
        assert!(!fits(LIMITS, &guest, &[&image]), "a guest whose image is not there yet");
        let other = job("o", Kind::OtherImage, 1.0);
        assert!(!fits(LIMITS, &other, &[&image]) && fits(LIMITS, &guest, &[&other]) && fits(LIMITS, &other, &[&guest]));
        let small = Limits { mib: GUEST_MIB, ..LIMITS };
        assert!(!fits(small, &native, &[&guest]), "more memory than there is");
        assert!(fits(Limits { mib: 1, ..LIMITS }, &guest, &[]), "one alone always runs");
        assert!(fits(LIMITS, &native, &[&native, &native, &native]));
        assert!(
            !fits(LIMITS, &native, &[&native, &native, &native, &native]),
            "more than there may be without a guest"
        );
        assert!(!fits(LIMITS, &guest, &[&native, &native, &native]), "a guest beside as many");
        assert!(!LIMITS.admit(&native, [&native].into_iter(), true), "two places are kept for guests");
        assert!(LIMITS.admit(&guest, [&native, &guest].into_iter(), true));
        assert!(LIMITS.admit(&native, [&guest, &guest].into_iter(), true));
        assert!(!LIMITS.admit(&native, [&other].into_iter(), true), "the same beside an image");
    }

    #[test]
    fn the_longest_is_first() {
        let jobs = longest_first(vec![
            job("b", Kind::Native, 5.0),
            job("a", Kind::Native, 5.0),
            job("c", Kind::Guest, 60.0),
            job("o", Kind::OtherImage, 90.0),
            job("i", Kind::Image, 1.0),
        ]);
        assert_eq!(jobs.iter().map(|j| j.name.as_str()).collect::<Vec<_>>(), ["i", "o", "c", "a", "b"]);
    }

    #[test]
    fn each_has_its_own_output_and_result() {
        let logs = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        run(vec![job("one test", Kind::Native, 1.0), job("b", Kind::Guest, 2.0)], LIMITS, logs.path(), |job, ended| {
            let read = |path: &Path| std::fs::read_to_string(path).unwrap();
            seen.push((job.name.clone(), ended.status.code(), read(&ended.output), read(&ended.errors)));
        })
        .unwrap();
        seen.sort();
        let of = |name: &str| (name.to_owned(), Some(3), format!("{name}\n"), "beside\n".to_owned());
        assert_eq!(seen, [of("b"), of("one test")]);
        assert!(logs.path().join("one-test.log").is_file());
    }

    #[test]
    fn a_program_that_cannot_start_is_an_error() {
        let logs = tempfile::tempdir().unwrap();
        let nowhere = Job { directory: "/nowhere".into(), ..job("lost", Kind::Native, 1.0) };
        let error = run(vec![nowhere], LIMITS, logs.path(), |_, _| ()).unwrap_err();
        assert_eq!(error.to_string(), "start lost");
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:   24576 kB\n"), Some(24));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
