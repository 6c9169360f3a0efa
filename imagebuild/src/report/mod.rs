// SPDX-License-Identifier: Apache-2.0
//! `imagebuild report`: one HTML page about an image, for people: its disk, what uses the space, packages and versions,
//! digests, and how to flash it. It loads nothing, runs nothing, and the same image makes the same page.

mod drawing;
mod image;
mod manifest;
mod page;
mod space;
mod style;
#[cfg(test)]
mod tests;
mod text;

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// `imagebuild report`: writes the page.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The raw image, NAME.img; NAME.manifest.json is beside it, and SHA256SUMS may be
    image: PathBuf,
    /// The page [default: NAME.report.html beside the image]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `imagebuild report`: prints the path of the page.
///
/// # Errors
/// When the image or its manifest cannot be read, they are not of one build, or the page cannot be written.
pub fn main(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| args.image.with_extension("report.html"));
    let page = make(&args.image)?;
    write(&out, &page)?;
    println!("{}", out.display());
    Ok(())
}

/// The page about the image at this path.
fn make(path: &Path) -> Result<String> {
    if path.extension().is_some_and(|ending| ending == "zst" || ending == "gz") {
        bail!("open {}: unpack it first (zstd --decompress --keep)", path.display());
    }
    fs::metadata(path).with_context(|| format!("open {}", path.display()))?;
    let manifest = manifest::Manifest::beside(path)?;
    let image = image::Image::read(path, &manifest)?;
    for name in image.files.iter().filter(|file| file.is_as_summed == Some(false)).map(|file| &file.name) {
        eprintln!("imagebuild: warning: {name} was changed since SHA256SUMS was written; the page says so");
    }
    page::page(&manifest, &image)
}

/// Writes the page: whole, or not at all.
fn write(to: &Path, page: &str) -> Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, page).and_then(|()| fs::rename(&partial, to));
    if written.is_err() {
        // What is half-written is of no use, and the first error is the one that counts.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("write {}", to.display()))
}
