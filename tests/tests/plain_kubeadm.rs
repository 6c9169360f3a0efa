// SPDX-License-Identifier: Apache-2.0
//! A cluster that a device creates beside one of a person who gives kubeadm the same configuration: every object and every
//! file of both, by `kubeadm init --dry-run`. Boots no guest.

#![allow(clippy::unwrap_used)]

use firstboot::control_plane::kubeadm::{Device, configuration};
use firstboot::control_plane::patches;
use firstboot::seed;
use imagebuild::{arch::Arch, cmd, component, repo};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const VERSION: &str = "1.36.3";
const SEED: &str = "version = 1\n[cluster]\ncreate = true\njoin-control-plane = true\nvirtual-ip = \"192.0.2.9\"\n";
/// What a person writes for the same cluster: names, addresses and networks, and nothing else.
const PLAIN: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: { advertiseAddress: 192.0.2.7 }
nodeRegistration: { name: edge-1, criSocket: unix:///run/containerd/containerd.sock }
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
controlPlaneEndpoint: 192.0.2.9:6443
networking: { podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12 }
";

/// What kubeadm would make: objects by kind, namespace and name, and files by path; of each, its fields by path.
type Made = BTreeMap<String, BTreeMap<String, String>>;

/// Lets kubeadm say what it would make.
fn dry_run(config: &str) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    for (name, text) in patches::files() {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(&path, config.replace(patches::DIRECTORY, &dir.path().display().to_string())).unwrap();
    let kubeadm = component::ensure("kubeadm", Arch::host().unwrap(), Some(&format!("v{VERSION}"))).unwrap();
    let mut command = Command::new(kubeadm);
    // This machine is no node: checks of it say nothing here.
    command.args(["init", "--dry-run", "--skip-phases=preflight", "--config"]).arg(&path);
    // Without the latter it leaves certificates in /etc/kubernetes.
    command.env("HOME", dir.path()).env("KUBEADM_INIT_DRYRUN_DIR", dir.path());
    let text = String::from_utf8(cmd::output(&mut command).unwrap()).unwrap();
    // kubeadm writes the files that it shows there, too.
    let text = text.replace(&dir.path().display().to_string(), "DIR");
    let mut made = Made::new();
    let mut part = String::new();
    let mut head = String::new();
    for line in text.lines().chain(["[end]"]) {
        if line.starts_with('[') {
            take_in(&head, &std::mem::take(&mut part), &mut made);
            // Two lines announce an object, one a file.
            if !line.starts_with("[dryrun] Attached object") {
                line.clone_into(&mut head);
            }
        } else {
            part += &format!("{line}\n");
        }
    }
    made
}

fn take_in(head: &str, part: &str, made: &mut Made) {
    if !head.starts_with("[dryrun] Would ") {
        return;
    }
    let file = head.strip_prefix("[dryrun] Would write file ").and_then(|rest| rest.split('"').nth(1));
    for document in part.split("---\n") {
        let Some(value) = yaml(document) else { continue };
        let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
        let meta = &value["metadata"];
        let object = format!("{} {}/{}", text(&value["kind"]), text(&meta["namespace"]), text(&meta["name"]));
        let mut fields = BTreeMap::new();
        flatten("", &value, &mut fields);
        made.entry(file.map_or(object, str::to_owned)).or_default().extend(fields);
    }
}

/// A table or a list of YAML.
fn yaml(text: &str) -> Option<Value> {
    serde_yaml_ng::from_str(text).ok().filter(|value: &Value| value.is_object() || value.is_array())
}

fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) => table.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, fields)),
        // Commands and lists of names: each element by itself, so that one more is one difference.
        Value::Array(list) if list.iter().all(Value::is_string) => {
            for element in list {
                let text = element.as_str().unwrap_or_default();
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                fields.insert(format!("{path}[{name}]"), value.to_owned());
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                let name = value["name"].as_str().map_or_else(|| number.to_string(), str::to_owned);
                // An argument is a name and its value.
                let inner = value.get("value").unwrap_or(value);
                flatten(&format!("{path}[{name}]"), inner, fields);
            }
        }
        // ConfigMaps hold documents.
        Value::String(text) => match text.contains('\n').then(|| yaml(text)).flatten() {
            Some(inner) => flatten(path, &inner, fields),
            None => drop(fields.insert(path.to_owned(), text.clone())),
        },
        other => drop(fields.insert(path.to_owned(), other.to_string())),
    }
}

/// What differs in two runs of the same configuration: keys, tokens and times.
fn by_chance(path: &str) -> bool {
    ["certificate-authority-data", ".data.token-", ".data.expiration", "jws-kubeconfig"]
        .iter()
        .any(|word| path.contains(word))
}

/// A field without the document that it is in, or the container that it is of: each object here has one of them.
fn short(path: &str) -> String {
    let path = path.strip_prefix(".data.ClusterConfiguration").unwrap_or(path);
    let path = path.strip_prefix(".spec.containers[").and_then(|rest| Some(rest.split_once("].")?.1)).unwrap_or(path);
    path.trim_start_matches('.').to_owned()
}

/// The first cells of a table of docs/clusters.md, without the marks of code.
fn cells(docs: &str, heading: &str) -> Vec<(String, String)> {
    let table = docs.split(heading).nth(1).unwrap_or_else(|| panic!("find the table {heading}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// Object or file, and field, of each difference that is documented. A flag is in its manifest and in kubeadm's configuration.
fn documented() -> BTreeSet<(String, String)> {
    let docs = std::fs::read_to_string(repo::root().unwrap().join("docs/clusters.md")).unwrap();
    let mut all: BTreeSet<(String, String)> = cells(&docs, "| object or file | field |").into_iter().collect();
    for (file, flag) in cells(&docs, "| file | flag |") {
        let component = match file.as_str() {
            "etcd.yaml" => "etcd.local",
            "kube-apiserver.yaml" => "apiServer",
            "kube-controller-manager.yaml" => "controllerManager",
            "kube-scheduler.yaml" => "scheduler",
            _ => panic!("{file} is no manifest"),
        };
        all.insert(("ConfigMap kubeadm-config".to_owned(), format!("{component}.extraArgs[{flag}]")));
        all.insert((file, format!("command[--{flag}]")));
    }
    all
}

#[test]
fn a_device_makes_the_cluster_that_kubeadm_makes() {
    let seed = seed::parse(SEED.as_bytes()).unwrap();
    let device = Device {
        node: "edge-1",
        address: "192.0.2.7".parse().unwrap(),
        node_ips: Vec::new(),
        version: VERSION,
        labels: BTreeMap::new(),
        cri_socket: "unix:///run/containerd/containerd.sock",
    };
    let ours = dry_run(&configuration(seed.create().unwrap(), &seed.node, &device));
    let plain = dry_run(PLAIN);
    // All that kubeadm makes was read.
    for name in ["kubeadm-config", "kubelet-config", "kube-proxy", "coredns"] {
        assert!(plain.contains_key(&format!("ConfigMap kube-system/{name}")), "{name}: {:?}", plain.keys());
    }
    assert!(plain.contains_key("ConfigMap kube-public/cluster-info"), "{:?}", plain.keys());
    assert!(plain.contains_key("/etc/kubernetes/manifests/etcd.yaml"), "{:?}", plain.keys());
    // A token has a name by chance.
    let kept = |made: Made| made.into_iter().filter(|(name, _)| !name.starts_with("Secret ")).collect::<Made>();
    let (ours, plain) = (kept(ours), kept(plain));
    assert_eq!(ours.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    let mut different = BTreeSet::new();
    for (name, fields) in &ours {
        for path in fields.keys().chain(plain[name].keys()).filter(|path| !by_chance(path)) {
            if fields.get(path) != plain[name].get(path) {
                let shown = name.replace("/etc/kubernetes/manifests/", "").replace("kube-system/", "");
                println!("{name} {path}: {:?}, kubeadm: {:?}", fields.get(path), plain[name].get(path));
                different.insert((shown, short(path)));
            }
        }
    }
    assert_eq!(different, documented(), "docs/clusters.md, Beside a plain kubeadm init");
}
