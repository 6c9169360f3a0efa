// SPDX-License-Identifier: Apache-2.0
//! kubelet: enabled, started, healthy.

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::Record;
use crate::report::unix_seconds;
use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

pub(crate) const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/kubelet.service";
pub(crate) const UNIT: &str = "/usr/lib/systemd/system/kubelet.service";
/// As long as kubeadm waits (kubeletHealthCheck).
const LIMIT: Duration = Duration::from_secs(240);
/// kubelet's default healthz address; it answers without a certificate.
const HEALTHZ: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10248);

/// Fact: when kubelet was started, seconds since 1970.
const STARTED: &str = "kubelet-started";

/// When kubelet was started, as far as the journal knows.
pub(super) fn started(host: &Host) -> SystemTime {
    let seconds = host.journal().fact(STARTED).and_then(|s| s.parse().ok()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    Ok(cx.host.read_link(WANTED).owned_by(Owner::Host)?.is_some() && healthy())
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let work = || -> Result<Option<()>> {
        cx.host.symlink(WANTED, UNIT)?;
        let now = unix_seconds(cx.host.now());
        cx.host.record(Record::Fact { name: STARTED.into(), value: now.to_string() })?;
        cx.host.start_unit("kubelet.service")?;
        cx.host.wait(LIMIT, Duration::from_millis(50), || Ok(healthy().then_some(())))
    };
    match work().owned_by(Owner::Host)? {
        Some(()) => Ok(()),
        None => Err(Fault::new(Owner::Host, "wait for kubelet: not healthy after 240 s, see journalctl -u kubelet")),
    }
}

/// Whether `GET /healthz` answers 200.
fn healthy() -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&HEALTHZ, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head[9..] == b"200")
    };
    ask().unwrap_or(false)
}
