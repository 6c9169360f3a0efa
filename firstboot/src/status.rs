// SPDX-License-Identifier: Apache-2.0
//! The status of a device, as people and tools read it: the file on the boot partition, and the one for
//! `firstboot status`.

use crate::fault::{Code, Fault, Owner};
use crate::text::{one_line, timestamp};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Name of the file that tells a person with the card in a laptop how far the device came.
pub const STATUS_NAME: &str = "firstboot-status.txt";

/// Size of the status file in bytes: fixed, so that it is overwritten in place and no directory entry changes.
pub const STATUS_SIZE: usize = 16384;

/// Where `firstboot status` finds the last status ([`crate::host::kept::STATUS`]).
pub const STATUS_FILE: &str = "/var/lib/firstboot/status.json";

/// The same for accounts that may not read firstboot's directory; gone at power-off.
pub const STATUS_FOR_ALL: &str = "/run/firstboot/status.json";

/// What the device is doing; serde and `Display` give the words of the status file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is no seed that it could take.
    #[serde(rename = "waiting for a seed")]
    Waiting,
    /// It runs the phases.
    #[default]
    Working,
    /// A phase failed and is tried again.
    Retrying,
    /// Something failed that is not tried again by itself.
    Stopped,
    /// It is a node.
    Joined,
    /// A reset is at work.
    Resetting,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Waiting => "waiting for a seed",
            State::Working => "working",
            State::Retrying => "retrying",
            State::Stopped => "stopped",
            State::Joined => "joined",
            State::Resetting => "resetting",
        })
    }
}

/// How far the device is, as people and tools read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What the device is doing.
    pub state: State,
    /// Name of the node, once it is known.
    pub node: Option<String>,
    /// The phase at work or stopped, as `10/14 join`.
    pub phase: Option<String>,
    /// Since when it has been there, seconds since 1970 UTC: in this phase, tries included, or else in this state.
    #[serde(default)]
    pub since: u64,
    /// Who must act; none when all is well.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Which kind of fault the last error is.
    #[serde(default)]
    pub code: Option<Code>,
    /// The last error, one line.
    pub error: Option<String>,
    /// What a person should do, one line.
    #[serde(default)]
    pub advice: Option<String>,
    /// What may come to trouble, one line each, by the check that found it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Seconds until the next try, from when this was written.
    pub next_try_seconds: Option<u64>,
    /// Commands that only an administrator of the cluster may give, and that the node lacks.
    #[serde(default, rename = "left_to_do")]
    pub manual_steps: Vec<String>,
    /// Where the seed has this host more open than others, one line each.
    #[serde(default)]
    pub exceptions: Vec<String>,
    /// How many seeds were destroyed with the join, where the card had more than one; else 0.
    #[serde(default)]
    pub seeds_destroyed: usize,
    /// When this was written, seconds since 1970 UTC by the device's own clock.
    pub written: u64,
    /// Target and build time of the image, version of Kubernetes in its bundle.
    pub image: String,
    /// Which version of what is here.
    #[serde(default)]
    pub versions: Versions,
    /// Until when the node's certificate is good, seconds since 1970 UTC; none before it has one.
    #[serde(default)]
    pub certificate_until: Option<u64>,
    /// Whether the cluster answers, since when, and how old what is kept of it is; none without `offline = true`.
    #[serde(default)]
    pub offline: Option<String>,
    /// Phases done, with the seconds that each took.
    pub phases: Vec<(String, f64)>,
}

impl Status {
    /// The text for a person with the card in a laptop.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{key}: {value}");
            }
        };
        line("state", &Some(self.state.to_string()));
        line("node", &self.node);
        line("phase", &self.phase);
        line("since", &(self.since > 0).then(|| timestamp(self.since)));
        line("owner", &self.owner.map(|owner| owner.to_string()));
        line("code", &self.code.map(|code| code.to_string()));
        line("error", &self.error);
        line("advice", &self.advice);
        for warning in &self.warnings {
            line("warning", &Some(warning.clone()));
        }
        line("next try", &self.next_try_seconds.map(|s| next_try(s, self.written)));
        for command in &self.manual_steps {
            line("left to do", &Some(command.clone()));
        }
        for exception in &self.exceptions {
            line("exception", &Some(exception.clone()));
        }
        line("seeds destroyed", &(self.seeds_destroyed > 0).then(|| self.seeds_destroyed.to_string()));
        line(
            "certificate until",
            &self.certificate_until.map(|until| {
                let over = if until < self.written { ", expired" } else { "" };
                format!("{}{over}", timestamp(until))
            }),
        );
        line("cluster", &self.offline);
        line("written", &Some(format!("{} (by this device's clock)", timestamp(self.written))));
        line("image", &Some(self.image.clone()));
        line("firstboot", &Some(env!("CARGO_PKG_VERSION").to_owned()));
        line("kubernetes", &self.versions.kubernetes.as_ref().map(|v| format!("{v} in the bundle")));
        line("kubelet", &self.versions.kubelet);
        line("containerd", &self.versions.containerd);
        if !self.phases.is_empty() {
            text.push_str("phases, with seconds:\n");
            for (name, seconds) in &self.phases {
                let _ = writeln!(text, "  {name:<12} {seconds:>8.2}");
            }
        }
        text
    }

    /// Where it is: tries and waits between them leave a device in its phase.
    pub(crate) fn place(&self) -> (State, Option<&str>) {
        let state = if self.state == State::Retrying { State::Working } else { self.state };
        (state, self.phase.as_deref())
    }

    /// Shows a fault: its owner, code, text and what to do about it.
    pub(crate) fn show_fault(&mut self, fault: &Fault) {
        self.owner = Some(fault.owner());
        self.code = Some(fault.code);
        self.error = Some(one_line(&fault.to_string()));
        self.advice = Some(fault.owner().advice().to_owned());
    }

    /// Shows that nothing is wrong any more.
    pub(crate) fn clear_fault(&mut self) {
        (self.owner, self.code, self.error, self.advice) = (None, None, None, None);
        self.next_try_seconds = None;
    }
}

/// When something is tried again, for people: the card may be looked at long after this was written.
pub(crate) fn next_try(seconds: u64, now: u64) -> String {
    format!("in {seconds} s, at {}", timestamp(now.saturating_add(seconds)))
}

/// Versions, each without a leading `v`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The device binary's.
    pub firstboot: String,
    /// Build id of the image.
    pub image: Option<String>,
    /// Of Kubernetes, in the image's bundle.
    pub kubernetes: Option<String>,
    /// Of kubelet: the bundle's, or the one that is installed, where it was asked.
    pub kubelet: Option<String>,
    /// Of containerd: the same.
    pub containerd: Option<String>,
}

/// The text cut or filled up with blank lines to the fixed size of the status file.
pub fn padded(text: &str) -> Vec<u8> {
    let mut bytes = text.replace('\n', "\r\n").into_bytes();
    bytes.resize(STATUS_SIZE, b'\n');
    bytes
}
