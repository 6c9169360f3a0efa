// SPDX-License-Identifier: Apache-2.0
//! What an administrator of the cluster fixes, the device applies by itself: no other seed, no other token.

use std::cell::Cell;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::host::fake::{Fake, Recorded};
use qemu::control_plane::ControlPlane;
use serde_json::json;

use super::bench::*;
use super::machine::{Machine, value};

const GATE: &str = "LegacyNodeRoleBehavior";

/// Puts another text into kubelet-config while `then` runs.
fn with_kubelet_config(plane: &ControlPlane, more: &str, then: impl FnOnce(&dyn Fn())) {
    let at = ["-n", "kube-system", "configmap", "kubelet-config"];
    let kept = plane.get(&at).unwrap()["data"]["kubelet"].as_str().unwrap().to_owned();
    let put = |text: &str| {
        let patch = json!({ "data": { "kubelet": text } }).to_string();
        plane
            .kubectl(&["-n", "kube-system", "patch", "configmap", "kubelet-config", "--type=merge", "-p", &patch])
            .unwrap();
    };
    put(&format!("{kept}{more}"));
    let mend = || put(&kept);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(&mend)));
    mend();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// A machine whose kubelet ends for as long as its configuration has a gate that it does not know.
fn machine_with_kubelet(machine: &Machine) -> (Fake, Rc<Recorded>) {
    let config = machine.disk.path().join("var/lib/kubelet/config.yaml");
    let restarts = Cell::new(0);
    let (fake, seen) = Fake::new();
    let fake = fake.answering(move |argv| {
        let text = std::fs::read_to_string(&config).unwrap_or_default();
        let rejected = text.is_empty() || text.contains(GATE);
        match argv {
            ["systemctl", "show", ..] => {
                restarts.set(restarts.get() + if rejected { 2 } else { 0 });
                Some(Ok(format!("{}\n", restarts.get())))
            }
            ["get", _, "/healthz"] if !rejected => Some(Ok(String::new())),
            ["journalctl", ..] => {
                let err = format!(
                    "failed to set feature gates from initial flags-based config: unrecognized feature gate: {GATE}"
                );
                Some(Ok(format!("{}\n", json!({"ts": 1.5, "msg": "command failed", "err": err}))))
            }
            _ => None,
        }
    });
    (fake, seen)
}

pub fn a_kubelet_config_that_kubelet_rejects(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned_text(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let machine = Machine::new();
    machine.boot.write("seed.toml", format!("{seed}[node]\nname = \"mended\"\n").as_bytes()).unwrap();
    let phases = ["identity", "join", "kubelet"];
    let failed = |seen: &Recorded| seen.lines.borrow().iter().filter(|l| l.contains("(cluster, FB431)")).count();
    let config = || machine.file("/var/lib/kubelet/config.yaml").unwrap();
    with_kubelet_config(plane, &format!("featureGates:\n  {GATE}: false\n"), |mend| {
        let (fake, seen) = machine_with_kubelet(&machine);
        let (done, lines) = machine.run_on(fake, seen, &phases, |seen| {
            // The power goes after the second failure.
            seen.fuse.set((failed(seen) >= 2).then_some(0));
        });
        assert!(done.unwrap_err().to_string().contains("power lost"), "{lines:?}");
        let status = machine.status();
        assert_eq!((value(&status, "owner"), value(&status, "code")), (Some("cluster"), Some("FB431")), "{status}");
        let error = value(&status, "error").unwrap();
        let want = "start kubelet: it ended 2 times, by ConfigMap kubelet-config in kube-system: failed to set feature gates \
                    from initial flags-based config: unrecognized feature gate: LegacyNodeRoleBehavior";
        assert_eq!(error, want);
        assert!(config().contains(GATE));
        // The token was used up by then, and is not needed any more.
        let text = String::from_utf8(machine.boot.read("seed.toml").unwrap().unwrap()).unwrap();
        assert!(text.contains(&format!("{}.****************", id(&token))), "{text}");
        plane.kubectl(&["-n", "kube-system", "delete", "secret", &format!("bootstrap-token-{}", id(&token))]).unwrap();

        let (fake, seen) = machine_with_kubelet(&machine);
        let mended = Cell::new(false);
        let (done, lines) = machine.run_on(fake, seen, &phases, |seen| {
            if failed(seen) == 1 && !mended.replace(true) {
                mend();
            }
        });
        done.unwrap();
        let changed = "firstboot: ConfigMap kubelet-config has changed: kubelet starts with what it says now";
        assert_eq!(lines.iter().filter(|l| *l == changed).count(), 1, "{lines:?}");
        assert_eq!(lines.iter().filter(|l| l.contains("(cluster, FB431)")).count(), 1, "{lines:?}");
    });
    assert!(!config().contains(GATE));
    assert_eq!(csrs_by(plane, &token).len(), 1);
}

/// No controller of Kubernetes approves serving certificates: the command for an administrator is reported.
pub fn a_serving_certificate_that_waits_for_approval(plane: &ControlPlane) {
    with_kubelet_config(plane, "serverTLSBootstrap: true\n", |_| {
        let token = plane.create_token("1h").unwrap();
        let seed = pinned_text(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
        let machine = Machine::new();
        machine.boot.write("seed.toml", format!("{seed}[node]\nname = \"serving\"\n").as_bytes()).unwrap();
        super::cluster::create_node(plane, "serving", &json!({}), &json!([]));
        report_ready(plane, "serving", "False");
        let (done, lines) = std::thread::scope(|scope| {
            let disk = machine.disk.path().to_owned();
            scope.spawn(move || {
                super::machine::kubelet(plane, &disk, "serving");
                request_serving_certificate(plane, "serving");
            });
            let (fake, seen) = Fake::new();
            machine.run_on(fake.patient(), seen, &["identity", "join", "ready"], |_| ())
        });
        done.unwrap();
        let host = firstboot::host::Host::open(machine.disk.path(), Box::new(Fake::new().0)).unwrap();
        let steps = host.journal().lines(firstboot::journal::facts::Fact::ManualSteps);
        assert_eq!(steps, ["kubectl certificate approve csr-serving"], "{lines:?}");
        // The command is a good one.
        let words: Vec<&str> = steps[0].split(' ').skip(1).collect();
        plane.kubectl(&words).unwrap();
    });
}

/// What kubelet asks for with `serverTLSBootstrap`, as that node.
fn request_serving_certificate(plane: &ControlPlane, node: &str) {
    let request = firstboot::kube::key::Key::generate().unwrap().request(node).unwrap();
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": format!("csr-{node}")},
        "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "usages": ["digital signature", "server auth"],
            "request": STANDARD.encode(&request.pem),
        },
    });
    let dir = tempdir();
    let path = dir.path().join("csr.json");
    std::fs::write(&path, object.to_string()).unwrap();
    let (user, path) = (format!("--as=system:node:{node}"), path.display().to_string());
    plane
        .kubectl(&["create", "-f", &path, &user, "--as-group=system:nodes", "--as-group=system:authenticated"])
        .unwrap();
}
