// SPDX-License-Identifier: Apache-2.0
//! The base as a raw disk image: unpacked or converted by what its first bytes are. Names lie.

use crate::cmd;
use crate::packing::{ZSTD_WINDOW_LOG_MAX, fill};
use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes that are copied at a time; of these, what is all zero becomes a hole.
const CHUNK: usize = 1 << 20;
/// Largest image that is unpacked, bytes: a file that claims more is a mistake or an attack.
const MOST: u64 = 1 << 40;

/// How a base is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Raw,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// <https://tukaani.org/xz/xz-file-format.txt>
    Xz,
    /// A zip archive with one image in it.
    Zip,
    /// A disk of QEMU, version 2 or 3.
    Qcow2,
}

impl Packing {
    /// What a file is by its first bytes.
    ///
    /// # Errors
    /// When it cannot be read or is empty, or is packed in a way that is not read here.
    pub fn of(path: &Path) -> Result<Packing> {
        let what = || format!("open {}", path.display());
        let mut file = File::open(path).with_context(what)?;
        ensure!(!file.metadata().with_context(what)?.is_dir(), "{}: it is a directory, not an image", what());
        let mut magic = [0; 8];
        let got = fill(&mut file, &mut magic).with_context(|| format!("read {}", path.display()))?;
        let starts = |with: &[u8]| magic[..got].starts_with(with);
        Ok(match () {
            () if got == 0 => bail!("{}: it is empty", what()),
            () if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => Packing::Zstd,
            () if starts(&[0x1f, 0x8b]) => Packing::Gzip,
            () if starts(b"\xfd7zXZ\0") => Packing::Xz,
            () if starts(b"PK\x03\x04") => Packing::Zip,
            () if starts(b"QFI\xfb") => Packing::Qcow2,
            () if starts(b"BZh") => {
                bail!("{}: it is packed with bzip2; unpack it first (bzip2 --decompress --keep)", what())
            }
            () if starts(b"7z\xbc\xaf\x27\x1c") => bail!("{}: it is packed with 7-Zip; unpack it first", what()),
            () => Packing::Raw,
        })
    }
}

/// Writes the raw image to the file `to`, which is empty and in `directory`; what is all zero becomes a hole.
///
/// # Errors
/// When the base is damaged or ends too early, or `to` cannot be written.
pub fn unpack(base: &Path, packing: Packing, to: &mut File, directory: &Path) -> Result<()> {
    let what = || format!("unpack {}", base.display());
    let open = || File::open(base).with_context(|| format!("open {}", base.display()));
    match packing {
        Packing::Raw => copy(&mut open()?, to, directory).with_context(|| format!("copy {}", base.display())),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::new(open()?).with_context(what)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).with_context(what)?;
            copy(&mut decoder, to, directory).with_context(what)
        }
        Packing::Gzip => copy(&mut MultiGzDecoder::new(BufReader::new(open()?)), to, directory).with_context(what),
        Packing::Xz => xz(base, to, directory).with_context(what),
        Packing::Zip => zip(open()?, to, directory).with_context(what),
        Packing::Qcow2 => {
            ensure!(cmd::found("qemu-img"), "convert {}: qemu-img is missing; install qemu-utils", base.display());
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "qcow2", "-O", "raw", "-n", "-S", "64k"]);
            // `-n` writes to what is there, which has to be as long as the disk.
            to.set_len(qcow2_size(base)?).with_context(|| format!("make room for {}", base.display()))?;
            let done = cmd::run(command.arg(base).arg(path_of(to)));
            done.map_err(|error| last_line(&error, directory)).with_context(|| format!("convert {}", base.display()))
        }
    }
}

/// A path by which this process and those that it starts open the file, also where it has no name.
pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// The size of a disk of QEMU: its header has it at byte 24 (docs/interop/qcow2.rst). One with another file below it is
/// refused: that file is not at hand, and its name would be anyone's.
fn qcow2_size(base: &Path) -> Result<u64> {
    let mut header = [0; 32];
    let mut file = File::open(base).with_context(|| format!("open {}", base.display()))?;
    file.read_exact(&mut header).with_context(|| format!("read {}: it ends in its header", base.display()))?;
    let number = |at: usize| header[at..at + 8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    ensure!(
        number(8) == 0,
        "convert {}: it is a layer over another file; flatten it first (qemu-img convert)",
        base.display()
    );
    let size = number(24);
    ensure!((1..=MOST).contains(&size), "convert {}: it claims to have {size} bytes", base.display());
    Ok(size)
}

/// What a program said last, instead of all that it said.
fn last_line(error: &Error, directory: &Path) -> Error {
    let text = format!("{error:#}");
    let last = text.lines().next_back().unwrap_or_default();
    // ENOSPC, as the C library says it.
    if last.ends_with("No space left on device") { no_space(directory) } else { anyhow!("{last}") }
}

fn no_space(directory: &Path) -> Error {
    anyhow!("write to {}: no space is left: make room there, or choose another directory (--out)", directory.display())
}

/// Why a file in this directory cannot be written.
fn unwritten(error: std::io::Error, directory: &Path) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_space(directory),
        _ => Error::new(error).context(format!("write to {}", directory.display())),
    }
}

fn xz(base: &Path, to: &mut File, directory: &Path) -> Result<()> {
    let mut command = Command::new("xz");
    command.args(["--decompress", "--stdout", "--threads=0", "--"]).arg(base);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start xz")?;
    let copied = copy(&mut child.stdout.take().context("take the output of xz")?, to, directory);
    let out = child.wait_with_output().context("wait for xz")?;
    // A copy that ends early closes the pipe: then xz ends by a signal, without a word.
    copied?;
    ensure!(out.status.success(), "{}", said(&out.stderr));
    Ok(())
}

/// What xz said: `xz: NAME: WHAT`.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.trim().rsplit(": ").next().unwrap_or_default();
    if last.is_empty() { "xz failed".to_owned() } else { last.to_owned() }
}

fn zip(file: File, to: &mut File, directory: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(file))?;
    let mut images = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index(index)?;
        let name = member.name()?.into_owned();
        if member.is_file() && [".img", ".raw", ".wic"].iter().any(|end| name.ends_with(end)) {
            images.push(index);
        }
    }
    let [one] = images[..] else {
        bail!("the zip archive has {} files that end in .img, .raw or .wic, and should have one", images.len())
    };
    copy(&mut archive.by_index(one)?, to, directory)
}

/// Copies to an empty file in `directory`, all of it or an error; zeros are left out.
fn copy(from: &mut dyn Read, to: &mut File, directory: &Path) -> Result<()> {
    let (mut buffer, zeros, mut length) = (vec![0; CHUNK], vec![0; CHUNK], 0u64);
    let failed = |error| unwritten(error, directory);
    loop {
        let got = fill(from, &mut buffer)?;
        if got == 0 {
            break;
        }
        if buffer[..got] == zeros[..got] {
            to.seek(SeekFrom::Current(got as i64)).map_err(failed)?;
        } else {
            to.write_all(&buffer[..got]).map_err(failed)?;
        }
        length += got as u64;
        ensure!(length <= MOST, "it has more than {MOST} bytes");
    }
    to.set_len(length).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_last_is_the_cause() {
        assert_eq!(said(b"xz: a.img.xz: Compressed data is corrupt\n"), "Compressed data is corrupt");
        assert_eq!((said(b""), said(b"\n")), ("xz failed".to_owned(), "xz failed".to_owned()));
        let last = |text: &'static str| last_line(&anyhow!(text), Path::new("out")).to_string();
        assert_eq!(last("run `qemu-img` (exit status: 1):\nqemu-img: a\nqemu-img: b"), "qemu-img: b");
        assert_eq!(
            last("run `qemu-img`:\nqemu-img: error while writing at byte 0: No space left on device"),
            "write to out: no space is left: make room there, or choose another directory (--out)"
        );
    }

    #[test]
    fn what_cannot_be_written_names_its_directory() {
        let error = unwritten(ErrorKind::ReadOnlyFilesystem.into(), Path::new("out"));
        assert_eq!(format!("{error:#}"), "write to out: read-only filesystem or storage medium");
    }
}
