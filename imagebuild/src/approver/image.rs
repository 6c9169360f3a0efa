// SPDX-License-Identifier: Apache-2.0
//! `imagebuild approver image`: an OCI archive with one static program, built as the device binary is.

use crate::arch::Arch;
use crate::device::{Program, ensure_program};
use crate::oci::{self, Entry, Run, Tree};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Name of the image in the archive.
const REFERENCE: &str = "firstboot-approver:latest";
/// Where the program is in it.
const PATH: &str = "/firstboot-approver";

/// The approver alone, without the rest of imagebuild.
const APPROVER: Program = Program {
    what: "approver",
    package: "imagebuild",
    binary: "firstboot-approver",
    profile: "device",
    max_bytes: 8 << 20,
    inputs: &["imagebuild/Cargo.toml", "imagebuild/src", "firstboot/Cargo.toml", "firstboot/src", "initrd/src"],
};

/// Writes the image for `arch` to `to`.
///
/// # Errors
/// The program cannot be built, or the file not written.
pub fn write(arch: Arch, to: &Path) -> Result<()> {
    let program = ensure_program(&APPROVER, arch)?;
    let bytes = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let size = bytes.len();
    let mut tree = Tree::new();
    tree.insert(PATH.to_owned(), Entry::File { bytes, mode: 0o755, net_bind_service: false });
    let run = Run { entrypoint: vec![PATH.to_owned()], user: Some("65532:65532".to_owned()), path: None };
    let image = oci::image(&tree, &run, arch)?;
    // Under the final name there is a whole archive or none.
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::tempdir_in(directory).with_context(|| format!("create {}", to.display()))?;
    let file = scratch.path().join("image.tar");
    oci::write(&image, REFERENCE, arch, &file)?;
    fs::rename(&file, to).with_context(|| format!("write {}", to.display()))?;
    println!("{}: {REFERENCE} for {arch}, a program of {size} bytes", to.display());
    Ok(())
}
