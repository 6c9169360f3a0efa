// SPDX-License-Identifier: Apache-2.0
//! kubelet: a drop-in that is laid over what the cluster publishes for all nodes, so that this stays untouched
//! (`--config-dir`), and the modes of the files that kubelet is told by. CIS Kubernetes Benchmark, section 4.
//!
//! What the seed's `[kubelet.config]` says comes after it and wins; a hardened field that it changes is an exception.
//! Fields: <https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/>

use crate::audit::{Finding, Ground};
use crate::host::Host;
use crate::seed::Seed;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `--config-dir` of kubelet: files ending in `.conf`, in the order of their names.
pub const FOLDER: &str = "/etc/firstboot/kubelet.conf.d";
/// The drop-in; the seed's comes after it.
pub const FILE: &str = "/etc/firstboot/kubelet.conf.d/10-harden.conf";

/// A field, its value, and the reason.
pub type Field = (&'static str, Value, &'static str);

/// The hardened fields, in kubelet's names.
pub fn fields() -> Vec<Field> {
    vec![
        (
            "authentication",
            json!({ "anonymous": { "enabled": false }, "webhook": { "enabled": true } }),
            "whoever asks kubelet proves who that is (CIS 4.2.1)",
        ),
        ("authorization", json!({ "mode": "Webhook" }), "the cluster decides who may ask kubelet what (CIS 4.2.2)"),
        ("readOnlyPort", json!(0), "no second port that asks nobody (CIS 4.2.4)"),
        ("streamingConnectionIdleTimeout", json!("5m0s"), "a forgotten exec or port-forward ends (CIS 4.2.5)"),
        ("makeIPTablesUtilChains", json!(true), "kubelet keeps its own chains of the packet filter (CIS 4.2.6)"),
        ("eventRecordQPS", json!(50), "events are neither lost nor a flood (CIS 4.2.8)"),
        ("tlsMinVersion", json!("VersionTLS12"), "nothing older is spoken"),
        ("tlsCipherSuites", json!(CIPHERS), "forward secrecy and encryption that proves its content (CIS 4.2.12)"),
        ("rotateCertificates", json!(true), "the node's certificate is renewed in time (CIS 4.2.10)"),
        ("podPidsLimit", json!(4096), "a pod that forks without end stops itself, not the node (CIS 4.2.13)"),
        (
            "seccompDefault",
            json!(true),
            "every pod runs under the runtime's seccomp profile unless it says otherwise (CIS 4.2.14)",
        ),
        ("protectKernelDefaults", json!(true), "kubelet stops rather than run on other kernel settings than it needs"),
        ("containerLogMaxSize", json!("10Mi"), "logs of pods do not fill a small card"),
        ("containerLogMaxFiles", json!(3), "logs of pods do not fill a small card, in pieces either"),
        ("imageGCHighThresholdPercent", json!(80), "images nobody uses go before the disk is full"),
        ("imageGCLowThresholdPercent", json!(70), "and so many of them that it is not soon again"),
    ]
}

/// TLS 1.2; those of 1.3 are all good, and Go takes no list of them.
const CIPHERS: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// The drop-in's text.
///
/// # Errors
/// Never in practice: every value has a text.
pub fn text() -> Result<String> {
    let mut document: Map<String, Value> = fields().into_iter().map(|(k, v, _)| (k.to_owned(), v)).collect();
    document.insert("apiVersion".into(), json!("kubelet.config.k8s.io/v1beta1"));
    document.insert("kind".into(), json!("KubeletConfiguration"));
    let text = serde_json::to_string_pretty(&document).context("encode kubelet's hardened fields")?;
    Ok(text + "\n")
}

/// Hardened fields that a seed has otherwise, with its values.
pub(super) fn exceptions(seed: &Seed) -> BTreeMap<String, Value> {
    let config = &seed.kubelet.config;
    let other = |(name, value, _): Field| {
        let own = config.get(name).filter(|own| **own != value)?;
        Some((name.to_owned(), own.clone()))
    };
    fields().into_iter().filter_map(other).collect()
}

/// Files that kubelet and the runtime are told by: path, mode that must not be exceeded, and the reason.
const FILES: &[(&str, u32, &str)] = &[
    ("/usr/lib/systemd/system/kubelet.service", 0o600, "who reads or changes how kubelet starts is root (CIS 4.1.1)"),
    (
        "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        0o600,
        "who reads or changes how kubelet starts is root, additions included (CIS 4.1.1)",
    ),
    ("/etc/kubernetes/kubelet.conf", 0o600, "the way to the node's credential (CIS 4.1.5)"),
    ("/etc/kubernetes/pki/ca.crt", 0o644, "whom kubelet trusts is nobody's to change (CIS 4.1.7)"),
    ("/var/lib/kubelet/config.yaml", 0o600, "kubelet's configuration (CIS 4.1.9)"),
    ("/var/lib/kubelet/kubeadm-flags.env", 0o600, "kubelet's flags"),
    (FILE, 0o600, "kubelet's hardened fields (CIS 4.1.9)"),
    ("/var/lib/kubelet/pki/kubelet-client-current.pem", 0o600, "the node's private key"),
    ("/etc/containerd/config.toml", 0o644, "what the runtime does is nobody's to change"),
];

/// The drop-in as it lies there, whether the running kubelet was told to read it, and modes and owners.
pub(crate) fn audit(ground: &Ground<'_>) -> Result<Vec<Finding>> {
    let host = ground.host;
    // Before the join there is no kubelet.
    if !host.journal().done("kubelet") {
        return Ok(Vec::new());
    }
    let mut findings = drop_in(ground)?;
    let why = "the running kubelet reads what is above";
    findings.push(Finding::compare("kubelet/config-dir".into(), FOLDER, None, running(host)?, why));
    for (path, most, why) in FILES {
        let id = format!("files{path}");
        let stat = host.run(&["stat", "--dereference", "--format=%a %U:%G", path])?;
        let (mode, owner) = stat.trim().split_once(' ').with_context(|| format!("read {path}"))?;
        let mode = u32::from_str_radix(mode, 8).with_context(|| format!("read {path}"))?;
        let wanted = format!("{most:o} root:root");
        // Stricter is as good.
        let found = if mode & !most == 0 { format!("{most:o} {owner}") } else { format!("{mode:o} {owner}") };
        findings.push(Finding::compare(id, &wanted, None, Some(found), why));
    }
    Ok(findings)
}

fn drop_in(ground: &Ground<'_>) -> Result<Vec<Finding>> {
    let mut laid = read(ground.host, FILE)?;
    for name in ground.host.list(FOLDER)?.iter().filter(|n| n.ends_with(".conf")) {
        let path = format!("{FOLDER}/{name}");
        if path.as_str() > FILE {
            laid.extend(read(ground.host, &path)?);
        }
    }
    let one = |(name, value, why): Field| {
        let exception = ground.kept.kubelet.get(name).map(Value::to_string);
        let found = laid.get(name).map(Value::to_string);
        Finding::compare(format!("kubelet/{name}"), &value.to_string(), exception.as_deref(), found, why)
    };
    Ok(fields().into_iter().map(one).collect())
}

fn read(host: &Host, path: &str) -> Result<Map<String, Value>> {
    match host.read(path)? {
        None => Ok(Map::new()),
        Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("read {path}")),
    }
}

/// `--config-dir` on the command line of the kubelet that runs.
fn running(host: &Host) -> Result<Option<String>> {
    let pid = host.run(&["systemctl", "show", "--property", "MainPID", "--value", "kubelet.service"])?;
    let line = host.read(&format!("/proc/{}/cmdline", pid.trim()))?.unwrap_or_default();
    let words = String::from_utf8_lossy(&line).into_owned();
    Ok(words.split('\0').find_map(|w| w.strip_prefix("--config-dir=")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::State;
    use crate::harden::Kept;
    use crate::host::fake::Fake;
    use crate::journal::Record;

    const SEED: &str = "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.q7w2e9r4t1y6u8i3\"\nca-cert-hashes \
                        = \"sha256:a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1\"\n";

    fn device(dir: &std::path::Path, modes: &'static str) -> Host {
        let (fake, _) = Fake::new();
        let fake = fake.answering(move |argv| match argv {
            ["systemctl", "show", ..] => Some(Ok("77\n".to_owned())),
            ["stat", ..] => Some(Ok(format!("{modes}\n"))),
            _ => None,
        });
        let host = Host::open(dir, Box::new(fake)).unwrap();
        host.record(Record::Done { phase: "kubelet".into(), seconds: 1.0 }).unwrap();
        host.write(FILE, text().unwrap().as_bytes(), 0o600).unwrap();
        let line = format!("/usr/bin/kubelet\0--config-dir={FOLDER}\0");
        host.write("/proc/77/cmdline", line.as_bytes(), 0o444).unwrap();
        host
    }

    fn drift(host: &Host, kept: Kept) -> Vec<(String, State)> {
        let found = audit(&Ground { host, kept }).unwrap();
        assert_eq!(found.len(), fields().len() + 1 + FILES.len());
        found.into_iter().filter(|f| f.state != State::Ok).map(|f| (f.id, f.state)).collect()
    }

    #[test]
    fn a_seed_that_changes_a_field_is_an_exception_and_an_edit_is_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = device(dir.path(), "600 root:root");
        assert_eq!(drift(&host, Kept::default()), []);
        let seed = crate::seed::parse(format!("{SEED}[kubelet.config]\npodPidsLimit = 100\nmaxPods = 9\n").as_bytes());
        let kept = Kept::of(&seed.unwrap());
        assert_eq!(kept.exceptions(), ["kubelet by the seed: podPidsLimit = 100"]);
        host.write("/etc/firstboot/kubelet.conf.d/50-seed.conf", b"{\"podPidsLimit\":100,\"maxPods\":9}", 0o600)
            .unwrap();
        assert_eq!(drift(&host, kept), [("kubelet/podPidsLimit".into(), State::Exception)]);
        assert_eq!(drift(&host, Kept::default()), [("kubelet/podPidsLimit".into(), State::Drift)]);
        host.write("/proc/77/cmdline", b"/usr/bin/kubelet\0", 0o444).unwrap();
        assert!(drift(&host, Kept::default()).contains(&("kubelet/config-dir".into(), State::Drift)));
    }

    #[test]
    fn files_that_others_may_read_or_own_are_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = device(dir.path(), "644 root:root");
        // Two may be read by anybody.
        assert_eq!(drift(&host, Kept::default()).len(), FILES.len() - 2);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(drift(&device(dir.path(), "400 root:root"), Kept::default()), []);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(drift(&device(dir.path(), "600 admin:root"), Kept::default()).len(), FILES.len());
    }

    #[test]
    fn every_field_is_kubelets_and_the_drop_in_says_what_it_is() {
        let document: Value = serde_json::from_str(&text().unwrap()).unwrap();
        assert_eq!(document["kind"], "KubeletConfiguration");
        assert_eq!(document["seccompDefault"], true);
        assert_eq!(document.as_object().unwrap().len(), fields().len() + 2);
    }
}
