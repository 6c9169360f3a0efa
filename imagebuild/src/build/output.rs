// SPDX-License-Identifier: Apache-2.0
//! The directory that a user gets: image, compressed image, manifest, bill of materials, checksums.

use super::Image;
use crate::progress::step;
use crate::{digest, disk};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread::available_parallelism;

const ENDINGS: [&str; 4] = ["img", "img.zst", "manifest.json", "sbom.json"];
/// Beyond this one, a level costs minutes and saves little.
const ZSTD_LEVEL: i32 = 12;
/// Bytes that a repetition may lie back, as a power of 2: the most that every program unpacks without being asked to
/// (`zstd --long`). Programs of one project have much in common, and lie far apart; it saves a twentieth.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Copies an image out of the cache to `out`, with its checksums.
pub fn write(image: &Image, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let packed = image.dir.join(image.file("img.zst"));
    if !packed.exists() {
        step("compress the image", || compress(&image.raw(), &packed))?;
    }
    let sums = image.dir.join("SHA256SUMS");
    if !sums.exists() {
        step("sum up the image", || {
            let mut lines = String::new();
            for ending in ENDINGS {
                let name = image.file(ending);
                lines += &format!("{}  {name}\n", digest::file(&image.dir.join(&name))?);
            }
            fs::write(&sums, lines).with_context(|| format!("write {}", sums.display()))
        })?;
    }
    step("copy the image", || {
        for ending in ENDINGS {
            let name = image.file(ending);
            disk::copy_sparse(&image.dir.join(&name), &out.join(&name))?;
        }
        let ours = fs::read_to_string(&sums).with_context(|| format!("read {}", sums.display()))?;
        let target = out.join("SHA256SUMS");
        let others = fs::read_to_string(&target).unwrap_or_default();
        fs::write(&target, merged(&others, &ours)).with_context(|| format!("write {}", target.display()))
    })
}

/// Compresses a file. It gets its name only when it is complete.
fn compress(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let sink = File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
    let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL).context("start zstd")?;
    encoder.include_checksum(true).context("set up zstd")?;
    encoder.long_distance_matching(true).context("set up zstd")?;
    encoder.window_log(ZSTD_WINDOW_LOG).context("set up zstd")?;
    let threads = available_parallelism().map_or(1, |n| n.get() as u32);
    encoder.multithread(threads).context("set up zstd")?;
    io::copy(&mut source, &mut encoder).with_context(|| format!("compress {}", from.display()))?;
    encoder.finish().with_context(|| format!("compress {}", from.display()))?;
    fs::rename(&partial, to).with_context(|| format!("rename {}", partial.display()))
}

/// The lines of both, each file once, ours before theirs, sorted by name.
fn merged(others: &str, ours: &str) -> String {
    let mut lines = BTreeMap::new();
    for line in others.lines().chain(ours.lines()) {
        if let Some((sum, name)) = line.split_once("  ") {
            lines.insert(name, sum);
        }
    }
    lines.into_iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_other_images_stay() {
        assert_eq!(merged("1  b.img\n2  a.img\n", "3  b.img\n"), "2  a.img\n3  b.img\n");
    }
}
