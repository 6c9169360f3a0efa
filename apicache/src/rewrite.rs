// SPDX-License-Identifier: Apache-2.0
//! What kubelet reads in another form than the cluster has it: the ConfigMaps by which pods find and trust the API server.
//!
//! Pods of this node are to trust the cache's certificate beside the cluster's CA. kube-proxy, and flannel in a cluster that a
//! device has created, are to come by the address of Service `kubernetes`, as all other pods do: that address is the cache's
//! on this node. In the cluster and in the store nothing changes. The fields of a ConfigMap: `k8s.io/api/core/v1/generated.proto`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::list::write_list;
use crate::object::{self, Change, Encoding, Frames};
use crate::request::Target;
use crate::wire;

/// ConfigMaps with a kubeconfig that leads to the API server by its own address: namespace, name, key. kube-proxy's is made by
/// kubeadm (`phases/addons/proxy/manifests.go`), flannel's by firstboot.
const KUBECONFIGS: [(&str, &str, &str); 2] =
    [("kube-system", "kube-proxy", "kubeconfig.conf"), ("kube-flannel", "kube-flannel-cfg", "kubeconfig.conf")];
/// Where those find their CA: what pods trust.
const POD_CA: &str = "certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// The port of Service `kubernetes`.
pub const SERVICE_PORT: u16 = 443;
/// Largest answer that is looked at, bytes: a ConfigMap is at most 1 MiB.
const LARGEST: usize = 4 << 20;

/// The changes, for one cache.
pub struct Rewrite {
    /// Its certificate, PEM.
    certificate: String,
    /// Service `kubernetes`, as URL.
    server: String,
}

impl Rewrite {
    /// For a cache with this certificate, PEM, that answers for Service `kubernetes` at this address.
    pub fn new(certificate: &str, service: IpAddr) -> Self {
        let server = format!("https://{}", SocketAddr::new(service, SERVICE_PORT));
        Rewrite { certificate: certificate.to_owned(), server }
    }

    /// Whether answers to a request for this are changed.
    pub fn concerns(target: &Target) -> bool {
        let (Target::Collection(place) | Target::Object(place, _)) = target else { return false };
        place.group == "/api/v1" && place.resource == "configmaps"
    }

    /// Another value of a key of a ConfigMap; none where it stays.
    fn value(&self, namespace: &str, name: &str, key: &str, value: &str) -> Option<String> {
        match (namespace, name, key) {
            (_, "kube-root-ca.crt", "ca.crt") if !value.contains(self.certificate.trim()) => {
                Some(format!("{}\n{}", value.trim_end(), self.certificate))
            }
            place if KUBECONFIGS.contains(&place) && value.contains(POD_CA) => {
                let line = |line: &str| match line.split_once("server: ") {
                    Some((before, _)) if before.trim().is_empty() => format!("{before}server: {}\n", self.server),
                    _ => format!("{line}\n"),
                };
                Some(value.lines().map(line).collect())
            }
            _ => None,
        }
    }

    /// A kept ConfigMap in its other form; none where it stays.
    pub fn object(&self, encoding: Encoding, kept: &[u8]) -> Option<Vec<u8>> {
        match encoding {
            Encoding::Json => self.json(kept),
            Encoding::Protobuf => self.protobuf(kept),
        }
    }

    fn json(&self, kept: &[u8]) -> Option<Vec<u8>> {
        let mut object: serde_json::Value = serde_json::from_slice(kept).ok()?;
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let mut changed = false;
        for (key, value) in object["data"].as_object_mut()? {
            if let Some(new) = value.as_str().and_then(|value| self.value(&namespace, &name, key, value)) {
                *value = new.into();
                changed = true;
            }
        }
        changed.then(|| serde_json::to_vec(&object).ok())?
    }

    fn protobuf(&self, kept: &[u8]) -> Option<Vec<u8>> {
        const DATA: u64 = 2;
        let meta = wire::field(kept, 1)?;
        let (name, namespace) = (wire::text(meta, 1), wire::text(meta, 3));
        let (mut whole, mut changed) = (Vec::with_capacity(kept.len() + 2048), false);
        for (number, value) in wire::fields(kept)? {
            match value {
                wire::Value::Number(value) => wire::push_varint(&mut whole, number, value),
                wire::Value::Bytes(bytes) => {
                    let key = wire::text(bytes, 1);
                    let new =
                        (number == DATA).then(|| self.value(namespace, name, key, wire::text(bytes, 2))).flatten();
                    match new {
                        Some(new) => {
                            let mut entry = Vec::new();
                            wire::push(&mut entry, 1, key.as_bytes());
                            wire::push(&mut entry, 2, new.as_bytes());
                            wire::push(&mut whole, number, &entry);
                            changed = true;
                        }
                        None => wire::push(&mut whole, number, bytes),
                    }
                }
                // A ConfigMap has none.
                wire::Value::Fixed => return None,
            }
        }
        changed.then_some(whole)
    }

    /// The body of an answer to a GET: one ConfigMap, or a list of them. None where it stays.
    pub fn body(&self, encoding: Encoding, body: &[u8]) -> Option<Vec<u8>> {
        if let Some(list) = object::read_list(encoding, body) {
            // What is written anew has no next page.
            let all = list.next.is_empty().then_some(list.items)?;
            let mut changed = false;
            let items = all.into_iter().map(|item| match self.object(encoding, &item.bytes) {
                Some(new) => {
                    changed = true;
                    new
                }
                None => item.bytes.into_owned(),
            });
            let items: Vec<Vec<u8>> = items.collect();
            return changed.then(|| write_list(encoding, &list.kind, list.version, &items));
        }
        let (kind, object) = object::read(encoding, body)?;
        Some(object::write(encoding, &kind, &self.object(encoding, &object.bytes)?))
    }

    /// An event of a watch, with what frames it.
    fn event(&self, encoding: Encoding, frame: &[u8]) -> Vec<u8> {
        let new = object::read_event(encoding, frame).and_then(|event| {
            let word = match event.change {
                Change::Added => "ADDED",
                Change::Modified => "MODIFIED",
                _ => return None,
            };
            Some(object::write_event(encoding, word, &event.kind, &self.object(encoding, &event.object.bytes)?))
        });
        new.unwrap_or_else(|| object::framed(encoding, frame))
    }
}

/// An answer on its way to kubelet.
pub struct Passing {
    rewrite: Arc<Rewrite>,
    encoding: Encoding,
    frames: Option<Frames>,
    whole: Vec<u8>,
}

impl Passing {
    /// Of a watch, or of a GET that is answered at once.
    pub fn new(rewrite: Arc<Rewrite>, encoding: Encoding, watch: bool) -> Self {
        Passing { rewrite, encoding, frames: watch.then(|| Frames::new(encoding)), whole: Vec::new() }
    }

    /// Takes bytes that have come; returns those that go on. None where the answer is too large.
    pub fn bytes(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut on = Vec::new();
        match &mut self.frames {
            Some(frames) => {
                frames.push(bytes, |frame| on.extend(self.rewrite.event(self.encoding, frame)))?;
            }
            None => {
                self.whole.extend_from_slice(bytes);
                (self.whole.len() <= LARGEST).then_some(())?;
            }
        }
        Some(on)
    }

    /// What is left to go on when the answer has come to its end.
    pub fn end(self) -> Vec<u8> {
        self.rewrite.body(self.encoding, &self.whole).unwrap_or(self.whole)
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
