// SPDX-License-Identifier: Apache-2.0
//! The join in a process of its own, which has no rights.
//!
//! Until the node has its certificate, what the device reads from the network (TLS, HTTP, JSON, YAML, certificates) is
//! read by `firstboot-network@.service`: an account that exists only as long as it runs, no capability, no program to
//! execute, no file to write ([`crate::sandbox`]). The privileged part hands it what the join has to know, the token
//! included, and the public half of the node's key; it gets back the node's certificate and a hint at the cluster, and
//! looks at that cluster itself before it believes any of it. Between them is one local socket that root alone may open,
//! and [`message`]s of at most 4 MiB.
//!
//! | | |
//! |---|---|
//! | [`message`] | what the two say to each other, and how it is written down |
//! | [`confined`] | the join worker: enters its sandbox, joins, says what came of it |
//! | [`privileged`] | the other end: answers, and holds each message against what it can be |
//! | `validate` | whether a hint at the cluster can be one |

pub mod confined;
pub mod message;
pub mod privileged;
mod validate;

/// Where the join worker is reached.
pub const SOCKET: &str = "/run/firstboot-network.sock";
/// systemd listens there and starts a join worker for each connection.
pub const SOCKET_UNIT: &str = "firstboot-network.socket";
/// All join workers that run.
pub const SERVICE_UNITS: &str = "firstboot-network@*.service";

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod tests;
