// SPDX-License-Identifier: Apache-2.0
//! `firstboot report`: collects a support archive (tar, gzip) of bounded size, without secrets.
//!
//! [`FILES`], [`COMMANDS`] and [`LOGS`] list the content. Every text goes through [`redact()`]. The seed, kubelet.conf
//! and kubelet's certificates and keys are in no list; firstboot reads the secrets in them only in order to redact them
//! elsewhere ([`collect_secrets()`]).

mod device_secrets;
mod escapes;
mod keyword_redaction;
mod redact;
#[cfg(test)]
mod tests;

pub use device_secrets::collect_secrets;
pub use keyword_redaction::MARK;
pub use redact::{DeviceSecrets, redact};

use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::{Host, STATE_DIR};
use crate::image::IMAGE_INFO;
use crate::journal::JOURNAL;
use crate::journal::facts::Fact;
use crate::paths::{HOSTS, RESOLV_CONF};
use crate::text::{one_line, timestamp, unix_seconds};
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Limits of an archive's uncompressed size.
#[derive(Clone, Copy)]
struct Limits {
    /// Most bytes of one text; of a longer text the end is kept, which is the newest part of a log.
    text: usize,
    /// Most bytes of all texts together.
    total: usize,
}

const LIMITS: Limits = Limits { text: 512 << 10, total: 8 << 20 };

/// Files to include: name in the archive, path on the device.
const FILES: &[(&str, &str)] = &[
    ("firstboot/journal", JOURNAL),
    ("firstboot/receipt.json", "/var/lib/firstboot/receipt.json"),
    ("firstboot/verified-time", "/var/lib/firstboot/verified-time"),
    ("firstboot/firewall.json", "/var/lib/firstboot/firewall.json"),
    ("versions/image.json", IMAGE_INFO),
    ("versions/os-release", "/etc/os-release"),
    ("system/kernel", "/proc/version"),
    ("system/command-line", "/proc/cmdline"),
    ("system/uptime", "/proc/uptime"),
    ("system/load", "/proc/loadavg"),
    ("system/memory", "/proc/meminfo"),
    ("system/cpu", "/proc/cpuinfo"),
    ("system/modules", "/proc/modules"),
    ("system/mounts", "/proc/mounts"),
    ("system/swaps", "/proc/swaps"),
    ("network/resolv.conf", RESOLV_CONF),
    ("network/resolv.conf-resolved", "/run/systemd/resolve/resolv.conf"),
    ("network/hosts", HOSTS),
    ("network/interfaces", "/proc/net/dev"),
];

/// How the names of damaged files that were set aside end. Those in [`STATE_DIR`] are included.
const DAMAGED: &str = ".damaged";

/// Commands whose output is included. Each has a time limit, so that a hanging command does not block the others.
const COMMANDS: &[(&str, &[&str])] = &[
    ("versions/kubelet", &["kubelet", "--version"]),
    ("versions/containerd", &["containerd", "--version"]),
    ("versions/runc", &["runc", "--version"]),
    ("versions/systemd", &["systemctl", "--version"]),
    ("network/addresses", &["ip", "address"]),
    ("network/links", &["ip", "-stats", "link"]),
    ("network/routes", &["ip", "route", "show", "table", "all"]),
    ("network/routes6", &["ip", "-6", "route", "show", "table", "all"]),
    ("network/rules", &["ip", "rule"]),
    ("network/neighbours", &["ip", "neighbour"]),
    ("network/sockets", &["ss", "-tulpn"]),
    ("network/dns", &["resolvectl", "--no-pager", "status"]),
    ("network/networkd", &["networkctl", "--no-pager", "--all", "status"]),
    ("network/packet-filter", &["nft", "list", "table", "inet", "firstboot"]),
    ("system/disks", &["lsblk", "--output", "NAME,TYPE,SIZE,RO,FSTYPE,LABEL,MOUNTPOINTS"]),
    ("system/disk-usage", &["df", "-h"]),
    ("system/inodes", &["df", "-i"]),
    ("system/clock", &["timedatectl", "--no-pager"]),
    ("system/failed-units", &["systemctl", "--no-pager", "--failed"]),
    ("system/units", &["systemctl", "--no-pager", "list-units", "--all", "firstboot*", "containerd*", "kubelet*"]),
    ("system/containers", &["ctr", "--namespace", "k8s.io", "containers", "list"]),
];

const JOURNALCTL: &[&str] = &[
    "timeout",
    "60",
    "journalctl",
    "--quiet",
    "--no-pager",
    "--no-hostname",
    "--output=short-iso-precise",
    "--lines=2000",
];

/// Logs to include: name in the archive, selection by journalctl.
const LOGS: &[(&str, &[&str])] = &[
    ("logs/firstboot", &["--unit=firstboot*"]),
    ("logs/kubelet", &["--unit=kubelet.service"]),
    ("logs/containerd", &["--unit=containerd.service"]),
    ("logs/kernel", &["--dmesg"]),
    ("logs/warnings", &["--priority=warning"]),
];

/// A text of firstboot's own, generated on demand: status, preflight, audit.
pub type Own<'a> = (&'a str, &'a dyn Fn() -> Result<String>);

/// Builds the archive: `own` texts, then the listed files, commands and logs.
///
/// # Errors
/// When the archive cannot be built. An unreadable source is no error: its entry contains the reason instead.
pub fn archive(host: &Host, own: &[Own<'_>], secrets: &DeviceSecrets) -> Result<Vec<u8>, Fault> {
    within(LIMITS, host, own, secrets)
}

fn within(limits: Limits, host: &Host, own: &[Own<'_>], secrets: &DeviceSecrets) -> Result<Vec<u8>, Fault> {
    let mut archive = Archive {
        tar: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
        directory: archive_name(host),
        time: unix_seconds(host.now()),
        limits,
        secrets,
    };
    fill(&mut archive, host, own).owned_by(Owner::Host)?;
    let gzip = archive.tar.into_inner().context("write the archive").owned_by(Owner::Host)?;
    gzip.finish().context("write the archive").owned_by(Owner::Host)
}

/// Name of the archive's top directory, and of its file without `.tar.gz`: node and time, which distinguish archives.
pub fn archive_name(host: &Host) -> String {
    let node = host.journal().fact(Fact::Node).unwrap_or("device").to_owned();
    format!("firstboot-report-{node}-{}", timestamp(unix_seconds(host.now())).replace(':', ""))
}

fn fill(archive: &mut Archive<'_>, host: &Host, own: &[Own<'_>]) -> Result<()> {
    for (name, text) in own {
        archive.add(name, text().map(String::into_bytes))?;
    }
    for (name, path) in FILES {
        match host.read(path) {
            Ok(None) => {}
            read => archive.add(name, read.map(Option::unwrap_or_default))?,
        }
    }
    // A copy of files with passwords stays out: a flipped byte may hide a password from the redaction.
    let is_included = |name: &String| name.ends_with(DAMAGED) && !name.starts_with("node-files");
    for name in host.list(STATE_DIR).unwrap_or_default().into_iter().filter(is_included) {
        let path = format!("{STATE_DIR}/{name}");
        // A directory stood where a file belongs.
        let read = host.read(&path).map(Option::unwrap_or_default);
        archive.add(&format!("firstboot/{name}"), read)?;
    }
    for (name, argv) in COMMANDS {
        let limited = [&["timeout", "20"], *argv].concat();
        archive.add(name, host.sys().run(&limited, None).map(String::into_bytes))?;
    }
    for (name, which) in LOGS {
        let argv = [JOURNALCTL, *which].concat();
        archive.add(name, host.sys().run(&argv, None).map(String::into_bytes))?;
    }
    Ok(())
}

struct Archive<'a> {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    directory: String,
    time: u64,
    /// Limits of the texts still to come.
    limits: Limits,
    secrets: &'a DeviceSecrets,
}

impl Archive<'_> {
    /// Adds one text, or the reason why there is none.
    fn add(&mut self, name: &str, text: Result<Vec<u8>>) -> Result<()> {
        let bytes = text.unwrap_or_else(|error| one_line(&format!("not there: {error:#}")).into_bytes());
        // Redact before cutting, so that no part of a secret is left at the cut.
        let text = cut(redact(&bytes, self.secrets), self.limits.text.min(self.limits.total));
        self.limits.total -= text.len().min(self.limits.total);
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let path = format!("{}/{name}", self.directory);
        self.tar.append_data(&mut header, path, text.as_bytes()).with_context(|| format!("add {name} to the archive"))
    }
}

/// The last lines of a text that is too long, after a line with the number of omitted bytes.
fn cut(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let at = text.len() - limit;
    let at = memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |line| at + line + 1);
    let mut head = format!("[{at} bytes before this are left out]");
    head.push('\n');
    head + &text[at..]
}

/// Writes the archive to `file`, or to standard output when `file` is `-`; returns a line for people.
///
/// # Errors
/// A host fault when the archive cannot be written.
pub fn write_archive(host: &Host, archive: &[u8], file: &str) -> Result<Option<String>, Fault> {
    if file == "-" {
        std::io::stdout().write_all(archive).context("write the archive").owned_by(Owner::Host)?;
        return Ok(None);
    }
    let path = std::path::absolute(file).with_context(|| format!("find {file}")).owned_by(Owner::Host)?;
    let path = path.to_string_lossy().into_owned();
    host.export(&path, archive, 0o600).owned_by(Owner::Host)?;
    Ok(Some(format!(
        "{path}: {} KiB; no token, key, passphrase or password that is known in it",
        archive.len().div_ceil(1024)
    )))
}
