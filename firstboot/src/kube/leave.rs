// SPDX-License-Identifier: Apache-2.0
//! How a node leaves its cluster, as far as a node may (Node authorizer and NodeRestriction): cordoned, its pods evicted,
//! not Ready, without Lease and CSINode. Its Node object only an administrator may delete.

use super::client::Reply;
use super::error::{Error, Kind};
use super::node::NodeClient;
use crate::fault::{Code, Fault};
use crate::text::{timestamp, unix_seconds};
use serde_json::{Value, json};
use std::future::Future;
use std::time::{Duration, SystemTime};

/// How often it is asked which pods are left.
const LOOK: Duration = Duration::from_secs(2);
/// Annotation of a Node that a reset has cordoned.
const CORDONED: &str = "firstboot/cordoned-by-reset";

/// A pod that is this node's to end: neither a DaemonSet's, which would come again, nor a file's on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    /// It is on its way out already.
    ending: bool,
}

impl NodeClient {
    /// Asks until the cluster answers: whether it knows this node.
    ///
    /// # Errors
    /// No answer within `limit`, for the last reason; or at once when the cluster does not take this node for what it is.
    pub fn known(&self, limit: Duration) -> Result<bool, Fault> {
        self.run(async {
            let mut last = None;
            let asked = async {
                loop {
                    match self.client.get(&self.node_path()).await {
                        Ok(_) => return Ok(true),
                        Err(Error { kind: Kind::Status(404), .. }) => return Ok(false),
                        Err(error @ Error { kind: Kind::Status(401 | 403), .. }) => return Err(error),
                        Err(error) => last = Some(error),
                    }
                    tokio::time::sleep(LOOK).await;
                }
            };
            // Over all of it: a single call may take as long.
            match tokio::time::timeout(limit, asked).await {
                Ok(known) => Ok(known?),
                Err(_) => Err(last.unwrap_or_else(|| self.no_answer(limit)).into()),
            }
        })
    }

    fn no_answer(&self, limit: Duration) -> Error {
        let text =
            format!("ask API server {} for the own Node: no answer in {} s", self.client.host(), limit.as_secs());
        Error::new(Kind::Transport, Code::Unreachable, text)
    }

    /// No pod is given to this node any more. It is noted on the Node, for [`NodeClient::uncordon`]; what an
    /// administrator has cordoned is left to him.
    pub fn cordon(&self) -> Result<(), Fault> {
        self.run(async {
            if self.client.get(&self.node_path()).await?.body["spec"]["unschedulable"] == true {
                return Ok(());
            }
            let patch = json!({"metadata": {"annotations": {CORDONED: "true"}}, "spec": {"unschedulable": true}});
            Ok(self.client.patch(&self.node_path(), &patch).await.map(drop)?)
        })
    }

    /// Takes back what a reset's [`NodeClient::cordon`] did to `node`, which has joined again and was never deleted. Gives
    /// the command for an administrator where the cluster does not let a node do that.
    pub(super) async fn uncordon(&self, node: &Value) -> Result<Option<String>, Error> {
        if node["metadata"]["annotations"][CORDONED].is_null() {
            return Ok(None);
        }
        let patch = json!({"metadata": {"annotations": {CORDONED: null}}, "spec": {"unschedulable": null}});
        match self.client.patch(&self.node_path(), &patch).await {
            Ok(_) => Ok(None),
            Err(Error { kind: Kind::Status(403), .. }) => Ok(Some(format!("kubectl uncordon {}", self.name))),
            Err(error) => Err(error),
        }
    }

    /// Evicts own pods and waits until they are gone; how many are left after `limit`. A budget (PodDisruptionBudget) that
    /// refuses is asked again until then.
    ///
    /// # Errors
    /// No answer, or a cluster that lets this node evict nothing.
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
                        Err(error) if matches!(error.kind, Kind::Transport | Kind::Status(400..404)) => {
                            return Err(error.into());
                        }
                        // One that the cluster will not evict now, for whatever reason, must not keep others.
                        _ => {}
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
    /// and no CSINode. Each is tried, as long as the cluster answers; gives what failed.
    pub fn depart(&self, now: SystemTime) -> Vec<Fault> {
        let done = self.run(async {
            let mut failed = Vec::new();
            let at_once = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
            let pods = self.pods().await.unwrap_or_else(|error| {
                failed.push(error);
                Vec::new()
            });
            for pod in pods {
                attempt(&mut failed, self.client.delete(&pod.path(), &at_once)).await;
            }
            let status = not_ready(now);
            attempt(&mut failed, self.client.patch(&format!("{}/status", self.node_path()), &status)).await;
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
            for path in ["coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "storage.k8s.io/v1/csinodes"] {
                attempt(&mut failed, self.client.delete(&format!("/apis/{path}/{}", self.name), &options)).await;
            }
            Ok(failed.into_iter().map(Fault::from).collect())
        });
        done.unwrap_or_else(|fault| vec![fault])
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

/// What the Node says when kubelet says nothing any more.
fn not_ready(now: SystemTime) -> Value {
    let now = timestamp(unix_seconds(now));
    let ready = json!({
        "type": "Ready",
        "status": "False",
        "reason": "DeviceReset",
        "message": "firstboot --reset took this device back",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    json!({"status": {"conditions": [ready]}})
}

/// Notes what fails. What is not there needs no end, and a server that does not answer is asked nothing more.
async fn attempt(failed: &mut Vec<Error>, call: impl Future<Output = Result<Reply, Error>>) {
    if failed.iter().any(|error| error.kind == Kind::Transport) {
        return;
    }
    match call.await {
        Ok(_) | Err(Error { kind: Kind::Status(404), .. }) => {}
        Err(error) => failed.push(error),
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
