// SPDX-License-Identifier: Apache-2.0
//! Bootstrap tokens: made, and deleted again, as Secrets of kube-system (Kubernetes, "Authenticating with Bootstrap
//! Tokens"; kubeadm's `token create`).
//!
//! A token that is bound to a node is in one group of its own, [`group`], which no binding of kubeadm names. So
//! kube-controller-manager approves nothing for it by itself.

use super::{Api, not_permitted, word};
use crate::progress::warn;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::kube::error::{Error, Kind};
use firstboot::kube::kubeconfig;
use firstboot::secret::Secret;
use firstboot::seed::NodeName;
use firstboot::text::{timestamp, unix_seconds};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Secrets of kube-system.
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// Group of tokens that may join as any node: kubeadm's default.
const ANY_NODE: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Begin of the group of tokens that may join as one node.
const BOUND: &str = "system:bootstrappers:firstboot:";
/// Groups that every bootstrap token is in.
pub const COMMON: [&str; 2] = ["system:bootstrappers", "system:authenticated"];
/// Characters of a token (`\A([a-z0-9]{6})\.([a-z0-9]{16})\z`).
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Longest wait for the signature of cluster-info. kube-controller-manager makes it within a second, if it does at all.
const SIGNED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);

/// The group of the tokens of one node. A dot of the name becomes a colon, which no name has, so two names never share
/// a group; a group has no dot (`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`).
pub fn group(node: &str) -> String {
    format!("{BOUND}{}", node.replace('.', ":"))
}

/// The node that a group belongs to; none for other groups.
pub fn node_of(group: &str) -> Option<String> {
    group.strip_prefix(BOUND).map(|name| name.replace(':', "."))
}

/// What has to happen to `what` before a device with a token of one node joins: lines for a person.
pub fn approval(what: &str) -> String {
    format!(
        "{what}, which has to be approved by one of:\n  \
           the approver in the cluster:  imagebuild approver manifests --image NAME | kubectl apply -f -\n  \
           the approver on this machine: imagebuild approver run --kubeconfig\n  \
           yourself, once for each node: kubectl certificate approve NAME, with the name that the device shows"
    )
}

/// Path of a token's Secret.
pub fn path(id: &str) -> String {
    format!("{SECRETS}/bootstrap-token-{id}")
}

/// The literal name of one node.
///
/// # Errors
/// It is a template, or no node name.
pub fn node_name(text: &str) -> Result<String, String> {
    let name = NodeName::parse(text)?;
    name.render(|_| None).map_err(|_| "expected the name of one node, without braces".to_owned())
}

/// A duration as Go writes it, from a minute to a year: `2h`, `90m`, `1h30m`.
///
/// # Errors
/// Says what was expected.
pub fn ttl(text: &str) -> Result<Duration, String> {
    let expected = || "expected hours, minutes or seconds, as in 2h or 1h30m".to_owned();
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
        let number: u64 = rest[..digits].parse().map_err(|_| expected())?;
        let unit = match rest.as_bytes()[digits] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(expected()),
        };
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(expected)?;
        rest = &rest[digits + 1..];
    }
    match seconds {
        60..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a time from 1m to 8760h: a token of a seed has to end".to_owned()),
    }
}

/// What a seed has to know of a cluster.
#[derive(Debug)]
pub struct Facts {
    /// CA bundle, PEM.
    pub ca_pem: String,
    /// `https://HOST:PORT[/PATH]`.
    pub server: String,
    /// The cluster's clock.
    pub now: SystemTime,
    /// Whether cluster-info is published, without which no device can find the cluster by a hash of its CA.
    pub published: bool,
}

/// Reads cluster-info; where there is none, or it may not be read, the kubeconfig's own CA and server count.
///
/// # Errors
/// No answer, or a cluster-info that cannot be used.
pub fn facts(api: &Api, ca_pem: &str, server: &str) -> Result<Facts> {
    let now = SystemTime::now();
    let reply = match api.get(CLUSTER_INFO) {
        Ok(reply) => reply,
        Err(Error { kind: Kind::Status(403 | 404), .. }) => {
            let (ca_pem, server) = (ca_pem.to_owned(), server.to_owned());
            return Ok(Facts { ca_pem, server, now, published: false });
        }
        Err(error) => return Err(not_permitted(error, "get", "ConfigMap cluster-info", "in kube-public", "")),
    };
    let config = reply.body["data"]["kubeconfig"].as_str().context("read cluster-info: it holds no kubeconfig")?;
    let info = kubeconfig::read(config).map_err(|why| anyhow!("read cluster-info: {why}"))?;
    let ca_pem = kubeconfig::ca_certificates(&info.ca_pem).context("read cluster-info: its CA cannot be read")?;
    Ok(Facts { ca_pem, server: info.server, now: reply.date.unwrap_or(now), published: true })
}

/// A token that was made and is deleted again when this is dropped, unless it is [kept](Created::keep).
pub struct Created<'a> {
    api: &'a Api,
    /// The public half.
    pub id: String,
    secret: Secret<String>,
    kept: bool,
}

impl Created<'_> {
    /// `ID.SECRET`.
    pub fn token(&self) -> Zeroizing<String> {
        Zeroizing::new([self.id.as_str(), ".", self.secret.expose()].concat())
    }

    /// The seed with it is written: it stays.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Waits until cluster-info is signed for it; whether it is.
    ///
    /// # Errors
    /// cluster-info cannot be read.
    pub fn is_signed(&self) -> Result<bool> {
        let key = format!("jws-kubeconfig-{}", self.id);
        let started = std::time::Instant::now();
        loop {
            if self.api.get(CLUSTER_INFO)?.body["data"].get(&key).is_some() {
                return Ok(true);
            }
            if started.elapsed() >= SIGNED {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.api.delete(&path(&self.id))
        {
            let id = &self.id;
            warn(&format!("delete token {id}: {error}; mend it by: kubeadm token delete {id}"));
        }
    }
}

/// Makes a token that ends at `expires`: for `node` alone, or for any node.
///
/// # Errors
/// The user may not, or the API server does not answer.
pub fn create<'a>(api: &'a Api, node: Option<&str>, expires: SystemTime) -> Result<Created<'a>> {
    let groups = node.map_or(ANY_NODE.to_owned(), group);
    let what = node.map_or("for any node".to_owned(), |node| format!("for node {node} alone"));
    // A second id is only needed if the first one is taken, one in two billion for each token that there is.
    for _ in 0..3 {
        let (id, secret) = (random(6)?, Secret::new(random(16)?));
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "bootstrap.kubernetes.io/token",
            "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
            "stringData": {
                "token-id": id,
                "token-secret": secret.expose(),
                "expiration": timestamp(unix_seconds(expires)),
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": groups,
                "description": format!("made by imagebuild seed new, {what}"),
            },
        });
        match api.post(SECRETS, &object) {
            Ok(_) => return Ok(Created { api, id, secret, kept: false }),
            Err(Error { kind: Kind::Status(409), .. }) => {}
            Err(error) => {
                let mend = "kubectl -n kube-system create role firstboot-seeds --verb=create,delete \
                            --resource=secrets, and bind the user to it";
                return Err(not_permitted(error, "create", "secrets", "in namespace kube-system", mend));
            }
        }
    }
    bail!("create a bootstrap token in namespace kube-system: three random ids are taken; try again")
}

/// `length` characters by the system's random generator, each as likely as any other.
fn random(length: usize) -> Result<String> {
    let (generator, mut out) = (SystemRandom::new(), String::with_capacity(length));
    while out.len() < length {
        let mut bytes = Zeroizing::new([0; 32]);
        let filled = generator.fill(bytes.as_mut_slice());
        filled.map_err(|_| anyhow!("make a token: the system gives no random numbers"))?;
        // 252 is the largest multiple of 36 in a byte.
        let fair = bytes.iter().filter(|byte| **byte < 252).map(|byte| ALPHABET[usize::from(*byte) % 36]);
        out.extend(fair.take(length - out.len()).map(char::from));
    }
    Ok(out)
}

/// The extra groups in a token's Secret.
pub fn groups_of(secret: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(word(&secret["data"]["auth-extra-groups"])).ok()?).ok()
}

/// Checks that the cluster keeps a token of `node` to that node; gives what the administrator should know.
///
/// # Errors
/// The cluster approves any name for such a token.
pub fn check_binding(api: &Api, node: &str) -> Result<Vec<String>> {
    let may = |subresource: &str| -> Result<Option<bool>> {
        let mut attributes =
            json!({ "verb": "create", "group": "certificates.k8s.io", "resource": "certificatesigningrequests" });
        if !subresource.is_empty() {
            attributes["subresource"] = json!(subresource);
        }
        let mut groups = vec![group(node)];
        groups.extend(COMMON.map(str::to_owned));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": { "user": "system:bootstrap:000000", "groups": groups, "resourceAttributes": attributes },
        });
        match api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review) {
            Ok(reply) => Ok(reply.body["status"]["allowed"].as_bool()),
            Err(Error { kind: Kind::Status(403), .. }) => Ok(None),
            Err(error) => Err(error).context("ask what a token of one node may do"),
        }
    };
    // What kube-controller-manager asks before it approves (pkg/controller/certificates/approver/sarapprove.go).
    let any_name = may("nodeclient")?;
    ensure!(
        any_name != Some(true),
        "bind a token to node {node}: this cluster approves any node's name for group system:bootstrappers; delete the \
         ClusterRoleBinding of system:certificates.k8s.io:certificatesigningrequests:nodeclient to that group"
    );
    let mut warnings = Vec::new();
    if any_name.is_none() {
        warnings.push(
            "whether the cluster keeps the token to its node was not checked: the user of this kubeconfig may \
                       not create subjectaccessreviews"
                .to_owned(),
        );
    }
    if may("")? == Some(false) {
        warnings.push(
            "a token of one node may not join yet: imagebuild approver manifests | kubectl apply -f -".to_owned(),
        );
    }
    Ok(warnings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use firstboot::seed::JoinToken;

    #[test]
    fn two_names_never_share_a_group() {
        let names =
            ["a", "a-b", "a.b", "a--b", "a-.b", "shop-12.example.com", "shop-12-example.com", "shop-12.example-com"];
        let mut groups: Vec<String> = names.iter().map(|name| group(name)).collect();
        for (name, group) in names.iter().zip(&groups) {
            assert_eq!(node_of(group).as_deref(), Some(*name));
            let rest = group.strip_prefix("system:bootstrappers:").unwrap();
            assert!(
                rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-:".contains(&b)),
                "{group}"
            );
            assert!(rest.ends_with(|c: char| c.is_ascii_alphanumeric()) && rest.len() <= 256, "{group}");
        }
        groups.sort();
        groups.dedup();
        assert_eq!(groups.len(), names.len());
        assert_eq!(node_of("system:bootstrappers:kubeadm:default-node-token"), None);
    }

    #[test]
    fn names_of_one_node() {
        assert_eq!(node_name("Shop-12.example.com").as_deref(), Ok("shop-12.example.com"));
        assert_eq!(node_name("edge-{serial}").unwrap_err(), "expected the name of one node, without braces");
        assert_eq!(node_name("a_b").unwrap_err(), "expected a node name: at most 63 characters a-z, 0-9, - and .");
    }

    #[test]
    fn lives_of_tokens() {
        let seconds = |text: &str| ttl(text).map(|ttl| ttl.as_secs());
        assert_eq!([seconds("2h"), seconds("1h30m"), seconds("90s")], [Ok(7200), Ok(5400), Ok(90)]);
        for bad in ["2", "h", "2d", "-2h", "1.5h", "2h ", "99999999999999999999h"] {
            assert_eq!(ttl(bad).unwrap_err(), "expected hours, minutes or seconds, as in 2h or 1h30m", "{bad}");
        }
        for bad in ["", "0s", "59s", "8761h"] {
            assert!(ttl(bad).unwrap_err().starts_with("expected a time from 1m to 8760h"), "{bad}");
        }
    }

    #[test]
    fn random_tokens_are_tokens_and_differ() {
        let one = || format!("{}.{}", random(6).unwrap(), random(16).unwrap());
        let all: std::collections::BTreeSet<String> = (0..500).map(|_| one()).collect();
        assert_eq!(all.len(), 500);
        assert!(all.iter().all(|token| JoinToken::parse(token).is_ok()));
        // Every character comes up: 11,000 of them miss one of 36 with a chance below 1e-130.
        let text: String = all.into_iter().collect();
        assert!(ALPHABET.iter().all(|c| text.contains(char::from(*c))));
    }
}
