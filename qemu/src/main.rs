// SPDX-License-Identifier: Apache-2.0
//! `qemu`: the demo, the bench and the comparison of two images, on emulated devices and a real control plane.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Emulated devices and a real control plane")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image, boot it on an emulated device, and show it join a real cluster.
    Demo(qemu::demo::Args),
    /// Compare firstboot's join with kubeadm's.
    Bench(qemu::bench::Args),
    /// Compare the image of this tree with another image, from power-on to Ready.
    Compare(qemu::compare::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => qemu::demo::main(&args),
        Command::Bench(args) => qemu::bench::main(&args),
        Command::Compare(args) => qemu::compare::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<qemu::demo::Reported>() {
                eprintln!("qemu: {}", qemu::explain(&error));
            }
            ExitCode::FAILURE
        }
    }
}
