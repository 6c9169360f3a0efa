// SPDX-License-Identifier: Apache-2.0
//! Events about this node. Best effort: a refusal is reported once and stops nothing.

use super::client::node_client;
use crate::host::Host;
use crate::kube::event::Event;
use crate::text::unix_seconds;

/// Creates an Event, or says why there is none.
pub(crate) fn create_event(host: &Host, reason: &'static str, warning: bool, message: String, occasion: &str) {
    let occasion = occasion.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let event = Event { reason, warning, message, occasion, time: unix_seconds(host.now()) };
    if let Err(fault) = node_client(host).and_then(|client| client.create_event(&event)) {
        host.sys().say(&format!("firstboot: no Event for the cluster ({}): {fault}", fault.tag()));
    }
}
