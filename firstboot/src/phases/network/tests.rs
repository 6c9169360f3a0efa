// SPDX-License-Identifier: Apache-2.0
//! Selection of the interface and of the network manager, and cleanup for the next seed. real_tests.rs tests the files
//! themselves with the real systemd-networkd.

use super::*;
use crate::host::fake::{Fake, Recorded};
use crate::network::tests::text;
use crate::phases::tests::cx;
use crate::test_files::put_for_tests;
use std::path::Path;
use std::rc::Rc;

fn machine(root: &Path, lines: &str) -> (PhaseContext, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    (cx(root, fake, &text(lines)), seen)
}

/// An interface of this device.
fn interface(root: &Path, name: &str, mac: &str, carrier: bool) {
    let put = |file: &str, text: &str| put_for_tests(root, &format!("sys/class/net/{name}/{file}"), text);
    put("device/uevent", "DRIVER=x\n");
    put("address", &format!("{mac}\n"));
    put("carrier", if carrier { "1\n" } else { "0\n" });
}

const ONE: &str = "02:00:5e:00:53:01";
const TWO: &str = "02:00:5e:00:53:02";

#[test]
fn first_interface_with_a_carrier_is_kept_until_only_another_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, seen) = machine(dir.path(), "addresses = \"10.0.2.15/24\"");
    let fault = apply(&cx).unwrap_err();
    assert_eq!(
        (fault.code, fault.to_string().as_str()),
        (Code::NoLink, "find a link: this device has no network interface")
    );
    interface(dir.path(), "eth0", ONE, false);
    interface(dir.path(), "eth1", TWO, false);
    let fault = apply(&cx).unwrap_err();
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::NoLink, "find a link: none of eth0, eth1 has one"));
    assert_eq!(seen.commands.take(), ["ip link set dev eth0 up", "ip link set dev eth1 up"]);
    interface(dir.path(), "eth1", TWO, true);
    let file = || cx.host.read_text("/etc/systemd/network/05-firstboot.network").unwrap().unwrap();
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap() && file().contains(TWO), "{}", file());
    interface(dir.path(), "eth0", ONE, true);
    assert!(check(&cx).unwrap());
    interface(dir.path(), "eth1", TWO, false);
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap() && file().contains(ONE), "{}", file());
    // No interface has a carrier: the selection stays.
    interface(dir.path(), "eth0", ONE, false);
    assert!(check(&cx).unwrap());
}

#[test]
fn only_interface_is_selected_even_without_a_carrier() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, _) = machine(dir.path(), "vlan = 42");
    interface(dir.path(), "eth0", ONE, false);
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
}

#[test]
fn next_seed_removes_what_it_does_not_configure() {
    let dir = tempfile::tempdir().unwrap();
    interface(dir.path(), "eth0", ONE, true);
    let (cx, _) = machine(dir.path(), "interface = \"eth0\"\nvlan = 42");
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    drop(cx);
    put_for_tests(dir.path(), "sys/class/net/vlan42/address", ONE);
    let (cx, seen) = machine(dir.path(), "interface = \"eth0\"\nvlan = 7");
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    let restart = "systemctl --no-block restart systemd-networkd.service";
    assert_eq!(seen.commands.take(), ["ip link delete dev vlan42", restart]);
    drop(cx);
    let (cx, _) = machine(dir.path(), "");
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    assert_eq!(cx.host.list("/etc/systemd/network").unwrap(), ["50-firstboot.network"]);
}

#[test]
fn wifi_interface_is_found_and_stopped_by_the_next_seed() {
    let dir = tempfile::tempdir().unwrap();
    let wifi = "wifi = { ssid = \"a\", password = \"hunter22\", country = \"DE\" }";
    let (cx, seen) = machine(dir.path(), wifi);
    let fault = apply(&cx).unwrap_err();
    assert_eq!(
        (fault.code, fault.to_string().as_str()),
        (
            Code::NoWpaSupplicant,
            "use [network.wifi]: this image has no wpa_supplicant; add wpasupplicant to its packages"
        )
    );
    put_for_tests(dir.path(), "usr/lib/systemd/system/wpa_supplicant@.service", "[Service]\n");
    interface(dir.path(), "eth0", ONE, true);
    let fault = apply(&cx).unwrap_err();
    let text = "find a Wi-Fi interface for [network.wifi]: this device has none; is the hardware there, and are its driver and \
                firmware in the image?";
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::NoWifi, text));
    interface(dir.path(), "wlp1s0", TWO, false);
    put_for_tests(dir.path(), "sys/class/net/wlp1s0/phy80211/name", "phy0\n");
    // As the kernel's made-up radios have it.
    put_for_tests(dir.path(), "sys/class/net/wlp1s0/device/uevent", "");
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    let unit = "wpa_supplicant@wlp1s0.service";
    let restart = "systemctl --no-block restart";
    assert_eq!(seen.commands.take(), [format!("{restart} {unit}"), format!("{restart} systemd-networkd.service")]);
    let secret = "/etc/wpa_supplicant/wpa_supplicant-wlp1s0.conf";
    assert_eq!(cx.host.size_and_mode(secret).unwrap().unwrap().1, 0o600);
    assert!(cx.host.read_link(&supplicant_link("wlp1s0")).unwrap().is_some());
    let journal = std::fs::read_to_string(dir.path().join("var/lib/firstboot/journal")).unwrap();
    assert!(!journal.contains("hunter22"));
    // A boot with the radio off, as `rfkill.default_state=0` has it.
    let switch = "sys/class/net/wlp1s0/phy80211/rfkill1/soft";
    put_for_tests(dir.path(), switch, "1\n");
    assert!(!check(&cx).unwrap());
    let fault = apply(&cx).unwrap_err();
    assert_eq!(seen.kernel.take(), [format!("/{switch}=0")]);
    let text = "switch on the radio of wlp1s0: another program switches it off (rfkill, soft block)";
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::WifiNotConnected, text));
    put_for_tests(dir.path(), switch, "0\n");
    assert!(check(&cx).unwrap());
    // A switch of the device is left to a person: the phase `online` names it.
    put_for_tests(dir.path(), "sys/class/net/wlp1s0/phy80211/rfkill1/hard", "1\n");
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap() && seen.kernel.take().is_empty());
    drop(cx);
    let (cx, seen) = machine(dir.path(), "");
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    assert_eq!(seen.commands.take()[0], format!("systemctl stop {unit}"));
    assert_eq!(cx.host.read(secret).unwrap(), None);
    assert_eq!(cx.host.read_link(&supplicant_link("wlp1s0")).unwrap(), None);
    drop(cx);
    let (cx, _) = machine(dir.path(), &format!("interface = \"wlan9\"\n{wifi}"));
    let fault = apply(&cx).unwrap_err();
    let text = "find Wi-Fi interface wlan9 of [network]: there is none of that name; this device has wlp1s0";
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::SettingDoesNotFit, text));
}

#[test]
fn networkmanager_is_configured_where_the_image_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, seen) = machine(dir.path(), "interface = \"eth0\"\naddresses = \"10.0.2.15/24\"");
    cx.host
        .symlink(&format!("{WANTS}/NetworkManager.service"), "/usr/lib/systemd/system/NetworkManager.service")
        .unwrap();
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    let start = "systemctl start NetworkManager.service";
    assert_eq!(seen.commands.take(), [start, "nmcli connection reload", "nmcli --wait 0 connection up id firstboot"]);
    assert_eq!(cx.host.list(keyfile::DIR).unwrap(), ["firstboot.nmconnection"]);
    assert!(cx.host.list(networkd::DIR).unwrap().is_empty());
    drop(cx);
    let (cx, seen) = machine(dir.path(), "");
    assert!(!check(&cx).unwrap());
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap() && cx.host.list(keyfile::DIR).unwrap().is_empty());
    assert_eq!(seen.commands.take(), [start, "nmcli connection reload"]);
    apply(&cx).unwrap();
    assert!(seen.commands.take().is_empty(), "nothing changed");
}

#[test]
fn networkmanager_switches_its_radio_on_in_the_country_of_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, seen) = machine(dir.path(), "wifi = { ssid = \"a\", password = \"hunter22\", country = \"DE\" }");
    cx.host
        .symlink(&format!("{WANTS}/NetworkManager.service"), "/usr/lib/systemd/system/NetworkManager.service")
        .unwrap();
    interface(dir.path(), "wlan0", ONE, false);
    let switch = "sys/class/net/wlan0/phy80211/rfkill0/soft";
    put_for_tests(dir.path(), switch, "1\n");
    // NetworkManager does not do it, or another program takes it back.
    assert_eq!(apply(&cx).unwrap_err().code, Code::WifiNotConnected);
    let [start, on] = ["systemctl start NetworkManager.service", "nmcli radio wifi on"];
    let up = ["nmcli connection reload", "nmcli --wait 0 connection up id firstboot"];
    assert_eq!(seen.commands.take(), [&[start, on], &up[..]].concat());
    assert!(!check(&cx).unwrap());
    put_for_tests(dir.path(), "usr/sbin/iw", "");
    put_for_tests(dir.path(), switch, "0\n");
    apply(&cx).unwrap();
    assert_eq!(seen.commands.take(), [start, "iw reg set DE", on]);
    assert!(check(&cx).unwrap() && seen.kernel.take().is_empty());
}

#[test]
fn name_servers_without_systemd_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, _) = machine(dir.path(), "dns = [\"10.0.2.3\", \"fd00::3\"]");
    apply(&cx).unwrap();
    let text = "# Written by firstboot.\nnameserver 10.0.2.3\nnameserver fd00::3";
    assert_eq!(cx.host.read_text(RESOLV_CONF).unwrap().as_deref(), Some(text));
    let dir = tempfile::tempdir().unwrap();
    let (cx, _) = machine(dir.path(), "dns = \"10.0.2.3\"");
    cx.host.symlink(RESOLV_CONF, "../run/systemd/resolve/stub-resolv.conf").unwrap();
    apply(&cx).unwrap();
    assert!(check(&cx).unwrap());
    assert_eq!(cx.host.read_link(RESOLV_CONF).unwrap().as_deref(), Some("../run/systemd/resolve/stub-resolv.conf"));
}
