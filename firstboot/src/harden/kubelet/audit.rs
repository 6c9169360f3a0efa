// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings, read back from the running process: from `/configz` where the cluster permits this node to read
//! it, otherwise from its command line and the files that it read; and from its behaviour on its ports.

use super::effective::Running;
use super::fields::{FIELDS, shown};
use crate::check::{Finding, Verdict};
use crate::harden::overrides::AuditContext;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::kubelet::Kubelet;
use crate::paths::{CA_FILE, CURRENT_PEM, DROP_IN, KUBELET_CONFIG, KUBELET_DROP_INS, PKI, SEED_DROP_IN};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Port on which kubelet would answer without a credential.
const READ_ONLY: u16 = 10255;

/// Replies of kubelet.
struct KubeletReplies {
    /// `/configz` with this node's credential: a KubeletConfiguration document, or the HTTP status of a refusal.
    configz: Result<Result<Value, u16>>,
    /// HTTP status of a reply to a request without a credential.
    anonymous: Result<u16>,
    /// Whether kubelet accepts TLS 1.2.
    tls12: Result<bool>,
    /// Whether a process listens on [`READ_ONLY`].
    read_only: bool,
}

/// All findings; none before this device has a kubelet configuration.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = context.host;
    if host.read(KUBELET_CONFIG)?.is_none() {
        return Ok(Vec::new());
    }
    let Some(running) = Running::read(host)? else {
        let (found, why) = (Some("no".to_owned()), "only a kubelet that runs can be asked");
        return Ok(vec![Finding::compare("kubelet/running".to_owned(), "yes", None, found, why)]);
    };
    Ok(findings(context, &running, &query(host)))
}

fn query(host: &Host) -> KubeletReplies {
    let kubelet = local_kubelet(host);
    let kubelet = || kubelet.as_ref().map_err(|error| anyhow!("{error:#}"));
    let configz = || -> Result<Result<Value, u16>> {
        let pem = host.read_text(CURRENT_PEM)?.with_context(|| format!("find {CURRENT_PEM}"))?;
        let answer = kubelet()?.get_as(&pem, "/configz")?;
        if answer.status != 200 {
            return Ok(Err(answer.status));
        }
        let mut document: Value = serde_json::from_slice(&answer.body).context("parse kubelet's /configz")?;
        Ok(Ok(document["kubeletconfig"].take()))
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, READ_ONLY));
    KubeletReplies {
        configz: configz(),
        anonymous: kubelet().and_then(|k| Ok(k.get("/configz")?.status)),
        tls12: kubelet().and_then(Kubelet::speaks_tls12),
        read_only: TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok(),
    }
}

/// A client of this node's kubelet, which trusts its serving certificate: self-signed, or signed by the cluster.
fn local_kubelet(host: &Host) -> Result<Kubelet> {
    let signed = host.read(&format!("{PKI}/kubelet-server-current.pem"))?.is_some();
    let path = if signed { CA_FILE.to_owned() } else { format!("{PKI}/kubelet.crt") };
    let trusted = host.read_text(&path)?.with_context(|| format!("find {path}"))?;
    Kubelet::new(host.journal().fact(Fact::Node).unwrap_or_default(), &trusted)
}

fn findings(context: &AuditContext<'_>, running: &Running, asked: &KubeletReplies) -> Vec<Finding> {
    let mut all = other_files(running);
    let exception = |path: &str| context.kept.kubelet.get(path).map(shown);
    for field in FIELDS {
        let wanted = field.wanted().map(|value| shown(&value)).unwrap_or_default();
        let found = match &asked.configz {
            Ok(Ok(document)) => field.of(document).map(shown).or_else(|| omitted(&wanted)),
            _ => running.value(field),
        };
        let id = format!("kubelet/{}", field.path);
        all.push(Finding::compare(id, &wanted, exception(field.path).as_deref(), found, field.why));
    }
    all.push(source(&asked.configz));
    let status = |answer: &Result<u16>| answer.as_ref().map_or_else(|e| format!("{e:#}"), ToString::to_string);
    let mut behaves = |id: &str, wanted: &str, found: String, why: &str| {
        all.push(Finding::compare(format!("kubelet/{id}"), wanted, None, Some(found), why));
    };
    behaves(
        "answers/no-credential",
        "401",
        status(&asked.anonymous),
        "kubelet's answer to a request without a credential",
    );
    if exception("tlsMinVersion").is_none() {
        let found = asked.tls12.as_ref().map_or_else(|e| format!("{e:#}"), |yes| yes_no(*yes).to_owned());
        behaves("answers/tls-1.2", "no", found, "whether kubelet accepts an older TLS version");
    }
    if exception("readOnlyPort").is_none() {
        let found = yes_no(asked.read_only).to_owned();
        behaves("answers/read-only-port", "no", found, "whether a process listens on port 10255");
    }
    all
}

/// The value of a field that is absent from `/configz`: kubelet omits zero and empty values.
fn omitted(wanted: &str) -> Option<String> {
    ["0", "none"].contains(&wanted).then(|| wanted.to_owned())
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Findings: no other drop-in exists, and the process has read the current files.
fn other_files(running: &Running) -> Vec<Finding> {
    let name = |path: &'static str| path.rsplit('/').next().unwrap_or(path);
    let others: Vec<&str> = running.drop_ins.iter().map(String::as_str).filter(|n| *n != name(SEED_DROP_IN)).collect();
    let found = (!others.is_empty()).then(|| others.join(", "));
    let why = "no other file overrides the cluster's configuration";
    let only = Finding::compare(format!("kubelet{KUBELET_DROP_INS}"), name(DROP_IN), None, found, why);
    let (found, why) = (running.unread.join(", "), "kubelet reads its files once, when it starts");
    let found = if found.is_empty() { "none".to_owned() } else { found };
    vec![only, Finding::compare("kubelet/changed-since-start".to_owned(), "none", None, Some(found), why)]
}

/// Finding: whether the values come from `/configz`.
fn source(configz: &Result<Result<Value, u16>>) -> Finding {
    let (state, found) = match configz {
        Ok(Ok(_)) => (Verdict::Ok, "read".to_owned()),
        Ok(Err(403)) => (Verdict::Unchecked, "403: the cluster lets no node read it".to_owned()),
        Ok(Err(status)) => (Verdict::Drift, status.to_string()),
        Err(error) => (Verdict::Drift, format!("{error:#}")),
    };
    Finding {
        id: "kubelet/configz".to_owned(),
        state,
        wanted: "read".to_owned(),
        found: crate::text::one_line(&found),
        why: "the values above then come from kubelet itself, otherwise from its command line and its files".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::kubelet::fields::drop_in;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::fake::Fake;
    use serde_json::json;

    fn asked(configz: Result<Value, u16>) -> KubeletReplies {
        KubeletReplies { configz: Ok(configz), anonymous: Ok(401), tls12: Ok(false), read_only: false }
    }

    /// The findings that are not `Ok`, with the hardened drop-in and `seed` after it.
    fn deviations(seed: &str, kept: Value, asked: &KubeletReplies) -> Vec<(String, Verdict, String)> {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|_| Some(Ok("5\n".to_owned())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let put = |path: &str, text: &str| host.write(path, text.as_bytes(), 0o600).unwrap();
        put(
            "/proc/5/cmdline",
            &format!("/usr/bin/kubelet\0--config={KUBELET_CONFIG}\0--config-dir={KUBELET_DROP_INS}\0"),
        );
        put("/proc/5/stat", &format!("5 (kubelet) S {}0 0\n", "0 ".repeat(18)));
        put("/proc/stat", "btime 9000000000\n");
        put(KUBELET_CONFIG, "authentication: {anonymous: {enabled: true}}\nmaxPods: 7\n");
        put(DROP_IN, &drop_in().unwrap());
        put(SEED_DROP_IN, seed);
        let kept = SeedOverrides { kubelet: serde_json::from_value(kept).unwrap(), ..SeedOverrides::default() };
        let running = Running::read(&host).unwrap().unwrap();
        let all = findings(&AuditContext { host: &host, kept }, &running, asked);
        assert_eq!(all.len(), FIELDS.len() + 6 - usize::from(seed.contains("tlsMin")), "{all:#?}");
        all.into_iter().filter(|f| f.state != Verdict::Ok).map(|f| (f.id, f.state, f.found)).collect()
    }

    #[test]
    fn seed_override_is_an_exception() {
        let unchecked =
            ("kubelet/configz".to_owned(), Verdict::Unchecked, "403: the cluster lets no node read it".to_owned());
        assert_eq!(deviations("{}", json!({}), &asked(Err(403))), std::slice::from_ref(&unchecked));
        let seed = "{\"tlsMinVersion\": \"VersionTLS12\", \"maxPods\": 60}";
        let excepted = ("kubelet/tlsMinVersion".to_owned(), Verdict::Exception, "VersionTLS12".to_owned());
        let found = deviations(seed, json!({"tlsMinVersion": "VersionTLS12"}), &asked(Err(403)));
        assert_eq!(found, [excepted, unchecked.clone()]);
        // An edit of the same file that is not in the seed is drift.
        let drift = ("kubelet/podPidsLimit".to_owned(), Verdict::Drift, "-1".to_owned());
        assert_eq!(deviations("{\"podPidsLimit\": -1}", json!({}), &asked(Err(403))), [drift, unchecked]);
    }

    #[test]
    fn configz_takes_precedence_over_files() {
        let document = json!({"readOnlyPort": 10255});
        let found = deviations("{}", json!({}), &asked(Ok(document)));
        // All but the two that are empty as required.
        assert_eq!(found.len(), FIELDS.len() - 2, "{found:?}");
        assert!(found.contains(&("kubelet/readOnlyPort".to_owned(), Verdict::Drift, "10255".to_owned())), "{found:?}");
        let document = serde_json::from_str(&drop_in().unwrap()).unwrap();
        assert_eq!(deviations("{\"podPidsLimit\": -1}", json!({}), &asked(Ok(document))), []);
    }

    #[test]
    fn behaviour_on_ports_is_audited() {
        let open = KubeletReplies { anonymous: Ok(200), tls12: Ok(true), read_only: true, ..asked(Err(500)) };
        let found: Vec<String> =
            deviations("{}", json!({}), &open).into_iter().map(|(id, _, found)| format!("{id} {found}")).collect();
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
    fn nothing_is_audited_before_the_join() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|_| Some(Ok("0\n".to_owned())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let context = AuditContext { host: &host, kept: SeedOverrides::default() };
        assert!(audit(&context).unwrap().is_empty());
        host.write(KUBELET_CONFIG, b"maxPods: 7\n", 0o600).unwrap();
        let found = audit(&context).unwrap();
        assert_eq!((found[0].id.as_str(), found[0].state), ("kubelet/running", Verdict::Drift));
    }
}
