// SPDX-License-Identifier: Apache-2.0
//! The checks themselves: a device as it should be, and each thing about it that may be wrong.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::cis::{Row, docs, verdicts};
use serde_json::json;

const MODES: &str = "/usr/lib/systemd/system/kubelet.service 600 root:root
/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf 600 root:root
/etc/kubernetes/kubelet.conf 600 root:root
/etc/kubernetes/pki/ca.crt 600 root:root
/var/lib/kubelet 700 root:root
/var/lib/kubelet/config.yaml 600 root:root
/var/lib/kubelet/kubeadm-flags.env 600 root:root
/etc/firstboot/kubelet.conf.d/10-harden.conf 600 root:root
/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~configmap/kube-proxy/kubeconfig.conf 644 root:root
";
const LISTENING: &str = "LISTEN 0 4096 127.0.0.1:10249 0.0.0.0:*\nLISTEN 0 4096 *:10250 *:*\n";

/// A device's words and its `/configz`.
type Device = (BTreeMap<&'static str, String>, Value);

fn good() -> Device {
    let mut configz: Value = serde_json::from_str(&firstboot::harden::kubelet::fields::drop_in().unwrap()).unwrap();
    configz["authentication"]["x509"] = json!({ "clientCAFile": "/etc/kubernetes/pki/ca.crt" });
    let words = [
        ("modes", MODES),
        ("kubelet-flags", "/usr/bin/kubelet\n--config=/var/lib/kubelet/config.yaml\n"),
        ("kubelet-unit", "Id=kubelet.service\nUMask=0022\n"),
        ("listening", LISTENING),
    ];
    (words.map(|(name, text)| (name, text.to_owned())).into(), configz)
}

fn judged((words, configz): &Device) -> Vec<Row> {
    verdicts(CHECKS, &Facts::new(|name| words[name].clone(), &json!({ "kubeletconfig": configz })))
}

fn with(device: &Device, verdict: Verdict) -> Vec<&'static str> {
    judged(device).into_iter().filter(|row| row.2 == verdict).map(|row| row.0).collect()
}

fn failed(device: &Device) -> Vec<&'static str> {
    with(device, Verdict::Fail)
}

#[test]
fn a_hardened_device_fails_nothing() {
    assert_eq!(failed(&good()), [""; 0]);
    assert_eq!(with(&good(), Verdict::Warn), WARNED);
}

#[test]
fn each_check_can_fail() {
    let word = |name: &'static str, from: &str, to: &str| {
        let mut device = good();
        let text = device.0[name].replace(from, to);
        assert_ne!(text, device.0[name], "{from}");
        device.0.insert(name, text);
        failed(&device)
    };
    assert_eq!(word("modes", "10-kubeadm.conf 600", "10-kubeadm.conf 644"), ["4.1.1"]);
    assert_eq!(word("modes", "kubelet.service 600 root:root", "kubelet.service 600 admin:root"), ["4.1.2"]);
    assert_eq!(word("modes", "/var/lib/kubelet 700", "/var/lib/kubelet 755"), ["4.1.3"]);
    assert_eq!(word("modes", "644 root:root", "644 1000:root"), ["4.1.4"]);
    assert_eq!(word("modes", "kubelet.conf 600 root:root", "kubelet.conf 640 root:adm"), ["4.1.5", "4.1.6"]);
    assert_eq!(word("modes", "/etc/kubernetes/kubelet.conf", "/etc/elsewhere"), ["4.1.5", "4.1.6"]);
    assert_eq!(word("modes", "ca.crt 600 root:root", "ca.crt 666 x:root"), ["4.1.7", "4.1.8"]);
    assert_eq!(word("modes", "10-harden.conf 600 root:root", "10-harden.conf 604 root:x"), ["4.1.9", "4.1.10"]);
    assert_eq!(word("kubelet-flags", "--config=", "--hostname-override=x\n--config="), ["4.2.7"]);
    assert_eq!(word("kubelet-unit", "Id=", "X="), ["4.2.15"]);
    assert_eq!(word("listening", "127.0.0.1:10249", "*:10249"), ["4.3.1"]);
    assert_eq!(word("listening", "*:10250 ", "*:10255 "), ["4.2.4"]);
    assert_eq!(word("listening", "127.0.0.1:10249", "127.0.0.1:1"), ["4.3.1"]);

    let field = |pointer: &str, to: Value| {
        let mut device = good();
        let (above, name) = pointer.rsplit_once('/').unwrap();
        device.1.pointer_mut(above).unwrap()[name] = to;
        failed(&device)
    };
    assert_eq!(field("/authentication/anonymous/enabled", json!(true)), ["4.2.1"]);
    assert_eq!(field("/authorization/mode", json!("AlwaysAllow")), ["4.2.2"]);
    assert_eq!(field("/authentication/x509/clientCAFile", json!("/nowhere")), ["4.1.7", "4.1.8", "4.2.3"]);
    assert_eq!(field("/readOnlyPort", json!(10255)), ["4.2.4"]);
    assert_eq!(field("/streamingConnectionIdleTimeout", json!("0s")), ["4.2.5"]);
    assert_eq!(field("/makeIPTablesUtilChains", json!(false)), ["4.2.6"]);
    assert_eq!(field("/eventRecordQPS", json!(1)), ["4.2.8"]);
    assert_eq!(field("/tlsCertFile", json!("/x")), ["4.2.9"]);
    assert_eq!(field("/rotateCertificates", json!(false)), ["4.2.10"]);
    assert_eq!(field("/featureGates", json!({ "RotateKubeletServerCertificate": false })), ["4.2.11"]);
    assert_eq!(field("/tlsCipherSuites", json!(["TLS_RSA_WITH_AES_128_CBC_SHA"])), ["4.2.12"]);
    assert_eq!(field("/tlsCipherSuites", json!(null)), ["4.2.12"]);
    assert_eq!(field("/podPidsLimit", json!(-1)), ["4.2.13"]);
    assert_eq!(field("/seccompDefault", json!(false)), ["4.2.14"]);
    let (words, _) = good();
    assert_eq!(failed(&(words, Value::Null)).len(), 15, "a kubelet that says nothing");
}

#[test]
fn the_list_in_the_docs_is_this_one() {
    docs::compare("CIS Kubernetes, section 4", &judged(&good()));
}
