// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed fleet`: one seed for each device of a table, in a directory with a sheet of labels, or all of them on
//! one card.

use super::bound;
use super::label::Label;
use super::make::{self, Device};
use super::{sheet_html, sheet_pdf};
use crate::cluster::bootstrap_token::{self, Created};
use crate::progress::warn;
use anyhow::{Context, Result, ensure};
use firstboot::boot_partition::seed_id;
use firstboot::hardware_id::{usable_mac, usable_serial};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Errors that are listed one by one; beyond them their number is.
const MOST_ERRORS: usize = 50;

/// Flags of `imagebuild seed fleet`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns are keys of the seed (node.name, node.labels.zone, network.addresses …), or serial, mac, place, note and x-…,
which are for the sheet. {column} in the strings of the base is replaced by the row's value.

Example:
  printf 'node.name,serial,place\\nshop-1,1000a3f2,Main St 1\\n' > devices.csv
  imagebuild seed fleet devices.csv --base seed.toml --out seeds
  imagebuild flash IMAGE /dev/sdb /dev/sdc --seeds seeds
One image for all of them:
  imagebuild seed fleet devices.csv --base seed.toml --into IMAGE")]
pub struct Args {
    /// Table of the devices: the first row names the columns, each further row is a device
    csv: PathBuf,
    /// Directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR", required_unless_present = "into")]
    out: Option<PathBuf>,
    /// Write all seeds into `seeds` on the boot partition of this image, card or stick, or of the directory at which it is
    /// mounted: each device takes its own, by serial number or MAC address, and destroys all
    #[arg(long, value_name = "IMAGE|DEVICE|DIR")]
    into: Option<PathBuf>,
    /// Seed with everything that the rows do not have
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Print each device's token on its label
    #[arg(long)]
    with_secrets: bool,
    #[command(flatten)]
    tokens: bound::Flags,
}

/// Runs `imagebuild seed fleet`.
///
/// # Errors
/// Lists everything that is wrong with the table; then nothing was written.
pub fn main(args: &Args) -> Result<()> {
    // Before any token is made: a disk in use is not written.
    let _held = args.into.as_deref().map(crate::seed::hold).transpose()?;
    let cluster = args.tokens.cluster()?;
    let base = args.base.as_deref();
    let (devices, mut tokens) = match &cluster {
        Some(cluster) => cluster.devices(&args.csv, base)?,
        None => (make::devices(&args.csv, base)?, Vec::new()),
    };
    let named = args.into.is_some().then(|| on_card(&devices)).transpose();
    let named = named.with_context(|| format!("make seeds from {}", args.csv.display()))?;
    make::warnings(&devices, SystemTime::now()).iter().for_each(|text| warn(text));
    if let Some(out) = &args.out {
        write(&devices, out, args.with_secrets)?;
        // From here on each is in a seed.
        tokens.drain(..).for_each(Created::keep);
        println!("{}: {} seeds, sheet.html and sheet.pdf", out.display(), devices.len());
    }
    if let (Some(into), Some(seeds)) = (&args.into, named) {
        let said = crate::seed::put_many(&seeds, into)?;
        tokens.drain(..).for_each(Created::keep);
        println!("{said}");
    }
    if cluster.is_some() {
        println!("{}", bootstrap_token::approval("each device gets one certificate, for its node"));
    }
    Ok(())
}

/// The seeds by the names that they have on a card.
fn on_card(devices: &[Device]) -> Result<Vec<(String, &[u8])>> {
    let (mut seeds, mut errors, mut taken) = (Vec::new(), Vec::new(), BTreeMap::new());
    for device in devices {
        let name = match card_name(device) {
            Ok(name) => name,
            Err(why) => {
                errors.push(format!("row {}: {why}", device.line));
                continue;
            }
        };
        match taken.insert(seed_id(&name), device.line) {
            Some(row) => errors.push(format!("row {}: serial or mac is that of row {row}, too", device.line)),
            None => seeds.push((name, device.seed.as_bytes())),
        }
    }
    let more = errors.len().saturating_sub(MOST_ERRORS);
    errors.truncate(MOST_ERRORS);
    errors.extend((more > 0).then(|| format!("and {more} other errors")));
    ensure!(errors.is_empty(), "nothing was written\n{}", errors.join("\n"));
    Ok(seeds)
}

/// Name of a device's file on a card, by the rules that the device has: by its serial number, or else its MAC address.
fn card_name(device: &Device) -> Result<String, String> {
    let column = |name: &str| device.columns.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    if let Some(serial) = column("serial") {
        let name = usable_serial(serial).ok_or_else(|| {
            format!("serial {serial:?} is a placeholder, has no letter or digit, or more than 58 characters")
        })?;
        return Ok(format!("{name}.toml"));
    }
    let mac = column("mac").ok_or("it has neither serial nor mac, by which a device finds its seed on a card")?;
    let name =
        usable_mac(mac).ok_or_else(|| format!("mac {mac:?} is no address of a device, as in dc:a6:32:01:02:03"))?;
    Ok(format!("{name}.toml"))
}

/// Writes all files to a directory beside the final one, and gives it its name when it is complete.
fn write(devices: &[Device], out: &Path, secrets: bool) -> Result<()> {
    let what = || format!("create {}", out.display());
    let used = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!used && !out.is_file(), "{}: there is something already: give another --out", what());
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut partial = tempfile::Builder::new();
    let partial = partial.prefix(".seeds-").permissions(Permissions::from_mode(0o700));
    let partial = partial.tempdir_in(parent).with_context(what)?;
    let private = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = partial.path().join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(|| format!("create {}", out.join(name).display()))?;
        file.write_all(bytes).with_context(|| format!("write {}", out.join(name).display()))
    };
    for device in devices {
        private(&format!("{}.toml", device.id), device.seed.as_bytes())?;
    }
    let labels: Vec<Label> = devices.iter().map(|device| Label::new(device, secrets)).collect();
    private("sheet.html", sheet_html::page(&labels).as_bytes())?;
    private("sheet.pdf", &sheet_pdf::document(&labels).context("make sheet.pdf")?)?;
    // One flush for all: ten thousand would take minutes.
    rustix::fs::syncfs(fs::File::open(partial.path()).with_context(what)?).with_context(what)?;
    fs::rename(partial.path(), out).with_context(what)?;
    let _ = partial.keep();
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fleet::label::testing::device;

    #[test]
    fn a_directory_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("seeds");
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // Two devices of one name: the second cannot be created.
        let error = format!("{:#}", write(&[device(1, "a"), device(1, "b")], &out, false).unwrap_err());
        assert!(error.starts_with(&format!("create {}: File exists", out.join("edge-1.toml").display())), "{error}");
        assert_eq!(names(dir.path()), [""; 0]);
        write(&[device(1, "a"), device(2, "b")], &out, false).unwrap();
        assert_eq!(names(&out), ["edge-1.toml", "edge-2.toml", "sheet.html", "sheet.pdf"]);
        assert_eq!(names(dir.path()), ["seeds"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&out), mode(&out.join("edge-1.toml"))), (0o700, 0o600));
        let error = write(&[device(1, "a")], &out, false).unwrap_err().to_string();
        assert_eq!(error, format!("create {}: there is something already: give another --out", out.display()));
    }

    #[test]
    fn a_seed_on_a_card_has_the_name_that_its_device_looks_for() {
        let with = |line: u64, serial: &str, mac: &str| {
            let mut device = device(1, "a");
            device.line = line;
            for (name, value) in [("serial", serial), ("mac", mac)] {
                device.columns.insert(name.to_owned(), value.to_owned());
            }
            device
        };
        let good = [
            with(2, "10000000A3F2B1C0", "dc:a6:32:01:02:03"),
            with(3, "", "DC-A6-32-01-02-04"),
            with(4, "PF 3X/7", ""),
        ];
        let names: Vec<String> = on_card(&good).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["10000000a3f2b1c0.toml", "dca632010204.toml", "pf-3x-7.toml"]);
        let mut bad = vec![with(2, "a-1", ""), with(3, "", ""), with(4, "", "dc:a6"), with(5, "A 1", "")];
        bad.extend([with(6, "//", ""), with(7, "Default string", ""), with(8, "", "00:11:22:33:44:55")]);
        let error = on_card(&bad).unwrap_err().to_string();
        assert_eq!(
            error,
            "nothing was written\n\
             row 3: it has neither serial nor mac, by which a device finds its seed on a card\n\
             row 4: mac \"dc:a6\" is no address of a device, as in dc:a6:32:01:02:03\n\
             row 5: serial or mac is that of row 2, too\n\
             row 6: serial \"//\" is a placeholder, has no letter or digit, or more than 58 characters\n\
             row 7: serial \"Default string\" is a placeholder, has no letter or digit, or more than 58 characters\n\
             row 8: mac \"00:11:22:33:44:55\" is no address of a device, as in dc:a6:32:01:02:03"
        );
    }
}
