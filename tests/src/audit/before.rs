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

/// Takes it all away, from a disk that has a data partition.
pub(super) fn strip(disk: &DiskImage) -> Result<()> {
    for path in UNITS {
        ensure!(disk.exists(path)?, "find {path} in the image: where are firstboot's units?");
        remove(disk, path)?;
    }
    for (path, _) in image_files() {
        remove(disk, path)?;
    }
    let defs = disk.read_file(LOGIN_DEFS)?.with_context(|| format!("find {LOGIN_DEFS}"))?;
    let defs = String::from_utf8_lossy(&defs).replace(&login_defs(""), "");
    disk.write_file(LOGIN_DEFS, defs.as_bytes(), 0o644)?;
    disk.write_file("/etc/fstab", b"", 0o644)?;
    let [from, to] = SSHD;
    let sshd = disk.read_file(from)?.with_context(|| format!("find {from}"))?;
    disk.write_file(to, &sshd, 0o644)?;
    disk.write_file("/etc/systemd/network/80-dhcp.network", DHCP, 0o644)?;
    let hardening = |word: &&str| COMMAND_LINE.iter().any(|(ours, ..)| ours == word);
    let line = disk.boot_entry()?.command_line;
    let left: Vec<&str> = line.split_whitespace().filter(|word| !hardening(word)).collect();
    disk.set_command_line(&left.join(" "))
}

/// Removes a file of the image. One of the root is verified and stays; an empty one of the same name in /etc takes its
/// place, for systemd and for those that read sysctl.d and modprobe.d.
fn remove(disk: &DiskImage, path: &str) -> Result<()> {
    match path.strip_prefix("/usr/lib/") {
        Some(below) => disk.link_file(&format!("/etc/{below}"), "/dev/null"),
        None => disk.remove_file(path),
    }
}

/// A script that gives programs the set-ID bits that Debian's have: over the root, which is verified.
pub(super) fn set_ids() -> String {
    let programs: Vec<&str> = NO_SETID.iter().map(|(path, _)| *path).collect();
    format!(
        "mkdir /run/usr\nmount -t tmpfs -o mode=0755 tmpfs /run/usr\nmkdir /run/usr/upper /run/usr/work\n\
         mount -t overlay -o lowerdir=/usr,upperdir=/run/usr/upper,workdir=/run/usr/work overlay /usr\n\
         for program in {}; do [ ! -e $program ] || chmod u+s $program; done\n",
        programs.join(" ")
    )
}
