// SPDX-License-Identifier: Apache-2.0
//! Files with owners: set directly when the build runs as root, under fakeroot otherwise.

use crate::cmd;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the commands that set or read ownership.
pub struct Owner {
    /// Where fakeroot remembers owners; none when we are root.
    state: Option<PathBuf>,
}

impl Owner {
    /// `scratch`: a directory for the time of the build, next to the files themselves.
    pub fn new(scratch: &Path) -> Result<Owner> {
        let root = String::from_utf8_lossy(&cmd::output(Command::new("id").arg("-u"))?).trim() == "0";
        ensure!(root || cmd::found("fakeroot"), "find fakeroot, needed to build images without being root");
        let state = (!root).then(|| scratch.join("fakeroot.state"));
        if let Some(state) = &state {
            std::fs::write(state, "")?;
        }
        Ok(Owner { state })
    }

    /// A command that sees and sets owners.
    pub fn command(&self, program: &str) -> Command {
        let program = cmd::tool(program);
        match &self.state {
            None => Command::new(program),
            Some(state) => {
                let mut command = Command::new("fakeroot");
                command.arg("-i").arg(state).arg("-s").arg(state).arg("--").arg(program);
                command
            }
        }
    }
}
