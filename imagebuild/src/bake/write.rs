// SPDX-License-Identifier: Apache-2.0
//! Puts files into an ext4 by e2fsprogs, without root and without a mount, and reads them back.

use super::content::{Added, What};
use super::ext4::{Reader, Superblock};
use crate::cmd;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// What e2fsck says at the end of a file system without an error; others than 0 say what was wrong.
fn check(file_system: &Path) -> Result<()> {
    let mut command = Command::new(cmd::tool("e2fsck"));
    let out = command.args(["-f", "-n"]).arg(file_system).stdin(Stdio::null()).output().context("start e2fsck")?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(
        out.status.success(),
        "check the root file system: {}",
        cmd::last_lines(said.trim(), 3).replace('\n', "; ")
    );
    Ok(())
}

/// Makes the file system as long as its file.
///
/// # Errors
/// When it is damaged, or resize2fs fails.
pub fn lengthen(file_system: &Path) -> Result<()> {
    check(file_system).context("the base is damaged")?;
    cmd::run(Command::new(cmd::tool("resize2fs")).arg("-f").arg(file_system)).context("lengthen the root file system")
}

/// Adds all of it. Directories that are there already stay as they are; anything else at a path is an error, before anything
/// is written. All times become `time`.
///
/// # Errors
/// When something is in the way, e2fsprogs fail, or what is read back is not what was written.
pub fn add(file_system: &Path, added: &[Added], time: u64) -> Result<Vec<Added>> {
    check(file_system).context("the base is damaged")?;
    let before = Reader::at(file_system, 0)?;
    let mut new = Vec::new();
    for one in added {
        match (before.node(&one.path)?, &one.what) {
            (None, _) => new.push(one.clone()),
            (Some(node), What::Directory) if node.kind == 'd' => {}
            // A directory by another name, as /etc/apt may be in no base that we know.
            (Some(_), _) => bail!("add {}: the base has it already", one.path),
        }
    }
    drop(before);
    run(file_system, &script(&new, time)?)?;
    check(file_system).context("after adding files")?;
    verify(file_system, &new)?;
    Ok(new)
}

/// The commands for debugfs(8).
fn script(added: &[Added], time: u64) -> Result<String> {
    let mut script = String::new();
    for one in added {
        let path = &one.path;
        let (parent, name) = path.rsplit_once('/').with_context(|| format!("split {path}"))?;
        let plain = |text: &str| !text.contains(['"', '\n', '\\']);
        let parent = if parent.is_empty() { "/" } else { parent };
        let (mode, owners_too) = match &one.what {
            What::Directory => {
                writeln!(script, "mkdir \"{path}\"")?;
                (0o040_755, true)
            }
            What::Link { target } => {
                ensure!(plain(target), "add {path}: its target has a character that debugfs does not take");
                writeln!(script, "symlink \"{path}\" \"{target}\"")?;
                (0, false)
            }
            What::File { mode, source, .. } => {
                let source = source.display().to_string();
                ensure!(plain(&source), "add {path}: {source} has a character that debugfs does not take");
                // `write` takes a name in the current directory, not a path.
                writeln!(script, "cd \"{parent}\"\nwrite \"{source}\" \"{name}\"\ncd /")?;
                (0o100_000 | mode, true)
            }
        };
        ensure!(plain(path), "add {path}: it has a character that debugfs does not take");
        if owners_too {
            writeln!(script, "set_inode_field \"{path}\" mode 0{mode:o}")?;
        }
        for field in ["uid", "gid"] {
            writeln!(script, "set_inode_field \"{path}\" {field} 0")?;
        }
        for field in ["atime", "ctime", "mtime", "crtime"] {
            writeln!(script, "set_inode_field \"{path}\" {field} @{time}")?;
        }
    }
    Ok(script)
}

/// Runs debugfs, which ends with 0 whatever happens: what it says besides its banner is an error.
fn run(file_system: &Path, script: &str) -> Result<()> {
    let commands = tempfile::NamedTempFile::new().context("create a file for debugfs")?;
    fs::write(commands.path(), script).context("write the commands for debugfs")?;
    let mut command = Command::new(cmd::tool("debugfs"));
    let out = command.arg("-w").arg("-f").arg(commands.path()).arg(file_system).stdin(Stdio::null()).output();
    let out = out.context("start debugfs")?;
    let said = String::from_utf8_lossy(&out.stderr);
    let mut lines = said.lines().filter(|line| !line.starts_with("debugfs 1.") && !line.trim().is_empty());
    if let Some(line) = lines.next() {
        bail!("write to the root file system: debugfs: {line}");
    }
    ensure!(out.status.success(), "write to the root file system: debugfs ended with {}", out.status);
    Ok(())
}

/// Reads everything back.
///
/// # Errors
/// Names the first that differs.
pub fn verify(image: &Path, added: &[Added]) -> Result<()> {
    verify_at(image, 0, added)
}

/// The same in a file system at a byte of an image.
///
/// # Errors
/// As [`verify`].
pub fn verify_at(image: &Path, offset: u64, added: &[Added]) -> Result<()> {
    let reader = Reader::at(image, offset)?;
    for one in added {
        let path = &one.path;
        let node = reader.node(path)?.with_context(|| format!("read {path} back: it is not there"))?;
        let right = match &one.what {
            What::Directory => node.kind == 'd' && node.mode == 0o755,
            What::Link { target } => reader.link(path)?.as_ref() == Some(target),
            What::File { mode, size, sha256, .. } => {
                let bytes = reader.read(path)?.unwrap_or_default();
                let digest = crate::digest::hex(Sha256::digest(&bytes));
                node.kind == '-' && u32::from(node.mode) == *mode && node.size == *size && digest == *sha256
            }
        };
        ensure!(right && node.owner == (0, 0), "read {path} back: it is not what was written");
    }
    Ok(())
}

/// Bytes that are free in a file system of its own file.
///
/// # Errors
/// When it is none.
pub fn free(file_system: &Path) -> Result<u64> {
    let file = File::open(file_system).with_context(|| format!("open {}", file_system.display()))?;
    Ok(Superblock::read(&file, 0)?.context("read the superblock: there is none")?.free)
}
