// SPDX-License-Identifier: Apache-2.0
//! The cache of the API server on this node (crate `apicache`), as firstboot runs it: docs/offline.md.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use apicache::config::Config;
use apicache::{supervisor, worker};

use crate::fault::{Code, Fault};

/// The settings, which the phase `kubelet` writes.
pub const CONFIG: &str = "/etc/firstboot/offline.json";

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
    let serving = || {
        let mut command = Command::new(&program);
        command.args(["cache", "--serve", file]);
        command
    };
    supervisor::run(&config, serving).map_err(failed)
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
