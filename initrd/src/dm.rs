// SPDX-License-Identifier: Apache-2.0
//! The device mapper without udev and dmsetup: makes devices that verify what is read (kernel:
//! include/uapi/linux/dm-ioctl.h).

use crate::command_line::Root;
use crate::kernel::{DM_HEADER, DM_REQUEST, DmCommand, dm};
use crate::verity::{self, BLOCK};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::Path;

/// Name of the verified root.
const NAME: &str = "root";
/// Nothing is written through the device.
const READ_ONLY: u32 = 1;

/// Opens the root on the partition `number` (`MAJOR:MINOR`) as `/dev/mapper/root`; returns that path.
///
/// # Errors
/// When the kernel refuses, for example because dm-verity is missing.
pub fn open_root(root: &Root, number: &str) -> Result<&'static Path> {
    let device = open(NAME, root, number)?;
    let path = Path::new("/dev/mapper/root");
    let _ = fs::remove_file(path);
    std::os::unix::fs::symlink(format!("../{device}"), path).context("link /dev/mapper/root")?;
    Ok(path)
}

/// Opens what `root` verifies, on the device `number` (`MAJOR:MINOR`), as a device of this name; returns the kernel's name
/// for it, as `dm-0`. The slot says nothing here.
///
/// # Errors
/// When the kernel refuses, for example because dm-verity is missing, or there is a device of this name.
pub fn open(name: &str, root: &Root, number: &str) -> Result<String> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control");
    let control = control.context("open /dev/mapper/control")?;
    // As veritysetup names it, so that its `status` knows the device.
    let uuid = format!("CRYPT-VERITY-{}-{name}", &root.hex()[..32]);
    let mut request = header(name, &uuid);
    dm(&control, DmCommand::Create, &mut request).with_context(|| format!("create the device {name}"))?;
    let minor = minor(&request);
    let sectors = root.blocks * (BLOCK / 512);
    let table = || {
        dm(&control, DmCommand::Load, &mut target(name, "verity", sectors, &verity::parameters(root, number))?)
            .context("load the table of dm-verity")?;
        dm(&control, DmCommand::Resume, &mut header(name, "")).context("start dm-verity")
    };
    if let Err(error) = table() {
        // An error of its own would hide the first one.
        let _ = dm(&control, DmCommand::Remove, &mut header(name, ""));
        return Err(error);
    }
    Ok(format!("dm-{minor}"))
}

/// A request about the device of a name.
fn header(name: &str, uuid: &str) -> [u8; DM_REQUEST] {
    let mut bytes = [0; DM_REQUEST];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    // Version 4.0.0 of the interface; the size of the request is kernel.rs's.
    put(0, &4u32.to_ne_bytes());
    put(16, &(DM_HEADER as u32).to_ne_bytes());
    put(28, &READ_ONLY.to_ne_bytes());
    put(48, name.as_bytes());
    put(176, uuid.as_bytes());
    bytes
}

/// The same with a table of one target.
fn target(name: &str, kind: &str, sectors: u64, parameters: &str) -> Result<[u8; DM_REQUEST]> {
    let mut bytes = header(name, "");
    let text = DM_HEADER + 40;
    anyhow::ensure!(text + parameters.len() < DM_REQUEST, "load the table of dm-verity: it is too long");
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(20, &1u32.to_ne_bytes());
    // struct dm_target_spec: start, length, status, offset of the next one, type.
    put(DM_HEADER + 8, &sectors.to_ne_bytes());
    put(DM_HEADER + 20, &((DM_REQUEST - DM_HEADER) as u32).to_ne_bytes());
    put(DM_HEADER + 24, kind.as_bytes());
    put(text, parameters.as_bytes());
    Ok(bytes)
}

/// The minor number in the kernel's answer (`huge_encode_dev`).
fn minor(answer: &[u8; DM_REQUEST]) -> u32 {
    let device = u32::from_ne_bytes([answer[40], answer[41], answer[42], answer[43]]);
    device & 0xff | device >> 12 & 0xfff00
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_request_is_laid_out_as_in_the_kernels_header() {
        let bytes = target("root", "verity", 80, "1 254:3").unwrap();
        // version, data_start, target_count, open_count, flags, event_nr
        assert_eq!([0, 4, 8, 16, 20, 24, 28, 32].map(|at| word(&bytes, at)), [4, 0, 0, 312, 1, 0, 1, 0]);
        assert_eq!((&bytes[48..53], bytes[176]), (&b"root\0"[..], 0));
        assert_eq!(bytes[312..320], [0; 8]);
        assert_eq!((word(&bytes, 320), word(&bytes, 324), word(&bytes, 332)), (80, 0, 712));
        assert_eq!(&bytes[336..352], b"verity\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&bytes[352..360], b"1 254:3\0");
        assert!(target("root", "verity", 80, &"x".repeat(672)).is_err());
        assert!(target("root", "verity", 80, &"x".repeat(671)).is_ok());
    }

    #[test]
    fn names_fit_their_fields() {
        let bytes = header("root", &format!("CRYPT-VERITY-{}-root", "a".repeat(32)));
        assert_eq!(bytes[176 + 128], 0);
        assert_eq!(&bytes[176..190], b"CRYPT-VERITY-a");
    }

    #[test]
    fn minors_are_decoded() {
        let mut bytes = [0; DM_REQUEST];
        for (device, expected) in [(254 << 8, 0), (254 << 8 | 7, 7), (254 << 8 | 1 << 20 | 0x22, 0x122)] {
            bytes[40..44].copy_from_slice(&u32::to_ne_bytes(device));
            assert_eq!(minor(&bytes), expected);
        }
    }
}
