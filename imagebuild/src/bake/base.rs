// SPDX-License-Identifier: Apache-2.0
//! What an image of others is, as far as a node needs to know, and everything that it lacks: found without changing it.

use super::ext4::{self, Reader, Superblock};
use super::fstab::{fat_id, fstab, is_by_number};
use super::kernel;
use super::machinery::{self, KNOWN, Machinery};
use super::partitions::{Disk, Kind, Partition};
use crate::arch::Arch;
use crate::elf;
use anyhow::{Context, Result};
use firstboot::boot_partition::BootPartition;
use firstboot::bundle::COMMANDS;
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// The oldest systemd that has all that our units say (`ExecPaths=`, 248).
const OLDEST_SYSTEMD: u32 = 248;
/// Largest program, and largest text on the FAT partition, that are read, bytes.
const MOST_PROGRAM: u64 = 64 << 20;
const MOST_TEXT: usize = 1 << 20;
/// A Raspberry Pi's kernel command line, on the FAT partition.
pub const CMDLINE: &str = "cmdline.txt";
/// Programs that firstboot, kubelet and pod networks call. iptables is none: kubelet does without, our pod network has rules of
/// nftables, and kube-proxy and others' networks bring their own.
const PROGRAMS: [&str; 8] = ["nft", "ip", "modprobe", "mount", "losetup", "systemctl", "chgrp", "cp"];
/// Where programs may be.
const PATH: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// Runtimes that would share containerd's directories or the packet filter with ours.
const RUNTIMES: [&str; 6] = [
    "/usr/bin/dockerd",
    "/usr/bin/k3s",
    "/usr/local/bin/k3s",
    "/usr/bin/microk8s",
    "/usr/local/bin/containerd",
    "/usr/bin/crio",
];
/// Where units are enabled.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// What enables sshd: its service, or a socket that starts it at the first connection, as Ubuntu has it.
const SSH: [&str; 3] = [
    "/etc/systemd/system/multi-user.target.wants/ssh.service",
    "/etc/systemd/system/multi-user.target.wants/sshd.service",
    "/etc/systemd/system/sockets.target.wants/ssh.socket",
];

/// What manages the network of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// systemd-networkd, or nothing: then firstboot enables it.
    Networkd,
    /// NetworkManager.
    NetworkManager,
    /// Something that firstboot has no files for.
    Other,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Base {
    /// Partitions and size.
    pub disk: Disk,
    /// The root file system.
    pub root: Option<(Partition, Superblock)>,
    /// The FAT partition for the seed, and its label.
    pub boot: Option<(Partition, String)>,
    /// Name of the system.
    pub os: String,
    /// Version of systemd.
    pub systemd: Option<u32>,
    /// Releases of the kernels.
    pub kernels: Vec<String>,
    /// Whether all of them have dm-verity.
    pub verity: bool,
    /// Network manager.
    pub network: Network,
    /// Whether sshd is enabled.
    pub ssh: bool,
    /// Whether the FAT partition is mounted by the system, and where.
    pub boot_mounted: Option<String>,
    /// What it does by itself at first boots.
    pub machinery: Vec<&'static Machinery>,
    /// Files that keep it from what is firstboot's: path and text.
    pub settings: Vec<(String, String)>,
    /// What it lacks, one line each: empty when a node can run.
    pub missing: Vec<String>,
    /// Text of cmdline.txt on the FAT partition as it has to be for the memory cgroup, where it lacks that and may be changed.
    pub command_line: Option<String>,
}

/// File systems of their own below the root: mount point and reader.
type Separate = Vec<(String, Reader)>;

/// Looks at an image.
///
/// # Errors
/// When it is no disk image, or is truncated or damaged: then nothing can be said of it.
pub fn examine(path: &Path, arch: Arch) -> Result<Base> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let disk = Disk::read(&mut file)?;
    let mut base = Base {
        disk,
        root: None,
        boot: None,
        os: "unknown".to_owned(),
        systemd: None,
        kernels: Vec::new(),
        verity: true,
        network: Network::Networkd,
        ssh: false,
        boot_mounted: None,
        machinery: Vec::new(),
        settings: Vec::new(),
        missing: Vec::new(),
        command_line: None,
    };
    base.find_boot(path)?;
    let Some((root, separate)) = base.find_root(path, &file)? else { return Ok(base) };
    Examination { base: &mut base, path, root, separate, arch }.all()?;
    Ok(base)
}

impl Base {
    /// Leaves cmdline.txt as it is, or has it changed, and then its memory cgroup is not missing.
    pub fn choose_memory_cgroup(&mut self, enable: bool) {
        match (enable, &self.command_line) {
            (true, Some(_)) => self.missing.retain(|line| line != kernel::NO_MEMORY_CGROUP),
            _ => self.command_line = None,
        }
    }

    /// The FAT partition that the seed goes to: a Raspberry Pi's firmware partition, one that laptops show, the EFI system
    /// partition, in this order.
    fn find_boot(&mut self, path: &Path) -> Result<()> {
        let open = |p: &Partition| BootPartition::open(path, p.offset, p.length).ok();
        let mut fats: Vec<(u8, Partition, String)> = Vec::new();
        for partition in self.disk.partitions.iter().filter(|p| p.kind != Kind::Extended) {
            let Some(fat) = open(partition) else { continue };
            let config = partition.fat(path).and_then(|fat| fat.read_at_most("config.txt", MOST_TEXT));
            let firmware = config.is_ok_and(|text| text.is_some());
            let rank = match (firmware, partition.kind) {
                (true, _) => 0,
                (_, Kind::Fat) => 1,
                (_, Kind::Esp) => 2,
                _ => 3,
            };
            let label = fat.label().with_context(|| format!("read the FAT on partition {}", partition.number))?;
            fats.push((rank, partition.clone(), label));
        }
        fats.sort_by_key(|(rank, partition, _)| (*rank, partition.number));
        let Some((_, first, label)) = fats.first().cloned() else {
            self.missing.push("make a FAT partition: the image has none, and the seed goes to one".to_owned());
            return Ok(());
        };
        if let Some((_, other, _)) = fats.iter().skip(1).find(|(_, _, other)| *other == label) {
            self.missing.push(format!(
                "give partitions {} and {} different labels: both are FAT and called \"{label}\"",
                first.number, other.number
            ));
        }
        self.boot = Some((first, label));
        Ok(())
    }

    /// The root file system, and file systems of their own below it: mount point and reader.
    fn find_root(&mut self, path: &Path, file: &File) -> Result<Option<(Reader, Separate)>> {
        let (mut others, mut roots) = (Vec::new(), Vec::new());
        let mut readable: Vec<(Partition, Superblock)> = Vec::new();
        for partition in &self.disk.partitions {
            if partition.kind == Kind::Extended {
                others.push(format!("partition {} is extended", partition.number));
                continue;
            }
            let Some(superblock) = Superblock::read(file, partition.offset)? else {
                if let Some(name) = ext4::foreign(file, partition)? {
                    others.push(format!("partition {} has {name}", partition.number));
                }
                continue;
            };
            let reader = Reader::open(path, partition)?;
            if reader.node("/etc")?.is_some() && (reader.node("/usr")?.is_some() || reader.node("/sbin")?.is_some()) {
                roots.push((partition.clone(), superblock.clone()));
            }
            readable.push((partition.clone(), superblock));
        }
        let [(partition, superblock)] = &roots[..] else {
            let seen = if others.is_empty() { String::new() } else { format!(": {}", others.join(", ")) };
            self.missing.push(match roots.len() {
                0 => format!("use an image with its root file system on ext4 on a partition of its own{seen}"),
                n => format!("use an image with one root file system: it has {n}"),
            });
            return Ok(None);
        };
        let root = Reader::open(path, partition)?;
        let mut separate = Vec::new();
        for (spec, point) in fstab(&root.text("/etc/fstab")?.unwrap_or_default()) {
            let is = |p: &Partition, uuid: &str, label: &str| {
                let lower = spec.to_ascii_lowercase();
                lower == format!("partuuid={}", p.part_uuid)
                    || lower == format!("uuid={uuid}")
                    || spec == format!("LABEL={label}")
            };
            if let Some((at, _)) = readable.iter().find(|(p, s)| is(p, &s.uuid, &s.label)).filter(|_| point != "/") {
                separate.push((point.clone(), Reader::open(path, at)?));
            }
            if let Some((boot, label)) = &self.boot
                && (is(boot, &fat_id(file, boot)?, label)
                    || (is_by_number(&spec, boot.number) && point.starts_with("/boot")))
            {
                self.boot_mounted = Some(point);
            }
        }
        self.root = Some((partition.clone(), superblock.clone()));
        Ok(Some((root, separate)))
    }
}

/// The examination of a base whose root was found.
struct Examination<'a> {
    base: &'a mut Base,
    path: &'a Path,
    root: Reader,
    separate: Separate,
    arch: Arch,
}

impl Examination<'_> {
    fn all(&mut self) -> Result<()> {
        self.system()?;
        self.layout()?;
        self.programs()?;
        let lines = self.command_lines()?;
        self.kernels(&lines)?;
        self.network()?;
        for machinery in KNOWN {
            let mut there = machinery.word.is_some_and(|word| lines.iter().any(|line| line.contains(word)));
            for path in machinery.paths {
                there = there || self.root.node(path)?.is_some();
            }
            if !there {
                continue;
            }
            self.base.machinery.push(machinery);
            if let Some((path, text)) = machinery.setting {
                let own = self.text("/etc/cloud/cloud.cfg")?.filter(|_| path.starts_with("/etc/cloud/"));
                let more = own.and_then(|text| machinery::cloud_init_modules(&text)).unwrap_or_default();
                self.base.settings.push((path.to_owned(), text.to_owned() + &more));
            }
        }
        Ok(())
    }

    fn lacks(&mut self, text: impl Into<String>) {
        self.base.missing.push(text.into());
    }

    /// Text of a file, wherever it is mounted from.
    fn text(&self, path: &str) -> Result<Option<String>> {
        let (reader, path) = self.place(path);
        reader.text(&path)
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let (reader, path) = self.place(path);
        reader.names(&path)
    }

    /// The file system that a path is on, and the path there.
    fn place(&self, path: &str) -> (&Reader, String) {
        let on = self.separate.iter().filter_map(|(point, reader)| {
            let rest = path.strip_prefix(point.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((point.len(), reader, rest))
        });
        match on.max_by_key(|(length, ..)| *length) {
            Some((_, reader, rest)) => (reader, if rest.is_empty() { "/".to_owned() } else { rest.to_owned() }),
            None => (&self.root, path.to_owned()),
        }
    }

    /// Name, architecture, init.
    fn system(&mut self) -> Result<()> {
        let release = match self.text("/etc/os-release")? {
            Some(text) => text,
            None => self.text("/usr/lib/os-release")?.unwrap_or_default(),
        };
        if let Some(name) = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")) {
            self.base.os = name.trim_matches('"').to_owned();
        }
        let Some(program) = self.root.read_at_most("/usr/lib/systemd/systemd", MOST_PROGRAM)? else {
            self.lacks("use an image with systemd: its init is another");
            return Ok(());
        };
        match elf::needs(&program) {
            Ok(needs) if needs.arch == self.arch => {}
            Ok(needs) => {
                let (found, wanted) = (needs.arch, self.arch);
                self.lacks(format!("use an image for {wanted}, or another target: this one is for {found}"));
            }
            Err(_) => {
                let wanted = self.arch;
                self.lacks(format!("use an image for {wanted}: this one is for another architecture"));
            }
        }
        // systemd and its services share a library with the version in its name.
        let mut directories = vec!["/usr/lib/systemd".to_owned()];
        directories.extend(["aarch64-linux-gnu", "x86_64-linux-gnu"].map(|t| format!("/usr/lib/{t}/systemd")));
        for directory in directories {
            let version = |name: &String| {
                let rest = name.strip_prefix("libsystemd-shared-")?;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            self.base.systemd = self.base.systemd.or(self.root.names(&directory)?.iter().find_map(version));
        }
        match self.base.systemd {
            Some(version) if version >= OLDEST_SYSTEMD => {}
            Some(version) => {
                self.lacks(format!("use an image with systemd {OLDEST_SYSTEMD} or later: it has {version}"))
            }
            None => self.lacks(format!("use an image with systemd {OLDEST_SYSTEMD} or later: its version is unknown")),
        }
        Ok(())
    }

    /// File systems.
    fn layout(&mut self) -> Result<()> {
        if let Some((partition, superblock)) = self.base.root.clone() {
            if !superblock.clean {
                self.lacks("use an image whose root was unmounted cleanly: its journal has to be replayed");
            }
            if superblock.size > partition.length {
                self.lacks("get the image again: its root file system is longer than its partition");
            }
        }
        if self.separate.iter().any(|(point, _)| point == "/usr") {
            self.lacks("use an image with /usr in its root file system: it has a partition of its own");
        }
        if self.root.node("/lib")?.is_some_and(|node| node.kind != 'l') {
            self.lacks("use an image with a merged /usr: /lib is no link to /usr/lib");
        }
        if self.root.node("/usr/lib/firstboot")?.is_some() {
            self.lacks("use the image without firstboot: this one has it already");
        }
        Ok(())
    }

    fn programs(&mut self) -> Result<()> {
        let mut absent = Vec::new();
        for program in PROGRAMS {
            let mut there = false;
            for directory in PATH {
                there = there || self.root.node(&format!("{directory}/{program}"))?.is_some();
            }
            if !there {
                absent.push(program);
            }
        }
        if !absent.is_empty() {
            self.lacks(format!("install {} in the image: firstboot or kubelet calls them", absent.join(", ")));
        }
        let mut own = Vec::new();
        for path in COMMANDS.iter().map(|name| format!("/usr/bin/{name}")).chain(RUNTIMES.map(str::to_owned)) {
            if self.root.node(&path)?.is_some() {
                own.push(path);
            }
        }
        if !own.is_empty() {
            self.lacks(format!("remove {} from the image: the bundle brings the runtime and kubelet", own.join(", ")));
        }
        for link in SSH {
            self.base.ssh = self.base.ssh || self.root.node(link)?.is_some();
        }
        Ok(())
    }

    /// Command lines of the kernel, wherever a boot loader has them.
    fn command_lines(&self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for path in ["/boot/grub/grub.cfg", "/boot/extlinux/extlinux.conf", "/boot/armbianEnv.txt", "/boot/cmdline.txt"]
        {
            texts.extend(self.text(path)?);
        }
        if let Some((boot, _)) = &self.base.boot {
            for path in [CMDLINE, "extlinux/extlinux.conf", "grub/grub.cfg"] {
                texts.extend(self.fat_text(boot, path));
            }
            let entries = boot.fat(self.path)?.list_in("loader/entries");
            let entries = entries.with_context(|| format!("read the FAT on partition {}", boot.number))?;
            for name in entries.unwrap_or_default() {
                texts.extend(self.fat_text(boot, &format!("loader/entries/{name}")));
            }
        }
        Ok(texts.iter().flat_map(|text| text.lines()).map(|line| line.trim().to_owned()).collect())
    }

    /// Text of a file on the FAT partition; `None` when there is none, or it cannot be read.
    fn fat_text(&self, partition: &Partition, path: &str) -> Option<String> {
        let bytes = partition.fat(self.path).ok()?.read_at_most(path, MOST_TEXT).ok()??;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn kernels(&mut self, lines: &[String]) -> Result<()> {
        let mut lacking = Vec::new();
        for release in self.root.names("/usr/lib/modules")? {
            let home = format!("/usr/lib/modules/{release}");
            let Some(dependencies) = self.root.text(&format!("{home}/modules.dep"))? else { continue };
            let builtin = self.root.text(&format!("{home}/modules.builtin"))?.unwrap_or_default();
            let configuration = match self.text(&format!("/boot/config-{release}"))? {
                Some(text) => Some(text),
                None => self.root.text(&format!("{home}/config"))?,
            };
            let modules = kernel::modules(&[dependencies, builtin]);
            let lacks = kernel::lacks(&release, configuration.as_deref(), &modules);
            self.base.verity = self.base.verity && kernel::has_verity(configuration.as_deref(), &modules);
            if !lacks.is_empty() {
                lacking.push(format!("kernel {release} lacks {}", lacks.join(", ")));
            }
            self.base.kernels.push(release);
        }
        if self.base.kernels.is_empty() {
            self.lacks("install a kernel with modules in the image: /usr/lib/modules has none");
        }
        // Which one is started is the boot loader's choice.
        for line in lacking {
            self.lacks(format!("use another kernel: {line}"));
        }
        let raspberry_pi = ["rpi", "-v8", "-2712", "raspi"];
        let raspberry_pi =
            self.base.kernels.iter().any(|release| raspberry_pi.iter().any(|part| release.contains(part)));
        for fault in kernel::command_line_faults(lines, raspberry_pi) {
            if fault == kernel::NO_MEMORY_CGROUP {
                self.base.command_line = self.firmwares_command_line().as_deref().map(kernel::with_memory_cgroup);
            }
            self.lacks(fault);
        }
        Ok(())
    }

    /// The text of the cmdline.txt that a Raspberry Pi's firmware reads; `None` where config.txt names another file.
    fn firmwares_command_line(&self) -> Option<String> {
        let (boot, _) = self.base.boot.as_ref()?;
        let config = self.fat_text(boot, "config.txt").unwrap_or_default();
        let other = |line: &str| ["cmdline=", "os_prefix="].iter().any(|key| line.trim_start().starts_with(key));
        self.fat_text(boot, CMDLINE).filter(|_| !config.lines().any(other))
    }

    fn network(&mut self) -> Result<()> {
        let enabled = |unit: &str| self.root.node(&format!("{WANTS}/{unit}.service")).map(|node| node.is_some());
        let (networkd, manager) = (enabled("systemd-networkd")?, enabled("NetworkManager")?);
        self.base.network = if manager && !networkd { Network::NetworkManager } else { Network::Networkd };
        self.base.settings.push(match self.base.network {
            Network::NetworkManager => machinery::network_manager_and_pods(),
            _ => machinery::networkd_and_pods(),
        });
        let mut others = Vec::new();
        for unit in ["dhcpcd", "connman", "wicked"] {
            if enabled(unit)? {
                others.push(unit.to_owned());
            }
        }
        let mut interfaces = self.text("/etc/network/interfaces")?.unwrap_or_default();
        for name in self.names("/etc/network/interfaces.d")? {
            interfaces += &self.text(&format!("/etc/network/interfaces.d/{name}"))?.unwrap_or_default();
        }
        let stanza =
            |line: &str| line.split_whitespace().collect::<Vec<_>>().starts_with(&["iface"]) && !line.contains(" lo ");
        let ifupdown = self.root.node("/usr/sbin/ifup")?.is_some() || self.root.node("/sbin/ifup")?.is_some();
        if ifupdown && interfaces.lines().any(stanza) {
            others.push("ifupdown".to_owned());
        }
        let there = self.root.node("/usr/lib/systemd/systemd-networkd")?.is_some();
        if !others.is_empty() {
            self.base.network = Network::Other;
            let others = others.join(", ");
            self.lacks(format!("manage the network by systemd-networkd or NetworkManager: the image uses {others}"));
        } else if self.base.network == Network::Networkd && !there {
            self.base.network = Network::Other;
            self.lacks("install systemd-networkd or NetworkManager in the image: it has neither");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_is_read_as_systemd_reads_it() {
        let text = "# comment\nUUID=ab  /  ext4 defaults 0 1\nLABEL=\"ESP\" /boot/efi vfat\n/swapfile none swap\n\n";
        let expected = [("UUID=ab", "/"), ("LABEL=ESP", "/boot/efi")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(fstab(text), expected);
        assert!(is_by_number("/dev/mmcblk0p1", 1) && is_by_number("/dev/sda15", 15));
        assert!(!is_by_number("/dev/sda15", 5) && !is_by_number("UUID=1", 1));
    }
}
