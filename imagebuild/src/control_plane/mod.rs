// SPDX-License-Identifier: Apache-2.0
//! `imagebuild cluster`: a cluster that a device creates by its seed, from this machine. It makes the seed and the
//! administrator's key, and takes what the device leaves on its card.

pub mod admin_key;
mod card;
mod join_seed;
mod kubeconfig;
mod new;
mod new_seed;

use anyhow::Result;

/// `imagebuild cluster`: creates a cluster by a card, and takes its kubeconfig and the next device's seed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  imagebuild cluster new --out shop --name shop
  imagebuild seed put shop/seed.toml /dev/sdb               then switch the device on, and wait for \"state: joined\"
  imagebuild cluster kubeconfig /dev/sdb --key shop/admin.key
  imagebuild cluster join-seed /dev/sdb --out next.toml
  imagebuild seed put next.toml /dev/sdc                    the card of the next device

WHERE is a disk image, a card or disk, or the directory at which a boot partition is mounted.
docs/clusters.md has it step by step.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the seed of a device that creates a cluster, and the administrator's private key
    New(Box<new::Args>),
    /// Make a kubeconfig of what the device left on its card and of the administrator's private key
    Kubeconfig(kubeconfig::Args),
    /// Copy the seed for the next device from the card of the device that created the cluster
    JoinSeed(join_seed::Args),
}

/// Runs `imagebuild cluster`.
///
/// # Errors
/// What cannot be made, read or written, on one line.
pub fn main(args: &Args) -> Result<()> {
    match &args.command {
        Command::New(args) => new::main(args),
        Command::Kubeconfig(args) => kubeconfig::main(args),
        Command::JoinSeed(args) => join_seed::main(args),
    }
}
