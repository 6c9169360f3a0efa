// SPDX-License-Identifier: Apache-2.0
//! The link: writes `[network]` to files of systemd-networkd or, where an image uses NetworkManager, to its profiles.
//!
//! Without the table every wired interface uses DHCP and router advertisements. This phase does not wait for an address
//! (see `online`); it waits for a carrier only where the interface cannot be selected without one.

use super::context::PhaseContext;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::host::managed_files::{self, Changes, File};
use crate::network::rfkill::Block;
use crate::network::{Link, keyfile, networkd, rfkill, select_link, vlan_name, wifi};
use crate::paths::{RESOLV_CONF, WANTS};
use crate::seed::Network;
use anyhow::Result;
use std::time::Duration;

const NETWORKD: &str = "/usr/lib/systemd/system/systemd-networkd.service";
const NETWORK_MANAGER: &str = "NetworkManager.service";
/// Sets the country of the running kernel's Wi-Fi, where the image has it.
const IW: &str = "/usr/sbin/iw";
/// How long the network manager may take until a radio is on.
const RADIO: Duration = Duration::from_secs(5);
/// Directories in which firstboot writes no other files than those of this phase.
const DIRS: [&str; 4] = [networkd::DIR, keyfile::DIR, wifi::DIR, "/etc/modprobe.d"];

/// The network manager of this image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Networkd,
    NetworkManager,
}

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        let network = &cx.seed.network;
        let Some(link) = select_link::link(&cx.host, network)? else { return Ok(false) };
        if let Some(name) = radio_of(network, &link)
            && is_off(&cx.host, name)?
        {
            return Ok(false);
        }
        let manager = manager(&cx.host)?;
        let enabled = match (manager, &network.wifi, &link) {
            (Manager::NetworkManager, ..) => true,
            (Manager::Networkd, Some(_), Link::Name(name)) => cx.host.read_link(&supplicant_link(name))?.is_some(),
            (Manager::Networkd, ..) => true,
        };
        Ok(enabled && managed_files::hold(&cx.host, &files(&cx.host, manager, network, &link)?, &DIRS)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let network = &cx.seed.network;
    let manager = manager(&cx.host).owned_by(Owner::Host)?;
    if network.wifi.is_some() && manager == Manager::Networkd {
        let there = cx.host.size_and_mode(wifi::UNIT_FILE).owned_by(Owner::Host)?.is_some();
        if !there {
            let text = "use [network.wifi]: this image has no wpa_supplicant; add wpasupplicant to its packages";
            return Err(Fault::new(Code::NoWpaSupplicant, text));
        }
    }
    let link = select_link::wait(&cx.host, network)?;
    let work = || -> Result<()> {
        let changes = managed_files::put(&cx.host, &files(&cx.host, manager, network, &link)?, &DIRS)?;
        match manager {
            Manager::Networkd => networkd(&cx.host, network, &link, &changes),
            Manager::NetworkManager => network_manager(&cx.host, network, &changes),
        }
    };
    work().owned_by(Owner::Host)?;
    let Some(name) = radio_of(network, &link) else { return Ok(()) };
    let on = || Ok((!is_off(&cx.host, name)?).then_some(()));
    match cx.host.wait(RADIO, Duration::from_millis(100), on).owned_by(Owner::Host)? {
        Some(()) => Ok(()),
        None => {
            let text = format!("switch on the radio of {name}: another program switches it off (rfkill, soft block)");
            Err(Fault::new(Code::WifiNotConnected, text))
        }
    }
}

/// Whether a program has switched off the radio of `interface`. A switch of the device is left to a person: without it there is
/// no way to the cluster, which the phase `online` reports.
fn is_off(host: &Host, interface: &str) -> Result<bool> {
    Ok(rfkill::block(host, interface)? == Some(Block::Soft))
}

fn files(host: &Host, manager: Manager, network: &Network, link: &Link) -> Result<Vec<File>> {
    let mut files = match manager {
        Manager::Networkd => networkd::files(network, link),
        Manager::NetworkManager => keyfile::files(network, link),
    };
    if let Some(network) = &network.wifi {
        files.push(wifi::country_file(network));
        if let (Manager::Networkd, Link::Name(name)) = (manager, link) {
            files.push(wifi::file(network, name));
        }
    }
    // NetworkManager writes the file itself; systemd-resolved gets the servers from networkd.
    if manager == Manager::Networkd && !network.dns.is_empty() && !resolved(host)? {
        let lines: String = network.dns.iter().map(|d| format!("nameserver {d}\n")).collect();
        files.push(File::public(RESOLV_CONF, &lines));
    }
    Ok(files)
}

/// Whether systemd-resolved resolves names.
fn resolved(host: &Host) -> Result<bool> {
    Ok(host.read_link(RESOLV_CONF)?.is_some_and(|to| to.contains("systemd/resolve")))
}

/// NetworkManager if it is enabled and networkd is not; otherwise networkd.
fn manager(host: &Host) -> Result<Manager> {
    let enabled = |unit: &str| host.read_link(&format!("{WANTS}/{unit}")).map(|l| l.is_some());
    Ok(match enabled(NETWORK_MANAGER)? && !enabled("systemd-networkd.service")? {
        true => Manager::NetworkManager,
        false => Manager::Networkd,
    })
}

fn supplicant_link(interface: &str) -> String {
    format!("{WANTS}/wpa_supplicant@{interface}.service")
}

fn networkd(host: &Host, network: &Network, link: &Link, changes: &Changes) -> Result<()> {
    host.enable_unit(&format!("{WANTS}/systemd-networkd.service"), NETWORKD)?;
    // Remove what an earlier seed set up: networkd would keep its VLAN, and wpa_supplicant would keep running.
    for name in stale_vlans(host, network)? {
        host.run(&["ip", "link", "delete", "dev", &name])?;
    }
    for interface in changes.removed.iter().filter_map(|p| wifi::interface_of(p)) {
        host.remove(&supplicant_link(interface))?;
        host.run(&["systemctl", "stop", &format!("wpa_supplicant@{interface}.service")])?;
    }
    if let Some(name) = radio_of(network, link) {
        if is_off(host, name)? {
            rfkill::unblock(host, name)?;
        }
        host.enable_unit(&supplicant_link(name), wifi::UNIT_FILE)?;
        host.run(&["systemctl", "--no-block", "restart", &format!("wpa_supplicant@{name}.service")])?;
    }
    // `restart` rather than `start`: networkd may be running already, without this file. `--no-block`, because the
    // bundle is unpacked while the address is acquired.
    host.run(&["systemctl", "--no-block", "restart", "systemd-networkd.service"]).map(drop)
}

/// VLAN interfaces of an earlier seed.
fn stale_vlans(host: &Host, network: &Network) -> Result<Vec<String>> {
    if !host.journal().knows(&networkd::vlan_file()) {
        return Ok(Vec::new());
    }
    let is_vlan = |name: &String| name.strip_prefix("vlan").is_some_and(|id| id.parse::<u16>().is_ok());
    let mut names = host.list("/sys/class/net")?;
    names.retain(|name| is_vlan(name) && network.vlan.map(vlan_name).as_ref() != Some(name));
    Ok(names)
}

/// Name of the Wi-Fi interface, where the seed has a network for it.
fn radio_of<'a>(network: &Network, link: &'a Link) -> Option<&'a str> {
    match link {
        Link::Name(name) if network.wifi.is_some() => Some(name),
        _ => None,
    }
}

/// Makes NetworkManager reload changed profiles and activate firstboot's own.
fn network_manager(host: &Host, network: &Network, changes: &Changes) -> Result<()> {
    if network.wifi.is_none() && *changes == Changes::default() {
        return Ok(());
    }
    // It may be about to start in this boot: nmcli would say that it does not run. It is the image's own, so a reset does not
    // stop it.
    host.run(&["systemctl", "start", NETWORK_MANAGER])?;
    if let Some(wifi) = &network.wifi {
        // The file of cfg80211 counts from the next boot on; NetworkManager has no setting for it.
        if host.exists(IW)? {
            let _ = host.run(&["iw", "reg", "set", &wifi.country]);
        }
        // Its own state says whether radios are on, and it blocks them again where it says no.
        host.run(&["nmcli", "radio", "wifi", "on"])?;
    }
    if *changes == Changes::default() {
        return Ok(());
    }
    host.run(&["nmcli", "connection", "reload"])?;
    let own = format!("{}/{}.nmconnection", keyfile::DIR, keyfile::ID);
    if changes.written.contains(&own) {
        // NetworkManager activates an interface as soon as it is ready; if that never happens, the phase `online`
        // reports it.
        let _ = host.run(&["nmcli", "--wait", "0", "connection", "up", "id", keyfile::ID]);
    }
    Ok(())
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
