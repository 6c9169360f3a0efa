// SPDX-License-Identifier: Apache-2.0
//! A fleet as a list of operating systems for Raspberry Pi Imager, in which each device is an entry.
//!
//! Format: raspberrypi/rpi-imager, doc/json-schema/os-list-schema.json (2026-08). `extract_sha256` is required there, and
//! SHA-256 takes a pass over the whole image of each device, because the seed is near its start. Imager compares it only
//! where it is not empty (src/downloadthread.cpp), so an empty one means: not known yet. It writes every byte in either
//! case (src/downloadextractthread.cpp, unlike downloadthread.cpp, skips no zeros), and reads back what it wrote.

use super::label::Label;
use super::make::{self, Device};
use super::patched::Template;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use time::OffsetDateTime;
use time::macros::format_description;

/// Flags that name a fleet.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Table of the devices, as for `imagebuild seed fleet`
    pub csv: PathBuf,
    /// Raw disk image
    #[arg(long, value_name = "IMG")]
    pub image: PathBuf,
    /// Seed with everything that the rows do not have
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Tag of Imager for the boards that the image is for, as pi5-64bit; more than once
    #[arg(long, value_name = "TAG")]
    pub device: Vec<String>,
}

/// Flags of `imagebuild fleet manifest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Address that `imagebuild fleet serve` is reached by, http://HOST:PORT/PREFIX
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// Compute the digest of each device's image: a pass over it, about a second for each gigabyte
    #[arg(long)]
    digests: bool,
    /// File to write; standard output without it
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A fleet: its devices, and what their images are made of.
pub struct Fleet {
    /// Its devices, in the order of the table.
    pub devices: Vec<Device>,
    /// What their images share.
    pub template: Template,
    tags: Vec<String>,
    date: String,
}

impl Fleet {
    /// Reads table and image.
    ///
    /// # Errors
    /// As [`make::devices`] and [`Template::new`].
    pub fn new(source: &Source) -> Result<Fleet> {
        let devices = make::devices(&source.csv, source.base.as_deref())?;
        let template = Template::new(&source.image, &devices)?;
        let date = date(&source.image)?;
        Ok(Fleet { devices, template, tags: source.device.clone(), date })
    }

    /// The manifest. `sha256` knows the digests of images, by the index of the device.
    pub fn manifest(&self, url: &str, sha256: &dyn Fn(usize) -> Option<String>) -> Value {
        let url = url.trim_end_matches('/');
        let entry = |(index, device): (usize, &Device)| {
            let label = Label::new(device, false);
            let mut entry = json!({
                "name": label.title,
                "description": if label.lines.is_empty() { "with its seed".to_owned() } else { label.lines.join(", ") },
                "icon": "",
                "url": format!("{url}/images/{}.img", encoded(&device.id)),
                "extract_size": self.template.len,
                "extract_sha256": "",
                "image_download_size": self.template.len,
                "release_date": self.date,
                "devices": self.tags,
                "init_format": "none",
            });
            // The image is sent as it is, so that both digests are one.
            if let Some(sum) = sha256(index) {
                entry["extract_sha256"] = sum.clone().into();
                entry["image_download_sha256"] = sum.into();
            }
            entry
        };
        let list: Vec<Value> = self.devices.iter().enumerate().map(entry).collect();
        // Imager asks for a board first. This one filters nothing.
        let board = json!({ "name": "Any board", "description": "All devices of this fleet", "tags": self.tags,
                            "matching_type": "inclusive" });
        json!({ "imager": { "devices": [board] }, "os_list": list })
    }

    /// The digests of all images, by as many threads as the machine has processors.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn digests(&self, each: &(dyn Fn(usize, String) + Sync)) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(device) = self.devices.get(index) else { return };
                        match self.template.of(device).sha256() {
                            Ok(sum) => each(index, sum),
                            Err(error) => {
                                if let Ok(mut failed) = failed.lock() {
                                    *failed = Some(error);
                                }
                                return;
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner() {
            Ok(Some(error)) => Err(error).context("read the image"),
            _ => Ok(()),
        }
    }
}

/// A file name as part of an address: percent-encoded (RFC 3986, §2.1).
fn encoded(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    name.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The day on which a file was written, as Imager shows it.
fn date(path: &Path) -> Result<String> {
    let what = || format!("read the date of {}", path.display());
    let changed = path.metadata().and_then(|m| m.modified()).with_context(what)?;
    OffsetDateTime::from(changed).format(format_description!("[year]-[month]-[day]")).with_context(what)
}

/// Runs `imagebuild fleet manifest`.
///
/// # Errors
/// As [`Fleet::new`]; and when the address is none or the file cannot be written.
pub fn main(args: &Args) -> Result<()> {
    let good = args.base_url.starts_with("http://") || args.base_url.starts_with("https://");
    ensure!(good, "read --base-url: it begins with neither http:// nor https://");
    let fleet = Fleet::new(&args.source)?;
    let sums = Mutex::new(vec![None; fleet.devices.len()]);
    if args.digests {
        fleet.digests(&|index, sum| {
            if let Ok(mut sums) = sums.lock() {
                sums[index] = Some(sum);
            }
        })?;
    }
    let sums = sums.into_inner().unwrap_or_default();
    let text = format!("{:#}\n", fleet.manifest(&args.base_url, &|index| sums.get(index).cloned().flatten()));
    let Some(out) = &args.out else {
        print!("{text}");
        return Ok(());
    };
    let what = || format!("write {}", out.display());
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = tempfile::NamedTempFile::new_in(parent).with_context(what)?;
    std::fs::write(partial.path(), text).with_context(what)?;
    partial.persist(out).with_context(what)?;
    println!("{}: {} entries", out.display(), fleet.devices.len());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "manifest_tests.rs"]
mod tests;
