// SPDX-License-Identifier: Apache-2.0
//! Two pods that prove a node: one answers HTTP from outside, the other reaches it by its Service name.

use crate::control_plane::{ControlPlane, condition};
use crate::device::Device;
use crate::wait;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Where the first pod listens, in the pod and on the node.
pub const PORT: u16 = 8080;
/// The workload that every bundle carries.
const IMAGE: &str = "firstboot.local/demo:1";
/// Name of the server, and of its Service.
pub const SERVER: &str = "hello";
/// Name of the pod that asks it.
pub const CLIENT: &str = "fetch-hello";

/// How long to wait before the cluster is asked again: kubectl takes processor time from the guest that is waited for.
const ASKED: Duration = Duration::from_secs(1);

/// What the workload answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the pod that answered.
    pub pod: String,
    /// Name of the node that it runs on.
    pub node: String,
}

/// What the pods proved.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// Answer to the build machine, through hostPort and the emulator's port forwarding.
    pub from_outside: Answer,
    /// Answer to the other pod, which knew only the Service's name: kube-proxy and DNS work.
    pub by_service_name: Answer,
}

/// Creates the pods and the Service in the cluster. The scheduler places them when there is a node.
pub fn create(plane: &ControlPlane) -> Result<()> {
    wait::until("the default service account", Duration::from_secs(30), || {
        let accounts = plane.kubectl(&["get", "serviceaccounts", "-n", "default", "-o", "name"])?;
        Ok(accounts.contains("serviceaccount/default").then_some(()))
    })?;
    plane.apply(&manifests())
}

/// Waits until both pods have done their part on `node`.
pub fn prove(plane: &ControlPlane, device: &Device, node: &str, limit: Duration) -> Result<Proof> {
    let proof = || -> Result<Proof> {
        let pod = |name: &str| plane.get(&["pod", name, "-n", "default"]);
        let ready = format!("pod {SERVER} to be ready");
        wait::every(ASKED, &ready, limit, || {
            device.check()?;
            let ready = condition(&pod(SERVER)?, "Ready").is_some_and(|c| c["status"] == "True");
            Ok(ready.then_some(()))
        })?;
        let url = format!("{}/", device.url(PORT)?);
        let from_outside = wait::every(Duration::from_millis(500), &format!("an answer from {url}"), limit, || {
            device.check()?;
            Ok(ask(&url).ok())
        })?;
        let state = end(plane, device, CLIENT, limit)?;
        let message = state["message"].as_str().unwrap_or_default();
        if state["exitCode"] != 0 {
            bail!("reach {SERVER} by its Service name from pod {CLIENT}: {message}");
        }
        let by_service_name = serde_json::from_str(message).context("parse what the Service answered")?;
        Ok(Proof { from_outside, by_service_name })
    };
    let proof = proof().map_err(|e| e.context(report(plane)))?;
    let expected = Answer { pod: SERVER.to_owned(), node: node.to_owned() };
    for answer in [&proof.from_outside, &proof.by_service_name] {
        if *answer != expected {
            bail!("get an answer from pod {SERVER} on node {node}: it came from {} on {}", answer.pod, answer.node);
        }
    }
    Ok(proof)
}

/// Runs a pod of the workload with these arguments to its end; returns how its container ended.
///
/// # Errors
/// When it has not ended after `limit`; the text holds pods and events.
pub fn run(plane: &ControlPlane, device: &Device, name: &str, args: &[&str], limit: Duration) -> Result<Value> {
    let mut pod = pod(name, "Never", json!(args));
    pod["spec"]["containers"][0]["env"] =
        json!([{ "name": "HOST_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }]);
    plane.apply(&pod)?;
    ended(plane, device, name, limit)
}

/// Waits until the only container of a pod has ended; returns how it ended.
///
/// # Errors
/// When it has not ended after `limit`; the text holds pods and events.
pub fn ended(plane: &ControlPlane, device: &Device, name: &str, limit: Duration) -> Result<Value> {
    end(plane, device, name, limit).map_err(|e| e.context(report(plane)))
}

fn end(plane: &ControlPlane, device: &Device, name: &str, limit: Duration) -> Result<Value> {
    wait::every(ASKED, &format!("pod {name} to end"), limit, || {
        device.check()?;
        let status = plane.get(&["pod", name, "-n", "default"])?["status"].take();
        let state = &status["containerStatuses"][0]["state"]["terminated"];
        // A pod that kubelet rejects or evicts ends without a container.
        if state.is_null() && status["phase"] == "Failed" {
            bail!("wait for pod {name} to end: {}: {}", status["reason"], status["message"]);
        }
        Ok((!state.is_null()).then(|| state.clone()))
    })
}

/// Images that were pulled instead of taken from the bundle, by the cluster's events.
pub fn pulled(plane: &ControlPlane) -> Result<Vec<String>> {
    plane.events("Pulling")
}

fn ask(url: &str) -> Result<Answer> {
    let mut body = Vec::new();
    imagebuild::http::get(url, imagebuild::http::Limit::JSON, &mut body)?;
    serde_json::from_slice(&body).with_context(|| format!("parse the answer of {url}"))
}

/// All pods and the latest events, for a failure's report.
fn report(plane: &ControlPlane) -> String {
    let show = |args: &[&str]| plane.kubectl(args).unwrap_or_else(|e| format!("({e:#})"));
    let pods = show(&["get", "pods", "-A", "-o", "wide"]);
    let events = show(&[
        "get",
        "events",
        "-A",
        "--sort-by=.lastTimestamp",
        "-o",
        "custom-columns=\
        LAST:.lastTimestamp,COUNT:.count,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message",
        "--no-headers",
    ]);
    let lines: Vec<&str> = events.lines().collect();
    format!("--- pods\n{pods}--- events\n{}\n---", lines[lines.len().saturating_sub(25)..].join("\n"))
}

pub(crate) fn manifests() -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mut server = pod(SERVER, "Always", json!(["serve"]));
    let container = &mut server["spec"]["containers"][0];
    container["env"] = json!([
        { "name": "POD_NAME", "valueFrom": field("metadata.name") },
        { "name": "NODE_NAME", "valueFrom": field("spec.nodeName") },
    ]);
    container["ports"] = json!([{ "containerPort": PORT, "hostPort": PORT }]);
    container["readinessProbe"] = json!({ "httpGet": { "path": "/", "port": PORT }, "periodSeconds": 1 });
    let url = format!("http://{SERVER}.default.svc.cluster.local/");
    let client = pod(CLIENT, "Never", json!(["fetch", url]));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVER, "namespace": "default" },
        "spec": { "selector": { "app": SERVER }, "ports": [{ "port": 80, "targetPort": PORT }] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [service, server, client] })
}

fn pod(name: &str, restart: &str, args: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": {
            "restartPolicy": restart,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "demo", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": args }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_leads_to_the_server_and_the_client_knows_only_its_name() {
        let list = manifests();
        let [service, server, client] = [0, 1, 2].map(|i| &list["items"][i]);
        assert_eq!(service["spec"]["selector"], server["metadata"]["labels"]);
        assert_eq!(
            client["spec"]["containers"][0]["args"],
            json!(["fetch", "http://hello.default.svc.cluster.local/"])
        );
        assert_eq!(server["spec"]["containers"][0]["ports"][0]["hostPort"], 8080);
    }
}
