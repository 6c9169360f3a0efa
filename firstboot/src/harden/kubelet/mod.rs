// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings on the hardened host, and their audit.

pub(crate) mod audit;
mod effective;
pub mod fields;
