// SPDX-License-Identifier: Apache-2.0
//! Compresses files for a bundle: one zstd frame each, with a window that a small device can afford. Results are
//! cached by content, so that a changed component costs only its own compression.

use crate::{cache, digest};
use anyhow::{Context, Result, bail};
use firstboot::bundle::{Blob, MAX_WINDOW_LOG};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use zstd::zstd_safe::CParameter;

/// Where more time buys little. Measured on kubelet (84 MB), processor seconds and result: level 12: 4 s, 21.1 MB;
/// 15: 19 s, 20.9 MB; 17: 35 s, 19.7 MB; 19: 54 s, 18.7 MB. A device unpacks all of them equally fast.
pub const LEVEL: i32 = 12;

/// A compressed file and both of its digests.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The compressed file in the cache.
    pub path: PathBuf,
    /// What the manifest says of it.
    pub blob: Blob,
    /// Bytes of the content.
    pub size: u64,
    /// Hex SHA-256 of the content.
    pub sha256: String,
}

/// Compresses `content`, or takes the result from the cache.
pub fn ensure(content: &Path) -> Result<Packed> {
    let sha256 = digest::file(content)?;
    let dir = cache::dir()?.join("blobs").join(format!("{}-{LEVEL}-{MAX_WINDOW_LOG}", &sha256[..32]));
    cache::once(&dir, |scratch| pack(content, &scratch.join("blob")))?;
    let path = dir.join("blob");
    let blob = Blob { sha256: digest::file(&path)?, size: length(&path)? };
    Ok(Packed { path, blob, size: length(content)?, sha256 })
}

fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("read the size of {}", path.display()))?.len())
}

/// Writes `from` as one frame to `to`: content size in the header, checksum at the end, the same bytes on a machine
/// with any number of processors.
pub fn pack(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let out = File::create(to).with_context(|| format!("create {}", to.display()))?;
    // zstd splits by job size, not by number of workers; only none at all gives other bytes.
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let compress = || -> std::io::Result<()> {
        let mut encoder = zstd::Encoder::new(out, LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(MAX_WINDOW_LOG))?;
        encoder.set_parameter(CParameter::NbWorkers(workers))?;
        encoder.include_checksum(true)?;
        encoder.include_contentsize(true)?;
        encoder.set_pledged_src_size(Some(source.metadata()?.len()))?;
        std::io::copy(&mut source, &mut encoder)?;
        encoder.finish()?.flush()
    };
    compress().with_context(|| format!("compress {}", from.display()))
}

/// Bytes of memory that the frame at the start of `bytes` needs as its window (RFC 8878, 3.1.1.1).
pub fn window(bytes: &[u8]) -> Result<u64> {
    let (Some(magic), Some(&descriptor)) = (bytes.get(..4), bytes.get(4)) else {
        bail!("read zstd frame: too short");
    };
    if magic != [0x28, 0xb5, 0x2f, 0xfd] {
        bail!("read zstd frame: wrong magic number");
    }
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let byte = *bytes.get(5).context("read zstd frame: too short")?;
        let base = 1u64 << (10 + (byte >> 3));
        return Ok(base + base / 8 * u64::from(byte & 7));
    }
    // Without a window descriptor the window is the whole content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (length, offset) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let field = bytes.get(5 + dictionary..5 + dictionary + length).context("read zstd frame: too short")?;
    Ok(field.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)) + offset)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("in"), content).unwrap();
        pack(&dir.path().join("in"), &dir.path().join("out")).unwrap();
        std::fs::read(dir.path().join("out")).unwrap()
    }

    #[test]
    fn a_large_file_keeps_to_the_window_and_comes_back_whole() {
        // Does not compress away, and repeats at a distance beyond the window.
        let mut state = 1u32;
        let mut content: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 28) as u8
            })
            .collect();
        content.extend_from_within(..);
        let bytes = packed(&content);
        assert_eq!(window(&bytes).unwrap(), 1 << MAX_WINDOW_LOG);
        assert_ne!(bytes[4] & 0x04, 0, "no checksum");
        assert_eq!(zstd::decode_all(bytes.as_slice()).unwrap(), content);
        assert_eq!(packed(&content), bytes);
    }

    #[test]
    fn a_small_file_needs_no_more_than_itself() {
        for size in [0, 1, 255, 256, 70_000] {
            let bytes = packed(&vec![7; size]);
            assert!(window(&bytes).unwrap() <= (size as u64).max(1024), "{size}: {}", window(&bytes).unwrap());
        }
    }

    #[test]
    fn window_descriptors_are_read_as_the_format_says() {
        let frame = |descriptor: u8, rest: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd, descriptor], rest].concat();
        // Exponent 11, mantissa 0: 2 MiB; mantissa 1 adds an eighth.
        assert_eq!(window(&frame(0, &[11 << 3])).unwrap(), 2 << 20);
        assert_eq!(window(&frame(0, &[11 << 3 | 1])).unwrap(), (2 << 20) + (2 << 17));
        assert_eq!(window(&frame(0x20 | 0x40, &[1, 0])).unwrap(), 257);
        assert_eq!(window(b"hello").unwrap_err().to_string(), "read zstd frame: wrong magic number");
        assert_eq!(window(&frame(0, &[])).unwrap_err().to_string(), "read zstd frame: too short");
    }
}
