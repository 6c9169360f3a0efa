// SPDX-License-Identifier: Apache-2.0
//! Whether the radio of a Wi-Fi interface may send: the kernel's rfkill switches (Documentation/driver-api/rfkill.rst,
//! Documentation/ABI/stable/sysfs-class-rfkill).
//!
//! Raspberry Pi OS blocks every radio until its owner has named a country, by `rfkill.default_state=0` on the kernel's command
//! line and in NetworkManager's state. The seed names it.

use crate::host::Host;
use anyhow::Result;

/// What blocks a radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// The setting of a program, which may be taken back.
    Soft,
    /// A switch on the device, or its hardware.
    Hard,
}

/// What blocks the radio of `interface`; none where it may send, or has no switch.
pub(crate) fn block(host: &Host, interface: &str) -> Result<Option<Block>> {
    let mut found = None;
    for switch in switches(host, interface)? {
        let set = |name: &str| host.read_text(&format!("{switch}/{name}")).map(|value| value.as_deref() == Some("1"));
        if set("hard")? {
            return Ok(Some(Block::Hard));
        }
        if set("soft")? {
            found = Some(Block::Soft);
        }
    }
    Ok(found)
}

/// Takes back a soft block of the radio of `interface`. systemd-rfkill keeps that for the next boot, where it runs.
pub(crate) fn unblock(host: &Host, interface: &str) -> Result<()> {
    switches(host, interface)?.iter().try_for_each(|switch| host.set_kernel(&format!("{switch}/soft"), "0"))
}

/// Directories of the switches of a radio: `rfkillNUMBER` beside its other properties.
fn switches(host: &Host, interface: &str) -> Result<Vec<String>> {
    let radio = format!("/sys/class/net/{interface}/phy80211");
    let names = host.list(&radio)?.into_iter().filter(|name| name.starts_with("rfkill"));
    Ok(names.map(|name| format!("{radio}/{name}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;

    #[test]
    fn a_radio_is_blocked_by_any_switch_and_a_hard_one_is_named_first() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let put = |switch: &str, value: &str| {
            put_for_tests(dir.path(), &format!("sys/class/net/wlan0/phy80211/{switch}"), &format!("{value}\n"));
        };
        assert_eq!(block(&host, "wlan0").unwrap(), None);
        put("name", "phy0");
        assert_eq!(block(&host, "wlan0").unwrap(), None);
        put("rfkill3/soft", "1");
        put("rfkill3/hard", "0");
        assert_eq!(block(&host, "wlan0").unwrap(), Some(Block::Soft));
        unblock(&host, "wlan0").unwrap();
        assert_eq!(seen.kernel.take(), ["/sys/class/net/wlan0/phy80211/rfkill3/soft=0"]);
        put("rfkill3/hard", "1");
        assert_eq!(block(&host, "wlan0").unwrap(), Some(Block::Hard));
        assert_eq!(block(&host, "wlan1").unwrap(), None);
    }
}
