// SPDX-License-Identifier: Apache-2.0
//! Events of the own Node (core/v1), as `kubectl describe node` and monitoring show them. Nodes may create
//! them (ClusterRole `system:node`). Pure but for [`NodeClient::create_event`].

use serde_json::{Value, json};

use super::node::NodeClient;
use crate::fault::Fault;
use crate::text::timestamp;

/// Longest message, bytes: the limit of events.k8s.io, which the cluster shows the same objects by.
const MAX_MESSAGE: usize = 1024;
const NAMESPACE: &str = "default";

/// Something about this node that the cluster should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// One word, as `FirstbootJoined`.
    pub reason: &'static str,
    /// Whether a person has to act.
    pub warning: bool,
    /// For people, one line.
    pub message: String,
    /// Tells this occasion from others of the same reason: telling it twice makes one Event. Hexadecimal digits.
    pub occasion: String,
    /// When, seconds since 1970 UTC.
    pub time: u64,
}

impl Event {
    /// The object that is created for `node`.
    fn object(&self, node: &str) -> Value {
        let time = timestamp(self.time);
        let mut end = self.message.len().min(MAX_MESSAGE);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": format!("{node}.{}.{}", self.reason.to_lowercase(), self.occasion),
                "namespace": NAMESPACE,
            },
            // kubelet and kubectl use a Node's name as its uid here.
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
            "reason": self.reason,
            "message": &self.message[..end],
            "type": if self.warning { "Warning" } else { "Normal" },
            "source": {"component": "firstboot", "host": node},
            "reportingComponent": "firstboot",
            "reportingInstance": node,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        })
    }
}

impl NodeClient {
    /// Creates the Event, unless it is there already.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn create_event(&self, event: &Event) -> Result<(), Fault> {
        self.create(&format!("/api/v1/namespaces/{NAMESPACE}/events"), &event.object(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire_tests::{Ca, http, ok_json, serve};
    use super::*;

    fn event() -> Event {
        Event {
            reason: "FirstbootJoined",
            warning: false,
            message: "é".repeat(600),
            occasion: "0a".into(),
            time: 1_795_392_000,
        }
    }

    #[test]
    fn an_event_as_kubectl_finds_it() {
        let object = event().object("edge-1");
        assert_eq!(object["metadata"], json!({"name": "edge-1.firstbootjoined.0a", "namespace": "default"}));
        assert_eq!((&object["involvedObject"]["uid"], &object["type"]), (&json!("edge-1"), &json!("Normal")));
        assert_eq!(object["lastTimestamp"], "2026-11-23T00:00:00Z");
        assert_eq!(object["message"].as_str().unwrap().len(), MAX_MESSAGE);
        assert_eq!(Event { warning: true, ..event() }.object("n")["type"], "Warning");
    }

    #[test]
    fn one_that_is_there_is_as_good_and_a_refusal_is_told() {
        let ca = Ca::new();
        let (certificate, key) = ca.leaf("edge-1", 2020, 2090);
        let pem = rcgen_pem(&certificate) + &key.serialize_pem();
        let tell = |reply: String| {
            let at = serve(ca.leaf("127.0.0.1", 2020, 2090), reply);
            NodeClient::new("edge-1", &format!("https://{at}"), &ca.pem, &pem).unwrap().create_event(&event())
        };
        let status = |code: u16, reason: &str| {
            let body =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "code": code});
            http(&format!("{code} {reason}\r\nContent-Type: application/json"), &body.to_string())
        };
        tell(ok_json("{}")).unwrap();
        tell(status(409, "AlreadyExists")).unwrap();
        let text = tell(status(403, "Forbidden")).unwrap_err().to_string();
        assert!(text.contains("403") && text.contains("Forbidden"), "{text}");
    }

    fn rcgen_pem(der: &[u8]) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }
}
