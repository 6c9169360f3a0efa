// SPDX-License-Identifier: Apache-2.0
//! The image without firstboot: what a person has who installs Debian and goes on by hand.

use anyhow::{Context, Result, ensure};
use firstboot::harden::access::NO_SETID;
use firstboot::harden::boot::COMMAND_LINE;
use firstboot::harden::image_files;
use firstboot::harden::login::{LOGIN_DEFS, login_defs};
use qemu::disk::DiskImage;

/// Links by which systemd starts what is firstboot's, and additions to others' units.
const UNITS: &[&str] = &[
    "/etc/systemd/system/multi-user.target.wants/firstboot.service",
    "/etc/systemd/system/sysinit.target.wants/firstboot-guard.service",
    "/etc/systemd/system/timers.target.wants/firstboot-clock.timer",
    "/usr/lib/systemd/system/systemd-networkd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/NetworkManager.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ssh.service.d/50-firstboot.conf",
];
/// Debian's own configuration of sshd, and where its package puts it at installation.
const SSHD: [&str; 2] = ["/usr/share/openssh/sshd_config", "/etc/ssh/sshd_config"];

/// The network that firstboot would set up; Debian's installer asks for as much.
const DHCP: &[u8] = b"[Match]\nType=ether\n[Network]\nDHCP=yes\n";

/// Takes it all away.
pub(super) fn strip(disk: &DiskImage) -> Result<()> {
    for path in UNITS {
        ensure!(disk.exists(path)?, "find {path} in the image: where are firstboot's units?");
        disk.remove_file(path)?;
    }
    for (path, _) in image_files() {
        disk.remove_file(path)?;
    }
    let defs = disk.read_file(LOGIN_DEFS)?.with_context(|| format!("find {LOGIN_DEFS}"))?;
    let defs = String::from_utf8_lossy(&defs).replace(&login_defs(""), "");
    disk.write_file(LOGIN_DEFS, defs.as_bytes(), 0o644)?;
    let fstab = disk.read_file("/etc/fstab")?.context("find /etc/fstab")?;
    let root: String = String::from_utf8_lossy(&fstab).lines().filter(|l| l.starts_with("PARTUUID=")).collect();
    disk.write_file("/etc/fstab", format!("{root}\n").as_bytes(), 0o644)?;
    for (path, _) in NO_SETID {
        if let Some(program) = disk.read_file(path)? {
            disk.write_file(path, &program, 0o4755)?;
        }
    }
    let [from, to] = SSHD;
    let sshd = disk.read_file(from)?.with_context(|| format!("find {from}"))?;
    disk.write_file(to, &sshd, 0o644)?;
    disk.write_file("/etc/systemd/network/80-dhcp.network", DHCP, 0o644)?;
    let hardening = |word: &&str| COMMAND_LINE.iter().any(|(ours, ..)| ours == word);
    let line = disk.boot_entry()?.command_line;
    let left: Vec<&str> = line.split_whitespace().filter(|word| !hardening(word)).collect();
    disk.set_command_line(&left.join(" "))
}
