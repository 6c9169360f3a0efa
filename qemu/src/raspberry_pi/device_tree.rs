// SPDX-License-Identifier: Apache-2.0
//! The device tree that the firmware hands over: overlays applied, and what it says of the board and of this boot.
//! By the tools of the device tree compiler.

use super::Value;
use crate::run_dir::RunDir;
use anyhow::{Context, Result};
use imagebuild::cmd;
use std::path::Path;
use std::process::Command;

/// What the firmware says.
pub(super) struct Said<'a> {
    /// Serial number of the board.
    pub serial: &'a str,
    /// The partition that it started from.
    pub partition: u32,
    /// When the boot loader in the board's EEPROM was built, seconds since 1970, where it has one.
    pub eeprom: Option<u32>,
    /// What the emulated board has in another way: node, property and its value.
    pub emulated: &'a [(&'a str, &'a str, Value)],
}

/// Applies `overlays` to `tree` and adds what is `said`.
///
/// # Errors
/// When a tool is missing, or the tree or an overlay is none.
pub(super) fn complete(tree: &[u8], overlays: &[Vec<u8>], said: &Said<'_>) -> Result<Vec<u8>> {
    let dir = RunDir::new("device-tree")?;
    let at = |name: &str| dir.path().join(name);
    let write =
        |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()));
    let (base, out) = (at("base.dtb"), at("out.dtb"));
    write(&base, tree)?;
    write(&out, tree)?;
    if !overlays.is_empty() {
        let mut command = Command::new("fdtoverlay");
        command.arg("-i").arg(&base).arg("-o").arg(&out);
        for (number, overlay) in overlays.iter().enumerate() {
            let path = at(&format!("{number}.dtbo"));
            write(&path, overlay)?;
            command.arg(path);
        }
        cmd::run(&mut command).context("apply overlays to the device tree")?;
    }
    let put = |kind: &str, node: &str, name: &str, value: &str| {
        let mut command = Command::new("fdtput");
        command.args(["-p", "-t", kind]).arg(&out).args([node, name, value]);
        cmd::run(&mut command).with_context(|| format!("set {node}/{name} in the device tree"))
    };
    put("s", "/", "serial-number", said.serial)?;
    put("u", "/chosen/bootloader", "partition", &said.partition.to_string())?;
    put("u", "/chosen/bootloader", "tryboot", "0")?;
    if let Some(built) = said.eeprom {
        put("u", "/chosen/bootloader", "build-timestamp", &built.to_string())?;
    }
    for (node, name, value) in said.emulated {
        let mut command = Command::new("fdtput");
        match value {
            Value::Text(text) => command.args(["-t", "s"]).arg(&out).args([node, name, text]),
            Value::Empty => command.arg(&out).args([node, name]),
            Value::Absent => command.arg("-d").arg(&out).args([node, name]),
        };
        cmd::run(&mut command).with_context(|| format!("change {node}/{name} in the device tree"))?;
    }
    std::fs::read(&out).with_context(|| format!("read {}", out.display()))
}
