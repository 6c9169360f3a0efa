// SPDX-License-Identifier: Apache-2.0
//! Tests of writing several cards from one reader: files in the place of devices.

use super::*;
use crate::exit;
use crate::flash::chunk::is_zero;
use crate::flash::lane::Show;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::io::{self, Cursor};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const QUIET: Show = Show::Json;

fn job(path: &Path) -> Job {
    Job { card: Card::open(path).unwrap(), lane: Lane::new(&QUIET, &path.display().to_string(), None) }
}

fn card(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, vec![0xee; size]).unwrap();
    path
}

/// Bytes that differ everywhere, with a hole.
fn image() -> Vec<u8> {
    let mut state = 1u32;
    let mut image: Vec<u8> = (0..3 * CHUNK)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    image[CHUNK..2 * CHUNK].fill(0);
    image
}

fn text(result: &Result<()>) -> String {
    result.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default()
}

#[test]
fn a_card_that_fails_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let good = [card(dir.path(), "a", 4 * CHUNK), card(dir.path(), "b", 3 * CHUNK)];
    let small = card(dir.path(), "small", 2 * CHUNK);
    // A file that the kernel refuses to write, as a card whose controller has given up.
    let sealed = memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&sealed, 4 * CHUNK as u64).unwrap();
    fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    let broken = PathBuf::from(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
    let mut jobs = vec![job(&good[0]), job(&broken), job(&small), job(&good[1])];
    let results = pour(&mut Cursor::new(&image), image.len() as u64, &mut jobs, &AtomicBool::new(false));
    assert_eq!(text(&results[0]), "");
    assert_eq!(text(&results[3]), "");
    let refused = "Operation not permitted (os error 1)";
    assert_eq!(text(&results[1]), format!("clear the partition table of {}: {refused}", broken.display()));
    assert_eq!(text(&results[2]), format!("write {}: the image is larger than its 8388608 bytes", small.display()));
    for path in &good {
        assert!(std::fs::read(path).unwrap()[..image.len()] == image[..], "{}", path.display());
    }
    let bytes = std::fs::read(&small).unwrap();
    assert!(is_zero(&bytes[..1 << 20]) && is_zero(&bytes[bytes.len() - (1 << 20)..]), "it has no partition table");
}

/// Content that ends in some way after its first bytes.
struct Ends<'a, F>(Cursor<Vec<u8>>, F, &'a AtomicBool);

impl<F: FnMut(&AtomicBool) -> io::Result<usize>> Read for Ends<'_, F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.0.read(to)? {
            0 => (self.1)(self.2),
            n => Ok(n),
        }
    }
}

#[test]
fn an_interruption_leaves_no_partition_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = card(dir.path(), "card", 4 * CHUNK);
    let stop = AtomicBool::new(false);
    let pressed = |stop: &AtomicBool| {
        stop.store(true, Ordering::Relaxed);
        Ok(0)
    };
    let mut content = Ends(Cursor::new(image()), pressed, &stop);
    let results = pour(&mut content, 0, &mut [job(&path)], &stop);
    assert_eq!(results[0].as_ref().map_err(exit::code), Err(exit::INTERRUPTED));
    assert_eq!(text(&results[0]), "interrupted");
    assert!(is_zero(&std::fs::read(&path).unwrap()[..1 << 20]));
}

#[test]
fn a_damaged_image_leaves_no_partition_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = card(dir.path(), "card", 4 * CHUNK);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    io::copy(&mut &image()[..], &mut encoder).unwrap();
    let mut packed = encoder.finish().unwrap();
    let stop = AtomicBool::new(false);
    let pour_packed = |packed: &[u8]| {
        let mut content = zstd::Decoder::new(packed).unwrap();
        let text = text(&pour(&mut content, 0, &mut [job(&path)], &stop)[0]);
        assert!(is_zero(&std::fs::read(&path).unwrap()[..1 << 20]));
        text
    };
    assert_eq!(pour_packed(&packed[..packed.len() / 2]), "read the image after 4194304 bytes: incomplete frame");
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xff);
    let damaged = pour_packed(&packed);
    assert!(damaged.starts_with("read the image after "), "{damaged}");
}

#[test]
fn a_truncated_image_leaves_no_partition_table() {
    let dir = tempfile::tempdir().unwrap();
    let cards = [card(dir.path(), "a", 4 * CHUNK), card(dir.path(), "b", 4 * CHUNK)];
    let (image, stop) = (image(), AtomicBool::new(false));
    let mut jobs = cards.each_ref().map(|path| job(path));
    let results = pour(&mut Cursor::new(&image), image.len() as u64 + 1, &mut jobs, &stop);
    for (result, path) in results.iter().zip(&cards) {
        let why = "it has 12582912 bytes of the 12582913 that its partition table names: it is truncated: get it again";
        assert_eq!(text(result), format!("read the image: {why}"));
        assert_eq!(result.as_ref().map_err(exit::code), Err(exit::FAILED));
        assert!(is_zero(&std::fs::read(path).unwrap()[..1 << 20]));
    }
}
