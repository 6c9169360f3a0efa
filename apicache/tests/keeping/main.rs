// SPDX-License-Identifier: Apache-2.0
//! What is recorded of answers, and what clients then hear without an API server. No network: the answers are given.
#![allow(clippy::unwrap_used)]

mod bench;
mod collections;
mod pruned;
mod single;
mod watches;
