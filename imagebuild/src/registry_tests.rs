// SPDX-License-Identifier: Apache-2.0
//! Tests of pulling, against Debian's `docker-registry` on loopback.
#![allow(clippy::unwrap_used)]
