// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed fleet`: a directory with one seed for each device of a table, and a sheet of labels.

use super::bound;
use super::label::Label;
use super::make::{self, Device};
use super::{sheet_html, sheet_pdf};
use crate::cluster::bootstrap_token::{self, Created};
use anyhow::{Context, Result, ensure};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Flags of `imagebuild seed fleet`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns are keys of the seed (node.name, node.labels.zone, network.addresses …), or serial, mac, place, note and x-…,
which are for the sheet. {column} in the strings of the base is replaced by the row's value.

Example:
  printf 'node.name,serial,place\\nshop-1,1000a3f2,Main St 1\\n' > devices.csv
  imagebuild seed fleet devices.csv --base seed.toml --out seeds
  imagebuild flash IMAGE /dev/sdb /dev/sdc --seeds seeds")]
pub struct Args {
    /// Table of the devices: the first row names the columns, each further row is a device
    csv: PathBuf,
    /// Directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
    let cluster = args.tokens.cluster()?;
    let base = args.base.as_deref();
    let (devices, tokens) = match &cluster {
        Some(cluster) => cluster.devices(&args.csv, base)?,
        None => (make::devices(&args.csv, base)?, Vec::new()),
    };
    for text in make::warnings(&devices, SystemTime::now()) {
        eprintln!("imagebuild: warning: {text}");
    }
    write(&devices, &args.out, args.with_secrets)?;
    // From here on each is in a seed.
    tokens.into_iter().for_each(Created::keep);
    println!("{}: {} seeds, sheet.html and sheet.pdf", args.out.display(), devices.len());
    if cluster.is_some() {
        println!("{}", bootstrap_token::approval("each device gets one certificate, for its node"));
    }
    Ok(())
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
}
