// SPDX-License-Identifier: Apache-2.0
//! Images of operating systems as others make them, by plain tools and without anything of ours: bases for `imagebuild bake`.

mod foreign;

use crate::{SCRIPT, SCRIPT_UNIT, SCRIPT_UNIT_TEXT, SCRIPT_WANTED, script, wifi};
use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use imagebuild::debian::Debian;
use imagebuild::{cache, cmd, digest};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What every image begins with, and what it is made by.
const BEGIN: &str = include_str!("begin.sh");
const SUITE: &str = "trixie";
/// Environment variable that names another mirror, as for our own images.
const MIRROR: &str = "FIRSTBOOT_DEBIAN_MIRROR";
/// Packages of every base, besides the essential ones: what a node needs of its system.
const PACKAGES: [&str; 7] =
    ["conntrack", "initramfs-tools", "ipset", "iptables", "nftables", "systemd-timesyncd", "zstd"];
/// The same without what Raspberry Pi OS does not have.
const PACKAGES_OF_A_BOARD: [&str; 4] = ["initramfs-tools", "nftables", "systemd-timesyncd", "zstd"];
/// Packages of every Debian.
const DEBIAN: [&str; 8] =
    ["ca-certificates", "dbus", "e2fsprogs", "iproute2", "kmod", "procps", "systemd-sysv", "udev"];
/// Packages of a Debian for PCs.
const PC: [&str; 2] = ["linux-image-amd64", "systemd-boot-efi"];
/// Packages of an image like Raspberry Pi OS.
const RASPBERRY_PI: [&str; 4] = ["fdisk", "linux-image-arm64", "network-manager", "openssh-server"];
/// Its firmware, of a package whose own scripts would look for a mounted `/boot/firmware`.
const FIRMWARE: &str = "cd \"$1\" && mkdir boot/raspi-firmware && chroot . apt-get download raspi-firmware && \
     dpkg-deb --fsys-tarfile raspi-firmware_*.deb | tar --extract --strip-components=4 --directory boot/raspi-firmware \
     ./usr/lib/raspi-firmware/bootcode.bin ./usr/lib/raspi-firmware/start.elf ./usr/lib/raspi-firmware/fixup.dat && \
     rm raspi-firmware_*.deb";
/// The board restarts by its watchdog, whose driver Raspberry Pi's own kernel has built in.
const WATCHDOG: &str = "mkdir -p \"$1\"/usr/share/initramfs-tools/modules.d; \
     echo bcm2835_wdt >\"$1\"/usr/share/initramfs-tools/modules.d/watchdog";
/// What an Ubuntu consists of: `ubuntu-server-minimal` is cloud-init, snapd, netplan, systemd-resolved, AppArmor and more. The
/// full server, `ubuntu-server` with `ubuntu-standard`, has nftables and iptables besides.
const UBUNTU: [&str; 6] = [
    "grub-efi-amd64-signed",
    "linux-image-virtual",
    "openssh-server",
    "ubuntu-minimal",
    "ubuntu-server-minimal",
    "unattended-upgrades",
];
const UBUNTU_SUITE: &str = "noble";
/// Environment variable that names another mirror of Ubuntu, and the one without it.
const UBUNTU_MIRROR: (&str, &str) = ("FIRSTBOOT_UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu");
/// Debian's package with the keys of Ubuntu's archive: what Debian's archive signs says whether it is the right one.
const UBUNTU_KEYS: (&str, &str) = ("ubuntu-keyring", "usr/share/keyrings/ubuntu-archive-keyring.gpg");
/// User data for cloud-init that names the host.
const CLOUD_INIT: &str = "mkdir -p \"$1\"/var/lib/cloud/seed/nocloud; cd \"$1\"/var/lib/cloud/seed/nocloud; \
     echo 'instance-id: base' >meta-data; \
     printf '#cloud-config\\nhostname: renamed\\nmanage_etc_hosts: true\\n' >user-data";

/// Which base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian with systemd-networkd and a file for wired interfaces, systemd-resolved.
    Networkd,
    /// Debian with NetworkManager, and cloud-init with user data that names the host.
    NetworkManager,
    /// Debian with NetworkManager and Wi-Fi alone, whose radios are switched off until a program names a country, and without
    /// iptables, as in Raspberry Pi OS; and the access point of [`crate::wifi`].
    RadioOff,
    /// Ubuntu Server, with the same user data for its cloud-init.
    Ubuntu,
    /// Debian for arm64 with NetworkManager, in the form of Raspberry Pi OS and with what that does at its first boots.
    RaspberryPi,
}

impl Kind {
    /// Number of the root's partition. The first one is a FAT: the EFI system partition, or a board's firmware.
    pub fn root(self) -> u32 {
        match self {
            Kind::Networkd | Kind::NetworkManager | Kind::RadioOff | Kind::RaspberryPi => 2,
            Kind::Ubuntu => 3,
        }
    }

    fn packages(self) -> Vec<&'static str> {
        match self {
            Kind::Networkd => [&PACKAGES[..], &DEBIAN, &PC, &["systemd-resolved"]].concat(),
            Kind::NetworkManager => [&PACKAGES[..], &DEBIAN, &PC, &["cloud-init", "network-manager"]].concat(),
            Kind::RadioOff => [&PACKAGES_OF_A_BOARD[..], &DEBIAN, &PC, &["network-manager"], &wifi::PACKAGES].concat(),
            Kind::Ubuntu => [&PACKAGES[..], &UBUNTU].concat(),
            Kind::RaspberryPi => [&PACKAGES[..], &DEBIAN, &RASPBERRY_PI].concat(),
        }
    }

    /// How the disk image is made of the packages.
    fn script(self) -> String {
        let more = match self {
            Kind::RadioOff => radio_off(),
            _ => String::new(),
        };
        let end = match self {
            Kind::Networkd | Kind::NetworkManager | Kind::RadioOff => include_str!("debian.sh"),
            Kind::Ubuntu => include_str!("ubuntu.sh"),
            Kind::RaspberryPi => include_str!("raspberry_pi.sh"),
        };
        [BEGIN, &more, end].concat()
    }

    /// What is done in the root directory at the end, as one of mmdebstrap's hooks.
    fn hook(self) -> &'static str {
        match self {
            Kind::Networkd => {
                "ln -sf /usr/lib/systemd/system/systemd-networkd.service \
                 \"$1\"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service; \
                 printf '[Match]\\nType=ether\\n[Network]\\nDHCP=yes\\n' >\"$1\"/etc/systemd/network/80-wired.network"
            }
            Kind::NetworkManager | Kind::Ubuntu => CLOUD_INIT,
            Kind::RadioOff => "true",
            Kind::RaspberryPi => FIRMWARE,
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Kind::Ubuntu => UBUNTU_SUITE,
            _ => SUITE,
        }
    }

    /// What is done before packages other than the essential ones are installed, as one of mmdebstrap's hooks.
    fn early_hook(self) -> Option<&'static str> {
        (self == Kind::RaspberryPi).then_some(WATCHDOG)
    }

    /// Name of the target that a device with it is of.
    pub fn target(self) -> &'static str {
        match self {
            Kind::RaspberryPi => "raspberrypi",
            _ => "generic-amd64",
        }
    }

    /// mmdebstrap's words behind the result's name: where packages come from.
    fn sources(self) -> Vec<String> {
        match self {
            Kind::Ubuntu => {
                let mirror = std::env::var(UBUNTU_MIRROR.0).unwrap_or_else(|_| UBUNTU_MIRROR.1.to_owned());
                let line = |end| format!("deb {mirror} {UBUNTU_SUITE}{end} main universe");
                ["", "-updates", "-security"].map(line).to_vec()
            }
            _ => std::env::var(MIRROR).into_iter().collect(),
        }
    }
}

/// Switches radios off, as pi-gen does (stage2/02-net-tweaks): by the kernel's command line and in NetworkManager's state. The
/// access point is a unit of every boot.
fn radio_off() -> String {
    let file =
        |path: &str, mode: u32, text: &str| format!("install -D -m {mode:o} /dev/stdin root{path} <<'X'\n{text}X\n");
    [
        "options=' rfkill.default_state=0'\n".to_owned(),
        file("/var/lib/NetworkManager/NetworkManager.state", 0o600, "[main]\nWirelessEnabled=false\n"),
        file(SCRIPT, 0o755, &script(wifi::ACCESS_POINT)),
        file(SCRIPT_UNIT, 0o644, SCRIPT_UNIT_TEXT),
        format!(
            "mkdir -p root{}\nln -s {SCRIPT_UNIT} root{SCRIPT_WANTED}\n",
            SCRIPT_WANTED.rsplit_once('/').unwrap_or_default().0
        ),
    ]
    .concat()
}

/// The keys that Ubuntu's archive is verified by, in a directory that apt can read: the cache may be closed to its user.
fn ubuntu_keys() -> Result<TempDir> {
    let directory = tempfile::tempdir().context("create a directory for the keys of an archive")?;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).context("open the directory of the keys of an archive")?;
    let debian = Debian::open(Arch::Amd64)?;
    for deb in debian.download(&[UBUNTU_KEYS.0], false)? {
        debian.unpack(&deb, directory.path())?;
    }
    Ok(directory)
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
    let key = digest::key(&[
        &kind.script(),
        kind.early_hook().unwrap_or_default(),
        kind.hook(),
        &kind.packages().join(" "),
        kind.suite(),
    ]);
    let dir = cache::dir()?.join("bases").join(key);
    cache::once_kept(&dir, |scratch| {
        let tar = scratch.join("root.tar");
        let mut words = ["--variant=minbase", "--format=tar", "--quiet"].map(str::to_owned).to_vec();
        words.push(format!("--include={}", kind.packages().join(",")));
        let keys = (kind == Kind::Ubuntu).then(ubuntu_keys).transpose()?;
        words.extend(keys.as_ref().map(|keys| format!("--keyring={}", keys.path().join(UBUNTU_KEYS.1).display())));
        words.extend(kind.early_hook().map(|hook| format!("--essential-hook={hook}")));
        words.push(format!("--customize-hook={}", kind.hook()));
        if kind == Kind::RaspberryPi {
            words.push("--components=main,non-free-firmware".to_owned());
        }
        words.extend([kind.suite().to_owned(), tar.display().to_string()]);
        words.extend(kind.sources());
        match kind {
            Kind::RaspberryPi => foreign::mmdebstrap(&words)?,
            _ => cmd::run(Command::new("mmdebstrap").args(&words))?,
        }
        let script = scratch.join("script");
        std::fs::write(&script, kind.script()).context("write a script")?;
        cmd::run(Command::new("fakeroot").args(["bash"]).arg(&script).arg(&tar).arg(scratch))?;
        [tar, script].iter().try_for_each(std::fs::remove_file).context("remove what a base was made of")
    })?;
    Ok(dir.join("base.img"))
}
