// SPDX-License-Identifier: Apache-2.0
//! The path to the cluster: each API server is reachable and authentic, the clock agrees with the cluster's, and
//! kubelet would not use a proxy. No credential is sent.

use super::check::Finding::{self, Error, Fine, Warning};
use super::check::{CheckContext, Times};
use crate::clock::{self, has_timesyncd};
use crate::fault::{Code, Fault};
use crate::kube::client::host_of;
use crate::kube::clock::{endpoint_time, server_time};
use crate::node::client::cluster;
use crate::node::proxy_env;
use crate::proxy::is_direct;
use crate::text::{timestamp, unix_seconds};
use anyhow::Result;
use std::time::SystemTime;

/// A difference between the clocks, in seconds, that affects logs and tokens; the join corrects the clock.
const APART: u64 = 60;

/// The API servers in the seed, `host:port`; after the join the one that kubelet uses.
fn servers(context: &CheckContext<'_>) -> Result<Vec<String>> {
    if context.done("join") {
        return Ok(vec![host_of(&cluster(context.host)?.0)]);
    }
    let seed = context.usable_seed();
    Ok(seed.map(|s| s.servers().iter().map(ToString::to_string).collect()).unwrap_or_default())
}

/// Queries each API server once.
fn times<'g>(context: &'g CheckContext<'_>) -> Result<&'g Times> {
    if let Some(times) = context.times.get() {
        return Ok(times);
    }
    let mut times = Times::new();
    let mut ask = |at: String, time: &dyn Fn() -> Result<SystemTime, Fault>| {
        let replied = time();
        let now = unix_seconds(context.host.now()) as i64;
        times.push((at, replied.map(|t| unix_seconds(t) as i64 - now)));
    };
    if context.done("join") {
        let (server, ca) = cluster(context.host)?;
        let via = proxy_env::kept(context.host)?;
        ask(host_of(&server), &|| server_time(&via, &server, &ca));
    } else if let Some(seed) = context.usable_seed() {
        let cluster = seed.join();
        for (cluster, at) in cluster.iter().flat_map(|cluster| cluster.apiserver.iter().map(move |at| (cluster, at))) {
            ask(at.to_string(), &|| endpoint_time(cluster, &seed.network.via, at));
        }
    }
    Ok(context.times.get_or_init(|| times))
}

pub(super) fn endpoint(context: &CheckContext<'_>) -> Result<Finding> {
    let times = times(context)?;
    if times.is_empty() {
        return Ok(match &context.seed {
            Some(Err((code, why))) => Error(*code, why.clone()),
            _ => Warning(Code::NoSeed, "there is no seed yet, so no API server to ask".into()),
        });
    }
    let good: Vec<&str> = times.iter().filter(|(_, t)| t.is_ok()).map(|(at, _)| at.as_str()).collect();
    let failed: Vec<&Fault> = times.iter().filter_map(|(_, t)| t.as_ref().err()).collect();
    let code = failed.first().map_or(Code::Cluster, |fault| fault.code);
    let failures: Vec<String> = failed.into_iter().map(Fault::to_string).collect();
    Ok(match (good.is_empty(), failures.is_empty()) {
        (_, true) => Fine(format!("{}: answers, and is the cluster's", good.join(", "))),
        (true, false) => Error(code, failures.join("; ")),
        (false, false) => Warning(code, format!("{}; {} answers", failures.join("; "), good.join(", "))),
    })
}

pub(super) fn clock(context: &CheckContext<'_>) -> Result<Finding> {
    let host = context.host;
    let (now, floor) = (unix_seconds(host.now()), unix_seconds(clock::floor(host, context.image)?));
    if now < floor {
        let text = format!(
            "set the clock: it shows {}, but it is {} or later; firstboot-guard.service should have done so",
            timestamp(now),
            timestamp(floor)
        );
        return Ok(Error(Code::ClockWrong, text));
    }
    let ahead = times(context)?.iter().find_map(|(_, t)| t.as_ref().ok()).copied();
    Ok(match ahead {
        Some(by) if by.unsigned_abs() > APART => {
            let word = if by > 0 { "behind" } else { "ahead of" };
            let text = format!("the clock is {} s {word} the cluster's; firstboot sets it by that", by.unsigned_abs());
            Warning(Code::ClockWrong, text)
        }
        _ if !has_timesyncd(host)? => Warning(
            Code::ClockWrong,
            "this image has no systemd-timesyncd: NTP servers of seed and DHCP are not asked".into(),
        ),
        Some(_) => Fine(format!("{}, as the cluster's", timestamp(now))),
        None => Fine(format!("{}, not before {}; no API server to compare with", timestamp(now), timestamp(floor))),
    })
}

/// kubelet takes proxies from its environment, as Go programs do; firstboot does not. systemd gives the same default
/// environment to all services, so this process has it too.
pub(super) fn proxy(context: &CheckContext<'_>) -> Result<Finding> {
    let environment = context.host.read("/proc/self/environ")?.unwrap_or_default();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let value = |name: &str| {
        let set = |l: &str| l.split_once('=').is_some_and(|(n, v)| n.eq_ignore_ascii_case(name) && !v.is_empty());
        environment.split('\0').find(|l| set(l)).and_then(|l| l.split_once('=')).map(|(_, v)| v.to_owned())
    };
    if value("HTTPS_PROXY").is_none() {
        return Ok(Fine("no HTTPS_PROXY is set".into()));
    }
    let exceptions = value("NO_PROXY").unwrap_or_default();
    // The address of a proxy may contain a password, so the message omits it.
    let through: Vec<String> = servers(context)?.into_iter().filter(|at| !excepted(at, &exceptions)).collect();
    Ok(match through.is_empty() {
        true => Fine("HTTPS_PROXY is set, and NO_PROXY leaves out the API server".into()),
        false => Warning(
            Code::ProxyEnvironment,
            format!(
                "add {} to NO_PROXY: kubelet would talk to it through the proxy of HTTPS_PROXY, and expects the cluster's \
                 certificate there",
                through.join(", ")
            ),
        ),
    })
}

/// Whether NO_PROXY covers `host:port`.
fn excepted(at: &str, exceptions: &str) -> bool {
    let (host, port) = at.rsplit_once(':').unwrap_or((at, ""));
    is_direct(host, port.parse().unwrap_or(443), exceptions.split(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_parsed_as_in_go() {
        for (at, exceptions, want) in [
            ("10.0.0.1:6443", "10.0.0.0/8", true),
            ("10.0.0.1:6443", "10.0.0.2, 192.168.0.0/16", false),
            ("10.0.0.1:6443", "0.0.0.0/0", true),
            ("[fd00::1]:6443", "fd00::/8", true),
            ("[fd00::1]:6443", "10.0.0.0/8", false),
            ("api.example.org:6443", ".example.org", true),
            ("api.example.org:6443", "example.org", true),
            ("api.badexample.org:6443", "example.org", false),
            ("api.example.org:6443", "*", true),
            ("api.example.org:6443", "", false),
            ("127.0.0.1:6443", "", true),
        ] {
            assert_eq!(excepted(at, exceptions), want, "{at} {exceptions}");
        }
    }
}
