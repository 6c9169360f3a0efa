// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin `host-local`, before the one that hands out addresses: a pod that comes back after a reboot gets those that
//! it had. Without an API server no EndpointSlice changes, so Services lead to the addresses that the cluster knows.
//!
//! It has the name of the other, and comes first on containerd's path of plugins: so it serves every pod network that uses
//! host-local, flannel's as our own bridge, and no network's configuration has to name it.
//!
//! Protocol: CNI specification 1.0.0, section 2 (environment, standard input and output, exit code). host-local takes
//! addresses to hand out from `args.cni.ips` (its README, "Supported arguments").
#![allow(clippy::disallowed_methods)] // The runtime starts it: it is no phase, and nothing of it is to be undone.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What network configurations call it, and the name of its file; and of the one that hands out addresses.
pub const HOST_LOCAL: &str = "host-local";
/// One symbolic link for each interface of a pod: it leads to its addresses, joined by commas. A link is in its directory's
/// journal at the next commit of the file system, whole or not at all, and takes no block.
const ADDRESSES: &str = "/var/lib/cni/firstboot-addresses";
/// Interfaces that are remembered at most; those that got their addresses first go first. kubelet runs 110 by default.
const MOST: usize = 1024;
/// Largest configuration, bytes.
const LARGEST: u64 = 1 << 20;

/// Whether this program was started as the plugin.
pub fn is_called(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == HOST_LOCAL)
}

/// Does what the runtime asks for; the exit code is host-local's.
///
/// # Errors
/// host-local is not there, or standard input or output fails.
pub fn main() -> io::Result<u8> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut config = Vec::new();
    io::stdin().take(LARGEST).read_to_end(&mut config)?;
    let path = variable("CNI_PATH");
    let delegate = delegate(&path, &std::env::current_exe()?);
    let delegate =
        delegate.ok_or_else(|| io::Error::other(format!("find another {HOST_LOCAL} in {path}: there is none")))?;
    let interface = match variable("CNI_COMMAND").as_str() {
        "ADD" => interface(&variable("CNI_ARGS"), &config, &variable("CNI_IFNAME")),
        _ => None,
    };
    let (code, answer) = add(&delegate, &config, interface.as_deref(), Path::new(ADDRESSES))?;
    io::stdout().write_all(&answer)?;
    Ok(code)
}

/// The first on the path that is not this program.
fn delegate(path: &str, own: &Path) -> Option<PathBuf> {
    let own = own.canonicalize().ok()?;
    let all = std::env::split_paths(path).map(|directory| directory.join(HOST_LOCAL));
    all.filter(|program| program.is_file()).find(|program| program.canonicalize().is_ok_and(|program| program != own))
}

/// What an interface of a pod is remembered by: the pod's UID, the network, and the interface's own name. None without a UID:
/// the arguments of the runtime are `KEY=VALUE`, joined by semicolons.
fn interface(args: &str, config: &[u8], name: &str) -> Option<String> {
    let uid = args.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_UID="))?;
    let config: Value = serde_json::from_slice(config).ok()?;
    let parts = [uid, config["name"].as_str()?, name];
    // It becomes the name of a file.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = |part: &&str| (1..=64).contains(&part.len()) && part.bytes().all(plain) && !part.starts_with('.');
    parts.iter().all(fits).then(|| parts.join("_"))
}

/// Has the delegate hand out addresses: those that the pod had, if they are free, else any.
fn add(delegate: &Path, config: &[u8], interface: Option<&str>, directory: &Path) -> io::Result<(u8, Vec<u8>)> {
    let Some(kept) = interface.map(|name| directory.join(name)) else { return run(delegate, config) };
    if let Some(wanted) = wanting(config, &had(&kept)) {
        let (code, answer) = run(delegate, &wanted)?;
        if code == 0 {
            // Written anew: a pod that lives long is none of the oldest.
            remember(&kept, &answer, directory);
            return Ok((code, answer));
        }
    }
    let (code, answer) = run(delegate, config)?;
    if code == 0 {
        remember(&kept, &answer, directory);
    }
    Ok((code, answer))
}

/// Keeps the addresses of an answer, or says why not: the pod has them; only after a reboot it will have others.
fn remember(kept: &Path, answer: &[u8], directory: &Path) {
    if let Err(error) = keep(kept, answer, directory) {
        eprintln!("{HOST_LOCAL}: keep the addresses of a pod in {}: {error}", directory.display());
    }
}

fn run(delegate: &Path, config: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut child = Command::new(delegate).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends before it has read all says why.
        let _ = input.write_all(config);
    }
    let ended = child.wait_with_output()?;
    let code = ended.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok((code, ended.stdout))
}

/// The addresses that a pod had.
fn had(kept: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_link(kept).unwrap_or_default();
    let all: Option<Vec<IpAddr>> = text.to_str().and_then(|t| t.split(',').map(|a| a.parse().ok()).collect());
    all.unwrap_or_default()
}

/// The configuration, with these addresses; none without any, or where it asks for some itself.
fn wanting(config: &[u8], addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).ok()?;
    if addresses.is_empty() || !config.is_object() || !config["args"].is_null() {
        return None;
    }
    config["args"] = json!({ "cni": { "ips": addresses } });
    serde_json::to_vec(&config).ok()
}

/// Keeps the addresses of an answer (CNI specification, section 5, "Success").
fn keep(kept: &Path, answer: &[u8], directory: &Path) -> io::Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let address = |ip: &Value| Some(ip["address"].as_str()?.split('/').next()?.to_owned());
    let all: Option<Vec<String>> = answer["ips"].as_array().into_iter().flatten().map(address).collect();
    let all = all.filter(|all| !all.is_empty()).ok_or_else(|| io::Error::other("the answer has none"))?;
    std::fs::create_dir_all(directory)?;
    // No interface has such a name.
    let new = directory.join(format!(".{}", kept.file_name().unwrap_or_default().display()));
    let _ = std::fs::remove_file(&new);
    symlink(all.join(","), &new)?;
    std::fs::rename(&new, kept)?;
    forget(kept, directory)
}

/// Network and interface of a link: a pod's UID has no underscore.
fn network(link: &Path) -> Option<&str> {
    link.file_name()?.to_str()?.split_once('_').map(|(_, rest)| rest)
}

/// Forgets other pods that had one of these addresses, which would ask for it in vain or take it after a reboot; and what
/// was kept first, where there is too much.
fn forget(kept: &Path, directory: &Path) -> io::Result<()> {
    let (addresses, on) = (had(kept), network(kept));
    let mut all: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    let mut old = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let same = path != kept && on.is_some() && network(&path) == on;
        if same && had(&path).iter().any(|address| addresses.contains(address)) {
            old.push(path);
        // Another pod's may be written anew at this moment.
        } else if let Ok(link) = path.symlink_metadata() {
            all.push((link.modified()?, path));
        }
    }
    all.sort();
    let many = all.len().saturating_sub(MOST);
    old.extend(all.into_iter().take(many).map(|(_, path)| path));
    old.iter().try_for_each(|path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

#[cfg(test)]
#[path = "ipam_tests.rs"]
mod tests;
