// SPDX-License-Identifier: Apache-2.0
//! Images of operating systems as others make them, by plain tools and without anything of ours: bases for `imagebuild bake`.

use anyhow::{Context, Result};
use imagebuild::{cache, cmd, digest};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the image is made by.
const SCRIPT: &str = include_str!("debian.sh");
const SUITE: &str = "trixie";
/// Environment variable that names another mirror, as for our own images.
const MIRROR: &str = "FIRSTBOOT_DEBIAN_MIRROR";
/// Packages of every base, besides the essential ones.
const PACKAGES: [&str; 17] = [
    "ca-certificates",
    "conntrack",
    "dbus",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "ipset",
    "iptables",
    "kmod",
    "linux-image-amd64",
    "nftables",
    "procps",
    "systemd-boot-efi",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "zstd",
];

/// Which base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// systemd-networkd with a file for wired interfaces, systemd-resolved.
    Networkd,
    /// NetworkManager, and cloud-init with user data that names the host.
    NetworkManager,
}

impl Kind {
    fn packages(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Kind::Networkd => &["systemd-resolved"],
            Kind::NetworkManager => &["cloud-init", "network-manager"],
        };
        [&PACKAGES, more].concat()
    }

    /// What is done in the root directory at the end, as one of mmdebstrap's hooks.
    fn hook(self) -> &'static str {
        match self {
            Kind::Networkd => {
                "ln -sf /usr/lib/systemd/system/systemd-networkd.service \
                 \"$1\"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service; \
                 printf '[Match]\\nType=ether\\n[Network]\\nDHCP=yes\\n' >\"$1\"/etc/systemd/network/80-wired.network"
            }
            Kind::NetworkManager => {
                "mkdir -p \"$1\"/var/lib/cloud/seed/nocloud; cd \"$1\"/var/lib/cloud/seed/nocloud; \
                 echo 'instance-id: base' >meta-data; \
                 printf '#cloud-config\\nhostname: renamed\\nmanage_etc_hosts: true\\n' >user-data"
            }
        }
    }
}

/// What is missing on this machine for making a base: programs that set-up installs.
pub fn missing() -> Option<String> {
    let programs = ["mmdebstrap", "fakeroot", "mmd", "mcopy", "mkfs.vfat", "mke2fs", "sfdisk"];
    let there = |name: &str| cmd::found(name) || Path::new("/usr/sbin").join(name).exists();
    let absent: Vec<&str> = programs.into_iter().filter(|name| !there(name)).collect();
    (!absent.is_empty()).then(|| format!("{} not installed", absent.join(", ")))
}

/// The image of this kind, made now when the cache does not have it. It belongs to the cache: do not write to it.
///
/// # Errors
/// When a tool fails: with its words.
pub fn ensure(kind: Kind) -> Result<PathBuf> {
    let key = digest::key(&[SCRIPT, kind.hook(), &kind.packages().join(" "), SUITE]);
    let dir = cache::dir()?.join("bases").join(key);
    cache::once_kept(&dir, |scratch| {
        let tar = scratch.join("root.tar");
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--format=tar", "--quiet"]);
        command.arg(format!("--include={}", kind.packages().join(",")));
        command.arg(format!("--customize-hook={}", kind.hook())).arg(SUITE).arg(&tar);
        command.args(std::env::var_os(MIRROR));
        cmd::run(&mut command)?;
        let script = scratch.join("script");
        std::fs::write(&script, SCRIPT).context("write a script")?;
        cmd::run(Command::new("fakeroot").args(["bash"]).arg(&script).arg(&tar).arg(scratch))?;
        [tar, script].iter().try_for_each(std::fs::remove_file).context("remove what a base was made of")
    })?;
    Ok(dir.join("base.img"))
}
