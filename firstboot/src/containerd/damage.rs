// SPDX-License-Identifier: Apache-2.0
//! What tells a damaged state of containerd from a runtime that is only slow, stopped or set up wrongly: systemd, containerd's
//! log of this boot, and a few files. Only looks.

use super::RUNTIME;
use crate::fault::Fault;
use crate::host::Host;
use crate::paths::CONTAINERD_ROOT;
use anyhow::Result;

/// What containerd 2.x logs when bbolt finds its file torn: as an error, which leaves containerd running without CRI, or in
/// the stack of a panic. The last one is of a snapshotter whose data base is empty.
const SIGNS: [&str; 5] =
    ["invalid database", "checksum error", "file size too small", "go.etcd.io/bbolt", "missing parent"];
/// So many starts by systemd after the first are no accident.
const RESTARTS: u32 = 2;

/// What systemd says of containerd.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Runs,
    Starts,
    /// It ended, and systemd keeps starting it.
    Fails,
    Stopped,
}

impl Unit {
    pub(crate) fn asked(host: &Host) -> Result<Unit> {
        // A question, and no effect.
        let said = host.sys().run(&["systemctl", "show", "--property=ActiveState,NRestarts", RUNTIME], None)?;
        let value = |key: &str| said.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let restarts: u32 = value("NRestarts").parse().unwrap_or(0);
        Ok(match value("ActiveState") {
            "active" | "reloading" => Unit::Runs,
            // One that says nothing has no such unit.
            "inactive" | "failed" | "" => Unit::Stopped,
            _ if restarts >= RESTARTS => Unit::Fails,
            _ => Unit::Starts,
        })
    }
}

/// What containerd has logged in this boot; nothing where there is no log.
fn log(host: &Host) -> String {
    let log =
        ["journalctl", "--quiet", "--no-pager", "--boot", "--unit=containerd.service", "--output=cat", "--lines=2000"];
    host.sys().run(&log, None).unwrap_or_default()
}

/// Why containerd's state is damaged, by its own word in this boot.
pub(crate) fn sign(host: &Host) -> Option<String> {
    sign_in(&log(host))
}

fn sign_in(text: &str) -> Option<String> {
    SIGNS.iter().find(|sign| text.contains(**sign)).map(|sign| format!("it says \"{sign}\""))
}

/// A torn file that keeps images of the bundle from being imported again, or pods from starting.
fn torn_blob(host: &Host) -> Result<Option<String>> {
    let directory = format!("{CONTAINERD_ROOT}/io.containerd.content.v1.content/blobs/sha256");
    let empty = |path: &String| Ok::<_, anyhow::Error>(host.size_and_mode(path)?.is_some_and(|(size, _)| size == 0));
    for blob in host.list(&directory)? {
        if empty(&format!("{directory}/{blob}"))? {
            return Ok(Some(format!("blob {blob} is empty")));
        }
    }
    Ok(None)
}

/// Why no pod starts, where the runtime knows the pause image: that is one file in one layer, torn, or gone with the
/// snapshotter's data base. Containerd is asked only where that layer is not found: it may lie elsewhere.
///
/// An import that was cut off leaves what it had unpacked, torn, beside the layer of the next import. Containerd numbers
/// them, and makes one only while it has none, so the last one counts.
pub(crate) fn torn_pause(host: &Host, image: &str) -> Result<Option<String>> {
    let directory = format!("{CONTAINERD_ROOT}/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let mut last: Option<(u64, u64, String)> = None;
    for snapshot in host.list(&directory)? {
        let Ok(number) = snapshot.parse() else { continue };
        let layer = format!("{directory}/{snapshot}/fs");
        let Some((size, _)) = host.size_and_mode(&format!("{layer}/pause"))? else { continue };
        if host.list(&layer)? == ["pause"] {
            last = last.max(Some((number, size, layer)));
        }
    }
    Ok(match last {
        Some((_, 0, layer)) => Some(format!("the pause image's program in {layer} is empty")),
        Some(_) => None,
        None => log(host)
            .contains(&format!("The image {image} is not unpacked"))
            .then(|| "the pause image's layer is gone".to_owned()),
    })
}

/// Why a runtime that does not answer has to be set aside; none where nothing says that its state is to blame.
pub(crate) fn damage(host: &Host) -> Result<Option<String>> {
    Ok(match Unit::asked(host)? {
        Unit::Runs | Unit::Fails => sign(host),
        Unit::Starts | Unit::Stopped => None,
    })
}

/// Why images could not be imported, where the runtime's state is to blame.
pub(crate) fn damage_by(host: &Host, fault: &Fault) -> Result<Option<String>> {
    match sign_in(&fault.to_string()).or_else(|| sign(host)) {
        Some(why) => Ok(Some(why)),
        None => torn_blob(host),
    }
}
