// SPDX-License-Identifier: Apache-2.0
//! Flannel: the pod network between nodes that is deployed into a cluster that this device creates, from the bundle's own
//! images. Pure: networks in, objects out.
//!
//! The objects are those of flannel's own manifest (flannel-io/flannel, Documentation/kube-flannel.yml), with nftables as
//! kube-proxy and the packet filter use, and with a priority that keeps the network when memory is short.

use crate::bundle::Manifest;
use crate::fault::Fault;
use crate::paths::{CNI_BIN, CNI_CONF};
use crate::seed::Endpoint;
use ipnet::IpNet;
use serde_json::{Value, json};

/// Namespace of all of it.
const NAMESPACE: &str = "kube-flannel";
/// Name of everything in it.
const NAME: &str = "flannel";
/// Name of the configuration.
const CONFIG: &str = "kube-flannel-cfg";
/// Where each container finds that.
const CONFIG_DIRECTORY: &str = "/etc/kube-flannel";
/// Its key by which flanneld reaches the API server: a node's cache of the API server changes it (crate `apicache`, rewrite.rs),
/// as that of kube-proxy.
const KUBECONFIG: &str = "kubeconfig.conf";

/// Container images, by their names in the bundle.
pub struct Images<'b> {
    /// flanneld.
    pub daemon: &'b str,
    /// The CNI plugin.
    pub plugin: &'b str,
}

impl<'b> Images<'b> {
    /// Those of the bundle.
    ///
    /// # Errors
    /// The image's: there are none.
    pub fn of(bundle: &'b Manifest, target: &str) -> Result<Self, Fault> {
        let name = |component: &str| super::image(bundle, component, target).map(|image| image.name.as_str());
        Ok(Images { daemon: name("flannel")?, plugin: name("flannel-cni-plugin")? })
    }
}

/// Every object, each with the path at which it is applied, in an order in which all that one needs is there before it.
pub fn objects(pods: &[IpNet], images: &Images<'_>, server: &Endpoint) -> Vec<(String, Value)> {
    let namespaced = |kind: &str, name: &str| format!("/api/v1/namespaces/{NAMESPACE}/{kind}/{name}");
    let rbac = |kind: &str| format!("/apis/rbac.authorization.k8s.io/v1/{kind}/{NAME}");
    vec![
        (format!("/api/v1/namespaces/{NAMESPACE}"), namespace()),
        (namespaced("serviceaccounts", NAME), object("v1", "ServiceAccount", NAME, json!({}))),
        (rbac("clusterroles"), role()),
        (rbac("clusterrolebindings"), binding()),
        (namespaced("configmaps", CONFIG), config(pods, server)),
        (format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/kube-flannel-ds"), daemon_set(images)),
    ]
}

fn object(api: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "k8s-app": NAME } },
    });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// Pods of flannel are privileged by the Pod Security Standards: they are in the network of the host.
fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": { "k8s-app": NAME, "pod-security.kubernetes.io/enforce": "privileged" },
        },
    })
}

fn role() -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": NAME, "labels": { "k8s-app": NAME } },
        "rules": [
            rule("", &["pods"], &["get"]),
            rule("", &["nodes"], &["get", "list", "watch"]),
            rule("", &["nodes/status"], &["patch"]),
        ],
    })
}

fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": NAME, "labels": { "k8s-app": NAME } },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
    })
}

fn config(pods: &[IpNet], server: &Endpoint) -> Value {
    let cni = json!({
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
            { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } },
        ],
    });
    let mut net = json!({
        "EnableNFTables": true,
        "EnableIPv4": pods.iter().any(|net| net.addr().is_ipv4()),
        "EnableIPv6": pods.iter().any(|net| net.addr().is_ipv6()),
        "Backend": { "Type": "vxlan" },
    });
    for net_of_family in pods {
        let key = if net_of_family.addr().is_ipv4() { "Network" } else { "IPv6Network" };
        net[key] = net_of_family.to_string().into();
    }
    let data = json!({ "data": {
        "cni-conf.json": format!("{cni:#}\n"),
        "net-conf.json": format!("{net:#}\n"),
        KUBECONFIG: kubeconfig(server),
    } });
    object("v1", "ConfigMap", CONFIG, data)
}

/// flanneld's way to the API server by its own address: that of Service kubernetes leads nowhere before kube-proxy has set it
/// up. In the form of kube-proxy's (kubeadm, phases/addons/proxy/manifests.go).
fn kubeconfig(server: &Endpoint) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: https://{server}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
"
    )
}

fn daemon_set(images: &Images<'_>) -> Value {
    let labels = json!({ "app": NAME, "k8s-app": NAME });
    let field = |path: &str| json!({ "fieldRef": { "apiVersion": "v1", "fieldPath": path } });
    let copy = |name: &str, image: &str, from: &str, to: &str, volumes: &[(&str, &str)]| {
        json!({
            "name": name,
            "image": image,
            "command": ["cp", "-f", from, to],
            "volumeMounts": volumes.iter().map(|(n, p)| json!({ "name": n, "mountPath": p })).collect::<Vec<_>>(),
        })
    };
    let host = |name: &str, path: &str, kind: &str| json!({ "name": name, "hostPath": { "path": path, "type": kind } });
    let pod = json!({
        "priorityClassName": "system-node-critical",
        "hostNetwork": true,
        "serviceAccountName": NAME,
        "nodeSelector": { "kubernetes.io/os": "linux" },
        // Every node, whatever its taints and however long it was away.
        "tolerations": [{ "operator": "Exists" }],
        "initContainers": [
            copy("install-cni-plugin", images.plugin, "/flannel", &format!("{CNI_BIN}/flannel"), &[("cni-plugin", CNI_BIN)]),
            copy(
                "install-cni",
                images.plugin,
                "/etc/kube-flannel/cni-conf.json",
                &format!("{CNI_CONF}/10-flannel.conflist"),
                &[("cni", CNI_CONF), ("flannel-cfg", CONFIG_DIRECTORY)],
            ),
        ],
        "containers": [{
            "name": "kube-flannel",
            "image": images.daemon,
            "command": [
                "/opt/bin/flanneld",
                "--ip-masq",
                "--kube-subnet-mgr",
                format!("--kubeconfig-file={CONFIG_DIRECTORY}/{KUBECONFIG}"),
            ],
            "resources": { "requests": { "cpu": "100m", "memory": "50Mi" } },
            "securityContext": { "privileged": false, "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
            "env": [
                { "name": "POD_NAME", "valueFrom": field("metadata.name") },
                { "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") },
                { "name": "EVENT_QUEUE_DEPTH", "value": "5000" },
            ],
            "volumeMounts": [
                { "name": "run", "mountPath": "/run/flannel" },
                { "name": "flannel-cfg", "mountPath": CONFIG_DIRECTORY },
                { "name": "xtables-lock", "mountPath": "/run/xtables.lock" },
            ],
        }],
        "volumes": [
            host("run", "/run/flannel", "DirectoryOrCreate"),
            host("cni-plugin", CNI_BIN, "DirectoryOrCreate"),
            host("cni", CNI_CONF, "DirectoryOrCreate"),
            { "name": "flannel-cfg", "configMap": { "name": CONFIG } },
            host("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
        ],
    });
    let spec = json!({ "spec": {
        "selector": { "matchLabels": labels },
        // A fleet of devices that are switched off must not hold up an update.
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } },
        "template": { "metadata": { "labels": labels }, "spec": pod },
    } });
    object("apps/v1", "DaemonSet", "kube-flannel-ds", spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_applied_at_its_own_path() {
        let images = Images { daemon: "flannel:1", plugin: "plugin:1" };
        let nets: Vec<IpNet> = vec!["10.244.0.0/16".parse().unwrap(), "fd01::/48".parse().unwrap()];
        let server = Endpoint::parse("192.0.2.7:6443").unwrap();
        let objects = objects(&nets, &images, &server);
        for (path, object) in &objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(path.ends_with(&format!("/{name}")), "{path}");
            let namespace = object["metadata"]["namespace"].as_str();
            assert_eq!(namespace.is_some(), path.contains("/namespaces/kube-flannel/"), "{path}");
        }
        let net: Value = serde_json::from_str(objects[4].1["data"]["net-conf.json"].as_str().unwrap()).unwrap();
        assert_eq!((&net["Network"], &net["IPv6Network"]), (&json!("10.244.0.0/16"), &json!("fd01::/48")));
        let pod = &objects[5].1["spec"]["template"]["spec"];
        let kubeconfig = objects[4].1["data"]["kubeconfig.conf"].as_str().unwrap();
        assert!(kubeconfig.contains("\n    server: https://192.0.2.7:6443\n"), "{kubeconfig}");
        let command = pod["containers"][0]["command"].to_string();
        assert!(command.contains("--kubeconfig-file=/etc/kube-flannel/kubeconfig.conf"), "{command}");
        assert_eq!(
            (&pod["initContainers"][0]["image"], &pod["containers"][0]["image"]),
            (&json!("plugin:1"), &json!("flannel:1"))
        );
    }
}
