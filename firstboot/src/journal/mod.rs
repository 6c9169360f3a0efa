// SPDX-License-Identifier: Apache-2.0
//! The append-only record of what firstboot did to this device: resume and `--reset` both come from it.
//!
//! One record a line ([`frame`]), in two copies ([`store`]), each record flushed to the medium before what it announces is
//! done. A torn last line (power cut) is dropped, and a damaged one is taken from the other copy. It holds no secret.

pub mod facts;
mod frame;
mod log;
mod record;
mod store;

pub use log::Journal;
pub use record::{Effect, Record};
pub use store::{JOURNAL, JOURNAL_COPY};

#[cfg(test)]
mod tests;
