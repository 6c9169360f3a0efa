// SPDX-License-Identifier: Apache-2.0
//! Sections 1 to 3, the control plane: files, command lines, and what the API server says of its tokens.
//!
//! What is found on the device comes from `find`, `ss`, `openssl`, kubeadm and /proc, by [`SCRIPT`]. A flag counts where the
//! process that runs and its manifest, from which it would be started again, have the same command line.

use super::{Check, Files, Flags, Judged, Place, Verdict, addresses, loopback_alone, pairs, pass};
use serde_json::Value;
use std::collections::BTreeMap;

/// To be run on a control plane of kubeadm; `$out` is a directory. See [`Facts::new`].
pub const SCRIPT: &str = r#"
for i in $(seq 300); do
  pidof -s etcd && pidof -s kube-apiserver && pidof -s kube-controller-manager && pidof -s kube-scheduler && break
  sleep 1
done >/dev/null
for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do
  tr '\0' '\n' </proc/$(pidof -s $name)/cmdline >$out/$name-flags
  cat /etc/kubernetes/manifests/$name.yaml >$out/$name.yaml
done
tr '\0' '\n' </proc/$(pidof -s etcd)/environ >$out/etcd-environment
inside=/proc/$(pidof -s kube-apiserver)/root
named() { sed -n "s|^--$1=|$inside|p" $out/kube-apiserver-flags | grep . || echo /dev/null; }
cat $(named audit-policy-file) >$out/audit-policy
grep -oE '(aescbc|aesgcm|identity|kms|secretbox):' $(named encryption-provider-config) >$out/encryption
find -L /etc/kubernetes /var/lib/kubelet/pki -printf '%p %m %u:%g\n' >$out/control-plane-files
find -L /var/lib/etcd -maxdepth 0 -printf '%p %m %u:%g\n' >>$out/control-plane-files
find -L /etc/cni/net.d /var/lib/cni/networks -type f -printf '%p %m %u:%g\n' >>$out/control-plane-files
sha256sum /etc/kubernetes/pki/ca.crt /etc/kubernetes/pki/etcd/ca.crt >$out/authorities
ss -Hltn >$out/listening
kubeadm token list --output json >$out/bootstrap-tokens && echo null >>$out/bootstrap-tokens
part() { sed -n "s/^ *client-$1-data: //p" /etc/kubernetes/admin.conf | base64 -d; }
part certificate | openssl x509 -noout -subject >$out/administrator
own=$(mktemp -d)
part certificate >$own/crt
part key >$own/key
printf 'GET /api/v1/secrets?fieldSelector=type%%3Dkubernetes.io%%2Fservice-account-token HTTP/1.0\r\n\r\n' \
  | timeout 60 openssl s_client -quiet -connect 127.0.0.1:6443 -CAfile /etc/kubernetes/pki/ca.crt \
    -cert $own/crt -key $own/key 2>/dev/null | sed '1,/^\r*$/d' >$out/service-account-tokens
rm -r $own
"#;

const ETCD: &str = "etcd";
const API: &str = "kube-apiserver";
const MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// What is known of a device.
pub struct Facts {
    files: Files,
    /// The command line of each program.
    flags: BTreeMap<&'static str, Flags>,
    /// etcd reads its settings from there, too.
    environment: BTreeMap<String, String>,
    /// The API server's audit policy.
    policy: String,
    /// Providers of encryption at rest, the one that encrypts first.
    providers: Vec<String>,
    /// SHA-256 of each CA, by its path.
    authorities: BTreeMap<String, String>,
    /// Local addresses that TCP sockets listen at.
    listening: Vec<String>,
    /// All bootstrap tokens, as kubeadm lists them; none where that failed.
    bootstrap_tokens: Option<Vec<Value>>,
    /// Subject of the certificate in admin.conf.
    administrator: String,
    /// The API server's list of Secrets with a service account's token.
    token_secrets: Value,
}

impl Facts {
    /// From what [`SCRIPT`] left behind; `read` gives a file of its directory.
    pub fn new(read: impl Fn(&str) -> String) -> Self {
        let flags = |program: &'static str| {
            let runs = Flags::read(&read(&format!("{program}-flags")));
            let starts = manifest(&read(&format!("{program}.yaml")));
            (program, if runs == starts { runs } else { Flags::default() })
        };
        let digest = |line: &str| line.split_once("  ").map(|(digest, path)| (path.to_owned(), digest.to_owned()));
        let tokens: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(&read("bootstrap-tokens")).into_iter().collect();
        Facts {
            files: Files::read(&read("control-plane-files")),
            flags: [ETCD, API, MANAGER, SCHEDULER].map(flags).into(),
            environment: pairs(&read("etcd-environment")),
            policy: read("audit-policy"),
            providers: read("encryption").lines().map(|line| line.trim_end_matches(':').to_owned()).collect(),
            authorities: read("authorities").lines().filter_map(digest).collect(),
            listening: addresses(&read("listening")),
            // The script puts the last one there when the list is whole.
            bootstrap_tokens: tokens.ok().filter(|all| all.last() == Some(&Value::Null)),
            administrator: read("administrator"),
            token_secrets: serde_json::from_str(&read("service-account-tokens")).unwrap_or_default(),
        }
    }

    fn flag(&self, program: &str, name: &str) -> Option<&str> {
        let flag = self.flags.get(program)?.get(name);
        let variable = || self.environment.get(&format!("ETCD_{}", name.to_uppercase().replace('-', "_")));
        flag.or_else(|| if program == ETCD { variable().map(String::as_str) } else { None })
    }

    fn are_known(&self, program: &str) -> bool {
        self.flags.get(program).is_some_and(Flags::are_known)
    }
}

/// Flags in a manifest of kubeadm, which writes each on a line of its own.
fn manifest(text: &str) -> Flags {
    Flags(
        text.lines()
            .filter_map(|l| l.trim().strip_prefix("- "))
            .filter(|l| l.starts_with("--"))
            .map(str::to_owned)
            .collect(),
    )
}

/// The checks that are warnings, with a reason in docs/hardening.md.
pub const WARNED: [&str; 16] = [
    "1.1.9", "1.1.12", "1.2.1", "1.2.5", "1.2.9", "1.2.11", "1.2.16", "1.2.17", "1.2.18", "1.2.19", "1.2.27", "1.2.28",
    "1.2.30", "3.1.1", "3.2.1", "3.2.2",
];

const MANIFESTS: &str = "/etc/kubernetes/manifests";
const PKI: &str = "/etc/kubernetes/pki";
/// Configurations of pod networks, and the addresses that were given out to pods.
const CNI: &[Place<'_>] = &[("/etc/cni/net.d/", ""), ("/var/lib/cni/networks/", "")];
/// admin.conf, and super-admin.conf where it is there.
const ADMIN: [Place<'_>; 1] = [("/etc/kubernetes/", "admin.conf")];
/// What the benchmark calls strong.
const STRONG: [&str; 11] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// What an audit policy has to cover.
const COVERED: [&str; 9] = [
    "secrets",
    "configmaps",
    "tokenreviews",
    "pods",
    "deployments",
    "pods/exec",
    "pods/portforward",
    "pods/proxy",
    "services/proxy",
];

/// All checks, in the benchmark's order.
#[rustfmt::skip]
pub const CHECKS: &[Check<Facts>] = &[
    Check { id: "1.1.1", asks: "mode of the API server's manifest: at most 600", look: |f| f.files.modes(&[(MANIFESTS, "/kube-apiserver.yaml")], 0o600) },
    Check { id: "1.1.2", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(MANIFESTS, "/kube-apiserver.yaml")]) },
    Check { id: "1.1.3", asks: "mode of the controller manager's manifest: at most 600", look: |f| f.files.modes(&[(MANIFESTS, "/kube-controller-manager.yaml")], 0o600) },
    Check { id: "1.1.4", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(MANIFESTS, "/kube-controller-manager.yaml")]) },
    Check { id: "1.1.5", asks: "mode of the scheduler's manifest: at most 600", look: |f| f.files.modes(&[(MANIFESTS, "/kube-scheduler.yaml")], 0o600) },
    Check { id: "1.1.6", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(MANIFESTS, "/kube-scheduler.yaml")]) },
    Check { id: "1.1.7", asks: "mode of etcd's manifest: at most 600", look: |f| f.files.modes(&[(MANIFESTS, "/etcd.yaml")], 0o600) },
    Check { id: "1.1.8", asks: "owner of the same: root:root", look: |f| f.files.owners(&[(MANIFESTS, "/etcd.yaml")]) },
    Check { id: "1.1.9", asks: "mode of the pod network's files: at most 600", look: cni_modes },
    Check { id: "1.1.10", asks: "owner of the same: root:root", look: |f| f.files.owners(cni(f)) },
    Check { id: "1.1.11", asks: "mode of etcd's data directory: at most 700", look: |f| data(f, |mode, _| mode & !0o700 == 0) },
    Check { id: "1.1.12", asks: "owner of the same: etcd:etcd", look: data_owner },
    Check { id: "1.1.13", asks: "mode of admin.conf and super-admin.conf: at most 600", look: |f| f.files.modes(&ADMIN, 0o600) },
    Check { id: "1.1.14", asks: "owner of the same: root:root", look: |f| f.files.owners(&ADMIN) },
    Check { id: "1.1.15", asks: "mode of scheduler.conf: at most 600", look: |f| f.files.modes(&[("/etc/kubernetes/scheduler.conf", "")], 0o600) },
    Check { id: "1.1.16", asks: "owner of the same: root:root", look: |f| f.files.owners(&[("/etc/kubernetes/scheduler.conf", "")]) },
    Check { id: "1.1.17", asks: "mode of controller-manager.conf: at most 600", look: |f| f.files.modes(&[("/etc/kubernetes/controller-manager.conf", "")], 0o600) },
    Check { id: "1.1.18", asks: "owner of the same: root:root", look: |f| f.files.owners(&[("/etc/kubernetes/controller-manager.conf", "")]) },
    Check { id: "1.1.19", asks: "owner of everything in /etc/kubernetes/pki: root:root", look: |f| f.files.owners(&[(PKI, "")]) },
    Check { id: "1.1.20", asks: "mode of the certificates there: at most 644", look: |f| f.files.modes(&[(PKI, ".crt")], 0o644) },
    Check { id: "1.1.21", asks: "mode of the keys there: at most 600", look: |f| f.files.modes(&[(PKI, ".key")], 0o600) },
    Check { id: "1.2.1", asks: "anonymous requests to the API server: refused", look: anonymous },
    Check { id: "1.2.2", asks: "file of tokens: none", look: |f| flag(f, API, "token-auth-file", |v| v.is_none()) },
    Check { id: "1.2.3", asks: "plugin DenyServiceExternalIPs: on", look: |f| flag(f, API, "enable-admission-plugins", |v| has(v, "DenyServiceExternalIPs")) },
    Check { id: "1.2.4", asks: "certificate and key for kubelets: set", look: |f| files(f, API, &["kubelet-client-certificate", "kubelet-client-key"]) },
    Check { id: "1.2.5", asks: "CA of kubelets' serving certificates: set", look: kubelet_authority },
    Check { id: "1.2.6", asks: "authorization: not AlwaysAllow", look: |f| flag(f, API, "authorization-mode", |v| v.is_some() && !has(v, "AlwaysAllow")) },
    Check { id: "1.2.7", asks: "authorization: by Node", look: |f| flag(f, API, "authorization-mode", |v| has(v, "Node")) },
    Check { id: "1.2.8", asks: "authorization: by RBAC", look: |f| flag(f, API, "authorization-mode", |v| has(v, "RBAC")) },
    Check { id: "1.2.9", asks: "plugin EventRateLimit: on", look: |f| plugin(f, "EventRateLimit") },
    Check { id: "1.2.10", asks: "plugin AlwaysAdmit: off", look: |f| flag(f, API, "enable-admission-plugins", |v| !has(v, "AlwaysAdmit")) },
    Check { id: "1.2.11", asks: "plugin AlwaysPullImages: on", look: |f| plugin(f, "AlwaysPullImages") },
    Check { id: "1.2.12", asks: "plugin ServiceAccount: not switched off", look: |f| flag(f, API, "disable-admission-plugins", |v| !has(v, "ServiceAccount")) },
    Check { id: "1.2.13", asks: "plugin NamespaceLifecycle: not switched off", look: |f| flag(f, API, "disable-admission-plugins", |v| !has(v, "NamespaceLifecycle")) },
    Check { id: "1.2.14", asks: "plugin NodeRestriction: on", look: |f| flag(f, API, "enable-admission-plugins", |v| has(v, "NodeRestriction")) },
    Check { id: "1.2.15", asks: "profiling of the API server: off", look: |f| flag(f, API, "profiling", |v| v == Some("false")) },
    Check { id: "1.2.16", asks: "audit log: written", look: audit_log },
    Check { id: "1.2.17", asks: "audit log: kept for 30 days", look: |f| audit_limit(f, "audit-log-maxage", 30) },
    Check { id: "1.2.18", asks: "audit log: 10 old files", look: |f| audit_limit(f, "audit-log-maxbackup", 10) },
    Check { id: "1.2.19", asks: "audit log: files of 100 MB", look: |f| audit_limit(f, "audit-log-maxsize", 100) },
    Check { id: "1.2.20", asks: "requests: end after 5 minutes at most, by default after one", look: |f| flag(f, API, "request-timeout", |v| v.is_none_or(|v| seconds(v).is_some_and(|s| (1..=300).contains(&s)))) },
    Check { id: "1.2.21", asks: "tokens of service accounts that are gone: refused", look: |f| flag(f, API, "service-account-lookup", |v| v.is_none_or(|v| v == "true")) },
    Check { id: "1.2.22", asks: "public key of service accounts' tokens: set", look: |f| files(f, API, &["service-account-key-file"]) },
    Check { id: "1.2.23", asks: "certificate and key for etcd: set", look: |f| files(f, API, &["etcd-certfile", "etcd-keyfile"]) },
    Check { id: "1.2.24", asks: "certificate and key of port 6443: set", look: |f| files(f, API, &["tls-cert-file", "tls-private-key-file"]) },
    Check { id: "1.2.25", asks: "CA for clients: set", look: |f| files(f, API, &["client-ca-file"]) },
    Check { id: "1.2.26", asks: "CA of etcd: set", look: |f| files(f, API, &["etcd-cafile"]) },
    Check { id: "1.2.27", asks: "encryption at rest: set up", look: |f| encryption(f, |providers| !providers.is_empty()) },
    Check { id: "1.2.28", asks: "encryption at rest: by aescbc, kms or secretbox", look: |f| encryption(f, |all| all.first().is_some_and(|p| ["aescbc", "kms", "secretbox"].contains(&p.as_str()))) },
    Check { id: "1.2.29", asks: "cipher suites: strong ones alone", look: |f| flag(f, API, "tls-cipher-suites", |v| v.is_some_and(|v| v.split(',').all(|suite| STRONG.contains(&suite)))) },
    Check { id: "1.2.30", asks: "tokens of pods: none is extended to a year", look: |f| or_warn(f, "service-account-extend-token-expiration", |v| v == Some("false"), |v| v.is_none_or(|v| v == "true")) },
    Check { id: "1.3.1", asks: "number of pods that have ended: limited", look: |f| flag(f, MANAGER, "terminated-pod-gc-threshold", |v| v.is_some_and(|v| v.parse().is_ok_and(|n: u32| n > 0))) },
    Check { id: "1.3.2", asks: "profiling of the controller manager: off", look: |f| flag(f, MANAGER, "profiling", |v| v == Some("false")) },
    Check { id: "1.3.3", asks: "controllers: each with a service account of its own", look: |f| flag(f, MANAGER, "use-service-account-credentials", |v| v == Some("true")) },
    Check { id: "1.3.4", asks: "key of service accounts' tokens: set", look: |f| files(f, MANAGER, &["service-account-private-key-file"]) },
    Check { id: "1.3.5", asks: "CA that pods get: set", look: |f| files(f, MANAGER, &["root-ca-file"]) },
    Check { id: "1.3.6", asks: "feature gate RotateKubeletServerCertificate: not switched off", look: |f| flag(f, MANAGER, "feature-gates", |v| !has(v, "RotateKubeletServerCertificate=false")) },
    Check { id: "1.3.7", asks: "controller manager's port: on loopback alone", look: |f| own_port(f, MANAGER, 10257) },
    Check { id: "1.4.1", asks: "profiling of the scheduler: off", look: |f| flag(f, SCHEDULER, "profiling", |v| v == Some("false")) },
    Check { id: "1.4.2", asks: "scheduler's port: on loopback alone", look: |f| own_port(f, SCHEDULER, 10259) },
    Check { id: "2.1", asks: "certificate and key of etcd's port for clients: set", look: |f| files(f, ETCD, &["cert-file", "key-file"]) },
    Check { id: "2.2", asks: "clients of etcd: have a certificate", look: |f| flag(f, ETCD, "client-cert-auth", |v| v == Some("true")) },
    Check { id: "2.3", asks: "certificates for clients that etcd signs itself: off", look: |f| flag(f, ETCD, "auto-tls", |v| v.is_none_or(|v| v == "false")) },
    Check { id: "2.4", asks: "certificate and key of etcd's port for members: set", look: |f| files(f, ETCD, &["peer-cert-file", "peer-key-file"]) },
    Check { id: "2.5", asks: "members of etcd: have a certificate", look: |f| flag(f, ETCD, "peer-client-cert-auth", |v| v == Some("true")) },
    Check { id: "2.6", asks: "certificates for members that etcd signs itself: off", look: |f| flag(f, ETCD, "peer-auto-tls", |v| v.is_none_or(|v| v == "false")) },
    Check { id: "2.7", asks: "CA of etcd: not the CA of the API server's clients", look: own_authority },
    Check { id: "3.1.1", asks: "users: not by client certificates", look: certificates_of_users },
    Check { id: "3.1.2", asks: "users: not by tokens of service accounts; no such token is in a Secret", look: token_secrets },
    Check { id: "3.1.3", asks: "users: not by bootstrap tokens; each one ends, and is for nodes", look: bootstrap_tokens },
    Check { id: "3.2.1", asks: "audit policy: there is one", look: |f| policy(f, |text| !text.is_empty()) },
    Check { id: "3.2.2", asks: "audit policy: Secrets, tokens, pods, exec and proxies", look: |f| policy(f, |text| COVERED.iter().all(|word| text.contains(word))) },
];

fn shown(name: &str, value: Option<&str>) -> String {
    value.map_or_else(|| format!("{name} is not set"), |value| format!("{name} {value}"))
}

/// A word of a list.
fn has(list: Option<&str>, word: &str) -> bool {
    list.is_some_and(|list| list.split(',').any(|one| one == word))
}

fn flag(facts: &Facts, program: &str, name: &str, good: impl Fn(Option<&str>) -> bool) -> Judged {
    let value = facts.flag(program, name);
    pass(facts.are_known(program) && good(value), shown(name, value))
}

/// A flag of the API server whose other values have a reason.
fn or_warn(facts: &Facts, name: &str, good: fn(Option<&str>) -> bool, known: fn(Option<&str>) -> bool) -> Judged {
    let value = facts.flag(API, name);
    let verdict = match facts.are_known(API) {
        true if good(value) => Verdict::Pass,
        true if known(value) => Verdict::Warn,
        _ => Verdict::Fail,
    };
    (verdict, shown(name, value))
}

/// Flags that name files, which are there.
fn files(facts: &Facts, program: &str, names: &[&str]) -> Judged {
    let values: Vec<Option<&str>> = names.iter().map(|name| facts.flag(program, name)).collect();
    let there = values.iter().all(|path| path.is_some_and(|path| facts.files.get(path).is_some()));
    let found: Vec<String> = names.iter().zip(values).map(|(name, value)| shown(name, value)).collect();
    pass(facts.are_known(program) && there, found.join(", "))
}

/// The latter are there with the first pod.
fn cni(facts: &Facts) -> &'static [Place<'static>] {
    let given_out = !facts.files.of(&CNI[1..]).is_empty();
    if given_out { CNI } else { &CNI[..1] }
}

/// The plugin for addresses makes an empty file to lock, with a mode of its own; flannel copies its file as upstream does.
fn cni_modes(facts: &Facts) -> Judged {
    let only_root_writes = [facts.files.modes(cni(facts), 0o755).0, facts.files.owners(cni(facts)).0];
    match facts.files.modes(cni(facts), 0o600) {
        (Verdict::Fail, found) if only_root_writes == [Verdict::Pass; 2] => (Verdict::Warn, found),
        judged => judged,
    }
}

fn data(facts: &Facts, good: fn(u32, &str) -> bool) -> Judged {
    let directory = facts.flag(ETCD, "data-dir").unwrap_or_default();
    let there = facts.files.get(directory);
    let found = there.map_or_else(|| "unknown".to_owned(), |(mode, owner)| format!("{directory} {mode:o} {owner}"));
    pass(there.is_some_and(|(mode, owner)| good(mode, owner)), found)
}

/// kubeadm has etcd run as root.
fn data_owner(facts: &Facts) -> Judged {
    let roots = data(facts, |mode, owner| owner == "root:root" && mode & !0o700 == 0);
    match roots.0 {
        Verdict::Pass => (Verdict::Warn, roots.1),
        _ => data(facts, |_, owner| owner == "etcd:etcd"),
    }
}

/// Requests without a name get what RBAC gives them.
fn anonymous(facts: &Facts) -> Judged {
    let rbac = facts.flag(API, "authorization-mode");
    match or_warn(facts, "anonymous-auth", |v| v == Some("false"), |v| v.is_none_or(|v| v == "true")) {
        (Verdict::Warn, found) if !has(rbac, "RBAC") || has(rbac, "AlwaysAllow") => (Verdict::Fail, found),
        judged => judged,
    }
}

/// Where the cluster does not sign them, no CA has.
fn kubelet_authority(facts: &Facts) -> Judged {
    let signs_itself = facts.files.get("/var/lib/kubelet/pki/kubelet.crt").is_some();
    match or_warn(facts, "kubelet-certificate-authority", |v| v.is_some(), |v| v.is_none()) {
        (Verdict::Warn, found) if !signs_itself => (Verdict::Fail, found),
        judged => judged,
    }
}

/// A plugin that is not on by default.
fn plugin(facts: &Facts, name: &str) -> Judged {
    let (on, off) = (facts.flag(API, "enable-admission-plugins"), facts.flag(API, "disable-admission-plugins"));
    let verdict = match facts.are_known(API) && !has(off, name) {
        true if has(on, name) => Verdict::Pass,
        true => Verdict::Warn,
        false => Verdict::Fail,
    };
    (verdict, shown("enable-admission-plugins", on))
}

fn audit_log(facts: &Facts) -> Judged {
    // A policy without a place to write to is none.
    let policy = facts.flag(API, "audit-policy-file").is_some();
    match or_warn(facts, "audit-log-path", |v| v.is_some(), |v| v.is_none()) {
        (Verdict::Warn, found) if policy => (Verdict::Fail, found),
        judged => judged,
    }
}

fn audit_limit(facts: &Facts, name: &str, least: u32) -> Judged {
    let value = facts.flag(API, name);
    let good = value.is_some_and(|value| value.parse().is_ok_and(|n: u32| n >= least));
    match audit_log(facts).0 {
        Verdict::Warn if value.is_none() => (Verdict::Warn, "no audit log".to_owned()),
        verdict => pass(verdict == Verdict::Pass && good, shown(name, value)),
    }
}

fn policy(facts: &Facts, good: fn(&str) -> bool) -> Judged {
    // What is written without a policy is nothing.
    let written = facts.flag(API, "audit-log-path").is_some();
    match or_warn(facts, "audit-policy-file", |v| v.is_some(), |v| v.is_none()) {
        (Verdict::Warn, found) => (if written { Verdict::Fail } else { Verdict::Warn }, found),
        (verdict, found) => pass(verdict == Verdict::Pass && good(&facts.policy), found),
    }
}

fn encryption(facts: &Facts, good: fn(&[String]) -> bool) -> Judged {
    match or_warn(facts, "encryption-provider-config", |v| v.is_some(), |v| v.is_none()) {
        (Verdict::Pass, found) => pass(good(&facts.providers), format!("{found} {}", facts.providers.join(", "))),
        judged => judged,
    }
}

/// A time of Go's, in seconds: `1m30s`.
fn seconds(text: &str) -> Option<u64> {
    let (mut sum, mut number) = (0, String::new());
    for c in text.chars() {
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => {
                number.push(c);
                continue;
            }
        };
        sum += unit * std::mem::take(&mut number).parse::<u64>().ok()?;
    }
    number.is_empty().then_some(sum)
}

fn own_port(facts: &Facts, program: &str, port: u16) -> Judged {
    let (verdict, listening) = loopback_alone(&facts.listening, port);
    let (bound, found) = flag(facts, program, "bind-address", |v| v.is_some_and(|v| v == "127.0.0.1" || v == "::1"));
    pass(verdict == Verdict::Pass && bound == Verdict::Pass, format!("{found}, {listening}"))
}

fn own_authority(facts: &Facts) -> Judged {
    let paths = [facts.flag(ETCD, "trusted-ca-file"), facts.flag(API, "client-ca-file")];
    let digests = paths.map(|path| facts.authorities.get(path.unwrap_or_default()));
    let found = format!("{:?} and {:?}", paths[0], paths[1]);
    pass(matches!(digests, [Some(etcd), Some(api)] if etcd != api), found)
}

/// Without an identity provider there is nothing else; the rights of the administrator's group can be taken away.
fn certificates_of_users(facts: &Facts) -> Judged {
    let provider = ["oidc-issuer-url", "authentication-config"].iter().find_map(|name| facts.flag(API, name));
    let found = facts.administrator.trim().to_owned();
    match provider {
        _ if !facts.are_known(API) || found.contains("system:masters") => (Verdict::Fail, found),
        Some(provider) => (Verdict::Pass, provider.to_owned()),
        None if found.contains("kubeadm:cluster-admins") => (Verdict::Warn, found),
        None => (Verdict::Fail, found),
    }
}

fn token_secrets(facts: &Facts) -> Judged {
    let list = &facts.token_secrets;
    let items = list["items"].as_array().map_or(0, Vec::len);
    pass(list["kind"] == "SecretList" && items == 0, format!("{} of {items}", list["kind"]))
}

fn bootstrap_tokens(facts: &Facts) -> Judged {
    let for_nodes = |token: &Value| {
        let logs_in = token["usages"].as_array().is_some_and(|all| all.iter().any(|usage| usage == "authentication"));
        let groups = token["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let node = groups.iter().all(|group| group == "system:bootstrappers:kubeadm:default-node-token");
        token.is_null() || token["expires"].is_string() && (node || !logs_in)
    };
    let found = facts.bootstrap_tokens.as_ref().map(|all| (all.iter().all(for_nodes), all.len().saturating_sub(1)));
    pass(
        found.is_some_and(|(good, _)| good),
        found.map_or("unknown".to_owned(), |(_, count)| format!("{count} tokens")),
    )
}

#[cfg(test)]
#[path = "control_plane_tests.rs"]
mod tests;
