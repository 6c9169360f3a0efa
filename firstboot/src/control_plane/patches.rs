// SPDX-License-Identifier: Apache-2.0
//! What is changed in the static pods that kubeadm makes, by its patches ("Customizing components with the kubeadm API",
//! section "Patches", in the documentation of Kubernetes).

use crate::host::Host;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// Where they are, beside kubelet's. `kubeadm upgrade` takes the directory as `--patches`.
pub const DIRECTORY: &str = "/etc/firstboot/patches";

/// kubeadm asks each second whether a component is ready: three TLS connections and a read of etcd, all the time, on a device
/// that does nothing else. Nothing waits for that answer: kubeadm asks by itself, and no Service leads to these pods.
const READY_SECONDS: u32 = 10;
/// kubeadm restarts a component that has not answered for 80 s. A small device that has too much to do is restarted into
/// still more work by that; five minutes are left to it.
const FAILURES: u32 = 30;
/// Components, and whether kubeadm asks if they are ready.
const COMPONENTS: [(&str, bool); 4] =
    [("etcd", true), ("kube-apiserver", true), ("kube-controller-manager", false), ("kube-scheduler", true)];

/// Writes them, for `kubeadm init` and `kubeadm join`.
///
/// # Errors
/// When the disk refuses.
pub fn put(host: &Host) -> Result<()> {
    files().try_for_each(|(name, text)| host.write(&format!("{DIRECTORY}/{name}"), text.as_bytes(), 0o600))
}

/// Name and text of each patch.
pub fn files() -> impl Iterator<Item = (String, String)> {
    COMPONENTS.iter().map(|(name, readiness)| {
        let mut container = Map::from_iter([
            ("name".to_owned(), json!(name)),
            ("livenessProbe".to_owned(), json!({ "failureThreshold": FAILURES })),
        ]);
        if *readiness {
            container.insert("readinessProbe".to_owned(), json!({ "periodSeconds": READY_SECONDS }));
        }
        let pod = json!({ "spec": { "containers": [Value::Object(container)] } });
        (format!("{name}+strategic.json"), format!("{pod:#}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_the_container_that_it_changes() {
        let all: Vec<(String, String)> = files().collect();
        assert_eq!(all.len(), 4);
        for (file, text) in all {
            let pod: Value = serde_json::from_str(&text).unwrap();
            let container = &pod["spec"]["containers"][0];
            assert_eq!(file, format!("{}+strategic.json", container["name"].as_str().unwrap()));
            assert_eq!(container["livenessProbe"], json!({ "failureThreshold": 30 }));
            let asked = file != "kube-controller-manager+strategic.json";
            assert_eq!(container.get("readinessProbe").is_some(), asked, "{file}");
        }
    }
}
