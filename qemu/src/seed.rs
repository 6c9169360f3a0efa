// SPDX-License-Identifier: Apache-2.0
//! Text of a seed for a control plane of this harness.

use crate::control_plane::ControlPlane;
use anyhow::Result;
use clap::Parser;

/// The parts of a seed that tests vary.
#[derive(Debug, Clone)]
pub struct Seed {
    /// `HOST:PORT` of the API server.
    pub apiserver: String,
    /// Bootstrap token.
    pub token: String,
    /// Pin of the cluster CA.
    pub pin: String,
    /// Further lines, after `[cluster]`: other tables.
    pub more: String,
}

impl Seed {
    /// The right seed for a guest that is to join `plane` with `token`.
    pub fn for_guest(plane: &ControlPlane, token: &str) -> Result<Self> {
        Ok(Seed {
            apiserver: plane.endpoint_for_guest(),
            token: token.to_owned(),
            pin: plane.ca_pin()?,
            more: String::new(),
        })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        format!(
            "version = 1\n\n[cluster]\napiserver = \"{}\"\ntoken = \"{}\"\nca-cert-hashes = [\"{}\"]\n{}",
            self.apiserver, self.token, self.pin, self.more
        )
    }
}

/// Runs `imagebuild seed` with these words.
///
/// # Errors
/// Its own.
pub fn imagebuild(words: &[&str]) -> Result<()> {
    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: imagebuild::seed::Args,
    }
    imagebuild::seed::main(&Words::try_parse_from(["imagebuild seed"].iter().chain(words))?.args)
}

/// The part of a bootstrap token that is secret.
pub fn secret_of(token: &str) -> &str {
    token.split_once('.').map_or(token, |(_, secret)| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_reads_it() {
        let seed = Seed {
            apiserver: "10.0.2.2:6443".to_owned(),
            token: "abcdef.0123456789abcdef".to_owned(),
            pin: format!("sha256:{}", "0f".repeat(32)),
            more: "\n[node]\nrole = \"worker\"\n".to_owned(),
        };
        firstboot::seed::parse(seed.text().as_bytes()).unwrap();
        assert_eq!(secret_of(&seed.token), "0123456789abcdef");
    }
}
