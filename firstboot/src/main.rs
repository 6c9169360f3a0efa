// SPDX-License-Identifier: Apache-2.0
//! The device binary.
fn main() {}
