// SPDX-License-Identifier: Apache-2.0
//! Who this device is: node name, host name, machine-id.
//!
//! The name comes from the seed's template or, without one, from what the hardware tells: serial number unless it is
//! one of the fillers that vendors leave in, else the permanent, universally administered MAC address, else a random
//! one that is kept. It is the same after a reset.

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::Record;
use crate::seed::NodeName;
use anyhow::Result;

pub(crate) const MACHINE_ID: &str = "/etc/machine-id";
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";

/// What vendors leave in the serial number field, lower case.
const JUNK_SERIALS: &[&str] = &[
    "default string",
    "to be filled by o.e.m.",
    "system serial number",
    "not specified",
    "not applicable",
    "not available",
    "none",
    "n/a",
    "na",
    "oem",
    "unknown",
    "serial",
    "invalid",
    "empty",
    "0123456789",
    "123456789",
    "1234567890",
];

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let Some(name) = cx.host.journal().fact("node").map(str::to_owned) else { return Ok(false) };
    let same = wanted_name(cx, Some(&name))? == name
        && cx.host.read_text(HOSTNAME).owned_by(Owner::Host)?.as_deref() == Some(&name)
        && machine_id(&cx.host).owned_by(Owner::Host)?.is_some();
    Ok(same)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let known = cx.host.journal().fact("node").map(str::to_owned);
    let name = wanted_name(cx, known.as_deref())?;
    install(&cx.host, &name).owned_by(Owner::Host)?;
    if known.as_deref() != Some(&name) {
        cx.host.record(Record::Fact { name: "node".into(), value: name }).owned_by(Owner::Host)?;
    }
    Ok(())
}

fn install(host: &Host, name: &str) -> Result<()> {
    if machine_id(host)?.is_none() {
        host.write(MACHINE_ID, format!("{}\n", random_hex(host)?).as_bytes(), 0o444)?;
    }
    host.write(HOSTNAME, format!("{name}\n").as_bytes(), 0o644)?;
    host.write(HOSTS, hosts(name).as_bytes(), 0o644)?;
    host.sys().set_hostname(name)
}

/// kubelet looks its own name up when it starts; without this line it waits for a resolver that may not answer.
fn hosts(name: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n")
}

/// `/etc/machine-id`, unless it is empty or no id.
pub(crate) fn machine_id(host: &Host) -> Result<Option<String>> {
    let id = host.read_text(MACHINE_ID)?;
    Ok(id.filter(|i| i.len() == 32 && i.bytes().all(|b| b.is_ascii_hexdigit()) && i.bytes().any(|b| b != b'0')))
}

fn random_hex(host: &Host) -> Result<String> {
    // The kernel's own generator of version 4 UUIDs; systemd makes machine ids of the same kind.
    let uuid = host.read_text("/proc/sys/kernel/random/uuid")?;
    anyhow::ensure!(uuid.is_some(), "read /proc/sys/kernel/random/uuid");
    Ok(uuid.unwrap_or_default().replace('-', ""))
}

/// The name that this device should have; `known` is the one it was given before.
fn wanted_name(cx: &Cx, known: Option<&str>) -> Result<String, Fault> {
    match name_by_hardware(&cx.host, cx.seed.node.name.as_ref())? {
        Some(name) => Ok(name),
        None => random_name(&cx.host, known).owned_by(Owner::Host),
    }
}

/// The name by template, serial number or MAC address; `None` when only chance is left.
pub(crate) fn name_by_hardware(host: &Host, template: Option<&NodeName>) -> Result<Option<String>, Fault> {
    match template {
        Some(template) => from_template(host, template).map(Some),
        None => {
            let id = serial(host).and_then(|s| Ok(s.or(permanent_mac(host)?))).owned_by(Owner::Host)?;
            Ok(id.map(|id| format!("edge-{id}")))
        }
    }
}

fn from_template(host: &Host, template: &NodeName) -> Result<String, Fault> {
    let serial = serial(host).owned_by(Owner::Host)?;
    let mac = permanent_mac(host).owned_by(Owner::Host)?;
    let id = machine_id(host).owned_by(Owner::Host)?;
    let rendered = template.render(|key| match key {
        "serial" => serial.clone(),
        "mac" => mac.clone(),
        "machine-id" => id.clone(),
        _ => None,
    });
    rendered.map_err(|text| Fault::new(Owner::Seed, format!("render [node] name: {text}")))
}

fn random_name(host: &Host, known: Option<&str>) -> Result<String> {
    match known {
        Some(name) => Ok(name.to_owned()),
        None => Ok(format!("edge-{}", &random_hex(host)?[..12])),
    }
}

/// The serial number as part of a node name, from the device tree or DMI.
fn serial(host: &Host) -> Result<Option<String>> {
    for path in ["/sys/firmware/devicetree/base/serial-number", "/sys/class/dmi/id/product_serial"] {
        if let Some(serial) = host.read_text(path)?.and_then(|raw| usable_serial(&raw)) {
            return Ok(Some(serial));
        }
    }
    Ok(None)
}

/// A raw serial number in the characters of a DNS-1123 label, unless it is one of the fillers.
fn usable_serial(raw: &str) -> Option<String> {
    let raw = raw.trim().to_ascii_lowercase();
    let one_character = raw.bytes().all(|b| Some(b) == raw.bytes().next());
    if raw.is_empty() || one_character || JUNK_SERIALS.contains(&raw.as_str()) {
        return None;
    }
    let mapped: String = raw.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let label = mapped.trim_matches('-').to_owned();
    // With "edge-" before it the whole name stays within 63 characters.
    (!label.is_empty() && label.len() <= 58).then_some(label)
}

/// MAC address, without colons, of the first physical interface whose address is permanent and universal.
fn permanent_mac(host: &Host) -> Result<Option<String>> {
    for name in host.list("/sys/class/net")? {
        let file = |leaf: &str| host.read_text(&format!("/sys/class/net/{name}/{leaf}"));
        // 0: NET_ADDR_PERM, set by the maker (Documentation/ABI/testing/sysfs-class-net).
        if file("addr_assign_type")?.as_deref() != Some("0") || file("device/uevent")?.is_none() {
            continue;
        }
        if let Some(mac) = file("address")?.and_then(|m| universal_mac(&m)) {
            return Ok(Some(mac));
        }
    }
    Ok(None)
}

/// IEEE 802: bit 1 of the first octet tells a locally administered address.
fn universal_mac(text: &str) -> Option<String> {
    let hex: String = text.split(':').collect();
    let first = u8::from_str_radix(hex.get(..2)?, 16).ok()?;
    let universal = first & 0b11 == 0 && hex.len() == 12 && hex.bytes().any(|b| b != b'0');
    universal.then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::super::put_for_tests;
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn fillers_are_no_serial_numbers() {
        for junk in ["", "Default string", "0123456789", "00000000", "To be filled by O.E.M.", "xxxx", "---", " None "]
        {
            assert_eq!(usable_serial(junk), None, "{junk}");
        }
        assert_eq!(usable_serial("10000000A3F2B1C0").as_deref(), Some("10000000a3f2b1c0"));
        assert_eq!(usable_serial("PF-3X/7 9_").as_deref(), Some("pf-3x-7-9"));
    }

    #[test]
    fn only_universal_unicast_addresses_name_a_device() {
        assert_eq!(universal_mac("dc:a6:32:01:02:03").as_deref(), Some("dca632010203"));
        assert_eq!(universal_mac("52:54:00:12:34:56"), None);
        assert_eq!(universal_mac("01:00:5e:00:00:01"), None);
        assert_eq!(universal_mac("00:00:00:00:00:00"), None);
    }

    #[test]
    fn the_name_goes_by_serial_then_mac_then_chance_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let put = |path: &str, text: &str| put_for_tests(dir.path(), path, text);
        put("proc/sys/kernel/random/uuid", "0f6dd9b2-7b0c-4d2f-9d3c-2b1a4c5d6e7f\n");
        assert_eq!(name_by_hardware(&host, None).unwrap(), None);
        assert_eq!(random_name(&host, None).unwrap(), "edge-0f6dd9b27b0c");
        assert_eq!(random_name(&host, Some("edge-kept")).unwrap(), "edge-kept");
        put("sys/class/net/eth0/address", "dc:a6:32:01:02:03\n");
        put("sys/class/net/eth0/addr_assign_type", "0\n");
        put("sys/class/net/eth0/device/uevent", "DRIVER=x\n");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-dca632010203");
        put("sys/class/dmi/id/product_serial", "Default string\n");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-dca632010203");
        put("sys/firmware/devicetree/base/serial-number", "10000000A3F2B1C0\0");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-10000000a3f2b1c0");
        install(&host, "edge-1").unwrap();
        assert_eq!(machine_id(&host).unwrap().unwrap(), "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f");
    }
}
