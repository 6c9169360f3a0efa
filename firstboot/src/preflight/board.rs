// SPDX-License-Identifier: Apache-2.0
//! What boards are known for: weak power supplies, cards that hold less than they say, old boot loaders in their EEPROM.

use super::check::CheckContext;
use super::check::Finding::{self, Error, Fine, Warning};
use crate::boot_partition::capacity::{self, Capacity};
use crate::boot_report::BootReport;
use crate::fault::Code;
use crate::host::Host;
use crate::text::timestamp;
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

/// When the boot loader in the EEPROM of a Raspberry Pi 4 or 5 was built, seconds since 1970, big-endian (documentation of
/// Raspberry Pi, "Device Tree boot loader properties"). Older models have none.
const BUILD_TIMESTAMP: &str = "/sys/firmware/devicetree/base/chosen/bootloader/build-timestamp";
/// 2022-11-25: the first default release that is made for two slots (rpi-eeprom, firmware-2711/release-notes.md,
/// 2022-12-01: `[tryboot]`, `tryboot_a_b`; 2022-10-18: another partition where the named one is not bootable).
const TWO_SLOTS_SINCE: u32 = 1_669_334_400;

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

pub(super) fn boot_loader(context: &CheckContext<'_>) -> Result<Finding> {
    let bytes = context.host.read(BUILD_TIMESTAMP)?;
    let Some(built) = bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) else {
        return Ok(Fine("not looked at: the firmware does not say how old it is".into()));
    };
    let date = |seconds: u32| timestamp(seconds.into()).chars().take(10).collect::<String>();
    Ok(match built < TWO_SLOTS_SINCE {
        false => Fine(format!("the one in the EEPROM is of {}", date(built))),
        true => Warning(
            Code::OldBootLoader,
            format!(
                "update the boot loader in the EEPROM: it is of {}, and before {} none was made for two versions of a \
                 system; start the board once with a card that Raspberry Pi Imager wrote (Misc utility images, \
                 Bootloader), or run `sudo rpi-eeprom-update -a` on Raspberry Pi OS",
                date(built),
                date(TWO_SLOTS_SINCE)
            ),
        ),
    })
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
