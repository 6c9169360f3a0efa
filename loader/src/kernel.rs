// SPDX-License-Identifier: Apache-2.0
//! The kernel inside a unified kernel image. systemd-stub (257) that finds no program there returns to firmware whose
//! memory it has broken: the machine hangs, and its boot attempt is never counted as failed.

use object::LittleEndian;
use object::pe::ImageNtHeaders64;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};
use object::read::{Object, ObjectSection};

/// Whether systemd-stub can start what is in `image`: the program in its section `.linux` (UAPI.5, Unified Kernel Image)
/// is a 64-bit EFI program for the same machine as the image, whose entry point is inside of it. An image without such a
/// section is an EFI program as any other.
///
/// # Errors
/// What is wrong with it.
pub fn check(image: &[u8]) -> Result<(), &'static str> {
    // What is no program at all is the firmware's to refuse.
    let Ok(outer) = PeFile64::parse(image) else { return Ok(()) };
    let Some(section) = outer.section_by_name(".linux") else { return Ok(()) };
    let bytes = section.data().map_err(|_| "its kernel is not inside of the file")?;
    let kernel = PeFile64::parse(bytes).map_err(|_| "its kernel is no EFI program")?;
    let machine = |file: &PeFile64| -> u16 { headers(file).file_header().machine.get(LittleEndian) };
    if machine(&kernel) != machine(&outer) {
        return Err("its kernel is for another kind of machine");
    }
    let optional = headers(&kernel).optional_header();
    match optional.address_of_entry_point() {
        entry if entry != 0 && entry < optional.size_of_image() => Ok(()),
        _ => Err("its kernel has no entry point"),
    }
}

fn headers<'a>(file: &PeFile64<'a>) -> &'a ImageNtHeaders64 {
    file.nt_headers()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const AMD64: u16 = 0x8664;
    const ARM64: u16 = 0xaa64;

    /// A PE32+ program (Microsoft, PE Format) for `machine` with one section.
    fn program(machine: u16, entry: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 0x200];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x40u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &machine.to_le_bytes());
        put(0x46, &1u16.to_le_bytes()); // sections
        put(0x54, &240u16.to_le_bytes()); // size of the optional header
        put(0x58, &0x20bu16.to_le_bytes()); // PE32+
        put(0x68, &entry.to_le_bytes());
        put(0x90, &0x10_0000u32.to_le_bytes()); // size of the image in memory
        put(0xc4, &16u32.to_le_bytes()); // data directories, all empty
        let section = 0x58 + 240;
        put(section, name);
        put(section + 8, &u32::try_from(content.len()).unwrap().to_le_bytes());
        put(section + 12, &0x1000u32.to_le_bytes());
        put(section + 16, &u32::try_from(content.len()).unwrap().to_le_bytes());
        put(section + 20, &0x200u32.to_le_bytes());
        out.extend_from_slice(content);
        out
    }

    fn image(kernel: &[u8]) -> Vec<u8> {
        program(AMD64, 0x1000, b".linux", kernel)
    }

    #[test]
    fn a_kernel_that_can_be_started_passes() {
        assert_eq!(check(&image(&program(AMD64, 0x1000, b".text", b"code"))), Ok(()));
        // No unified kernel image; no program.
        assert_eq!(check(&program(AMD64, 0x1000, b".text", b"code")), Ok(()));
        assert_eq!(check(b"MZ"), Ok(()));
    }

    #[test]
    fn another_one_is_refused_with_the_reason() {
        let good = program(AMD64, 0x1000, b".text", b"code");
        assert_eq!(check(&image(&vec![0; 4096])), Err("its kernel is no EFI program"));
        assert_eq!(check(&image(b"")), Err("its kernel is no EFI program"));
        assert_eq!(check(&image(&good[..0x140])), Err("its kernel is no EFI program"));
        let other = program(ARM64, 0x1000, b".text", b"code");
        assert_eq!(check(&image(&other)), Err("its kernel is for another kind of machine"));
        for entry in [0, 0x10_0000] {
            let none = program(AMD64, entry, b".text", b"code");
            assert_eq!(check(&image(&none)), Err("its kernel has no entry point"));
        }
        let mut cut = image(&good);
        cut.truncate(0x200);
        assert_eq!(check(&cut), Err("its kernel is not inside of the file"));
    }
}
