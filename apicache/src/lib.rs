// SPDX-License-Identifier: Apache-2.0
//! A cache of the Kubernetes API on a node: what kubelet and its like have read stays readable without an API server, so
//! that pods come back after a reboot. docs/offline.md says what is answered how, and why that suffices.
//!
//! It knows nothing of firstboot: settings in ([`config`]), a port out. [`supervisor`] holds the port, [`worker`] serves.

pub mod body;
pub mod config;
mod copy;
mod direct;
pub mod identity;
mod kept;
pub mod list;
pub mod object;
pub mod offline;
pub mod outage;
pub mod proxy;
mod prune;
pub mod questions;
pub mod record;
pub mod request;
pub mod rewrite;
pub mod selector;
pub mod store;
pub mod supervisor;
pub mod upstream;
pub mod wire;
pub mod worker;
mod writer;
