// SPDX-License-Identifier: Apache-2.0
//! How a node leaves its cluster, as far as a node may (Node authorizer and NodeRestriction): cordoned, its pods evicted,
//! not Ready, without Lease and CSINode. Its Node object only an administrator may delete.

use super::error::{Error, Kind};
use super::node::NodeClient;
use crate::fault::Fault;
use crate::report::{timestamp, unix_seconds};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// How often it is asked which pods are left.
const LOOK: Duration = Duration::from_secs(2);

/// A pod that is this node's to end: neither a DaemonSet's, which would come again, nor a file's on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    /// It is on its way out already.
    ending: bool,
}

impl NodeClient {
    /// No pod is given to this node any more.
    pub fn cordon(&self) -> Result<(), Fault> {
        self.run(async {
            let unschedulable = json!({"spec": {"unschedulable": true}});
            Ok(self.client.patch(&self.node_path(), &unschedulable).await.map(drop)?)
        })
    }

    /// Evicts own pods and waits until they are gone; how many are left after `limit`. A budget (PodDisruptionBudget) that
    /// refuses is asked again until then.
    pub fn drain(&self, limit: Duration) -> Result<usize, Fault> {
        self.run(async {
            let started = tokio::time::Instant::now();
            loop {
                let pods = self.pods().await?;
                for pod in pods.iter().filter(|pod| !pod.ending) {
                    let eviction = json!({
                        "apiVersion": "policy/v1",
                        "kind": "Eviction",
                        "metadata": {"name": pod.name, "namespace": pod.namespace},
                    });
                    match self.client.post(&format!("{}/eviction", pod.path()), &eviction).await {
                        Ok(_) | Err(Error { kind: Kind::Status(404 | 409 | 429), .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                if pods.is_empty() || started.elapsed() >= limit {
                    return Ok(pods.len());
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    /// What is to be said once kubelet has stopped: pods that are left are gone, the node is not Ready, it has no Lease
    /// and no CSINode.
    pub fn depart(&self, now: SystemTime) -> Result<(), Fault> {
        self.run(async {
            let at_once = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
            for pod in self.pods().await? {
                gone(self.client.delete(&pod.path(), &at_once).await.map(drop))?;
            }
            let now = timestamp(unix_seconds(now));
            let ready = json!({
                "type": "Ready",
                "status": "False",
                "reason": "DeviceReset",
                "message": "firstboot --reset took this device back",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            });
            let path = format!("{}/status", self.node_path());
            gone(self.client.patch(&path, &json!({"status": {"conditions": [ready]}})).await.map(drop))?;
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
            for path in ["coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "storage.k8s.io/v1/csinodes"] {
                gone(self.client.delete(&format!("/apis/{path}/{}", self.name), &options).await.map(drop))?;
            }
            Ok(())
        })
    }

    async fn pods(&self) -> Result<Vec<Pod>, Error> {
        let reply = self.client.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.name)).await?;
        Ok(own(&reply.body))
    }
}

impl Pod {
    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

/// What is not there needs no end.
fn gone(done: Result<(), Error>) -> Result<(), Fault> {
    match done {
        Err(Error { kind: Kind::Status(404), .. }) => Ok(()),
        done => Ok(done?),
    }
}

/// The pods of a PodList that are this node's to end.
fn own(list: &Value) -> Vec<Pod> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let own = |pod: &&Value| {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let daemon = owners.is_some_and(|all| all.iter().any(|o| o["kind"] == "DaemonSet"));
        !daemon && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()
    };
    let pods = list["items"].as_array().into_iter().flatten();
    let one = |pod: &Value| Pod {
        namespace: text(&pod["metadata"]["namespace"]),
        name: text(&pod["metadata"]["name"]),
        ending: !pod["metadata"]["deletionTimestamp"].is_null(),
    };
    pods.filter(own).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_daemon_sets_and_of_files_stay() {
        let list = json!({"items": [
            {"metadata": {"namespace": "a", "name": "web", "ownerReferences": [{"kind": "ReplicaSet"}]}},
            {"metadata": {"namespace": "a", "name": "going", "deletionTimestamp": "2026-11-22T16:31:48Z"}},
            {"metadata": {"namespace": "kube-system", "name": "proxy", "ownerReferences": [{"kind": "DaemonSet"}]}},
            {"metadata": {"namespace": "kube-system", "name": "static",
                          "annotations": {"kubernetes.io/config.mirror": "x"}}},
        ]});
        let pods = own(&list);
        let shown: Vec<(String, bool)> = pods.iter().map(|p| (p.path(), p.ending)).collect();
        assert_eq!(
            shown,
            [("/api/v1/namespaces/a/pods/web".to_owned(), false), ("/api/v1/namespaces/a/pods/going".to_owned(), true)]
        );
        assert!(own(&json!({})).is_empty());
    }
}
