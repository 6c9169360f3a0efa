// SPDX-License-Identifier: Apache-2.0
//! What kubelet itself makes of the hardened host's drop-in, natively: the kubelet of an image, built for this machine,
//! reads its configuration, says what it is, and ends because there is no cluster to ask. Boots no guest.

#![allow(clippy::unwrap_used)]

use firstboot::harden::kubelet::fields::{FIELDS, drop_in};
use firstboot::paths::CA_FILE;
use imagebuild::arch::Arch;
use imagebuild::component;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A cluster that says the contrary of everything that it can say the contrary of.
const CLUSTER: &str = r#"
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 10255
tlsMinVersion: VersionTLS10
tlsCipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA]
rotateCertificates: false
protectKernelDefaults: false
makeIPTablesUtilChains: false
seccompDefault: false
allowedUnsafeSysctls: [net.core.somaxconn]
podPidsLimit: -1
streamingConnectionIdleTimeout: 0s
eventRecordQPS: 1
staticPodPath: /tmp/pods
staticPodURL: http://192.0.2.1/pods
enableProfilingHandler: true
enableDebugFlagsHandler: true
enableSystemLogHandler: true
enableSystemLogQuery: true
featureGates: {NodeLogQuery: true}
evictionHard: {memory.available: 1Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, pid.available: 1%}
maxPods: 77
# The build machine's kernel is none of this test's business.
failCgroupV1: false
containerLogMaxFiles: 9
imageGCHighThresholdPercent: 99
containerRuntimeEndpoint: unix:///nowhere.sock
"#;
/// Stands for the cluster's CA, which kubelet reads before it says those words: the build machine has certificates.
const CA: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Its last words when all of the configuration was taken: it runs without an API server here.
const TAKEN: &str = "no client provided, cannot use webhook authentication";

#[test]
fn the_kubelet_of_images_takes_the_drop_in() {
    takes_the_drop_in(None);
}

#[test]
#[ignore = "builds another kubelet"]
fn the_kubelet_of_the_minor_before_takes_the_drop_in() {
    takes_the_drop_in(Some("1.35"));
}

fn takes_the_drop_in(version: Option<&str>) {
    let kubelet = component::ensure("kubelet", Arch::host().unwrap(), version).unwrap();
    let hardened = drop_in().unwrap().replace(CA_FILE, CA);
    let (said, document) = started(&kubelet, &[("10-harden.conf", &hardened)]);
    assert!(said.contains(TAKEN), "{said}");
    for field in FIELDS {
        let wanted: Value = serde_json::from_str(&field.value.replace(CA_FILE, CA)).unwrap();
        assert_eq!(*at(&document, field.path), wanted, "{}", field.path);
    }
    assert_eq!(*at(&document, "maxPods"), 77, "what the cluster says otherwise stays");
    assert_eq!(*at(&document, "serverTLSBootstrap"), false, "its requests would not be approved");

    let seed = with_head("\"tlsMinVersion\": \"VersionTLS12\", \"evictionHard\": {\"memory.available\": \"50Mi\"}");
    let (said, document) = started(&kubelet, &[("10-harden.conf", &hardened), ("50-seed.conf", &seed)]);
    assert!(said.contains(TAKEN), "{said}");
    assert_eq!(*at(&document, "tlsMinVersion"), "VersionTLS12", "the seed has the last word");
    assert_eq!(*at(&document, "evictionHard/memory.available"), "50Mi");
    assert_eq!(*at(&document, "evictionHard/pid.available"), "10%", "and only about what it says");

    let (said, _) = started(&kubelet, &[("10-harden.conf", &with_head("\"podPidsLimit\": \"many\""))]);
    assert!(said.contains("failed to merge kubelet configs") && !said.contains(TAKEN), "{said}");
}

fn with_head(fields: &str) -> String {
    format!("{{\"apiVersion\": \"kubelet.config.k8s.io/v1beta1\", \"kind\": \"KubeletConfiguration\", {fields}}}")
}

/// What kubelet says when it is started with these drop-ins, and the configuration that it then has.
fn started(kubelet: &Path, drop_ins: &[(&str, &str)]) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(path("conf.d")).unwrap();
    std::fs::write(path("config.yaml"), CLUSTER).unwrap();
    for (name, text) in drop_ins {
        std::fs::write(Path::new(&path("conf.d")).join(name), text).unwrap();
    }
    let mut command = Command::new("timeout");
    command.arg("60").arg(kubelet).args(["--v=5", "--hostname-override=test"]);
    for (flag, value) in
        [("config", "config.yaml"), ("config-dir", "conf.d"), ("root-dir", "root"), ("cert-dir", "certificates")]
    {
        command.arg(format!("--{flag}={}", path(value)));
    }
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    // klog writes a value of several lines indented, between `=<` and `>`.
    let value = said.split("\"KubeletConfiguration\" configuration=<\n").nth(1).and_then(|t| t.split("\n >").next());
    let document = value.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
    (said, document)
}

/// A field by its name in files; kubelet says it in capitals of its own.
fn at<'a>(document: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(document, |at, part| {
        let object = at.as_object().unwrap_or_else(|| panic!("{path} is not there"));
        object.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, value)| value).unwrap()
    })
}
