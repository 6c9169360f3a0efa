// SPDX-License-Identifier: Apache-2.0
//! Section 4, worker nodes: files, flags and effective values of a device.
//!
//! What is found on the device comes from `stat`, `ss`, `systemctl` and /proc, by [`SCRIPT`]; effective values come from
//! kubelet itself, through the API server.

use super::{Check, Files, Flags, Judged, Place, Verdict, addresses, loopback_alone, pairs, pass};
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
    files: Files,
    /// kubelet's command line.
    flags: Flags,
    /// kubelet's unit, as systemd shows it.
    unit: BTreeMap<String, String>,
    /// Local addresses that TCP sockets listen at.
    listening: Vec<String>,
    /// KubeletConfiguration as the running kubelet has it.
    configz: Value,
}

impl Facts {
    /// From what [`SCRIPT`] left behind (`read` gives a file of its directory) and from `/configz`.
    pub fn new(read: impl Fn(&str) -> String, configz: &Value) -> Self {
        Facts {
            files: Files::read(&read("modes")),
            flags: Flags::read(&read("kubelet-flags")),
            unit: pairs(&read("kubelet-unit")),
            listening: addresses(&read("listening")),
            configz: configz["kubeletconfig"].clone(),
        }
    }
}

/// The checks that are warnings, with a reason in docs/hardening.md.
pub const WARNED: [&str; 3] = ["4.1.3", "4.2.9", "4.2.15"];

const UNIT: &str = "/usr/lib/systemd/system/kubelet.service";
const PROXY: Place<'_> = ("/var/lib/kubelet/pods/", "/kube-proxy/kubeconfig.conf");
/// kubelet's configuration, in all its parts.
const CONFIGURATION: [Place<'_>; 3] =
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
pub const CHECKS: &[Check<Facts>] = &[
    Check { id: "4.1.1", asks: "mode of kubelet's unit and additions: at most 600", look: |f| f.files.modes(&[(UNIT, "")], 0o600) },
    Check { id: "4.1.2", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(UNIT, "")]) },
    Check { id: "4.1.3", asks: "mode of kube-proxy's kubeconfig, if there is one: at most 600", look: proxy_mode },
    Check { id: "4.1.4", asks: "owner of the same: root:root", look: |f| f.files.owners(&[PROXY]) },
    Check { id: "4.1.5", asks: "mode of kubelet.conf: at most 600", look: |f| f.files.modes(&[("/etc/kubernetes/kubelet.conf", "")], 0o600) },
    Check { id: "4.1.6", asks: "owner of the same: root:root", look: |f| f.files.owners(&[("/etc/kubernetes/kubelet.conf", "")]) },
    Check { id: "4.1.7", asks: "mode of the CA that kubelet trusts: at most 644", look: |f| f.files.modes(&[(ca(f), "")], 0o644) },
    Check { id: "4.1.8", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(ca(f), "")]) },
    Check { id: "4.1.9", asks: "mode of kubelet's configuration, drop-ins and flags included: at most 600", look: |f| f.files.modes(&CONFIGURATION, 0o600) },
    Check { id: "4.1.10", asks: "owner of the same: root:root", look: |f| f.files.owners(&CONFIGURATION) },
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
    Check { id: "4.3.1", asks: "kube-proxy's metrics: on loopback alone", look: |f| loopback_alone(&f.listening, 10249) },
];

/// A ConfigMap of the cluster's, as a volume: its mode is the cluster's word, but the way there is root's alone.
fn proxy_mode(facts: &Facts) -> Judged {
    let (verdict, found) = facts.files.modes(&[PROXY], 0o600);
    let closed = facts.files.get("/var/lib/kubelet") == Some((0o700, "root:root"));
    match verdict {
        Verdict::Fail if closed && !found.is_empty() && facts.files.get("/etc/kubernetes/proxy.conf").is_none() => {
            (Verdict::Warn, found)
        }
        _ => (verdict, found),
    }
}

fn ca(facts: &Facts) -> &str {
    facts.configz.pointer("/authentication/x509/clientCAFile").and_then(Value::as_str).unwrap_or("no CA")
}

fn value(facts: &Facts, pointer: &str, good: impl Fn(&Value) -> bool) -> Judged {
    // kubelet leaves out what is empty.
    let found = facts.configz.pointer(pointer).unwrap_or(&Value::Null);
    pass(facts.configz.is_object() && good(found), format!("{} {found}", &pointer[1..]))
}

fn flag(facts: &Facts, name: &str) -> Judged {
    let found = facts.flags.get(name);
    pass(found.is_none() && facts.flags.are_known(), found.unwrap_or("not set").to_owned())
}

fn read_only_port(facts: &Facts) -> Judged {
    let listens = facts.listening.iter().any(|a| a.ends_with(":10255"));
    let (verdict, found) = value(facts, "/readOnlyPort", |v| v.is_null() || v == 0);
    (if listens { Verdict::Fail } else { verdict }, format!("{found}, listening: {listens}"))
}

/// Without them kubelet signs its own, and names that one here, or asks the cluster where requests are approved.
fn certificate(facts: &Facts) -> Judged {
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
fn address_deny(facts: &Facts) -> Judged {
    // systemctl leaves out a list that is empty.
    match facts.unit.get("IPAddressDeny").map(String::as_str) {
        _ if !facts.unit.contains_key("Id") => (Verdict::Fail, "unknown".to_owned()),
        None | Some("") => (Verdict::Warn, "none".to_owned()),
        Some(list) => (Verdict::Pass, list.to_owned()),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
