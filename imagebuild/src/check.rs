// SPDX-License-Identifier: Apache-2.0
//! `make check`: what must hold of the tree before any test runs. Each step is one row of [`STEPS`].

use crate::arch::Arch;
use crate::{advisories, cmd, dependencies, device, go, loader, repo};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The result of a step that did not fail.
pub enum Verdict {
    /// It passed; what was seen, in a few words.
    Ok(String),
    /// It could not be checked, and why.
    Skipped(String),
}

type Step = (&'static str, fn(&Path) -> Result<Verdict>);

/// The steps, in order.
const STEPS: &[Step] = &[
    ("format", format),
    ("lints", lints),
    ("dependencies", dependencies::check),
    ("dependencies of the tools", dependencies::check_tools),
    ("advisories", advisories::check),
    ("Go tool chain", |_| go_tool_chain()),
    ("documentation", documentation),
    ("size arm64", |_| size(Arch::Arm64)),
    ("size amd64", |_| size(Arch::Amd64)),
    ("size verify.efi arm64", |_| size_of_loader(Arch::Arm64)),
    ("size verify.efi amd64", |_| size_of_loader(Arch::Amd64)),
];

/// Runs `imagebuild check`: every step, even after one failed. Prints one line for each, and the sum last.
///
/// # Errors
/// When a step failed.
pub fn main() -> Result<()> {
    let root = repo::root()?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, step) in STEPS {
        let start = Instant::now();
        let result = step(&root);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(Verdict::Ok(seen)) => {
                passed += 1;
                println!("check {name} ... ok ({seen}; {seconds:.1} s)");
            }
            Ok(Verdict::Skipped(why)) => {
                skipped += 1;
                println!("check {name} ... skipped: {why}");
            }
            Err(e) => {
                failed += 1;
                println!("check {name} ... FAILED: {e:#}");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ensure!(failed == 0, "check the tree: {failed} of {} steps failed", STEPS.len());
    Ok(())
}

fn cargo(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words).current_dir(root);
    command
}

fn format(root: &Path) -> Result<Verdict> {
    cmd::run(&mut cargo(root, &["fmt", "--all", "--check"])).context("compare with rustfmt; `cargo fmt` fixes it")?;
    Ok(Verdict::Ok("rustfmt agrees".into()))
}

fn lints(root: &Path) -> Result<Verdict> {
    let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cmd::run(&mut cargo(root, &words)).context("lint the workspace")?;
    // The crate as imagebuild uses it.
    let words = [
        "clippy",
        "--quiet",
        "--package",
        "firstboot",
        "--lib",
        "--no-default-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    cmd::run(&mut cargo(root, &words)).context("lint firstboot without the feature device")?;
    // The program for UEFI, here only linted, as it would be for this machine.
    let words = ["clippy", "--quiet", "--package", "loader", "--features", "efi", "--locked", "--", "-D", "warnings"];
    cmd::run(&mut cargo(root, &words)).context("lint verify.efi")?;
    Ok(Verdict::Ok("clippy has no warning".into()))
}

fn go_tool_chain() -> Result<Verdict> {
    match go::check_database() {
        Ok(seen) => Ok(Verdict::Ok(seen)),
        // The lock's digests hold without the database.
        Err(e) if e.is::<go::Unreachable>() => Ok(Verdict::Skipped(e.to_string())),
        Err(e) => Err(e),
    }
}

fn documentation(root: &Path) -> Result<Verdict> {
    let words = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    let mut command = cargo(root, &words);
    // Private items are documented too, so links to them are valid.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    cmd::run(&mut command).context("build the documentation")?;
    Ok(Verdict::Ok("rustdoc has no warning".into()))
}

fn size(arch: Arch) -> Result<Verdict> {
    let mut sizes = Vec::new();
    for program in [&device::FIRSTBOOT, &device::INIT] {
        // Building checks that it is static and within the budget.
        let path = device::ensure_program(program, arch)?;
        let bytes = std::fs::metadata(&path).with_context(|| format!("read the size of {}", path.display()))?.len();
        sizes.push(format!("{bytes} of {} bytes", program.max_bytes));
    }
    Ok(Verdict::Ok(format!("static, {}", sizes.join(" and "))))
}

fn size_of_loader(arch: Arch) -> Result<Verdict> {
    // Building checks the budget.
    let path = loader::ensure(arch)?;
    let bytes = std::fs::metadata(&path).with_context(|| format!("read the size of {}", path.display()))?.len();
    Ok(Verdict::Ok(format!("{bytes} of {} bytes", loader::MAX_BYTES)))
}
