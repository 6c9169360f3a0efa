// SPDX-License-Identifier: Apache-2.0
//! Boards that QEMU emulates, with their own disk, network and console; and QEMU's command line for them.

use crate::args::{DISK, Files, Machine, NET, escaped, netdev, sockets_and_kernel};
use crate::raspberry_pi::{self, Model};

/// A board that QEMU emulates, and whose firmware this harness plays ([`crate::raspberry_pi`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// QEMU's name of the machine.
    pub machine: &'static str,
    /// Memory that it has, MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u8,
    /// Its network interface, as QEMU's `-device`.
    pub network: &'static str,
    /// What its firmware knows it as.
    pub model: Model,
    /// Physical address of the register in which a restart names a partition.
    pub restart_register: u64,
    /// Which of QEMU's serial ports is the console: the first one (PL011), or the second one (8250), as on a board.
    pub console: usize,
    /// Further words for its kernel, each after a blank.
    pub words: &'static str,
}

/// Words that every kernel gets. QEMU restarts a board when its watchdog is armed, so systemd must not find
/// one. And only the first processor gets work, the others idle: emulated processors that wait for each other cost as much
/// as those that work, a boot half as much again.
pub(crate) const WORDS: &str = "systemd.watchdog_device=/dev/none isolcpus=1-3";

impl Board {
    /// Raspberry Pi 3 B.
    pub const RASPI3B: Board = Board {
        machine: "raspi3b",
        memory_mib: 1024,
        cpus: 4,
        network: "usb-net",
        model: raspberry_pi::PI_3B,
        restart_register: 0x3f10_0020,
        console: 1,
        words: "",
    };
    /// Raspberry Pi 4 B. QEMU has neither its Ethernet nor its PCI Express, to which the USB
    /// sockets are connected; it has the USB controller of the socket for power, which the board's own device tree makes
    /// a peripheral.
    pub const RASPI4B: Board = Board {
        machine: "raspi4b",
        memory_mib: 2048,
        cpus: 4,
        network: "usb-net",
        model: raspberry_pi::PI_4B,
        restart_register: 0xfe10_0020,
        console: 0,
        // The last console that is named counts for programs, also where it is not there.
        words: " console=ttyAMA0,115200",
    };
}

/// The arguments for a board. It has no clock chip, no firmware and no power button. One of its two serial ports is at the
/// pins. A restart stops it, so that its registers can be read: the firmware would now look at the disk again.
pub(crate) fn argv(board: &Board, machine: &Machine, files: &Files) -> Vec<String> {
    let mut args: Vec<String> = ["-no-user-config", "-nodefaults", "-display", "none"].map(str::to_owned).to_vec();
    let mut add = |key: &str, value: String| args.extend([format!("-{key}"), value]);
    add("action", "reboot=shutdown,shutdown=pause".to_owned());
    add("machine", board.machine.to_owned());
    add("accel", "tcg,thread=multi".to_owned());
    add("smp", board.cpus.to_string());
    add("m", board.memory_mib.to_string());
    let (path, zeros) = (escaped(&files.disk), "discard=unmap,detect-zeroes=unmap");
    add("drive", format!("if=sd,id={DISK},format=raw,cache=unsafe,{zeros},file={path}"));
    add("netdev", netdev(&machine.link, &machine.forwards));
    add("device", format!("{},netdev={NET},mac={}", board.network, machine.mac));
    add("chardev", format!("file,id=console,append=on,path={}", escaped(&files.console)));
    for port in 0..2 {
        add("serial", if port == board.console { "chardev:console" } else { "null" }.to_owned());
    }
    args.extend(sockets_and_kernel(files));
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accelerator;
    use crate::args::{Controller, Kernel, Link, MAC};
    use imagebuild::arch::Arch;
    use std::path::Path;

    #[test]
    fn a_board_has_its_disk_in_the_slot_and_its_console_at_the_pins() {
        let machine = Machine {
            arch: Arch::Arm64,
            accelerator: Accelerator::Tcg,
            cpus: 1,
            memory_mib: 1,
            controller: Controller::Virtio,
            serial: None,
            credentials: Vec::new(),
            clock: "utc".to_owned(),
            mac: MAC.to_owned(),
            link: Link::User,
            forwards: Vec::new(),
            disk_limits: None,
            board: Some(Board::RASPI3B),
        };
        let kernel = Kernel {
            kernel: "/run/k".into(),
            initrd: "/run/i".into(),
            device_tree: Some("/run/d".into()),
            command_line: "a b".into(),
        };
        let files = Files { kernel: Some(kernel), ..Files::plain(Path::new("/run/code"), Path::new("/run")) };
        let all = crate::args::argv(&machine, &files).join(" ");
        assert!(all.contains("-machine raspi3b -accel tcg,thread=multi -smp 4 -m 1024 -drive if=sd,id=disk,"), "{all}");
        assert!(all.contains("-serial null -serial chardev:console "), "{all}");
        assert!(all.ends_with("-kernel /run/k -initrd /run/i -append a b -dtb /run/d"), "{all}");
    }
}
