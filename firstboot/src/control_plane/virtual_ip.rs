// SPDX-License-Identifier: Apache-2.0
//! The address that all control planes share: keepalived gives it to one of them (VRRP, RFC 9568), and rather to one whose
//! API server is alive.
//!
//! Every device has the same priority, and none takes the address from another of the same priority, so it moves only where
//! its holder, or that one's API server, is gone. Where no API server is alive, one device has the address all the same: a
//! cluster that is slow, or just being created, keeps it.

use super::address;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::kube::livez;
use crate::paths::{CA_FILE, KEEPALIVED_CONFIG, KEEPALIVED_WANTED, PROGRAM, UNIT_DIR};
use crate::seed::DEFAULT_PORT;
use anyhow::{Context, Result};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// The unit that runs keepalived.
pub const UNIT: &str = "firstboot-virtual-ip.service";
/// The program, which images for control planes have.
const KEEPALIVED: &str = "/usr/sbin/keepalived";
/// How long keepalived may take for an address that no other machine has.
const HELD: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(500);

/// Whether this device can share the address: on which link.
///
/// # Errors
/// The image's without keepalived. The seed's where the address is in another network.
pub fn fits(host: &Host, shared: IpAddr, own: IpAddr) -> Result<String, Fault> {
    if host.size_and_mode(KEEPALIVED).owned_by(Owner::Host)?.is_none() {
        let text = "share virtual-ip with other control planes: this image has no keepalived; images of imagebuild build \
                    --control-plane have it";
        return Err(Fault::new(Code::ProgramMissing, text));
    }
    let (link, net) = link_of(host, own).owned_by(Owner::Host)?;
    if net.addr().is_ipv4() != shared.is_ipv4() || !net.contains(&shared) {
        let text = format!("share virtual-ip {shared}: it is in another network than this device's address {net}");
        return Err(Fault::new(Code::SettingDoesNotFit, text));
    }
    Ok(link)
}

/// Writes keepalived's configuration and starts it. Where this device is `creating` the cluster, it waits until it has the
/// address: kubeadm needs it.
///
/// # Errors
/// As [`fits`]. The seed's where another machine has the address, before there is a cluster.
pub fn put(host: &Host, shared: IpAddr, own: IpAddr, creating: bool) -> Result<(), Fault> {
    let link = fits(host, shared, own)?;
    if creating && !holds(host, &link, shared).owned_by(Owner::Host)? {
        vacant(host, &link, shared)?;
    }
    let text = configuration(shared, own, &link);
    let work = || -> Result<()> {
        host.write(KEEPALIVED_CONFIG, text.as_bytes(), 0o600)?;
        host.enable_unit(KEEPALIVED_WANTED, &format!("{UNIT_DIR}/{UNIT}"))?;
        host.start_unit(UNIT)
    };
    work().owned_by(Owner::Host)?;
    if !creating {
        return Ok(());
    }
    let there = host.wait(HELD, INTERVAL, || Ok(holds(host, &link, shared)?.then_some(())));
    there.owned_by(Owner::Host)?.ok_or_else(|| {
        Fault::new(
            Code::ControlPlane,
            format!("take virtual-ip {shared}: keepalived does not; see journalctl -u {UNIT}"),
        )
    })
}

/// What keepalived asks every few seconds: whether this device's API server is alive. Nothing else of this device is read,
/// not even the journal.
///
/// # Errors
/// It is not.
pub fn check(root: &Path, own: IpAddr) -> Result<(), Fault> {
    let ca = std::fs::read_to_string(root.join(CA_FILE.trim_start_matches('/')));
    let ca = ca.with_context(|| format!("read {CA_FILE}")).coded(Code::NodeCredential)?;
    livez::ask(&format!("https://{}", SocketAddr::new(own, DEFAULT_PORT)), &ca)
}

/// The link that has this address, and the address with its network.
fn link_of(host: &Host, own: IpAddr) -> Result<(String, IpNet)> {
    let shown = host.run(&["ip", "-json", "address", "show", "to", &own.to_string()])?;
    let found = address::with_links(&shown).into_iter().find(|(_, net)| net.addr() == own);
    found.with_context(|| format!("find the link that has {own}"))
}

/// Whether the address is on that link of this device.
fn holds(host: &Host, link: &str, shared: IpAddr) -> Result<bool> {
    let shown = host.run(&["ip", "-json", "address", "show", "dev", link])?;
    Ok(address::with_links(&shown).iter().any(|(_, net)| net.addr() == shared))
}

/// Whether no other machine on the link answers for the address, by what ARP and neighbour discovery find.
fn vacant(host: &Host, link: &str, shared: IpAddr) -> Result<(), Fault> {
    // Whatever comes of it: the kernel has asked who has the address.
    let _ = host.sys().answers(SocketAddr::new(shared, DEFAULT_PORT), "/");
    let shown = host.run(&["ip", "-json", "neighbour", "show", "to", &shared.to_string(), "dev", link]);
    let neighbours: serde_json::Value = shown
        .and_then(|text| serde_json::from_str(&text).context("read what ip says of neighbours"))
        .owned_by(Owner::Host)?;
    match neighbours[0]["lladdr"].as_str() {
        None => Ok(()),
        Some(mac) => {
            let text = format!(
                "create a cluster at virtual-ip {shared}: the machine with the hardware address {mac} has it already; switch \
                 that off, or choose another address"
            );
            Err(Fault::new(Code::SettingDoesNotFit, text))
        }
    }
}

/// keepalived.conf(5) of the device with the address `own` on `link`. Without a prefix length no route is made, and the address is not taken as a source. Members of a
/// group have the same number (1 to 255), which is the last byte of the address.
pub fn configuration(shared: IpAddr, own: IpAddr, link: &str) -> String {
    let last = match shared {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    format!(
        "# Written by firstboot.
global_defs {{
    enable_script_security
    script_user root
}}
vrrp_script api_server {{
    script \"{PROGRAM} api-server {own}\"
    interval 4
    timeout 4
    fall 2
    rise 1
    weight -50
}}
vrrp_instance api_server {{
    state BACKUP
    version 3
    interface {link}
    virtual_router_id {id}
    priority 100
    advert_int 1
    virtual_ipaddress {{
        {shared} dev {link}
    }}
    track_script {{
        api_server
    }}
}}
",
        id = last.max(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;
    use std::cell::Cell;
    use std::rc::Rc;

    const ADDRESS: &str = r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.7","prefixlen":24}]}]"#;
    const BOTH: &str = r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.7","prefixlen":24},{"local":"192.0.2.10","prefixlen":24}]}]"#;

    /// A device whose keepalived takes the address when it is started, on a link where this is seen of it before.
    fn device(root: &Path, neighbours: &'static str) -> (Host, Rc<crate::host::fake::Recorded>) {
        let started = Cell::new(false);
        let (fake, seen) = Fake::new();
        let fake = fake.answering(move |argv| match argv {
            ["ip", "-json", "address", ..] => Some(Ok(if started.get() { BOTH } else { ADDRESS }.to_owned())),
            ["ip", "-json", "neighbour", ..] => Some(Ok(neighbours.to_owned())),
            ["systemctl", "start", UNIT] => {
                started.set(true);
                Some(Ok(String::new()))
            }
            _ => None,
        });
        put_for_tests(root, "usr/sbin/keepalived", "");
        put_for_tests(root, "etc/kubernetes/pki/ca.crt", "");
        (Host::open(root, Box::new(fake)).unwrap(), seen)
    }

    fn of(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_creator_takes_an_address_that_no_machine_has() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = device(dir.path(), "[{\"dst\":\"192.0.2.10\",\"state\":[\"FAILED\"]}]");
        put(&host, of("192.0.2.10"), of("192.0.2.7"), true).unwrap();
        let text = host.read_utf8(KEEPALIVED_CONFIG).unwrap().unwrap();
        assert!(text.contains("interface eth0\n") && text.contains("virtual_router_id 10\n"), "{text}");
        assert!(text.contains("api-server 192.0.2.7\"") && text.contains("        192.0.2.10 dev eth0\n"), "{text}");
        assert_eq!(check(dir.path(), of("192.0.2.7")).unwrap_err().code, Code::NodeCredential);
    }

    #[test]
    fn an_address_that_is_in_use_or_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let used = "[{\"dst\":\"192.0.2.10\",\"lladdr\":\"52:54:00:00:00:01\",\"state\":[\"REACHABLE\"]}]";
        let (host, seen) = device(dir.path(), used);
        let refused = |shared: &str| {
            let fault = put(&host, of(shared), of("192.0.2.7"), true).unwrap_err();
            (fault.code, fault.to_string())
        };
        let (code, text) = refused("192.0.2.10");
        assert_eq!(code, Code::SettingDoesNotFit);
        assert!(text.contains("the machine with the hardware address 52:54:00:00:00:01 has it already"), "{text}");
        for other in ["192.0.3.10", "fd00::10"] {
            let text =
                format!("share virtual-ip {other}: it is in another network than this device's address 192.0.2.7/24");
            assert_eq!(refused(other), (Code::SettingDoesNotFit, text));
        }
        assert!(!seen.commands.borrow().iter().any(|command| command.starts_with("systemctl")));
        let bare = tempfile::tempdir().unwrap();
        let host = Host::open(bare.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(put(&host, of("192.0.2.10"), of("192.0.2.7"), false).unwrap_err().code, Code::ProgramMissing);
    }
}
