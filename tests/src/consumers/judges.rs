// SPDX-License-Identifier: Apache-2.0
//! kubelet, containerd and Go's proxy variables: Go programs of this repository that are made of their packages.

use super::{Accepted, Finding, NODE};
use anyhow::{Context, Result, ensure};
use firstboot::phases::configuration::Reader;
use firstboot::seed::{Mirror, Seed};
use imagebuild::arch::Arch;
use imagebuild::component;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a cluster's kubelet-config has at least, as kubeadm publishes it. The build machine's kernel is none of a seed's
/// business.
const CLUSTER: &str = r#"{"failCgroupV1": false, "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
 "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local", "cgroupDriver": "systemd",
 "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "rotateCertificates": true,
 "authentication": {"x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}, "webhook": {"enabled": true},
 "anonymous": {"enabled": false}}, "authorization": {"mode": "Webhook"}, "staticPodPath": "/etc/kubernetes/manifests"}"#;
/// Where programs on a device connect to, as `HOST` and port.
const PLACES: [(&str, u16); 5] = [
    ("10.0.0.1", 6443),
    ("api.example.com", 443),
    ("[fd00::1]", 6443),
    ("registry-1.docker.io", 443),
    ("192.0.2.9", 1),
];

/// Runs a Go judge of `components.lock`: a question a line in, an answer a line out.
fn ask<A: DeserializeOwned>(component: &str, questions: &[impl Serialize]) -> Result<Vec<A>> {
    let program = component::ensure(component, Arch::host()?, None)?;
    let mut input = Vec::new();
    for question in questions {
        serde_json::to_writer(&mut input, question).context("encode a question")?;
        input.push(b'\n');
    }
    let mut command = Command::new(program);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| component.to_owned())?;
    let mut stdin = child.stdin.take().context("take standard input")?;
    // It answers while it is still asked.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().with_context(|| format!("wait for {component}"))?;
    let _ = writer.join();
    ensure!(out.status.success(), "run {component}: {}", out.status);
    let lines = out.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let answers: Vec<A> = lines.map(serde_json::from_slice).collect::<Result<_, _>>().context("read the answers")?;
    ensure!(answers.len() == questions.len(), "run {component}: {} of {} answers", answers.len(), questions.len());
    Ok(answers)
}

#[derive(Default, Serialize)]
struct KubeletQuestion {
    proxy: String,
    no_proxy: String,
    hosts: Vec<String>,
    flags: Vec<String>,
    node: String,
    configs: Vec<String>,
}

#[derive(Deserialize)]
struct KubeletAnswer {
    #[serde(default)]
    error: String,
    #[serde(default)]
    ways: Vec<String>,
}

/// The value of a variable in an environment file of firstboot's.
fn variable(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// kubelet with its flags, its configuration and its proxy; containerd has the same proxy.
///
/// # Errors
/// When the judge cannot be built or run.
pub fn kubelet(all: &[Accepted]) -> Result<Vec<Finding>> {
    let questions: Vec<KubeletQuestion> = all.iter().map(question).collect();
    let answers: Vec<KubeletAnswer> = ask("kubelet-judge", &questions)?;
    let mut findings = Vec::new();
    for (accepted, answer) in all.iter().zip(answers) {
        let expected = ways(&accepted.seed);
        if !answer.error.is_empty() {
            findings.push(Finding::new("kubelet", answer.error, accepted));
        } else if answer.ways != expected {
            let why = format!("Go connects by {:?}, firstboot by {expected:?}", answer.ways);
            findings.push(Finding::new("Go's proxy variables", why, accepted));
        }
    }
    Ok(findings)
}

fn question(accepted: &Accepted) -> KubeletQuestion {
    let mut question = KubeletQuestion { node: NODE.to_owned(), ..Default::default() };
    question.configs = vec![CLUSTER.to_owned()];
    question.configs.extend(accepted.of(Reader::KubeletConfiguration).map(|file| file.text.to_string()));
    for file in accepted.of(Reader::KubeletFlags) {
        let flags = variable(&file.text, "KUBELET_KUBEADM_ARGS").unwrap_or_default();
        question.flags = flags.split_whitespace().map(str::to_owned).collect();
    }
    for file in accepted.of(Reader::Environment) {
        question.proxy = variable(&file.text, "HTTPS_PROXY").unwrap_or_default();
        question.no_proxy = variable(&file.text, "NO_PROXY").unwrap_or_default();
        question.hosts = PLACES.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    }
    question
}

/// What kubelet says of these fields on the hardened host: `[kubelet.config]` as TOML, its drop-ins before it. Empty where
/// it takes them.
///
/// # Errors
/// When the judge cannot be built or run, or a text is no TOML.
pub fn kubelet_values(before: &[String], all: &[String]) -> Result<Vec<String>> {
    let question = |text: &String| {
        let mut fields: serde_json::Value = toml::from_str(text).with_context(|| format!("read {text}"))?;
        fields["apiVersion"] = "kubelet.config.k8s.io/v1beta1".into();
        fields["kind"] = "KubeletConfiguration".into();
        let mut configs = vec![CLUSTER.to_owned()];
        configs.extend_from_slice(before);
        configs.push(fields.to_string());
        Ok(KubeletQuestion { configs, ..Default::default() })
    };
    let questions: Vec<KubeletQuestion> = all.iter().map(question).collect::<Result<_>>()?;
    let answers: Vec<KubeletAnswer> = ask("kubelet-judge", &questions)?;
    Ok(answers.into_iter().map(|answer| answer.error).collect())
}

/// Feature gates that kubelet of this minor knows, with their defaults and what they need (`tests/judge/gates`).
///
/// # Errors
/// When the program cannot be built or run.
pub fn feature_gates(minor: &str) -> Result<String> {
    let program = component::ensure("gates-judge", Arch::host()?, Some(minor))?;
    let out = Command::new(program).output().context("run gates-judge")?;
    ensure!(out.status.success(), "run gates-judge: {}", out.status);
    String::from_utf8(out.stdout).context("read the gates")
}

/// How firstboot reaches [`PLACES`], as the judge says it: `direct`, or host and port of the proxy, user and password.
fn ways(seed: &Seed) -> Vec<String> {
    let via = &seed.network.via;
    let Some(proxy) = &via.proxy else { return Vec::new() };
    let (user, password) = credentials(&proxy.url());
    let through = format!("{} {user} {password}", proxy.host());
    let way = |(host, port): (&str, u16)| match via.proxy_for(host, port) {
        Some(_) => through.clone(),
        None => "direct".to_owned(),
    };
    PLACES.into_iter().map(way).collect()
}

/// User and password of a URL, decoded (RFC 3986, 2.1).
fn credentials(url: &str) -> (String, String) {
    let Some((info, _)) = url.strip_prefix("http://").and_then(|rest| rest.split_once('@')) else {
        return Default::default();
    };
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let decoded = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((first, others)) = rest.split_first() {
            let digits = others.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
            match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                Some(byte) => (bytes.push(byte), rest = &others[2..]).0,
                None => (bytes.push(*first), rest = others).0,
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (decoded(user), decoded(password))
}

#[derive(Serialize)]
struct ContainerdQuestion {
    root: String,
    registry: String,
}

#[derive(Deserialize)]
struct ContainerdAnswer {
    #[serde(default)]
    error: String,
    #[serde(default)]
    hosts: Vec<ContainerdHost>,
}

#[derive(Deserialize)]
struct ContainerdHost {
    url: String,
    pull: bool,
    push: bool,
}

/// containerd with its directory of registries: it takes each mirror in order, to pull alone, then the registry.
///
/// # Errors
/// When the judge cannot be built or run, or the directories cannot be written.
pub fn containerd(all: &[Accepted]) -> Result<Vec<Finding>> {
    let dir = tempfile::tempdir().context("create a directory")?;
    let (mut questions, mut about) = (Vec::new(), Vec::new());
    for (number, accepted) in all.iter().enumerate() {
        let root = dir.path().join(number.to_string());
        for file in accepted.of(Reader::Containerd) {
            let path = root.join(file.path.trim_start_matches('/'));
            // Certificates are named by their path on the device.
            let text = file.text.replace("\"/etc/containerd", &format!("\"{}/etc/containerd", root.display()));
            std::fs::create_dir_all(path.parent().unwrap_or(&root)).context("create a directory")?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        for registry in &accepted.seed.registries {
            let root = root.join(Path::new("etc/containerd/certs.d")).display().to_string();
            let name = if registry.name == "*" { "any.example" } else { &registry.name };
            questions.push(ContainerdQuestion { root, registry: name.to_owned() });
            about.push((accepted, name.to_owned(), registry.mirrors.clone()));
        }
    }
    let answers: Vec<ContainerdAnswer> = ask("containerd-judge", &questions)?;
    let mut findings = Vec::new();
    for ((accepted, name, mirrors), answer) in about.into_iter().zip(answers) {
        let found: Vec<&str> = answer.hosts.iter().filter(|h| h.pull && !h.push).map(|h| h.url.as_str()).collect();
        let expected: Vec<String> = mirrors.iter().map(url).collect();
        let itself = answer.hosts.last().is_some_and(|h| h.push && h.pull);
        if !answer.error.is_empty() {
            findings.push(Finding::new("containerd", answer.error, accepted));
        } else if found != expected || !itself {
            let why = format!("{name} by {found:?} (itself: {itself}), firstboot by {expected:?}");
            findings.push(Finding::new("containerd", why, accepted));
        }
    }
    Ok(findings)
}

/// Where containerd asks a mirror (containerd docs/hosts.md): below `/v2`, unless the path is used as it is.
fn url(mirror: &Mirror) -> String {
    match mirror.whole_path {
        true => mirror.url.clone(),
        false => format!("{}/v2", mirror.url),
    }
}
