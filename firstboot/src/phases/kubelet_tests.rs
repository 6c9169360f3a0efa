// SPDX-License-Identifier: Apache-2.0
//! What is made of kubelet's log. The lines are those of kubelet 1.36.3, given drop-ins that it does not take.

use super::super::tests::cx;
use super::*;
use crate::host::fake::Fake;

const STATIC: &str = "E1122 20:08:35.289357   30094 run.go:72] \"command failed\" err=\"failed to validate kubelet \
                      configuration, error: [invalid configuration: topologyManagerPolicy (--topology-manager-policy) \
                      \\\"x\\\" must be one of: [\\\"none\\\" \\\"best-effort\\\" \\\"restricted\\\" \
                      \\\"single-numa-node\\\"]], path: &TypeMeta{Kind:,APIVersion:,}\"";
const SWAP: &str = "E1122 20:08:37.152887   30180 run.go:72] \"command failed\" err=\"failed to merge kubelet configs: \
                    failed to unmarshal merged JSON into kubelet configuration: json: cannot unmarshal number into Go \
                    struct field KubeletConfiguration.memorySwap of type v1beta1.MemorySwapConfiguration\"";

#[test]
fn the_line_that_says_why() {
    let said = "failed to validate kubelet configuration, error: [invalid configuration: topologyManagerPolicy \
                (--topology-manager-policy) \"x\" must be one of: [\"none\" \"best-effort\" \"restricted\" \
                \"single-numa-node\"]], path: &TypeMeta{Kind:,APIVersion:,}";
    let log = format!("I1122 20:08:35.1 30094 server.go:1] \"Starting\"\n{STATIC}\nkubelet.service: Failed\n\n");
    assert_eq!(complaint(&log).unwrap(), said);
    let panic = "panic: unrecognized feature gate: Nope\n\ngoroutine 1 [running]:\nmain.main()\n\t+0x2a\n";
    assert_eq!(complaint(panic).unwrap(), "panic: unrecognized feature gate: Nope");
    let error = "E1122 20:08:37.152887   30180 kubelet.go:9] \"Eviction manager: failed\" err=\"x\"\nI1122 20:08:38.1 1 a.go:1] b\n";
    assert_eq!(complaint(error).unwrap(), "\"Eviction manager: failed\" err=\"x\"");
    assert_eq!(
        complaint("kubelet: error while loading shared libraries\n").unwrap(),
        "kubelet: error while loading shared libraries"
    );
    let json = "{\"ts\":1764.1,\"caller\":\"app/server.go:9\",\"msg\":\"Eviction manager: failed\",\"err\":\"x\"}\n\
                {\"ts\":1764.2,\"caller\":\"a.go:1\",\"msg\":\"b\",\"v\":0}\n";
    assert_eq!(complaint(json).unwrap(), "Eviction manager: failed: x");
    let ended =
        format!("{json}{{\"ts\":1,\"msg\":\"command failed\",\"err\":\"unrecognized feature gate: \\\"A\\\"\"}}\n");
    assert_eq!(complaint(&ended).unwrap(), "unrecognized feature gate: \"A\"");
    assert_eq!(complaint("\n \n"), None);
    assert_eq!(complaint(&"x".repeat(1000)).unwrap().len(), 400);
}

const SEED: &str = "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
                    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// The fault when kubelet ended so often and left this log.
fn applied(seed: &str, ended: &'static str, log: &'static str) -> (Code, String) {
    let dir = tempfile::tempdir().unwrap();
    let (fake, _) = Fake::new();
    let fake = fake.answering(move |argv| match argv {
        ["systemctl", "show", ..] => Some(Ok(format!("{ended}\n"))),
        ["journalctl", ..] => Some(Ok(log.to_owned())),
        _ => None,
    });
    let fault = apply(&cx(dir.path(), fake, seed)).unwrap_err();
    (fault.code, fault.to_string())
}

/// A second seed, after kubelet had been started again three times under the first: those do not count.
#[test]
fn what_was_before_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let fake = fake.answering(|argv| matches!(argv, ["systemctl", "show", ..]).then(|| Ok("3\n".into())));
    let cx = cx(dir.path(), fake, SEED);
    cx.host.record(Record::Effect(Effect::Started { unit: "kubelet.service".into() })).unwrap();
    kubelet_config::put(&cx.host, &cx.seed.kubelet, false).unwrap();
    let text = apply(&cx).unwrap_err().to_string();
    assert_eq!(text, "wait for kubelet: not healthy after 240 s, see journalctl -u kubelet");
    assert!(!seen.commands.take().contains(&"systemctl stop kubelet.service".to_owned()), "nothing had changed");
}

#[test]
fn who_must_act_when_kubelet_keeps_ending() {
    let with = |line: &str| format!("{SEED}[kubelet.config]\n{line}\n");
    let (code, text) = applied(&with("topologyManagerPolicy = \"restricted\""), "2", STATIC);
    assert_eq!(code, Code::KubeletConfigRejected);
    assert!(
        text.starts_with("start kubelet: it ended 2 times, by [kubelet.config]: failed to validate kubelet"),
        "{text}"
    );
    let (code, text) = applied(&with("maxPods = 60"), "3", STATIC);
    assert_eq!(code, Code::ClusterKubeletConfig);
    let by = "start kubelet: it ended 3 times, by ConfigMap kubelet-config in kube-system: failed to validate kubelet";
    assert!(text.starts_with(by), "{text}");
    let gate = "E1122 20:08:35.1 1 run.go:72] \"command failed\" err=\"failed to set feature gates: unrecognized feature gate: \
                LegacyNodeRoleBehavior\"\n";
    assert_eq!(applied(SEED, "2", gate).0, Code::ClusterKubeletConfig);
    // A gate that the parser lets pass, and another kubelet does not know.
    let (seed, other) =
        (with("featureGates = {NodeLogQuery = true}"), gate.replace("LegacyNodeRoleBehavior", "NodeLogQuery").leak());
    assert_eq!(applied(&seed, "2", other).0, Code::KubeletConfigRejected);
    let taint = "E1122 20:08:35.1 1 run.go:72] \"command failed\" err=\"failed to validate kubelet flags: duplicated taints \
                 with the same key and effect\"\n";
    let (code, text) = applied(SEED, "2", taint);
    assert!(code == Code::KubeletConfigRejected && text.contains("2 times, by [node]: "), "{text}");
    let (code, _) = applied(&with("memorySwap = {}"), "2", SWAP);
    assert_eq!(code, Code::KubeletConfigRejected);
    let never = "wait for kubelet: not healthy after 240 s, see journalctl -u kubelet";
    assert_eq!(applied(SEED, "0", ""), (Code::KubeletUnhealthy, never.to_owned()));
    let (code, text) = applied(SEED, "1", "E1122 20:08:37.1 1 kubelet.go:9] \"No CRI\"\n");
    assert_eq!(
        (code, text.as_str()),
        (Code::KubeletUnhealthy, "wait for kubelet: not healthy after 240 s: \"No CRI\"")
    );
}
