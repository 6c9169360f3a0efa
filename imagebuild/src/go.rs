// SPDX-License-Identifier: Apache-2.0
//! Go: the machine's own where it is new enough, otherwise the tool chain that `components.lock` pins.
//!
//! The pinned one is the module `golang.org/toolchain`, which every Go module proxy serves. Its zip must have the
//! locked `h1:` sum. `make check` compares that sum with Go's checksum database.

use crate::arch::Arch;
use crate::lock::{self, Lock};
use crate::{cache, cmd, digest, http, verify};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use zip::ZipArchive;

/// Oldest Go that builds the components, as their go.mod files say.
const MIN: (u32, u32, u32) = (1, 26, 6);
/// The module that Go's releases are published as.
const MODULE: &str = "golang.org/toolchain";
/// What Go itself uses when GOPROXY is not set. Without Go there is no other place to read it from.
const DEFAULT_PROXY: &str = "https://proxy.golang.org,direct";

/// The Go that is fetched where the machine has none: table `go` of the lock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pinned {
    /// Version without the leading `go`.
    pub version: String,
    /// `h1:` sum of the module's zip, by the architecture of the build machine.
    pub digest: BTreeMap<Arch, String>,
}

impl Pinned {
    /// The module's version: `v0.0.1-go1.26.8.linux-amd64`.
    fn module_version(&self, host: Arch) -> String {
        format!("v0.0.1-go{}.linux-{host}", self.version)
    }

    fn digest(&self, host: Arch) -> Result<&str> {
        let digest = self.digest.get(&host).map(String::as_str);
        digest.with_context(|| format!("find the digest of Go for {host} in {}", lock::FILE))
    }

    fn dir(&self, host: Arch) -> Result<PathBuf> {
        let key = digest::key(&[&self.version, self.digest(host)?]);
        Ok(cache::dir()?.join("tools").join(format!("go-{key}")))
    }
}

/// Go's checksum database, by its name; the key that signs its answers is in Go (cmd/go, sumdb.go).
const CHECKSUM_DATABASE: &str = "sum.golang.org";
/// go.mod and go.sum are never changed, and nothing of the clone's state gets into a program.
const FLAGS: &str = "-mod=readonly -buildvcs=false";
/// Variables of the build machine that a `go` command gets, from its environment or from the file of `go env -w`: where
/// things are and how the proxy is reached. What decides what is built, and what is believed, is set here: the sums in this
/// repository's go.sum files hold in any case.
const KEPT: [&str; 9] =
    ["GOAUTH", "GOCACHE", "GOMAXPROCS", "GOMEMLIMIT", "GOMODCACHE", "GONOPROXY", "GOPATH", "GOPROXY", "GOTMPDIR"];

/// A `go` command that never fetches another tool chain, and obeys no other setting of the build machine than [`KEPT`]. The
/// pinned Go is fetched the first time it is needed.
///
/// # Errors
/// When the machine has no Go that is new enough, and the pinned one cannot be fetched.
pub fn command() -> Result<Command> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = match PROGRAM.get() {
        Some(program) => program.clone(),
        None => {
            let program = if own_is_new_enough() { "go".into() } else { fetch()? };
            PROGRAM.get_or_init(|| program).clone()
        }
    };
    let mut command = Command::new(&program);
    let ours: Vec<String> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_gos(name)).collect();
    for name in ours {
        // Where the library of the machine's own Go is; that of another Go does not fit.
        if name != "GOROOT" || program.is_absolute() {
            command.env_remove(name);
        }
    }
    command.envs(settings(&|name| variable(name)));
    Ok(command)
}

/// Whether Go, or a C compiler that it calls, reads a variable of this name.
fn is_gos(name: &str) -> bool {
    // GOOGLE_… is for a helper that GOAUTH names.
    ["GO", "CGO_"].iter().any(|start| name.starts_with(start)) && !name.starts_with("GOOGLE_")
        || ["CC", "CXX", "FC", "AR", "PKG_CONFIG"].contains(&name)
}

/// Go's variables for a command, where `variable` gives the build machine's own.
fn settings(variable: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let mut settings: Vec<(&str, String)> = KEPT.iter().filter_map(|name| Some((*name, variable(name)?))).collect();
    if variable("GONOPROXY").is_none()
        && let Some(private) = variable("GOPRIVATE")
    {
        // What Go itself makes of it, without its other half: modules whose sums are not compared.
        settings.push(("GONOPROXY", private));
    }
    let fixed = [
        ("GOENV", "off"),
        ("GOFLAGS", FLAGS),
        ("GOINSECURE", ""),
        ("GONOSUMCHECK", ""),
        ("GONOSUMDB", ""),
        ("GOPRIVATE", ""),
        ("GOSUMDB", CHECKSUM_DATABASE),
        ("GOTOOLCHAIN", "local"),
        ("GOWORK", "off"),
    ];
    settings.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    settings
}

/// Whether [`command`] has nothing to fetch.
pub fn is_here() -> bool {
    let fetched = || Lock::find().ok()?.go?.dir(Arch::host().ok()?).ok();
    own_is_new_enough() || fetched().is_some_and(|dir| dir.exists())
}

fn own_is_new_enough() -> bool {
    let ask = || cmd::output(Command::new("go").arg("version").env("GOTOOLCHAIN", "local")).ok();
    cmd::found("go") && ask().is_some_and(|out| is_new_enough(&String::from_utf8_lossy(&out)))
}

fn is_new_enough(line: &str) -> bool {
    parse(line).is_some_and(|version| version >= MIN)
}

/// `go version go1.26.8 linux/amd64` → (1, 26, 8).
fn parse(line: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = line.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((major, minor, numbers.next().map_or(Some(0), |n| n.parse().ok())?))
}

/// The pinned `go`, below the cache.
fn fetch() -> Result<PathBuf> {
    let lock = Lock::find()?;
    let pinned = lock.go.as_ref().with_context(|| format!("find Go: {}, or lock it in {}", remedy(), lock::FILE))?;
    let host = Arch::host()?;
    let dir = pinned.dir(host)?;
    cache::once(&dir, |scratch| {
        eprintln!("setup: fetching Go {}", pinned.version);
        let version = pinned.module_version(host);
        let mut zip = tempfile::tempfile_in(scratch).context("create a scratch file")?;
        download(&format!("{MODULE}/@v/{version}.zip"), &mut zip).with_context(|| {
            format!("fetch Go {}: set GOPROXY to a module proxy that answers, or {}", pinned.version, remedy())
        })?;
        let mut zip = ZipArchive::new(zip).with_context(|| format!("read the zip of Go {}", pinned.version))?;
        verify::expect("go", &format!("Go module {MODULE} {version}"), pinned.digest(host)?, &h1(&mut zip)?)?;
        unpack(&mut zip, &format!("{MODULE}@{version}"), scratch)
    })?;
    Ok(dir.join("bin/go"))
}

fn remedy() -> String {
    format!("install Go {}.{}.{} or newer and put it on PATH", MIN.0, MIN.1, MIN.2)
}

/// Writes what the first proxy that has `path` answers to `to`.
fn download(path: &str, to: &mut File) -> Result<()> {
    let list = goproxy();
    let mut failed = None;
    for proxy in proxies(&list) {
        to.rewind().and_then(|()| to.set_len(0)).context("empty the scratch file")?;
        match http::get(&format!("{proxy}/{path}"), http::Limit::FILE, to) {
            Ok(()) => return Ok(()),
            Err(e) => failed = Some(e),
        }
    }
    match failed {
        Some(e) => Err(e),
        None => bail!("GOPROXY={list} names no module proxy"),
    }
}

/// GOPROXY as Go reads it: from the environment, from the file of `go env -w`, or Go's own.
fn goproxy() -> String {
    variable("GOPROXY").unwrap_or_else(|| DEFAULT_PROXY.to_owned())
}

/// A variable of the build machine as Go reads it: from the environment, or from the file of `go env -w`.
fn variable(name: &str) -> Option<String> {
    let given = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let config = || Some(given("XDG_CONFIG_HOME").unwrap_or(format!("{}/.config", given("HOME")?)));
    let file = || given("GOENV").or_else(|| Some(format!("{}/go/env", config()?))).filter(|path| path != "off");
    let line = |text: String| text.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    let written = || std::fs::read_to_string(file()?).ok().and_then(line).filter(|v| !v.is_empty());
    given(name).or_else(written)
}

/// The proxies of a GOPROXY, in order. `off` and `direct` end the list: a tool chain has no repository to build it from.
fn proxies(list: &str) -> Vec<&str> {
    let words = list.split([',', '|']).map(str::trim).filter(|w| !w.is_empty());
    let proxies = words.take_while(|w| !["off", "direct"].contains(w));
    proxies.filter(|w| w.starts_with("http")).map(|w| w.trim_end_matches('/')).collect()
}

/// The `h1:` sum of a module's zip: SHA-256 over the SHA-256 and the name of each file, in the order of the names.
fn h1<R: Read + Seek>(zip: &mut ZipArchive<R>) -> Result<String> {
    let names = zip.file_names().map(|name| name.map(|n| n.into_owned()));
    let mut names = names.collect::<Result<Vec<String>, _>>().context("read the names in a zip")?;
    names.sort_unstable();
    ensure!(names.iter().all(|name| !name.contains('\n')), "read a zip: a name has a line break");
    let mut all = Sha256::new();
    for name in names {
        let mut file = zip.by_name(&name).with_context(|| format!("read {name} in a zip"))?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut hash).with_context(|| format!("read {name} in a zip"))?;
        all.update(format!("{}  {name}\n", digest::hex(hash.finalize())));
    }
    Ok(format!("h1:{}", base64::engine::general_purpose::STANDARD.encode(all.finalize())))
}

/// Unpacks the directory `module` of a zip to `to`. A module's zip has neither rights nor a second go.mod: as Go does,
/// programs are made executable, and each `_go.mod` becomes a `go.mod`.
fn unpack<R: Read + Seek>(zip: &mut ZipArchive<R>, module: &str, to: &Path) -> Result<()> {
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).context("read a zip")?;
        let name = file.name().context("read a name in a zip")?.into_owned();
        let inside = name.strip_prefix(module).and_then(|n| n.strip_prefix('/')).map(Path::new);
        let inside = inside.filter(|p| p.components().all(|c| matches!(c, Component::Normal(_))));
        let inside = inside.with_context(|| format!("unpack Go: {name} is outside the module"))?;
        let path = match inside.file_name() {
            Some(last) if last == "_go.mod" => to.join(inside.with_file_name("go.mod")),
            _ => to.join(inside),
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let mut out = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        std::io::copy(&mut file, &mut out).with_context(|| format!("write {}", path.display()))?;
        out.flush().with_context(|| format!("write {}", path.display()))?;
        if inside.starts_with("bin") || inside.starts_with("pkg/tool") {
            let mode = Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).with_context(|| format!("chmod {}", path.display()))?;
        }
    }
    Ok(())
}

/// The checksum database does not answer.
#[derive(Debug)]
pub struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Go's checksum database does not answer for {}", self.0)
    }
}

/// What Go's failure to look up `what` means: a sum that differs is not the same as no answer.
fn no_answer(error: anyhow::Error, what: &str) -> anyhow::Error {
    match error.to_string().contains("SECURITY ERROR") {
        true => error.context(format!("compare {what} with Go's checksum database")),
        false => error.context(Unreachable(what.to_owned())),
    }
}

/// Compares the locked digests with Go's checksum database, once for each lock; returns what was seen. Go itself asks
/// the database, through the module proxy, and verifies the answer.
///
/// # Errors
/// When a digest is another one; [`Unreachable`] when the database does not answer.
pub fn check_database() -> Result<String> {
    /// The part of `go mod download -json` that is used.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Download {
        sum: Option<String>,
    }
    let lock = Lock::find()?;
    let pinned = lock.go.as_ref().with_context(|| format!("find Go in {}", lock::FILE))?;
    let digests: Vec<&str> = Arch::ALL.iter().map(|arch| pinned.digest(*arch)).collect::<Result<_>>()?;
    let key = digest::key(&[&[&[pinned.version.as_str()], digests.as_slice()].concat().join("\n")]);
    cache::once(&cache::dir()?.join("tools").join(format!("go-verified-{key}")), |_| {
        for arch in Arch::ALL {
            // Not Go's usual cache: what is downloaded is of no further use.
            let scratch = tempfile::tempdir().context("create a scratch directory")?;
            let what = format!("{MODULE}@{}", pinned.module_version(arch));
            let mut go = command()?;
            go.args(["mod", "download", "-modcacherw", "-json", &what]).current_dir(scratch.path());
            go.env("GOMODCACHE", scratch.path().join("modules")).env("GOFLAGS", "");
            let json = cmd::output(&mut go).map_err(|e| no_answer(e, &what))?;
            let found: Download =
                serde_json::from_slice(&json).with_context(|| format!("read what Go says of {what}"))?;
            let found = found.sum.unwrap_or_else(|| "no sum".to_owned());
            verify::expect("go", &format!("checksum database, {what}"), pinned.digest(arch)?, &found)?;
        }
        Ok(())
    })?;
    Ok(format!("Go {}: the checksum database has the locked digests", pinned.version))
}

#[cfg(test)]
#[path = "go_tests.rs"]
mod tests;
