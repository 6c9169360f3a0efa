// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed`: makes a seed, validates it as the device does, alone and at its cluster, signs it, writes it to an
//! image, card or stick.

mod ask;
mod directory;
mod from_cluster;
mod many;
mod new;
mod online;
mod put;
mod sign;
mod token;

pub use many::put as put_many;
pub use put::put;
pub use sign::sign;
pub(crate) use token::warning as token_warning;

use anyhow::{Context, Result, anyhow};
use firstboot::seed::{Seed, SeedRequest, Trust};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// `imagebuild seed`: makes, validates, signs and writes seeds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kubeadm token create --print-join-command | imagebuild seed new --join - --out seed.toml
  imagebuild seed check seed.toml
  imagebuild seed put seed.toml /dev/sdb
  imagebuild seed show /dev/sdb
  imagebuild seed fleet devices.csv --base seed.toml --out seeds")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a seed
    New(Box<new::Args>),
    /// Validate a seed as the device does, or all seeds of a directory or card
    Check {
        /// The seed, a directory of seeds (`NAME.toml`, or a mounted card), or an image, card or disk
        file: PathBuf,
        /// Ask its API servers, too: what a device would find there, one line each. Changes nothing in the cluster
        #[arg(long)]
        online: bool,
        #[command(flatten)]
        online_args: online::Args,
    },
    /// Print a seed without its secrets, or all seeds of a directory or card
    Show {
        /// The seed, a directory of seeds, or an image, card or disk
        file: PathBuf,
    },
    /// Make one seed for each row of a table, and a sheet of labels
    Fleet(crate::fleet::seeds::Args),
    /// Sign a seed for a stick, so that devices of its owner obey it which have joined: writes FILE.sig
    Sign {
        /// Private key of the owner, or the public one of a key that ssh-agent holds
        #[arg(long)]
        key: PathBuf,
        /// The seed
        file: PathBuf,
    },
    /// Write a seed onto the boot partition of an image, card or disk, or onto a stick, there with FILE.sig
    Put {
        /// The seed
        file: PathBuf,
        /// Disk image, block device, or directory at which a boot partition or stick is mounted
        disk: PathBuf,
        /// Write it even when the device would refuse it
        #[arg(long)]
        unchecked: bool,
    },
}

/// Runs `imagebuild seed`.
pub fn main(args: &Args) -> Result<()> {
    match &args.command {
        Command::New(args) => new::main(args),
        Command::Check { file, online: true, online_args } => online::main(file, online_args),
        Command::Check { file, online: false, .. } => {
            let seeds = many::at(file)?;
            match &seeds[..] {
                [(_, bytes)] if !file.is_dir() => println!("{}", judged(bytes, true)?),
                _ => many::each(file, &seeds, |name, bytes| Ok(format!("{name}: {}\n", judged(bytes, false)?)))?,
            }
            Ok(())
        }
        Command::Show { file } => {
            let masked = |bytes: &[u8]| firstboot::seed::masked(bytes).map_err(refused);
            let seeds = many::at(file)?;
            match &seeds[..] {
                [(_, bytes)] if !file.is_dir() => print!("{}", masked(bytes)?),
                _ => {
                    many::each(file, &seeds, |name, bytes| Ok(format!("# {name}\n{}\n\n", masked(bytes)?.trim_end())))?
                }
            }
            Ok(())
        }
        Command::Fleet(args) => crate::fleet::seeds::main(args),
        Command::Sign { key, file } => {
            let request = parse_request(&read(file)?).context("check the seed")?;
            let key = sign::sign(key, file)?;
            println!("{} is signed by {key}", file.display());
            if matches!(request, SeedRequest::Join(seed) if !seed.reset) {
                println!("note: without reset = true a device whose certificate is good leaves the seed alone");
            }
            Ok(())
        }
        Command::Put { file, disk, unchecked } => {
            let bytes = read(file)?;
            if !unchecked {
                parse_request(&bytes).context("check the seed (--unchecked writes it as it is)")?;
            }
            let signature = sign::read(file)?;
            let said = match disk.is_dir() {
                true => directory::put(&bytes, signature.as_deref(), disk)?,
                false => put(&bytes, signature.as_deref(), disk)?,
            };
            println!("{said}");
            Ok(())
        }
    }
}

/// What `seed check` says of a good seed, and with `warn` of its token's life.
fn judged(bytes: &[u8], warn: bool) -> Result<String> {
    match parse_request(bytes)? {
        SeedRequest::Join(seed) => {
            token::ended(&seed, SystemTime::now())?;
            if warn {
                token::warn(&seed);
            }
            Ok(describe(&seed))
        }
        SeedRequest::Reset { .. } => Ok("good: resets the device, which then waits for a seed".to_owned()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// Parses a seed that joins, with the device's own parser. Unlike a device, this machine has a clock.
fn parse(bytes: &[u8]) -> Result<Seed> {
    let seed = firstboot::seed::parse(bytes).map_err(refused)?;
    seed.cluster.trust.check_dates(SystemTime::now()).map_err(refused)?;
    Ok(seed)
}

/// The same for one that may ask for a reset alone.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<SeedRequest> {
    let request = firstboot::seed::parse_request(bytes).map_err(refused)?;
    if let SeedRequest::Join(seed) = &request {
        seed.cluster.trust.check_dates(SystemTime::now()).map_err(refused)?;
    }
    Ok(request)
}

/// Code and text, as the device gives them; no value, which may be a secret.
fn refused(error: firstboot::seed::Error) -> anyhow::Error {
    anyhow!("{}: {error}", error.code)
}

/// A seed on one line, without the secret.
fn describe(seed: &Seed) -> String {
    let servers: Vec<String> = seed.cluster.apiserver.iter().map(ToString::to_string).collect();
    let trust = match &seed.cluster.trust {
        Trust::Pins(pins) if pins.len() == 1 => "1 CA hash".to_owned(),
        Trust::Pins(pins) => format!("{} CA hashes", pins.len()),
        Trust::Ca(_) => "the CA certificate".to_owned(),
    };
    let token = seed.cluster.token.id();
    let mut text =
        format!("good: joins {} with token {token} (secret not shown), trusting {trust}", servers.join(", "));
    let addresses: Vec<String> = seed.network.addresses.iter().map(ToString::to_string).collect();
    // By which two seeds of one batch differ.
    for (what, value) in
        [("node", seed.node.name.as_ref().map(|name| name.as_str().to_owned())), ("at", Some(addresses.join(", ")))]
    {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!("; {what} {value}");
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_described_without_its_secret() {
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
             ca-cert-hashes = [\"sha256:{}\"]\n",
            "0".repeat(64)
        );
        assert_eq!(
            describe(&parse(text.as_bytes()).unwrap()),
            "good: joins 192.0.2.1:6443 with token abcdef (secret not shown), trusting 1 CA hash"
        );
        let named = format!(
            "{text}[node]\nname = \"shop-1\"\n[network]\naddresses = [\"192.0.2.9/24\"]\ngateway = \"192.0.2.1\"\n"
        );
        assert!(
            describe(&parse(named.as_bytes()).unwrap()).ends_with("trusting 1 CA hash; node shop-1; at 192.0.2.9/24")
        );
        let error = parse(text.replace("token =", "tokn =").as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "FB105: seed.toml:4: unknown key \"tokn\" in [cluster]; did you mean token?");
    }
}
