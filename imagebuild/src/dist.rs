// SPDX-License-Identifier: Apache-2.0
//! `imagebuild dist`: imagebuild itself for machines without this clone, as one static program with its manual pages and
//! completions. What writes cards, makes seeds and keeps clusters needs nothing of the clone; building images does.

use crate::arch::Arch;
use crate::device::{Program, ensure_program};
use crate::manual;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The program. It says what went wrong by unwinding, so it is not built as the device's are.
const IMAGEBUILD: Program = Program {
    what: "imagebuild program",
    package: "imagebuild",
    binary: "imagebuild",
    profile: "dist",
    max_bytes: 64 << 20,
    inputs: &[
        "imagebuild/Cargo.toml",
        "imagebuild/src",
        "imagebuild/tools",
        "firstboot/Cargo.toml",
        "firstboot/src",
        "firstboot/units",
        "initrd/Cargo.toml",
        "initrd/src",
    ],
};

/// Flags of `imagebuild dist`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  imagebuild dist && scp out/bin/imagebuild-amd64 laptop:imagebuild")]
pub struct Args {
    /// Architecture of the machine that it is for: arm64 or amd64 [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Directory for imagebuild-ARCH, man and completions
    #[arg(long, value_name = "DIR", default_value = "out/bin")]
    out: PathBuf,
}

/// Runs `imagebuild dist`. `command`: what the pages and completions are made of.
///
/// # Errors
/// When the program cannot be built, or the directory not be written.
pub fn main(args: &Args, command: clap::Command) -> Result<()> {
    let arch = args.arch.map_or_else(Arch::host, Ok)?;
    let program = ensure_program(&IMAGEBUILD, arch)?;
    let to = args.out.join(format!("imagebuild-{arch}"));
    beside(&args.out, command)?;
    put(&program, &to)?;
    println!("{}", to.display());
    Ok(())
}

/// Copies the program, which has its name when it is whole: an older one may be running.
fn put(program: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    let copied = std::fs::copy(program, &partial).and_then(|_| std::fs::rename(&partial, to));
    copied.with_context(|| format!("write {}", to.display()))
}

/// Manual pages and completions.
fn beside(out: &Path, command: clap::Command) -> Result<()> {
    manual::pages(&out.join("man"), command.clone())?;
    manual::completions_of_all(&out.join("completions"), command)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_with_all_that_a_laptop_needs() {
        let dir = tempfile::tempdir().unwrap();
        let (out, program) = (dir.path().join("bin"), dir.path().join("built"));
        std::fs::write(&program, "new").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let flash = clap::Command::new("flash").about("Write an image").arg(clap::Arg::new("yes").long("yes"));
        beside(&out, clap::Command::new("imagebuild").subcommand(flash)).unwrap();
        let to = out.join("imagebuild-arm64");
        std::fs::write(&to, "old").unwrap();
        put(&program, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let names = |directory: &str| {
            let mut names: Vec<String> = std::fs::read_dir(out.join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["completions", "imagebuild-arm64", "man"]);
        assert_eq!(names("man"), ["imagebuild-flash.1", "imagebuild.1"]);
        assert_eq!(names("completions"), ["_imagebuild", "imagebuild.bash", "imagebuild.fish"]);
        assert!(std::fs::read_to_string(out.join("completions/imagebuild.bash")).unwrap().contains("--yes"));
    }
}
