// SPDX-License-Identifier: Apache-2.0
//! A first boot resumed natively from one state of a recorded disk. Its root file system is below a directory.
//!
//! What no boot changes (/usr, the bundle in it but for its layers, which only a runtime reads) is read off the image once,
//! and linked. The API server has another address
//! here than guests have for it, which seed, files and cluster-info are given.

use super::recorded::{NODE, SERIAL};
use crate::native::Device;
use crate::native::cluster::{Cluster, publish_server};
use anyhow::{Context, Result, ensure};
use firstboot::bundle::BUNDLE_DIR;
use imagebuild::cmd;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::disk::DiskImage;
use qemu::seed::secret_of;
use qemu::{search, status};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that a first boot changes, but for those of the runtime, which has a stand-in, and of systemd.
const CHANGED: [&str; 5] = ["/etc", "/var/opt", "/var/lib/cni", "/var/lib/firstboot", "/var/lib/kubelet"];

/// Directory in which the states are resumed.
pub(super) struct Resumed<'a> {
    plane: &'a ControlPlane,
    cluster: Cluster,
    image: PathBuf,
    root: PathBuf,
    /// Whether an earlier moment had a data partition.
    found: Cell<bool>,
}

impl<'a> Resumed<'a> {
    /// Reads the image off a disk that was never booted, and lets the cluster name the address that it has here.
    pub(super) fn new(plane: &'a ControlPlane, before: &DiskImage, dir: &Path) -> Result<Self> {
        let image = dir.join("image");
        let layers = format!("{BUNDLE_DIR}/layers");
        let except = [&CHANGED[..], &[&layers]].concat();
        before.extract(&["/"], &except, &image).context("read the image's root file system")?;
        // Each is where a snapshot is mounted, so it has to be there.
        for layer in before.list(&layers)? {
            let directory = image.join(&layers[1..]).join(layer);
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        }
        publish_server(plane, &plane.endpoint_for_host())?;
        Ok(Resumed { plane, cluster: Cluster::of(plane)?, image, root: dir.join("root"), found: Cell::new(false) })
    }

    /// Goes on with a disk, to the same end as ever.
    pub(super) fn go_on(&self, disk: &DiskImage, token: &str) -> Result<()> {
        remove(&self.root)?;
        // No file of the image is written to: firstboot replaces files whole.
        cmd::run(Command::new("cp").args(["--archive", "--link", "--"]).arg(&self.image).arg(&self.root))?;
        let settled = disk.settle()?;
        // Once a boot has found the data partition, no power cut may cost it.
        ensure!(!settled.created || !self.found.get(), "find a data partition that can be repaired: it was made anew");
        self.found.set(!settled.created);
        disk.extract_settled(&settled, &CHANGED, &self.root).context("read the files of the disk")?;
        let device = Device { root: self.root.clone(), boot: disk.boot()?, serial: SERIAL.to_owned() };
        self.cluster.forget(NODE)?;
        let outcome = device.resume(self.plane)?;
        if let Err(fault) = &outcome.done {
            anyhow::bail!("go on: {fault}; it said:\n{}", outcome.lines.join("\n"));
        }
        let node = outcome.node.with_context(|| format!("find node {NODE}; {:#?}", outcome.lines))?;
        ensure!(is_ready(&node), "find node {NODE} Ready");
        let state = status::value(&outcome.status, "state");
        ensure!(state == Some("joined"), "find a status that says joined: it says {state:?}");
        ensure!(device.boot.seed()?.is_none(), "find no seed");
        let left = search::find(disk.path(), secret_of(token))?;
        ensure!(left.is_empty(), "find no token on the disk: its secret stands at {left:?}");
        Ok(())
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
