// SPDX-License-Identifier: Apache-2.0
//! The members of the cluster's etcd, asked by its JSON gateway (service Cluster of etcdserverpb/rpc.proto): who they are,
//! and that this device is one of them no longer.
//!
//! `kubeadm reset` finds a member by the static pods of a device that is whole, and takes a removal that failed for a
//! warning. A member that stays counts: of two, the other one has no quorum any more.

use super::address::with_links;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::kube::client::Client;
use crate::kube::error::Error;
use crate::kube::node::{host_of, identified};
use crate::kube::runtime;
use crate::paths::CLUSTER_PKI;
use crate::proxy::Via;
use crate::text::printable_line;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// Port of etcd for clients, on every control plane.
const PORT: u16 = 2379;
/// Clients' certificates that kubeadm makes: one is enough, and a power cut may have torn one.
const CLIENTS: [&str; 2] = ["healthcheck-client", "peer"];

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Member {
    /// A number of 64 bits, as text.
    #[serde(rename = "ID")]
    id: String,
    /// Empty until it has started for the first time.
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peers: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    clients: Vec<String>,
    #[serde(default, rename = "isLearner")]
    learner: bool,
}

impl Member {
    /// Whether one of these machine's addresses is its own.
    fn is_at(&self, own: &BTreeSet<IpAddr>) -> bool {
        self.peers.iter().any(|url| host_of(url).0.parse().is_ok_and(|address| own.contains(&address)))
    }

    /// Whether it votes, once it runs.
    fn votes(&self) -> bool {
        !self.learner && !self.name.is_empty()
    }
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Member>,
}

/// How many other members vote. An answer means that there is a quorum. `servers`: where other API servers are known to be,
/// each of which has a member beside it.
///
/// # Errors
/// The cluster's: none answers. The host's: this device has no certificate for etcd.
pub fn other_voters(host: &Host, servers: &BTreeSet<IpAddr>) -> Result<usize, Fault> {
    let etcd = Etcd::open(host, servers)?;
    let all = etcd.members()?;
    Ok(all.iter().filter(|member| member.votes() && !member.is_at(&etcd.own)).count())
}

/// Takes this device out of etcd, by another member; nothing where it is in none. It is out of it when this is done.
///
/// # Errors
/// The cluster's: no other member answers, or none has a quorum. The host's: this device has no certificate for etcd.
pub fn leave(host: &Host, servers: &BTreeSet<IpAddr>) -> Result<(), Fault> {
    let etcd = Etcd::open(host, servers)?;
    let all = etcd.members()?;
    let Some(member) = all.iter().find(|member| member.is_at(&etcd.own)) else { return Ok(()) };
    let others: Vec<&str> = all
        .iter()
        .filter(|other| other.votes() && other.id != member.id)
        .filter_map(|other| other.clients.first().map(String::as_str))
        .collect();
    let mut why = Fault::new(Code::ControlPlane, "leave etcd: this device is its only member");
    for server in others {
        let removed = etcd.ask(server, "remove", &json!({ "ID": member.id }));
        // It may be gone all the same: the answer was lost, or an earlier try removed it.
        match etcd.members_by(server) {
            Ok(all) if !all.iter().any(|other| other.id == member.id) => return Ok(()),
            Ok(_) => {
                why = removed.err().unwrap_or_else(|| Fault::new(Code::Cluster, "leave etcd: it is still a member"))
            }
            Err(fault) => why = fault,
        }
    }
    Err(why)
}

/// A client of etcd.
struct Etcd {
    client: Client,
    runtime: Runtime,
    /// Addresses of this device.
    own: BTreeSet<IpAddr>,
    /// Members that may answer, this device's own first.
    servers: Vec<String>,
}

impl Etcd {
    fn open(host: &Host, servers: &BTreeSet<IpAddr>) -> Result<Self, Fault> {
        let own = addresses(host).owned_by(Owner::Host)?;
        let there = servers.iter().copied().filter(|address| !own.contains(address));
        let servers: Vec<String> = [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(there).map(server).collect();
        let client = client(host, &servers[0]).coded(Code::NodeCredential)?;
        Ok(Etcd { client, runtime: runtime::new()?, own, servers })
    }

    /// All members, by the first server that answers.
    fn members(&self) -> Result<Vec<Member>, Fault> {
        let mut why = None;
        for server in &self.servers {
            match self.members_by(server) {
                Ok(all) => return Ok(all),
                // The last one is another device's where there is one: that is what an administrator can look after.
                Err(fault) => why = Some(fault),
            }
        }
        Err(why.unwrap_or_else(|| Fault::new(Code::Cluster, "ask etcd for its members: there is none")))
    }

    fn members_by(&self, server: &str) -> Result<Vec<Member>, Fault> {
        // Without that a member answers by itself, which may know of less than the others.
        let body = self.ask(server, "list", &json!({ "linearizable": true }))?;
        let all: Members = serde_json::from_value(body)
            .map_err(|_| Fault::new(Code::Cluster, format!("read the members that etcd {server} names")))?;
        Ok(all.members)
    }

    fn ask(&self, server: &str, what: &str, question: &Value) -> Result<Value, Fault> {
        let client = self.client.at(server);
        let path = format!("/v3/cluster/member/{what}");
        // Whatever etcd answers, an administrator of the cluster is the one who can look after it.
        let fault = |text: String| Fault::new(Code::Cluster, format!("ask etcd {}: {text}", client.host()));
        let failed = |error: Error| fault(error.text.replace("API server", "etcd"));
        let (status, answer) =
            runtime::block_on(&self.runtime, async { client.ask(&path, question).await.map_err(failed) })?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match status {
            200 => Ok(answer),
            // A status of gRPC, as JSON (google.rpc.Status).
            _ => Err(fault(format!(
                "it answers {status}: {}",
                printable_line(answer["message"].as_str().unwrap_or("?"))
            ))),
        }
    }
}

fn server(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PORT))
}

/// A client with this device's certificate.
fn client(host: &Host, server: &str) -> Result<Client> {
    let text = |name: &str| -> Result<Zeroizing<String>> {
        let path = format!("{CLUSTER_PKI}/etcd/{name}");
        let text = host.read_utf8(&path)?.with_context(|| format!("find {path}"))?;
        Ok(Zeroizing::new(text))
    };
    let ca = text("ca.crt")?;
    let mut why = None;
    for name in CLIENTS {
        let pair = || Ok([text(&format!("{name}.crt"))?, text(&format!("{name}.key"))?]);
        let made = pair().and_then(|[certificate, key]| {
            let pem = Zeroizing::new([certificate.as_str(), key.as_str()].concat());
            let made = identified(&Via::default(), server, &ca, &pem);
            made.map_err(|why| anyhow::anyhow!("use {CLUSTER_PKI}/etcd/{name}.crt: {why}"))
        });
        match made {
            Ok(client) => return Ok(client),
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| anyhow::anyhow!("find a certificate in {CLUSTER_PKI}/etcd")))
}

/// All addresses of this device.
fn addresses(host: &Host) -> Result<BTreeSet<IpAddr>> {
    let shown = host.run(&["ip", "-json", "address", "show"])?;
    Ok(with_links(&shown).into_iter().map(|(_, net)| net.addr()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd 3.6 answers: a voter, a learner that has not started, and a voter that has not.
    const ANSWER: &str = r#"{"header":{"cluster_id":"1","member_id":"2"},"members":[
        {"ID":"10276657743932975437","name":"a","peerURLs":["https://192.0.2.1:2380"],"clientURLs":["https://192.0.2.1:2379"]},
        {"ID":"2","peerURLs":["https://[fd00::2]:2380"],"isLearner":true},
        {"ID":"3","peerURLs":["https://192.0.2.3:2380"]}]}"#;

    #[test]
    fn members_by_their_peers_addresses() {
        let all: Members = serde_json::from_str(ANSWER).unwrap();
        let votes: Vec<bool> = all.members.iter().map(Member::votes).collect();
        assert_eq!(votes, [true, false, false]);
        let at = |address: &str| {
            let own = BTreeSet::from([address.parse().unwrap()]);
            all.members.iter().find(|member| member.is_at(&own)).map(|member| member.id.as_str())
        };
        assert_eq!(at("192.0.2.1"), Some("10276657743932975437"));
        assert_eq!((at("fd00::2"), at("192.0.2.3"), at("192.0.2.4")), (Some("2"), Some("3"), None));
        let none: Members = serde_json::from_str("{}").unwrap();
        assert!(none.members.is_empty());
    }
}
