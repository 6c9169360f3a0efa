// SPDX-License-Identifier: Apache-2.0
//! What boards are known for: weak power supplies, and cards that hold less than they say.

use super::check::CheckContext;
use super::check::Finding::{self, Error, Fine, Warning};
use crate::boot_partition::capacity::{self, Capacity};
use crate::boot_report::BootReport;
use crate::fault::Code;
use crate::host::Host;
use anyhow::Result;

/// What the firmware of a Raspberry Pi reports, on kernels of Raspberry Pi (documentation of Raspberry Pi, `vcgencmd
/// get_throttled`): bits in hexadecimal digits.
const THROTTLED: &str = "/sys/devices/platform/soc/soc:firmware/get_throttled";
/// Bits of that: now, and at any time since power-on.
const UNDER_VOLTAGE: [u32; 2] = [0, 16];
const SLOWED_DOWN: [u32; 2] = [2, 18];
/// The upstream kernel's sensor for it (drivers/hwmon/raspberrypi-hwmon.c).
const SENSORS: &str = "/sys/class/hwmon";
const SENSOR: &str = "rpi_volt";

pub(super) fn power(context: &CheckContext<'_>) -> Result<Finding> {
    let host = context.host;
    let bits = host.read_text(THROTTLED)?.and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
    let has = |of: [u32; 2]| bits.is_some_and(|bits| of.iter().any(|bit| bits >> bit & 1 == 1));
    let sensor = sensor(host)?;
    if has(UNDER_VOLTAGE) || sensor == Some(true) {
        let text = "use a stronger power supply or a shorter cable: the board reports that its voltage was too low";
        return Ok(Warning(Code::Power, text.into()));
    }
    if has(SLOWED_DOWN) {
        return Ok(Warning(Code::Power, "cool the board: it reports that it was slowed down by heat".into()));
    }
    Ok(Fine(match bits.is_some() || sensor.is_some() {
        true => "the board reports no shortage since power-on".into(),
        false => "not looked at: this kernel does not report it".into(),
    }))
}

/// Whether the sensor has seen a voltage that was too low; `None` without one.
fn sensor(host: &Host) -> Result<Option<bool>> {
    for name in host.list(SENSORS)? {
        let read = |file: &str| host.read_text(&format!("{SENSORS}/{name}/{file}"));
        if read("name")?.is_some_and(|text| text.trim() == SENSOR) {
            return Ok(read("in0_lcrit_alarm")?.map(|text| text.trim() == "1"));
        }
    }
    Ok(None)
}

pub(super) fn disk_size(context: &CheckContext<'_>) -> Result<Finding> {
    // Only a disk that an image of ours was written to has its table at the beginning, by our own hand.
    if BootReport::read(context.host).is_none() {
        return Ok(Fine("not looked at: this system is on a disk of another image".into()));
    }
    Ok(size(&capacity::of_root_disk()?))
}

fn size(capacity: &Capacity) -> Finding {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match capacity.real {
        None => Fine(format!("{}, and no sign that it holds less", gib(capacity.claimed))),
        Some(real) => Error(
            Code::DiskSize,
            format!("replace the card: it says that it holds {}, and holds {}", gib(capacity.claimed), gib(real)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_holds_less_is_to_be_replaced() {
        let Error(code, text) = size(&Capacity { claimed: 64 << 30, real: Some(8 << 30) }) else { panic!("no error") };
        assert_eq!(code, Code::DiskSize);
        assert_eq!(text, "replace the card: it says that it holds 64.0 GiB, and holds 8.0 GiB");
        let Fine(text) = size(&Capacity { claimed: 64 << 30, real: None }) else { panic!("an error") };
        assert_eq!(text, "64.0 GiB, and no sign that it holds less");
    }
}
