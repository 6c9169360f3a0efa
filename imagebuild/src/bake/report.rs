// SPDX-License-Identifier: Apache-2.0
//! What `imagebuild bake` says: what the base is, what it lacks, and each thing that was changed.

use super::base::{self, Base, Network};
use super::content::{Added, What};
use crate::target::Target;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// The report; its JSON is written beside the result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The base.
    pub base: String,
    /// Name of the target.
    pub target: String,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// Name of the system.
    pub os: String,
    /// Version of systemd.
    pub systemd: Option<u32>,
    /// Releases of the kernels.
    pub kernels: Vec<String>,
    /// Whether the kernel verifies the bundle as it is read; else all of it is checked at each boot.
    pub verity: bool,
    /// `GPT` or `MBR`.
    pub table: String,
    /// Number of the root's partition.
    pub root: Option<u32>,
    /// Number of the FAT partition that the seed goes to.
    pub boot: Option<u32>,
    /// Its label.
    pub boot_label: Option<String>,
    /// Where the system mounts it, if it does.
    pub boot_mounted: Option<String>,
    /// Network manager.
    pub network: Network,
    /// Whether sshd is enabled.
    pub ssh: bool,
    /// Names of what the base does by itself at its first boots, and what becomes of it.
    pub first_boot: Vec<(String, String)>,
    /// What it lacks, one line each.
    pub missing: Vec<String>,
    /// Bytes by which the root was made longer.
    pub lengthened: u64,
    /// Bytes free in the root afterwards.
    pub free_after: Option<u64>,
    /// What was added to the root.
    pub added: Vec<Added>,
    /// Names of what was added to the FAT partition.
    pub added_to_boot: Vec<String>,
    /// Names of what was, or would be, changed on the FAT partition.
    pub changed_on_boot: Vec<String>,
    /// The image that was made.
    pub result: Option<String>,
}

impl Report {
    /// A report about a base that nothing was done with.
    pub fn of(path: &Path, target: &Target, base: &Base) -> Report {
        Report { base: path.display().to_string(), ..Report::new(base).of_target(target) }
    }

    pub(super) fn new(base: &Base) -> Report {
        Report {
            base: String::new(),
            target: String::new(),
            arch: String::new(),
            os: base.os.clone(),
            systemd: base.systemd,
            kernels: base.kernels.clone(),
            verity: base.verity,
            table: base.disk.name().to_owned(),
            root: base.root.as_ref().map(|(partition, _)| partition.number),
            boot: base.boot.as_ref().map(|(partition, _)| partition.number),
            boot_label: base.boot.as_ref().map(|(_, label)| label.clone()),
            boot_mounted: base.boot_mounted.clone(),
            network: base.network,
            ssh: base.ssh,
            first_boot: base.machinery.iter().map(|m| (m.name.to_owned(), m.does.to_owned())).collect(),
            missing: base.missing.clone(),
            lengthened: 0,
            free_after: None,
            added: Vec::new(),
            added_to_boot: Vec::new(),
            changed_on_boot: base.command_line.iter().map(|_| base::CMDLINE.to_owned()).collect(),
            result: None,
        }
    }

    pub(super) fn of_target(self, target: &Target) -> Report {
        Report { target: target.name.clone(), arch: target.arch.to_string(), ..self }
    }

    /// The same for a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let number = |number: Option<u32>| number.map_or("none".to_owned(), |number| format!("partition {number}"));
        line("system", format!("{}, systemd {}", self.os, self.systemd.map_or("unknown".into(), |v| v.to_string())));
        line("kernels", if self.kernels.is_empty() { "none".to_owned() } else { self.kernels.join(", ") });
        line("disk", format!("{}; root: {}; seed: {}", self.table, number(self.root), number(self.boot)));
        if let Some(label) = &self.boot_label {
            let mounted = self.boot_mounted.as_ref().map(|at| format!(", mounted at {at}")).unwrap_or_default();
            line("seed", format!("FAT labelled \"{label}\"{mounted}"));
        }
        if !self.verity {
            line("bundle", "checked as a whole at each boot: the kernel has no dm-verity".to_owned());
        }
        let network = match self.network {
            Network::Networkd => "systemd-networkd",
            Network::NetworkManager => "NetworkManager",
            Network::Other => "another manager",
        };
        line("network", network.to_owned());
        if self.ssh {
            line(
                "ssh",
                "enabled; firstboot closes its port, and stops it unless the seed has keys in [access]".to_owned(),
            );
        }
        for (name, does) in &self.first_boot {
            line("first boot", format!("{name}: {does}"));
        }
        for name in &self.changed_on_boot {
            line("changed", format!("{name} on the FAT partition: the memory cgroup is switched on"));
        }
        for missing in &self.missing {
            line("missing", missing.clone());
        }
        if let Some(result) = &self.result {
            if self.lengthened > 0 {
                line("longer", format!("root by {} MiB", self.lengthened >> 20));
            }
            for one in &self.added {
                line("added", format!("{}{}", one.path, shown(&one.what)));
            }
            for name in &self.added_to_boot {
                line("added", format!("{name} on the FAT partition"));
            }
            line("image", result.clone());
        }
        text
    }
}

fn shown(what: &What) -> String {
    match what {
        What::Directory => "/".to_owned(),
        What::Link { target } => format!(" -> {target}"),
        What::File { size, .. } => format!(", {size} bytes"),
    }
}
