// SPDX-License-Identifier: Apache-2.0
//! What the cluster hears of a time without it: one Event of the Node, once an API server answers again.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::body::whole;
use crate::questions::rfc3339;
use crate::store::{Op, Store};
use crate::upstream::{Link, Servers};

/// A shorter time is not worth an Event, seconds.
const SHORTEST: u64 = 60;
/// Between two attempts to create the Event.
const AGAIN: Duration = Duration::from_secs(10);

/// When a time without API server began that is there since `since`, by this process's own look. One that has not seen an
/// API server goes by the last answer that was noted, before a reboot.
fn begin(connected: bool, contact: u64, since: u64) -> u64 {
    if connected || contact == 0 { since } else { contact.min(since) }
}

/// A length of time in its two largest units.
fn length(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn event(node: &str, from: u64, until: u64) -> Value {
    let (time, began) = (rfc3339(until), rfc3339(from));
    let length = length(until.saturating_sub(from));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{node}.firstbootreconnected.{from:x}"), "namespace": "default"},
        // kubelet and kubectl use a Node's name as its uid here.
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": "FirstbootReconnected",
        "message": format!("no API server answered this node for {length}, from {began} until {time}"),
        "type": "Warning",
        "source": {"component": "firstboot-cache", "host": node},
        "reportingComponent": "firstboot-cache",
        "reportingInstance": node,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

/// Watches over the state for ever, and reports each time without API server once it is over.
pub async fn report(node: &str, servers: &Servers, store: &Store) {
    let mut link = servers.link();
    let (mut noted, mut connected) = (store.outage(), false);
    loop {
        let state = *link.borrow_and_update();
        match state {
            Link::Disconnected(since) if noted == 0 => {
                noted = begin(connected, store.contact(), since);
                store.change(Op::Outage(noted)).await;
            }
            Link::Connected(until) if noted > 0 => {
                if until.saturating_sub(noted) < SHORTEST || create(servers, &event(node, noted, until)).await {
                    noted = 0;
                    store.change(Op::Outage(0)).await;
                } else {
                    // A state that changes meanwhile is looked at first.
                    let _ = tokio::time::timeout(AGAIN, link.changed()).await;
                    continue;
                }
            }
            _ => {}
        }
        connected |= matches!(state, Link::Connected(_));
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the Event is there, or will never be: a refusal is an answer.
async fn create(servers: &Servers, event: &Value) -> bool {
    let Ok(mut connection) = servers.connect(true, true).await else { return false };
    let uri = format!("https://{}/api/v1/namespaces/default/events", connection.server());
    let request = Request::post(uri).header(CONTENT_TYPE, "application/json");
    let Ok(request) = request.body(whole(Bytes::from(event.to_string()))) else { return true };
    match tokio::time::timeout(AGAIN, connection.send(request)).await {
        Ok(Ok(answer)) => {
            let status = answer.status();
            if !status.is_success() && status != StatusCode::CONFLICT {
                eprintln!("firstboot cache: create an Event: the API server answers {status}");
            }
            !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_began() {
        assert_eq!(begin(true, 100, 700), 700, "this process has seen it end");
        assert_eq!(begin(false, 100, 700), 100, "the device was off meanwhile: the last answer that is known");
        assert_eq!(begin(false, 0, 700), 700, "none ever answered");
        assert_eq!(begin(false, 900, 700), 700, "a clock that was set back");
    }

    #[test]
    fn what_it_says() {
        assert_eq!(length(59), "0 min 59 s");
        assert_eq!(length(3600 + 120 + 7), "1 h 2 min");
        assert_eq!(length(2 * 86_400 + 3 * 3600 + 59 * 60), "2 d 3 h");
        let event = event("edge-1", 1_795_365_108, 1_795_365_108 + 7500);
        assert_eq!(
            event["message"],
            "no API server answered this node for 2 h 5 min, from 2026-11-22T16:31:48Z until 2026-11-22T18:36:48Z"
        );
        assert_eq!(event["metadata"]["name"], "edge-1.firstbootreconnected.6b0318f4");
        assert_eq!(
            (&event["involvedObject"]["uid"], &event["reason"]),
            (&json!("edge-1"), &json!("FirstbootReconnected"))
        );
    }
}
