// SPDX-License-Identifier: Apache-2.0
//! QEMU's command line for a device: a pure function of the machine and the paths of its files.

use crate::accel::Accelerator;
use crate::board::{self, Board};
use crate::link::relay::Ends;
use imagebuild::arch::Arch;
use std::path::{Path, PathBuf};

/// How the disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Controller {
    /// Paravirtual block device.
    Virtio,
    /// NVMe drive.
    Nvme,
    /// SATA drive behind AHCI.
    Ahci,
    /// USB mass storage behind xHCI.
    Usb,
    /// SD card behind SDHCI.
    Sdhci,
}

/// A TCP port of the guest that is reached through a loopback port of the build machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on 127.0.0.1 of the build machine.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// What the network interface is plugged into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// QEMU's user network.
    #[default]
    User,
    /// A relay of this harness: [`crate::link::Link`].
    Relay(Ends),
}

/// What the emulated machine is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Architecture of its processors.
    pub arch: Arch,
    /// What runs its processors.
    pub accelerator: Accelerator,
    /// Number of processors.
    pub cpus: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// How the disk is attached.
    pub controller: Controller,
    /// Serial number of the system, in SMBIOS.
    pub serial: Option<String>,
    /// systemd credentials handed over in memory, through SMBIOS: name and value.
    pub credentials: Vec<(String, String)>,
    /// Time that the clock chip shows at power-on, as QEMU's `-rtc base=` takes it; `utc` is now.
    pub clock: String,
    /// Address of its network interface.
    pub mac: String,
    /// What its network interface is plugged into.
    pub link: Link,
    /// Ports that can be reached from outside, on a user network.
    pub forwards: Vec<Forward>,
    /// How slow its disk is.
    pub disk_limits: Option<DiskLimits>,
    /// The board, where it is not a machine of QEMU's own kind.
    pub board: Option<Board>,
}

/// How slow the disk is; the build machine's own is faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Reads per second.
    pub reads: u32,
    /// Writes per second.
    pub writes: u32,
    /// Bytes written per second.
    pub written: u64,
}

impl DiskLimits {
    /// What an SD card of Application Performance Class 1 (A1) reaches at least (SD Physical Layer Specification 5.1,
    /// Application Performance Class).
    pub const A1: DiskLimits = DiskLimits { reads: 1500, writes: 500, written: 10_000_000 };
}

/// What is started without a boot loader: the firmware loads it from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// The device tree, on a board whose firmware hands one over.
    pub device_tree: Option<PathBuf>,
    /// Its command line.
    pub command_line: String,
}

/// The machine's files.
#[derive(Debug, Clone)]
pub struct Files {
    /// Firmware code, read only.
    pub code: PathBuf,
    /// Whether that is U-Boot, which has no variables here, and not UEFI.
    pub u_boot: bool,
    /// Firmware variables, private to this machine.
    pub vars: PathBuf,
    /// Raw disk image, private to this machine.
    pub disk: PathBuf,
    /// Whether the disk refuses writes, as a card with its switch set does.
    pub write_protected: bool,
    /// Where the serial console is appended.
    pub console: PathBuf,
    /// Raw image of a USB stick that is plugged in.
    pub stick: Option<PathBuf>,
    /// Raw image of a second disk, which is built in.
    pub second_disk: Option<PathBuf>,
    /// Whether there are free USB ports, into which sticks are plugged while it runs ([`stick_device`]).
    pub usb_ports: bool,
    /// Control socket (QMP).
    pub control: PathBuf,
    /// Control socket on which only events are read ([`crate::disk_errors`]).
    pub events: PathBuf,
    /// What is started in place of the disk's boot loader.
    pub kernel: Option<Kernel>,
    /// Where everything that the guest writes to its disk is recorded, in order ([`crate::writes`]).
    pub recording: Option<PathBuf>,
}

impl Files {
    /// Those that every machine has, in `dir`, for firmware whose code is `code`.
    pub fn plain(code: &Path, dir: &Path) -> Self {
        let at = |name: &str| dir.join(name);
        Files {
            code: code.to_owned(),
            u_boot: false,
            vars: at("vars.fd"),
            disk: at("disk.img"),
            write_protected: false,
            console: at("console.log"),
            stick: None,
            second_disk: None,
            usb_ports: false,
            control: at("qmp"),
            events: at("events"),
            kernel: None,
            recording: None,
        }
    }
}

/// A USB stick as QEMU takes it while it runs (`device_add`): `node` is its image.
pub fn stick_device(id: &str, node: &str) -> serde_json::Value {
    serde_json::json!({ "driver": "usb-storage", "bus": "sticks.0", "id": id, "drive": node, "removable": true })
}

/// What QEMU calls the disk of a device.
pub const DISK: &str = "disk";

/// What QEMU calls the network end of a device.
pub const NET: &str = "net";

/// Address of the network interface of a device that is alone.
pub const MAC: &str = "52:54:00:12:34:56";

/// The emulator's arguments.
pub fn argv(machine: &Machine, files: &Files) -> Vec<String> {
    if let Some(board) = &machine.board {
        return board::argv(board, machine, files);
    }
    let mut args = base(machine.arch, machine.accelerator);
    let mut add = |key: &str, value: String| args.extend([format!("-{key}"), value]);
    add("smp", machine.cpus.to_string());
    add("m", machine.memory_mib.to_string());
    add("rtc", format!("base={}", machine.clock));
    if files.u_boot {
        add("bios", files.code.display().to_string());
    } else {
        add("drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", escaped(&files.code)));
        add("drive", format!("if=pflash,unit=1,format=raw,file={}", escaped(&files.vars)));
    }
    let (option, disk) = disk(machine, files);
    add(option, disk);
    for device in disk_devices(machine.controller) {
        add("device", (*device).to_owned());
    }
    if files.stick.is_some() || files.usb_ports {
        add("device", "qemu-xhci,id=sticks".to_owned());
    }
    if let Some(disk) = &files.second_disk {
        add("drive", format!("if=none,id=second,format=raw,cache=unsafe,file={}", escaped(disk)));
        add("device", "virtio-blk-pci,drive=second".to_owned());
    }
    if let Some(stick) = &files.stick {
        add("drive", format!("if=none,id=stick,format=raw,cache=unsafe,file={}", escaped(stick)));
        add("device", "usb-storage,bus=sticks.0,drive=stick,removable=on".to_owned());
    }
    add("netdev", netdev(&machine.link, &machine.forwards));
    // No boot ROM: the disk is the only thing to start from.
    add("device", format!("virtio-net-pci,netdev={NET},mac={},romfile=", machine.mac));
    add("device", "virtio-rng-pci".to_owned());
    if let Some(serial) = &machine.serial {
        add("smbios", format!("type=1,serial={}", serial.replace(',', ",,")));
    }
    for (name, value) in &machine.credentials {
        let value = value.replace(',', ",,");
        add("smbios", format!("type=11,value=io.systemd.credential:{name}={value}"));
    }
    add("chardev", format!("file,id=console,append=on,path={}", escaped(&files.console)));
    add("serial", "chardev:console".to_owned());
    args.extend(sockets_and_kernel(files));
    args
}

/// Arguments that end every command line: the control sockets, and what is started in place of the boot loader.
pub(crate) fn sockets_and_kernel(files: &Files) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |key: &str, value: String| args.extend([format!("-{key}"), value]);
    for socket in [&files.control, &files.events] {
        add("qmp", format!("unix:{},server=on,wait=off", escaped(socket)));
    }
    if let Some(direct) = &files.kernel {
        add("kernel", direct.kernel.display().to_string());
        add("initrd", direct.initrd.display().to_string());
        add("append", direct.command_line.clone());
        if let Some(tree) = &direct.device_tree {
            add("dtb", tree.display().to_string());
        }
    }
    args
}

/// The disk behind its controller.
///
/// Flushes only have to reach the build machine's page cache, because its own power is not cut. Zeros that a guest
/// writes (a reset fills its whole disk with them) take no space.
fn disk(machine: &Machine, files: &Files) -> (&'static str, String) {
    let (path, zeros) = (escaped(&files.disk), "discard=unmap,detect-zeroes=unmap");
    match &files.recording {
        None => {
            let protected = if files.write_protected { ",readonly=on" } else { "" };
            let limits = machine.disk_limits.map_or(String::new(), |limits| {
                let DiskLimits { reads, writes, written } = limits;
                format!(",throttling.iops-read={reads},throttling.iops-write={writes},throttling.bps-write={written}")
            });
            ("drive", format!("if=none,id={DISK},format=raw,cache=unsafe,{zeros}{protected}{limits},file={path}"))
        }
        Some(log) => {
            let raw = |node: &str, path: &str| {
                format!(
                    "{node}.driver=raw,{node}.cache.no-flush=on,{node}.discard=unmap,{node}.file.driver=file,{node}.file.filename={path}"
                )
            };
            let (disk, log) = (raw("file", &path), raw("log", &escaped(log)));
            ("blockdev", format!("driver=blklogwrites,node-name=disk,log-sector-size=512,{zeros},{disk},{log}"))
        }
    }
}

pub(crate) fn netdev(link: &Link, forwards: &[Forward]) -> String {
    let forward = |f: &Forward| format!(",hostfwd=tcp:127.0.0.1:{}-:{}", f.host, f.guest);
    match link {
        Link::User => format!("user,id={NET}{}", forwards.iter().map(forward).collect::<String>()),
        Link::Relay(ends) => dgram(NET, &ends.peer, &ends.relay),
    }
}

/// A network end that is a pair of local datagram sockets, one datagram a frame. Needs QEMU 7.2.
pub fn dgram(id: &str, local: &Path, remote: &Path) -> String {
    let (local, remote) = (escaped(local), escaped(remote));
    format!("dgram,id={id},local.type=unix,local.path={local},remote.type=unix,remote.path={remote}")
}

/// Arguments that every guest of this architecture gets, a probe of the accelerator included.
pub fn base(arch: Arch, accelerator: Accelerator) -> Vec<String> {
    let (accel, cpu) = match (accelerator, arch) {
        (Accelerator::Kvm, _) => ("kvm", "host"),
        // Pointer authentication is slow to emulate, also with a simple cipher: each function of the kernel signs its
        // return address. The vector registers would be saved at each change of process.
        (Accelerator::Tcg, Arch::Arm64) => ("tcg,thread=multi", "max,pauth=off,sve=off,sme=off"),
        // -erms: QEMU emulates each step of `rep stosb`, so kernel and libraries are faster with eight bytes at a time.
        // -la57: page tables of four levels are walked faster than those of five.
        (Accelerator::Tcg, Arch::Amd64) => ("tcg,thread=multi", "max,-erms,-la57"),
    };
    let kind = match (arch, accelerator) {
        (Arch::Arm64, Accelerator::Kvm) => "virt,gic-version=host",
        (Arch::Arm64, Accelerator::Tcg) => "virt",
        (Arch::Amd64, _) => "q35",
    };
    let words = ["-no-user-config", "-nodefaults", "-display", "none", "-machine", kind, "-accel", accel, "-cpu", cpu];
    words.map(str::to_owned).to_vec()
}

fn disk_devices(controller: Controller) -> &'static [&'static str] {
    match controller {
        Controller::Virtio => &["virtio-blk-pci,drive=disk,bootindex=0,werror=stop,rerror=stop"],
        Controller::Nvme => &["nvme,drive=disk,serial=disk0,bootindex=0"],
        Controller::Ahci => &["ahci,id=sata", "ide-hd,bus=sata.0,drive=disk,bootindex=0"],
        Controller::Usb => &["qemu-xhci,id=usb", "usb-storage,bus=usb.0,drive=disk,bootindex=0"],
        Controller::Sdhci => &["sdhci-pci", "sd-card,drive=disk"],
    }
}

/// QEMU splits options at commas; a doubled comma is a literal one.
pub(crate) fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(arch: Arch) -> Machine {
        Machine {
            arch,
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory_mib: 2048,
            controller: Controller::Virtio,
            serial: Some("A,1".to_owned()),
            credentials: vec![("a.b".to_owned(), "c d".to_owned())],
            clock: "utc".to_owned(),
            mac: MAC.to_owned(),
            link: Link::User,
            forwards: vec![Forward { host: 20001, guest: 8080 }],
            disk_limits: None,
            board: None,
        }
    }

    fn files() -> Files {
        let at = |name: &str| PathBuf::from(format!("/run/{name}"));
        Files {
            code: at("code"),
            u_boot: false,
            vars: at("vars"),
            disk: at("disk"),
            write_protected: false,
            console: at("console"),
            stick: None,
            second_disk: None,
            usb_ports: false,
            control: at("qmp"),
            events: at("events"),
            kernel: None,
            recording: None,
        }
    }

    const REST: &str = "-smp 2 -m 2048 -rtc base=utc \
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/run/code \
        -drive if=pflash,unit=1,format=raw,file=/run/vars \
        -drive if=none,id=disk,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file=/run/disk \
        -device virtio-blk-pci,drive=disk,bootindex=0,werror=stop,rerror=stop \
        -netdev user,id=net,hostfwd=tcp:127.0.0.1:20001-:8080 \
        -device virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,romfile= \
        -device virtio-rng-pci -smbios type=1,serial=A,,1 -smbios type=11,value=io.systemd.credential:a.b=c d \
        -chardev file,id=console,append=on,path=/run/console -serial chardev:console \
        -qmp unix:/run/qmp,server=on,wait=off -qmp unix:/run/events,server=on,wait=off";

    #[test]
    fn an_emulated_amd64_device() {
        let head =
            "-no-user-config -nodefaults -display none -machine q35 -accel tcg,thread=multi -cpu max,-erms,-la57";
        assert_eq!(argv(&machine(Arch::Amd64), &files()).join(" "), format!("{head} {REST}"));
    }

    #[test]
    fn an_emulated_arm64_device() {
        let head = "-no-user-config -nodefaults -display none -machine virt -accel tcg,thread=multi \
            -cpu max,pauth=off,sve=off,sme=off";
        assert_eq!(argv(&machine(Arch::Arm64), &files()).join(" "), format!("{head} {REST}"));
    }

    #[test]
    fn a_device_on_a_relay() {
        let link = Link::Relay(Ends { relay: "/run/relay".into(), peer: "/run/own,1".into() });
        let all = argv(&Machine { link, ..machine(Arch::Amd64) }, &files()).join(" ");
        let net =
            "-netdev dgram,id=net,local.type=unix,local.path=/run/own,,1,remote.type=unix,remote.path=/run/relay -";
        assert!(all.contains(net), "{all}");
        assert!(!all.contains("user,id=net"), "{all}");
    }

    #[test]
    fn a_device_with_a_second_disk_and_usb_ports() {
        let all = Files { second_disk: Some("/run/second".into()), usb_ports: true, ..files() };
        let all = argv(&machine(Arch::Amd64), &all).join(" ");
        let added = "-device qemu-xhci,id=sticks \
            -drive if=none,id=second,format=raw,cache=unsafe,file=/run/second -device virtio-blk-pci,drive=second -netdev";
        assert!(all.contains(added), "{all}");
        let with = |stick: &str| Files { stick: Some(stick.into()), usb_ports: true, ..files() };
        let all = argv(&machine(Arch::Amd64), &with("/run/stick")).join(" ");
        assert_eq!(all.matches("qemu-xhci").count(), 1, "{all}");
        assert!(all.contains("usb-storage,bus=sticks.0,drive=stick,removable=on"), "{all}");
    }

    #[test]
    fn a_device_that_is_given_its_kernel() {
        let (k, i) = ("/run/k".into(), "/run/i".into());
        let kernel = Kernel { kernel: k, initrd: i, device_tree: None, command_line: "root=a rw".into() };
        let all = argv(&machine(Arch::Amd64), &Files { kernel: Some(kernel), ..files() });
        assert_eq!(all[all.len() - 6..], ["-kernel", "/run/k", "-initrd", "/run/i", "-append", "root=a rw"]);
    }

    #[test]
    fn a_device_whose_writes_are_recorded() {
        let all = argv(&machine(Arch::Amd64), &Files { recording: Some("/run/writes".into()), ..files() }).join(" ");
        let disk = "-blockdev driver=blklogwrites,node-name=disk,log-sector-size=512,discard=unmap,detect-zeroes=unmap,\
            file.driver=raw,file.cache.no-flush=on,file.discard=unmap,file.file.driver=file,file.file.filename=/run/disk,\
            log.driver=raw,log.cache.no-flush=on,log.discard=unmap,log.file.driver=file,log.file.filename=/run/writes \
            -device virtio-blk-pci,drive=disk,bootindex=0,werror=stop,rerror=stop";
        assert!(all.contains(disk), "{all}");
        assert!(!all.contains("id=disk"), "{all}");
    }

    #[test]
    fn a_device_with_a_disk_that_refuses_writes() {
        let all = argv(&machine(Arch::Amd64), &Files { write_protected: true, ..files() }).join(" ");
        assert!(all.contains("detect-zeroes=unmap,readonly=on,file=/run/disk -device virtio-blk-pci"), "{all}");
    }

    #[test]
    fn u_boot_takes_the_place_of_uefi() {
        let all = argv(&machine(Arch::Arm64), &Files { u_boot: true, ..files() }).join(" ");
        assert!(all.contains(" -bios /run/code -drive if=none,id=disk,") && !all.contains("pflash"), "{all}");
    }

    #[test]
    fn a_device_with_a_slow_card() {
        let slow = Machine { disk_limits: Some(DiskLimits::A1), ..machine(Arch::Amd64) };
        let all = argv(&slow, &files()).join(" ");
        let limits = "throttling.iops-read=1500,throttling.iops-write=500,throttling.bps-write=10000000,file=/run/disk";
        assert!(all.contains(limits), "{all}");
    }

    #[test]
    fn every_controller_carries_the_disk() {
        for controller in [Controller::Virtio, Controller::Nvme, Controller::Ahci, Controller::Usb, Controller::Sdhci] {
            let all = argv(&Machine { controller, ..machine(Arch::Amd64) }, &files());
            assert_eq!(all.iter().filter(|a| a.contains("drive=disk")).count(), 1, "{controller:?}");
        }
    }
}
