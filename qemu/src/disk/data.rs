// SPDX-License-Identifier: Apache-2.0
//! The data partition of a switched-off disk, ext4: written with debugfs and checked with e2fsck, without root and without
//! a mount. A path is the running system's: /etc is below `etc/upper`, everything else that can be written below `var`.

use super::view::{Kind, UPPER, View, within};
use super::{DATA, DiskImage};
use crate::search::next_data;
use anyhow::{Context, Result, bail, ensure};
use imagebuild::cmd::tool;
use imagebuild::disk::GptEntry;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

/// Bytes that are copied at a time.
const CHUNK: usize = 4 << 20;

/// A data partition as it is after the check of an ordinary boot, in a file of its own that goes with this.
#[derive(Debug)]
pub struct CheckedData(pub(super) tempfile::NamedTempFile);

/// Where something is written: the path on the data partition, and the running system's.
struct Target {
    data: String,
    path: String,
}

impl DiskImage {
    /// Place of the data partition.
    ///
    /// # Errors
    /// When there is none: the device makes it at its first boot, [`DiskImage::prepare_data`] before.
    pub fn data(&self) -> Result<GptEntry> {
        let found = self.named(DATA)?;
        found.with_context(|| format!("find the data partition of {}: no boot has made one", self.path().display()))
    }

    /// Brings the data partition to the state that the guest would find at its next boot.
    pub fn replay_journal(&self) -> Result<()> {
        let mut command = Command::new(tool("e2fsck"));
        command.args(["-p", "-E", "journal_only"]).arg(self.spec(&self.data()?)?);
        let out = command.stdin(Stdio::null()).output().context("start e2fsck")?;
        // 1: something was corrected, here: the journal was replayed.
        if !matches!(out.status.code(), Some(0 | 1)) {
            bail!("replay the journal of the data partition: {}", String::from_utf8_lossy(&out.stdout).trim());
        }
        Ok(())
    }

    /// Checks a copy of the data partition as every boot does (`e2fsck -p`), then with a complete check. Returns what a
    /// boot would mount then.
    ///
    /// # Errors
    /// When the first check cannot repair it, so that a boot would make it anew; or when the second one finds an error.
    pub fn check_data(&self) -> Result<CheckedData> {
        let alone = self.data_alone()?;
        // 0: nothing to do; 1: corrected, which includes replaying the journal.
        for (words, most) in [(&["-p"][..], 1), (&["-f", "-n"], 0)] {
            let mut command = Command::new(tool("e2fsck"));
            let out = command.args(words).arg(alone.path()).stdin(Stdio::null()).output().context("start e2fsck")?;
            if out.status.code().is_none_or(|code| code > most) {
                let said = String::from_utf8_lossy(&out.stdout);
                bail!("check the data partition (e2fsck {}, {}): {}", words.join(" "), out.status, said.trim());
            }
        }
        Ok(CheckedData(alone))
    }

    /// The data partition in a file of its own: after replaying a journal, e2fsck (1.47) opens its file again without
    /// the given offset and finds nothing.
    fn data_alone(&self) -> Result<tempfile::NamedTempFile> {
        let extent = self.data()?;
        let end = extent.offset + extent.length;
        let directory = self.path().parent().context("find the directory of a disk")?;
        let alone = tempfile::NamedTempFile::new_in(directory).context("create a file for a data partition")?;
        let disk = File::open(self.path()).with_context(|| format!("open {}", self.path().display()))?;
        alone.as_file().set_len(extent.length).context("size a file for a data partition")?;
        let (mut at, mut buffer) = (extent.offset, vec![0; CHUNK]);
        while let Some((start, stop)) =
            next_data(&disk, at).context("seek in a disk")?.filter(|(start, _)| *start < end)
        {
            let (mut from, stop) = (start, stop.min(end));
            while from < stop {
                let part = &mut buffer[..usize::try_from(stop - from).unwrap_or(CHUNK).min(CHUNK)];
                disk.read_exact_at(part, from).context("read a disk")?;
                alone.as_file().write_all_at(part, from - extent.offset).context("write a data partition")?;
                from += part.len() as u64;
            }
            at = stop;
        }
        Ok(alone)
    }

    /// Disk offset of the first block of a file of the data partition, in bytes.
    pub fn file_offset(&self, path: &str) -> Result<u64> {
        let path = self.on_data(path)?;
        let block_size: u64 = {
            let out = self.debugfs(false, "show_super_stats -h")?.context("read the superblock")?;
            let text = String::from_utf8_lossy(&out).into_owned();
            let line = text.lines().find_map(|l| l.strip_prefix("Block size:")).context("find the block size")?;
            line.trim().parse().context("parse the block size")?
        };
        let out = self.debugfs(false, &format!("bmap \"{path}\" 0"))?.with_context(|| format!("find {path}"))?;
        let block: u64 = String::from_utf8_lossy(&out).trim().parse().with_context(|| format!("locate {path}"))?;
        Ok(self.data()?.offset + block * block_size)
    }

    /// Writes a file of mode `mode` (permission bits), owned by root; its directory is made when missing.
    ///
    /// # Errors
    /// When no data partition is there yet; and for a path that the system does not write to, such as /usr.
    pub fn write_file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let source = tempfile_for(bytes)?;
        let target = self.target(path)?;
        self.make_room(&target)?;
        let data = &target.data;
        self.debugfs(true, &format!("write \"{}\" \"{data}\"", source.path().display()))?;
        self.set_owner(data, 0o100_000 | mode, (0, 0))?;
        match self.read_file(path)? {
            Some(found) if found == bytes => Ok(()),
            _ => bail!("write {path} to the guest's disk"),
        }
    }

    /// Sets when a file was changed last, seconds since 1970.
    pub fn set_modified(&self, path: &str, seconds: u64) -> Result<()> {
        let path = self.on_data(path)?;
        self.debugfs(true, &format!("set_inode_field \"{path}\" mtime @{seconds}"))?;
        Ok(())
    }

    /// Flips one bit of a file's byte `at`, below 4096, on the raw disk: nothing of the file system changes.
    ///
    /// # Errors
    /// When there is no such byte on the data partition, or the disk cannot be written.
    pub fn flip(&self, path: &str, at: usize) -> Result<()> {
        let bytes = self.read_file(path)?.with_context(|| format!("find {path}"))?;
        ensure!(at < bytes.len().min(4096), "find byte {at} of {path}");
        self.flip_at(self.file_offset(path)? + at as u64)?;
        match self.read_file(path)? {
            Some(now) if now != bytes => Ok(()),
            _ => bail!("flip byte {at} of {path}"),
        }
    }

    /// Makes a symbolic link.
    pub fn link_file(&self, path: &str, target: &str) -> Result<()> {
        let place = self.target(path)?;
        self.make_room(&place)?;
        self.debugfs(true, &format!("symlink \"{}\" \"{target}\"", place.data))?;
        if !self.exists(path)? {
            bail!("link {path} on the guest's disk");
        }
        Ok(())
    }

    /// Removes a file. One of the root's own /etc is hidden, as the running system would do it.
    pub fn remove_file(&self, path: &str) -> Result<()> {
        ensure!(self.exists(path)?, "find {path} on the guest's disk");
        let target = self.target(path)?;
        self.make_room(&target)?;
        if self.exists(path)? {
            let (parent, name) = target.data.rsplit_once('/').context("find the directory of a file")?;
            // mknod takes a name, and no path.
            let requests = tempfile_for(format!("cd \"{parent}\"\nmknod \"{name}\" c 0 0\n").as_bytes())?;
            let (spec, path) = (self.spec(&self.data()?)?, requests.path().display().to_string());
            run_debugfs(&["-w", "-f", &path, &spec], "mknod")?;
        }
        if self.exists(path)? {
            bail!("remove {path} from the guest's disk");
        }
        Ok(())
    }

    /// Where something at `path` is written.
    fn target(&self, path: &str) -> Result<Target> {
        self.data()?;
        let view = View::of(self)?;
        let path = view.resolve(path, false)?;
        let data = match path.strip_prefix("/etc/") {
            Some(below) => format!("{UPPER}/{below}"),
            None if within(&path, "/var") => {
                let filled = view.on_data("/var")?.is_some();
                ensure!(filled, "write {path} to the guest's disk: /var is filled by the first boot");
                path.clone()
            }
            None => bail!("write {path} to the guest's disk: the root file system is verified, and never changes"),
        };
        Ok(Target { data, path })
    }

    /// Makes the directories of a path, and removes what the data partition has at its end.
    fn make_room(&self, target: &Target) -> Result<()> {
        let (parent, _) = target.data.rsplit_once('/').context("find the directory of a file")?;
        let mut at = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            let view = View::of(self)?;
            if view.on_data(&at)?.is_none() {
                self.debugfs(true, &format!("mkdir \"{at}\""))?;
                // What the root has of this name keeps its mode and owner: the upper directory's are those that count.
                let path = at.strip_prefix(UPPER).map(|below| format!("/etc{below}"));
                if let Some(lower) = path.map(|path| view.find(&path)).transpose()?.flatten() {
                    ensure!(lower.kind == Kind::Directory, "make directory {at}: {} is none", target.path);
                    self.set_owner(&at, u32::from(lower.mode), lower.owner)?;
                }
            }
        }
        if View::of(self)?.on_data(&target.data)?.is_some() {
            self.debugfs(true, &format!("rm \"{}\"", target.data))?;
        }
        Ok(())
    }

    fn set_owner(&self, path: &str, mode: u32, owner: (u32, u32)) -> Result<()> {
        let fields = [("mode", format!("0{mode:o}")), ("uid", owner.0.to_string()), ("gid", owner.1.to_string())];
        for (field, value) in fields {
            self.debugfs(true, &format!("set_inode_field \"{path}\" {field} {value}"))?;
        }
        Ok(())
    }

    /// Where a file that is there is on the data partition.
    fn on_data(&self, path: &str) -> Result<String> {
        let view = View::of(self)?;
        let found = view.find(&view.resolve(path, true)?)?.with_context(|| format!("find {path}"))?;
        let data = found.data_path().with_context(|| format!("find {path} on the data partition: it is the root's"))?;
        Ok(data.to_owned())
    }

    pub(super) fn debugfs(&self, write: bool, request: &str) -> Result<Option<Vec<u8>>> {
        debugfs(&self.spec(&self.data()?)?, write, request)
    }
}

/// Runs one debugfs request; `None` when the path that it names does not exist. debugfs exits with 0 even
/// then, so its messages are read.
pub(super) fn debugfs(spec: &str, write: bool, request: &str) -> Result<Option<Vec<u8>>> {
    let words = ["-w", "-R", request, spec];
    run_debugfs(if write { &words } else { &words[1..] }, request)
}

fn run_debugfs(words: &[&str], request: &str) -> Result<Option<Vec<u8>>> {
    let out = Command::new(tool("debugfs")).args(words).stdin(Stdio::null()).output().context("start debugfs")?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let mut lines = said.lines().filter(|l| !l.starts_with("debugfs "));
    match lines.next() {
        None if out.status.success() => Ok(Some(out.stdout)),
        Some(line) if line.contains("File not found") || line.contains("Extended attribute key not found") => Ok(None),
        Some(line) => bail!("run debugfs `{request}`: {line}"),
        None => bail!("run debugfs `{request}` ({})", out.status),
    }
}

fn tempfile_for(bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().context("create a temporary file")?;
    file.write_all(bytes).context("write a temporary file")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use imagebuild::archive::Archive;
    use std::path::Path;

    #[test]
    fn files_are_located_damaged_checked_and_copied() {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Archive::default();
        root.file("etc/own", 0o644, b"root's".to_vec()).unwrap();
        let Some(disk) = testing::disk(dir.path(), &root) else { return };
        disk.write_file("/etc/demo/unit file", b"first", 0o600).unwrap();
        disk.write_file("/etc/demo/unit file", b"second", 0o755).unwrap();
        disk.link_file("/etc/demo/link", "unit file").unwrap();
        assert_eq!(disk.list("/etc/demo").unwrap(), ["link", "unit file"]);
        assert_eq!((disk.list("/nowhere").unwrap(), disk.read_file("/etc/nothing").unwrap()), (vec![], None));
        let offset = usize::try_from(disk.file_offset("/etc/demo/unit file").unwrap()).unwrap();
        assert_eq!(&std::fs::read(disk.path()).unwrap()[offset..offset + 6], b"second");
        disk.flip("/etc/demo/unit file", 0).unwrap();
        assert_eq!(disk.read_file("/etc/demo/link").unwrap().unwrap(), b"wecond");
        let said = disk.file_offset("/etc/own").unwrap_err().to_string();
        assert_eq!(said, "find /etc/own on the data partition: it is the root's");
        disk.remove_file("/etc/demo/unit file").unwrap();
        assert_eq!(disk.list("/etc/demo").unwrap(), ["link"]);
        disk.replay_journal().unwrap();
        // The state after a power cut during the first mount: the journal is flagged but not set up.
        disk.debugfs(true, "feature needs_recovery").unwrap();
        let to = dir.path().join("copy");
        assert!(disk.extract(&["/etc"], &[], &to).is_err());
        let checked = disk.check_data().unwrap();
        disk.extract_checked(&checked, &["/etc"], &to).unwrap();
        assert_eq!(std::fs::read_link(to.join("etc/demo/link")).unwrap(), Path::new("unit file"));
        assert_eq!(std::fs::read(to.join("etc/own")).unwrap(), b"root's");
        // A count that an ordinary check does not correct without asking.
        disk.damage(disk.data().unwrap().offset + 1024, &[0xff; 1024]).unwrap();
        let said = disk.check_data().unwrap_err().to_string();
        assert!(said.starts_with("check the data partition (e2fsck -p, exit status: "), "{said}");
    }
}
