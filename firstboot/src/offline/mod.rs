// SPDX-License-Identifier: Apache-2.0
//! The cache of the API server on this node (crate `apicache`), as firstboot runs it: docs/offline.md.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;

use apicache::config::Config;
use apicache::{supervisor, worker};

use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::text::timestamp;

mod files;
pub mod ipam;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use files::PORT;
use files::STATUS;
pub use files::{CONFIG, KUBECONFIG};
pub(crate) use files::{UNIT, holds, put, service};

fn failed(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Host, format!("run the cache of the API server: {error}"))
}

/// Holds the port for ever, and starts the process that serves; by the settings in `file`.
///
/// # Errors
/// The settings cannot be read; the port cannot be had.
pub fn hold_port(file: &str) -> Result<(), Fault> {
    let config = Config::read(Path::new(file)).map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    supervisor::run(&config, &program, &["cache", "--serve", file]).map_err(failed)
}

/// Serves on the socket that is standard input, until the process is ended.
///
/// # Errors
/// The settings or what they name cannot be used; the store can no longer be written.
pub fn serve(file: &str) -> Result<(), Fault> {
    let config = Config::read(Path::new(file)).map_err(failed)?;
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    worker::serve(&config, TcpListener::from(socket), supervisor::beat).map_err(failed)
}

/// The state of the cache in words; none where it does not run.
pub(crate) fn state(host: &Host) -> Option<String> {
    let published: worker::Published = serde_json::from_slice(&host.read(STATUS).ok()??).ok()?;
    let since = timestamp(published.since);
    let store = match published.contact {
        0 => "nothing was read from the cluster yet".to_owned(),
        contact => format!("{} objects as of {}", published.objects, timestamp(contact)),
    };
    Some(format!("{} since {since}, {store}", published.link))
}
