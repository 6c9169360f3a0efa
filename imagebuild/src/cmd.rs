// SPDX-License-Identifier: Apache-2.0
//! The one place that runs other programs.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Runs a command. Its output is shown only when it fails, with a line that can be pasted into a shell.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Like [`run`]; returns standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = shown(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    if !out.status.success() {
        let text = [out.stdout, out.stderr].concat();
        bail!("run `{shown}` ({}):\n{}", out.status, last_lines(&String::from_utf8_lossy(&text), 40));
    }
    Ok(out.stdout)
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut words = Vec::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", key.to_string_lossy(), quoted(&value.to_string_lossy())));
        }
    }
    words.push(quoted(&command.get_program().to_string_lossy()));
    words.extend(command.get_args().map(|a| quoted(&a.to_string_lossy())));
    words.join(" ")
}

/// A word as a shell takes it, quoted where it has to be.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A program by name; those for administrators are not on every user's PATH.
pub fn tool(name: &str) -> String {
    if found(name) { name.to_owned() } else { format!("/usr/sbin/{name}") }
}

/// Whether a program of this name is on PATH.
pub fn found(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).is_file()))
}
