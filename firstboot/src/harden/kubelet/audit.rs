// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings, read back from the running process: from its `/configz` where the cluster lets this node read
//! that, else from its command line and the files that it read; and from how it behaves on its ports.

use super::effective::Running;
use super::fields::{FIELDS, shown};
use crate::finding::{Finding, State};
use crate::harden::overrides::AuditContext;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::config::CA_FILE;
use crate::kube::files::PKI;
use crate::kube::kubeconfig::CURRENT_PEM;
use crate::kube::kubelet::Kubelet;
use crate::node::paths::{DROP_IN, KUBELET_DROP_INS, SEED_DROP_IN};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// kubelet runs only where this is.
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Where kubelet would answer anybody.
const READ_ONLY: u16 = 10255;

/// What kubelet answered.
struct Asked {
    /// `/configz` as this node: a document of KubeletConfiguration, or the status of a refusal.
    configz: Result<Result<Value, u16>>,
    /// Status of an answer without a credential.
    anonymous: Result<u16>,
    /// Whether TLS 1.2 is spoken.
    tls12: Result<bool>,
    /// Whether something listens at [`READ_ONLY`].
    read_only: bool,
}

/// All findings; none before this device has a kubelet.
pub(crate) fn audit(ground: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = ground.host;
    if host.read(CONFIG)?.is_none() {
        return Ok(Vec::new());
    }
    let Some(running) = Running::read(host)? else {
        let (found, why) = (Some("no".to_owned()), "only a kubelet that runs can be asked");
        return Ok(vec![Finding::compare("kubelet/running".to_owned(), "yes", None, found, why)]);
    };
    Ok(findings(ground, &running, &ask(host)))
}

fn ask(host: &Host) -> Asked {
    let kubelet = own(host);
    let kubelet = || kubelet.as_ref().map_err(|error| anyhow!("{error:#}"));
    let configz = || -> Result<Result<Value, u16>> {
        let pem = host.read_text(CURRENT_PEM)?.with_context(|| format!("find {CURRENT_PEM}"))?;
        let answer = kubelet()?.get_as(&pem, "/configz")?;
        if answer.status != 200 {
            return Ok(Err(answer.status));
        }
        let mut document: Value = serde_json::from_slice(&answer.body).context("read what /configz says")?;
        Ok(Ok(document["kubeletconfig"].take()))
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, READ_ONLY));
    Asked {
        configz: configz(),
        anonymous: kubelet().and_then(|k| Ok(k.get("/configz")?.status)),
        tls12: kubelet().and_then(Kubelet::speaks_tls12),
        read_only: TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok(),
    }
}

/// This node's kubelet, by the certificate that it serves with: its own, or one that the cluster signed.
fn own(host: &Host) -> Result<Kubelet> {
    let signed = host.read(&format!("{PKI}/kubelet-server-current.pem"))?.is_some();
    let path = if signed { CA_FILE.to_owned() } else { format!("{PKI}/kubelet.crt") };
    let trusted = host.read_text(&path)?.with_context(|| format!("find {path}"))?;
    Kubelet::new(host.journal().fact(Fact::Node).unwrap_or_default(), &trusted)
}

fn findings(ground: &AuditContext<'_>, running: &Running, asked: &Asked) -> Vec<Finding> {
    let mut all = laid_over(running);
    let exception = |path: &str| ground.kept.kubelet.get(path).map(shown);
    for field in FIELDS {
        let wanted = field.wanted().map(|value| shown(&value)).unwrap_or_default();
        let found = match &asked.configz {
            Ok(Ok(document)) => field.of(document).map(shown).or_else(|| left_out(&wanted)),
            _ => running.value(field),
        };
        let id = format!("kubelet/{}", field.path);
        all.push(Finding::compare(id, &wanted, exception(field.path).as_deref(), found, field.why));
    }
    all.push(source(&asked.configz));
    let said = |answer: &Result<u16>| answer.as_ref().map_or_else(|e| format!("{e:#}"), ToString::to_string);
    let mut behaves = |id: &str, wanted: &str, found: String, why: &str| {
        all.push(Finding::compare(format!("kubelet/{id}"), wanted, None, Some(found), why));
    };
    behaves("answers/no-credential", "401", said(&asked.anonymous), "what kubelet answers whoever shows no credential");
    if exception("tlsMinVersion").is_none() {
        let found = asked.tls12.as_ref().map_or_else(|e| format!("{e:#}"), |yes| yn(*yes).to_owned());
        behaves("answers/tls-1.2", "no", found, "whether kubelet takes a connection of an older TLS");
    }
    if exception("readOnlyPort").is_none() {
        let found = yn(asked.read_only).to_owned();
        behaves("answers/read-only-port", "no", found, "whether anything listens at port 10255");
    }
    all
}

/// kubelet leaves out what is zero or empty.
fn left_out(wanted: &str) -> Option<String> {
    ["0", "none"].contains(&wanted).then(|| wanted.to_owned())
}

fn yn(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Nothing else lies over the settings, and the process has read all of it.
fn laid_over(running: &Running) -> Vec<Finding> {
    let name = |path: &'static str| path.rsplit('/').next().unwrap_or(path);
    let others: Vec<&str> = running.drop_ins.iter().map(String::as_str).filter(|n| *n != name(SEED_DROP_IN)).collect();
    let found = (!others.is_empty()).then(|| others.join(", "));
    let why = "no other file is laid over what the cluster says";
    let only = Finding::compare(format!("kubelet{KUBELET_DROP_INS}"), name(DROP_IN), None, found, why);
    let (found, why) = (running.unread.join(", "), "kubelet reads its files once, when it starts");
    let found = if found.is_empty() { "none".to_owned() } else { found };
    vec![only, Finding::compare("kubelet/changed-since-start".to_owned(), "none", None, Some(found), why)]
}

/// Where the values come from.
fn source(configz: &Result<Result<Value, u16>>) -> Finding {
    let (state, found) = match configz {
        Ok(Ok(_)) => (State::Ok, "read".to_owned()),
        Ok(Err(403)) => (State::Unchecked, "403: the cluster lets no node read it".to_owned()),
        Ok(Err(status)) => (State::Drift, status.to_string()),
        Err(error) => (State::Drift, format!("{error:#}")),
    };
    Finding {
        id: "kubelet/configz".to_owned(),
        state,
        wanted: "read".to_owned(),
        found: crate::text::one_line(&found),
        why: "the values above are then what kubelet itself says; else what its command line and its files say"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::kubelet::fields::drop_in;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::fake::Fake;
    use serde_json::json;

    fn asked(configz: Result<Value, u16>) -> Asked {
        Asked { configz: Ok(configz), anonymous: Ok(401), tls12: Ok(false), read_only: false }
    }

    /// What is not as it should be, with the hardened drop-in and `seed` after it.
    fn odd(seed: &str, kept: Value, asked: &Asked) -> Vec<(String, State, String)> {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|_| Some(Ok("5\n".to_owned())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let put = |path: &str, text: &str| host.write(path, text.as_bytes(), 0o600).unwrap();
        put("/proc/5/cmdline", &format!("/usr/bin/kubelet\0--config={CONFIG}\0--config-dir={KUBELET_DROP_INS}\0"));
        put("/proc/5/stat", &format!("5 (kubelet) S {}0 0\n", "0 ".repeat(18)));
        put("/proc/stat", "btime 9000000000\n");
        put(CONFIG, "authentication: {anonymous: {enabled: true}}\nmaxPods: 7\n");
        put(DROP_IN, &drop_in().unwrap());
        put(SEED_DROP_IN, seed);
        let kept = SeedOverrides { kubelet: serde_json::from_value(kept).unwrap(), ..SeedOverrides::default() };
        let running = Running::read(&host).unwrap().unwrap();
        let all = findings(&AuditContext { host: &host, kept }, &running, asked);
        assert_eq!(all.len(), FIELDS.len() + 6 - usize::from(seed.contains("tlsMin")), "{all:#?}");
        all.into_iter().filter(|f| f.state != State::Ok).map(|f| (f.id, f.state, f.found)).collect()
    }

    #[test]
    fn the_seed_wins_and_is_told() {
        let unchecked =
            ("kubelet/configz".to_owned(), State::Unchecked, "403: the cluster lets no node read it".to_owned());
        assert_eq!(odd("{}", json!({}), &asked(Err(403))), std::slice::from_ref(&unchecked));
        let seed = "{\"tlsMinVersion\": \"VersionTLS12\", \"maxPods\": 60}";
        let excepted = ("kubelet/tlsMinVersion".to_owned(), State::Exception, "VersionTLS12".to_owned());
        let found = odd(seed, json!({"tlsMinVersion": "VersionTLS12"}), &asked(Err(403)));
        assert_eq!(found, [excepted, unchecked.clone()]);
        // An edit of the same file that no seed asked for is drift.
        let drift = ("kubelet/podPidsLimit".to_owned(), State::Drift, "-1".to_owned());
        assert_eq!(odd("{\"podPidsLimit\": -1}", json!({}), &asked(Err(403))), [drift, unchecked]);
    }

    #[test]
    fn what_kubelet_says_counts_more_than_files() {
        let document = json!({"readOnlyPort": 10255});
        let found = odd("{}", json!({}), &asked(Ok(document)));
        // All but the two that are empty as they should be.
        assert_eq!(found.len(), FIELDS.len() - 2, "{found:?}");
        assert!(found.contains(&("kubelet/readOnlyPort".to_owned(), State::Drift, "10255".to_owned())), "{found:?}");
        let document = serde_json::from_str(&drop_in().unwrap()).unwrap();
        assert_eq!(odd("{\"podPidsLimit\": -1}", json!({}), &asked(Ok(document))), []);
    }

    #[test]
    fn behaviour_counts_too() {
        let open = Asked { anonymous: Ok(200), tls12: Ok(true), read_only: true, ..asked(Err(500)) };
        let found: Vec<String> =
            odd("{}", json!({}), &open).into_iter().map(|(id, _, found)| format!("{id} {found}")).collect();
        assert_eq!(
            found,
            [
                "kubelet/configz 500",
                "kubelet/answers/no-credential 200",
                "kubelet/answers/tls-1.2 yes",
                "kubelet/answers/read-only-port yes",
            ]
        );
    }

    #[test]
    fn before_the_join_there_is_nothing_to_ask() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|_| Some(Ok("0\n".to_owned())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let ground = AuditContext { host: &host, kept: SeedOverrides::default() };
        assert!(audit(&ground).unwrap().is_empty());
        host.write(CONFIG, b"maxPods: 7\n", 0o600).unwrap();
        let found = audit(&ground).unwrap();
        assert_eq!((found[0].id.as_str(), found[0].state), ("kubelet/running", State::Drift));
    }
}
