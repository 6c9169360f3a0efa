// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed new` on a terminal, without a cluster among its flags: asks, and judges each answer by the device's
//! own parser as it is entered. What may hold the token is not shown.

use super::new::Args;
use anyhow::{Context, Result};
use dialoguer::{Input, Password};
use firstboot::seed::join_line;
use firstboot::seed::{CaPin, Cni, Endpoint, JoinToken, NodeLabel, NodeName, Role, Taint};
use std::path::{Path, PathBuf};

/// The flags with an answer for each that is missing.
///
/// # Errors
/// The terminal is closed, or the person ends it.
pub fn complete(given: &Args) -> Result<Args> {
    let mut args = Args {
        token_expires: given.token_expires,
        name: given.name.clone(),
        role: given.role.clone(),
        cni: given.cni.clone(),
        label: given.label.clone(),
        taint: given.taint.clone(),
        out: given.out.clone(),
        ..Args::default()
    };
    println!("On the cluster, this prints the join line: kubeadm token create --print-join-command");
    let line = join()?;
    let mut named = None;
    if line.is_empty() {
        args.apiserver = words(&text(
            "API server, HOST:PORT (several: blanks between)",
            None,
            each(required(|word| Endpoint::parse(word).map(drop))),
        )?);
        args.token = Some(secret("Token (not shown)", |token| JoinToken::parse(token).map(drop))?);
        args.ca_cert_hash =
            words(&text("Hash of the CA, sha256:…", None, each(required(|word| CaPin::parse(word).map(drop))))?);
    } else {
        let read = join_line::read(&line).map(|(read, _)| read);
        if let Ok(read) = read {
            println!("The device will join {} with token {}", read.apiserver, read.token.id());
            named = read.node_name.map(|name| name.as_str().to_owned());
            args.role = args.role.or(read.role.map(|role| role.to_string()));
        }
        args.join = Some(line);
    }
    if args.name.is_none() && named.is_none() {
        let name = text("Name of the node (empty: by serial number)", None, |name| match name {
            "" => Ok(()),
            name => NodeName::parse(name).map(drop),
        })?;
        args.name = Some(name).filter(|name| !name.is_empty());
    }
    if args.role.is_none() {
        // A control plane's seed comes from the control plane that is there.
        args.role = Some(text("Role, edge or worker", Some("edge"), |role| match Role::parse(role) {
            Ok(Role::Edge | Role::Worker) => Ok(()),
            _ => Err("expected \"edge\" or \"worker\"".to_owned()),
        })?);
    }
    if args.cni.is_none() {
        args.cni = Some(text("Pod network, auto, bridge or none", Some("auto"), |cni| Cni::parse(cni).map(drop))?);
    }
    if args.label.is_empty() {
        args.label = words(&text("Labels, KEY=VALUE (blanks between; empty: none)", None, each(label))?);
    }
    if args.taint.is_empty() {
        let taints = "Taints, KEY=VALUE:EFFECT (blanks between; empty: none)";
        args.taint = words(&text(taints, None, each(|taint| Taint::parse(taint).map(drop)))?);
    }
    let out = args.out.display().to_string();
    args.out = PathBuf::from(text("File to write", Some(&out), |path| match Path::new(path).exists() {
        true => Err("it exists already".to_owned()),
        false => Ok(()),
    })?);
    Ok(args)
}

/// kubeadm's line; empty when each value is to be asked for. A line that ends in a backslash goes on in the next.
fn join() -> Result<String> {
    let mut whole = String::new();
    loop {
        let before = whole.clone();
        let prompt =
            if before.is_empty() { "Join line (not shown; empty: each value)" } else { "… and its next line" };
        let part = secret(prompt, |line| match (line, line.ends_with('\\')) {
            ("", _) | (_, true) => Ok(()),
            (line, _) => join_line::read(&format!("{before}{line}")).map(drop),
        })?;
        whole.push_str(&part);
        if !part.ends_with('\\') {
            return Ok(whole.trim().to_owned());
        }
        whole.push('\n');
    }
}

fn label(text: &str) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    NodeLabel::parse(key, value).map(drop)
}

/// Judges each word.
fn each(judge: impl Fn(&str) -> Result<(), String>) -> impl Fn(&str) -> Result<(), String> {
    move |text| match text.is_empty() {
        true => judge_empty(&judge),
        false => text.split_whitespace().try_for_each(&judge),
    }
}

/// No word at all is good where the empty word is not refused as required.
fn judge_empty(judge: &impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    match judge("") {
        Err(why) if why == REQUIRED => Err(why),
        _ => Ok(()),
    }
}

const REQUIRED: &str = "it is required";

fn required(judge: impl Fn(&str) -> Result<(), String>) -> impl Fn(&str) -> Result<(), String> {
    move |text| if text.is_empty() { Err(REQUIRED.to_owned()) } else { judge(text) }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn text(prompt: &str, default: Option<&str>, judge: impl Fn(&str) -> Result<(), String>) -> Result<String> {
    let mut input = Input::<String>::new().with_prompt(prompt).allow_empty(true);
    if let Some(default) = default {
        input = input.default(default.to_owned());
    }
    let answer = input.validate_with(|text: &String| judge(text.trim())).interact_text();
    Ok(answer.with_context(|| format!("ask for \"{prompt}\""))?.trim().to_owned())
}

fn secret(prompt: &str, judge: impl Fn(&str) -> Result<(), String>) -> Result<String> {
    let input = Password::new().with_prompt(prompt).allow_empty_password(true);
    let answer = input.validate_with(|text: &String| judge(text.trim())).interact();
    Ok(answer.with_context(|| format!("ask for \"{prompt}\""))?.trim().to_owned())
}
