// SPDX-License-Identifier: Apache-2.0
//! A site: devices, their control plane and strangers on one local network, in a namespace. Here the API server reaches
//! kubelet (logs, exec), and a stranger tries to.
//!
//! Addresses come from dnsmasq. The control plane is started with [`Site::namespace`] and has the address that
//! guests know it by everywhere. Nothing is configured outside the namespace, nothing is left behind.

use super::conditions::Conditions;
use super::namespace::Namespace;
use super::relay::{Ends, Relay};
use super::tap_bridge::{self, Side};
use crate::args;
use crate::process::Process;
use crate::run_dir::RunDir;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::sync::Arc;

/// Where the control plane is.
pub const CONTROL_PLANE: &str = "10.0.2.2";
/// A stranger: a host that must not reach the devices.
pub const STRANGER: &str = "10.0.2.3";
/// The same, IPv6, on this link only.
pub const STRANGER_V6: &str = "fe80::3";

/// A local network with one device on it. It has to outlive the device.
pub struct Site {
    // Order matters: what runs in the namespace ends before its holder.
    _programs: Vec<Process>,
    relay: Relay,
    device: Ends,
    namespace: Arc<Namespace>,
    dir: RunDir,
}

impl Site {
    /// Sets the network up.
    ///
    /// # Errors
    /// When this machine does not allow namespaces or tap interfaces, or lacks a program.
    pub fn start() -> Result<Self> {
        let dir = RunDir::new("site")?;
        let at = |name: &str| dir.path().join(name);
        let device = Ends { relay: at("near-relay"), peer: at("near") };
        let network = Ends { relay: at("far-relay"), peer: at("far") };
        let relay = Relay::start(&device, &network, Conditions::default())?;
        let namespace = Arc::new(Namespace::new(dir.path())?);
        // Addresses are usable at once: no other host can have them.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("tuntap add dev lan mode tap")?;
        for address in [CONTROL_PLANE, STRANGER] {
            namespace.ip(&format!("addr add {address}/24 dev lan"))?;
        }
        namespace.ip(&format!("addr add {STRANGER_V6}/64 dev lan"))?;
        namespace.ip("link set lan up")?;
        let within =
            |name: &str, program: &Path, args: &[String], log: &Path| namespace.start(name, program, args, log);
        let leases = format!("--dhcp-leasefile={}", at("leases").display());
        let words = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--interface=lan",
            "--except-interface=lo",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--log-dhcp",
            "--port=0",
            "--dhcp-range=10.0.2.100,10.0.2.150,1h",
            // No server answers there, but CoreDNS does not start without one.
            "--dhcp-option=option:dns-server,10.0.2.2",
            &leases,
        ]
        .map(str::to_owned);
        let programs = vec![
            tap_bridge::start(&network, Side::Tap("lan"), &at("lan.log"), within)?,
            namespace.start("dnsmasq", Path::new("dnsmasq"), &words, &at("dnsmasq.log"))?,
        ];
        Ok(Site { _programs: programs, relay, device, namespace, dir })
    }

    /// Where the control plane and others on this network run.
    pub fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }

    /// Where the device is plugged in.
    pub fn socket(&self) -> args::Link {
        args::Link::Relay(self.device.clone())
    }

    /// The address that the device got, once it has one.
    pub fn address(&self) -> Option<String> {
        let log = crate::process::tail(&self.dir.path().join("dnsmasq.log"), usize::MAX);
        // `dnsmasq-dhcp: 12345 DHCPACK(lan) 10.0.2.100 52:54:00:12:34:56 edge-0001`
        let line = log.lines().rev().find(|l| l.contains("DHCPACK(lan)"))?;
        line.split("DHCPACK(lan) ").nth(1)?.split(' ').next().map(str::to_owned)
    }

    /// Open ports of `target` as nmap sees them from `source`, such as `tcp/10250`. Several scans may run at once.
    ///
    /// # Errors
    /// When nmap cannot run, its output is incomplete, or probes were lost on the way.
    pub fn scan(&self, source: &str, target: &str, what: Scan) -> Result<Vec<String>> {
        for rate in what.rates() {
            let before = self.lost()?;
            let open = self.scan_at(rate, source, target, what).with_context(|| format!("scan {target}"))?;
            let lost = self.lost()? - before;
            if lost == 0 {
                return Ok(open);
            }
            println!("scan {target}: {lost} probes were lost on the way at {rate} a second");
        }
        bail!("scan {target}: probes were lost on the way, however slow they were sent")
    }

    fn scan_at(&self, rate: &str, source: &str, target: &str, what: Scan) -> Result<Vec<String>> {
        // An emulated device that drops everything answers nothing: without a rate the scan would take an hour. Probes queue
        // up before a busy guest, so its answer may take seconds (nmap knows a probe for ten). None is sent twice: the link
        // counts those that it loses.
        let mut words = vec!["-n", "-Pn", "-oG", "-", "--min-rate", rate, "--max-retries", "0"];
        words.extend(["--initial-rtt-timeout", "3s", "--max-rtt-timeout", "3s", "-e", "lan", "-S", source]);
        let ports = what.words();
        words.extend(ports.iter().map(String::as_str));
        if target.contains(':') {
            words.push("-6");
        }
        words.push(target);
        let mut said = String::new();
        for _ in 0..LOOKS {
            said = self.run("nmap", &words)?;
            if said.contains(UP) {
                break;
            }
        }
        open_ports(&said)
    }

    /// How many frames were lost so far between this network and the device, by the interface or by the relay. A port whose
    /// probe is lost looks like one that is closed.
    fn lost(&self) -> Result<u64> {
        let dropped = self.run("cat", &["/proc/net/dev"])?;
        // `  lan: `, eight numbers of what it received, and of what it sent: bytes, packets, errors, dropped (proc(5)).
        let lan = dropped.lines().find_map(|line| line.trim_start().strip_prefix("lan:"));
        let dropped = lan.and_then(|numbers| numbers.split_whitespace().nth(11)?.parse::<u64>().ok());
        Ok(dropped.context("read /proc/net/dev")? + self.relay.counts().undelivered)
    }

    /// What `program` prints when it runs on this network.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        String::from_utf8(self.namespace.run(program, args)?).with_context(|| format!("decode what {program} says"))
    }
}

/// What nmap says of a host that is there.
const UP: &str = "Status: Up";
/// How often a host is looked for: nmap asks for its link-layer address once, and a busy guest may answer that late.
const LOOKS: u32 = 5;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Every TCP port.
    Tcp,
    /// One TCP port.
    Port(u16),
    /// The 1000 UDP ports that nmap finds open most often.
    Udp,
}

impl Scan {
    /// Probes a second, of which the next is taken where the link lost some: how many a guest takes depends on what else
    /// the build machine does.
    fn rates(self) -> &'static [&'static str] {
        match self {
            Scan::Tcp | Scan::Port(_) => &["2000", "1000", "500"],
            Scan::Udp => &["200", "100", "50"],
        }
    }

    fn words(self) -> Vec<String> {
        let words = match self {
            Scan::Tcp => ["-sS", "-p", "1-65535"],
            Scan::Port(port) => return ["-sS", "-p", &port.to_string()].map(str::to_owned).to_vec(),
            Scan::Udp => ["-sU", "--top-ports", "1000"],
        };
        words.map(str::to_owned).to_vec()
    }
}

/// Open ports in nmap's greppable output. `open|filtered`, nmap's word for a UDP port that does not answer, is not
/// open.
fn open_ports(text: &str) -> Result<Vec<String>> {
    ensure!(text.contains(UP), "read nmap's answer: it scanned no host\n{text}");
    if !text.lines().any(|l| l.starts_with("# Nmap done at ")) {
        bail!("read nmap's answer: it did not end\n{text}");
    }
    let ports = text.lines().filter_map(|l| l.split("Ports: ").nth(1)).flat_map(|l| l.split(['\t', ',']));
    let open = ports.filter_map(|port| {
        // `10250/open/tcp//unknown///`
        let fields: Vec<&str> = port.trim().split('/').collect();
        (fields.get(1) == Some(&"open")).then(|| format!("{}/{}", fields[2], fields[0]))
    });
    Ok(open.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "# Nmap 7.93 scan initiated Wed Nov 25 17:30:00 2026 as: nmap -oG - 10.0.2.100\n\
        Host: 10.0.2.100 ()\tStatus: Up\n\
        Host: 10.0.2.100 ()\tPorts: 22/closed/tcp//ssh///, 8080/open/tcp//http-proxy///, 10250/open/tcp/////\tIgnored \
        State: filtered (65532)\n# Nmap done at Wed Nov 25 17:31:00 2026 -- 1 IP address (1 host up) scanned in 60 s\n";

    #[test]
    fn open_ports_are_read() {
        assert_eq!(open_ports(ANSWER).unwrap(), ["tcp/8080", "tcp/10250"]);
        let udp = ANSWER.replace("8080/open/tcp", "53/open|filtered/udp");
        assert_eq!(open_ports(&udp).unwrap(), ["tcp/10250"]);
    }

    #[test]
    fn an_incomplete_scan_has_no_result() {
        assert!(open_ports(&ANSWER.replace("Status: Up", "Status: Down")).is_err());
        assert!(open_ports(ANSWER.split("# Nmap done").next().unwrap()).is_err());
    }
}
