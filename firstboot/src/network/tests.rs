// SPDX-License-Identifier: Apache-2.0
//! Shared helpers for tests of the link.

use crate::seed::{self, Network};

/// `[network]` with these lines, of a seed whose API server is 10.0.2.2.
pub(crate) fn network(lines: &str) -> Network {
    seed::parse(text(lines).as_bytes()).unwrap().network
}

/// The seed itself.
pub(crate) fn text(lines: &str) -> String {
    format!(
        "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
         \"sha256:{}\"\n[network]\n{lines}\n",
        "0".repeat(64)
    )
}
