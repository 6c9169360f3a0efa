// SPDX-License-Identifier: Apache-2.0
//! The approver at work: lists requests, decides them, watches for more, and deletes tokens that are used up.
//!
//! What it has to remember is an annotation of the token's Secret: the digest of the one key that the token may get a
//! certificate for. It is written before the approval and only where nothing was changed meanwhile, so neither a restart
//! nor a second approver gives a second key a certificate. Secrets are read by an empty PATCH: the service account may
//! neither get nor list them, and the manifests' policy lets it patch tokens of one node alone.

use super::request::{self, Asked, Refusal};
use crate::cluster::bootstrap_token::{group, groups_of, path};
use crate::cluster::{Api, word};
use anyhow::{Context, Result};
use firstboot::kube::csr::{CSRS, SIGNER};
use firstboot::kube::error::{Error, Kind};
use firstboot::text::{timestamp, unix_seconds};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Annotation of a token's Secret: SHA-256 of the public key (DER SubjectPublicKeyInfo) that used it, hex.
pub const KEY: &str = "firstboot/public-key-sha256";
/// How long one list of requests is worked with before the next: so late is a used token deleted at the latest.
const ROUND: Duration = Duration::from_secs(10);
/// A device that has its certificate for so long has stored it: kubelet starts seconds later. Shorter than the hour after
/// which kube-controller-manager forgets issued requests (pkg/controller/certificates/cleaner).
const GRACE: Duration = Duration::from_secs(30 * 60);
/// Requests in one answer.
const PAGE: usize = 250;
/// Waits after failures, seconds.
const WAITS: [u64; 5] = [1, 2, 5, 10, 30];

/// Makes a connection; service accounts' tokens and users' credentials are renewed by that.
pub type Connect = Box<dyn Fn() -> Result<Api> + Send>;

/// Approves requests of tokens of one node.
pub struct Approver {
    connect: Connect,
    /// Tokens that were deleted, or found to be gone.
    spent: BTreeSet<String>,
}

impl Approver {
    /// An approver that has done nothing yet.
    pub fn new(connect: Connect) -> Self {
        Approver { connect, spent: BTreeSet::new() }
    }

    /// Works until the process is ended. After the first round failures are printed, and tried again.
    ///
    /// # Errors
    /// The first list fails: no connection, or no permission.
    pub fn run(&mut self) -> Result<()> {
        let api = (self.connect)()?;
        list(&api)?;
        say(&format!("approving for API server {}", api.host()));
        let mut failures = 0;
        loop {
            match self.round(ROUND) {
                Ok(()) => failures = 0,
                Err(error) => {
                    say(&format!("{error:#}; trying again"));
                    std::thread::sleep(Duration::from_secs(WAITS[failures]));
                    failures = (failures + 1).min(WAITS.len() - 1);
                }
            }
        }
    }

    /// One list, all that follows from it, and what comes in while `limit` passes.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub fn round(&mut self, limit: Duration) -> Result<()> {
        let started = std::time::Instant::now();
        let api = (self.connect)()?;
        let (csrs, mut since, now) = list(&api)?;
        for csr in csrs.iter().filter(|csr| request::is_open(csr)) {
            decide(&api, csr)?;
        }
        for csr in csrs.iter().filter(|csr| request::is_ours(csr)) {
            self.delete_used(&api, csr, now)?;
        }
        let selector = format!("spec.signerName={SIGNER}");
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let see = |kind: &str, csr: &Value| Ok((kind != "DELETED" && request::is_open(csr)).then(|| csr.clone()));
            let csr = match api.watch(CSRS, &selector, &since, left, see) {
                Ok(Some(csr)) => csr,
                Ok(None) => return Ok(()),
                // The server does not remember what happened since; the next list does.
                Err(Error { kind: Kind::Status(410), .. }) => return Ok(()),
                Err(error) => return Err(error).context("watch certificate signing requests"),
            };
            decide(&api, &csr)?;
            since = word(&csr["metadata"]["resourceVersion"]).to_owned();
        }
    }

    /// Deletes the token of a request whose certificate is in use, or was issued long ago.
    fn delete_used(&mut self, api: &Api, csr: &Value, now: SystemTime) -> Result<()> {
        let (Some(token), Some(node)) = (request::token(csr), request::node(csr)) else { return Ok(()) };
        if self.spent.contains(token) || !csr["status"]["certificate"].is_string() {
            return Ok(());
        }
        let asked = word(&csr["metadata"]["creationTimestamp"]);
        // Times of one clock in one form: as text they are in order.
        let old = *asked < *timestamp(unix_seconds(now).saturating_sub(GRACE.as_secs()));
        let why = match joined(api, &node, asked)? {
            true => format!("node {node} has joined with it"),
            false if old => format!("its certificate was issued for node {node} long ago"),
            false => return Ok(()),
        };
        let deleted = api.delete(&path(token)).with_context(|| format!("delete token {token}"))?;
        if deleted {
            say(&format!("deleted token {token}: {why}"));
        }
        self.spent.insert(token.to_owned());
        Ok(())
    }
}

/// Whether the node came to the cluster after the request was made: kubelet cannot register without a certificate, and
/// the device starts it when that is stored.
fn joined(api: &Api, name: &str, since: &str) -> Result<bool> {
    let Some(node) = node(api, name)? else { return Ok(false) };
    let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True");
    let ready = ready.is_some_and(|c| word(&c["lastTransitionTime"]) >= since);
    Ok(ready || word(&node["metadata"]["creationTimestamp"]) >= since)
}

fn node(api: &Api, name: &str) -> Result<Option<Value>> {
    match api.get(&format!("/api/v1/nodes/{name}")) {
        Ok(reply) => Ok(Some(reply.body)),
        Err(Error { kind: Kind::Status(404), .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("get node {name}")),
    }
}

/// All requests to the signer of kubelets' client certificates, the version of the list, and the server's clock.
fn list(api: &Api) -> Result<(Vec<Value>, String, SystemTime)> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!("{CSRS}?fieldSelector=spec.signerName%3D{SIGNER}&limit={PAGE}&continue={next}");
        let mut reply = api.get(&path).context("list certificate signing requests")?;
        let now = reply.date.unwrap_or_else(SystemTime::now);
        if let Value::Array(items) = reply.body["items"].take() {
            all.extend(items);
        }
        let metadata = &reply.body["metadata"];
        next = word(&metadata["continue"]).to_owned();
        if next.is_empty() {
            return Ok((all, word(&metadata["resourceVersion"]).to_owned(), now));
        }
    }
}

/// Approves or denies an open request.
fn decide(api: &Api, csr: &Value) -> Result<()> {
    let verdict = match request::judge(csr) {
        Ok(asked) => claim(api, &asked)?.map(|()| asked),
        Err(refusal) => Err(refusal),
    };
    let name = word(&csr["metadata"]["name"]);
    let (kind, reason, message) = match &verdict {
        Ok(Asked { token, node, .. }) => {
            ("Approved", "FirstbootApproved", format!("the first key of token {token}, for its node {node}"))
        }
        Err(Refusal { reason, message }) => ("Denied", *reason, message.clone()),
    };
    let mut decided = csr.clone();
    let now = timestamp(unix_seconds(SystemTime::now()));
    let condition = json!({
        "type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now,
    });
    decided["status"]["conditions"] = json!([condition]);
    match api.put(&format!("{CSRS}/{name}/approval"), &decided) {
        Ok(_) => say(&format!("{} {name}: {message}", kind.to_lowercase())),
        // Another approver was first, or it is gone; if it is still open it comes again.
        Err(Error { kind: Kind::Status(404 | 409), .. }) => {}
        Err(error) => return Err(error).with_context(|| format!("decide certificate signing request {name}")),
    }
    Ok(())
}

/// Makes the token the key's own, once and for all; it may be that already.
fn claim(api: &Api, asked: &Asked) -> Result<Result<(), Refusal>> {
    let Asked { token, node, key } = asked;
    let refused = |reason, message: String| Ok(Err(Refusal::new(reason, message)));
    loop {
        let secret = match api.patch(&path(token), &json!({})) {
            Ok(reply) => reply.body,
            Err(Error { kind: Kind::Status(404), .. }) => {
                let again = format!("imagebuild seed new --kubeconfig --node {node}");
                return refused("FirstbootTokenGone", format!("token {token} is used up or has ended: {again}"));
            }
            Err(error) => return Err(error).with_context(|| format!("read token {token}")),
        };
        if groups_of(&secret).as_deref() != Some(&*group(node)) {
            return refused("FirstbootNotItsNode", format!("token {token} is not for node {node} alone"));
        }
        match secret["metadata"]["annotations"][KEY].as_str() {
            Some(known) if known == key => return Ok(Ok(())),
            Some(_) => {
                let text = format!(
                    "token {token} was used with another key: a seed is for one device, once; make another one: imagebuild \
                     seed new --kubeconfig --node {node}"
                );
                return refused("FirstbootTokenUsed", text);
            }
            None => {}
        }
        // With the first key of this token: so the Node has another one.
        if self::node(api, node)?.is_some() {
            let text =
                format!("node {node} exists with another key; if this device replaces it: kubectl delete node {node}");
            return refused("FirstbootNodeExists", text);
        }
        let version = &secret["metadata"]["resourceVersion"];
        let patch = json!({ "metadata": { "resourceVersion": version, "annotations": { KEY: key } } });
        match api.patch(&path(token), &patch) {
            Ok(_) => return Ok(Ok(())),
            Err(Error { kind: Kind::Status(404 | 409), .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("keep the key of token {token}")),
        }
    }
}

/// One line on standard error.
fn say(text: &str) {
    eprintln!("approver: {text}");
}
