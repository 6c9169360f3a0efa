// SPDX-License-Identifier: Apache-2.0
//! What a seed will meet: the steps of a join up to the certificate request, one row each, for every API server of the
//! seed. For the build machine; each step is the device's own code.
//!
//! As on a device the token is sent only to a server that the seed's CA vouches for. Nothing is changed in the cluster.

use std::time::SystemTime;

use serde::Serialize;

use super::client::Client;
use super::cluster_config_maps::{cluster_configuration, configured};
use super::discovery::{self, Found};
use super::error::{Error, Kind};
use super::{config, join, runtime};
use crate::fault::{Code, Fault, Owner};
use crate::proxy::Via;
use crate::seed::{CaPin, Cluster, Endpoint, Trust};
use crate::text::rfc3339;

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The join will not fail here.
    Good,
    /// The join would fail here.
    Failed,
    /// It was not looked at, because of an earlier step or of what the seed leaves out.
    Skipped,
}

/// One step at one API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `host:port`, as the seed names it.
    pub server: String,
    /// Which step: one of [`CHECKS`].
    pub check: &'static str,
    /// What came of it.
    pub state: State,
    /// The fault that a device would report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Who must act on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// One line, without secrets.
    pub text: String,
}

/// The steps, in their order.
pub const CHECKS: [&str; 9] =
    ["reachable", "cluster-info", "token", "signature", "pin", "certificate", "expiry", "authentication", "version"];

/// What is looked at.
pub struct Survey<'a> {
    /// The seed's table.
    pub cluster: &'a Cluster,
    /// How the device reaches its API servers.
    pub via: &'a Via,
    /// Version of kubelet in the image, and the image's target; none leaves the version out.
    pub kubelet: Option<(&'a str, &'a str)>,
    /// This machine's clock.
    pub now: SystemTime,
}

impl Survey<'_> {
    /// Goes through all steps at every API server of the seed: 9 rows for each.
    ///
    /// # Errors
    /// This machine's, when no network work can be done at all.
    pub fn run(&self) -> Result<Vec<Row>, Fault> {
        runtime::run(async {
            let mut all = Vec::new();
            for at in &self.cluster.apiserver {
                let mut rows = Rows { server: at.to_string(), rows: Vec::new() };
                self.server(at, &mut rows).await;
                all.extend(rows.completed());
            }
            Ok(all)
        })
    }

    /// Goes on until a step fails on which the others depend.
    async fn server(&self, at: &Endpoint, rows: &mut Rows) -> Option<()> {
        let found = match &self.cluster.trust {
            Trust::Pins(pins) => self.by_pins(at, pins, rows).await?,
            Trust::Ca(pem) => self.by_ca(at, pem, rows).await?,
        };
        match (discovery::expired(self.cluster, found.cluster.time), self.cluster.token_expires) {
            (Some(why), _) => {
                let id = self.cluster.token.id();
                rows.failed::<()>("expiry", Error::answer(Code::TokenExpired, format!("join token \"{id}\": {why}")));
            }
            (None, Some(ends)) => rows.good("expiry", format!("the token ends at {}", rfc3339(ends))),
            (None, None) => rows.skipped("expiry", "the seed has no token-expires"),
        }
        self.with_token(&found, rows).await
    }

    /// Discovery by pins, as [`discovery::discover`] does it in one go.
    async fn by_pins(&self, at: &Endpoint, pins: &[CaPin], rows: &mut Rows) -> Option<Found> {
        let (cluster, via) = (self.cluster, self.via);
        let first = match discovery::unverified(via, at).await {
            Ok(reply) => reply,
            Err(error) => {
                let check = if error.kind == Kind::Transport { "reachable" } else { "cluster-info" };
                if check == "cluster-info" {
                    rows.good("reachable", "it answers");
                }
                return rows.failed(check, error);
            }
        };
        rows.good("reachable", "it answers");
        let text = rows.judged("cluster-info", discovery::kubeconfig_in(&first, at), "it is published")?;
        let config = match discovery::signed(cluster, at, &first) {
            Ok(Some(config)) => config,
            Ok(None) => return rows.failed("token", discovery::unsigned(cluster, via, at, pins, text).await),
            Err(error) => {
                rows.good("token", "cluster-info is signed for it");
                return rows.failed("signature", error);
            }
        };
        rows.good("token", "cluster-info is signed for it");
        rows.good("signature", "it holds by the token's secret");
        let (_, bundle) = rows.judged("pin", discovery::trusted(at, pins, config), "the cluster's CA is the seed's")?;
        let found = discovery::by_pinned(via, at, pins, &bundle, Some(config), self.now).await;
        rows.judged("certificate", found, CERTIFICATE)
    }

    /// Discovery by the CA in the seed.
    async fn by_ca(&self, at: &Endpoint, pem: &str, rows: &mut Rows) -> Option<Found> {
        let found = discovery::by_ca(self.via, at, pem).await;
        if found.as_ref().is_err_and(|error| error.kind == Kind::Transport && is_connection(error.code)) {
            return rows.judged("reachable", found, "");
        }
        rows.good("reachable", "it answers");
        for check in ["cluster-info", "token", "signature", "pin"] {
            rows.skipped(check, "the seed has ca-cert: cluster-info is not asked");
        }
        rows.judged("certificate", found, CERTIFICATE)
    }

    /// What the token may read, and whether kubelet fits.
    async fn with_token(&self, found: &Found, rows: &mut Rows) -> Option<()> {
        let read = configured(found, self.cluster).await;
        let (api, reply) = rows.judged("authentication", read, "the token may read kubeadm-config")?;
        let Some((kubelet, target)) = self.kubelet else {
            rows.skipped("version", "no image is named: --kubernetes-version says which kubelet it has");
            return None;
        };
        match self.skew(&api, &reply, kubelet, target).await {
            Ok(version) => rows.good("version", format!("kubelet {kubelet} fits the cluster, {version}")),
            Err(fault) => rows.failed("version", Error::answer(fault.code, fault.to_string()))?,
        }
        Some(())
    }

    /// The cluster's version, which this kubelet fits.
    async fn skew(
        &self,
        api: &Client,
        reply: &super::client::Reply,
        kubelet: &str,
        target: &str,
    ) -> Result<String, Fault> {
        let version = join::version(api, &cluster_configuration(reply)?).await?;
        config::check_skew(kubelet, &version, target)?;
        Ok(version.trim_start_matches('v').to_owned())
    }
}

const CERTIFICATE: &str = "it is of the seed's CA, covers the address and is valid by the server's clock";

/// Whether the fault is that no connection came about, rather than what was found at its other end.
fn is_connection(code: Code) -> bool {
    use Code::{Cluster, ConnectionCut, ConnectionRefused, NameNotResolved, Proxy, Unreachable};
    matches!(code, Cluster | ConnectionCut | ConnectionRefused | NameNotResolved | Proxy | Unreachable)
}

/// The rows of one server so far.
struct Rows {
    server: String,
    rows: Vec<Row>,
}

impl Rows {
    fn add(&mut self, check: &'static str, state: State, code: Option<Code>, text: String) {
        let owner = code.map(Code::owner);
        self.rows.push(Row { server: self.server.clone(), check, state, code, owner, text });
    }

    fn good(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Good, None, text.into());
    }

    fn skipped(&mut self, check: &'static str, why: &str) {
        self.add(check, State::Skipped, None, why.to_owned());
    }

    /// Gives nothing, for `return`.
    fn failed<T>(&mut self, check: &'static str, error: Error) -> Option<T> {
        self.add(check, State::Failed, Some(error.code), error.text);
        None
    }

    fn judged<T>(&mut self, check: &'static str, result: Result<T, Error>, good: &str) -> Option<T> {
        match result {
            Ok(found) => {
                self.good(check, good);
                Some(found)
            }
            Err(error) => self.failed(check, error),
        }
    }

    /// One row for each check; those that were not reached say why.
    fn completed(mut self) -> Vec<Row> {
        let stopped = self.rows.iter().find(|row| row.state == State::Failed).map(|row| row.check);
        for check in CHECKS {
            if !self.rows.iter().any(|row| row.check == check) {
                self.skipped(check, &format!("{} comes first", stopped.unwrap_or("an earlier step")));
            }
        }
        self.rows.sort_by_key(|row| CHECKS.iter().position(|check| *check == row.check));
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_one_row_in_order() {
        let mut rows = Rows { server: "a:1".into(), rows: Vec::new() };
        rows.good("reachable", "it answers");
        let nothing: Option<()> = rows.failed("pin", Error::answer(Code::PinMismatch, "no"));
        assert_eq!(nothing, None);
        let all = rows.completed();
        assert_eq!(all.iter().map(|row| row.check).collect::<Vec<_>>(), CHECKS);
        let pin = &all[4];
        assert_eq!((pin.state, pin.code, pin.owner), (State::Failed, Some(Code::PinMismatch), Some(Owner::Cluster)));
        assert_eq!((all[8].state, all[8].text.as_str()), (State::Skipped, "pin comes first"));
        let json = serde_json::to_value(pin).unwrap();
        let want = serde_json::json!({"server": "a:1", "check": "pin", "state": "failed", "code": "FB418",
            "owner": "cluster", "text": "no"});
        assert_eq!(json, want);
    }
}
