// SPDX-License-Identifier: Apache-2.0
//! `imagebuild`: images, bundles and seeds. Each subcommand is a module; this is the table.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

const EXITS: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments; verify and flash also have 3 (a signature or digest \
is wrong; what is read back differs), flash 130 (interrupted).";

#[derive(Parser)]
#[command(name = "imagebuild", version, about = "Builds images, bundles and seeds for firstboot", after_help = EXITS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Approve certificates for tokens of one node
    Approver(imagebuild::approver::Args),
    /// Add firstboot to an image of an operating system, and change nothing else
    Bake(imagebuild::bake::Args),
    /// Build a bootable disk image
    Build(imagebuild::build::Args),
    /// Make the bundle of one architecture and print its path and sizes
    Bundle(imagebuild::bundle::Args),
    /// Create a cluster by a card: its seed, its kubeconfig, and the seed for the next device
    Cluster(imagebuild::control_plane::Args),
    /// Check formatting, lints, dependencies, documentation and sizes
    Check,
    /// Print the completions of a shell
    Completions(imagebuild::manual::CompletionArgs),
    /// Build one component of components.lock and print its path
    Component(imagebuild::component::Args),
    /// Build the device binary and print its path
    Device(imagebuild::device::Args),
    /// Write an image to cards or disks, verify it, and put seeds on them
    Flash(imagebuild::flash::Args),
    /// Offer the images of a fleet, each with its seed, to Raspberry Pi Imager
    Fleet(imagebuild::fleet::Args),
    /// Build the UEFI program that checks the boot files and print its path
    Loader(imagebuild::loader::Args),
    /// Write the manual pages
    Man(imagebuild::manual::ManArgs),
    /// Write a page about an image: its disk, what uses the space, packages and digests
    Report(imagebuild::report::Args),
    /// Make seeds, validate them and write them to images and cards
    Seed(imagebuild::seed::Args),
    /// Install what this machine lacks
    Setup(imagebuild::setup::Args),
    /// Verify the signature and the digest of an image
    Verify(imagebuild::sign::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The chain on one line; anyhow's own form adds a backtrace.
            eprintln!("imagebuild: {e:#}");
            ExitCode::from(imagebuild::exit::code(&e))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Approver(args) => imagebuild::approver::main(&args),
        Command::Bake(args) => imagebuild::bake::main(&args),
        Command::Build(args) => imagebuild::build::main(&args),
        Command::Bundle(args) => imagebuild::bundle::main(&args),
        Command::Check => imagebuild::check::main(),
        Command::Cluster(args) => imagebuild::control_plane::main(&args),
        Command::Completions(args) => {
            imagebuild::manual::completions(&args, Cli::command());
            Ok(())
        }
        Command::Component(args) => imagebuild::component::main(&args),
        Command::Device(args) => imagebuild::device::main(&args),
        Command::Flash(args) => imagebuild::flash::main(&args),
        Command::Fleet(args) => imagebuild::fleet::main(&args),
        Command::Loader(args) => imagebuild::loader::main(&args),
        Command::Man(args) => imagebuild::manual::man(&args, Cli::command()),
        Command::Report(args) => imagebuild::report::main(&args),
        Command::Seed(args) => imagebuild::seed::main(&args),
        Command::Setup(args) => imagebuild::setup::main(&args),
        Command::Verify(args) => imagebuild::sign::main(&args),
    }
}
