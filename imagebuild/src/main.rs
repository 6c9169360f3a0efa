// SPDX-License-Identifier: Apache-2.0
//! `imagebuild`: images, bundles and seeds. Each subcommand is a module; this is the table.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use rustix::io::Errno;
use signal_hook::consts::SIGPIPE;
use std::any::Any;
use std::io::Write;
use std::panic;
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
    /// Build imagebuild itself as one static program, for machines without this clone
    Dist(imagebuild::dist::Args),
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
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !is_closed_output(info.payload()) {
            usual(info);
        }
    }));
    let done = panic::catch_unwind(|| run(Cli::parse().command)).unwrap_or_else(|payload| {
        if is_closed_output(&*payload) {
            // As other programs end in `… | head`. Until here that signal is ignored: by its default action a client of
            // `fleet serve` that hangs up would end this program, too, and so would a program that reads no input.
            let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
        }
        panic::resume_unwind(payload)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The chain on one line; anyhow's own form adds a backtrace. Without a reader the exit code still says it.
            let _ = writeln!(std::io::stderr(), "imagebuild: {e:#}");
            ExitCode::from(imagebuild::exit::code(&e))
        }
    }
}

/// Whether a panic is that of `print!` or `eprint!` whose reader has gone.
fn is_closed_output(payload: &(dyn Any + Send)) -> bool {
    let end = format!("(os error {})", Errno::PIPE.raw_os_error());
    let text = payload.downcast_ref::<String>();
    text.is_some_and(|text| text.starts_with("failed printing to std") && text.ends_with(&end))
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
        Command::Dist(args) => imagebuild::dist::main(&args, Cli::command()),
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
