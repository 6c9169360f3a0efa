// SPDX-License-Identifier: Apache-2.0
//! Builds what a device needs: tool chain, components, bundle, root file system, disk image, seed.

pub mod cache;
pub mod cmd;
pub mod debian;
