// SPDX-License-Identifier: Apache-2.0
//! The cost of a boot of a sealed device: processor time and duration of the guard and of firstboot, from systemd.
//! There is no limit: an emulated processor is many times slower than a device's.

use crate::control_plane::ControlPlane;
use crate::device::{Device, Options};
use crate::disk::DiskImage;
use crate::progress::Progress;
use crate::scenario;
use crate::timeline::{self, Stage};
use crate::wait;
use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use serde::Serialize;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(600);
const OFF: Duration = Duration::from_secs(120);
/// The first one learns what the join left open; the second one is like all later ones.
const BOOTS: usize = 2;
const SAID: &str = "bench: sealed";
const UNIT: &str = "\
[Unit]
Description=What firstboot cost at this boot
After=firstboot-guard.service

[Service]
Type=exec
ExecStart=/bin/sh /etc/sealed.sh
StandardOutput=journal+console
";
/// Once firstboot has ended: microseconds since power-on, nanoseconds of processor time.
const SCRIPT: &str = r#"
show() { systemctl show --value --property="$2" "$1.service"; }
until [ "$(show firstboot ExecMainExitTimestampMonotonic)" -gt 0 ]; do sleep 1; done
for unit in firstboot-guard firstboot; do
    line="$line $(show $unit CPUUsageNSec) $(show $unit ExecMainStartTimestampMonotonic) $(show $unit ExecMainExitTimestampMonotonic)"
done
echo "bench: sealed$line"
"#;

/// One boot, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Boot {
    /// Processor time of `firstboot-guard.service`, with what it ran.
    pub guard_cpu: f64,
    /// From its start to its end.
    pub guard: f64,
    /// Processor time of `firstboot.service`, with what it ran.
    pub firstboot_cpu: f64,
    /// From its start to its end, waiting for the cluster included.
    pub firstboot: f64,
}

impl Boot {
    fn parse(line: &str) -> Result<Boot> {
        let numbers = line.split(SAID).nth(1).unwrap_or_default().split_whitespace().map(str::parse);
        let numbers: Vec<f64> = numbers.collect::<Result<_, _>>().with_context(|| format!("read `{}`", line.trim()))?;
        let [guard_cpu, from, to, firstboot_cpu, start, end] = numbers[..] else {
            anyhow::bail!("read `{}`: expected six numbers", line.trim());
        };
        let (cpu, time) = (|ns: f64| ns / 1e6, |us: f64| us / 1e3);
        Ok(Boot {
            guard_cpu: cpu(guard_cpu),
            guard: time(to - from),
            firstboot_cpu: cpu(firstboot_cpu),
            firstboot: time(end - start),
        })
    }

    /// For the console.
    pub fn shown(&self) -> String {
        format!(
            "sealed boot: guard {:.0} ms ({:.0} ms of processor time), firstboot {:.0} ms ({:.0})",
            self.guard, self.guard_cpu, self.firstboot, self.firstboot_cpu
        )
    }
}

/// Lets a device join, and boots it again. Gives the stages of the first boot, too.
pub fn take(plane: &ControlPlane, image: &DiskImage, arch: Arch) -> Result<(Vec<Boot>, Vec<Stage>)> {
    let options = Options { serial: Some("sealed".to_owned()), ..Options::new(arch) };
    let (device, token) = scenario::seeded(plane, image, &options)?;
    let (console, start) = (device.console().clone(), Instant::now());
    let joined = timeline::watched(&console, start, || {
        let joined = scenario::join(plane, device, token, &mut Progress::default())?;
        Ok((joined.device, start.elapsed().as_secs_f64()))
    });
    let ((mut device, ready), lines) = joined?;
    device.power_off(OFF)?;
    let disk = device.disk();
    disk.write_file("/etc/sealed.sh", SCRIPT.as_bytes(), 0o755)?;
    disk.write_file("/etc/systemd/system/sealed.service", UNIT.as_bytes(), 0o644)?;
    disk.link_file("/etc/systemd/system/multi-user.target.wants/sealed.service", "../sealed.service")?;
    for boots in 1..=BOOTS {
        device.power_on()?;
        wait_for(&device, boots)?;
        device.power_off(OFF)?;
    }
    plane.forget_nodes()?;
    let boots = said(&device)?.iter().map(|line| Boot::parse(line)).collect::<Result<_>>()?;
    Ok((boots, timeline::stages(&lines, ready)))
}

fn wait_for(device: &Device, boots: usize) -> Result<()> {
    let boot = wait::every(Duration::from_secs(1), "what a sealed boot costs", LIMIT, || {
        device.check()?;
        Ok((said(device)?.len() >= boots).then_some(()))
    });
    boot.map_err(|e| e.context(device.report()))
}

/// Whole lines only: the last one may still be growing.
fn said(device: &Device) -> Result<Vec<String>> {
    let text = device.console().text()?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(whole.lines().filter(|line| line.contains(SAID)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_numbers_become_milliseconds() {
        let line = "[   61.2] sh[412]: bench: sealed 31000000 5000000 5044000 62500000 9000000 10500000\r";
        let boot = Boot { guard_cpu: 31.0, guard: 44.0, firstboot_cpu: 62.5, firstboot: 1500.0 };
        assert_eq!(Boot::parse(line).unwrap(), boot);
        assert!(Boot::parse("bench: sealed [not set] 1 2 3 4 5").is_err() && Boot::parse("bench: sealed 1").is_err());
    }
}
