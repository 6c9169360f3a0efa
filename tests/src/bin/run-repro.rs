// SPDX-License-Identifier: Apache-2.0
//! `make repro`: builds images twice from the same commit and packages, and compares every byte; `out/repro/report.json`.
//!
//! Usage: run-repro [--keep] [TARGET…]. The first build is the ordinary one, with its cache. The second one has nothing of
//! it but downloads: another clone in another directory, an empty cache, another home, time zone, locale and umask, and
//! another user where root starts it. Fails when a file differs. `--keep` leaves the second build's directory for a look.

use anyhow::{Context, Result, bail, ensure};
use imagebuild::build::BUILD_TIME_ENV;
use imagebuild::sign::make_key;
use imagebuild::sums::SUMS;
use imagebuild::target::Target;
use imagebuild::{cache, cmd, digest, disk, repo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The user of the second build, where root builds: `daemon`, which every Debian knows. OpenSSH signs for no stranger. Not in
/// a namespace of users: fakeroot takes EPERM of chown(2) for what it is, but not EINVAL, which is what comes there.
const OTHER_USER: &str = "1";
/// Where that user sees what is in the home of root, which others cannot enter: a capability to do so helps open(2), and
/// not access(2), by which compilers look for their parts.
const BELOW: &str = "/run/firstboot-repro";
/// Shows directories there, in pairs up to `--`, and starts the rest.
const SHOW: &str = "set -e; while [ \"$1\" != -- ]; do mkdir -p \"$2\"; mount --bind \"$1\" \"$2\"; shift 2; done; shift; \
                    exec \"$@\"";
/// What else differs in the second build.
const OTHER: [(&str, &str); 4] =
    [("TZ", "Pacific/Apia"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8"), ("USER", "other")];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("repro: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let (keep, targets) = arguments(std::env::args().skip(1))?;
    let root = repo::root()?;
    let git = |words: &[&str]| -> Result<String> {
        let output = cmd::output(Command::new("git").arg("-C").arg(&root).args(words))?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"])?;
    ensure!(changed.is_empty(), "build a commit twice: this clone has changes; commit or stash them:\n{changed}");
    let (commit, time) = (git(&["rev-parse", "HEAD"])?, git(&["log", "-1", "--format=%ct"])?);
    let out = root.join("out/repro");
    let second = Second::new(&root, &commit)?;
    let mut reports = Vec::new();
    for target in targets {
        let started = Instant::now();
        let (one, other) = (out.join("first").join(&target), out.join("second").join(&target));
        for directory in [&one, &other] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        println!("{target}: first build, at {time}");
        let program = std::env::current_exe().context("find this program")?.with_file_name("imagebuild");
        let mut build = Command::new(program);
        build.args(["build", "--target", &target, "--out"]).arg(&one).env(BUILD_TIME_ENV, &time);
        cmd::run(build.arg("--sign-key").arg(&second.key))?;
        let user = if second.other_user { "another" } else { "the same" };
        println!("{target}: second build, in {}, as {user} user", second.clone.display());
        let second_started = Instant::now();
        second.build(&target, &time, &one.join(format!("{target}.packages.json")), &other)?;
        let from_downloads = second_started.elapsed().as_secs();
        let files = compare(&one, &other)?;
        // The first target's second build has an empty cache; the others have what is theirs in common of it.
        reports.push(json!({
            "target": target, "seconds": started.elapsed().as_secs(), "seconds_from_downloads": from_downloads,
            "files": files,
        }));
        let report = json!({ "commit": commit, "time": time, "other_user": second.other_user, "targets": reports });
        let path = out.join("report.json");
        let text = serde_json::to_string_pretty(&report).context("write the report")? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        print!("{}", shown(&target, &files));
    }
    if !keep {
        second.remove()?;
    }
    println!("report: {}", out.join("report.json").display());
    Ok(reports.iter().all(|report| same(&report["files"])))
}

/// Whether to keep the second build, and the targets: all, where none is named.
fn arguments(given: impl Iterator<Item = String>) -> Result<(bool, Vec<String>)> {
    let (options, mut targets): (Vec<_>, Vec<_>) = given.partition(|word| word.starts_with('-'));
    ensure!(options.iter().all(|word| word == "--keep"), "read {}: the one option is --keep", options.join(" "));
    let known = Target::names()?;
    for target in &targets {
        ensure!(known.contains(target), "read target {target}: it is not one of {}", known.join(", "));
    }
    if targets.is_empty() {
        targets = known;
    }
    Ok((!options.is_empty(), targets))
}

/// The second build's surroundings.
struct Second {
    directory: PathBuf,
    clone: PathBuf,
    key: PathBuf,
    /// Whether it is another user's.
    other_user: bool,
}

impl Second {
    fn new(root: &Path, commit: &str) -> Result<Second> {
        let directory = cache::dir()?.join("repro");
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        let clone = directory.join("a/clone/elsewhere");
        let key = directory.join("key");
        for name in ["home", "cache/firstboot"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        cmd::run(Command::new("git").args(["clone", "--quiet", "--no-checkout"]).arg(root).arg(&clone))?;
        cmd::run(Command::new("git").arg("-C").arg(&clone).args(["checkout", "--quiet", "--detach", commit]))?;
        make_key(&key)?;
        let other_user = rustix::process::geteuid().is_root();
        if other_user {
            // git and ssh-keygen trust only what is their user's.
            cmd::run(Command::new("chown").args(["-R", &format!("{OTHER_USER}:{OTHER_USER}")]).arg(&directory))?;
        }
        Ok(Second { directory, clone, key, other_user })
    }

    /// Builds an image as `make image` does.
    fn build(&self, target: &str, time: &str, packages: &Path, out: &Path) -> Result<()> {
        self.share_downloads()?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = PathBuf::from(variable("HOME").context("read HOME")?);
        let or_home = |name: &str, below: &str| variable(name).map_or_else(|| home.join(below), PathBuf::from);
        // Programs and downloads that every build verifies are shared; what is built of them is not.
        let shared = [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"), ("GOMODCACHE", "go/pkg/mod")]
            .map(|(name, below)| (name, or_home(name, below)));
        let mut places = vec![self.directory.clone(), packages.parent().context("find the packages")?.to_owned()];
        places.extend(shared.iter().map(|(_, path)| path.clone()).filter(|path| path.is_dir()));
        let seen = |path: &Path| {
            let below = |(number, place): (usize, &PathBuf)| {
                Some(Path::new(BELOW).join(number.to_string()).join(path.strip_prefix(place).ok()?))
            };
            let found = places.iter().enumerate().find_map(below);
            found.filter(|_| self.other_user).unwrap_or_else(|| path.to_owned())
        };
        let script = "cd \"$1\"; shift; umask 077; exec make --no-print-directory image \"$@\"";
        let mut build = self.as_other_user(&places, &seen);
        build.args(["bash", "-c", script, "make"]).arg(seen(&self.clone)).arg(format!("TARGET={target}"));
        build.arg(format!("SIGN_KEY={}", seen(&self.key).display()));
        build.arg(format!("PACKAGES={}", seen(packages).display()));
        build.envs(OTHER).env(BUILD_TIME_ENV, time);
        build.envs(shared.iter().map(|(name, path)| (name, seen(path))));
        build
            .env("HOME", seen(&self.directory.join("home")))
            .env("XDG_CACHE_HOME", seen(&self.directory.join("cache")));
        let path = variable("PATH").context("read PATH")?;
        let path = std::env::join_paths(std::env::split_paths(&path).map(|path| seen(&path))).context("set PATH")?;
        build.env("PATH", path);
        for own in ["CARGO_TARGET_DIR", "GOCACHE", "GOPATH"] {
            build.env_remove(own);
        }
        cmd::run(&mut build)?;
        for name in sums(&self.clone.join("out/images"))?.into_keys().chain([SUMS.to_owned()]) {
            disk::copy_sparse(&self.clone.join("out/images").join(&name), &out.join(&name))?;
        }
        // The next target begins its own sums.
        let made = self.clone.join("out/images");
        fs::remove_dir_all(&made).with_context(|| format!("remove {}", made.display()))
    }

    /// What starts a command as the other user, who sees these places.
    fn as_other_user(&self, places: &[PathBuf], seen: &dyn Fn(&Path) -> PathBuf) -> Command {
        if !self.other_user {
            return Command::new("env");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", SHOW, "bash"]);
        for place in places {
            command.arg(place).arg(seen(place));
        }
        command.args(["--", "setpriv", "--reuid", OTHER_USER, "--regid", OTHER_USER, "--clear-groups"]);
        // cargo and Go lock what they only read.
        command.args(["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]);
        command.arg("--bounding-set=-all,+dac_override");
        command
    }

    /// Links the Debian packages of the ordinary cache into the other one: each use compares their digests.
    fn share_downloads(&self) -> Result<()> {
        let (from, to) = (cache::dir()?.join("debs/archive"), self.directory.join("cache/firstboot/debs/archive"));
        fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
            let name = entry.with_context(|| format!("list {}", from.display()))?.file_name();
            if !to.join(&name).exists() {
                fs::hard_link(from.join(&name), to.join(&name))
                    .with_context(|| format!("link {}", to.join(&name).display()))?;
            }
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        // Empty: what they showed was shown to the other user alone.
        for place in fs::read_dir(BELOW).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(place.path());
        }
        let _ = fs::remove_dir(BELOW);
        // Go makes the directories of modules read-only.
        cmd::run(Command::new("chmod").args(["-R", "u+w"]).arg(&self.directory))?;
        fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

/// The digests of a directory, by file.
fn sums(directory: &Path) -> Result<BTreeMap<String, String>> {
    let path = directory.join(SUMS);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(digest::lines(&text).map(|(sum, name)| (name.to_owned(), sum.to_owned())).collect())
}

/// Each file of the two builds: its digests, and where it differs.
fn compare(one: &Path, other: &Path) -> Result<Value> {
    let (first, second) = (sums(one)?, sums(other)?);
    ensure!(!first.is_empty(), "read {}: it names no file", one.join(SUMS).display());
    if first.keys().ne(second.keys()) {
        let names = |sums: &BTreeMap<String, String>| sums.keys().cloned().collect::<Vec<_>>().join(", ");
        bail!("compare two builds: one has {}, the other {}", names(&first), names(&second));
    }
    let mut files = serde_json::Map::new();
    for (name, sum) in &first {
        let mut file = json!({ "first": sum, "second": second[name], "same": *sum == second[name] });
        if *sum != second[name] {
            file["differs_at"] = json!(differs_at(&one.join(name), &other.join(name))?);
        }
        files.insert(name.clone(), file);
    }
    Ok(Value::Object(files))
}

/// The first byte in which two files differ; for one that is longer, the end of the other.
fn differs_at(one: &Path, other: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| {
        File::open(path)
            .map(|file| BufReader::with_capacity(1 << 20, file))
            .with_context(|| format!("open {}", path.display()))
    };
    let (mut one, mut other) = (open(one)?.bytes(), open(other)?.bytes());
    for at in 0.. {
        match (
            one.next().transpose().context("read the first build")?,
            other.next().transpose().context("read the second build")?,
        ) {
            (None, None) => return Ok(None),
            (first, second) if first != second => return Ok(Some(at)),
            _ => {}
        }
    }
    Ok(None)
}

fn same(files: &Value) -> bool {
    files.as_object().is_some_and(|files| files.values().all(|file| file["same"] == true))
}

fn shown(target: &str, files: &Value) -> String {
    let mut text = String::new();
    for (name, file) in files.as_object().into_iter().flatten() {
        text += &match file["same"] == true {
            true => format!("  same     {} {name}\n", file["first"].as_str().unwrap_or_default()),
            false => format!("  differs  at byte {}: {name}\n", file["differs_at"]),
        };
    }
    format!("{target}:\n{text}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_differs_is_found_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let build = |name: &str, content: &[u8]| {
            let directory = dir.path().join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("a.img"), content).unwrap();
            let sum = digest::bytes(content);
            fs::write(directory.join(SUMS), format!("{sum}  a.img\n")).unwrap();
            directory
        };
        let (one, again) = (build("one", b"0123456789"), build("again", b"0123456789"));
        assert!(same(&compare(&one, &again).unwrap()));
        let files = compare(&one, &build("other", b"01234_6789")).unwrap();
        assert!(!same(&files));
        assert_eq!(files["a.img"]["differs_at"], 5);
        assert_eq!(shown("t", &files), "t:\n  differs  at byte 5: a.img\n");
        assert_eq!(compare(&one, &build("short", b"0123")).unwrap()["a.img"]["differs_at"], 4);
        let none = build("none", b"");
        fs::write(none.join(SUMS), "").unwrap();
        let error = compare(&one, &none).unwrap_err().to_string();
        assert_eq!(error, "compare two builds: one has a.img, the other ");
        assert!(compare(&none, &none).is_err());
    }

    #[test]
    fn all_targets_are_built_where_none_is_named() {
        let read = |words: &[&str]| arguments(words.iter().map(|word| (*word).to_owned())).map_err(|e| e.to_string());
        assert_eq!(read(&[]).unwrap(), (false, Target::names().unwrap()));
        assert_eq!(read(&["raspberrypi", "--keep"]).unwrap(), (true, vec!["raspberrypi".to_owned()]));
        assert!(read(&["none"]).unwrap_err().starts_with("read target none: it is not one of generic-amd64, "));
        assert_eq!(read(&["--all"]).unwrap_err(), "read --all: the one option is --keep");
    }
}
