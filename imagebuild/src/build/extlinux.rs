// SPDX-License-Identifier: Apache-2.0
//! What U-Boot starts from a disk, where it is in the board's flash (U-Boot documentation, "Standard Boot" and
//! "Extlinux"): kernel, initrd and device tree that `extlinux/extlinux.conf` names.
//!
//! U-Boot looks at the partitions that are marked as bootable, in the order of their numbers, and starts the first one
//! with such a file. It knows the name of the board's device tree itself.

use super::boot::{Programs, read};
use super::device_trees::DeviceTrees;
use super::manifest::KernelImage;
use crate::digest;
use crate::disk::Fat;
use crate::target::Role;
use anyhow::Result;
use std::collections::BTreeMap;

/// Names on the partition of a slot.
const CONFIG: &str = "extlinux/extlinux.conf";
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
const TREES: &str = "dtbs";

/// Slot A with this command line.
pub(super) fn fats(
    trees: &DeviceTrees,
    programs: &Programs,
    command_line: &str,
) -> Result<(BTreeMap<Role, Fat>, KernelImage)> {
    // As it is: not every U-Boot has memory set aside for unpacking one.
    let kernel = read(&programs.kernel)?;
    let kernel_image =
        KernelImage { path: KERNEL.to_owned(), size: kernel.len() as u64, sha256: digest::bytes(&kernel) };
    let mut files = vec![
        (CONFIG.to_owned(), config(command_line).into_bytes()),
        (KERNEL.to_owned(), kernel),
        (INITRD.to_owned(), read(&programs.initrd)?),
    ];
    files.extend(trees.files()?.into_iter().map(|(path, bytes)| (format!("{TREES}/{path}"), bytes)));
    Ok((BTreeMap::from([(Role::SystemA, Fat { files, free: 0 })]), kernel_image))
}

/// `extlinux.conf`: one entry, started at once.
fn config(command_line: &str) -> String {
    format!(
        "default firstboot\nprompt 0\ntimeout 0\nlabel firstboot\n  linux /{KERNEL}\n  initrd /{INITRD}\n  \
         fdtdir /{TREES}\n  append {command_line}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_names_all_that_is_started() {
        let text = config("a=b quiet");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines[3..],
            ["label firstboot", "linux /vmlinuz", "initrd /initrd.img", "fdtdir /dtbs", "append a=b quiet"]
        );
    }
}
