// SPDX-License-Identifier: Apache-2.0
//! Looking for a secret on a whole raw disk: files, free space, journals and swap alike.

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use rustix::fs::SeekFrom;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK: usize = 4 << 20;

/// Byte offsets of `text` in `disk`, in UTF-8 or UTF-16LE, sorted. Holes of a sparse file are skipped:
/// they hold zeros.
pub fn find(disk: &Path, text: &str) -> Result<Vec<u64>> {
    let mut wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // The last byte of a Latin character is zero: it may be in a hole, and does not matter.
    wide.pop();
    let forms = [text.as_bytes(), &wide];
    let finders = forms.map(Finder::new);
    let overlap = wide.len().saturating_sub(1) as u64;
    let file = File::open(disk).with_context(|| format!("open {}", disk.display()))?;
    let mut found = BTreeSet::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_data(&file, at).with_context(|| format!("seek in {}", disk.display()))? {
        // A text may begin in the data before a hole only if the hole cuts it, so extents do not have to overlap.
        let mut from = start;
        while from < end {
            let want = usize::try_from(end - from).unwrap_or(CHUNK).min(CHUNK);
            let part = &mut buffer[..want];
            file.read_exact_at(part, from).with_context(|| format!("read {} at {from}", disk.display()))?;
            for finder in &finders {
                found.extend(finder.find_iter(part).map(|i| from + i as u64));
            }
            let next = from + want as u64;
            from = if next < end { next - overlap } else { next };
        }
        at = end;
    }
    Ok(found.into_iter().collect())
}

/// The next stretch of data of a file at or after `at`: where it begins and ends.
pub(crate) fn next_data(file: &File, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        // No data beyond `at`.
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(parts: &[(u64, &[u8])], len: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        for (offset, bytes) in parts {
            file.as_file().write_all_at(bytes, *offset).unwrap();
        }
        file
    }

    #[test]
    fn found_in_both_encodings_at_the_ends_and_across_chunks() {
        let across = CHUNK as u64 - 3;
        let full = vec![b'x'; CHUNK * 2];
        let parts: [(u64, &[u8]); 5] = [
            (0, &full),
            (0, b"secret"),
            (across, b"secret"),
            (90 << 20, b"s\0e\0c\0r\0e\0t\0"),
            ((100 << 20) - 6, b"secret"),
        ];
        let disk = disk(&parts, 100 << 20);
        assert_eq!(find(disk.path(), "secret").unwrap(), [0, across, 90 << 20, (100 << 20) - 6]);
        assert_eq!(find(disk.path(), "secre7").unwrap(), [0; 0]);
    }
}
