// SPDX-License-Identifier: Apache-2.0
//! This device as a node of its cluster: its files, its credential, and how it talks to the API server.

pub(crate) mod client;
pub mod credential;
pub(crate) mod events;
pub mod kubelet_serving_cert;
pub(crate) mod proxy_env;
pub mod recover;
pub mod repair;
