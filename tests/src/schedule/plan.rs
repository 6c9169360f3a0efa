// SPDX-License-Identifier: Apache-2.0
//! What `make test` runs: builds every test program, asks each for its tests, and makes jobs of them.

use super::times::Times;
use super::{Job, Kind};
use anyhow::{Context, Result, bail, ensure};
use imagebuild::arch::Arch;
use imagebuild::{cmd, repo};
use qemu::device::MAY_BOOT;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs of `tests/tests` that boot guests in `make test`. In every other one, switching a device on fails.
const GUESTS: [&str; 10] =
    ["bad_seed", "boards", "board_slots", "faults", "happy", "hardened", "layout", "loader", "torn", "torture"];
/// Those of [`GUESTS`] whose machines have no operating system: they mostly wait, and run beside the others.
const WITHOUT_SYSTEM: [&str; 1] = ["loader"];
/// Programs of which each test runs on its own: they share nothing, and each takes minutes.
const APART: [&str; 2] = ["happy", "layout"];
/// A program, and how the names of those of its tests begin that run as a job of their own, beside the others: each job
/// has its own control plane, so that neither waits for the other. The first that fits counts.
const BESIDE: [(&str, &str); 4] = [
    ("join", "as kubeadm: "),
    ("join", "power cut and fault at every effect"),
    ("join", "cache: nothing is lost on a bad way"),
    ("join", "cache: "),
];
/// Programs of `tests/tests` that run this many tests at once: each test has networks of its own, and mostly waits for
/// packets that must not come.
const AT_ONCE: [(&str, u32); 1] = [("firewall", 4)];
/// Programs whose long tests boot nothing.
const LONG_NATIVE: [&str; 3] = ["join", "kubelet", "virtual_ip"];
/// Tests that only root can run, by program and a part of their names, and what the job is called: they configure this
/// machine's systemd-networkd in a namespace, or start containerd in one.
const AS_ROOT: [(&str, &str, &str); 2] =
    [("firstboot lib", "::real_tests::", "systemd-networkd"), ("prepared", "", "containerd")];

/// Which tests are to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those that take too long for every change, and no other.
    pub long: bool,
    /// Only those that boot no guest.
    pub fast: bool,
    /// Only those that try what an attacker would ([`is_attack`]), those that take long among them.
    pub attacks: bool,
    /// Only those whose name contains this.
    pub only: Option<String>,
}

/// A test program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What results call it: an integration test's own name, otherwise `PACKAGE lib` or `PACKAGE bin NAME`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Directory of its package.
    pub directory: PathBuf,
    /// Whether it is one of `tests/tests`.
    pub end_to_end: bool,
}

/// Tests of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tests {
    /// Those that always run.
    pub ordinary: Vec<String>,
    /// Those that are marked as ignored.
    pub ignored: Vec<String>,
}

/// Builds all test programs of the workspace.
///
/// # Errors
/// When one does not compile; cargo has said why.
pub fn build() -> Result<Vec<Program>> {
    let words = ["test", "--no-run", "--quiet", "--locked", "--workspace"];
    let mut command = Command::new("cargo");
    command.args(words).args(["--message-format", "json-render-diagnostics"]).current_dir(repo::root()?);
    let out = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(out.status.success(), "build the tests: cargo failed ({})", out.status);
    let messages = out.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let programs: Vec<Program> = messages.filter_map(|message| program(&message)).collect();
    ensure!(!programs.is_empty(), "find the test programs that cargo built: there is none");
    Ok(programs)
}

/// The test program that a message of cargo's is about (`--message-format json`, The Cargo Book, External tools).
fn program(message: &Value) -> Option<Program> {
    let path = PathBuf::from(message["executable"].as_str()?);
    message["profile"]["test"].as_bool().filter(|test| *test)?;
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let (kind, target) = (message["target"]["kind"][0].as_str()?, message["target"]["name"].as_str()?);
    let package = message["package_id"].as_str().and_then(package)?;
    let name = match kind {
        "test" => target.to_owned(),
        "bin" => format!("{package} bin {target}"),
        _ => format!("{package} lib"),
    };
    Some(Program { name, path, directory, end_to_end: package == "e2e" && kind == "test" })
}

/// Name of a package in its id: `path+file:///DIRECTORY#NAME@VERSION`, or `…/NAME#VERSION` where both names are equal.
fn package(id: &str) -> Option<&str> {
    let (place, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name),
        None => place.rsplit('/').next(),
    }
}

impl Program {
    /// Asks it for its tests.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn tests(&self) -> Result<Tests> {
        let list = |more: &[&str]| -> Result<Vec<String>> {
            let mut command = Command::new(&self.path);
            let out =
                cmd::output(command.args(["--list", "--format", "terse"]).args(more).current_dir(&self.directory));
            let text = String::from_utf8(out?).with_context(|| format!("decode the tests of {}", self.name))?;
            Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
        };
        let (all, ignored) = (list(&[])?, list(&["--ignored"])?);
        let ordinary = all.into_iter().filter(|name| !ignored.contains(name)).collect();
        Ok(Tests { ordinary, ignored })
    }

    fn boots(&self, long: bool) -> bool {
        self.end_to_end
            && match long {
                true => !LONG_NATIVE.contains(&self.name.as_str()),
                false => GUESTS.contains(&self.name.as_str()),
            }
    }

    /// Runs these of its tests.
    fn job(&self, name: String, tests: Which, ignored: Ignored, times: &Times) -> Job {
        let boots = match ignored {
            Ignored::Leave => self.boots(false),
            Ignored::Only => self.boots(true),
            Ignored::Include => self.boots(false) || self.boots(true),
        };
        let kind = if boots && !WITHOUT_SYSTEM.contains(&self.name.as_str()) { Kind::Guest } else { Kind::Native };
        let mut args: Vec<OsString> = Vec::new();
        args.extend(ignored.flag().map(OsString::from));
        // Each may run an emulated machine or a control plane of its own.
        let at_once = AT_ONCE.iter().find(|(name, _)| *name == self.name).map_or(1, |(_, tests)| *tests);
        args.extend(self.end_to_end.then(|| format!("--test-threads={at_once}").into()));
        if let Which::These(tests) = tests {
            args.push("--exact".into());
            args.extend(tests.into_iter().map(OsString::from));
        }
        let manifest = ("CARGO_MANIFEST_DIR", self.directory.clone().into());
        let variables = vec![manifest, (MAY_BOOT, if boots { "yes" } else { "no" }.into())];
        let seconds = times.of(&name, kind);
        Job { name, program: self.path.clone(), args, directory: self.directory.clone(), variables, kind, seconds }
    }
}

/// What a program does with the tests that are marked as ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ignored {
    Leave,
    Only,
    Include,
}

impl Ignored {
    fn flag(self) -> Option<&'static str> {
        match self {
            Ignored::Leave => None,
            Ignored::Only => Some("--ignored"),
            Ignored::Include => Some("--include-ignored"),
        }
    }
}

/// Which tests of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    All,
    These(Vec<String>),
}

/// The jobs of `choice`.
///
/// # Errors
/// When a program does not answer, and when there is nothing to run.
pub fn jobs(choice: &Choice, programs: &[Program], times: &Times, root: bool) -> Result<Vec<Job>> {
    let tests = programs.iter().map(Program::tests).collect::<Result<Vec<_>>>()?;
    let mut jobs = if choice.long || choice.attacks { Vec::new() } else { steps(choice, times)? };
    for (program, tests) in programs.iter().zip(tests) {
        jobs.extend(of_program(choice, program, tests, times, root));
    }
    if jobs.is_empty() {
        match &choice.only {
            Some(words) => bail!("find a test whose name contains `{words}`: there is none"),
            None => bail!("find a test: there is none"),
        }
    }
    if jobs.iter().any(|job| job.kind == Kind::Guest) {
        for arch in Arch::ALL {
            let kind = if arch == Arch::host()? { Kind::Image } else { Kind::OtherImage };
            jobs.push(Job {
                kind,
                ..step(&format!("image generic-{arch}"), "run-tests", &["--image", arch.name()], times)?
            });
        }
    }
    Ok(jobs)
}

fn of_program(choice: &Choice, program: &Program, tests: Tests, times: &Times, root: bool) -> Vec<Job> {
    if choice.fast && program.boots(choice.long) {
        return Vec::new();
    }
    let named = |test: &String| {
        choice.only.as_ref().is_none_or(|words| full_name(program, test).contains(words))
            && (!choice.attacks || is_attack(test))
            && (needs_root(program, test).is_none() || root && !choice.long)
    };
    let all = match (choice.attacks, choice.long) {
        (true, _) => [&tests.ordinary[..], &tests.ignored[..]].concat(),
        (false, true) => tests.ignored.clone(),
        (false, false) => tests.ordinary,
    };
    let these: Vec<String> = all.iter().filter(|test| named(test)).cloned().collect();
    let ignored = match (choice.attacks, choice.long) {
        (true, _) if these.iter().any(|test| tests.ignored.contains(test)) => Ignored::Include,
        (false, true) => Ignored::Only,
        _ => Ignored::Leave,
    };
    let mut jobs = Vec::new();
    if APART.contains(&program.name.as_str()) || choice.long {
        // In `make test-long` each takes many minutes.
        jobs.extend(these.into_iter().map(|test| {
            let which = Which::These(vec![test.clone()]);
            program.job(full_name(program, &test), which, ignored, times)
        }));
    } else {
        let mut rest = these;
        for (_, prefix) in BESIDE.iter().filter(|(name, _)| *name == program.name) {
            let beside: Vec<String> = rest.extract_if(.., |test| test.starts_with(prefix)).collect();
            if !beside.is_empty() {
                let name = full_name(program, prefix.trim_end_matches([':', ' ']));
                jobs.push(program.job(name, Which::These(beside), ignored, times));
            }
        }
        if !rest.is_empty() {
            let which = if rest.len() == all.len() { Which::All } else { Which::These(rest) };
            jobs.push(program.job(program.name.clone(), which, ignored, times));
        }
    }
    let as_root: Vec<String> =
        tests.ignored.into_iter().filter(|test| named(test) && needs_root(program, test).is_some()).collect();
    let job = as_root.first().and_then(|test| needs_root(program, test));
    if let Some(job) = job.filter(|_| !choice.long && !choice.attacks && root) {
        jobs.push(program.job(job.to_owned(), Which::These(as_root), Ignored::Only, times));
    }
    jobs
}

/// What the job is called in which a test runs that needs root.
fn needs_root(program: &Program, test: &str) -> Option<&'static str> {
    let of =
        |(name, part, job): (&str, &str, &'static str)| (program.name == name && test.contains(part)).then_some(job);
    AS_ROOT.into_iter().find_map(of)
}

/// Whether a test tries what an attacker would: its name begins with the number that docs/threat-model.md has for it, as
/// in `s01_…`.
pub fn is_attack(test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    matches!(name.as_bytes(), [b's', tens, ones, b'_' | b' ', ..] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// `PROGRAM TEST`.
fn full_name(program: &Program, test: &str) -> String {
    format!("{} {test}", program.name)
}

/// What is no test program: `imagebuild check`, and the fuzz targets.
fn steps(choice: &Choice, times: &Times) -> Result<Vec<Job>> {
    let named = |job: &Job| choice.only.as_ref().is_none_or(|words| job.name.contains(words));
    let all = [step("check", "imagebuild", &["check"], times)?, step("fuzzing", "run-fuzz", &["--short"], times)?];
    Ok(all.into_iter().filter(named).collect())
}

/// Runs a program of this workspace, which cargo put beside this one.
fn step(name: &str, program: &str, args: &[&str], times: &Times) -> Result<Job> {
    Ok(Job {
        name: name.to_owned(),
        program: std::env::current_exe().context("find this program")?.with_file_name(program),
        args: args.iter().map(OsString::from).collect(),
        directory: repo::root()?,
        // One processor each: other programs run beside them.
        variables: vec![("CARGO_BUILD_JOBS", OsString::from("1"))],
        kind: Kind::Native,
        seconds: times.of(name, Kind::Native),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn message(package_id: &str, kind: &str, name: &str) -> Value {
        json!({
            "reason": "compiler-artifact", "package_id": package_id, "manifest_path": "/clone/tests/Cargo.toml",
            "target": { "kind": [kind], "name": name }, "profile": { "test": true }, "executable": "/target/x-1",
        })
    }

    fn names(choice: &Choice, program: &Program, tests: &Tests, root: bool) -> Vec<String> {
        let jobs = of_program(choice, program, tests.clone(), &Times::default(), root);
        jobs.into_iter().map(|job| job.name).collect()
    }

    fn end_to_end(name: &str) -> Program {
        program(&message("path+file:///clone/tests#e2e@0.1.0", "test", name)).unwrap()
    }

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let named = |id, kind, name| program(&message(id, kind, name)).map(|p| (p.name, p.end_to_end));
        assert_eq!(named("path+file:///clone/tests#e2e@0.1.0", "test", "join"), Some(("join".into(), true)));
        assert_eq!(named("path+file:///clone/firstboot#0.1.0", "test", "tidy"), Some(("tidy".into(), false)));
        assert_eq!(named("path+file:///clone/qemu#0.1.0", "lib", "qemu"), Some(("qemu lib".into(), false)));
        let bin = named("path+file:///clone/tests#e2e@0.1.0", "bin", "run-tests");
        assert_eq!(bin, Some(("e2e bin run-tests".into(), false)));
        let mut no_test = message("path+file:///clone/qemu#0.1.0", "bin", "qemu");
        no_test["profile"]["test"] = json!(false);
        assert_eq!(program(&no_test), None);
    }

    #[test]
    fn every_program_that_boots_is_in_the_tree() {
        let more = BESIDE.iter().map(|(name, _)| name).chain(AT_ONCE.iter().map(|(name, _)| name));
        assert!(WITHOUT_SYSTEM.iter().all(|name| GUESTS.contains(name)));
        for name in GUESTS.iter().chain(&APART).chain(&LONG_NATIVE).chain(more) {
            let there =
                [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")].iter().any(|p| Path::new(p).exists());
            assert!(there, "{name}");
        }
    }

    #[test]
    fn a_name_chooses_tests_and_one_that_matches_nothing_is_an_error() {
        let tests = Tests { ordinary: vec!["lost key".into(), "denied".into()], ignored: vec!["every way".into()] };
        let join = end_to_end("join");
        let only = |words: &str| Choice { only: Some(words.into()), ..Choice::default() };
        assert_eq!(names(&Choice::default(), &join, &tests, false), ["join"]);
        let chosen = of_program(&only("join lost"), &join, tests.clone(), &Times::default(), false).remove(0);
        assert_eq!(chosen.args, ["--test-threads=1", "--exact", "lost key"]);
        assert_eq!(names(&only("typo"), &join, &tests, false), [""; 0]);
        let error = jobs(&only("typo"), &[], &Times::default(), false).unwrap_err();
        assert_eq!(error.to_string(), "find a test whose name contains `typo`: there is none");
        // Ignored ones are not among those of every change.
        assert_eq!(names(&only("every way"), &join, &tests, false), [""; 0]);
        let long = Choice { long: true, ..Choice::default() };
        assert_eq!(names(&long, &join, &tests, false), ["join every way"]);
    }

    #[test]
    fn tests_of_one_program_run_as_several_jobs() {
        let cuts = "power cut and fault at every effect of the whole way";
        let ordinary = ["denied", "as kubeadm: JSON", cuts, "failed", "as kubeadm: null"].map(str::to_owned).to_vec();
        let tests = Tests { ordinary, ignored: vec![] };
        let jobs = |only: Option<&str>| {
            let choice = Choice { only: only.map(str::to_owned), ..Choice::default() };
            let jobs = of_program(&choice, &end_to_end("join"), tests.clone(), &Times::default(), false);
            jobs.into_iter().map(|job| (job.name, job.args[2..].to_vec())).collect::<Vec<_>>()
        };
        let beside = ("join as kubeadm".to_owned(), vec!["as kubeadm: JSON".into(), "as kubeadm: null".into()]);
        let apart = ("join power cut and fault at every effect".to_owned(), vec![cuts.into()]);
        assert_eq!(jobs(None), [beside, apart, ("join".to_owned(), vec!["denied".into(), "failed".into()])]);
        assert_eq!(jobs(Some("JSON")), [("join as kubeadm".to_owned(), vec!["as kubeadm: JSON".into()])]);
        assert_eq!(jobs(Some("join denied")), [("join".to_owned(), vec!["denied".into()])]);
    }

    #[test]
    fn tests_that_share_nothing_run_at_once() {
        let tests = Tests { ordinary: vec!["a".into()], ignored: vec![] };
        let threads = |name: &str| {
            let job =
                of_program(&Choice::default(), &end_to_end(name), tests.clone(), &Times::default(), false).remove(0);
            (job.kind, job.args)
        };
        assert_eq!(threads("firewall"), (Kind::Native, vec!["--test-threads=4".into()]));
        assert_eq!(threads("join"), (Kind::Native, vec!["--test-threads=1".into()]));
        // Guests of one program never run at once.
        let guests = |name: &&str| AT_ONCE.iter().any(|(other, _)| other == name);
        assert!(!GUESTS.iter().any(guests));
    }

    #[test]
    fn attacks_are_chosen_by_their_number() {
        for (test, attack) in [
            ("s01_a_lying_worker", true),
            ("tests::s20_host_port", true),
            ("s01 a lying worker", true),
            ("s1_short", false),
            ("as kubeadm: s01_", false),
            ("s01x", false),
            ("m::seven", false),
        ] {
            assert_eq!(is_attack(test), attack, "{test}");
        }
        let tests = Tests {
            ordinary: vec!["s01_a".into(), "denied".into()],
            ignored: vec!["s01_every_message".into(), "s9".into()],
        };
        let attacks = Choice { attacks: true, ..Choice::default() };
        let job = of_program(&attacks, &end_to_end("join"), tests.clone(), &Times::default(), true).remove(0);
        assert_eq!(job.args, ["--include-ignored", "--test-threads=1", "--exact", "s01_a", "s01_every_message"]);
        assert_eq!(job.kind, Kind::Native);
        let short = Tests { ignored: vec![], ..tests };
        let job = of_program(&attacks, &end_to_end("torn"), short.clone(), &Times::default(), true).remove(0);
        assert_eq!(
            (job.kind, &job.args[..]),
            (Kind::Guest, &["--test-threads=1", "--exact", "s01_a"].map(OsString::from)[..])
        );
        // What needs root is left out without it, as in `make test`.
        let lib = program(&message("path+file:///clone/firstboot#0.1.0", "lib", "firstboot")).unwrap();
        let by_root = Tests { ordinary: vec![], ignored: vec!["m::real_tests::s21_x".into()] };
        assert_eq!(names(&attacks, &lib, &by_root, false), [""; 0]);
        assert_eq!(names(&attacks, &lib, &by_root, true), ["firstboot lib"]);
        let none = Tests { ordinary: vec!["denied".into()], ignored: vec![] };
        assert_eq!(names(&attacks, &end_to_end("join"), &none, true), [""; 0]);
    }

    #[test]
    fn without_guests_there_is_none() {
        let tests = Tests { ordinary: vec!["a".into(), "b".into()], ignored: vec![] };
        let fast = Choice { fast: true, ..Choice::default() };
        assert_eq!(names(&fast, &end_to_end("torn"), &tests, true), [""; 0]);
        assert_eq!(names(&fast, &end_to_end("join"), &tests, true), ["join"]);
        assert_eq!(names(&Choice::default(), &end_to_end("happy"), &tests, true), ["happy a", "happy b"]);
        let may_boot = |name: &str| {
            let job =
                of_program(&Choice::default(), &end_to_end(name), tests.clone(), &Times::default(), true).remove(0);
            let value = job.variables.iter().find(|(name, _)| *name == MAY_BOOT).map(|(_, value)| value.clone());
            (job.kind, value)
        };
        assert_eq!(may_boot("torn"), (Kind::Guest, Some("yes".into())));
        assert_eq!(may_boot("join"), (Kind::Native, Some("no".into())));
        assert_eq!(may_boot("loader"), (Kind::Native, Some("yes".into())));
    }

    #[test]
    fn what_needs_root_runs_as_root() {
        let lib = program(&message("path+file:///clone/firstboot#0.1.0", "lib", "firstboot")).unwrap();
        let ignored = vec!["m::real_tests::networkd".into(), "m::tests::every_way".into()];
        let tests = Tests { ordinary: vec!["a".into()], ignored };
        assert_eq!(names(&Choice::default(), &lib, &tests, true), ["firstboot lib", "systemd-networkd"]);
        assert_eq!(names(&Choice::default(), &lib, &tests, false), ["firstboot lib"]);
        let as_root = of_program(&Choice::default(), &lib, tests.clone(), &Times::default(), true).remove(1);
        assert_eq!(as_root.args, ["--ignored", "--exact", "m::real_tests::networkd"]);
        // What takes long without being root is for `make test-long`.
        let long = Choice { long: true, ..Choice::default() };
        assert_eq!(names(&long, &lib, &tests, true), ["firstboot lib m::tests::every_way"]);
    }
}
