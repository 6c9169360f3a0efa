// SPDX-License-Identifier: Apache-2.0
//! Which interface is meant, as far as the seed leaves that open.

use super::Link;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::seed::{Interface, Network};
use anyhow::Result;
use std::time::Duration;

/// How long one try waits for a link or a radio; drivers and switches take their time after power-on.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

/// An interface as sysfs shows it (Documentation/ABI/testing/sysfs-class-net).
pub(crate) struct Seen {
    /// The kernel's name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Whether it is one of radio.
    pub radio: bool,
    /// Whether something answers at the other end; none while it is down.
    pub carrier: bool,
}

/// Real interfaces of this device, by name; no bridges, VLANs and the like.
pub(crate) fn links(host: &Host) -> Result<Vec<Seen>> {
    let links = host.each("/sys/class/net", |name| {
        let at = |file: &str| format!("/sys/class/net/{name}/{file}");
        if host.read_text(&at("device/uevent"))?.is_none() {
            return Ok(None);
        }
        // Reading `carrier` of an interface that is down is an error; that is "down" too.
        let carrier = host.read_text(&at("carrier")).unwrap_or(None);
        Ok(Some(Seen {
            mac: host.read_text(&at("address"))?.unwrap_or_default(),
            radio: host.size_and_mode(&at("phy80211"))?.is_some() || host.size_and_mode(&at("wireless"))?.is_some(),
            carrier: carrier.as_deref() == Some("1"),
            name: name.to_owned(),
        }))
    })?;
    Ok(links.into_iter().flatten().collect())
}

/// The interface that is meant; none when that cannot be told yet.
pub(crate) fn link(host: &Host, network: &Network) -> Result<Option<Link>> {
    let one_is_enough = !network.addresses.is_empty() || network.vlan.is_some();
    match (&network.wifi, &network.interface) {
        (None, Some(Interface::Name(name))) => Ok(Some(Link::Name(name.clone()))),
        (None, Some(Interface::Mac(mac))) => Ok(Some(Link::Mac(mac.clone()))),
        (None, None) if !one_is_enough => Ok(Some(Link::EveryWired)),
        (None, None) => Ok(wired(host, links(host)?).map(Link::Mac)),
        (Some(_), interface) => Ok(radio(links(host)?, interface.as_ref()).map(Link::Name)),
    }
}

/// The only wired interface, or that with a link; of several the one that was chosen before, else the first.
fn wired(host: &Host, links: Vec<Seen>) -> Option<String> {
    let wired: Vec<Seen> = links.into_iter().filter(|l| !l.radio).collect();
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

/// Name of the radio that is meant, else of the first: wpa_supplicant goes by names.
fn radio(links: Vec<Seen>, interface: Option<&Interface>) -> Option<String> {
    let meant = |l: &Seen| interface.is_none_or(|i| i.means(&l.name, &l.mac));
    links.into_iter().find(|l| l.radio && meant(l)).map(|l| l.name)
}

/// Waits until it can be told which interface is meant, and keeps a choice, so that it is the same next time.
pub(crate) fn wait(host: &Host, network: &Network) -> Result<Link, Fault> {
    if link(host, network).owned_by(Owner::Host)?.is_none() && network.wifi.is_none() {
        // An interface that is down does not tell whether it has a link.
        for seen in links(host).owned_by(Owner::Host)? {
            host.run(&["ip", "link", "set", "dev", &seen.name, "up"]).owned_by(Owner::Host)?;
        }
    }
    let found = host.wait(LIMIT, INTERVAL, || link(host, network)).owned_by(Owner::Host)?;
    let Some(link) = found else { return Err(none(host, network)?) };
    if let (Link::Mac(mac), None) = (&link, &network.interface)
        && host.journal().fact(Fact::Interface) != Some(mac)
    {
        host.record(Record::Fact { name: Fact::Interface, value: mac.clone() }).owned_by(Owner::Host)?;
    }
    Ok(link)
}

fn none(host: &Host, network: &Network) -> Result<Fault, Fault> {
    let links = links(host).owned_by(Owner::Host)?;
    let named = |radio: bool| -> String {
        let names: Vec<&str> = links.iter().filter(|l| l.radio == radio).map(|l| l.name.as_str()).collect();
        names.join(", ")
    };
    Ok(match (&network.wifi, &network.interface, named(network.wifi.is_some()).as_str()) {
        (Some(_), _, "") => {
            let text = "find a radio for [network.wifi]: this device shows none; is it there, and are its driver and \
                        firmware in the image?";
            Fault::new(Code::NoWifi, text)
        }
        (Some(_), Some(interface), radios) => {
            let text =
                format!("find radio {interface} of [network]: there is none of that name; this device has {radios}");
            Fault::new(Code::SettingDoesNotFit, text)
        }
        (_, _, "") => Fault::new(Code::NoLink, "find a link: this device has no network interface"),
        (_, _, wired) => Fault::new(Code::NoLink, format!("find a link: none of {wired} has one")),
    })
}
