// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed`: makes a seed, validates it as the device does, alone and at its cluster, signs it, writes it to an
//! image, card or stick.

pub(crate) mod admin_request;
mod ask;
mod directory;
mod from_cluster;
mod many;
mod new;
mod online;
mod place;
mod put;
mod sign;
mod token;

pub use many::put as put_many;
pub(crate) use place::hold;
pub use put::put;
pub use sign::sign;
pub(crate) use token::warning as token_warning;

use crate::disk::seed_partition;
use crate::progress;
use anyhow::{Context, Result, anyhow, bail, ensure};
use firstboot::boot_partition::{BootPartition, JOIN_SEED, STICK_LABEL};
use firstboot::seed::{Membership, NewCluster, Seed, SeedRequest, Trust};
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
        /// Write it even when the device would refuse it, or when its token has ended
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
            ensure!(!creates(&request), "sign {}: {ON_A_STICK}", file.display());
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
                let request = usable(&bytes).context("check the seed (--unchecked writes it as it is)")?;
                if creates(&request) && is_stick(disk)? {
                    bail!("write {} to {}: {ON_A_STICK}", file.display(), disk.display());
                }
            }
            let signature = sign::read(file)?;
            let _held = hold(disk)?;
            let said = match disk.is_dir() {
                true => directory::put(&bytes, signature.as_deref(), disk)?,
                false => put(&bytes, signature.as_deref(), disk)?,
            };
            println!("{said}");
            Ok(())
        }
    }
}

/// Why a seed that creates a cluster is for one device alone. A device refuses it.
const ON_A_STICK: &str = "it creates a cluster, and a stick goes from device to device: each would create one of its own; \
                          put it on the card of one device";

/// Whether a seed creates a cluster.
pub(crate) fn creates(request: &SeedRequest) -> bool {
    matches!(request, SeedRequest::Join(seed) if seed.create().is_some())
}

/// Whether a place is a stick: an image, a disk, or the directory at which one is mounted.
fn is_stick(place: &Path) -> Result<bool> {
    match place.is_dir() {
        true => directory::is_stick(place),
        false => seed_partition(place).map(|found| found.label == STICK_LABEL),
    }
}

/// The boot partition of a disk or image, or a stick.
///
/// # Errors
/// There is none.
pub(crate) fn boot_partition(disk: &Path) -> Result<BootPartition> {
    seed_partition(disk).map(|found| found.partition)
}

/// What `seed check` says of a seed that joins or creates a cluster.
///
/// # Errors
/// The seed is refused.
pub(crate) fn description(bytes: &[u8]) -> Result<String> {
    parse(bytes).map(|seed| describe(&seed))
}

/// What `seed check` says of a good seed, and with `warn` of its token's life.
fn judged(bytes: &[u8], warn: bool) -> Result<String> {
    match usable(bytes)? {
        SeedRequest::Join(seed) => {
            if warn {
                token::warn(&seed);
                if seed.create().is_some_and(|cluster| cluster.admin_request.is_none()) {
                    progress::warn("the seed has no admin-request: the device leaves no kubeconfig on its card");
                }
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
    seed.check_dates(SystemTime::now()).map_err(refused)?;
    Ok(seed)
}

/// The same for one that may ask for a reset alone.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<SeedRequest> {
    let request = firstboot::seed::parse_request(bytes).map_err(refused)?;
    if let SeedRequest::Join(seed) = &request {
        seed.check_dates(SystemTime::now()).map_err(refused)?;
        if let Some(request) = seed.create().and_then(|cluster| cluster.admin_request.as_deref()) {
            admin_request::subject(request)?;
        }
    }
    Ok(request)
}

/// The same for one that is to be written: its token has not ended.
pub(crate) fn usable(bytes: &[u8]) -> Result<SeedRequest> {
    let request = parse_request(bytes)?;
    if let SeedRequest::Join(seed) = &request {
        token::ended(seed, SystemTime::now())?;
    }
    Ok(request)
}

/// Code and text, as the device gives them; no value, which may be a secret.
fn refused(error: firstboot::seed::Error) -> anyhow::Error {
    anyhow!("{}: {error}", error.code)
}

/// A seed on one line, without the secret.
fn describe(seed: &Seed) -> String {
    let mut text = match &seed.membership {
        Membership::Join(cluster) => {
            let servers: Vec<String> = cluster.apiserver.iter().map(ToString::to_string).collect();
            let trust = match &cluster.trust {
                Trust::Pins(pins) if pins.len() == 1 => "1 CA hash".to_owned(),
                Trust::Pins(pins) => format!("{} CA hashes", pins.len()),
                Trust::Ca(_) => "the CA certificate".to_owned(),
            };
            let (servers, token) = (servers.join(", "), cluster.token.id());
            let role = if cluster.certificate_key.is_some() { " as a control plane" } else { "" };
            format!("good: joins {servers}{role} with token {token} (secret not shown), trusting {trust}")
        }
        Membership::Create(cluster) => describe_new(cluster),
    };
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

fn describe_new(cluster: &NewCluster) -> String {
    let at = cluster.endpoint.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let mut text = format!("good: creates a cluster{at}, {}", cluster.networks());
    if let Some(subject) = cluster.admin_request.as_deref().and_then(|request| admin_request::subject(request).ok()) {
        text += &format!("; administrator {subject}");
    }
    if let Some(address) = cluster.virtual_ip {
        text += &format!("; control planes share {address}");
    }
    text += &match cluster.join_seed_hours {
        0 => format!("; no {JOIN_SEED}"),
        hours => format!("; tokens of {JOIN_SEED} are good for {hours} h"),
    };
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

    #[test]
    fn a_seed_that_creates_a_cluster_is_for_a_card_and_not_for_a_stick() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let text = "version = 1\n[cluster]\ncreate = true\nendpoint = \"api.example.com\"\njoin-seed-hours = 0\n";
        std::fs::write(at("seed.toml"), text).unwrap();
        for (name, label) in [("card.img", b"BOOT       "), ("stick.img", b"SEED       ")] {
            let image = std::fs::File::options().read(true).write(true).create_new(true).open(at(name)).unwrap();
            image.set_len(16 << 20).unwrap();
            let options = fatfs::FormatVolumeOptions::new().volume_label(*label);
            fatfs::format_volume(fscommon::BufStream::new(image), options).unwrap();
        }
        let put = |disk: &str, unchecked| {
            let result = main(&Args { command: Command::Put { file: at("seed.toml"), disk: at(disk), unchecked } });
            result.map_err(|error| format!("{error:#}").replace(&format!("{}/", dir.path().display()), ""))
        };
        put("card.img", false).unwrap();
        put("stick.img", true).unwrap();
        assert_eq!(put("stick.img", false), Err(format!("write seed.toml to stick.img: {ON_A_STICK}")));
        let key = at("key");
        let error = main(&Args { command: Command::Sign { key, file: at("seed.toml") } }).unwrap_err().to_string();
        assert!(error.ends_with(ON_A_STICK), "{error}");
        assert_eq!(
            judged(text.as_bytes(), true).unwrap(),
            "good: creates a cluster at api.example.com:6443, pods in 10.244.0.0/16, Services in 10.96.0.0/12; no \
             join-edge.toml"
        );
        // The device's parser looks at the form of a request alone.
        let der =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [&[0x30, 62][..], &[0; 62]].concat());
        let request = format!("-----BEGIN CERTIFICATE REQUEST-----\n{der}\n-----END CERTIFICATE REQUEST-----\n");
        let error = judged(format!("{text}admin-request = \"\"\"\n{request}\"\"\"\n").as_bytes(), false).unwrap_err();
        assert_eq!(error.to_string(), "read admin-request in [cluster]: it is no certificate request (PKCS #10)");
    }

    #[test]
    fn a_seed_whose_token_has_ended_is_written_only_unchecked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, disk) = (dir.path().join("seed.toml"), dir.path().join("card.img"));
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
             ca-cert-hashes = \"sha256:{}\"\ntoken-expires = 2020-01-01T00:00:00Z\n",
            "0".repeat(64)
        );
        std::fs::write(&file, &text).unwrap();
        let image = std::fs::File::options().read(true).write(true).create_new(true).open(&disk).unwrap();
        image.set_len(16 << 20).unwrap();
        let options = fatfs::FormatVolumeOptions::new().volume_label(*b"BOOT       ");
        fatfs::format_volume(fscommon::BufStream::new(image), options).unwrap();
        let put =
            |unchecked| main(&Args { command: Command::Put { file: file.clone(), disk: disk.clone(), unchecked } });
        let on_disk = || boot_partition(&disk).unwrap().read("seed.toml").unwrap();
        let why = "cluster.token-expires is past: the token has ended, and no device joins with it; make a new seed";
        let error = put(false).unwrap_err();
        assert_eq!(format!("{error:#}"), format!("check the seed (--unchecked writes it as it is): {why}"));
        assert_eq!((crate::exit::code(&error), on_disk()), (crate::exit::FAILED, None));
        put(true).unwrap();
        assert_eq!(on_disk(), Some(text.into_bytes()));
    }
}
