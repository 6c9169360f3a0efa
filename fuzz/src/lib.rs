// SPDX-License-Identifier: Apache-2.0
//! What must hold of everything that firstboot reads from outside, whatever the bytes: one [`Target`] each.
//!
//! A target takes any input and panics when its property does not hold. libFuzzer drives it (src/main.rs, feature
//! `engine`); the tests of this crate replay the corpora without it. What is compared with is computed here by other
//! means than firstboot's own. docs/testing.md says how to run one and what to do with a finding.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic reports a finding

mod boot_partition;
mod certificates;
mod cluster_config;
mod date;
mod join_line;
mod jws;
mod kubeconfig;
mod preseed;
mod secrets;
mod seed;
mod ssh_signature;
mod worker_messages;

/// One thing to fuzz.
#[derive(Debug)]
pub struct Target {
    /// Also the name of its corpus and dictionary.
    pub name: &'static str,
    /// Panics when a property does not hold of this input.
    pub run: fn(&[u8]),
    /// Longest input worth trying, bytes.
    pub max_len: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "seed", run: seed::run, max_len: 2048 },
    Target { name: "join-line", run: join_line::run, max_len: 512 },
    Target { name: "jws", run: jws::run, max_len: 512 },
    Target { name: "kubeconfig", run: kubeconfig::run, max_len: 2048 },
    Target { name: "cluster-config", run: cluster_config::run, max_len: 2048 },
    Target { name: "certificates", run: certificates::run, max_len: 2048 },
    Target { name: "boot-partition", run: boot_partition::run, max_len: 512 },
    Target { name: "ssh-signature", run: ssh_signature::run, max_len: 1024 },
    Target { name: "date", run: date::run, max_len: 64 },
    Target { name: "preseed", run: preseed::run, max_len: 1024 },
    Target { name: "worker-messages", run: worker_messages::run, max_len: 2048 },
];
