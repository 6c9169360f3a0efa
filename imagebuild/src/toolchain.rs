// SPDX-License-Identifier: Apache-2.0
//! How static musl binaries and UEFI programs are made on this machine: probes the tools, chooses a route and reports it.
//!
//! Two routes, in this order: the target that rustup installed; the standard library built from its sources, which
//! needs nothing but Debian packages. Both let zig compile C and link, from a pinned wheel kept in the cache.

use crate::{cache, cmd, digest, repo};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest compiler that builds this workspace, as `rust-version` in Cargo.toml says.
pub const MIN_RUST: (u32, u32) = (1, 91);
/// What pip installs, every wheel with its digest.
pub(crate) const WHEELS: &str = include_str!("../tools/requirements.txt");

/// A compiler that carries the sources of its standard library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rust {
    /// The compiler; `rustc` for the active one.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// First line of `rustc --version`.
    pub version: String,
}

/// What was found on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// Targets whose standard library the active compiler has.
    pub targets: Vec<String>,
    /// Version of the active compiler, empty when there is none.
    pub version: String,
    /// A compiler with the sources of its standard library.
    pub sources: Option<Rust>,
}

/// How a program for a target is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The active compiler has the target; zig links. Holds the compiler's version.
    Target(String),
    /// The standard library is built too, by this compiler; zig links.
    BuildStd(Rust),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Target(version) => write!(f, "{version} with its installed target, linked by zig"),
            Route::BuildStd(rust) => {
                write!(f, "{} with the standard library built from source, linked by zig", rust.version)
            }
        }
    }
}

/// The route for `triple`, or `None` when this machine has none.
pub fn choose(probe: &Probe, triple: &str) -> Option<Route> {
    if probe.targets.iter().any(|t| t == triple) {
        return Some(Route::Target(probe.version.clone()));
    }
    probe.sources.clone().map(Route::BuildStd)
}

/// Probes this machine.
pub fn probe() -> Result<Probe> {
    let root = repo::root()?;
    let mut probe = Probe::default();
    if let Some((version, sysroot)) = compiler(Path::new("rustc"), &root) {
        probe.targets = installed_targets(&sysroot);
        if has_sources(&sysroot) {
            probe.sources = Some(Rust { rustc: "rustc".into(), cargo: "cargo".into(), version: version.clone() });
        }
        probe.version = version;
    }
    if probe.sources.is_none() {
        // Debian's packages may exist next to a rustup installation that shadows them in PATH.
        let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
        if let Some((version, sysroot)) = compiler(&rustc, &root).filter(|(_, s)| has_sources(s) && cargo.is_file()) {
            let _ = sysroot;
            probe.sources = Some(Rust { rustc, cargo, version });
        }
    }
    Ok(probe)
}

/// The route for `triple` on this machine.
pub fn route(triple: &str) -> Result<Route> {
    match choose(&probe()?, triple) {
        Some(route) => Ok(route),
        None => bail!(
            "find a tool chain for {triple}: run `rustup target add {triple}`, or `imagebuild setup --for check`, which \
             installs one"
        ),
    }
}

/// Version line and sysroot, when the compiler runs and is new enough.
fn compiler(rustc: &Path, cwd: &Path) -> Option<(String, PathBuf)> {
    // In the clone's directory, so that a rust-toolchain.toml there counts; without the environment of an outer cargo.
    let ask = |what: &[&str]| {
        let out = cmd::output(clean(&mut Command::new(rustc)).args(what).current_dir(cwd)).ok()?;
        Some(String::from_utf8(out).ok()?.trim().to_owned())
    };
    let version = ask(&["--version"])?;
    (parse_version(&version)? >= MIN_RUST).then_some(())?;
    Some((version, ask(&["--print", "sysroot"])?.into()))
}

/// `rustc 1.96.0 (…)` → (1, 96).
pub fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn installed_targets(sysroot: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(sysroot.join("lib/rustlib")) else { return Vec::new() };
    let with_std = entries.flatten().filter(|e| {
        let libs = std::fs::read_dir(e.path().join("lib"));
        // Not libstd: a target may have none.
        libs.is_ok_and(|l| l.flatten().any(|f| f.file_name().to_string_lossy().starts_with("libcore-")))
    });
    with_std.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
}

/// Removes what an outer cargo, rustup or make put into the environment.
pub fn clean(command: &mut Command) -> &mut Command {
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let ours = ["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&name.as_ref())
            || name.starts_with("CARGO_REGISTR")
            || name.starts_with("CARGO_HTTP_")
            || name.starts_with("CARGO_NET_");
        let outer =
            name.starts_with("CARGO") || ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"].contains(&&*name);
        if outer && !ours {
            command.env_remove(&key);
        }
    }
    command
}

/// No unwinding tables, for rustc and for the C compiler.
const TABLES_OFF: (&str, &str) = ("-Cforce-unwind-tables=no", "-fno-asynchronous-unwind-tables -fno-unwind-tables");

/// What keeps the home of the user who builds, and the name of a mirror of crates.io, out of places in the sources: a panic
/// names them, and the same sources are to give the same bytes for every user.
fn without_home() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.map(|home| remaps(&home)).unwrap_or_default()
}

/// The compiler's flags for this home of cargo. Flags are divided at blanks, so a path with one stays. The last that fits
/// decides.
fn remaps(home: &Path) -> String {
    let sources = std::fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
    let mut sources: Vec<PathBuf> = sources.map(|entry| entry.path()).collect();
    sources.sort();
    let crates = sources.iter().map(|source| (source.as_path(), "cargo/registry/src"));
    let all = std::iter::once((home, "cargo")).chain(crates).map(|(from, to)| (from.display().to_string(), to));
    let all = all.filter(|(from, _)| !from.contains(char::is_whitespace));
    all.map(|(from, to)| format!(" --remap-path-prefix={from}={to}")).collect()
}

/// A command that builds for `triple` by `route`; the caller adds package, profile and target directory.
pub fn command(route: &Route, triple: &str) -> Result<Command> {
    let tools = zig()?;
    let (mut command, zig) = (Command::new(tools.join("bin/cargo-zigbuild")), tools.join("ziglang/zig"));
    let cache = cache::dir()?;
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    let same = format!("{}{}", TABLES_OFF.0, without_home());
    clean(&mut command)
        // A panic ends the program without unwinding: tables for that were a seventh of it.
        .env(&flags, &same)
        .env(format!("CFLAGS_{}", triple.replace('-', "_")), TABLES_OFF.1)
        .env("CARGO_ZIGBUILD_ZIG_PATH", zig)
        .env("CARGO_ZIGBUILD_CACHE_DIR", cache.join("zigbuild"))
        .env("ZIG_GLOBAL_CACHE_DIR", cache.join("zig"))
        .args(["zigbuild", "--target", triple]);
    if let Route::BuildStd(rust) = route {
        command
            // -Zbuild-std is what a released compiler refuses otherwise; the sources are its own.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &rust.rustc)
            .env("CARGO", &rust.cargo)
            // Debian ships no musl start files with the compiler; zig brings its own.
            .env(flags, format!("{same} -Clink-self-contained=no"))
            .arg("-Zbuild-std=std,panic_abort")
            // Without backtraces: a stripped program has no names to show in them. The place of a panic stays.
            .arg("-Zbuild-std-features=default,optimize_for_size");
    }
    Ok(command)
}

/// A command that builds a UEFI program for `triple` by `route`; the caller adds package, profile and target directory.
///
/// # Errors
/// When zig, whose linker it uses by any route, cannot be had.
pub fn uefi_command(route: &Route, triple: &str) -> Result<Command> {
    let (cargo, rustc) = match route {
        Route::Target(_) => (Path::new("cargo"), None),
        Route::BuildStd(rust) => (rust.cargo.as_path(), Some(&rust.rustc)),
    };
    let mut command = Command::new(cargo);
    let name = triple.to_uppercase().replace('-', "_");
    clean(&mut command)
        .env(format!("CARGO_TARGET_{name}_LINKER"), uefi_linker()?)
        .env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), UEFI_FLAGS)
        // For the flags that a released compiler refuses otherwise.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["build", "--target", triple]);
    if let Some(rustc) = rustc {
        command.env("RUSTC", rustc);
        command.args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
    }
    Ok(command)
}

/// The same bytes from every build: no time, no debug file and no place in the sources, which no message shows.
const UEFI_FLAGS: &str = "-Cforce-unwind-tables=no -Clink-arg=/Brepro -Clink-arg=/DEBUG:NONE -Zlocation-detail=none";

/// LLVM's linker for PE files, as rustc calls it. rustup's compiler brings one, Debian's does not; zig's is always here.
fn uefi_linker() -> Result<PathBuf> {
    let zig = zig()?.join("ziglang/zig");
    // rustc asks LLVM's one program for this linker, with two words in front.
    let text = format!("#!/bin/sh\n[ \"$1\" = -flavor ] && shift 2\nexec '{}' lld-link \"$@\"\n", zig.display());
    let dir = cache::dir()?.join("tools").join(format!("lld-link-{}", digest::key(&[&text])));
    cache::once(&dir, |scratch| {
        let script = scratch.join("lld-link");
        std::fs::write(&script, &text).with_context(|| format!("write {}", script.display()))?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, mode).with_context(|| format!("make {} executable", script.display()))
    })?;
    Ok(dir.join("lld-link"))
}

/// Makes cargo compile a package of ours again, whose name begins with `prefix`. Cargo trusts time stamps, and all clones
/// share the directory of builds for devices: the sources of one clone may be older than what another one built.
///
/// # Errors
/// When a directory cannot be removed.
pub fn forget(fingerprints: &Path, prefix: &str) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(fingerprints) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn zig_dir() -> Result<PathBuf> {
    Ok(cache::dir()?.join("tools").join(&digest::bytes(WHEELS)[..16]))
}

/// Whether [`zig`] has nothing to install.
pub fn zig_is_here() -> Result<bool> {
    Ok(zig_dir()?.exists())
}

/// Directory with zig and cargo-zigbuild, installed by pip below the cache the first time.
pub fn zig() -> Result<PathBuf> {
    let dir = zig_dir()?;
    cache::once(&dir, |scratch| {
        eprintln!("imagebuild: fetching zig and cargo-zigbuild");
        let python = scratch.join("venv/bin/python");
        cmd::run(Command::new("python3").args(["-m", "venv"]).arg(scratch.join("venv")))
            .context("make a python environment for zig")?;
        let list = scratch.join("requirements.txt");
        std::fs::write(&list, WHEELS).with_context(|| format!("write {}", list.display()))?;
        // Into a plain directory: a virtual environment would remember the scratch directory's name.
        cmd::run(
            Command::new(python)
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"])
                .arg("--requirement")
                .arg(&list)
                .arg("--target")
                .arg(scratch),
        )
        .context("install zig and cargo-zigbuild")?;
        std::fs::remove_dir_all(scratch.join("venv")).context("remove the python environment")
    })?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ARM: &str = "aarch64-unknown-linux-musl";

    fn rust() -> Rust {
        Rust { rustc: "/usr/bin/rustc".into(), cargo: "/usr/bin/cargo".into(), version: "rustc 1.96.0".into() }
    }

    fn everything() -> Probe {
        Probe {
            targets: vec!["x86_64-unknown-linux-gnu".into(), ARM.into()],
            version: "rustc 1.95.0".into(),
            sources: Some(rust()),
        }
    }

    #[test]
    fn an_installed_target_comes_first() {
        assert_eq!(choose(&everything(), ARM), Some(Route::Target("rustc 1.95.0".into())));
    }

    #[test]
    fn a_target_counts_only_for_itself() {
        assert_eq!(choose(&everything(), "x86_64-unknown-linux-musl"), Some(Route::BuildStd(rust())));
    }

    /// A container image by its tag is whatever its registry says today.
    #[test]
    fn s14_no_route_builds_in_a_container_image() {
        for source in [include_str!("toolchain.rs"), include_str!("device.rs"), include_str!("setup.rs")] {
            // Debian's registry, which tests pull from, builds nothing.
            let code = source.split("#[cfg(test)]").next().unwrap().replace("docker-registry", "");
            for word in ["docker", "podman", "Command::new(\"cross\")"] {
                assert!(!code.contains(word), "{word}");
            }
        }
        assert!(!repo::root().unwrap().join("Cross.toml").exists());
    }

    #[test]
    fn neither_a_home_nor_a_mirror_is_named_by_a_program() {
        let home = tempfile::tempdir().unwrap();
        let mirror = home.path().join("registry/src/mirror.example-0123");
        std::fs::create_dir_all(&mirror).unwrap();
        let (from, mirror) = (home.path().display(), mirror.display());
        let expected = format!(" --remap-path-prefix={from}=cargo --remap-path-prefix={mirror}=cargo/registry/src");
        assert_eq!(remaps(home.path()), expected);
        assert_eq!(remaps(Path::new("/a home")), "");
    }

    #[test]
    fn a_bare_machine_has_no_route() {
        let bare = Probe { version: "rustc 1.95.0".into(), ..Probe::default() };
        assert_eq!(choose(&bare, ARM), None);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(parse_version("rustc 1.63.0"), Some((1, 63)));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn routes_say_what_they_are() {
        assert_eq!(
            Route::BuildStd(rust()).to_string(),
            "rustc 1.96.0 with the standard library built from source, linked by zig"
        );
        assert_eq!(
            Route::Target("rustc 1.95.0".into()).to_string(),
            "rustc 1.95.0 with its installed target, linked by zig"
        );
    }
}
