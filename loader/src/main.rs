// SPDX-License-Identifier: Apache-2.0
//! `verify.efi`: starts the file that its options name when its SHA-256 is the one that they name; otherwise it says
//! why and resets the machine, so that systemd-boot counts the attempt.

// Other systems only lint it.
#![cfg_attr(target_os = "uefi", no_std)]
#![no_main]

extern crate alloc;

mod firmware;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::convert::Infallible;
use core::fmt::{Display, Write};
use loader::{Content, Failure, Line, Options, WAIT};
use uefi::boot::{self, LoadImageSource};
use uefi::proto::device_path::DevicePath;
use uefi::proto::device_path::build::{BuildError, DevicePathBuilder, media};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::file::{File, FileAttribute, FileInfo, FileMode, RegularFile};
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::runtime::{self, ResetType};
use uefi::{CStr16, CString16, Handle, Status, entry, system};

/// Seconds after which the firmware resets a machine that hangs before the kernel has taken over, as firmware itself
/// sets it for each boot option (UEFI 2.10, 3.1.2).
const WATCHDOG: usize = 5 * 60;
/// Whose watchdog it is: numbers up to 0xffff are the firmware's (UEFI 2.10, 7.5.1).
const WATCHDOG_CODE: u64 = 0x1_0000;

#[entry]
fn main() -> Status {
    match run() {
        Ok(never) => match never {},
        Err(failure) => start_over(failure),
    }
}

fn run() -> Result<Infallible, Failure> {
    set_watchdog();
    let (options, device) = own_image()?;
    let path = CString16::try_from(options.path.as_str());
    let path = path.map_err(|_| Failure::Options("the path has a character that no file name has"))?;
    let content = read(&options, &path, device)?;
    let kernel = loader::check_kernel(content.bytes());
    kernel.map_err(|why| Failure::Load { path: options.path.clone(), why: why.into() })?;
    let image = load(&options, &path, device, &content)?;
    // The firmware has copied it.
    drop(content);
    set_watchdog();
    let why = match boot::start_image(image) {
        Ok(()) => String::from("it reports success"),
        Err(e) => word(e.status()),
    };
    Err(Failure::Ended { path: options.path, why })
}

/// What this program was started with, and the handle of the volume that it came from.
fn own_image() -> Result<(Options, Handle), Failure> {
    let image = firmware::protocol::<LoadedImage>(boot::image_handle());
    let image = image.map_err(|e| Failure::Internal(word(e.status())))?;
    let options = loader::parse(image.load_options_as_bytes().unwrap_or_default())?;
    match image.device() {
        Some(device) => Ok((options, device)),
        None => Err(Failure::Volume { path: options.path, why: "verify.efi did not come from one".into() }),
    }
}

fn read(options: &Options, path: &CStr16, device: Handle) -> Result<Content, Failure> {
    let volume = |e: uefi::Error| Failure::Volume { path: options.path.clone(), why: word(e.status()) };
    let unread = |why: String| Failure::Read { path: options.path.clone(), why };
    let mut volume =
        firmware::protocol::<SimpleFileSystem>(device).and_then(|mut fs| fs.open_volume()).map_err(volume)?;
    let file = volume.open(path, FileMode::Read, FileAttribute::empty()).map_err(|e| match e.status() {
        Status::NOT_FOUND => Failure::Missing { path: options.path.clone() },
        status => unread(word(status)),
    })?;
    let file: Option<RegularFile> = file.into_regular_file();
    let mut file = file.ok_or_else(|| unread("it is a directory".into()))?;
    let info = file.get_boxed_info::<FileInfo>().map_err(|e| unread(word(e.status())))?;
    loader::read(options, info.file_size(), |into| file.read(into).map_err(|e| word(e.status())))
}

/// Loads what was hashed, from where it was hashed. With a full path, as if the firmware had read it from the volume:
/// systemd-stub looks for the volume.
fn load(options: &Options, path: &CStr16, device: Handle, content: &Content) -> Result<Handle, Failure> {
    let failed = |why| Failure::Load { path: options.path.clone(), why };
    let device = firmware::protocol::<DevicePath>(device).map_err(|e| failed(word(e.status())))?;
    let mut storage = Vec::new();
    let full = full_path(&device, path, &mut storage).map_err(|e| failed(e.to_string()))?;
    let source = LoadImageSource::FromBuffer { buffer: content.bytes(), file_path: Some(full) };
    boot::load_image(boot::image_handle(), source).map_err(|e| failed(word(e.status())))
}

fn full_path<'a>(device: &DevicePath, path: &CStr16, storage: &'a mut Vec<u8>) -> Result<&'a DevicePath, BuildError> {
    let mut full = DevicePathBuilder::with_vec(storage);
    for node in device.node_iter() {
        full = full.push(&node)?;
    }
    full.push(&media::FilePath { path_name: path })?.finalize()
}

fn set_watchdog() {
    // A firmware without one is a firmware without one.
    let _ = boot::set_watchdog_timer(WATCHDOG, WATCHDOG_CODE, None);
}

/// The specification's name of a status: `DEVICE_ERROR`.
fn word(status: Status) -> String {
    status.to_string()
}

/// Says what happened, leaves time to read it, and resets the machine. Needs no memory.
fn start_over(why: impl Display) -> ! {
    // A machine without a console has no other place for it.
    if firmware::has_console() {
        system::with_stdout(|out| {
            let _ = write!(out, "\n{}\n", Line(&why));
        });
    }
    boot::stall(WAIT);
    runtime::reset(ResetType::COLD, Status::LOAD_ERROR, None)
}

#[cfg(target_os = "uefi")]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo) -> ! {
    start_over(format_args!("verify.efi failed: {}", info.message()))
}
