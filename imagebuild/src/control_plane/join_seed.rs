// SPDX-License-Identifier: Apache-2.0
//! `imagebuild cluster join-seed`: the seed for the next device, from the card of the one that created the cluster.

use super::card::Card;
use crate::cmd::quoted;
use crate::private_file::write;
use crate::seed;
use anyhow::{Context, Result, bail, ensure};
use firstboot::boot_partition::{JOIN_CONTROL_PLANE_SEED, JOIN_SEED};
use firstboot::seed::SeedRequest;
use firstboot::text::{timestamp, unix_seconds};
use std::path::PathBuf;
use std::time::SystemTime;

/// What helps against a file that is not complete or too old.
const RENEWS: &str = "switch the device on, which renews it, and try again";

/// Flags of `imagebuild cluster join-seed`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  imagebuild cluster join-seed /dev/sdb --out next.toml && imagebuild seed put next.toml /dev/sdc

The file lets each machine join that has it, until its token ends. The device renews it while it is on. With
--control-plane it is enough to take the cluster over.")]
pub struct Args {
    /// Image, card or disk of the device, or the directory at which its boot partition is mounted
    #[arg(value_name = "WHERE")]
    place: PathBuf,
    /// The seed of one more control plane, which a device leaves whose seed has join-control-plane = true
    #[arg(long)]
    control_plane: bool,
    /// File to write [default: the name of the file on the card]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

/// Runs `imagebuild cluster join-seed`.
///
/// # Errors
/// There is no such seed, it is not complete, its token has ended, or the file exists already.
pub fn main(args: &Args) -> Result<()> {
    let name = if args.control_plane { JOIN_CONTROL_PLANE_SEED } else { JOIN_SEED };
    let out = &args.out.clone().unwrap_or_else(|| name.into());
    if !args.force && out.exists() {
        bail!("create {}: it exists already; --force replaces it", out.display());
    }
    let card = Card::open(&args.place)?;
    let text = card.read(name)?;
    let until = ends(text.as_bytes(), SystemTime::now()).with_context(|| format!("use {}", card.file(name)))?;
    write(out, text.as_bytes(), args.force)?;
    println!("{}: {}", out.display(), seed::description(text.as_bytes())?);
    let until = timestamp(unix_seconds(until));
    println!(
        "until {until} each machine that has it can join; for the next card: imagebuild seed put {} CARD",
        quoted(&out.to_string_lossy())
    );
    Ok(())
}

/// When the token of the seed ends, which is after `now`.
fn ends(text: &[u8], now: SystemTime) -> Result<SystemTime> {
    // Half of a file, or one whose token is overwritten.
    let request = seed::parse_request(text).with_context(|| format!("it is not complete: {RENEWS}"))?;
    let ends = match &request {
        SeedRequest::Join(seed) => seed.join().and_then(|cluster| cluster.token_expires),
        SeedRequest::Reset { .. } => None,
    };
    let ends = ends.with_context(|| format!("it is not complete: {RENEWS}"))?;
    ensure!(ends > now, "its token ended at {}: {RENEWS}", timestamp(unix_seconds(ends)));
    Ok(ends)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    /// As `firstboot/src/control_plane/card.rs` writes it.
    fn left(ends: SystemTime) -> String {
        format!(
            "# Seed for the next device\r\nversion = 1\r\n\r\n[cluster]\r\napiserver = \"192.0.2.7:6443\"\r\n\
             token = \"abcdef.0123456789abcdef\"\r\nca-cert-hashes = [\"sha256:{:064}\"]\r\ntoken-expires = {}\r\n\r\n\
             [harden]\r\nopen = [\"udp/8472\"]\r\n",
            7,
            timestamp(unix_seconds(ends))
        )
    }

    fn fails(args: &Args, dir: &Path) -> String {
        let text = format!("{:#}", main(args).unwrap_err());
        assert!(!text.contains('\n') && !text.contains("0123456789abcdef"), "{text}");
        text.replace(&format!("{}/", dir.display()), "")
    }

    #[test]
    fn the_seed_for_the_next_device_is_taken_while_its_token_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let (card, out) = (dir.path().join("BOOT"), dir.path().join("next.toml"));
        fs::create_dir(&card).unwrap();
        let args = Args { place: card.clone(), control_plane: false, out: Some(out.clone()), force: false };
        assert_eq!(
            fails(&args, dir.path()),
            "find join-edge.toml on BOOT: it is not there; a device leaves it when it has created its cluster"
        );
        let hour = Duration::from_secs(3600);
        let good = left(SystemTime::now() + hour);
        let put = |text: &str| fs::write(card.join(JOIN_SEED), text).unwrap();
        put(&left(SystemTime::now() - hour));
        let text = fails(&args, dir.path());
        assert!(text.starts_with("use join-edge.toml on BOOT: its token ended at "), "{text}");
        assert!(text.ends_with(": switch the device on, which renews it, and try again"), "{text}");
        let without = good.lines().filter(|line| !line.starts_with("token-expires")).collect::<Vec<_>>().join("\n");
        for text in [
            &good[..good.len() / 2],
            "",
            &without,
            "version = 1\nreset = true\n",
            "version = 1\n[cluster]\ncreate = true\n",
        ] {
            put(text);
            let text = fails(&args, dir.path());
            assert!(text.starts_with("use join-edge.toml on BOOT: it is not complete: switch the device on"), "{text}");
        }
        assert!(!out.exists());
        put(&good);
        main(&args).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), good);
        assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fails(&args, dir.path()), "create next.toml: it exists already; --force replaces it");
        main(&Args { force: true, ..args }).unwrap();
    }
}
