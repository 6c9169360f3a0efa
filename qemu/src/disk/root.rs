// SPDX-License-Identifier: Apache-2.0
//! Files of the ext4 root partition of a switched-off disk, through debugfs: no root, no mount.

use super::DiskImage;
use crate::search::next_data;
use anyhow::{Context, Result, bail};
use imagebuild::cmd::tool;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes that are copied at a time.
const CHUNK: usize = 4 << 20;

/// A root file system as it is after the check of an ordinary boot, in a file of its own that goes with this.
#[derive(Debug)]
pub struct CheckedRoot(pub(super) tempfile::NamedTempFile);

impl DiskImage {
    /// Brings the root file system to the state that the guest would find at its next boot.
    pub fn replay_journal(&self) -> Result<()> {
        let mut command = Command::new(tool("e2fsck"));
        command.args(["-p", "-E", "journal_only"]).arg(self.root_spec()?);
        let out = command.stdin(Stdio::null()).output().context("start e2fsck")?;
        // 1: something was corrected, here: the journal was replayed.
        if !matches!(out.status.code(), Some(0 | 1)) {
            bail!("replay the journal of the root file system: {}", String::from_utf8_lossy(&out.stdout).trim());
        }
        Ok(())
    }

    /// Checks a copy of the root file system as every boot does (`fsck -a`), then with a complete check. Returns what a
    /// boot would mount then.
    ///
    /// # Errors
    /// When the first check would have stopped the boot, or when the second one finds an error.
    pub fn check_root(&self) -> Result<CheckedRoot> {
        let alone = self.root_alone()?;
        // 0: nothing to do; 1: corrected, which includes replaying the journal.
        for (words, most) in [(&["-p"][..], 1), (&["-f", "-n"], 0)] {
            let mut command = Command::new(tool("e2fsck"));
            let out = command.args(words).arg(alone.path()).stdin(Stdio::null()).output().context("start e2fsck")?;
            if out.status.code().is_none_or(|code| code > most) {
                let said = String::from_utf8_lossy(&out.stdout);
                bail!("check the root file system (e2fsck {}, {}): {}", words.join(" "), out.status, said.trim());
            }
        }
        Ok(CheckedRoot(alone))
    }

    /// The root file system in a file of its own: after replaying a journal, e2fsck (1.47) opens its file again without
    /// the given offset and finds nothing.
    fn root_alone(&self) -> Result<tempfile::NamedTempFile> {
        let extent = self.partition(super::ROOT)?;
        let directory = self.path().parent().context("find the directory of a disk")?;
        let alone = tempfile::NamedTempFile::new_in(directory).context("create a file for a root file system")?;
        let disk = File::open(self.path()).with_context(|| format!("open {}", self.path().display()))?;
        // A first boot grows it to the end of the disk.
        let end = disk.metadata().context("measure a disk")?.len();
        alone.as_file().set_len(end - extent.offset).context("size a file for a root file system")?;
        let (mut at, mut buffer) = (extent.offset, vec![0; CHUNK]);
        while let Some((start, stop)) = next_data(&disk, at).context("seek in a disk")? {
            let mut from = start;
            while from < stop {
                let part = &mut buffer[..usize::try_from(stop - from).unwrap_or(CHUNK).min(CHUNK)];
                disk.read_exact_at(part, from).context("read a disk")?;
                alone.as_file().write_all_at(part, from - extent.offset).context("write a root file system")?;
                from += part.len() as u64;
            }
            at = stop;
        }
        Ok(alone)
    }

    /// Content of a file; `None` when there is none.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.debugfs(false, &format!("cat \"{path}\"")).with_context(|| format!("read {path} of the guest"))
    }

    /// Whether a path exists.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.debugfs(false, &format!("stat \"{path}\""))?.is_some())
    }

    /// Names in a directory, sorted; empty when it does not exist.
    pub fn list(&self, dir: &str) -> Result<Vec<String>> {
        let Some(out) = self.debugfs(false, &format!("ls -p \"{dir}\""))? else { return Ok(Vec::new()) };
        // Lines as /inode/mode/uid/gid/name/size/
        let text = String::from_utf8_lossy(&out).into_owned();
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.split('/').nth(5))
            .filter(|name| !name.is_empty() && *name != "." && *name != "..")
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Disk offset of the first block of a file, in bytes.
    pub fn file_offset(&self, path: &str) -> Result<u64> {
        let block_size: u64 = {
            let out = self.debugfs(false, "show_super_stats -h")?.context("read the superblock")?;
            let text = String::from_utf8_lossy(&out).into_owned();
            let line = text.lines().find_map(|l| l.strip_prefix("Block size:")).context("find the block size")?;
            line.trim().parse().context("parse the block size")?
        };
        let out = self.debugfs(false, &format!("bmap \"{path}\" 0"))?.with_context(|| format!("find {path}"))?;
        let block: u64 = String::from_utf8_lossy(&out).trim().parse().with_context(|| format!("locate {path}"))?;
        Ok(self.partition(super::ROOT)?.offset + block * block_size)
    }

    /// Writes a file of mode `mode` (permission bits), owned by root; its directory is made when missing.
    pub fn write_file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let source = tempfile_for(bytes)?;
        let dir = Path::new(path).parent().and_then(Path::to_str).context("find the directory of a file")?;
        let mut at = String::new();
        for part in dir.split('/').filter(|p| !p.is_empty()) {
            at = format!("{at}/{part}");
            if !self.exists(&at)? {
                self.debugfs(true, &format!("mkdir \"{at}\""))?;
            }
        }
        if self.exists(path)? {
            self.debugfs(true, &format!("rm \"{path}\""))?;
        }
        let from = source.path().display();
        self.debugfs(true, &format!("write \"{from}\" \"{path}\""))?;
        for (field, value) in [("mode", format!("0{:o}", 0o100_000 | mode)), ("uid", "0".into()), ("gid", "0".into())] {
            self.debugfs(true, &format!("set_inode_field \"{path}\" {field} {value}"))?;
        }
        match self.read_file(path)? {
            Some(found) if found == bytes => Ok(()),
            _ => bail!("write {path} to the guest's disk"),
        }
    }

    /// Sets when a file was changed last, seconds since 1970.
    pub fn set_modified(&self, path: &str, seconds: u64) -> Result<()> {
        self.debugfs(true, &format!("set_inode_field \"{path}\" mtime @{seconds}"))?;
        Ok(())
    }

    /// Makes the kernel mount the root file system read-only, or read-write again, whatever the guest asks for.
    ///
    /// # Errors
    /// When the superblock cannot be written.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        self.debugfs(true, if read_only { "feature read-only" } else { "feature ^read-only" })?;
        Ok(())
    }

    /// Flips one bit of a file's byte `at`, below 4096, on the raw disk: nothing of the file system changes.
    ///
    /// # Errors
    /// When there is no such byte, or the disk cannot be written.
    pub fn flip(&self, path: &str, at: usize) -> Result<()> {
        let bytes = self.read_file(path)?.with_context(|| format!("find {path}"))?;
        let byte = *bytes.get(at).filter(|_| at < 4096).with_context(|| format!("find byte {at} of {path}"))?;
        self.damage(self.file_offset(path)? + at as u64, &[byte ^ 0x04])?;
        match self.read_file(path)? {
            Some(now) if now != bytes => Ok(()),
            _ => bail!("flip byte {at} of {path}"),
        }
    }

    /// Makes a symbolic link.
    pub fn link_file(&self, path: &str, target: &str) -> Result<()> {
        self.debugfs(true, &format!("symlink \"{path}\" \"{target}\""))?;
        if !self.exists(path)? {
            bail!("link {path} on the guest's disk");
        }
        Ok(())
    }

    /// Removes a file.
    pub fn remove_file(&self, path: &str) -> Result<()> {
        self.debugfs(true, &format!("rm \"{path}\""))?;
        if self.exists(path)? {
            bail!("remove {path} from the guest's disk");
        }
        Ok(())
    }

    /// Runs one debugfs request; `None` when the path that it names does not exist. debugfs exits with 0 even
    /// then, so its messages are read.
    fn debugfs(&self, write: bool, request: &str) -> Result<Option<Vec<u8>>> {
        let mut command = Command::new(tool("debugfs"));
        if write {
            command.arg("-w");
        }
        command.args(["-R", request]).arg(self.root_spec()?).stdin(Stdio::null());
        let out = command.output().context("start debugfs")?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let mut lines = said.lines().filter(|l| !l.starts_with("debugfs "));
        match lines.next() {
            None if out.status.success() => Ok(Some(out.stdout)),
            Some(line) if line.contains("File not found") => Ok(None),
            Some(line) => bail!("run debugfs `{request}`: {line}"),
            None => bail!("run debugfs `{request}` ({})", out.status),
        }
    }
}

fn tempfile_for(bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().context("create a temporary file")?;
    file.write_all(bytes).context("write a temporary file")?;
    Ok(file)
}

/// A disk that holds nothing but an ext4 file system, 1 MiB from its start.
#[cfg(test)]
pub(super) fn disk_for_tests(dir: &Path) -> DiskImage {
    use crate::disk::{GptEntry, ROOT};
    let path = dir.join("disk");
    std::fs::File::create(&path).unwrap().set_len(17 << 20).unwrap();
    let mut make = Command::new(tool("mke2fs"));
    make.args(["-q", "-t", "ext4", "-E", "offset=1048576"]).arg(&path).arg("16M");
    imagebuild::cmd::run(&mut make).unwrap();
    DiskImage {
        path,
        partitions: [(ROOT, GptEntry { name: "root".to_owned(), offset: 1 << 20, length: 16 << 20 })].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::*;

    #[test]
    fn files_are_written_read_listed_located_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk_for_tests(dir.path());
        disk.write_file("/etc/demo/unit file", b"first", 0o600).unwrap();
        disk.write_file("/etc/demo/unit file", b"second", 0o755).unwrap();
        disk.link_file("/etc/demo/link", "unit file").unwrap();
        assert_eq!(disk.read_file("/etc/demo/unit file").unwrap().unwrap(), b"second");
        assert_eq!(disk.list("/etc/demo").unwrap(), ["link", "unit file"]);
        assert_eq!(disk.list("/nowhere").unwrap(), [""; 0]);
        assert_eq!(disk.read_file("/etc/nothing").unwrap(), None);
        let offset = usize::try_from(disk.file_offset("/etc/demo/unit file").unwrap()).unwrap();
        assert_eq!(&std::fs::read(disk.path()).unwrap()[offset..offset + 6], b"second");
        disk.remove_file("/etc/demo/unit file").unwrap();
        assert_eq!(disk.list("/etc/demo").unwrap(), ["link"]);
        disk.replay_journal().unwrap();
        disk.check_root().unwrap();
        // The state after a power cut during the first mount: the journal is flagged but not set up.
        disk.debugfs(true, "feature needs_recovery").unwrap();
        let to = dir.path().join("copy");
        assert!(disk.extract(&["/etc"], &to).is_err());
        disk.check_root().unwrap().extract(&["/etc"], &to).unwrap();
        assert_eq!(std::fs::read_link(to.join("etc/demo/link")).unwrap(), Path::new("unit file"));
        // A count that an ordinary check does not correct without asking.
        let first = disk.partition(ROOT).unwrap().offset;
        disk.damage(first + 1024, &[0xff; 1024]).unwrap();
        let said = disk.check_root().unwrap_err().to_string();
        assert!(said.starts_with("check the root file system (e2fsck -p, exit status: "), "{said}");
    }
}
