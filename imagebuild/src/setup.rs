// SPDX-License-Identifier: Apache-2.0
//! Set-up: installs what this machine lacks for a job, or prints the command that does.
//!
//! Only Debian packages are installed; everything else (zig, Debian lists, Go modules) goes to caches when it is
//! first needed. Nothing is configured and no service is started.

use crate::arch::Arch;
use crate::debian::{Debian, Package};
use crate::{cache, cmd, digest, repo, toolchain};
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

/// A tool that has to be installed.
struct Tool {
    /// A file that exists when it is installed: an absolute path, or a program's name to look up in PATH.
    file: &'static str,
    /// The Debian package that contains it.
    package: &'static str,
    /// First goal that needs it.
    from: Goal,
    /// Build machine it is for (Rust's name of the architecture); empty: every one.
    host: &'static str,
}

const fn tool(file: &'static str, package: &'static str, from: Goal) -> Tool {
    Tool { file, package, from, host: "" }
}

/// Everything that this repository runs, apart from Rust and Go.
const TOOLS: &[Tool] = &[
    tool("cc", "gcc", Goal::Check),
    tool("/usr/include/stdio.h", "libc6-dev", Goal::Check),
    tool("python3", "python3", Goal::Check),
    tool("dpkg-deb", "dpkg", Goal::Image),
    tool("tar", "tar", Goal::Image),
    tool("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", Goal::Image),
    Tool { file: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu", from: Goal::Image, host: "x86_64" },
    Tool { file: "x86_64-linux-gnu-gcc", package: "gcc-x86-64-linux-gnu", from: Goal::Image, host: "aarch64" },
    Tool {
        file: "/usr/aarch64-linux-gnu/include/stdio.h",
        package: "libc6-dev-arm64-cross",
        from: Goal::Image,
        host: "x86_64",
    },
    Tool {
        file: "/usr/x86_64-linux-gnu/include/stdio.h",
        package: "libc6-dev-amd64-cross",
        from: Goal::Image,
        host: "aarch64",
    },
    tool("depmod", "kmod", Goal::Image),
    tool("xz", "xz-utils", Goal::Image),
    // runc's binding to libseccomp is found with it.
    tool("pkg-config", "pkg-config", Goal::Image),
    tool("mke2fs", "e2fsprogs", Goal::Image),
    tool("fakeroot", "fakeroot", Goal::Image),
    tool("qemu-system-x86_64", "qemu-system-x86", Goal::Demo),
    tool("qemu-system-aarch64", "qemu-system-arm", Goal::Demo),
    tool("qemu-img", "qemu-utils", Goal::Demo),
    tool("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf", Goal::Demo),
    tool("/usr/share/AAVMF/AAVMF_CODE.fd", "qemu-efi-aarch64", Goal::Demo),
    // Networks that tests make in namespaces of their own. These packages start no service.
    tool("ip", "iproute2", Goal::Test),
    tool("nft", "nftables", Goal::Test),
    tool("iptables-nft", "iptables", Goal::Test),
    tool("dnsmasq", "dnsmasq-base", Goal::Test),
    tool("tinyproxy", "tinyproxy-bin", Goal::Test),
    tool("nmap", "nmap", Goal::Test),
    tool("ssh", "openssh-client", Goal::Test),
    tool("openssl", "openssl", Goal::Test),
    tool("systemd-analyze", "systemd", Goal::Test),
    tool("/usr/lib/systemd/systemd-networkd", "systemd", Goal::Test),
    tool("python3", "python3", Goal::Test),
    // libFuzzer is C++.
    tool("g++", "g++", Goal::Test),
];

/// The compiler whose standard library can be built from source, where no other route to musl exists.
const RUST_PACKAGES: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];
/// Oldest Go that builds the components, as their go.mod files say.
const MIN_GO: (u32, u32) = (1, 26);

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
    if goal > Goal::Check {
        go_is_new_enough()?;
    }
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
    if goal >= Goal::Test {
        registry()?;
        sshd()?;
    }
    if routes()?.iter().any(|r| !matches!(r, toolchain::Route::Cross(_))) {
        toolchain::zig()?;
    }
    Ok(())
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

/// The images' sshd as a program for this machine, for tests. It runs with its own loader and libraries from Debian's
/// packages, none of which is installed.
pub fn sshd() -> Result<PathBuf> {
    let arch = Arch::host()?;
    let debian = Debian::open(arch)?;
    let mut packages = debian.resolve(&["openssh-server"], true)?;
    packages.retain(|p| p.name == "openssh-server" || p.name.starts_with("lib") || p.name.starts_with("zlib"));
    let list: Vec<String> = packages.iter().map(Package::file_name).collect();
    let dir = cache::dir()?.join("tools").join(format!("sshd-{}", digest::key(&[&list.join("\n")])));
    cache::once(&dir, |scratch| {
        eprintln!("setup: fetching sshd");
        for deb in debian.fetch(&packages)? {
            debian.unpack(&deb, scratch)?;
        }
        let usr = dir.join("usr");
        let (usr, libraries) = (usr.display(), usr.join("lib").join(arch.triplet()));
        let loader = match arch {
            Arch::Amd64 => "ld-linux-x86-64.so.2",
            Arch::Arm64 => "ld-linux-aarch64.so.1",
        };
        let libraries = libraries.display();
        let text = format!("#!/bin/sh\nexec {libraries}/{loader} --library-path {libraries} {usr}/sbin/sshd \"$@\"\n");
        let path = scratch.join("sshd");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("chmod {}", path.display()))
    })?;
    Ok(dir.join("sshd"))
}

/// Packages that are missing for `goal`.
fn missing_packages(goal: Goal) -> Result<Vec<&'static str>> {
    let mut packages = missing(goal, std::env::consts::ARCH, &here);
    let probe = toolchain::probe()?;
    if Arch::ALL.iter().any(|arch| toolchain::choose(&probe, arch.musl()).is_none()) {
        packages.extend(RUST_PACKAGES);
    }
    if !toolchain::zig_is_here()? && !python_makes_environments() {
        packages.push("python3-venv");
    }
    packages.sort_unstable();
    packages.dedup();
    Ok(packages)
}

fn missing(goal: Goal, host: &str, here: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let due = TOOLS.iter().filter(|t| t.from <= goal && (t.host.is_empty() || t.host == host));
    due.filter(|t| !here(t.file)).map(|t| t.package).collect()
}

/// Whether an absolute path exists, or a program is on PATH or in the directories of administrators' programs.
fn here(file: &str) -> bool {
    let admin = ["/usr/sbin", "/sbin"];
    match file.starts_with('/') {
        true => Path::new(file).exists(),
        false => cmd::found(file) || admin.iter().any(|d| Path::new(d).join(file).exists()),
    }
}

fn routes() -> Result<Vec<toolchain::Route>> {
    Arch::ALL.iter().map(|arch| toolchain::route(arch.musl())).collect()
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
        let hint =
            if rust { "; where rustc-web does not exist, use rustup target add for both musl targets" } else { "" };
        format!("install {}{hint}", packages.join(" "))
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

fn go_is_new_enough() -> Result<()> {
    let remedy = format!("install Go {}.{} or newer and put it on PATH", MIN_GO.0, MIN_GO.1);
    ensure!(cmd::found("go"), "find Go: {remedy}");
    // Next to a go.mod: a Go that is too old but may fetch a newer one does so here, and prints that version.
    let wrapper = repo::root()?.join("imagebuild/components/kubernetes-1.36");
    let out = cmd::output(Command::new("go").arg("version").current_dir(wrapper)).with_context(|| remedy.clone())?;
    let text = String::from_utf8_lossy(&out);
    match parse_go(&text) {
        Some(version) if version >= MIN_GO => Ok(()),
        _ => bail!("use `{}`: too old; {remedy}", text.trim()),
    }
}

/// `go version go1.26.8 linux/amd64` → (1, 26).
fn parse_go(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_missing_where_all_is_here() {
        assert_eq!(missing(Goal::Bench, "x86_64", &|_| true), Vec::<&str>::new());
    }

    #[test]
    fn the_cross_compiler_fits_the_build_machine() {
        let cross = |host| -> Vec<&str> {
            missing(Goal::Image, host, &|f| !f.ends_with("-linux-gnu-gcc")).into_iter().collect()
        };
        assert_eq!(cross("x86_64"), ["gcc-aarch64-linux-gnu"]);
        assert_eq!(cross("aarch64"), ["gcc-x86-64-linux-gnu"]);
    }

    #[test]
    fn a_check_needs_no_emulator() {
        assert_eq!(missing(Goal::Check, "x86_64", &|_| false), ["gcc", "libc6-dev", "python3"]);
        assert!(missing(Goal::Demo, "x86_64", &|_| false).contains(&"qemu-system-x86"));
        assert!(!missing(Goal::Image, "x86_64", &|_| false).contains(&"qemu-system-x86"));
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

    #[test]
    fn go_versions_are_read() {
        assert_eq!(parse_go("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(parse_go("go version go1.19 linux/amd64"), Some((1, 19)));
        assert_eq!(parse_go("go version devel"), None);
    }

    #[test]
    fn files_are_found_by_path_and_by_name() {
        assert!(here("/bin/sh") && here("sh"));
        assert!(!here("/bin/no-such-program") && !here("no-such-program"));
    }
}
