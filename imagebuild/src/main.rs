// SPDX-License-Identifier: Apache-2.0
//! `imagebuild`: images, bundles and seeds. Each subcommand is a module; this is the table.

use anyhow::Result;
use clap::{Parser, Subcommand};
use imagebuild::component;

#[derive(Parser)]
#[command(name = "imagebuild", version, about = "Builds images, bundles and seeds for firstboot")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build one component of components.lock and print its path
    Component(component::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Component(args) => component::main(&args),
    }
}
