// SPDX-License-Identifier: Apache-2.0
//! `imagebuild flash` without a device: the removable disks of this machine.

use super::disks::{Disk, Kernel};
use anyhow::Result;
use indicatif::DecimalBytes;
use serde_json::json;

/// Prints the removable disks, one on a line.
///
/// # Errors
/// When sysfs cannot be read.
pub fn print(kernel: &Kernel, json: bool) -> Result<()> {
    let disks = kernel.disks()?;
    print!("{}", text(&disks, json));
    Ok(())
}

fn text(disks: &[Disk], json: bool) -> String {
    let removable: Vec<&Disk> = disks.iter().filter(|disk| disk.removable).collect();
    let line = |disk: &&Disk| {
        let (device, why) = (format!("/dev/{}", disk.name), disk.refusal());
        if json {
            let Disk { size, model, bus, .. } = disk;
            let object =
                json!({ "event": "disk", "device": device, "bytes": size, "model": model, "bus": bus, "refused": why });
            return format!("{object}\n");
        }
        let size = DecimalBytes(disk.size).to_string();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("{device:14} {size:>10}  {}{why}\n", disk.description())
    };
    if removable.is_empty() && !json {
        return "no removable disk is connected\n".into();
    }
    removable.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::disks::Use;

    #[test]
    fn removable_disks_are_listed_with_what_uses_them() {
        let disk = |name: &str, removable, uses| Disk {
            name: name.into(),
            size: 31_914_983_424,
            model: "SanDisk Ultra".into(),
            bus: "USB",
            removable,
            read_only: false,
            sector: 512,
            uses,
        };
        let disks = [
            disk("sda", false, vec![]),
            disk("sdb", true, vec![]),
            disk("sdc", true, vec![Use::Mounted("/media/x".into())]),
        ];
        assert_eq!(
            text(&disks, false),
            "/dev/sdb         31.91 GB  SanDisk Ultra (USB)\n\
             /dev/sdc         31.91 GB  SanDisk Ultra (USB): it is mounted at /media/x: run umount \"/media/x\"\n"
        );
        let first = text(&disks, true);
        assert_eq!(
            first.lines().next(),
            Some(
                "{\"bus\":\"USB\",\"bytes\":31914983424,\"device\":\"/dev/sdb\",\"event\":\"disk\",\
                 \"model\":\"SanDisk Ultra\",\"refused\":null}"
            )
        );
        assert_eq!(text(&disks[..1], false), "no removable disk is connected\n");
    }
}
