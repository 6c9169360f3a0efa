// SPDX-License-Identifier: Apache-2.0
//! Installs the bundle: each file is verified while it is unpacked, all of them become current by one rename.

use super::Cx;
use crate::bundle::{BUNDLE_DIR, File as Entry, Manifest};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::{Host, Writer};
use crate::journal::{Effect, Record};
use crate::unpack::{hex, unpack};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::sync::Mutex;

/// Link to the bundle in use.
pub const CURRENT: &str = "/opt/firstboot/current";
/// Commands that are found on PATH, as an administrator (and `kubeadm upgrade`) expects them.
const COMMANDS: &[&str] = &["kubelet", "kubeadm", "containerd", "containerd-shim-runc-v2", "ctr", "runc"];
/// What must be left on the disk besides the bundle: pods, logs and their images need it.
const HEADROOM: u64 = 256 << 20;

/// The bundle that the image brings.
pub struct Installed {
    /// Its table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: names the folder on the device.
    pub id: String,
}

impl Installed {
    /// Reads the image's bundle.
    ///
    /// # Errors
    /// An image fault when the manifest is missing or of another format.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let path = format!("{BUNDLE_DIR}/manifest.json");
        let bytes = host.read(&path).and_then(|b| b.with_context(|| format!("find {path}"))).owned_by(Owner::Image)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("read {path}")).owned_by(Owner::Image)?;
        let id = hex(&Sha256::digest(&bytes)[..8]);
        Ok(Installed { manifest, id })
    }

    fn dir(&self) -> String {
        format!("/opt/firstboot/bundles/{}", self.id)
    }

    /// Where a blob lies in the image.
    pub(crate) fn blob_path(sha256: &str) -> String {
        format!("{BUNDLE_DIR}/blobs/{sha256}")
    }
}

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        let current = cx.host.read_link(CURRENT)? == Some(format!("bundles/{}", cx.bundle.id));
        Ok(current && missing(&cx.host, &cx.bundle)?.is_empty() && links_hold(cx)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let missing = missing(&cx.host, &cx.bundle).owned_by(Owner::Host)?;
    install(cx, &missing)?;
    let switch = || -> Result<()> {
        cx.host.symlink(CURRENT, &format!("bundles/{}", cx.bundle.id))?;
        for name in commands(cx) {
            cx.host.symlink(&format!("/usr/bin/{name}"), &format!("{CURRENT}/bin/{name}"))?;
        }
        Ok(())
    };
    switch().owned_by(Owner::Host)
}

/// Files that are not there in full. What is renamed into place was verified, so size and mode tell.
fn missing<'b>(host: &Host, bundle: &'b Installed) -> Result<Vec<&'b Entry>> {
    let mut missing = Vec::new();
    for entry in &bundle.manifest.files {
        let path = format!("{}/{}", bundle.dir(), entry.path);
        if host.size_and_mode(&path)? != Some((entry.size, entry.mode)) {
            missing.push(entry);
        }
    }
    Ok(missing)
}

fn commands(cx: &Cx) -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().copied().filter(|c| cx.bundle.manifest.files.iter().any(|f| f.path == format!("bin/{c}")))
}

fn links_hold(cx: &Cx) -> Result<bool> {
    for name in commands(cx) {
        // A command that an administrator replaced is theirs; only a missing one is ours to mend.
        if cx.host.read_link(&format!("/usr/bin/{name}"))?.is_none()
            && cx.host.size_and_mode(&format!("/usr/bin/{name}"))?.is_none()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of the root file system that installing the bundle still takes, with what pods need besides. The container
/// images are unpacked by the runtime later; their room is asked for before anything is installed, while a clear
/// answer costs nothing.
pub(crate) fn room(host: &Host, bundle: &Installed) -> Result<u64> {
    let missing = missing(host, bundle)?;
    if missing.is_empty() {
        return Ok(HEADROOM);
    }
    let files: u64 = missing.iter().map(|f| f.size).sum();
    let images: u64 = bundle.manifest.images.iter().map(|i| i.size * 2).sum();
    Ok(files + images + HEADROOM)
}

struct Job<'a> {
    entry: &'a Entry,
    blob: File,
    writer: Writer,
}

/// Unpacks on every processor at once: decompression is what takes the time.
fn install(cx: &Cx, missing: &[&Entry]) -> Result<(), Fault> {
    let tree = Effect::Tree { path: cx.bundle.dir() };
    if !cx.host.journal().knows(&cx.bundle.dir()) {
        cx.host.record(Record::Effect(tree)).owned_by(Owner::Host)?;
    }
    let mut jobs = Vec::new();
    for &entry in missing {
        let path = format!("{}/{}", cx.bundle.dir(), entry.path);
        let folder = path.rsplit_once('/').map_or("/", |(f, _)| f);
        cx.host.mkdir(folder, 0o755).owned_by(Owner::Host)?;
        let source = Installed::blob_path(&entry.blob.sha256);
        let blob = cx
            .host
            .reader(&source)
            .and_then(|b| b.with_context(|| format!("find {source}, bundle file {}", entry.path)))
            .owned_by(Owner::Image)?;
        jobs.push(Job { entry, blob, writer: cx.host.create(&path, entry.mode).owned_by(Owner::Host)? });
    }
    // The largest first, so that no processor is left with it at the end.
    jobs.sort_by_key(|j| j.entry.size);
    for writer in unpack_all(jobs)? {
        cx.host.finish(writer).owned_by(Owner::Host)?;
    }
    Ok(())
}

fn unpack_all(jobs: Vec<Job<'_>>) -> Result<Vec<Writer>, Fault> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(jobs);
    let done = Mutex::new(Ok(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(mut job) = queue.lock().ok().and_then(|mut q| q.pop()) else { return };
                    let name = format!("bundle file {}", job.entry.path);
                    let result = unpack(&name, job.blob, &job.entry.blob, job.entry.size, &mut job.writer.file);
                    let Ok(mut done) = done.lock() else { return };
                    match (result, &mut *done) {
                        (Ok(()), Ok(list)) => list.push(job.writer),
                        (Err(fault), Ok(_)) => *done = Err(fault),
                        (_, Err(_)) => {}
                    }
                    if done.is_err() {
                        return;
                    }
                }
            });
        }
    });
    done.into_inner().map_err(|_| Fault::new(Owner::Host, "unpack the bundle: a worker stopped"))?
}
