// SPDX-License-Identifier: Apache-2.0
//! Set-up: installs what this machine lacks for a job, or prints the command that does.
//!
//! Only Debian packages are installed; everything else (Go, zig, Debian lists, Go modules) goes to caches when it is
//! first needed. Nothing is configured and no service is started. Where Rust or a C compiler is missing, this program
//! cannot be compiled: `imagebuild/tools/bootstrap` reads the same list and comes first.

use crate::arch::Arch;
use crate::debian::{Debian, Package};
use crate::{cache, cmd, digest, go, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `imagebuild setup`: installs what this machine lacks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the machine is set up for
    #[arg(long = "for", value_enum, default_value = "demo")]
    goal: Goal,
}

/// What a machine is set up for. Each goal includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Goal {
    /// `make check`: the device binaries
    Check,
    /// `make image`: disk images
    Image,
    /// `make demo`: an image on emulated hardware
    Demo,
    /// `make test`
    Test,
    /// `make bench`
    Bench,
}

/// Everything that this repository runs, apart from Rust and Go: what is needed from which goal on.
const TOOLS: &str = include_str!("../tools/packages.txt");

/// A tool that has to be installed: a line of [`TOOLS`].
struct Tool {
    /// First goal that needs it.
    from: Goal,
    /// Build machine it is for (Rust's name of the architecture), or `*`.
    host: &'static str,
    /// A file that exists when it is installed: an absolute path, or a program's name to look up in PATH.
    file: &'static str,
    /// The Debian package that contains it.
    package: &'static str,
}

fn tools() -> Result<Vec<Tool>> {
    let lines = TOOLS.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let read = |line: &'static str| match line.split(' ').collect::<Vec<_>>()[..] {
        [from, host, file, package] => {
            Some(Tool { from: clap::ValueEnum::from_str(from, false).ok()?, host, file, package })
        }
        _ => None,
    };
    lines.map(|l| read(l).with_context(|| format!("read line {l:?} of imagebuild/tools/packages.txt"))).collect()
}

/// The compiler whose standard library can be built from source, where no other route to musl exists.
const RUST_PACKAGES: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];

/// Whether this user may install packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Is root.
    Install,
    /// Can become root without a password.
    Sudo,
    /// Neither.
    Ask,
}

/// Runs `imagebuild setup`.
pub fn main(args: &Args) -> Result<()> {
    install(args.goal)
}

/// Makes sure that everything `goal` needs is here. Quick and silent when it is.
///
/// # Errors
/// When something is missing that this user may not install: the text has the command to run.
pub fn install(goal: Goal) -> Result<()> {
    let missing = missing_packages(goal)?;
    if !missing.is_empty() {
        ensure!(
            cmd::found("apt-get"),
            "install {}: this machine has no apt-get, install them by hand",
            missing.join(" ")
        );
        apt(&missing)?;
        let still = missing_packages(goal)?;
        ensure!(still.is_empty(), "install {}: installed, but not found afterwards", still.join(" "));
    }
    go::command()?;
    if goal >= Goal::Demo {
        Arch::ALL.iter().try_for_each(|arch| qemu(*arch).map(drop))?;
    }
    if goal >= Goal::Test {
        registry()?;
        sshd()?;
        wpa_supplicant()?;
    }
    toolchain::zig().map(drop)
}

/// Directory to add to PATH for Debian's container registry, which tests pull from; `None` where it is installed.
///
/// Extracted from its package, not installed: the package would start a service.
pub fn registry() -> Result<Option<PathBuf>> {
    const PACKAGE: &str = "docker-registry";
    if cmd::found(PACKAGE) {
        return Ok(None);
    }
    let dir = cache::dir()?.join("tools").join(PACKAGE);
    cache::once(&dir, |scratch| {
        eprintln!("setup: fetching {PACKAGE}");
        if !lists_are_here() {
            ensure!(may() != May::Ask, "fetch {PACKAGE}: run this once, then try again: sudo apt-get update");
            run_apt(may(), &["update"])?;
        }
        cmd::run(Command::new("apt-get").args(["-q", "download", PACKAGE]).current_dir(scratch))
            .with_context(|| format!("fetch {PACKAGE}"))?;
        let deb =
            std::fs::read_dir(scratch)?.flatten().map(|f| f.path()).find(|p| p.extension() == Some("deb".as_ref()));
        let deb = deb.with_context(|| format!("find the package file of {PACKAGE}"))?;
        cmd::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(scratch)).with_context(|| format!("unpack {PACKAGE}"))
    })?;
    Ok(Some(dir.join("usr/bin")))
}

/// The images' sshd as a program for this machine, for tests.
pub fn sshd() -> Result<PathBuf> {
    debian_program("openssh-server", "sbin/sshd", "")
}

/// Debian's wpa_supplicant as a program for this machine, for tests.
pub fn wpa_supplicant() -> Result<PathBuf> {
    debian_program("wpasupplicant", "sbin/wpa_supplicant", "")
}

/// The images' keepalived as a program for this machine, for tests.
pub fn keepalived() -> Result<PathBuf> {
    debian_program("keepalived", "sbin/keepalived", "")
}

/// The emulator of machines of this architecture that the images' release has: it translates faster than that of the
/// release before, knows more boards, and is the same on every build machine.
pub fn qemu(arch: Arch) -> Result<PathBuf> {
    let (package, program) = match arch {
        Arch::Amd64 => ("qemu-system-x86", "bin/qemu-system-x86_64"),
        Arch::Arm64 => ("qemu-system-arm", "bin/qemu-system-aarch64"),
    };
    debian_program(package, program, "-L {usr}/share/qemu")
}

/// `/usr/PROGRAM` of a Debian package, with its first words: `{usr}` in them is where the packages' /usr is. It runs with
/// its own loader and libraries from Debian's packages, none of which is installed: they would start services, or need
/// a newer release than this machine's.
fn debian_program(package: &str, program: &str, words: &str) -> Result<PathBuf> {
    let arch = Arch::host()?;
    let debian = Debian::open(arch)?;
    let mut packages = debian.resolve(&[package], true)?;
    let parts = [package, "qemu-system-data"];
    packages.retain(|p| parts.contains(&&*p.name) || p.name.starts_with("lib") || p.name.starts_with("zlib"));
    let list: Vec<String> = packages.iter().map(Package::file_name).collect();
    let name = program.rsplit('/').next().unwrap_or(program);
    let dir = cache::dir()?.join("tools").join(format!("{name}-{}", digest::key(&[&list.join("\n"), words])));
    cache::once(&dir, |scratch| {
        eprintln!("setup: fetching {name}");
        for deb in debian.fetch(&packages)? {
            debian.unpack(&deb, scratch)?;
        }
        let usr = dir.join("usr");
        let (usr, libraries) = (usr.display(), usr.join("lib").join(arch.triplet()));
        let (libraries, linker) = (libraries.display(), arch.linker());
        let words = words.replace("{usr}", &usr.to_string());
        let text =
            format!("#!/bin/sh\nexec {libraries}/{linker} --library-path {libraries} {usr}/{program} {words} \"$@\"\n");
        let path = scratch.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("chmod {}", path.display()))
    })?;
    Ok(dir.join(name))
}

/// Packages that are missing for `goal`.
fn missing_packages(goal: Goal) -> Result<Vec<&'static str>> {
    let mut packages = missing(goal, std::env::consts::ARCH, &here)?;
    let probe = toolchain::probe()?;
    let mut targets = Arch::ALL.iter().flat_map(|arch| [arch.musl(), arch.uefi()]);
    if targets.any(|target| toolchain::choose(&probe, target).is_none()) {
        packages.extend(RUST_PACKAGES);
    }
    if !toolchain::zig_is_here()? && !python_makes_environments() {
        packages.push("python3-venv");
    }
    packages.sort_unstable();
    packages.dedup();
    Ok(packages)
}

fn missing(goal: Goal, host: &str, here: &dyn Fn(&str) -> bool) -> Result<Vec<&'static str>> {
    let mut tools = tools()?;
    tools.retain(|t| t.from <= goal && ["*", host].contains(&t.host) && !here(t.file));
    Ok(tools.into_iter().map(|t| t.package).collect())
}

/// Whether an absolute path exists, or a program is on PATH or in the directories of administrators' programs.
fn here(file: &str) -> bool {
    let admin = ["/usr/sbin", "/sbin"];
    match file.starts_with('/') {
        true => Path::new(file).exists(),
        false => cmd::found(file) || admin.iter().any(|d| Path::new(d).join(file).exists()),
    }
}

fn python_makes_environments() -> bool {
    cmd::run(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}

fn apt(packages: &[&str]) -> Result<()> {
    let may = may();
    if may == May::Ask {
        bail!("install missing packages: run this once, then try again:\n  {}", by_hand(packages, lists_are_here()));
    }
    eprintln!("setup: installing {}", packages.join(" "));
    let start = std::time::Instant::now();
    if lists_are_here() && run_apt(may, &install_words(packages)).is_ok() {
        eprintln!("setup: installed in {:.0} s", start.elapsed().as_secs_f64());
        return Ok(());
    }
    // The lists were never fetched, or are so old that their packages are gone. A source that fails may be a third
    // party's.
    eprintln!("setup: fetching package lists");
    if let Err(e) = run_apt(may, &["update"]) {
        eprintln!("setup: some package lists could not be fetched, continuing without them ({e:#})");
    }
    run_apt(may, &install_words(packages)).with_context(|| {
        let rust = packages.iter().any(|p| RUST_PACKAGES.contains(p));
        let hint = "; where rustc-web does not exist, use rustup component add rust-src";
        format!("install {}{}", packages.join(" "), if rust { hint } else { "" })
    })?;
    eprintln!("setup: installed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn may() -> May {
    match rustix::process::geteuid().is_root() {
        true => May::Install,
        false if cmd::found("sudo") && cmd::run(Command::new("sudo").args(["-n", "true"])).is_ok() => May::Sudo,
        false => May::Ask,
    }
}

fn run_apt(may: May, words: &[&str]) -> Result<()> {
    let mut command = match may {
        May::Sudo => Command::new("sudo"),
        _ => Command::new("env"),
    };
    if may == May::Sudo {
        command.args(["-n", "env"]);
    }
    // Another apt may be running: wait two minutes for it.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]).args(words);
    cmd::run(&mut command)
}

fn install_words<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    ["install", "--yes", "--no-install-recommends"].iter().chain(packages).copied().collect()
}

/// The one command for a user who may not install.
fn by_hand(packages: &[&str], lists: bool) -> String {
    let install = format!("apt-get {}", install_words(packages).join(" "));
    match lists {
        true => format!("sudo {install}"),
        false => format!("sudo sh -c 'apt-get update && {install}'"),
    }
}

/// Whether `apt-get update` ever ran here.
fn lists_are_here() -> bool {
    let Ok(lists) = std::fs::read_dir("/var/lib/apt/lists") else { return false };
    lists.flatten().any(|f| f.file_name().to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_missing_where_all_is_here() {
        assert_eq!(missing(Goal::Bench, "x86_64", &|_| true).unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn the_cross_compiler_fits_the_build_machine() {
        let cross = |host| -> Vec<&str> { missing(Goal::Image, host, &|f| !f.ends_with("-linux-gnu-gcc")).unwrap() };
        assert_eq!(cross("x86_64"), ["gcc-aarch64-linux-gnu"]);
        assert_eq!(cross("aarch64"), ["gcc-x86-64-linux-gnu"]);
    }

    #[test]
    fn a_check_needs_no_emulator() {
        assert_eq!(missing(Goal::Check, "x86_64", &|_| false).unwrap(), ["gcc", "libc6-dev", "python3"]);
        assert!(missing(Goal::Demo, "x86_64", &|_| false).unwrap().contains(&"qemu-utils"));
        assert!(!missing(Goal::Image, "x86_64", &|_| false).unwrap().contains(&"qemu-utils"));
    }

    #[test]
    fn the_one_command_to_run() {
        assert_eq!(
            by_hand(&["ovmf", "fakeroot"], true),
            "sudo apt-get install --yes --no-install-recommends ovmf fakeroot"
        );
        assert_eq!(
            by_hand(&["ovmf"], false),
            "sudo sh -c 'apt-get update && apt-get install --yes --no-install-recommends ovmf'"
        );
    }

    /// Runs the bootstrap script as a user without root on a machine that has only a few programs of Debian's base.
    fn bootstrap(goal: &str, programs: &[(&str, &str)]) -> (bool, String) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bash", "cut", "dirname", "head", "sed", "sort", "tr", "uname"] {
            let path = std::env::split_paths("/usr/bin:/bin").map(|d| d.join(name)).find(|p| p.exists());
            std::os::unix::fs::symlink(path.unwrap(), dir.path().join(name)).unwrap();
        }
        for (name, text) in [("id", "echo 1000"), ("apt-get", "")].iter().chain(programs) {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        let script = crate::repo::root().unwrap().join("imagebuild/tools/bootstrap");
        let out = Command::new(script).arg(goal).env("PATH", dir.path()).output().unwrap();
        assert!(out.stdout.is_empty());
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    }

    #[test]
    fn a_bare_machine_needs_one_command() {
        for (goal, name) in [(Goal::Check, "check"), (Goal::Image, "image"), (Goal::Test, "test")] {
            let administrators = |f: &str| ["/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(f).exists());
            let here = |f: &str| if f.starts_with('/') { Path::new(f).exists() } else { administrators(f) };
            let here = |f: &str| here(f) || f == "apt-get";
            let mut packages = missing(goal, std::env::consts::ARCH, &here).unwrap();
            packages.extend(RUST_PACKAGES);
            packages.push("python3-venv");
            packages.sort_unstable();
            packages.dedup();
            let text = "setup: install missing packages: run this once, then try again:";
            let expected = format!("{text}\n  {}\n", by_hand(&packages, false));
            assert_eq!(bootstrap(name, &[]), (false, expected));
        }
    }

    #[test]
    fn a_machine_with_rust_and_a_c_compiler_needs_no_bootstrap() {
        let (new, old) = ("echo rust 1.91.0", "echo rust 1.85.1");
        let programs = [("cc", ""), ("cargo", new), ("rustc", new)];
        assert_eq!(bootstrap("image", &programs), (true, String::new()));
        let rustup = bootstrap("image", &[("cc", ""), ("cargo", old), ("rustc", old), ("rustup", "")]).1;
        assert!(rustup.starts_with("setup: use Rust 1.85.1: 1.91 or newer is needed, run: rustup "), "{rustup}");
        let debian = bootstrap("image", &[("cc", ""), ("cargo", old), ("rustc", old)]).1;
        assert!(debian.contains(" cargo-web ") && debian.contains(" fakeroot "), "{debian}");
    }

    /// What cargo has built for one clone counts in another one where both have the same file, and nowhere else.
    #[test]
    fn clones_share_what_is_the_same() {
        let script = crate::repo::root().unwrap().join("imagebuild/tools/share-build-directory");
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let hour = std::time::Duration::from_secs(3600);
        let old = std::time::SystemTime::now() - 24 * hour;
        let put = |path: &str, text: &str, age: u32| {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
            std::fs::File::options().append(true).open(at(path)).unwrap().set_modified(old + age * hour).unwrap();
        };
        let modified = |path: &str| at(path).metadata().unwrap().modified().unwrap();
        for (clone, age) in [("one", 0), ("two", 1)] {
            put(&format!("{clone}/Cargo.lock"), "", age);
            put(&format!("{clone}/a/Cargo.toml"), "[package]\nname = \"a\"\n", age);
            put(&format!("{clone}/a/src/with blank.rs"), "same", age);
            put(&format!("{clone}/a/src/lib.rs"), clone, age);
            assert!(Command::new("git").args(["init", "--quiet"]).arg(at(clone)).status().unwrap().success());
        }
        put("two/a/src/new.rs", "", 1);
        put("target/debug/.fingerprint/a-1/lib", "", 0);
        put("target/debug/.fingerprint/other-1/lib", "", 0);
        let share = |clone: &str| {
            assert!(Command::new(&script).arg(at("target")).current_dir(at(clone)).status().unwrap().success());
        };
        // Of the clone that built there first nothing is known: what it built is forgotten, and no other crate.
        share("one");
        assert!(!at("target/debug/.fingerprint/a-1").exists() && at("target/debug/.fingerprint/other-1").exists());
        put("target/debug/.fingerprint/a-1/lib", "", 0);
        assert_eq!(modified("one/a/src/lib.rs"), old);
        share("two");
        assert!(at("target/debug/.fingerprint/a-1").exists());
        assert_eq!(modified("two/a/src/with blank.rs"), old);
        for differs in ["two/a/src/lib.rs", "two/a/src/new.rs"] {
            assert!(modified(differs) > old + 23 * hour, "{differs}");
        }
        // Back: it has been there before, but not last.
        share("one");
        assert_eq!(modified("one/a/src/with blank.rs"), old);
        assert!(modified("one/a/src/lib.rs") > old + 23 * hour);
        // Again, and nothing changes.
        put("one/a/src/lib.rs", "edited", 2);
        share("one");
        assert_eq!(modified("one/a/src/lib.rs"), old + 2 * hour);
        std::fs::remove_dir_all(at("one")).unwrap();
        share("two");
        assert!(!at("target/debug/.fingerprint/a-1").exists());
        // The other clone is gone, and what it recorded is not: a new one at the same place.
        let record = |clone: &str| {
            let mut command = Command::new(&script);
            command.arg("--record").arg(at("target")).current_dir(at(clone));
            assert!(command.status().unwrap().success());
        };
        for built_since in [false, true] {
            put("target/debug/.fingerprint/a-1/invoked.timestamp", "", 0);
            put("two/a/src/lib.rs", "two", 3);
            record("two");
            std::fs::remove_dir_all(at("two")).unwrap();
            put("two/a/Cargo.toml", "[package]\nname = \"a\"\n", 20);
            put("two/a/src/lib.rs", "two", 20);
            put("two/a/src/new.rs", "changed", 20);
            if built_since {
                put("target/debug/.fingerprint/a-1/invoked.timestamp", "", 30);
            }
            assert!(Command::new("git").args(["init", "--quiet"]).arg(at("two")).status().unwrap().success());
            share("two");
            assert_eq!(at("target/debug/.fingerprint/a-1").exists(), !built_since);
            let lib = if built_since { 20 } else { 3 };
            assert_eq!(modified("two/a/src/lib.rs"), old + lib * hour);
            assert_eq!(modified("two/a/src/new.rs") > old + 23 * hour, !built_since);
        }
    }

    #[test]
    fn files_are_found_by_path_and_by_name() {
        assert!(here("/bin/sh") && here("sh"));
        assert!(!here("/bin/no-such-program") && !here("no-such-program"));
    }
}
