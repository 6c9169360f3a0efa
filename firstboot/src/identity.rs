// SPDX-License-Identifier: Apache-2.0
//! The identity of this device: node name, host name, machine-id.
//!
//! The name comes from the seed's template. Without a template it comes from the hardware: the serial number, unless it
//! is a placeholder of the vendor; otherwise the permanent, universally administered MAC address; otherwise a random
//! name, which is kept. The name is the same after a reset: the reset removes the machine-id but records the name, so
//! that a random name can be used again.

use crate::boot_partition::DeviceIds;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::hardware_id::{universal_mac, usable_mac, usable_serial};
use crate::host::Host;
use crate::image::{ImageInfo, is_machine_id, machine_id_digest};
use crate::journal::facts::Fact;
use crate::paths::{HOSTNAME, HOSTS};
use crate::seed::NodeName;
use crate::text::hex;
use anyhow::Result;
use sha2::{Digest, Sha256};

/// File of the machine-id (machine-id(5)).
pub(crate) const MACHINE_ID: &str = "/etc/machine-id";

/// The recorded name of this device, from this installation or from the one before a reset.
pub(crate) fn known_name(host: &Host) -> Option<String> {
    let journal = host.journal();
    journal.fact(Fact::Node).or(journal.fact(Fact::NodeBefore)).map(str::to_owned)
}

pub(crate) fn ensure_machine_id(host: &Host) -> Result<()> {
    match machine_id(host)? {
        Some(_) => Ok(()),
        None => host.write(MACHINE_ID, format!("{}\n", random_hex(host)?).as_bytes(), 0o444),
    }
}

pub(crate) fn install(host: &Host, name: &str) -> Result<()> {
    host.write(HOSTNAME, format!("{name}\n").as_bytes(), 0o644)?;
    let hosts = read_hosts(host)?;
    let wanted = with_own_lines(&hosts, name);
    if wanted != hosts {
        host.write(HOSTS, wanted.as_bytes(), 0o644)?;
    }
    host.set_hostname(name)
}

/// Whether /etc/hosts has firstboot's lines for this name, and none for another.
pub(crate) fn hosts_hold(host: &Host, name: &str) -> Result<bool> {
    let hosts = read_hosts(host)?;
    Ok(with_own_lines(&hosts, name) == hosts)
}

fn read_hosts(host: &Host) -> Result<String> {
    Ok(String::from_utf8_lossy(&host.read(HOSTS)?.unwrap_or_default()).into_owned())
}

/// The same file with firstboot's lines at its end. Lines of the image and of an administrator stay. kubelet resolves
/// its own name when it starts; without the last line it waits for a name server that may not answer.
fn with_own_lines(hosts: &str, name: &str) -> String {
    const MARK: &str = " # firstboot";
    let foreign: Vec<&str> = hosts.lines().filter(|line| !line.ends_with(MARK)).collect();
    let has_localhost = |address: &str| {
        foreign.iter().any(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            words.next() == Some(address) && words.any(|word| word == "localhost")
        })
    };
    let mut text: String = foreign.iter().map(|line| format!("{line}\n")).collect();
    for (address, names) in [("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback")] {
        if !has_localhost(address) {
            text += &format!("{address} {names}{MARK}\n");
        }
    }
    text + &format!("127.0.1.1 {name}{MARK}\n")
}

/// The content of `/etc/machine-id`, unless it is empty or no valid id.
pub(crate) fn machine_id(host: &Host) -> Result<Option<String>> {
    Ok(host.read_text(MACHINE_ID)?.filter(|id| is_machine_id(id)))
}

fn random_hex(host: &Host) -> Result<String> {
    // The kernel's generator of version 4 UUIDs; systemd generates machine-ids of the same kind.
    let uuid = host.read_text("/proc/sys/kernel/random/uuid")?;
    anyhow::ensure!(uuid.is_some(), "read /proc/sys/kernel/random/uuid");
    Ok(uuid.unwrap_or_default().replace('-', ""))
}

/// The name from template, serial number or MAC address; `None` when only a random name is left.
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
    rendered.map_err(|text| Fault::new(Code::SettingDoesNotFit, format!("render [node] name: {text}")))
}

/// A random name; `known` is the recorded one, which is used again.
pub(crate) fn random_name(host: &Host, image: &ImageInfo, known: Option<&str>) -> Result<String> {
    if let Some(name) = known {
        return Ok(name.to_owned());
    }
    let digits = match machine_id(host)? {
        // Hashed, because a machine-id must not be exposed (machine-id(5)).
        Some(id) if !came_with_image(host, image)? => {
            hex(&Sha256::new().chain_update(b"firstboot node name 1\0").chain_update(id).finalize())
        }
        _ => random_hex(host)?,
    };
    Ok(format!("edge-{}", &digits[..12]))
}

/// Whether the machine-id is that of the image: then every device flashed from that image has the same. The time of its
/// file says nothing: a device without a clock makes one before the image was built, by its clock.
pub(crate) fn came_with_image(host: &Host, image: &ImageInfo) -> Result<bool> {
    let own = machine_id(host)?.map(|id| machine_id_digest(&id));
    Ok(own.is_some() && own == image.machine_id)
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

/// What a card with seeds for many devices knows this one by: the serial number that a name would have, and the permanent
/// addresses of all physical interfaces. An address of a virtual machine, which its host assigns, counts here: a person put
/// the seed there for it. What cannot be read is as if it were not there: the next look may find it.
pub fn device_ids(host: &Host) -> DeviceIds {
    let macs = host.each("/sys/class/net", |name| {
        let address = permanent_address(host, name)?;
        Ok(address.and_then(|text| usable_mac(&text)))
    });
    let macs = macs.unwrap_or_default().into_iter().flatten().collect();
    DeviceIds { serial: serial(host).ok().flatten(), macs }
}

/// The address of a physical interface, unless it was not assigned by the manufacturer.
fn permanent_address(host: &Host, name: &str) -> Result<Option<String>> {
    let at = |leaf: &str| format!("/sys/class/net/{name}/{leaf}");
    let file = |leaf: &str| host.read_text(&at(leaf));
    // 0: NET_ADDR_PERM, assigned by the manufacturer (Documentation/ABI/testing/sysfs-class-net).
    if file("addr_assign_type")?.as_deref() != Some("0") || host.size_and_mode(&at("device/uevent"))?.is_none() {
        return Ok(None);
    }
    file("address")
}

/// MAC address, without colons, of the first physical interface whose address is permanent and universal.
fn permanent_mac(host: &Host) -> Result<Option<String>> {
    let macs = host.each("/sys/class/net", |name| {
        Ok(permanent_address(host, name)?.and_then(|address| universal_mac(&address)))
    })?;
    Ok(macs.into_iter().flatten().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::journal::Record;
    use crate::test_files::put_for_tests;

    fn image() -> ImageInfo {
        ImageInfo { build_time: 1000, ..ImageInfo::for_tests() }
    }

    #[test]
    fn foreign_lines_of_the_hosts_file_stay() {
        let ours = "127.0.0.1 localhost # firstboot\n::1 localhost ip6-localhost ip6-loopback # firstboot\n\
                    127.0.1.1 edge-1 # firstboot\n";
        for (before, after) in [
            ("", ours.to_owned()),
            ("# 127.0.0.1 localhost\n10.0.0.7 registry\n", format!("# 127.0.0.1 localhost\n10.0.0.7 registry\n{ours}")),
            (
                "127.0.0.1\tlocalhost\n::1 ip6-loopback localhost\n127.0.1.1 debian",
                "127.0.0.1\tlocalhost\n::1 ip6-loopback localhost\n127.0.1.1 debian\n127.0.1.1 edge-1 # firstboot\n"
                    .to_owned(),
            ),
        ] {
            assert_eq!(with_own_lines(before, "edge-1"), after);
            assert_eq!(with_own_lines(&after, "edge-1"), after);
            assert_eq!(with_own_lines(&with_own_lines(before, "edge-0"), "edge-1"), after);
        }
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert!(!hosts_hold(&host, "edge-1").unwrap());
        install(&host, "edge-1").unwrap();
        assert!(hosts_hold(&host, "edge-1").unwrap() && !hosts_hold(&host, "edge-2").unwrap());
    }

    #[test]
    fn random_name_follows_a_unique_machine_id_and_survives_a_reset() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        put_for_tests(dir.path(), "etc/machine-id", "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f\n");
        put_for_tests(dir.path(), "proc/sys/kernel/random/uuid", "aaaaaaaa-bbbb-4d2f-9d3c-2b1a4c5d6e7f\n");
        // printf 'firstboot node name 1\0000f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f' | sha256sum
        let name = random_name(&host, &image(), None).unwrap();
        assert_eq!(name, "edge-1bcc25c8ad71");
        assert_eq!(random_name(&host, &image(), None).unwrap(), name);
        let same = ImageInfo { machine_id: Some(machine_id_digest("0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f")), ..image() };
        assert_eq!(random_name(&host, &same, None).unwrap(), "edge-aaaaaaaabbbb");
        let other = ImageInfo { machine_id: Some(machine_id_digest("1")), build_time: u64::MAX >> 2, ..image() };
        assert_eq!(random_name(&host, &other, None).unwrap(), name, "whatever the clock says");
        // After a reset there is another machine-id, and the recorded name.
        put_for_tests(dir.path(), "etc/machine-id", "");
        host.renew_journal(&[Record::Fact { name: Fact::NodeBefore, value: name.clone() }]).unwrap();
        ensure_machine_id(&host).unwrap();
        assert_eq!(random_name(&host, &image(), known_name(&host).as_deref()).unwrap(), name);
        assert_ne!(random_name(&host, &image(), None).unwrap(), name);
    }

    #[test]
    fn name_comes_from_serial_then_mac_then_random_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let put = |path: &str, text: &str| put_for_tests(dir.path(), path, text);
        put("proc/sys/kernel/random/uuid", "0f6dd9b2-7b0c-4d2f-9d3c-2b1a4c5d6e7f\n");
        assert_eq!(name_by_hardware(&host, None).unwrap(), None);
        let image = image();
        assert_eq!(random_name(&host, &image, None).unwrap(), "edge-0f6dd9b27b0c");
        assert_eq!(random_name(&host, &image, Some("edge-kept")).unwrap(), "edge-kept");
        // An address that the driver generated at this boot, and one of a bridge.
        put("sys/class/net/eth0/address", "dc:a6:32:01:02:03\n");
        put("sys/class/net/eth0/addr_assign_type", "1\n");
        put("sys/class/net/eth0/device/uevent", "DRIVER=x\n");
        put("sys/class/net/cni0/address", "dc:a6:32:01:02:04\n");
        put("sys/class/net/cni0/addr_assign_type", "0\n");
        assert_eq!(name_by_hardware(&host, None).unwrap(), None);
        put("sys/class/net/eth0/address", "dc:a6:32:01:02:03\n");
        put("sys/class/net/eth0/addr_assign_type", "0\n");
        put("sys/class/net/eth0/device/uevent", "DRIVER=x\n");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-dca632010203");
        put("sys/class/dmi/id/product_serial", "Default string\n");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-dca632010203");
        put("sys/firmware/devicetree/base/serial-number", "10000000A3F2B1C0\0");
        assert_eq!(name_by_hardware(&host, None).unwrap().unwrap(), "edge-10000000a3f2b1c0");
        ensure_machine_id(&host).unwrap();
        install(&host, "edge-1").unwrap();
        assert_eq!(machine_id(&host).unwrap().unwrap(), "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f");
    }
}
