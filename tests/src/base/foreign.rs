// SPDX-License-Identifier: Apache-2.0
//! mmdebstrap for another processor than this machine's: packages' own scripts run by QEMU's user emulation, which is known
//! to the kernel in a user namespace alone (Linux 6.7 and later: binfmt_misc in user namespaces). Nothing is installed.

use anyhow::{Context, Result, ensure};
use imagebuild::arch::Arch;
use imagebuild::debian::Debian;
use imagebuild::{cache, cmd, digest};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Debian's package of QEMU's user emulation, whose programs need no libraries, and the program for arm64.
const PACKAGE: &str = "qemu-user";
const PROGRAM: &str = "qemu-aarch64";
/// What the first bytes of a program for arm64 are, and which of their bits count (qemu-binfmt-conf.sh of QEMU).
const MAGIC: &str = "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00";
const MASK: &str =
    "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";
/// How long a process may take until it is in its namespace.
const ENTERED: Duration = Duration::from_secs(10);

/// Runs mmdebstrap with these words for arm64.
///
/// # Errors
/// When it fails, or the emulator cannot be had.
pub fn mmdebstrap(words: &[String]) -> Result<()> {
    let known = "/proc/sys/fs/binfmt_misc";
    // F: the kernel opens the emulator now, so that it needs to be in no root directory.
    let entry = format!(":{PROGRAM}:M::{MAGIC}:{MASK}:{}:F", emulator()?.display());
    let hook =
        format!("--setup-hook=mount -t binfmt_misc binfmt_misc {known} && printf '%s' '{entry}' >{known}/register");
    let mut all = vec!["mmdebstrap", "--architectures=arm64", "--skip=check/qemu", &hook];
    all.extend(words.iter().map(String::as_str));
    match rustix::process::geteuid().is_root() {
        // mmdebstrap has a namespace for other users alone.
        true => in_namespace(&all),
        false => cmd::run(Command::new(all[0]).arg("--mode=unshare").args(&all[1..])),
    }
}

/// Runs a program in a user namespace that has the first 65,536 users and groups of this one.
fn in_namespace(words: &[&str]) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "sh", "-c", "read -r entered && exec \"$@\"", "sh"]).args(words);
    let own = std::fs::read_link("/proc/self/ns/user").context("read /proc/self/ns/user")?;
    let mut child = command.stdin(Stdio::piped()).spawn().context("start unshare")?;
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let entered = qemu::wait::until("a user namespace", ENTERED, || {
        Ok((std::fs::read_link(process.join("ns/user")).is_ok_and(|now| now != own)).then_some(()))
    });
    let mapped = entered.and_then(|()| {
        ["uid_map", "gid_map"].iter().try_for_each(|name| {
            let path = process.join(name);
            std::fs::write(&path, "0 0 65536").with_context(|| format!("write {}", path.display()))
        })
    });
    // Without a line it ends by itself.
    let started = match (&mapped, child.stdin.take()) {
        (Ok(()), Some(mut input)) => writeln!(input).context("let the program start"),
        _ => Ok(()),
    };
    let status = child.wait().context("wait for unshare")?;
    mapped.and(started)?;
    ensure!(status.success(), "run {} in a namespace: {status}", words[0]);
    Ok(())
}

/// The program that runs programs of arm64.
fn emulator() -> Result<PathBuf> {
    let debian = Debian::open(Arch::host()?)?;
    let packages = debian.resolve(&[PACKAGE], false)?;
    let names: Vec<String> = packages.iter().map(imagebuild::debian::Package::file_name).collect();
    let dir = cache::dir()?.join("tools").join(format!("{PROGRAM}-{}", digest::key(&[&names.join("\n")])));
    cache::once(&dir, |scratch| {
        let all = tempfile::tempdir_in(scratch).context("create a directory for a package")?;
        for deb in debian.fetch(&packages)? {
            debian.unpack(&deb, all.path())?;
        }
        let program = all.path().join(Path::new("usr/bin").join(PROGRAM));
        std::fs::rename(&program, scratch.join(PROGRAM)).with_context(|| format!("find {PROGRAM} in {PACKAGE}"))?;
        all.close().context("remove the rest of a package")
    })?;
    Ok(dir.join(PROGRAM))
}
