// SPDX-License-Identifier: Apache-2.0
//! Unified kernel images, read back by another reader.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::arch::Arch;
use crate::cmd;
use crate::debian::Debian;

/// systemd's stub for this machine, from Debian; none where that cannot be had.
fn stub() -> Option<Vec<u8>> {
    if !cmd::found("apt-get") {
        crate::skip::skip_unless_ci("apt-get is not installed");
        return None;
    }
    let arch = Arch::host().unwrap();
    let debian = Debian::open(arch).unwrap();
    let deb = debian.download(&["systemd-boot-efi"], false).unwrap().remove(0);
    let dir = tempfile::tempdir().unwrap();
    debian.unpack(&deb, dir.path()).unwrap();
    let name = match arch {
        Arch::Amd64 => "linuxx64.efi.stub",
        Arch::Arm64 => "linuxaa64.efi.stub",
    };
    Some(std::fs::read(dir.path().join("usr/lib/systemd/boot/efi").join(name)).unwrap())
}

fn parts<'a>(initrd: &'a [u8], kernel: &'a [u8]) -> Parts<'a> {
    Parts { os_release: b"ID=debian\n", command_line: "quiet a=b", release: "6.12", initrd, kernel }
}

#[test]
fn sections_are_appended_where_nothing_else_is() {
    let Some(stub) = stub() else { return };
    let (initrd, kernel) = (vec![1; 100_000], vec![2; 300_001]);
    let image = build(&stub, &parts(&initrd, &kernel)).unwrap();
    assert_eq!(section(&image, ".osrel").unwrap(), b"ID=debian\n");
    assert_eq!(section(&image, ".uname").unwrap(), b"6.12");
    assert_eq!(section(&image, ".initrd").unwrap(), initrd);
    assert_eq!(section(&image, ".linux").unwrap(), kernel);
    assert_eq!(section(&image, ".cmdline").unwrap().len(), COMMAND_LINE);
    assert_eq!(command_line(&image).unwrap(), "quiet a=b");

    let (old, new) = (parse(&stub).unwrap(), parse(&image).unwrap());
    let sections: Vec<_> = new.section_table().iter().collect();
    assert_eq!(sections.len(), old.section_table().len() + 5);
    let optional = &new.nt_headers().optional_header;
    let (mut address, mut offset) = (0, optional.size_of_headers.get(LE));
    let mut by_address = sections.clone();
    by_address.sort_by_key(|section| section.virtual_address.get(LE));
    for section in by_address {
        assert!(section.virtual_address.get(LE) >= address);
        assert_eq!(section.virtual_address.get(LE) % optional.section_alignment.get(LE), 0);
        address = section.virtual_address.get(LE) + section.virtual_size.get(LE);
    }
    assert_eq!(optional.size_of_image.get(LE), address.next_multiple_of(optional.section_alignment.get(LE)));
    for section in sections.iter().filter(|section| section.size_of_raw_data.get(LE) > 0) {
        assert!(section.pointer_to_raw_data.get(LE) >= offset);
        offset = section.pointer_to_raw_data.get(LE) + section.size_of_raw_data.get(LE);
    }
    assert_eq!(offset as usize, image.len());
    // The stub itself is as it was: its sections, and the headers of those.
    let table = |pe: &PeFile64<'_>, count: usize| {
        pe.section_table().iter().take(count).map(|section| bytes_of(section).to_vec()).collect::<Vec<_>>()
    };
    let count = old.section_table().len();
    assert_eq!(table(&new, count), table(&old, count));
    let headers = old.nt_headers().optional_header.size_of_headers.get(LE) as usize;
    assert_eq!(image[headers..stub.len()], stub[headers..]);
}

#[test]
fn the_command_line_is_replaced_in_place() {
    let Some(stub) = stub() else { return };
    let image = build(&stub, &parts(b"i", b"k")).unwrap();
    let mut changed = image.clone();
    set_command_line(&mut changed, &"x".repeat(2047)).unwrap();
    assert_eq!(command_line(&changed).unwrap(), "x".repeat(2047));
    set_command_line(&mut changed, "quiet a=b").unwrap();
    assert!(changed == image, "other bytes changed");
    let error = set_command_line(&mut changed, &"x".repeat(2048)).unwrap_err().to_string();
    assert_eq!(error, "replace the command line: 2048 bytes, 2048 are there");
    let long = "y".repeat(2048);
    let error = build(&stub, &Parts { command_line: &long, ..parts(b"i", b"k") }).unwrap_err().to_string();
    assert_eq!(error, "write the command line: 2048 bytes, 2048 are there");
}

#[test]
fn what_cannot_be_extended_is_refused() {
    let Some(stub) = stub() else { return };
    let mut image = build(&stub, &parts(b"i", b"k")).unwrap();
    let again = format!("{:#}", build(&image, &parts(b"i", b"k")).unwrap_err());
    assert_eq!(again, "append section .osrel to the EFI stub: it is there already");
    let full = (0..1000).find_map(|n| append(&mut image, &format!(".{n}"), b"x", 0).err()).unwrap().to_string();
    assert!(full.starts_with("no room for another header: "), "{full}");
    assert_eq!(section(&image, ".linux").unwrap(), b"k");
    assert_eq!(section(&image, ".none").unwrap_err().to_string(), "find section .none of the EFI program");
    assert!(section(b"MZ", ".linux").unwrap_err().to_string().starts_with("read the EFI program"));
}
