// SPDX-License-Identifier: Apache-2.0
//! A disk brought to any moment of its recording: what was flushed is there, and of what was not, a part.
//!
//! A disk may keep any of the writes since the last flush and lose the others, whatever their order: that is what a
//! cache does in a power cut. What it promises is that a sector of 512 bytes is old or new, and that a sector
//! written twice does not go back to the older bytes once it has the newer ones.

use super::{Entry, Log, SECTOR};
use crate::disk::DiskImage;
use crate::run_dir::RunDir;
use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A moment at which the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// How many flushes were done.
    pub flushes: usize,
    /// What happened to the writes after the last of them; `None`: the power went with the flush.
    pub lost: Option<u64>,
}

/// A disk and what was written to it.
pub struct Replay {
    log: Log,
    /// The disk as it was after so many flushes, and the next entry.
    disk: DiskImage,
    flushes: usize,
    next: usize,
    _dir: RunDir,
}

impl Replay {
    /// Begins with the disk as it was before the recording.
    pub fn new(before: &DiskImage, log: Log) -> Result<Self> {
        let dir = RunDir::new("replay")?;
        let disk = before.copy(&dir.path().join("disk.img"), 0)?;
        Ok(Replay { log, disk, flushes: 0, next: 0, _dir: dir })
    }

    /// Writes the disk as it was at `moment` to `to`. Moments have to come in order.
    ///
    /// # Errors
    /// When the moment is before an earlier one or after the end, or a file cannot be written.
    pub fn disk_at(&mut self, moment: Moment, to: &Path) -> Result<DiskImage> {
        ensure!(moment.flushes >= self.flushes, "go back in a recording to flush {}", moment.flushes);
        let working = open(self.disk.path())?;
        while self.flushes < moment.flushes {
            let entry = self.log.entries.get(self.next).context("find a flush after the end of a recording")?;
            match entry {
                Entry::Flush => self.flushes += 1,
                other => apply(&working, &self.log, *other, None)?,
            }
            self.next += 1;
        }
        let disk = self.disk.copy(to, 0)?;
        if let Some(seed) = moment.lost {
            let since = self.log.entries[self.next..].iter().take_while(|entry| **entry != Entry::Flush);
            let (file, mut rng) = (open(to)?, fastrand::Rng::with_seed(seed));
            // The power cut comes before the next flush: nothing later was written.
            let since: Vec<&Entry> = since.collect();
            let written = rng.usize(..=since.len());
            for entry in &since[..written] {
                apply(&file, &self.log, **entry, Some(&mut rng))?;
            }
        }
        Ok(disk)
    }
}

fn open(path: &Path) -> Result<File> {
    File::options().read(true).write(true).open(path).with_context(|| format!("open {}", path.display()))
}

/// Applies an entry; with `chance`, only the part that a disk might have written before a power cut: all of it,
/// nothing, or some sectors.
fn apply(file: &File, log: &Log, entry: Entry, chance: Option<&mut fastrand::Rng>) -> Result<()> {
    let (at, len) = match entry {
        Entry::Flush => return Ok(()),
        Entry::Write { at, len, .. } | Entry::Discard { at, len } => (at, len),
    };
    let bytes = match entry {
        Entry::Write { data, .. } => Some(log.data(data, len)?).filter(|bytes| bytes.iter().any(|b| *b != 0)),
        _ => None,
    };
    let kept = chance.map_or_else(|| vec![(0, len)], |rng| kept(len, rng));
    for (from, len) in kept {
        match &bytes {
            Some(bytes) => {
                let part = usize::try_from(from)?..usize::try_from(from + len)?;
                file.write_all_at(&bytes[part], at + from)
                    .with_context(|| format!("write to a disk at {}", at + from))?;
            }
            // Zeros take no space.
            None => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, flags, at + from, len).with_context(|| format!("zero a disk at {}", at + from))?;
            }
        }
    }
    Ok(())
}

/// Which parts of a write of `len` bytes reached the disk: offset and length, bytes.
fn kept(len: u64, rng: &mut fastrand::Rng) -> Vec<(u64, u64)> {
    match rng.u8(..8) {
        0..3 => vec![],
        3..6 => vec![(0, len)],
        // Cut after some sector, as in a disk that writes them one after the other.
        6 => vec![(0, rng.u64(..=len / SECTOR) * SECTOR)].into_iter().filter(|(_, len)| *len > 0).collect(),
        // Every sector for itself.
        _ => (0..len / SECTOR).filter(|_| rng.bool()).map(|sector| (sector * SECTOR, SECTOR)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::recorded;
    use super::*;
    use std::collections::BTreeSet;

    /// A disk of 8 sectors of `o`, and a recording: sector 1 `a`, flush, sectors 1 and 2 `b`, sector 1 `c`, flush,
    /// zeros.
    fn fixture(dir: &Path) -> Replay {
        let path = dir.join("before");
        std::fs::write(&path, [b'o'; 8 * 512]).unwrap();
        let log = dir.join("log");
        let (a, b, c) = ([b'a'; 512], [b'b'; 1024], [b'c'; 512]);
        recorded(&log, &[(1, 0, &a), (0, 1, &[]), (1, 0, &b), (1, 0, &c), (0, 1, &[]), (3, 0, &[0; 512])]);
        let before = DiskImage::bare(&path);
        Replay::new(&before, Log::open(&log).unwrap()).unwrap()
    }

    /// First byte of each sector.
    fn shown(disk: &DiskImage) -> String {
        let bytes = std::fs::read(disk.path()).unwrap();
        bytes.chunks(512).map(|sector| if sector[0] == 0 { '0' } else { char::from(sector[0]) }).collect()
    }

    #[test]
    fn at_a_flush_everything_before_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut replay = fixture(dir.path());
        assert_eq!(replay.log.flushes(), 2);
        let mut at = |flushes| shown(&replay.disk_at(Moment { flushes, lost: None }, &dir.path().join("at")).unwrap());
        assert_eq!([at(0), at(1), at(2)], ["oooooooo", "oaoooooo", "ocbooooo"]);
        let back = replay.disk_at(Moment { flushes: 1, lost: None }, &dir.path().join("at")).unwrap_err();
        assert_eq!(back.to_string(), "go back in a recording to flush 1");
        assert!(replay.disk_at(Moment { flushes: 3, lost: None }, &dir.path().join("at")).is_err());
    }

    #[test]
    fn between_flushes_any_part_may_be_there_but_nothing_older_and_nothing_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut replay = fixture(dir.path());
        let mut seen = BTreeSet::new();
        for lost in 0..400 {
            let moment = Moment { flushes: 1, lost: Some(lost) };
            seen.insert(shown(&replay.disk_at(moment, &dir.path().join("at")).unwrap()));
        }
        let possible = ["oabooooo", "oaoooooo", "obbooooo", "oboooooo", "ocbooooo", "ocoooooo"];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), possible);
        let after = (0..50).map(|lost| {
            let moment = Moment { flushes: 2, lost: Some(lost) };
            shown(&replay.disk_at(moment, &dir.path().join("at")).unwrap())
        });
        assert_eq!(after.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), ["ocb0oooo", "ocbooooo"]);
    }
}
