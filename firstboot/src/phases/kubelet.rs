// SPDX-License-Identifier: Apache-2.0
//! kubelet: configured as the seed says, enabled, started, healthy.

use super::context::PhaseContext;
use super::kubelet_config;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::discover_peers::lead_to_cache;
use crate::host::Host;
use crate::journal::facts::{self, Fact};
use crate::journal::{Effect, Record};
use crate::node::proxy_env;
use crate::offline;
use crate::paths::{KUBELET_UNIT, KUBELET_WANTED};
use crate::text::printable_line;
use anyhow::Result;
use serde_json::Value;
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
            && kubelet_config::holds(&cx.host, &cx.seed.kubelet, cx.seed.node.offline)?
            && offline::holds(&cx.host, &cx.seed)?
            && proxy_env::holds(&cx.host, &cx.seed.network.via)?)
    };
    Ok(held().owned_by(Owner::Host)? && healthy(&cx.host))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let started = Record::Effect(Effect::Started { unit: "kubelet.service".into() });
    let started = cx.host.journal().records().contains(&started);
    let work = || -> Result<u32> {
        cx.host.enable_unit(KUBELET_WANTED, KUBELET_UNIT)?;
        let proxy = proxy_env::put(&cx.host, &cx.seed.network.via)?;
        if proxy {
            // It runs without what the join found out: the cluster's own ranges, which no proxy leads to.
            cx.host.run(&["systemctl", "restart", "containerd.service"])?;
        }
        let refreshed = started && published_again(&cx.host)?;
        let led = offline::put(&cx.host, &cx.seed)?;
        lead_to_cache(&cx.host)?;
        let configured = kubelet_config::put(&cx.host, &cx.seed.kubelet, cx.seed.node.offline)?;
        let changed = configured || led || proxy || refreshed;
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

/// A kubelet that was started and is not well: the cluster may publish another configuration by now, which needs no token
/// and no other seed. Whether it does.
///
/// # Errors
/// What is published cannot be read. Without an answer kubelet is given what it had.
fn published_again(host: &Host) -> Result<bool> {
    match kubelet_config::refresh(host) {
        Ok(changed) => Ok(changed),
        Err(fault) if fault.code == Code::ClusterConfiguration => Err(fault.into()),
        Err(fault) => {
            host.sys().say(&format!("firstboot: kubelet-config is not fetched again: {fault}"));
            Ok(false)
        }
    }
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
        let well = cx.host.wait(LOOK, Duration::from_millis(200), || Ok(healthy(&cx.host).then_some(())));
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

/// What kubelet says of its configuration when it ends (`cmd/kubelet/app/server.go`).
const OF_CONFIGURATION: [&str; 8] = [
    "kubelet configuration",
    "kubelet config",
    "KubeletConfiguration",
    "invalid configuration",
    "feature gate",
    "featureGates",
    "initialize logging",
    "logging configuration",
];
/// What it says of what the seed's `[node]` and `[network]` give it as flags.
const OF_FLAGS: [&str; 4] = ["--node-labels", "register-with-taints", "taint", "--node-ip"];

/// Why kubelet is not well, and who must act: what it does not like about the seed is the seed's, what it does not like
/// about its configuration besides is the cluster's.
fn fault(cx: &PhaseContext, ended: u32, complaint: Option<String>) -> Fault {
    let state = match ended {
        0 | 1 => format!("wait for kubelet: not healthy after {} s", LIMIT.as_secs()),
        _ => format!("start kubelet: it ended {ended} times"),
    };
    let Some(complaint) = complaint else {
        return Fault::new(Code::KubeletUnhealthy, format!("{state}, see journalctl -u kubelet"));
    };
    let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    let config = &cx.seed.kubelet.config;
    let gates =
        config.get("featureGates").and_then(|gates| gates.as_object()).into_iter().flat_map(|gates| gates.keys());
    let fields = || config.keys().chain(gates).any(|field| complaint.contains(field.as_str()));
    if !config.is_empty() && (complaint.contains("dropin") || fields()) {
        return Fault::new(Code::KubeletConfigRejected, format!("{state}, by [kubelet.config]: {complaint}"));
    }
    if ended > 1 && has(&OF_FLAGS) {
        return Fault::new(Code::KubeletConfigRejected, format!("{state}, by [node]: {complaint}"));
    }
    if ended > 1 && has(&OF_CONFIGURATION) {
        let text = format!("{state}, by ConfigMap kubelet-config in kube-system: {complaint}");
        return Fault::new(Code::ClusterKubeletConfig, text);
    }
    Fault::new(Code::KubeletUnhealthy, format!("{state}: {complaint}"))
}

/// A line of kubelet's log.
enum Line {
    /// Its last words before it ends.
    LastWords(String),
    /// Go's.
    Panic(String),
    Error(String),
    Other(String),
}

impl Line {
    fn of(line: &str) -> Line {
        const LAST_WORDS: &str = "\"command failed\" err=\"";
        // klog: Lmmdd hh:mm:ss.uuuuuu threadid file:line] message; E and F are errors.
        let error = line.starts_with(['E', 'F']) && line.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        // With logging.format json: msg and, for errors alone, err (component-base/logs/json).
        if let Some(Value::Object(entry)) = line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            return match (text("msg"), text("err")) {
                (message, error) if message == "command failed" => Line::LastWords(error),
                (message, error) if !error.is_empty() => Line::Error(format!("{message}: {error}")),
                (message, _) => Line::Other(message),
            };
        }
        match line.split_once(LAST_WORDS) {
            Some((_, quoted)) => Line::LastWords(quoted.trim_end_matches('"').replace("\\\"", "\"")),
            None if line.starts_with("panic: ") => Line::Panic(line.to_owned()),
            None if error => Line::Error(line.split_once("] ").map_or(line, |(_, text)| text).to_owned()),
            None => Line::Other(line.to_owned()),
        }
    }
}

/// The one line of kubelet's log that says why it ended, or what it complained about last.
fn complaint(log: &str) -> Option<String> {
    let (mut last_words, mut panic, mut error, mut other) = (None, None, None, None);
    for line in log.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match Line::of(line) {
            Line::LastWords(text) => last_words = Some(text),
            Line::Panic(text) => panic = Some(text),
            Line::Error(text) => error = Some(text),
            Line::Other(text) => other = Some(text),
        }
    }
    last_words.or(panic).or(error).or(other).map(|text| printable_line(&text))
}

fn healthy(host: &Host) -> bool {
    host.sys().answers(HEALTHZ, "/healthz")
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
