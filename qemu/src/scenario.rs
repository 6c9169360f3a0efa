// SPDX-License-Identifier: Apache-2.0
//! The whole way of one device, from a seed on its card to a raw disk without the token: what the demo shows and the
//! tests assert.

use crate::control_plane::ControlPlane;
use crate::device::{Device, Options};
use crate::disk::DiskImage;
use crate::pods::{self, Proof};
use crate::progress::Progress;
use crate::seed::{Seed, secret_of};
use crate::{search, status};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// Deadlines. Generous, for emulation on a busy machine: they only end what hangs.
const READY: Duration = Duration::from_secs(1800);
const PODS: Duration = Duration::from_secs(600);
const OFF: Duration = Duration::from_secs(120);

/// A device that joined, still running.
pub struct Joined {
    /// The device.
    pub device: Device,
    /// Name of the node.
    pub name: String,
    /// The node as the cluster knew it when it was Ready.
    pub node: Value,
    /// The token that was in the seed.
    pub token: String,
}

/// What a switched-off disk still holds.
#[derive(Debug, Clone)]
pub struct LeftBehind {
    /// Whether the boot partition lists a seed.
    pub seed_present: bool,
    /// Offsets of the token's secret on the raw disk.
    pub token_at: Vec<u64>,
    /// The status file.
    pub status: String,
}

/// A device for `image` that is switched off and has the right seed for `plane` on its card.
pub fn seeded(plane: &ControlPlane, image: &DiskImage, options: &Options) -> Result<(Device, String)> {
    let token = plane.create_token("1h")?;
    let device = Device::new(image, options)?;
    device.disk().put_seed(&Seed::for_guest(plane, &token)?.text())?;
    Ok((device, token))
}

/// Switches `device` on and waits until it has joined and destroyed its seed.
pub fn join(plane: &ControlPlane, mut device: Device, token: String, progress: &mut Progress) -> Result<Joined> {
    device.power_on()?;
    joined(plane, device, token, progress)
}

/// The same for a device that is on.
pub fn joined(plane: &ControlPlane, device: Device, token: String, progress: &mut Progress) -> Result<Joined> {
    let name = wait_sealed(&device, progress, READY)?;
    let node = plane.wait_node_ready(&name, Duration::from_secs(60), || device.check());
    let node = node.map_err(|e| e.context(device.report()))?;
    Ok(Joined { name, node, device, token })
}

/// Switches `device` on and waits until it has destroyed its seed; the name of its node.
///
/// # Errors
/// What it showed, when that does not come to pass.
pub fn run_to_seal(device: &mut Device, progress: &Progress, limit: Duration) -> Result<String> {
    device.power_on()?;
    wait_sealed(device, progress, limit)
}

/// The same for a device that is on.
///
/// # Errors
/// As [`run_to_seal`].
pub fn wait_sealed(device: &Device, progress: &Progress, limit: Duration) -> Result<String> {
    let line = loop_until_sealed(device, progress, limit)?;
    // `firstboot: node NAME is Ready, seed destroyed (42.1 s)`
    let name = line.split(" is Ready").next().and_then(|l| l.rsplit(' ').next());
    name.map(str::to_owned).context("read the node's name")
}

/// Prints firstboot's lines until it reports that the seed is destroyed.
fn loop_until_sealed(device: &Device, progress: &Progress, limit: Duration) -> Result<String> {
    let mut shown = 0;
    let pause = Duration::from_millis(300);
    let sealed = crate::wait::every(pause, "the node to be Ready and its seed destroyed", limit, || {
        let text = device.console().text()?;
        // The last line may still be growing.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<&str> = whole.lines().filter_map(said).collect();
        for line in lines.iter().skip(shown) {
            progress.say(&format!("  device: {line}"));
        }
        shown = lines.len();
        let sealed = lines.iter().find(|l| l.contains(" is Ready") && l.contains("seed destroyed"));
        if sealed.is_none() {
            device.check()?;
            if let Some(line) = lines.iter().find(|l| l.ends_with("; stopped")) {
                bail!("join: {line}");
            }
        }
        Ok(sealed.map(|l| (*l).to_owned()))
    });
    sealed.map_err(|e| e.context(device.report()))
}

/// firstboot's message on a console line, without what systemd or the kernel put before it.
fn said(line: &str) -> Option<&str> {
    let at = line.find("firstboot: ")?;
    let rest = line[at + "firstboot: ".len()..].trim();
    ["phase ", "node "].iter().any(|p| rest.starts_with(p)).then_some(rest)
}

impl Joined {
    /// Lets the demo's pods prove the node.
    pub fn prove(&self, plane: &ControlPlane) -> Result<Proof> {
        let proof = pods::prove(plane, &self.device, &self.name, PODS);
        proof.map_err(|e| e.context(self.device.report()))
    }

    /// Switches the device off and reads what its disk still holds. One without a power button loses its power.
    pub fn switch_off_and_search(&mut self) -> Result<LeftBehind> {
        match self.device.has_power_button() {
            true => self.device.power_off(OFF)?,
            false => self.device.power_cut()?,
        }
        let disk = self.device.disk();
        Ok(LeftBehind {
            seed_present: disk.seed_present()?,
            token_at: search::find(disk.path(), secret_of(&self.token))?,
            status: disk.status()?,
        })
    }
}

impl LeftBehind {
    /// Seconds of each phase, as the device reported.
    pub fn phases(&self) -> Vec<status::PhaseTime> {
        status::phases(&self.status)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn console_lines_of_firstboot_are_recognised() {
        let said = super::said;
        assert_eq!(said("[   12.3] firstboot: phase 3/13 network done 1.23 s"), Some("phase 3/13 network done 1.23 s"));
        assert_eq!(
            said("firstboot: node edge-1 is Ready, seed destroyed (4.1 s)\r"),
            Some("node edge-1 is Ready, seed destroyed (4.1 s)")
        );
        assert_eq!(said("systemd[1]: Starting firstboot.service"), None);
    }
}
