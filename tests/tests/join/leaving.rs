// SPDX-License-Identifier: Apache-2.0
//! How a device leaves its cluster when it is reset, as far as a node's identity may: the real API server, authorizer and
//! admission, and a machine whose commands do nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use firstboot::boot_partition::Place;
use firstboot::host::Host;
use firstboot::host::exclusions::Exclusions;
use firstboot::host::fake::Fake;
use firstboot::kube::node::NodeClient;
use firstboot::reset::{Done, by_command, work_with};
use firstboot::run::facts::DeviceFacts;
use qemu::control_plane::{ControlPlane, condition};
use serde_json::{Value, json};

use super::bench::*;
use super::cluster::create_node;
use super::machine::{Machine, kubelet, value};

const PHASES: [&str; 4] = ["identity", "join", "ready", "seal"];
const CORDONED: &str = "firstboot/cordoned-by-reset";

/// A machine that joins as `node`, which the cluster has already.
fn joins(plane: &ControlPlane, machine: &Machine, node: &str) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned_text(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    machine.boot.write("seed.toml", format!("{seed}[node]\nname = \"{node}\"\n").as_bytes()).unwrap();
    let (done, lines) = std::thread::scope(|scope| {
        let disk = machine.disk.path().to_owned();
        scope.spawn(move || kubelet(plane, &disk, node));
        machine.run(&PHASES, None, |_| ())
    });
    done.unwrap_or_else(|fault| panic!("{fault}: {lines:#?}"));
    // The phase that does so needs a runtime.
    host(machine).start_unit("kubelet.service").unwrap();
}

fn host(machine: &Machine) -> Host {
    Host::open(machine.disk.path(), Box::new(Fake::new().0)).unwrap()
}

/// Resets it, by command and service; what it said meanwhile.
fn reset(machine: &Machine, node: &str) -> Vec<String> {
    let asked = by_command(&host(machine), &Exclusions::default(), false).unwrap();
    assert_eq!(asked, Done::Reset(Some(format!("kubectl delete node {node}"))));
    let (fake, seen) = Fake::new();
    let boot = machine.boot.clone();
    let places = move |_: &str| Ok(vec![Place { partition: boot.clone(), removable: false }]);
    work_with(machine.disk.path(), Box::new(fake), &DeviceFacts, &places).unwrap();
    seen.lines.take()
}

/// A pod on `node` that no kubelet runs: it counts as running, or a budget would not hold it.
fn pod(plane: &ControlPlane, node: &str, name: &str, grace: u64, annotations: &Value) {
    qemu::wait::until("the default service account", Duration::from_secs(30), || {
        let accounts = plane.kubectl(&["get", "serviceaccounts", "-n", "default", "-o", "name"])?;
        Ok(accounts.contains("serviceaccount/default").then_some(()))
    })
    .unwrap();
    create(
        plane,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "labels": { "app": name }, "annotations": annotations },
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": grace, "automountServiceAccountToken": false,
                "containers": [{ "name": "c", "image": "none" }],
            },
        }),
    );
    let status =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    plane.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &status]).unwrap();
}

fn pods_of(plane: &ControlPlane, node: &str) -> Vec<String> {
    let selector = format!("--field-selector=spec.nodeName={node}");
    let text = plane.kubectl(&["get", "pods", "-n", "default", &selector, "-o", "name"]).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Whether the cluster has this node's Lease and CSINode.
fn beside(plane: &ControlPlane, node: &str) -> [bool; 2] {
    let has = |args: &[&str]| {
        !plane.kubectl(&[&["get", "--ignore-not-found", "-o", "name"], args].concat()).unwrap().is_empty()
    };
    [has(&["-n", "kube-node-lease", "lease", node]), has(&["csinode", node])]
}

pub fn a_reset_leaves_the_cluster_and_another_seed_comes_back(plane: &ControlPlane) {
    let machine = Machine::new();
    create_node(plane, "leaving", &json!({}), &json!([]));
    report_ready(plane, "leaving", "False");
    joins(plane, &machine, "leaving");
    create(
        plane,
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "leaving"},
                          "spec": {"drivers": []}}),
    );
    pod(plane, "leaving", "leaving-web", 0, &json!({}));
    pod(plane, "leaving", "leaving-static", 0, &json!({"kubernetes.io/config.mirror": "x"}));
    assert_eq!((pods_of(plane, "leaving").len(), beside(plane, "leaving")), (2, [true, true]));
    // What is left for an administrator is left because this identity may not.
    let kept = kept_client(&machine, "leaving");
    let refused = plane.kubectl(&as_node("leaving", &["delete", "node", "leaving"])).unwrap_err();
    let forbidden = "nodes \"leaving\" is forbidden: User \"system:node:leaving\" cannot delete resource \"nodes\" in API \
                     group \"\" at the cluster scope";
    assert!(format!("{refused:#}").contains(forbidden), "{refused:#}");

    let lines = reset(&machine, "leaving");
    assert_eq!(
        lines,
        [
            "firstboot: reset begins",
            "firstboot: reset: zeroing free space; this takes as long as writing the disk full",
            "firstboot: reset: 0 MiB of free space zeroed",
            "firstboot: reset: free space trimmed; what a flash controller has put aside it may keep all the same",
            "firstboot: reset done: this device waits for a seed",
            "firstboot: left for an administrator of the cluster: kubectl delete node leaving",
        ]
    );
    let node = plane.node("leaving").unwrap().unwrap();
    assert_eq!(
        (&node["spec"]["unschedulable"], &node["metadata"]["annotations"][CORDONED]),
        (&json!(true), &json!("true"))
    );
    let ready = condition(&node, "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("DeviceReset")));
    assert_eq!(
        (pods_of(plane, "leaving"), beside(plane, "leaving")),
        (vec!["pod/leaving-static".to_owned()], [false, false])
    );
    for path in ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/pki/kubelet-client-current.pem"] {
        assert_eq!(machine.file(path), None);
    }
    assert_eq!(value(&machine.status(), "state"), Some("resetting"));

    // Another seed, before an administrator has done anything: the same Node, and pods may come again. The machine-id is
    // another one; here is what the kernel would make it of.
    let random = machine.disk.path().join("proc/sys/kernel/random");
    std::fs::create_dir_all(&random).unwrap();
    std::fs::write(random.join("uuid"), "aaaaaaaa-bbbb-4d2f-9d3c-2b1a4c5d6e7f\n").unwrap();
    joins(plane, &machine, "leaving");
    assert_eq!(machine.file("/etc/machine-id").unwrap(), "aaaaaaaabbbb4d2f9d3c2b1a4c5d6e7f\n");
    let node = plane.node("leaving").unwrap().unwrap();
    assert_eq!(
        (node["spec"].get("unschedulable"), node["metadata"]["annotations"].get(CORDONED)),
        (None, None),
        "{node}"
    );
    // What an administrator has cordoned is not taken back.
    plane.kubectl(&["cordon", "leaving"]).unwrap();
    kept_client(&machine, "leaving").cordon().unwrap();
    assert_eq!(kept_client(&machine, "leaving").take_over(&[].into(), &[]).unwrap(), [""; 0]);
    assert_eq!(plane.node("leaving").unwrap().unwrap()["spec"]["unschedulable"], true);
    // Two installations, two certificates: the first is still valid, which is why the Node is to be deleted.
    assert!(kept.node().unwrap().is_some());
    plane.kubectl(&["delete", "pod", "leaving-static", "--force", "--grace-period=0"]).unwrap();
    plane.kubectl(&["delete", "node", "leaving"]).unwrap();
}

/// The client that the device's own files make.
fn kept_client(machine: &Machine, node: &str) -> NodeClient {
    let text = |path: &str| machine.file(path).unwrap();
    let conf = text("/etc/kubernetes/kubelet.conf");
    let server = conf.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap().to_owned();
    let host = host(machine);
    let pem = host.read_text("/var/lib/kubelet/pki/kubelet-client-current.pem").unwrap().unwrap();
    NodeClient::new(node, &server, &text("/etc/kubernetes/pki/ca.crt"), &pem).unwrap()
}

/// kubectl's words, as this node would say them.
fn as_node<'a>(node: &str, words: &[&'a str]) -> Vec<&'a str> {
    // A node's name is kept until the test program ends.
    let user: &'static str = format!("--as=system:node:{node}").leak();
    [words, &[user, "--as-group=system:nodes", "--as-group=system:authenticated"]].concat()
}

/// A cluster whose own rules are stricter: each refusal is reported verbatim, and none prevents the reset.
pub fn refusals_of_the_cluster_are_reported_and_the_reset_completes(plane: &ControlPlane) {
    let machine = Machine::new();
    create_node(plane, "held", &json!({}), &json!([]));
    report_ready(plane, "held", "False");
    joins(plane, &machine, "held");
    pod(plane, "held", "held-web", 0, &json!({}));
    let rule = |groups: &str, resources: &str, operation: &str| json!({"apiGroups": [groups], "apiVersions": ["*"], "resources": [resources], "operations": [operation]});
    let rules = [
        rule("", "nodes", "UPDATE"),
        rule("", "pods/eviction", "CREATE"),
        rule("coordination.k8s.io", "leases", "DELETE"),
    ];
    create(
        plane,
        &json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": "held" },
            "spec": {
                "matchConstraints": { "resourceRules": rules },
                "validations": [{ "expression": "request.userInfo.username != 'system:node:held'",
                                  "message": "nodes stay", "reason": "Forbidden" }],
            },
        }),
    );
    create(
        plane,
        &json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": "held" }, "spec": { "policyName": "held", "validationActions": ["Deny"] },
        }),
    );
    // The API server takes a policy from its own watch, a moment later.
    qemu::wait::until("the policy to hold", Duration::from_secs(30), || {
        Ok(plane.kubectl(&as_node("held", &["annotate", "node", "held", "a=b", "--overwrite"])).is_err().then_some(()))
    })
    .unwrap();
    let lines = reset(&machine, "held");
    for policy in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        plane.kubectl(&["delete", policy, "held"]).unwrap();
    }
    let server = plane.endpoint_for_host();
    let denied = |what: &str| {
        format!("{what} is forbidden: ValidatingAdmissionPolicy 'held' with binding 'held' denied request: nodes stay")
    };
    let lease = "leases.coordination.k8s.io \"held\"";
    assert_eq!(
        lines[1..4],
        [
            format!(
                "firstboot: reset: cordon the node (cluster, FB412): PATCH /api/v1/nodes/held: API server \
                 {server} answers 403 Forbidden: {}; it goes on",
                denied("nodes \"held\"")
            ),
            format!(
                "firstboot: reset: evict pods (cluster, FB412): POST \
                 /api/v1/namespaces/default/pods/held-web/eviction: API server {server} answers 403 Forbidden: {}; it goes on",
                denied("pods \"held-web\"")
            ),
            format!(
                "firstboot: reset: tell the cluster (cluster, FB412): DELETE \
                 /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/held: API server {server} answers 403 \
                 Forbidden: {}; it goes on",
                denied(lease)
            ),
        ],
        "{lines:#?}"
    );
    assert_eq!(lines.last().unwrap(), "firstboot: left for an administrator of the cluster: kubectl delete node held");
    // What it may, it did.
    let node = plane.node("held").unwrap().unwrap();
    assert_eq!(condition(&node, "Ready").unwrap()["reason"], "DeviceReset");
    assert_eq!((pods_of(plane, "held"), beside(plane, "held")), (vec![], [true, false]));
    assert_eq!(machine.file("/etc/kubernetes/kubelet.conf"), None);
    plane.kubectl(&["delete", "node", "held"]).unwrap();
}

/// A budget holds one pod, a long grace period the other: they are reported, and end with the device.
pub fn pods_that_are_held_are_counted_and_end(plane: &ControlPlane) {
    let (_, seed) = good(plane);
    let mut device = Bench::default();
    let joined = device.join(&seed, "draining").unwrap();
    let node = device.node_client(&joined);
    create_node(plane, "draining", &json!({}), &json!([]));
    report_ready(plane, "draining", "True");
    create(
        plane,
        &json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": { "name": "draining", "namespace": "default" },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "draining-budget" } } },
        }),
    );
    for (name, grace) in [("draining-budget", 0), ("draining-slow", 600), ("draining-quick", 0)] {
        pod(plane, "draining", name, grace, &json!({}));
    }
    qemu::wait::until("the budget to count its pod", Duration::from_secs(30), || {
        let budget = plane.get(&["-n", "default", "poddisruptionbudget", "draining"])?;
        Ok((budget["status"]["currentHealthy"] == 1).then_some(()))
    })
    .unwrap();
    let started = Instant::now();
    assert_eq!(node.drain(Duration::from_secs(4)).unwrap(), 2);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(pods_of(plane, "draining"), ["pod/draining-budget", "pod/draining-slow"]);
    let slow = plane.get(&["-n", "default", "pod", "draining-slow"]).unwrap();
    assert!(!slow["metadata"]["deletionTimestamp"].is_null(), "{slow}");
    assert!(node.depart(std::time::SystemTime::now()).is_empty());
    assert_eq!(pods_of(plane, "draining"), [""; 0]);
    // Once more, as after a power cut: nothing is there, and that is no fault.
    assert!(node.depart(std::time::SystemTime::now()).is_empty());
    plane.kubectl(&["-n", "default", "delete", "poddisruptionbudget", "draining"]).unwrap();
    plane.kubectl(&["delete", "node", "draining"]).unwrap();
}

pub fn reset_with_silent_and_unreachable_servers(plane: &ControlPlane) {
    let (_, seed) = good(plane);
    let mut device = Bench::default();
    let joined = device.join(&seed, "asking").unwrap();
    let limit = Duration::from_secs(3);
    let node = device.node_client(&joined);
    assert!(!node.known(limit).unwrap());
    create_node(plane, "asking", &json!({}), &json!([]));
    assert!(node.known(limit).unwrap());
    plane.kubectl(&["delete", "node", "asking"]).unwrap();
    // A name that is not this certificate's: refused, and not asked again.
    let pair = format!("{}{}", joined.certificate_pem, device.kubelets_key().expose());
    let client = |name: &str, server: &str| NodeClient::new(name, server, &joined.ca_pem, &pair).unwrap();
    let started = Instant::now();
    let refused = client("other", &joined.server).known(Duration::from_secs(30)).unwrap_err().to_string();
    let (server, took) = (plane.endpoint_for_host(), started.elapsed());
    let wanted =
        format!("GET /api/v1/nodes/other: API server {server} answers 403 Forbidden: nodes \"other\" is forbidden: ");
    assert!(refused.starts_with(&wanted) && took < Duration::from_secs(10), "{refused} after {took:?}");
    // No server listens; a server listens and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let closed = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    for (address, text) in [
        (closed, format!("connect to API server {closed}: connection refused")),
        (at, format!("ask API server {at} for the own Node: no answer in 3 s")),
    ] {
        let started = Instant::now();
        let fault = client("asking", &format!("https://{address}")).known(limit).unwrap_err();
        assert_eq!(fault.to_string(), text);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
