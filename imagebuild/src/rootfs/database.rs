// SPDX-License-Identifier: Apache-2.0
//! dpkg's database for packages that were unpacked without dpkg: status, file lists, triggers.
//! Formats: deb-control(5), dpkg's `doc/` on the info and triggers directories.

use crate::cmd;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The record of our own part of the image. It replaces an initramfs generator, which kernels depend on.
pub const OWN_PACKAGE: &str = "\
Package: firstboot-image
Status: install ok installed
Priority: required
Section: admin
Maintainer: firstboot
Architecture: all
Version: 1
Provides: linux-initramfs-tool
Description: firstboot's own part of the image, and its initrd
";

/// A database being written.
pub struct Database {
    admin: PathBuf,
    scratch: PathBuf,
    status: BTreeMap<String, String>,
    /// Lines of the triggers directory's files, by file name; `File` holds those on paths.
    triggers: BTreeMap<String, Vec<String>>,
}

impl Database {
    /// Begins a database below `tree`.
    pub fn new(tree: &Path) -> Result<Database> {
        let admin = tree.join("var/lib/dpkg");
        for dir in ["info", "triggers", "updates", "alternatives"] {
            fs::create_dir_all(admin.join(dir)).with_context(|| format!("create {}", admin.join(dir).display()))?;
        }
        for (name, text) in [
            ("info/format", "1\n"),
            ("info/firstboot-image.list", "/.\n"),
            ("info/firstboot-image.md5sums", ""),
            ("available", ""),
            ("diversions", ""),
            ("triggers/Lock", ""),
            ("triggers/Unincorp", ""),
        ] {
            fs::write(admin.join(name), text).with_context(|| format!("write {}", admin.join(name).display()))?;
        }
        let scratch = tree.with_extension("control");
        let status = BTreeMap::from([("firstboot-image".to_owned(), OWN_PACKAGE.to_owned())]);
        Ok(Database { admin, scratch, status, triggers: BTreeMap::new() })
    }

    /// Registers a package whose files have been unpacked.
    pub fn add(&mut self, deb: &Path, files: &[String]) -> Result<()> {
        if self.scratch.exists() {
            fs::remove_dir_all(&self.scratch)?;
        }
        cmd::run(Command::new("dpkg-deb").arg("--control").arg(deb).arg(&self.scratch))?;
        let control = fs::read_to_string(self.scratch.join("control")).context("read control")?;
        let field = |name: &str| crate::debian::field(&control, name).map(str::to_owned);
        let name = field("Package").context("read control: no Package")?;
        let id = match field("Multi-Arch").as_deref() {
            Some("same") => format!("{name}:{}", field("Architecture").context("read control: no Architecture")?),
            _ => name.clone(),
        };
        let conffiles = self.conffiles()?;
        self.status.insert(name.clone(), stanza(&control, &name, &conffiles));
        let list: String =
            files.iter().map(|f| if f.is_empty() { "/.\n".to_owned() } else { format!("{f}\n") }).collect();
        fs::write(self.admin.join(format!("info/{id}.list")), list)?;
        for entry in fs::read_dir(&self.scratch)? {
            let entry = entry?;
            let kind = entry.file_name().to_string_lossy().into_owned();
            if kind == "triggers" {
                self.interests(&fs::read_to_string(entry.path())?, &id);
            }
            if kind != "control" {
                fs::copy(entry.path(), self.admin.join(format!("info/{id}.{kind}")))?;
            }
        }
        Ok(())
    }

    /// Writes what concerns all packages together.
    pub fn write(self) -> Result<()> {
        let status: Vec<String> = self.status.into_values().collect();
        fs::write(self.admin.join("status"), status.join("\n") + "\n").context("write dpkg's status")?;
        for (name, lines) in self.triggers {
            fs::write(self.admin.join("triggers").join(&name), lines.join("\n") + "\n")
                .with_context(|| format!("write dpkg's triggers/{name}"))?;
        }
        if self.scratch.exists() {
            fs::remove_dir_all(&self.scratch)?;
        }
        Ok(())
    }

    /// Lines of the field Conffiles: path and MD5, which dpkg compares with at upgrades.
    fn conffiles(&self) -> Result<String> {
        let Ok(list) = fs::read_to_string(self.scratch.join("conffiles")) else {
            return Ok(String::new());
        };
        let tree = self.admin.ancestors().nth(3).context("find the root of dpkg's database")?;
        let mut lines = String::new();
        for path in list.lines().filter(|l| l.starts_with('/')) {
            let file = tree.join(&path[1..]);
            if file.exists() {
                let sum = cmd::output(Command::new("md5sum").arg(&file))?;
                let sum = String::from_utf8_lossy(&sum);
                lines += &format!("\n {path} {}", sum.split(' ').next().unwrap_or_default());
            }
        }
        Ok(lines)
    }

    fn interests(&mut self, text: &str, id: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(directive), Some(what)) = (words.next(), words.next()) else { continue };
            let suffix = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            let (file, entry) = match what.starts_with('/') {
                true => ("File", format!("{what} {id}{suffix}")),
                false => (what, format!("{id}{suffix}")),
            };
            self.triggers.entry(file.to_owned()).or_default().push(entry);
        }
    }
}

/// A package's record in the status file.
fn stanza(control: &str, name: &str, conffiles: &str) -> String {
    let mut text = format!("Package: {name}\nStatus: install ok installed\n");
    for line in control.lines().filter(|l| !l.starts_with("Package:") && !l.is_empty()) {
        text += line;
        text.push('\n');
    }
    if !conffiles.is_empty() {
        text += &format!("Conffiles:{conffiles}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_carry_status_and_conffiles() {
        let control = "Package: dash\nVersion: 1\nDescription: shell\n small\n";
        assert_eq!(
            stanza(control, "dash", "\n /etc/x 00ff"),
            "Package: dash\nStatus: install ok installed\nVersion: 1\nDescription: shell\n small\n\
             Conffiles:\n /etc/x 00ff\n"
        );
        assert!(stanza(control, "dash", "").ends_with("Description: shell\n small\n"));
    }
}
