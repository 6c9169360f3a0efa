// SPDX-License-Identifier: Apache-2.0
//! Reads of an ELF file what must be there for it to run: dynamic linker and shared libraries.

use crate::arch::Arch;
use anyhow::{Context, Result, bail};
use object::elf::{DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, StringTable};

/// What one ELF file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Architecture that it runs on.
    pub arch: Arch,
    /// Absolute path of the dynamic linker; none for a static program and for a library.
    pub interpreter: Option<String>,
    /// File names of shared libraries (DT_NEEDED).
    pub libraries: Vec<String>,
}

/// Whether these bytes start like an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads a 64-bit ELF file.
pub fn needs(bytes: &[u8]) -> Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(bytes).context("read ELF header")?;
    let endian = header.endian().context("read ELF byte order")?;
    let arch = match header.e_machine(endian) {
        EM_AARCH64 => Arch::Arm64,
        EM_X86_64 => Arch::Amd64,
        other => bail!("read ELF header: machine {other} is neither arm64 nor amd64"),
    };
    let segments = header.program_headers(endian, bytes).context("read ELF segments")?;
    let mut needs = Needs { arch, interpreter: None, libraries: Vec::new() };
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP {
            let path = segment.data(endian, bytes).ok().context("read ELF interpreter")?;
            let path = path.split(|b| *b == 0).next().unwrap_or_default();
            needs.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
        if let Some(dynamic) = segment.dynamic(endian, bytes).context("read ELF dynamic section")? {
            let strings = strings(endian, bytes, segments, dynamic)?;
            for entry in dynamic.iter().filter(|d| d.tag32(endian) == Some(DT_NEEDED)) {
                let name = entry.string(endian, strings).context("read ELF library name")?;
                needs.libraries.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(needs)
}

/// The string table that the dynamic section names by address.
fn strings<'a>(
    endian: Endianness,
    bytes: &'a [u8],
    segments: &'a [object::elf::ProgramHeader64<Endianness>],
    dynamic: &'a [object::elf::Dyn64<Endianness>],
) -> Result<StringTable<'a>> {
    let value = |tag| dynamic.iter().find(|d| d.tag32(endian) == Some(tag)).map(|d| d.d_val(endian));
    let (Some(address), Some(size)) = (value(object::elf::DT_STRTAB), value(object::elf::DT_STRSZ)) else {
        return Ok(StringTable::default());
    };
    let offset = segments
        .iter()
        .filter(|s| s.p_type(endian) == object::elf::PT_LOAD)
        .find(|s| (s.p_vaddr(endian)..s.p_vaddr(endian).saturating_add(s.p_filesz(endian))).contains(&address))
        .map(|s| address - s.p_vaddr(endian) + s.p_offset(endian))
        .context("find ELF string table")?;
    Ok(StringTable::new(bytes, offset, offset.saturating_add(size)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_test_program_itself() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_elf(&me));
        let needs = needs(&me).unwrap();
        assert_eq!(needs.arch, Arch::host().unwrap());
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert!(std::path::Path::new(&needs.interpreter.unwrap()).exists());
    }

    #[test]
    fn refuses_what_is_no_elf() {
        assert!(needs(b"#!/bin/sh\n").unwrap_err().to_string().starts_with("read ELF header"));
    }
}
