// SPDX-License-Identifier: Apache-2.0
//! Enabling and masking systemd units below a root directory: the links that `systemctl --root` would make.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Enables a unit as its section `[Install]` says: WantedBy, RequiredBy, Alias and Also.
pub fn enable(tree: &Path, unit: &str) -> Result<()> {
    let file = format!("usr/lib/systemd/system/{unit}");
    let text = fs::read_to_string(tree.join(&file)).with_context(|| format!("read unit /{file}"))?;
    let mut done = 0;
    for (key, value) in install_section(&text) {
        for word in value.split_whitespace() {
            match key {
                "WantedBy" => link(tree, &format!("/{file}"), &format!("{word}.wants/{unit}"))?,
                "RequiredBy" => link(tree, &format!("/{file}"), &format!("{word}.requires/{unit}"))?,
                "Alias" => link(tree, &format!("/{file}"), word)?,
                "Also" => enable(tree, word)?,
                _ => continue,
            }
            done += 1;
        }
    }
    ensure!(done > 0, "enable unit {unit}: it has no [Install] section");
    Ok(())
}

/// Makes a unit impossible to start.
pub fn mask(tree: &Path, unit: &str) -> Result<()> {
    link(tree, "/dev/null", unit)
}

/// What the system boots to.
pub fn default_target(tree: &Path, unit: &str) -> Result<()> {
    link(tree, &format!("/usr/lib/systemd/system/{unit}"), "default.target")
}

/// Keeps a generator from running (systemd.generator(7)).
pub fn no_generator(tree: &Path, name: &str) -> Result<()> {
    link(tree, "/dev/null", &format!("../system-generators/{name}"))
}

fn link(tree: &Path, target: &str, name: &str) -> Result<()> {
    let path = tree.join("etc/systemd/system").join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    if path.is_symlink() {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    symlink(target, &path).with_context(|| format!("link {}", path.display()))
}

fn install_section(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .skip_while(|l| l.trim() != "[Install]")
        .skip(1)
        .take_while(|l| !l.starts_with('['))
        .filter_map(|l| l.split_once('='))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn install_sections_become_links() {
        let tree = std::env::temp_dir().join(format!("units-{}", std::process::id()));
        let units = tree.join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("a.service"), "[Unit]\n[Install]\nWantedBy=multi-user.target\nAlias=b.service\n").unwrap();
        fs::write(units.join("none.service"), "[Unit]\n").unwrap();
        enable(&tree, "a.service").unwrap();
        mask(&tree, "getty.target").unwrap();
        let to = |n: &str| fs::read_link(tree.join("etc/systemd/system").join(n)).unwrap();
        assert_eq!(to("multi-user.target.wants/a.service"), Path::new("/usr/lib/systemd/system/a.service"));
        assert_eq!(to("b.service"), Path::new("/usr/lib/systemd/system/a.service"));
        assert_eq!(to("getty.target"), Path::new("/dev/null"));
        let error = enable(&tree, "none.service").unwrap_err().to_string();
        assert_eq!(error, "enable unit none.service: it has no [Install] section");
        fs::remove_dir_all(tree).unwrap();
    }
}
