// SPDX-License-Identifier: Apache-2.0
//! Programs that read configuration files: each is given what firstboot writes, as it stands.

use super::{Accepted, Finding};
use anyhow::{Context, Result, ensure};
use firstboot::harden::access::sshd;
use firstboot::phases::configuration::Reader;
use firstboot::seed::Wifi;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn said(command: &mut Command) -> Result<(bool, String)> {
    let out = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Ok((out.status.success(), text))
}

/// An account and a directory that sshd needs; both are there on a device.
const SSHD: &str = r#"
set -e
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd
{ cat /etc/passwd; echo sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin; } >/run/passwd
mount --bind /run/passwd /etc/passwd
exec "$@"
"#;

/// `sshd -t` with each configuration that differs, and `ssh-keygen -l` with each account's keys: it lists all of them.
///
/// # Errors
/// When they cannot be run.
pub fn sshd(program: &Path, all: &[Accepted]) -> Result<Vec<Finding>> {
    let dir = tempfile::tempdir().context("create a directory")?;
    let at = |name: &str| dir.path().join(name);
    let made = said(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at("host")))?;
    ensure!(made.0, "make a host key: {}", made.1);
    let mut findings = Vec::new();
    let mut configurations: BTreeMap<&str, &Accepted> = BTreeMap::new();
    for accepted in all {
        configurations.extend(accepted.of(Reader::Sshd).map(|file| (file.text.as_str(), accepted)));
        for file in accepted.of(Reader::AuthorizedKeys) {
            std::fs::write(at("keys"), file.text.as_bytes()).context("write keys")?;
            let (good, text) = said(Command::new("ssh-keygen").arg("-l").arg("-f").arg(at("keys")))?;
            let (found, expected) = (text.lines().count(), accepted.seed.access.keys.len());
            if !good || found != expected {
                findings.push(Finding::new("ssh-keygen", format!("{found} of {expected} keys: {text}"), accepted));
            }
        }
    }
    for (text, accepted) in configurations {
        // The host key is each device's own.
        let text = text.replace(sshd::HOST_KEY, &at("host").display().to_string());
        std::fs::write(at("config"), text).context("write a configuration")?;
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", SSHD, "sh"]).arg(program);
        let (good, text) = said(command.arg("-t").arg("-f").arg(at("config")))?;
        if !good || !text.is_empty() {
            findings.push(Finding::new("sshd", text, accepted));
        }
    }
    Ok(findings)
}

/// wpa_supplicant reads the file, and has the same SSID and key; it then ends, because there is no such interface.
///
/// # Errors
/// When it cannot be run.
pub fn wpa_supplicant(program: &Path, all: &[Accepted]) -> Result<Vec<Finding>> {
    let dir = tempfile::tempdir().context("create a directory")?;
    let path = dir.path().join("wpa_supplicant.conf");
    let mut findings = Vec::new();
    for accepted in all {
        let Some(wifi) = &accepted.seed.network.wifi else { continue };
        for file in accepted.of(Reader::WpaSupplicant) {
            std::fs::write(&path, file.text.as_bytes()).context("write a configuration")?;
            let mut command = Command::new(program);
            command.args(["-dd", "-K", "-D", "wired", "-i", "firstboot-none", "-c"]).arg(&path);
            let (_, text) = said(&mut command)?;
            if let Err(why) = same(wifi, &text) {
                findings.push(Finding::new("wpa_supplicant", why, accepted));
            }
        }
    }
    Ok(findings)
}

/// Whether wpa_supplicant's debugging output shows this network.
fn same(wifi: &Wifi, text: &str) -> Result<(), String> {
    if text.contains("Failed to read or parse") || !text.contains("Priority group") {
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("Line ") || l.contains("ailed")).collect();
        return Err(format!("it does not read the file: {}", lines.join("; ")));
    }
    let bytes = dumped(text, "SSID").or_else(|| dumped(text, "ssid"));
    if bytes.as_deref() != Some(wifi.ssid.as_bytes()) {
        return Err(format!("its SSID is {bytes:?}, not {:?}", wifi.ssid.as_bytes()));
    }
    Ok(())
}

/// Bytes that it shows as `NAME - hexdump(len=2): 61 62`, or as lines of a dump with characters.
fn dumped(text: &str, name: &str) -> Option<Vec<u8>> {
    let at = text.find(&format!("{name} - hexdump"))?;
    let rest = &text[at..];
    let length: usize = rest.split_once("len=")?.1.split(')').next()?.parse().ok()?;
    let after = rest.split_once("):")?.1;
    // Sixteen bytes a line, then the characters.
    let words = after.lines().flat_map(|line| line.split_whitespace().take(16)).take(length);
    let bytes: Option<Vec<u8>> = words.map(|word| u8::from_str_radix(word, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == length)
}

const NETWORKD: &str = include_str!("../../networkd.sh");

/// systemd-networkd, which reads the files of many seeds at once, takes every line. Needs root.
///
/// # Errors
/// When it cannot be run.
pub fn networkd(all: &[Accepted]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for batch in all.chunks(500) {
        let dir = tempfile::tempdir().context("create a directory")?;
        // networkd drops its privileges before it reads the files.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).context("open a directory")?;
        for (number, accepted) in batch.iter().enumerate() {
            for file in accepted.of(Reader::Networkd) {
                let name = file.path.rsplit('/').next().unwrap_or_default();
                let path = dir.path().join(format!("{number}-{name}"));
                std::fs::write(&path, file.text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
            }
        }
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "sh", "-c", NETWORKD, "sh"])
            .arg(dir.path())
            .args(["true", "true", "600", "true"]);
        let (_, text) = said(&mut command)?;
        ensure!(text.contains("Enumeration completed"), "run systemd-networkd: {text}");
        for line in text.lines().filter(|line| line.contains("/etc/systemd/network/")) {
            let after = line.split("/etc/systemd/network/").nth(1).unwrap_or_default();
            let number = after.split('-').next().and_then(|number| number.parse::<usize>().ok());
            let accepted = number.and_then(|number| batch.get(number)).context("find the seed of a file")?;
            // Two seeds of a batch may make VLANs of one name.
            if !line.contains("already exists") && !line.contains("already configured") {
                findings.push(Finding::new("systemd-networkd", line, accepted));
            }
        }
    }
    Ok(findings)
}

/// nft takes the whole transaction (`--check`).
///
/// # Errors
/// When it cannot be run.
pub fn nft(all: &[Accepted]) -> Result<Vec<Finding>> {
    let dir = tempfile::tempdir().context("create a directory")?;
    let path = dir.path().join("rules");
    let mut findings = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for accepted in all {
        for file in accepted.of(Reader::Nftables) {
            if !seen.insert(file.text.to_string()) {
                continue;
            }
            std::fs::write(&path, file.text.as_bytes()).context("write rules")?;
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--net", "nft", "--check", "--file"]).arg(&path);
            let (good, text) = said(&mut command)?;
            if !good {
                findings.push(Finding::new("nft", text, accepted));
            }
        }
    }
    Ok(findings)
}
