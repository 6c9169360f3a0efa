// SPDX-License-Identifier: Apache-2.0
//! The directory that a user gets: image, compressed image, manifest, locked packages, bill of materials, provenance,
//! checksums and their signature.

use super::{Image, provenance};
use crate::progress::step;
use crate::sign::{SUMS_KEY, SUMS_SIGNATURE, Signer, verify_sums};
use crate::sums::SUMS;
use crate::{digest, disk};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread::available_parallelism;

const ENDINGS: [&str; 5] = ["img", "img.zst", "manifest.json", "packages.json", "sbom.json"];
/// What says how they were made.
const PROVENANCE: &str = "provenance.json";
/// Beyond this one, a level costs minutes and saves little.
const ZSTD_LEVEL: i32 = 12;
/// Bytes that a repetition may lie back, as a power of 2: the most that every program unpacks without being asked to
/// (`zstd --long`). Programs of one project have much in common, and lie far apart; it saves a twentieth.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Copies an image out of the cache to `out`, with its checksums, signed.
pub fn write(image: &Image, signer: &Signer, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let packed = image.dir.join(image.file("img.zst"));
    if !packed.exists() {
        step("compress the image", || compress(&image.raw(), &packed))?;
    }
    let sums = image.dir.join(SUMS);
    if !sums.exists() {
        step("sum up the image", || {
            let mut files = Vec::new();
            for ending in ENDINGS {
                let name = image.file(ending);
                files.push((name.clone(), digest::file(&image.dir.join(&name))?));
            }
            let name = image.file(PROVENANCE);
            let path = image.dir.join(&name);
            provenance::write(image, &files, &path)?;
            files.push((name, digest::file(&path)?));
            let lines: String = files.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
            fs::write(&sums, lines).with_context(|| format!("write {}", sums.display()))
        })?;
    }
    step("copy the image", || {
        for ending in ENDINGS.into_iter().chain([PROVENANCE]) {
            copy(&image.dir, out, &image.file(ending))?;
        }
        let ours = fs::read_to_string(&sums).with_context(|| format!("read {}", sums.display()))?;
        write_sums(&ours, signer, out)
    })
}

/// Adds lines to the sums of a directory, and signs them. Lines that were there stay when they are signed by the same key:
/// a signature of ours must not cover what another wrote.
fn write_sums(ours: &str, signer: &Signer, out: &Path) -> Result<()> {
    let target = out.join(SUMS);
    let mut others = fs::read_to_string(&target).unwrap_or_default();
    if !others.is_empty() && verify_sums(&target, std::slice::from_ref(signer.public())).is_err() {
        let theirs = merged(&others, "") != merged("", ours);
        if theirs {
            eprintln!("imagebuild: warning: {} was not signed by this key: it is begun anew", target.display());
        }
        others.clear();
    }
    let text = merged(&others, ours);
    let signature = signer.sign(text.as_bytes())?;
    let files = [(SUMS_KEY, format!("{}\n", signer.public()).into_bytes()), (SUMS, text.into_bytes())];
    for (name, bytes) in files.into_iter().chain([(SUMS_SIGNATURE, signature)]) {
        let path = out.join(name);
        let partial = out.join(format!("{name}.partial"));
        let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &path));
        written.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Copies a file from one directory to another. It gets its name only when it is complete: under that it is flashed.
fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    let partial = to.join(format!("{name}.partial"));
    let copied = disk::copy_sparse(&from.join(name), &partial)
        .and_then(|()| fs::rename(&partial, to.join(name)).with_context(|| format!("rename {}", partial.display())));
    if copied.is_err() {
        // It may be most of what the disk has space for.
        let _ = fs::remove_file(&partial);
    }
    copied
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
    let lines = digest::lines(others).chain(digest::lines(ours));
    let lines: BTreeMap<&str, &str> = lines.map(|(sum, name)| (name, sum)).collect();
    lines.into_iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sign::{self, PROGRAM};

    #[test]
    fn sums_are_signed_and_cover_nothing_that_others_wrote() {
        if !crate::cmd::found(PROGRAM) {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let signer = |name: &str| {
            let key = out.join(name);
            sign::make_key(&key).unwrap();
            Signer::open(Some(&key)).unwrap()
        };
        let (own, other) = (signer("own"), signer("other"));
        let sums = || fs::read_to_string(out.join(SUMS)).unwrap();
        let good = |signer: &Signer| sign::verify_sums(&out.join("a.img"), &[signer.public().clone()]).is_ok();
        write_sums("1  a.img\n", &own, out).unwrap();
        write_sums("2  b.img\n", &own, out).unwrap();
        assert_eq!((sums().as_str(), good(&own), good(&other)), ("1  a.img\n2  b.img\n", true, false));
        // A line that was changed is not signed, and neither is what another key signed.
        fs::write(out.join(SUMS), "9  a.img\n2  b.img\n").unwrap();
        write_sums("3  c.img\n", &own, out).unwrap();
        assert_eq!((sums().as_str(), good(&own)), ("3  c.img\n", true));
        write_sums("4  d.img\n", &other, out).unwrap();
        assert_eq!((sums().as_str(), good(&own), good(&other)), ("4  d.img\n", false, true));
        let key = sign::keys(&out.join(SUMS_KEY)).unwrap();
        assert_eq!(key[0].key, other.public().key);
    }

    #[test]
    fn a_copy_has_its_name_when_it_is_complete() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [from, to] = dirs.each_ref().map(|dir| dir.path());
        fs::write(to.join("a.img"), "the former one").unwrap();
        // Another name of the former file shows that it was not written over.
        fs::hard_link(to.join("a.img"), to.join("held")).unwrap();
        let error = format!("{:#}", copy(from, to, "a.img").unwrap_err());
        assert!(error.starts_with("run `cp --sparse=always --reflink=auto "), "{error}");
        assert_eq!(fs::read(to.join("a.img")).unwrap(), b"the former one");
        fs::write(from.join("a.img"), "the new one").unwrap();
        // What an interrupted run has left.
        fs::write(to.join("a.img.partial"), "half of a longer one").unwrap();
        copy(from, to, "a.img").unwrap();
        assert_eq!(fs::read(to.join("a.img")).unwrap(), b"the new one");
        assert_eq!(fs::read(to.join("held")).unwrap(), b"the former one");
        assert_eq!(fs::read_dir(to).unwrap().count(), 2);
    }

    #[test]
    fn sums_of_other_images_stay() {
        assert_eq!(merged("1  b.img\n2  a.img\n", "3  b.img\n"), "2  a.img\n3  b.img\n");
    }
}
