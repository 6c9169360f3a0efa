// SPDX-License-Identifier: Apache-2.0
//! `imagebuild completions` and `imagebuild man`: made from the definitions of the commands, so that they agree with them.

use anyhow::{Context, Result};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Flags of `imagebuild completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  imagebuild completions bash > ~/.local/share/bash-completion/completions/imagebuild
  imagebuild completions fish > ~/.config/fish/completions/imagebuild.fish")]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Flags of `imagebuild man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  imagebuild man --out ~/.local/share/man/man1 && man imagebuild-flash")]
pub struct ManArgs {
    /// Directory for the pages; it is made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints the completions for a shell.
pub fn completions(args: &CompletionArgs, mut command: clap::Command) {
    clap_complete::generate(args.shell, &mut command, "imagebuild", &mut std::io::stdout());
}

/// Writes a page for each command.
///
/// # Errors
/// When the directory cannot be written.
pub fn man(args: &ManArgs, command: clap::Command) -> Result<()> {
    pages(&args.out, command)?;
    println!("{}: imagebuild.1 and a page for each command", args.out.display());
    Ok(())
}

/// Writes a page for each command to a directory, which is made.
///
/// # Errors
/// When it cannot be written.
pub fn pages(out: &Path, command: clap::Command) -> Result<()> {
    let what = || format!("write manual pages to {}", out.display());
    std::fs::create_dir_all(out).with_context(what)?;
    // The pages of `help` would repeat all others.
    clap_mangen::generate_to(command.disable_help_subcommand(true), out).with_context(what)
}

/// Writes the completions of each shell to a directory, which is made, under the names that the shells look for.
///
/// # Errors
/// When it cannot be written.
pub fn completions_of_all(out: &Path, mut command: clap::Command) -> Result<()> {
    let what = || format!("write completions to {}", out.display());
    std::fs::create_dir_all(out).with_context(what)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "imagebuild", out).with_context(what)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_flags() {
        let dir = tempfile::tempdir().unwrap();
        let flash = clap::Command::new("flash").about("Write an image").arg(clap::Arg::new("yes").long("yes"));
        pages(dir.path(), clap::Command::new("imagebuild").subcommand(flash)).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["imagebuild-flash.1", "imagebuild.1"]);
        let page = std::fs::read_to_string(dir.path().join("imagebuild-flash.1")).unwrap();
        assert!(page.contains("Write an image") && page.contains("yes"), "{page}");
    }
}
