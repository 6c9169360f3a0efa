// SPDX-License-Identifier: Apache-2.0
//! Many devices at once: seeds and labels from a table; their images for Raspberry Pi Imager.

mod bound;
mod column;
mod label;
mod make;
mod manifest;
mod patched;
pub mod seeds;
mod serve;
mod sheet_csv;
mod sheet_html;
mod sheet_pdf;

use anyhow::Result;

/// `imagebuild fleet`: the images of a fleet, each with its seed, without a copy for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  imagebuild fleet serve devices.csv --base seed.toml --image out/images/generic-arm64.img
It prints the address that Raspberry Pi Imager is started with: rpi-imager --repo http://127.0.0.1:8085/…")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the list that Raspberry Pi Imager reads: an entry for each device
    Manifest(manifest::Args),
    /// Serve that list and the images, each with the device's seed in it
    Serve(serve::Args),
}

/// Runs `imagebuild fleet`.
///
/// # Errors
/// As the subcommand.
pub fn main(args: &Args) -> Result<()> {
    match &args.command {
        Command::Manifest(args) => manifest::main(args),
        Command::Serve(args) => serve::main(args),
    }
}
