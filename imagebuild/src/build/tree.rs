// SPDX-License-Identifier: Apache-2.0
//! The root file system of one image: the cached one, and firstboot's own files in it, as one archive.

use super::Parts;
use crate::archive::Archive;
use crate::rootfs::{self, Rootfs};
use crate::target::Target;
use anyhow::{Context, Result};
use firstboot::firewall;
use firstboot::harden::{files, mounts};
use firstboot::host::kept;
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::leds;
use firstboot::paths::{CNI_BEFORE, CNI_HOST_LOCAL, PROGRAM, UNIT_DIR};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Units that every image enables.
const UNITS: [&str; 4] =
    ["firstboot-guard.service", "firstboot.service", "firstboot-confirm.service", "firstboot-clock.timer"];
/// Units that the image holds and does not enable, and drop-ins for others' units.
const STARTED_LATER: [&str; 16] = [
    "firstboot-network.socket",
    "firstboot-network@.service",
    "firstboot-cache.service",
    "firstboot-create.service",
    "firstboot-join-control-plane.service",
    "firstboot-virtual-ip.service",
    "firstboot-control-plane.service",
    "firstboot-control-plane.timer",
    "firstboot-clock.service",
    "firstboot-reset.service",
    "firstboot-stick.service",
    "containerd.service",
    "kubelet.service",
    "kubelet.service.d/10-kubeadm.conf",
    "systemd-networkd.service.d/10-firstboot.conf",
    "NetworkManager.service.d/10-firstboot.conf",
];

/// Files whose times systemd reads: the earliest time of the clock, and that /etc and /var match this /usr, so that
/// nothing is rebuilt at the first boot (systemd-update-done.service(8)). All times of an image are its build time, and a
/// mark as old as /usr counts as new enough.
const MARKS: [&str; 3] = ["/usr/lib/clock-epoch", "/etc/.updated", "/var/.updated"];

/// By what udev starts a unit when a stick appears.
const STICK_RULES: &str = "90-firstboot-stick.rules";
/// What `firstboot-cache.service` applies before it starts.
const OFFLINE: &str = "offline.conf";

/// What the image says of itself.
pub fn info(target: &Target, build_time: u64, key: &str) -> ImageInfo {
    ImageInfo {
        version: 1,
        target: target.name.clone(),
        arch: target.arch.to_string(),
        build_time,
        build_id: key.to_owned(),
        boot_label: super::boot_label(target).unwrap_or_default().to_owned(),
        leds: target.leds.clone(),
        machine_id: None,
    }
}

/// Everything that goes onto the root partition. `own`: a directory for firstboot's own files, which is made.
pub fn fill(parts: &Parts, rootfs: &Rootfs, units: &Path, info: &ImageInfo, own: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    archive.tar(&rootfs.tar)?;
    write_own(parts, units, info, own)?;
    if let (Some(signer), Some(bundle)) = (&parts.signer, &parts.bundle) {
        signer.put_in_image(bundle, own)?;
    }
    archive.tree(own)?;
    if let Some(bundle) = &parts.bundle {
        archive.tar(&bundle.tar()).context("add the bundle")?;
    }
    Ok(archive)
}

/// Writes the files that are in no package.
fn write_own(parts: &Parts, units: &Path, info: &ImageInfo, tree: &Path) -> Result<()> {
    fs::create_dir(tree).with_context(|| format!("create {}", tree.display()))?;
    let fstab = "# The initrd mounts the root, /data, /var and /etc. Boot and EFI system partitions are not mounted.\n";
    rootfs::put(tree, "/etc/fstab", &(fstab.to_owned() + &mounts::fstab()), 0o644)?;
    for mark in MARKS {
        rootfs::put(tree, mark, "", 0o644)?;
    }
    write_info(info, tree)?;
    match &parts.firstboot {
        Some(program) => write_firstboot(program, units, &UNITS, tree),
        None => Ok(()),
    }
}

/// Writes what the image says of itself.
pub(crate) fn write_info(info: &ImageInfo, tree: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(info).context("write image.json")? + "\n";
    rootfs::put(tree, IMAGE_INFO, &text, 0o644)?;
    // A damaged byte of the description must not cost the device its boot partition, or its clock.
    let copy = String::from_utf8(kept::copy_of(text.as_bytes(), None)).context("copy image.json")?;
    rootfs::put(tree, &kept::copy_path(IMAGE_INFO), &copy, 0o644)?;
    match info.leds.is_empty() {
        true => Ok(()),
        false => rootfs::put(tree, leds::MODULES_FILE, leds::MODULES, 0o644),
    }
}

/// Writes the device binary with its units, of which these are enabled.
pub(crate) fn write_firstboot(program: &Path, units: &Path, enabled: &[&str], tree: &Path) -> Result<()> {
    install(program, &tree.join(&PROGRAM[1..]), 0o755)?;
    rootfs::put(tree, firewall::MODULES_FILE, firewall::MODULES, 0o644)?;
    for unit in enabled {
        install_unit(units, unit, tree)?;
        rootfs::enable(tree, unit)?;
    }
    // Started by firstboot, once what they run is installed, or by a timer, by udev or by systemd itself.
    for unit in STARTED_LATER {
        install_unit(units, unit, tree)?;
    }
    install(&units.join(STICK_RULES), &tree.join("usr/lib/udev/rules.d").join(STICK_RULES), 0o644)?;
    install(&units.join(OFFLINE), &tree.join("usr/lib/firstboot").join(OFFLINE), 0o644)?;
    let before = tree.join(&CNI_BEFORE[1..]);
    fs::create_dir_all(&before).with_context(|| format!("create {}", before.display()))?;
    let plugin = tree.join(&CNI_HOST_LOCAL[1..]);
    symlink(PROGRAM, &plugin).with_context(|| format!("link {}", plugin.display()))
}

/// Installs a unit or a drop-in, with the mode that the audit requires.
fn install_unit(units: &Path, unit: &str, tree: &Path) -> Result<()> {
    let path = format!("{UNIT_DIR}/{unit}");
    install(&units.join(unit), &tree.join(&path[1..]), files::mode_of(&path).unwrap_or(0o644))
}

pub(crate) fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let directory = to.parent().with_context(|| format!("find the directory of {}", to.display()))?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode)).with_context(|| format!("chmod {}", to.display()))
}
