// SPDX-License-Identifier: Apache-2.0
//! The device itself: disk space, memory, identity and bundle.

use super::check::CheckContext;
use super::check::Finding::{self, Error, Fine, Warning};
use crate::boot_report::BootReport;
use crate::containerd::cri::Cri;
use crate::control_plane;
use crate::fault::Code;
use crate::identity::{self, MACHINE_ID};
use crate::journal::facts::Fact;
use crate::seed::Seed;
use anyhow::{Context, Result};
use std::time::Duration;

/// kubelet, containerd and the system use about 300 MiB; with less than this no memory is left for a pod.
const LEAST_MIB: u64 = 400;
/// Boards sold with 1 GiB report about this much; with less, kubelet evicts pods early (memory.available<100Mi).
const COMFORTABLE_MIB: u64 = 900;

/// MiB that must stay free for pods, their images and logs. The bundle needs none: it is in the image.
const HEADROOM_MIB: u64 = 256;

pub(super) fn disk(context: &CheckContext<'_>) -> Result<Finding> {
    let host = context.host;
    if let Some((code, text)) = BootReport::read(host).and_then(|report| report.volatile()) {
        return Ok(Error(code, text));
    }
    let mounts = host.read_text("/proc/mounts")?.unwrap_or_default();
    // proc_mounts(5): device, mount point, type, options. The last line of a mount point is the visible mount.
    let mounted = |at: &str| mounts.lines().rev().find(|l| l.split_whitespace().nth(1) == Some(at));
    let options = mounted("/var").or(mounted("/")).and_then(|l| l.split_whitespace().nth(3)).unwrap_or_default();
    if options.split(',').any(|o| o == "ro") {
        let text =
            "write to the file system of /var: it is read-only; if it was not meant to be, the disk has errors (dmesg)";
        return Ok(Error(Code::DiskReadOnly, text.into()));
    }
    let free = host.free_bytes(if host.exists("/var")? { "/var" } else { "/" })? >> 20;
    Ok(match (free < HEADROOM_MIB, context.done("images")) {
        (false, _) => Fine(format!("{free} MiB are free, {HEADROOM_MIB} are needed")),
        (true, false) => Error(
            Code::DiskFull,
            format!(
                "make room for pods: {HEADROOM_MIB} MiB have to be free on the file system of /var, {free} MiB are; use a \
                 larger disk"
            ),
        ),
        (true, true) => Warning(
            Code::DiskFull,
            format!("free some of the file system of /var: {free} MiB are left for pods and logs"),
        ),
    })
}

fn total_mib(context: &CheckContext<'_>) -> Result<u64> {
    let text = context.host.read_text("/proc/meminfo")?.unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).context("find MemTotal in /proc/meminfo")?;
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().context("read MemTotal in /proc/meminfo")?;
    Ok(kib >> 10)
}

pub(super) fn memory(context: &CheckContext<'_>) -> Result<Finding> {
    let mib = total_mib(context)?;
    Ok(match mib {
        0..LEAST_MIB => {
            Error(Code::Memory, format!("use a device with more memory: it has {mib} MiB, a node needs {LEAST_MIB}"))
        }
        LEAST_MIB..COMFORTABLE_MIB => Warning(Code::Memory, format!("{mib} MiB of memory leave little for pods")),
        _ => Fine(format!("{mib} MiB")),
    })
}

/// What kubeadm asks of a control plane (`ControlPlaneMem` in `cmd/kubeadm/app/constants`), MiB.
const CONTROL_PLANE_MIB: u64 = 1700;

/// Whether this device can be the control plane that the seed makes of it.
pub(super) fn control_plane(context: &CheckContext<'_>) -> Result<Finding> {
    if !context.usable_seed().is_some_and(Seed::is_control_plane) {
        return Ok(Fine("the seed makes no control plane".into()));
    }
    if let Err(fault) = control_plane::fits(&context.bundle.manifest, &context.image.target) {
        return Ok(Error(fault.code, fault.to_string()));
    }
    let mib = total_mib(context)?;
    Ok(match mib < CONTROL_PLANE_MIB {
        true => Error(
            Code::Memory,
            format!("use a device with more memory: it has {mib} MiB, a control plane needs {CONTROL_PLANE_MIB}"),
        ),
        false => flushes(context)?,
    })
}

/// Where flushes are tried: on the file system of etcd's data.
const TRIED: &str = "/var/lib/firstboot/flush-test";
/// How many flushes are tried.
const FLUSHES: u32 = 50;
/// etcd writes each change with a flush; its documentation asks for 10 ms, and its members lose each other where flushes
/// take about as long as a heartbeat, which is 100 ms ("Hardware recommendations", "Tuning").
const SLOW: Duration = Duration::from_millis(10);

/// What is fine.
const FIT: &str = "the image has a control plane, and the device memory for it";

/// Whether the disk is fast enough for etcd.
fn flushes(context: &CheckContext<'_>) -> Result<Finding> {
    let host = context.host;
    if host.is_reading() || context.done("create") {
        return Ok(Fine(FIT.into()));
    }
    let (before, file) = (host.sys().uptime(), format!("of={TRIED}"));
    let count = format!("count={FLUSHES}");
    let words = ["dd", "if=/dev/zero", &file, "bs=4096", &count, "oflag=dsync", "status=none"];
    let written = host.run(&words);
    let each = host.sys().uptime().saturating_sub(before) / FLUSHES;
    host.remove_entry(TRIED)?;
    written.context("try how long a flush of the disk takes")?;
    Ok(judge(each))
}

/// Whether flushes that take so long are good for etcd.
fn judge(each: Duration) -> Finding {
    let text = format!("a flush of the disk takes {:.1} ms", each.as_secs_f64() * 1000.0);
    match each > SLOW {
        true => Warning(
            Code::SlowDisk,
            format!("use a faster disk for a control plane: {text}, and etcd asks for {} ms at most", SLOW.as_millis()),
        ),
        false => Fine(format!("{FIT}; {text}")),
    }
}

pub(super) fn machine_id(context: &CheckContext<'_>) -> Result<Finding> {
    if identity::machine_id(context.host)?.is_none() {
        return Ok(match context.done("identity") {
            false => Fine("the phase identity makes one".into()),
            true => Error(Code::SettingUndone, format!("find an id in {MACHINE_ID}: it was there and is not any more")),
        });
    }
    Ok(match identity::came_with_image(context.host, context.image)? {
        false => Fine("made on this device".into()),
        true => Warning(
            Code::MachineIdInImage,
            format!("empty {MACHINE_ID} in the image: it came with it, so every device flashed from it has the same"),
        ),
    })
}

pub(super) fn node_name(context: &CheckContext<'_>) -> Result<Finding> {
    if let Some(name) = context.host.journal().fact(Fact::Node) {
        return Ok(Fine(name.to_owned()));
    }
    let template = context.usable_seed().and_then(|s| s.node.name.as_ref());
    Ok(match identity::name_by_hardware(context.host, template) {
        Ok(Some(name)) => Fine(name),
        Ok(None) => {
            let text = "this device has neither a serial number nor a permanent MAC address: it gets a random name, \
                        and another one when it is flashed again; set [node] name in the seed";
            Warning(Code::Host, text.into())
        }
        Err(fault) => Error(fault.code, fault.to_string()),
    })
}

pub(super) fn sandbox_image(context: &CheckContext<'_>) -> Result<Finding> {
    let manifest = &context.bundle.manifest;
    let name = &manifest.sandbox_image;
    if !manifest.images.iter().any(|i| i.name == *name) {
        return Ok(Error(
            Code::BundleImageName,
            format!("find sandbox image {name} in the bundle: without it no pod starts offline"),
        ));
    }
    if !context.done("images") {
        return Ok(Fine(format!("the bundle brings {name}")));
    }
    Ok(match Cri::connect(context.host.sys())?.image(name)? {
        Some(_) => Fine(name.clone()),
        None => {
            Error(Code::SettingUndone, format!("find sandbox image {name} in the runtime: it was there and is gone"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_flushes_are_a_warning() {
        let fine = format!("{FIT}; a flush of the disk takes 2.5 ms");
        assert!(matches!(judge(Duration::from_micros(2500)), Fine(text) if text == fine));
        let want =
            "use a faster disk for a control plane: a flush of the disk takes 31.0 ms, and etcd asks for 10 ms at most";
        assert!(matches!(judge(Duration::from_millis(31)), Warning(Code::SlowDisk, text) if text == want));
    }
}
