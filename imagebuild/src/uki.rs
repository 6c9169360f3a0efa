// SPDX-License-Identifier: Apache-2.0
//! Unified kernel images: systemd's stub with kernel, initrd and command line as sections of one EFI program
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>), so that one digest or signature covers all of
//! what starts. Sections are appended as ukify does.

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::pe::{
    IMAGE_SCN_CNT_CODE, IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_EXECUTE, IMAGE_SCN_MEM_READ, ImageFileHeader,
    ImageNtHeaders64, ImageSectionHeader,
};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::pe::PeFile64;

/// Bytes that the command line has room for: a test replaces it in place.
pub const COMMAND_LINE: usize = 2048;
const SECTION: usize = size_of::<ImageSectionHeader>();

/// What goes into an image besides the stub.
pub struct Parts<'a> {
    /// os-release(5) of the system.
    pub os_release: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The kernel's release, as `uname -r` says it.
    pub release: &'a str,
    /// The initrd.
    pub initrd: &'a [u8],
    /// The kernel, an EFI program.
    pub kernel: &'a [u8],
}

/// Makes a unified kernel image of the stub.
///
/// # Errors
/// When the stub is no PE32+ program, has one of the sections already, or lacks the room for their headers.
pub fn build(stub: &[u8], parts: &Parts) -> Result<Vec<u8>> {
    let line = padded(parts.command_line)?;
    let data = IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ;
    let code = data | IMAGE_SCN_CNT_CODE | IMAGE_SCN_MEM_EXECUTE;
    let mut image = stub.to_vec();
    for (name, content, flags) in [
        (".osrel", parts.os_release, data),
        (".cmdline", &line, data),
        (".uname", parts.release.as_bytes(), data),
        (".initrd", parts.initrd, data),
        // Last, so that a kernel which needs more memory than its file has bytes runs into no other section.
        (".linux", parts.kernel, code),
    ] {
        append(&mut image, name, content, flags).with_context(|| format!("append section {name} to the EFI stub"))?;
    }
    Ok(image)
}

/// The command line in its full length, with NULs at the end.
fn padded(line: &str) -> Result<Vec<u8>> {
    let mut bytes = line.as_bytes().to_vec();
    ensure!(bytes.len() < COMMAND_LINE, "write the command line: {} bytes, {COMMAND_LINE} are there", bytes.len());
    bytes.resize(COMMAND_LINE, 0);
    Ok(bytes)
}

fn parse(image: &[u8]) -> Result<PeFile64<'_>> {
    PeFile64::parse(image).context("read the EFI program")
}

/// Appends one section (Microsoft PE format, "Section Table").
fn append(image: &mut Vec<u8>, name: &str, content: &[u8], flags: u32) -> Result<()> {
    let pe = parse(image)?;
    let optional = &pe.nt_headers().optional_header;
    let (section_alignment, file_alignment) = (optional.section_alignment.get(LE), optional.file_alignment.get(LE));
    ensure!(
        file_alignment.is_power_of_two() && section_alignment.is_power_of_two(),
        "its alignments are no powers of 2"
    );
    let nt = pe.dos_header().nt_headers_offset() as usize;
    let table = nt
        + 4
        + size_of::<ImageFileHeader>()
        + usize::from(pe.nt_headers().file_header.size_of_optional_header.get(LE));
    let sections = pe.section_table();
    ensure!(sections.iter().all(|section| section.raw_name() != name.as_bytes()), "it is there already");
    let place = table + sections.len() * SECTION;
    let room = optional.size_of_headers.get(LE) as usize;
    ensure!(place + SECTION <= room, "no room for another header: {room} bytes");
    let end = sections.iter().map(|s| s.virtual_address.get(LE) + s.virtual_size.get(LE)).max();
    let address = end.context("find its sections")?.next_multiple_of(section_alignment);

    let length = u32::try_from(content.len()).context("it is too long")?;
    let offset = image.len().next_multiple_of(file_alignment as usize);
    let mut header = ImageSectionHeader::default();
    header.name[..name.len()].copy_from_slice(name.as_bytes());
    header.virtual_size.set(LE, length);
    header.virtual_address.set(LE, address);
    header.size_of_raw_data.set(LE, length.next_multiple_of(file_alignment));
    header.pointer_to_raw_data.set(LE, u32::try_from(offset).context("the file is too long")?);
    header.characteristics.set(LE, flags);

    image.resize(offset, 0);
    image.extend_from_slice(content);
    image.resize(image.len().next_multiple_of(file_alignment as usize), 0);
    image[place..place + SECTION].copy_from_slice(bytes_of(&header));
    let headers = image.get_mut(nt..).and_then(|bytes| from_bytes_mut::<ImageNtHeaders64>(bytes).ok());
    let (headers, _) = headers.context("find its headers")?;
    let count = headers.file_header.number_of_sections.get(LE);
    headers.file_header.number_of_sections.set(LE, count + 1);
    headers.optional_header.size_of_image.set(LE, (address + length).next_multiple_of(section_alignment));
    // Only drivers are checked against it, and it counted what has changed.
    headers.optional_header.check_sum.set(LE, 0);
    Ok(())
}

/// Content of a section, without the padding of the file.
///
/// # Errors
/// When these bytes are no PE32+ program, or it has no such section.
pub fn section<'a>(image: &'a [u8], name: &str) -> Result<&'a [u8]> {
    image.get(range(image, name)?).with_context(|| format!("read section {name}: the file is too short"))
}

fn range(image: &[u8], name: &str) -> Result<std::ops::Range<usize>> {
    let pe = parse(image)?;
    let found = pe.section_table().iter().find(|section| section.raw_name() == name.as_bytes());
    let found = found.with_context(|| format!("find section {name} of the EFI program"))?;
    let (offset, length) = found.pe_file_range();
    Ok(offset as usize..offset as usize + length as usize)
}

/// The command line of an image.
///
/// # Errors
/// As [`section`]; and when it is no text.
pub fn command_line(image: &[u8]) -> Result<&str> {
    let bytes = section(image, ".cmdline")?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).context("read the command line")
}

/// Replaces the command line in place.
///
/// # Errors
/// As [`section`]; and when the new one is longer than its place.
pub fn set_command_line(image: &mut [u8], line: &str) -> Result<()> {
    let range = range(image, ".cmdline")?;
    if range.len() <= line.len() {
        bail!("replace the command line: {} bytes, {} are there", line.len(), range.len());
    }
    let place = image.get_mut(range).context("replace the command line: the file is too short")?;
    place.fill(0);
    place[..line.len()].copy_from_slice(line.as_bytes());
    Ok(())
}

#[cfg(test)]
#[path = "uki_tests.rs"]
mod tests;
