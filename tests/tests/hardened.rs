// SPDX-License-Identifier: Apache-2.0
//! A hardened device, seen from outside and from inside: what is open before a seed, while it waits for its certificate
//! and afterwards; what a pod may do on it; what its own audit says, and what other programs say of the same.
//! Boots 1 guest.

#![allow(clippy::unwrap_used)]

use e2e::ports::{LINK_LOCAL, open_to_strangers};
use e2e::{APPROVER, OFF, SOON, add_script, cis, device_options, status_value};
use firstboot::harden::kubelet::fields::{FIELDS, Field};
use firstboot::paths::PKI;
use qemu::control_plane::{ControlPlane, Options};
use qemu::device::Device;
use qemu::link::site::{CONTROL_PLANE, STRANGER_V6, Scan, Site};
use qemu::pods;
use qemu::seed::{Seed, secret_of};
use serde_json::{Value, json};

const NAME: &str = "edge-hardened";
/// What the kernel answers a pod that may not.
const REFUSED: [&str; 4] =
    ["operation not permitted", "permission denied", "read-only file system", "no such file or directory"];

#[test]
fn nothing_is_open_and_a_pod_stays_a_pod() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() {
        return;
    }
    let site = Site::start().unwrap();
    let plane = ControlPlane::start(&Options { namespace: Some(site.namespace()), ..Options::default() }).unwrap();
    let binding = plane.kubectl(&["get", "clusterrolebinding", APPROVER, "-o", "yaml"]).unwrap();
    assert!(binding.contains("certificatesigningrequests:nodeclient"), "{binding}");
    plane.kubectl(&["delete", "clusterrolebinding", APPROVER]).unwrap();
    // As docs/hardening.md says, so that the device's audit sees what its kubelet has in force.
    let configz = ["create", "clusterrole", "node-configz", "--verb=get", "--resource=nodes/configz"];
    plane.kubectl(&configz).unwrap();
    let nodes = ["create", "clusterrolebinding", "node-configz", "--clusterrole=node-configz", "--group=system:nodes"];
    plane.kubectl(&nodes).unwrap();

    let options = qemu::device::Options { link: site.socket(), ..device_options("hardened") };
    let mut device = Device::new(&e2e::image(e2e::own_arch()).unwrap(), &options).unwrap();
    add_script(
        device.disk(),
        &format!("{NETWORK_PART}{SCRIPT}{}sync\necho \"test: all looked at\"\n", cis::node::SCRIPT),
    )
    .unwrap();
    device.power_on().unwrap();
    device.wait_status("state: waiting for a seed", SOON).unwrap();
    // It has not asked for an address, and does not answer at the link-local one that it could give itself.
    assert_eq!(site.address(), None);
    let no_host = format!("{:#}", site.scan(STRANGER_V6, LINK_LOCAL, Scan::Tcp).unwrap_err());
    assert!(no_host.contains("it scanned no host"), "{no_host}");

    let token = plane.create_token("2h").unwrap();
    device.change_seed(&Seed::for_guest(&plane, &token).unwrap().text()).unwrap();
    let status = device.wait_status("waits for approval", SOON).unwrap();
    assert_eq!(status_value(&status, "state"), "retrying");
    let address = site.address().expect("an address, by DHCP");
    assert_eq!(open_to_strangers(&site, &address).unwrap(), [""; 0], "while it joins");
    let csr = plane.csrs().unwrap().remove(0).name;
    plane.kubectl(&["certificate", "approve", &csr]).unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();

    pods::create(&plane).unwrap();
    pods_work(&plane, &site, &device, &address);
    confined(&plane, &device);
    let configz = kubelet_runs_as_hardened(&plane);
    // Now only the API server may talk to kubelet, every host to the pod's hostPort, and none to anything else.
    assert_eq!(open_to_strangers(&site, &address).unwrap(), [format!("tcp/{}", pods::PORT)]);
    assert_eq!(site.scan(CONTROL_PLANE, &address, Scan::Port(10250)).unwrap(), ["tcp/10250"]);
    device.wait_console("test: all looked at", SOON).unwrap();
    device.power_off(OFF).unwrap();
    join_worker(&device);
    validate(&device);
    section_4(&device, &configz);
    reports_hold_no_secret(&device, &token);
}

/// hostPort, Service, DNS, logs and exec over that link.
fn pods_work(plane: &ControlPlane, site: &Site, device: &Device, address: &str) {
    // On a busy machine all pods, and this device's own look at itself, take minutes.
    let found = pods::ended(plane, device, pods::CLIENT, 2 * SOON).unwrap();
    let dns = || plane.kubectl(&["logs", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--tail=20"]);
    assert_eq!(found["exitCode"], 0, "{found}\n{:?}", dns());
    let url = format!("http://{address}:{}/", pods::PORT);
    let get = format!("exec 3<>/dev/tcp/{address}/{}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3", pods::PORT);
    let answer = site.run("timeout", &["20", "bash", "-c", &get]).unwrap();
    assert!(answer.contains("\"pod\":\"hello\""), "{url}: {answer}");
    let log = plane.kubectl(&["logs", "-n", "default", "hello"]).unwrap();
    assert!(log.contains("pod hello on node edge-hardened answers on :8080"), "{log}");
    let said = plane.kubectl(&["exec", "-n", "default", "hello", "--", "/demo", "fetch", "http://127.0.0.1:8080/"]);
    let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
    assert_eq!(said, json!({ "pod": "hello", "node": NAME }));
}

/// An ordinary pod tries to leave its container.
fn confined(plane: &ControlPlane, device: &Device) {
    let state = pods::run(plane, device, "confined", &["confined"], SOON).unwrap();
    assert_eq!(state["exitCode"], 0, "{state}");
    let said: Value = serde_json::from_str(state["message"].as_str().unwrap()).unwrap();
    assert_eq!(said["seccomp"], "2", "{said}");
    assert_eq!(said["apparmor"], "cri-containerd.apparmor.d (enforce)", "{said}");
    let attempts = said["attempts"].as_object().unwrap();
    assert_eq!(attempts.len(), 9, "{said}");
    for (what, outcome) in attempts {
        match what.as_str() {
            "trace a host process" => assert_eq!(outcome, "no such process", "{said}"),
            "kubelet" => assert_eq!(outcome, "no answer", "{said}"),
            _ => assert!(REFUSED.contains(&outcome.as_str().unwrap()), "{what}: {said}"),
        }
    }
}

/// What kubelet made of its configuration, asked as the cluster's administrator.
fn kubelet_runs_as_hardened(plane: &ControlPlane) -> Value {
    let said = e2e::configz(plane, NAME).unwrap();
    let effective = &said["kubeletconfig"];
    for Field { path, value, why, .. } in FIELDS {
        let found = effective.pointer(&format!("/{path}")).unwrap_or(&Value::Null);
        let wanted: Value = serde_json::from_str(value).unwrap();
        // What is empty is left out.
        let empty = [json!(0), json!([]), json!("")].contains(&wanted);
        assert!(*found == wanted || empty && found.is_null(), "{path} is {found}, not {wanted}: {why}");
    }
    assert_eq!(effective["authentication"]["x509"]["clientCAFile"], "/etc/kubernetes/pki/ca.crt");
    said
}

/// While the device waits for its certificate: what the process is like that talks to the API server, and who talks.
const NETWORK_PART: &str = r#"
out=/var/lib/firstboot-test
mkdir -p $out
pid=0
# An emulated device would do little else but ask systemd each second.
until [ -S /run/firstboot-network.sock ]; do sleep 1; done
until grep -q '^Seccomp:.*2' /proc/$pid/status 2>/dev/null && ss -Htnp | grep -q "pid=$pid,"; do
  sleep 1
  unit=$(systemctl list-units --plain --no-legend 'firstboot-network@*.service' | cut -d' ' -f1)
  pid=$(systemctl show --property MainPID --value "${unit:-none.service}")
done
cat /proc/$pid/status >$out/network-part
ss -Htnp >$out/connections
echo $pid >$out/network-part-pid
stat -c '%a %U:%G' /run/firstboot-network.sock >$out/network-socket
systemd-analyze security --no-pager $unit 2>&1 | tail -1 >$out/network-exposure
/usr/bin/firstboot report $out/joining.tar.gz >$out/joining-report 2>&1
tar -xOzf $out/joining.tar.gz >$out/joining-texts
"#;

/// Waits until the node is joined and its last pod has begun, then asks firstboot, and others beside it. On a busy machine
/// the device would not do both at once: kubelet would not answer in time.
const SCRIPT: &str = r#"
until grep -q '"joined"' /var/lib/firstboot/status.json 2>/dev/null; do sleep 1; done
ls /run/firstboot-network.sock >$out/network-gone 2>&1
systemctl list-units --plain --no-legend --state=active,activating 'firstboot-network*' >>$out/network-gone
until ls /var/log/pods/default_confined_*/demo/0.log >/dev/null 2>&1; do sleep 1; done
for try in 1 2 3 4 5; do
  /usr/bin/firstboot audit --json >$out/audit.json 2>$out/audit.err; echo $? >$out/audit.rc
  grep -q 'no answer in time' $out/audit.json || break
done
nft list ruleset >$out/ruleset
sysctl kernel.kptr_restrict kernel.yama.ptrace_scope kernel.sysrq >$out/sysctl
cat /sys/kernel/security/lockdown >$out/lockdown
cat /proc/self/mountinfo >$out/mountinfo
systemctl --failed --no-legend --plain >$out/failed
for unit in kubelet containerd; do readlink /proc/$(systemctl show --property MainPID --value $unit)/ns/mnt; done >$out/mount-namespaces
readlink /proc/1/ns/mnt >>$out/mount-namespaces
/usr/bin/firstboot report $out/joined.tar.gz >$out/joined-report 2>&1
tar -tzf $out/joined.tar.gz >$out/joined-names
tar -xOzf $out/joined.tar.gz >$out/joined-texts
"#;

/// A file that the script left behind.
fn left(device: &Device, name: &str) -> String {
    e2e::found(device, name).unwrap()
}

/// CIS Kubernetes, section 4: nothing fails, and the warnings are those of docs/hardening.md.
fn section_4(device: &Device, configz: &Value) {
    let facts = cis::node::Facts::new(|name| left(device, name), configz);
    cis::expect(&cis::verdicts(cis::node::CHECKS, &facts), &cis::node::WARNED);
}

/// `firstboot report`, while the device had its token and after it had its certificate.
fn reports_hold_no_secret(device: &Device, token: &str) {
    let read = |name: &str| left(device, name);
    let names = read("joined-names");
    for name in ["status", "status.json", "preflight", "audit", "firstboot/journal", "logs/firstboot", "logs/kubelet"] {
        assert!(names.lines().any(|line| line.ends_with(&format!("/{name}"))), "{name} is not in:\n{names}");
    }
    let disk = device.disk();
    let names = disk.list(PKI).unwrap();
    let pair = names.iter().find(|name| name.starts_with("kubelet-client-2")).unwrap_or_else(|| panic!("{names:?}"));
    let pair = String::from_utf8(disk.read_file(&format!("{PKI}/{pair}")).unwrap().unwrap()).unwrap();
    let (_, key) = pair.split_once("PRIVATE KEY-----").unwrap();
    let lines = key.lines().filter(|line| !line.is_empty() && !line.starts_with('-'));
    let secrets: Vec<&str> = lines.chain([secret_of(token)]).collect();
    assert!(secrets.len() > 2, "{}", secrets.len());
    for when in ["joining", "joined"] {
        let (said, texts) = (read(&format!("{when}-report")), read(&format!("{when}-texts")));
        assert!(said.trim().ends_with(" KiB; no token, key, passphrase or password that is known in it"), "{said}");
        assert!(texts.contains(&format!("node: {NAME}")) && texts.len() > 50_000, "{} bytes", texts.len());
        let found: Vec<&&str> = secrets.iter().filter(|secret| texts.contains(**secret)).collect();
        assert!(found.is_empty(), "{} secrets are in the report of a device {when}", found.len());
    }
}

/// The join ran where nothing could be had, and nothing of it is left.
fn join_worker(device: &Device) {
    let read = |name: &str| left(device, name);
    let said = read("network-part");
    let field = |name: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name} is not in {said}"));
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()));
    assert!(field("Uid").split_whitespace().all(|id| id.parse::<u32>().unwrap() > 60_000), "{said}");
    assert_ne!(field("VmLck"), "0 kB");
    let (pid, connections) = (format!("pid={},", read("network-part-pid").trim()), read("connections"));
    let firstboots: Vec<&str> = connections.lines().filter(|l| l.contains("\"firstboot\"")).collect();
    assert!(!firstboots.is_empty() && firstboots.iter().all(|l| l.contains(&pid)), "not {pid} alone: {connections}");
    assert_eq!(read("network-socket").trim(), "600 root:root");
    let exposure = read("network-exposure");
    let sum = exposure.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(sum.is_some_and(|sum| sum <= 2.0), "{exposure}");
    let gone = read("network-gone");
    assert!(gone.lines().count() == 1 && gone.contains("No such file"), "{gone}");
}

/// What the script found.
fn validate(device: &Device) {
    let read = |name: &str| left(device, name);
    let audit: Value = serde_json::from_str(&read("audit.json")).unwrap();
    let findings = audit["findings"].as_array().unwrap();
    let drift: Vec<&Value> = findings.iter().filter(|f| f["state"] != "ok").collect();
    assert!(drift.is_empty(), "{drift:#?}");
    assert_eq!(read("audit.rc").trim(), "0", "{}", read("audit.err"));
    assert!(findings.len() > 100, "only {} settings are looked at", findings.len());
    assert_eq!(read("failed"), "", "units that failed");
    let configz = findings.iter().find(|f| f["id"] == "kubelet/configz").unwrap();
    assert_eq!(configz["found"], "read", "{configz}");
    // Volumes that a container mounts reach kubelet, and kubelet's reach containers: one view of the file system.
    let views = read("mount-namespaces");
    let views: Vec<&str> = views.lines().collect();
    assert!(views.len() == 3 && views.iter().all(|v| *v == views[0]), "{views:?}");
    // The same by other programs' word.
    assert!(read("ruleset").contains("type filter hook input priority filter; policy drop;"), "{}", read("ruleset"));
    for line in ["kernel.kptr_restrict = 2", "kernel.yama.ptrace_scope = 2", "kernel.sysrq = 0"] {
        assert!(read("sysctl").lines().any(|l| l == line), "{line}\n{}", read("sysctl"));
    }
    assert!(read("lockdown").contains("[integrity]"), "{}", read("lockdown"));
    let mounts = read("mountinfo");
    for dir in ["/tmp", "/var/tmp", "/dev/shm"] {
        let line = mounts.lines().find(|l| l.split(' ').nth(4) == Some(dir)).unwrap_or_else(|| panic!("{mounts}"));
        assert!(["nosuid", "nodev", "noexec"].iter().all(|o| line.contains(o)), "{line}");
    }
}
