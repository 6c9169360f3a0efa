// SPDX-License-Identifier: Apache-2.0
//! Selects the interface, as far as the seed leaves it open.

use super::Link;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::seed::{Interface, Network};
use anyhow::Result;
use std::time::Duration;

/// Limit of one wait for a carrier or a Wi-Fi interface; drivers and switches need time after power-on.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

/// An interface in sysfs (Documentation/ABI/testing/sysfs-class-net).
pub(crate) struct LinkInfo {
    /// The kernel's name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Whether this is a Wi-Fi interface.
    pub wifi: bool,
    /// Whether the link has a carrier; `false` while the interface is down.
    pub carrier: bool,
}

/// Physical interfaces of this device, by name; no bridges, VLANs and the like.
pub(crate) fn links(host: &Host) -> Result<Vec<LinkInfo>> {
    let links = host.each("/sys/class/net", |name| {
        let at = |file: &str| format!("/sys/class/net/{name}/{file}");
        // Of some drivers it is empty.
        if host.size_and_mode(&at("device/uevent"))?.is_none() {
            return Ok(None);
        }
        // Reading `carrier` of an interface that is down fails, which means "no carrier" too.
        let carrier = host.read_text(&at("carrier")).unwrap_or(None);
        Ok(Some(LinkInfo {
            mac: host.read_text(&at("address"))?.unwrap_or_default(),
            wifi: host.size_and_mode(&at("phy80211"))?.is_some() || host.size_and_mode(&at("wireless"))?.is_some(),
            carrier: carrier.as_deref() == Some("1"),
            name: name.to_owned(),
        }))
    })?;
    Ok(links.into_iter().flatten().collect())
}

/// The selected interface; `None` when it cannot be selected yet.
pub(crate) fn link(host: &Host, network: &Network) -> Result<Option<Link>> {
    let one_is_enough = !network.addresses.is_empty() || network.vlan.is_some();
    match (&network.wifi, &network.interface) {
        (None, Some(Interface::Name(name))) => Ok(Some(Link::Name(name.clone()))),
        (None, Some(Interface::Mac(mac))) => Ok(Some(Link::Mac(mac.clone()))),
        (None, None) if !one_is_enough => Ok(Some(Link::EveryWired)),
        (None, None) => Ok(wired(host, links(host)?).map(Link::Mac)),
        (Some(_), interface) => Ok(wifi_interface(links(host)?, interface.as_ref()).map(Link::Name)),
    }
}

/// The only wired interface, or the one with a carrier; of several the one selected before, otherwise the first.
fn wired(host: &Host, links: Vec<LinkInfo>) -> Option<String> {
    let wired: Vec<LinkInfo> = links.into_iter().filter(|l| !l.wifi).collect();
    let journal = host.journal();
    let chosen = wired.iter().find(|l| Some(l.mac.as_str()) == journal.fact(Fact::Interface));
    match wired.as_slice() {
        [only] => Some(only.mac.clone()),
        _ => {
            let linked = wired.iter().find(|l| l.carrier);
            chosen.filter(|l| l.carrier).or(linked).or(chosen).map(|l| l.mac.clone())
        }
    }
}

/// Name of the Wi-Fi interface in the seed, otherwise of the first: wpa_supplicant identifies interfaces by name.
fn wifi_interface(links: Vec<LinkInfo>, interface: Option<&Interface>) -> Option<String> {
    let meant = |l: &LinkInfo| interface.is_none_or(|i| i.means(&l.name, &l.mac));
    links.into_iter().find(|l| l.wifi && meant(l)).map(|l| l.name)
}

/// Waits until the interface can be selected, and records the selection, so that the next run makes the same one.
pub(crate) fn wait(host: &Host, network: &Network) -> Result<Link, Fault> {
    if link(host, network).owned_by(Owner::Host)?.is_none() && network.wifi.is_none() {
        // An interface that is down does not show whether it has a carrier.
        for seen in links(host).owned_by(Owner::Host)? {
            host.run(&["ip", "link", "set", "dev", &seen.name, "up"]).owned_by(Owner::Host)?;
        }
    }
    let found = host.wait(LIMIT, INTERVAL, || link(host, network)).owned_by(Owner::Host)?;
    let Some(link) = found else { return Err(no_link_fault(host, network)?) };
    if let (Link::Mac(mac), None) = (&link, &network.interface)
        && host.journal().fact(Fact::Interface) != Some(mac)
    {
        host.record(Record::Fact { name: Fact::Interface, value: mac.clone() }).owned_by(Owner::Host)?;
    }
    Ok(link)
}

fn no_link_fault(host: &Host, network: &Network) -> Result<Fault, Fault> {
    let links = links(host).owned_by(Owner::Host)?;
    let named = |wifi: bool| -> String {
        let names: Vec<&str> = links.iter().filter(|l| l.wifi == wifi).map(|l| l.name.as_str()).collect();
        names.join(", ")
    };
    Ok(match (&network.wifi, &network.interface, named(network.wifi.is_some()).as_str()) {
        (Some(_), _, "") => {
            let text = "find a Wi-Fi interface for [network.wifi]: this device has none; is the hardware there, and are its \
                        driver and firmware in the image?";
            Fault::new(Code::NoWifi, text)
        }
        (Some(_), Some(interface), names) => {
            let text = format!(
                "find Wi-Fi interface {interface} of [network]: there is none of that name; this device has {names}"
            );
            Fault::new(Code::SettingDoesNotFit, text)
        }
        (_, _, "") => Fault::new(Code::NoLink, "find a link: this device has no network interface"),
        (_, _, wired) => Fault::new(Code::NoLink, format!("find a link: none of {wired} has one")),
    })
}
