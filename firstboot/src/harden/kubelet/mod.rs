// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings on the hardened host, and their audit.

#[cfg(feature = "device")]
pub(crate) mod audit;
#[cfg(feature = "device")]
mod effective;
pub mod fields;
