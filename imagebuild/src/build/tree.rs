// SPDX-License-Identifier: Apache-2.0
//! The root file system of one image: the cached one, and firstboot's own files in it.

use super::Parts;
use crate::cmd;
use crate::disk::Ids;
use crate::owner::Owner;
use crate::rootfs::{self, Rootfs};
use crate::target::{Role, Target};
use anyhow::{Context, Result};
use firstboot::firewall;
use firstboot::harden::{files, mounts};
use firstboot::host::kept;
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::leds;
use firstboot::paths::UNIT_DIR;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Units that every image enables.
const UNITS: [&str; 3] = ["firstboot-guard.service", "firstboot.service", "firstboot-clock.timer"];
/// Units that the image holds and does not enable, and drop-ins for others' units.
const STARTED_LATER: [&str; 10] = [
    "firstboot-network.socket",
    "firstboot-network@.service",
    "firstboot-clock.service",
    "firstboot-reset.service",
    "firstboot-stick.service",
    "containerd.service",
    "kubelet.service",
    "kubelet.service.d/10-kubeadm.conf",
    "systemd-networkd.service.d/10-firstboot.conf",
    "NetworkManager.service.d/10-firstboot.conf",
];

/// By what udev starts a unit when a stick appears.
const STICK_RULES: &str = "90-firstboot-stick.rules";

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
    }
}

/// Fills `tree` with everything that goes onto the root partition.
pub fn fill(
    owner: &Owner,
    parts: &Parts,
    rootfs: &Rootfs,
    units: &Path,
    info: &ImageInfo,
    ids: &Ids,
    tree: &Path,
) -> Result<()> {
    fs::create_dir(tree).with_context(|| format!("create {}", tree.display()))?;
    let mut tar = owner.command("tar");
    tar.args(["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--file"]).arg(&rootfs.tar);
    cmd::run(tar.arg("--directory").arg(tree)).context("unpack the root file system")?;
    let fstab = format!(
        "# The root grows with its partition. Boot and EFI system partitions are not mounted.\n\
         PARTUUID={} / ext4 defaults,noatime,errors=remount-ro,x-systemd.growfs 0 1\n{}",
        ids.partition(Role::Root),
        mounts::fstab()
    );
    rootfs::put(tree, "/etc/fstab", &fstab, 0o644)?;
    let text = serde_json::to_string_pretty(info).context("write image.json")? + "\n";
    rootfs::put(tree, IMAGE_INFO, &text, 0o644)?;
    // A damaged byte of the description must not cost the device its boot partition, or its clock.
    let copy = String::from_utf8(kept::copy_of(text.as_bytes(), None)).context("copy image.json")?;
    rootfs::put(tree, &kept::copy_path(IMAGE_INFO), &copy, 0o644)?;
    if !info.leds.is_empty() {
        rootfs::put(tree, leds::MODULES_FILE, leds::MODULES, 0o644)?;
    }
    if let Some(program) = &parts.firstboot {
        install(program, &tree.join("usr/bin/firstboot"), 0o755)?;
        rootfs::put(tree, firewall::MODULES_FILE, firewall::MODULES, 0o644)?;
        for unit in UNITS {
            install_unit(units, unit, tree)?;
            rootfs::enable(tree, unit)?;
        }
        // Started by firstboot, once what they run is installed, or by a timer, by udev or by systemd itself.
        for unit in STARTED_LATER {
            install_unit(units, unit, tree)?;
        }
        let rules = fs::read_to_string(units.join(STICK_RULES)).with_context(|| format!("read {STICK_RULES}"))?;
        rootfs::put(tree, &format!("/usr/lib/udev/rules.d/{STICK_RULES}"), &rules, 0o644)?;
    }
    if let Some(bundle) = &parts.bundle {
        let mut tar = owner.command("tar");
        tar.args(["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--xattrs"]);
        tar.arg("--xattrs-include=*").arg("--file").arg(bundle.tar()).arg("--directory").arg(tree);
        cmd::run(&mut tar).context("copy the bundle")?;
    }
    times(tree, info.build_time)
}

/// Installs a unit or a drop-in, with the mode that the audit requires.
fn install_unit(units: &Path, unit: &str, tree: &Path) -> Result<()> {
    let path = format!("{UNIT_DIR}/{unit}");
    let to = tree.join(&path[1..]);
    fs::create_dir_all(to.parent().context("find the directory of a unit")?).context("create a unit's directory")?;
    install(&units.join(unit), &to, files::mode_of(&path).unwrap_or(0o644))
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode)).with_context(|| format!("chmod {}", to.display()))
}

/// Marks that systemd reads: the earliest time of the clock, and that /etc and /var match this /usr, so that nothing
/// is rebuilt at the first boot (systemd-update-done.service(8)).
fn times(tree: &Path, build_time: u64) -> Result<()> {
    let mark = |name: &str, seconds: u64| -> Result<()> {
        let path = tree.join(name);
        let file = match path.is_dir() {
            true => File::open(&path),
            false => File::create(&path),
        };
        let file = file.with_context(|| format!("create /{name}"))?;
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).with_context(|| format!("date /{name}"))
    };
    mark("usr/lib/clock-epoch", build_time)?;
    mark("etc/.updated", build_time)?;
    mark("var/.updated", build_time)?;
    mark("usr", build_time - 1)
}
