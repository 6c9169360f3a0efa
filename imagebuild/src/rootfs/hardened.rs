// SPDX-License-Identifier: Apache-2.0
//! The part of the hardening that is in the image, so that it applies from the very first boot on, before any seed.
//!
//! The texts and tables are the device binary's (`firstboot::harden`), which reads them back with `firstboot audit`;
//! none of them is written twice.

use super::configure::put;
use crate::cmd;
use crate::owner::Owner;
use anyhow::{Context, Result};
use firstboot::harden::access::NO_SETID;
use firstboot::harden::image_files;
use firstboot::harden::login::{LOGIN_DEFS, login_defs};
use std::path::Path;

/// All that goes in from here, as part of the key of a root file system.
pub fn texts() -> String {
    let programs: String = NO_SETID.iter().map(|(path, _)| *path).collect();
    image_files().iter().map(|(path, text)| format!("{path}\n{text}")).collect::<String>() + &programs + &login_defs("")
}

/// Kernel settings, the list of refused modules, and the settings of log-in sessions.
pub fn files(tree: &Path) -> Result<()> {
    image_files().iter().try_for_each(|(path, text)| put(tree, path, text, 0o644))?;
    let text = std::fs::read_to_string(tree.join(&LOGIN_DEFS[1..])).with_context(|| format!("read {LOGIN_DEFS}"))?;
    put(tree, LOGIN_DEFS, &login_defs(&text), 0o644)
}

/// Removes set-id bits from programs that need none here; returns the overrides that make dpkg keep it so.
pub fn no_set_id(owner: &Owner, tree: &Path) -> Result<String> {
    let mut overrides = String::new();
    for (path, _) in NO_SETID {
        let file = tree.join(&path[1..]);
        if file.exists() {
            cmd::run(owner.command("chown").arg("root:root").arg(&file))?;
            cmd::run(owner.command("chmod").arg("755").arg(&file))?;
            overrides += &format!("root root 0755 {path}\n");
        }
    }
    Ok(overrides)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_where_systemd_and_modprobe_read_them() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), LOGIN_DEFS, "UMASK 022\nUID_MIN 1000\n", 0o644).unwrap();
        files(dir.path()).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(read("usr/lib/sysctl.d/99-firstboot-harden.conf").contains("\nkernel.kptr_restrict = 2\n"));
        assert!(read("usr/lib/modprobe.d/firstboot-deny.conf").contains("\ninstall dccp /bin/false\n"));
        assert!(read("etc/issue.net").contains("Unauthorized use"));
        assert!(
            read("etc/login.defs").starts_with("UID_MIN 1000\n") && read("etc/login.defs").ends_with("UMASK 027\n")
        );
        // Another file of one of these names would be lost.
        let overlay = super::super::configure::OVERLAY_TEXT;
        for (path, _) in image_files() {
            assert!(
                !overlay.lines().any(|line| line.starts_with("== ") && line.ends_with(&format!(" {path}"))),
                "{path}"
            );
        }
        assert!(texts().contains("kernel.kptr_restrict = 2") && texts().contains("/usr/bin/su"));
    }

    #[test]
    fn set_id_bits_go_and_dpkg_knows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "/usr/bin/su", "", 0o4755).unwrap();
        let owner = Owner::new(dir.path()).unwrap();
        assert_eq!(no_set_id(&owner, dir.path()).unwrap(), "root root 0755 /usr/bin/su\n");
        let mode = dir.path().join("usr/bin/su").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}
