// SPDX-License-Identifier: Apache-2.0
//! Installs the bundle: each file is verified while it is unpacked, all of them become current by one rename.

use super::context::PhaseContext;
use crate::bundle::File as Entry;
use crate::bundle::installed::{CURRENT, Installed, missing};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Writer;
use crate::journal::{Effect, Record};
use crate::unpack::unpack;
use anyhow::{Context, Result};
use std::fs::File;
use std::sync::Mutex;

/// Commands that are found on PATH, as an administrator (and `kubeadm upgrade`) expects them.
const COMMANDS: &[&str] = &["kubelet", "kubeadm", "containerd", "containerd-shim-runc-v2", "ctr", "runc"];

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        let current = cx.host.read_link(CURRENT)? == Some(format!("bundles/{}", cx.bundle.id));
        Ok(current && missing(&cx.host, &cx.bundle)?.is_empty() && links_hold(cx)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
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

fn commands(cx: &PhaseContext) -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().copied().filter(|c| cx.bundle.manifest.files.iter().any(|f| f.path == format!("bin/{c}")))
}

fn links_hold(cx: &PhaseContext) -> Result<bool> {
    for name in commands(cx) {
        // A command that an administrator replaced is theirs; only a missing one is restored.
        if cx.host.read_link(&format!("/usr/bin/{name}"))?.is_none()
            && cx.host.size_and_mode(&format!("/usr/bin/{name}"))?.is_none()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Job<'a> {
    entry: &'a Entry,
    blob: File,
    writer: Writer,
}

/// Unpacks on every processor at once: decompression is what takes the time.
fn install(cx: &PhaseContext, missing: &[&Entry]) -> Result<(), Fault> {
    let tree = Effect::Tree { path: cx.bundle.dir() };
    if !cx.host.journal().knows(&cx.bundle.dir()) {
        cx.host.record(Record::Effect(tree)).owned_by(Owner::Host)?;
    }
    let mut jobs = Vec::new();
    for &entry in missing {
        let path = format!("{}/{}", cx.bundle.dir(), entry.path);
        let directory = path.rsplit_once('/').map_or("/", |(f, _)| f);
        cx.host.mkdir(directory, 0o755).owned_by(Owner::Host)?;
        let source = Installed::blob_path(&entry.blob.sha256);
        let blob = cx
            .host
            .reader(&source)
            .and_then(|b| b.with_context(|| format!("find {source}, bundle file {}", entry.path)))
            .coded(Code::BundleIncomplete)?;
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
    done.into_inner().map_err(|_| Fault::new(Code::Host, "unpack the bundle: a worker stopped"))?
}
