// SPDX-License-Identifier: Apache-2.0
//! EROFS images, made from an archive by trixie's mkfs.erofs: without root, without unpacking, and with the same bytes
//! from the same archive.
//!
//! The program comes from the package archive of the image's release, not from the build machine's, so that every
//! machine makes the same image. It runs with its own dynamic linker and libraries, from the cache.

use crate::arch::Arch;
use crate::archive::Archive;
use crate::debian::{Debian, Package};
use crate::{cache, cmd, digest};
use anyhow::{Context, Result, ensure};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// How images are packed. lz4 unpacks fastest of what EROFS knows, and level 12 is its smallest; docs/rationale.md has the
/// figures. Blocks have 4096 bytes whatever the build machine's pages: kernels with any pages mount them.
const OPTIONS: [&str; 4] = ["--quiet", "-b4096", "-zlz4hc,level=12", "-C65536"];

/// mkfs.erofs in the cache.
#[derive(Debug, Clone)]
pub struct Mkfs {
    directory: PathBuf,
    arch: Arch,
    /// What its version is: file names of its package and of all that it needs.
    pub version: String,
}

impl Mkfs {
    /// mkfs.erofs for the build machine, fetched now when the cache does not have it.
    pub fn ensure() -> Result<Mkfs> {
        let arch = Arch::host()?;
        let debian = Debian::open(arch)?;
        let packages = debian.resolve(&["erofs-utils"], true)?;
        let version = packages.iter().map(Package::file_name).collect::<Vec<_>>().join("\n");
        let directory = cache::dir()?.join("erofs-utils").join(digest::key(&[&version]));
        cache::once(&directory, |scratch| {
            debian.fetch(&packages)?.iter().try_for_each(|deb| debian.unpack(deb, scratch))
        })?;
        Ok(Mkfs { directory, arch, version })
    }

    /// Packs an archive into the image file `to`. All its times become `time`, in seconds since 1970.
    ///
    /// # Errors
    /// When the archive cannot be read, or mkfs.erofs fails: with its words.
    pub fn pack(&self, archive: &Archive, uuid: uuid::Uuid, time: u64, to: &Path) -> Result<()> {
        let mut command = self.command();
        command.args(OPTIONS).args(["--tar=f", &format!("-T{time}"), &format!("-U{uuid}")]).arg(to);
        let shown = cmd::shown(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start `{shown}`"))?;
        let stream = child.stdin.take().context("take the input of mkfs.erofs")?;
        // It reads while it is waited for, so that neither side stops for a full pipe.
        let (sent, out) = thread::scope(|scope| {
            let writer = scope.spawn(move || archive.write(BufWriter::with_capacity(1 << 20, stream)));
            let out = child.wait_with_output();
            (writer.join(), out)
        });
        let out = out.with_context(|| format!("run `{shown}`"))?;
        // Its own words first: when it stops early, all that the writer sees is a closed pipe.
        ensure!(
            out.status.success(),
            "run `{shown}` ({}):\n{}",
            out.status,
            cmd::last_lines(&String::from_utf8_lossy(&out.stderr), 40)
        );
        sent.map_err(|_| anyhow::anyhow!("archive files: the thread ended"))?
    }

    fn command(&self) -> Command {
        let libraries = self.directory.join("usr/lib").join(self.arch.triplet());
        let mut command = Command::new(libraries.join(self.arch.linker()));
        command.arg("--library-path").arg(&libraries).arg(self.directory.join("usr/bin/mkfs.erofs"));
        command
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_archive_makes_the_same_image() {
        if !cmd::found("apt-get") {
            crate::skip::skip_unless_ci("apt-get is not installed");
            return;
        }
        let mkfs = Mkfs::ensure().unwrap();
        let mut archive = Archive::default();
        archive.file("usr/big", 0o4755, b"0123456789abcdef".repeat(100_000)).unwrap();
        archive.file("etc/empty", 0o600, Vec::new()).unwrap();
        archive.symlink("bin", "usr/bin").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, time| {
            let path = dir.path().join(name);
            mkfs.pack(&archive, uuid::Uuid::from_u128(7), time, &path).unwrap();
            std::fs::read(path).unwrap()
        };
        let image = make("a", 1000);
        // Superblock at 1024 (<https://erofs.docs.kernel.org/en/latest/core_ondisk.html>): magic, UUID at 80.
        assert_eq!(image[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
        assert_eq!(image[1024 + 48..1024 + 64], *uuid::Uuid::from_u128(7).as_bytes());
        assert!(image.len() < 100_000 && image.len() % 4096 == 0, "{} bytes", image.len());
        assert_eq!(image, make("b", 1000));
        assert_ne!(image, make("c", 1001));
    }

    #[test]
    fn a_failure_has_the_words_of_mkfs() {
        if !cmd::found("apt-get") {
            crate::skip::skip_unless_ci("apt-get is not installed");
            return;
        }
        let mut archive = Archive::default();
        archive.file("x", 0o644, vec![0; 1 << 22]).unwrap();
        let result = Mkfs::ensure().unwrap().pack(&archive, uuid::Uuid::nil(), 0, Path::new("/nowhere/x.erofs"));
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.starts_with("run `") && error.contains("No such file or directory"), "{error}");
    }
}
