// SPDX-License-Identifier: Apache-2.0
//! kubelet: configured as the seed says, enabled, started, healthy.

use super::context::PhaseContext;
use super::kubelet_config;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::{self, Fact};
use crate::journal::{Effect, Record};
use crate::node::proxy_env;
use crate::paths::{KUBELET_UNIT, KUBELET_WANTED};
use crate::text::printable_line;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

/// As long as kubeadm waits (kubeletHealthCheck).
const LIMIT: Duration = Duration::from_secs(240);
/// How often it is asked whether kubelet keeps ending; its unit starts it again after 10 s.
const LOOK: Duration = Duration::from_secs(15);
/// kubelet's default healthz address; it answers without a certificate.
const HEALTHZ: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10248);

/// When kubelet was started, as far as the journal knows.
pub(super) fn started(host: &Host) -> SystemTime {
    host.journal().time(Fact::KubeletStarted).unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        Ok(cx.host.read_link(KUBELET_WANTED)?.is_some()
            && kubelet_config::holds(&cx.host, &cx.seed.kubelet)?
            && proxy_env::holds(&cx.host, &cx.seed.network.via)?)
    };
    Ok(held().owned_by(Owner::Host)? && healthy(&cx.host))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let work = || -> Result<u32> {
        cx.host.enable_unit(KUBELET_WANTED, KUBELET_UNIT)?;
        let proxy = proxy_env::put(&cx.host, &cx.seed.network.via)?;
        if proxy {
            // It runs without what the join found out: the cluster's own ranges, which no proxy leads to.
            cx.host.run(&["systemctl", "restart", "containerd.service"])?;
        }
        let changed = kubelet_config::put(&cx.host, &cx.seed.kubelet)? || proxy;
        let started = Record::Effect(Effect::Started { unit: "kubelet.service".into() });
        let started = cx.host.journal().records().contains(&started);
        if changed && started {
            cx.host.run(&["systemctl", "stop", "kubelet.service"])?;
        }
        // systemd goes on counting where it was stopped between two starts of its own.
        let before = if started { restarts(&cx.host) } else { 0 };
        cx.host.record(Record::Fact { name: Fact::KubeletStarted, value: facts::time(cx.host.now()) })?;
        cx.host.start_unit("kubelet.service")?;
        Ok(before)
    };
    let before = work().owned_by(Owner::Host)?;
    wait(cx, before)
}

/// How often systemd has started kubelet again by itself.
fn restarts(host: &Host) -> u32 {
    let count = host.run(&["systemctl", "show", "--property", "NRestarts", "--value", "kubelet.service"]);
    count.ok().and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Waits until kubelet is healthy, or keeps ending; `before` is what [`restarts`] said when it was started.
fn wait(cx: &PhaseContext, before: u32) -> Result<(), Fault> {
    let until = cx.host.sys().uptime() + LIMIT;
    loop {
        let well = cx.host.wait(LOOK, Duration::from_millis(50), || Ok(healthy(&cx.host).then_some(())));
        if well.owned_by(Owner::Host)?.is_some() {
            return Ok(());
        }
        let late = cx.host.sys().uptime() >= until;
        let count = restarts(&cx.host);
        let ended = count.checked_sub(before).unwrap_or(count);
        if ended < 2 && !late {
            continue;
        }
        let log = ["journalctl", "--unit", "kubelet.service", "--boot", "--lines", "300", "--output", "cat"];
        // Without a journal there is nothing to repeat.
        let complaint = complaint(&cx.host.run(&log).unwrap_or_default());
        return Err(fault(cx, ended, complaint));
    }
}

/// Why kubelet is not well, and who must act: what it does not like about `[kubelet.config]` is the seed's.
fn fault(cx: &PhaseContext, ended: u32, complaint: Option<String>) -> Fault {
    let state = match ended {
        0 | 1 => format!("wait for kubelet: not healthy after {} s", LIMIT.as_secs()),
        _ => format!("start kubelet: it ended {ended} times"),
    };
    let Some(complaint) = complaint else {
        return Fault::new(Code::KubeletUnhealthy, format!("{state}, see journalctl -u kubelet"));
    };
    let ours = |complaint: &str| {
        complaint.contains("dropin") || cx.seed.kubelet.config.keys().any(|field| complaint.contains(field.as_str()))
    };
    match !cx.seed.kubelet.config.is_empty() && ours(&complaint) {
        true => Fault::new(Code::KubeletConfigRejected, format!("{state}, by [kubelet.config]: {complaint}")),
        false => Fault::new(Code::KubeletUnhealthy, format!("{state}: {complaint}")),
    }
}

/// The one line of kubelet's log that says why it ended, or what it complained about last.
fn complaint(log: &str) -> Option<String> {
    let lines = || log.lines().rev().map(str::trim).filter(|l| !l.is_empty());
    // klog: Lmmdd hh:mm:ss.uuuuuu threadid file:line] message; E and F are errors.
    let error = |l: &&str| l.starts_with(['E', 'F']) && l.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    const LAST_WORDS: &str = "\"command failed\" err=\"";
    let line = lines()
        .find(|l| l.contains(LAST_WORDS))
        .or_else(|| lines().find(|l| l.starts_with("panic: ")))
        .or_else(|| lines().find(error))
        .or_else(|| lines().next())?;
    Some(printable_line(&match line.split_once(LAST_WORDS) {
        Some((_, quoted)) => quoted.trim_end_matches('"').replace("\\\"", "\""),
        None if error(&line) => line.split_once("] ").map_or(line, |(_, text)| text).to_owned(),
        None => line.to_owned(),
    }))
}

fn healthy(host: &Host) -> bool {
    host.sys().answers(HEALTHZ, "/healthz")
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
