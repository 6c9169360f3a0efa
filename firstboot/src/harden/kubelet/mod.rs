// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings of the hardened host, and how they are read back.

pub(crate) mod audit;
mod effective;
pub mod fields;
