// SPDX-License-Identifier: Apache-2.0
//! Section 4 (worker nodes) of the CIS Kubernetes Benchmark 1.12, every automated and manual check of it, against
//! files, flags and effective values of a device.
//!
//! What is found on the device comes from `stat`, `ss`, `systemctl` and /proc, by [`SCRIPT`]; effective values come
//! from kubelet itself, through the API server. Nothing is taken from firstboot's own audit. docs/hardening.md has the
//! same list, with the reason of each warning; a test holds them together.

use serde_json::Value;
use std::collections::BTreeMap;

/// To be run on the device once kube-proxy is there; `$out` is a directory. See [`Facts::new`].
pub const SCRIPT: &str = r#"
for i in $(seq 300); do ss -Hltn | grep -q ':10249 ' && break; sleep 1; done
pid=$(systemctl show --property MainPID --value kubelet.service)
tr '\0' '\n' </proc/$pid/cmdline >$out/kubelet-flags
systemctl show kubelet.service >$out/kubelet-unit
stat -L -c '%n %a %U:%G' /usr/lib/systemd/system/kubelet.service /usr/lib/systemd/system/kubelet.service.d/*.conf \
  /etc/systemd/system/kubelet.service.d/*.conf /etc/default/kubelet /etc/kubernetes/kubelet.conf \
  /etc/kubernetes/pki/ca.crt /var/lib/kubelet /var/lib/kubelet/*.yaml /var/lib/kubelet/*.env \
  /etc/firstboot/kubelet.conf.d/* /etc/kubernetes/proxy.conf \
  /var/lib/kubelet/pods/*/volumes/kubernetes.io~configmap/kube-proxy/kubeconfig.conf >$out/modes 2>/dev/null
ss -Hltn >$out/listening
"#;

/// What is known of a device.
pub struct Facts {
    /// Mode and owner of each file.
    pub files: BTreeMap<String, (u32, String)>,
    /// kubelet's command line.
    pub flags: Vec<String>,
    /// kubelet's unit, as systemd shows it.
    pub unit: BTreeMap<String, String>,
    /// Local addresses that TCP sockets listen at.
    pub listening: Vec<String>,
    /// KubeletConfiguration as the running kubelet has it.
    pub configz: Value,
}

impl Facts {
    /// From what [`SCRIPT`] left behind (`read` gives a file of its directory) and from `/configz`.
    pub fn new(read: impl Fn(&str) -> String, configz: &Value) -> Self {
        let file = |line: &str| {
            let mut words = line.rsplitn(3, ' ');
            let (owner, mode, name) = (words.next()?, words.next()?, words.next()?);
            Some((name.to_owned(), (u32::from_str_radix(mode, 8).ok()?, owner.to_owned())))
        };
        let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let address = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        Facts {
            files: read("modes").lines().filter_map(file).collect(),
            flags: read("kubelet-flags").lines().skip(1).map(str::to_owned).collect(),
            unit: read("kubelet-unit").lines().filter_map(pair).collect(),
            listening: read("listening").lines().filter_map(address).collect(),
            configz: configz["kubeletconfig"].clone(),
        }
    }

    fn flag(&self, name: &str) -> Option<&str> {
        let prefix = format!("--{name}=");
        self.flags.iter().rev().find_map(|flag| flag.strip_prefix(&prefix))
    }

    /// Modes, or owners, of all files whose path begins and ends so.
    fn files(&self, begin: &str, end: &str) -> Vec<(&str, u32, &str)> {
        let all = self.files.iter().filter(|(path, _)| path.starts_with(begin) && path.ends_with(end));
        all.map(|(path, (mode, owner))| (path.as_str(), *mode, owner.as_str())).collect()
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold to the letter, and docs/hardening.md says why that is right here.
    Warn,
    /// It does not hold.
    Fail,
}

/// One check.
pub struct Check {
    /// Number in the benchmark.
    pub id: &'static str,
    /// What is looked at, in words of our own.
    pub asks: &'static str,
    /// Verdict, and what was found.
    pub look: fn(&Facts) -> (Verdict, String),
}

const UNIT: &str = "/usr/lib/systemd/system/kubelet.service";
const PROXY: (&str, &str) = ("/var/lib/kubelet/pods/", "/kube-proxy/kubeconfig.conf");
/// kubelet's configuration, in all its parts.
const CONFIGURATION: [(&str, &str); 3] =
    [("/var/lib/kubelet/", ".yaml"), ("/var/lib/kubelet/", ".env"), ("/etc/firstboot/kubelet.conf.d/", "")];
/// What the benchmark calls strong.
const STRONG: [&str; 8] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
];

/// All checks, in the benchmark's order.
#[rustfmt::skip]
pub const CHECKS: &[Check] = &[
    Check { id: "4.1.1", asks: "mode of kubelet's unit and additions: at most 600", look: |f| modes(f, &[(UNIT, "")], 0o600) },
    Check { id: "4.1.2", asks: "owner of the same: root:root", look: |f| owners(f, &[(UNIT, "")]) },
    Check { id: "4.1.3", asks: "mode of kube-proxy's kubeconfig, if there is one: at most 600", look: proxy_mode },
    Check { id: "4.1.4", asks: "owner of the same: root:root", look: |f| owners(f, &[PROXY]) },
    Check { id: "4.1.5", asks: "mode of kubelet.conf: at most 600", look: |f| modes(f, &[("/etc/kubernetes/kubelet.conf", "")], 0o600) },
    Check { id: "4.1.6", asks: "owner of the same: root:root", look: |f| owners(f, &[("/etc/kubernetes/kubelet.conf", "")]) },
    Check { id: "4.1.7", asks: "mode of the CA that kubelet trusts: at most 644", look: |f| modes(f, &[(ca(f), "")], 0o644) },
    Check { id: "4.1.8", asks: "owner of the same: root:root", look: |f| owners(f, &[(ca(f), "")]) },
    Check { id: "4.1.9", asks: "mode of kubelet's configuration, drop-ins and flags included: at most 600", look: |f| modes(f, &CONFIGURATION, 0o600) },
    Check { id: "4.1.10", asks: "owner of the same: root:root", look: |f| owners(f, &CONFIGURATION) },
    Check { id: "4.2.1", asks: "anonymous requests: refused", look: |f| value(f, "/authentication/anonymous/enabled", |v| v == false) },
    Check { id: "4.2.2", asks: "authorization: not AlwaysAllow", look: |f| value(f, "/authorization/mode", |v| v == "Webhook") },
    Check { id: "4.2.3", asks: "a CA for clients: set", look: |f| value(f, "/authentication/x509/clientCAFile", |v| v == "/etc/kubernetes/pki/ca.crt") },
    Check { id: "4.2.4", asks: "read-only port: 0, and nothing listens at 10255", look: read_only_port },
    Check { id: "4.2.5", asks: "idle connections: not kept for ever", look: |f| value(f, "/streamingConnectionIdleTimeout", |v| v != "0s" && v.is_string()) },
    Check { id: "4.2.6", asks: "iptables utility chains: made", look: |f| value(f, "/makeIPTablesUtilChains", |v| v == true) },
    Check { id: "4.2.7", asks: "flag hostname-override: not set", look: |f| flag(f, "hostname-override") },
    Check { id: "4.2.8", asks: "events per second: enough, 0 for all", look: |f| value(f, "/eventRecordQPS", |v| v.as_i64().is_some_and(|n| n == 0 || n >= 5)) },
    Check { id: "4.2.9", asks: "certificate and key of kubelet's port: set", look: certificate },
    Check { id: "4.2.10", asks: "client certificate: rotated", look: |f| value(f, "/rotateCertificates", |v| v == true) },
    Check { id: "4.2.11", asks: "feature gate RotateKubeletServerCertificate: not switched off", look: |f| value(f, "/featureGates", |v| v["RotateKubeletServerCertificate"] != false) },
    Check { id: "4.2.12", asks: "cipher suites: strong ones alone", look: |f| value(f, "/tlsCipherSuites", strong) },
    Check { id: "4.2.13", asks: "processes of a pod: limited", look: |f| value(f, "/podPidsLimit", |v| v.as_i64().is_some_and(|n| n > 0)) },
    Check { id: "4.2.14", asks: "seccomp by default: on", look: |f| value(f, "/seccompDefault", |v| v == true) },
    Check { id: "4.2.15", asks: "IPAddressDeny of kubelet's unit: any", look: address_deny },
    Check { id: "4.3.1", asks: "kube-proxy's metrics: on loopback alone", look: proxy_metrics },
];

/// A check's id, what it asks, its verdict, and what was found.
pub type Row = (&'static str, &'static str, Verdict, String);

/// Every check with its verdict and what was found.
pub fn verdicts(facts: &Facts) -> Vec<Row> {
    let judged = CHECKS.iter().map(|check| (check, (check.look)(facts)));
    judged.map(|(check, (verdict, found))| (check.id, check.asks, verdict, found)).collect()
}

fn pass(holds: bool, found: String) -> (Verdict, String) {
    (if holds { Verdict::Pass } else { Verdict::Fail }, found)
}

fn listed<'a>(facts: &'a Facts, places: &[(&str, &str)]) -> Vec<(&'a str, u32, &'a str)> {
    places.iter().flat_map(|(begin, end)| facts.files(begin, end)).collect()
}

/// Each place has a file, and none of them is open to more than `most`.
fn modes(facts: &Facts, places: &[(&str, &str)], most: u32) -> (Verdict, String) {
    let all = listed(facts, places);
    let there = places.iter().all(|(begin, end)| !facts.files(begin, end).is_empty());
    let found = all.iter().map(|(path, mode, _)| format!("{path} {mode:o}")).collect::<Vec<_>>().join(", ");
    pass(there && all.iter().all(|(_, mode, _)| mode & !most == 0), found)
}

fn owners(facts: &Facts, places: &[(&str, &str)]) -> (Verdict, String) {
    let all = listed(facts, places);
    let there = places.iter().all(|(begin, end)| !facts.files(begin, end).is_empty());
    let found = all.iter().map(|(path, _, owner)| format!("{path} {owner}")).collect::<Vec<_>>().join(", ");
    pass(there && all.iter().all(|(.., owner)| *owner == "root:root"), found)
}

/// A ConfigMap of the cluster's, as a volume: its mode is the cluster's word, but the way there is root's alone.
fn proxy_mode(facts: &Facts) -> (Verdict, String) {
    let (verdict, found) = modes(facts, &[PROXY], 0o600);
    let closed =
        facts.files.get("/var/lib/kubelet").is_some_and(|(mode, owner)| *mode == 0o700 && owner == "root:root");
    match verdict {
        Verdict::Fail if closed && !found.is_empty() && !facts.files.contains_key("/etc/kubernetes/proxy.conf") => {
            (Verdict::Warn, found)
        }
        _ => (verdict, found),
    }
}

fn ca(facts: &Facts) -> &str {
    facts.configz.pointer("/authentication/x509/clientCAFile").and_then(Value::as_str).unwrap_or("no CA")
}

fn value(facts: &Facts, pointer: &str, good: impl Fn(&Value) -> bool) -> (Verdict, String) {
    // kubelet leaves out what is empty.
    let found = facts.configz.pointer(pointer).unwrap_or(&Value::Null);
    pass(facts.configz.is_object() && good(found), format!("{} {found}", &pointer[1..]))
}

fn flag(facts: &Facts, name: &str) -> (Verdict, String) {
    let found = facts.flag(name);
    pass(found.is_none() && !facts.flags.is_empty(), found.unwrap_or("not set").to_owned())
}

fn read_only_port(facts: &Facts) -> (Verdict, String) {
    let listens = facts.listening.iter().any(|a| a.ends_with(":10255"));
    let (verdict, found) = value(facts, "/readOnlyPort", |v| v.is_null() || v == 0);
    (if listens { Verdict::Fail } else { verdict }, format!("{found}, listening: {listens}"))
}

/// Without them kubelet signs its own, and names that one here, or asks the cluster where requests are approved.
fn certificate(facts: &Facts) -> (Verdict, String) {
    let named = |key: &str| facts.configz.pointer(key).and_then(Value::as_str);
    match (named("/tlsCertFile"), named("/tlsPrivateKeyFile")) {
        _ if !facts.configz.is_object() => (Verdict::Fail, "unknown".to_owned()),
        (Some("/var/lib/kubelet/pki/kubelet.crt"), Some("/var/lib/kubelet/pki/kubelet.key")) => {
            (Verdict::Warn, "kubelet's own".to_owned())
        }
        (Some(certificate), Some(key)) => (Verdict::Pass, format!("{certificate}, {key}")),
        (None, None) => (Verdict::Warn, format!("not set, serverTLSBootstrap {}", facts.configz["serverTLSBootstrap"])),
        _ => (Verdict::Fail, "one is set".to_owned()),
    }
}

fn strong(list: &Value) -> bool {
    let suites = list.as_array().map(Vec::as_slice).unwrap_or_default();
    !suites.is_empty() && suites.iter().all(|suite| STRONG.iter().any(|strong| suite == strong))
}

/// The packet filter does it, for this port alone: kubelet also opens connections, to where it cannot be known here.
fn address_deny(facts: &Facts) -> (Verdict, String) {
    // systemctl leaves out a list that is empty.
    match facts.unit.get("IPAddressDeny").map(String::as_str) {
        _ if !facts.unit.contains_key("Id") => (Verdict::Fail, "unknown".to_owned()),
        None | Some("") => (Verdict::Warn, "none".to_owned()),
        Some(list) => (Verdict::Pass, list.to_owned()),
    }
}

fn proxy_metrics(facts: &Facts) -> (Verdict, String) {
    let at: Vec<&str> = facts.listening.iter().map(String::as_str).filter(|a| a.ends_with(":10249")).collect();
    pass(!at.is_empty() && at.iter().all(|a| a.starts_with("127.0.0.1:") || a.starts_with("[::1]:")), at.join(", "))
}

#[cfg(test)]
#[path = "cis_tests.rs"]
mod tests;
