// SPDX-License-Identifier: Apache-2.0
//! What the firmware offers. The only unsafe code of this crate.
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::proto::ProtocolPointer;
use uefi::{Handle, Result, table};

/// A protocol of `handle`, shared with all others that use it. Opening it for this program alone, which needs no unsafe
/// code, would make the firmware stop drivers that use the same handle.
///
/// # Errors
/// The firmware's status, when the handle does not have it.
pub fn protocol<P: ProtocolPointer + ?Sized>(handle: Handle) -> Result<ManuallyDrop<ScopedProtocol<P>>> {
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: the handles are this program's own and the one of the disk that it came from. Nothing takes a protocol
    // off them while it runs: it starts no driver and disconnects none.
    let protocol = unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }?;
    // What was opened in this way need not be closed (UEFI 2.10, 7.3.9), and not every firmware can.
    Ok(ManuallyDrop::new(protocol))
}

/// Whether there is a console to write to.
pub fn has_console() -> bool {
    // SAFETY: the table is the one that this program was started with, and boot services are there until it ends.
    table::system_table_raw().is_some_and(|table| unsafe { !table.as_ref().stdout.is_null() })
}
