// SPDX-License-Identifier: Apache-2.0
//! The whole order of work below a root directory, natively and without root's rights, against a real control plane.
//!
//! firstboot's own code runs as on a device; systemd, kubelet, mounts and the container runtime are stand-ins
//! ([`stand_in`], [`cri`]), the kernel's files are written ([`ground`]). Takes any root directory and boot partition, be they
//! made here ([`Device::flashed`]) or read off the disk of an emulated device ([`resume`]). How a power cut may leave
//! both is in [`cut`].

pub mod cluster;
pub mod compare;
mod cri;
pub mod cut;
pub mod ground;
mod stand_in;
pub mod tree;

use anyhow::{Result, ensure};
use cluster::Cluster;
use firstboot::boot_partition::{BootPartition, Place, find_all, formatted_for_tests};
use firstboot::fault::{Code, Fault};
use firstboot::host::Host;
use firstboot::host::exclusions::Exclusions;
use firstboot::host::fake::{Fake, Recorded};
use firstboot::host::kept::copy_of;
use firstboot::reset::{Done, by_command, work_with};
use firstboot::run::facts::DeviceFacts;
use firstboot::run::run_phases;
use firstboot::status::STATUS_NAME;
use firstboot::{join_worker, seed};
use qemu::control_plane::ControlPlane;
use serde_json::Value;
use stand_in::StandIn;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How often a device may look for a seed before the run is ended: it would look for ever.
const LOOKS: u32 = 12;
/// What ends it then.
pub const NO_SEED: &str = "no seed is added";

/// A device that is switched off: its root file system, below a directory, and its boot partition.
#[derive(Debug, Clone)]
pub struct Device {
    /// The directory.
    pub root: PathBuf,
    /// The partition.
    pub boot: BootPartition,
    /// The hardware's serial number; the node is called `edge-SERIAL`.
    pub serial: String,
}

/// What came of one boot.
#[derive(Debug)]
pub struct Outcome {
    /// What `firstboot` ended with.
    pub done: Result<(), Fault>,
    /// What the console shows.
    pub lines: Vec<String>,
    /// Commands that were run, words joined by blanks.
    pub commands: Vec<String>,
    /// `firstboot-status.txt`, with plain line ends; empty where it cannot be read.
    pub status: String,
    /// Whether kubelet runs at the end.
    pub kubelet: bool,
    /// The Node, where [`resume`] asked for it.
    pub node: Option<Value>,
}

/// Called before each effect, with what it is about; what it fails with, the effect fails with.
pub type Before = Box<dyn Fn(&str) -> Result<()>>;
/// Gives the boot partition each time that firstboot looks for it.
pub type Card = Box<dyn Fn() -> Vec<BootPartition>>;

/// What a test has to do with a boot.
pub struct Boot {
    /// Nothing, unless a test says so.
    pub before: Before,
    /// The device's own, unless a test says so.
    pub card: Option<Card>,
    /// Whether only the process is started again, by systemd, and the kernel runs on.
    pub restart: bool,
}

impl Default for Boot {
    fn default() -> Self {
        Boot { before: Box::new(|_| Ok(())), card: None, restart: false }
    }
}

/// Lets firstboot go on with what a device was left with, to its end: a new boot, with no fault and no further cut.
///
/// The node is called as its journal says, or by the serial number `native`. Where seed and files name the API server by
/// the address that guests have for it, they are given that of the build machine ([`readdress`]); so should cluster-info.
///
/// # Panics
/// When the directory cannot be written, or the cluster does not answer.
#[allow(clippy::expect_used)] // a test's helper
pub fn resume(root: &Path, boot: BootPartition, plane: &ControlPlane) -> Outcome {
    let serial = node_on_record(root).and_then(|node| node.strip_prefix("edge-").map(str::to_owned));
    let device = Device { root: root.to_owned(), boot, serial: serial.unwrap_or_else(|| "native".to_owned()) };
    device.resume(plane).expect("boot the device")
}

/// Puts `to` in the place of `from` (`HOST:PORT`) in the seed and in the files that came of it, which know the seed by
/// its digest: then a device that joined by one address of a cluster has joined by the other.
///
/// # Errors
/// When something cannot be read or written.
pub fn readdress(root: &Path, boot: &BootPartition, from: &str, to: &str) -> Result<()> {
    let replaced = |bytes: &[u8], from: &str, to: &str| -> Vec<u8> {
        let (mut new, mut at) = (Vec::new(), 0);
        for found in find_all(bytes, from.as_bytes()) {
            new.extend_from_slice(&bytes[at..found]);
            new.extend_from_slice(to.as_bytes());
            at = found + from.len();
        }
        new.extend_from_slice(&bytes[at..]);
        new
    };
    let mut digests = None;
    if let Ok(Some((name, bytes))) = boot.seed() {
        let new = replaced(&bytes, from, to);
        if let (Ok(old), Ok(seed)) = (seed::parse(&bytes), seed::parse(&new)) {
            digests = Some((old.digest().to_owned(), seed.digest().to_owned()));
            boot.write(name, &new)?;
        }
    }
    for directory in ["etc/kubernetes", "var/lib/firstboot"] {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
        for entry in entries {
            let path = entry?.path();
            if !path.is_file() || path.is_symlink() {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let mut new = replaced(&bytes, from, to);
            if let Some((old, digest)) = &digests {
                new = replaced(&new, old, digest);
            }
            if new != bytes {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                std::fs::write(&path, checked(&name, new))?;
            }
        }
    }
    Ok(())
}

/// A changed file of firstboot's own with the checksums that its new content has: lines `[NUMBER,"CRC",RECORD]` of the
/// journal, the first line of a copy. What was damaged or cut off before stays so.
fn checked(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    if name.starts_with("journal") {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        return text.split_inclusive('\n').map(checked_line).collect::<String>().into_bytes();
    }
    match bytes.iter().position(|b| *b == b'\n').filter(|_| name.ends_with(".copy")) {
        Some(end) => copy_of(&bytes[end + 1..], None),
        None => bytes,
    }
}

fn checked_line(line: &str) -> String {
    let parts = || {
        let (number, rest) = line.strip_prefix('[')?.strip_suffix("]\n")?.split_once(",\"")?;
        let (_, record) = rest.split_once("\",")?;
        serde_json::from_str::<Value>(record).ok()?;
        let sum = crc32fast::hash(format!("{number},{record}").as_bytes());
        Some(format!("[{number},\"{sum:08x}\",{record}]\n"))
    };
    parts().unwrap_or_else(|| line.to_owned())
}

/// The node's name in the journal below `root`.
pub fn node_on_record(root: &Path) -> Option<String> {
    let journal = std::fs::read_to_string(root.join("var/lib/firstboot/journal")).ok()?;
    // A line is `[NUMBER,"CRC",RECORD]`.
    let records = journal.lines().rev().filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?[2].take()));
    let mut names = records.filter(|r| ["node", "node-before"].iter().any(|name| r["fact"]["name"] == *name));
    names.next()?["fact"]["value"].as_str().map(str::to_owned)
}

impl Device {
    /// A device as it was flashed, with a seed, in a directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flashed(directory: &Path, serial: &str, seed: &str) -> Result<Self> {
        let root = directory.join("root");
        std::fs::create_dir_all(&root)?;
        ground::flashed(&root)?;
        let boot = formatted_for_tests(&directory.join("boot.img"), 0, CARD as u64)?;
        boot.write("seed.toml", seed.as_bytes())?;
        // As the image builder leaves it: of its full size.
        boot.write(STATUS_NAME, &firstboot::status::padded("state: waiting for a seed\n"))?;
        boot.write("seed.toml.example", b"# how to write one\n")?;
        Ok(Device { root, boot, serial: serial.to_owned() })
    }

    /// Name of its Node.
    pub fn node(&self) -> String {
        format!("edge-{}", self.serial)
    }

    /// [`resume`] of a device whose serial number is known.
    ///
    /// # Errors
    /// When it cannot be written, the stand-ins cannot do their part, or the cluster does not answer.
    pub fn resume(&self, plane: &ControlPlane) -> Result<Outcome> {
        readdress(&self.root, &self.boot, &plane.endpoint_for_guest(), &plane.endpoint_for_host())?;
        let mut outcome = self.run(Boot::default())?;
        // A seed may have named it.
        let node = node_on_record(&self.root).unwrap_or_else(|| self.node());
        outcome.node = Cluster::of(plane)?.node(&node)?;
        Ok(outcome)
    }

    /// Switches it on, and lets `firstboot` run to its end.
    ///
    /// # Errors
    /// When the stand-ins cannot do their part.
    pub fn run(&self, boot: Boot) -> Result<Outcome> {
        let (fake, seen, beside) = self.machine(boot.before, boot.restart)?;
        let looks = Cell::new(0);
        let places = |_: &str| {
            looks.set(looks.get() + 1);
            ensure!(looks.get() < LOOKS, "{NO_SEED}");
            let there = boot.card.as_ref().map_or_else(|| vec![self.boot.clone()], |card| card());
            Ok(there.into_iter().map(|partition| Place { partition, removable: false }).collect())
        };
        let done = run_phases(&self.root, Box::new(fake), None, firstboot::phases::PHASES, &places);
        Ok(self.outcome(done, &seen, &beside))
    }

    /// Switches it on, asks for a reset and lets it be done.
    ///
    /// # Errors
    /// When the stand-ins cannot do their part.
    pub fn reset(&self) -> Result<Outcome> {
        self.reset_with(Box::new(|_| Ok(())))
    }

    /// The same, with something to do before each effect.
    ///
    /// # Errors
    /// As [`reset`](Device::reset).
    pub fn reset_with(&self, before: Before) -> Result<Outcome> {
        let (fake, seen, beside) = self.machine(before, false)?;
        let asked = || -> Result<Done, Fault> {
            let host = Host::open(&self.root, Box::new(Fake::new().0)).map_err(|e| Fault::new(Code::Host, e))?;
            by_command(&host, &Exclusions::default(), false)
        };
        let places = |_: &str| Ok(vec![Place { partition: self.boot.clone(), removable: false }]);
        let done = asked().and_then(|_| work_with(&self.root, Box::new(fake), &DeviceFacts, &places));
        Ok(self.outcome(done, &seen, &beside))
    }

    /// The scripted machine, switched on.
    fn machine(&self, before: Before, restart: bool) -> Result<(Fake, Rc<Recorded>, Rc<StandIn>)> {
        if !restart {
            ground::power_on(&self.root, &self.serial)?;
        }
        let beside = Rc::new(StandIn::new(&self.root, &self.node()));
        beside.boot()?;
        let answers = beside.clone();
        let (fake, seen) = Fake::new();
        let fake = fake
            .answering(move |argv| answers.answer(argv))
            .sockets_below(&self.root)
            .kernel_below(&self.root)
            .serving(join_worker::SOCKET, |stream| drop(join_worker::confined::serve(&stream)))
            .before(before);
        Ok((fake, seen, beside))
    }

    fn outcome(&self, done: Result<(), Fault>, seen: &Recorded, beside: &StandIn) -> Outcome {
        let status = self.boot.read(STATUS_NAME).ok().flatten().unwrap_or_default();
        Outcome {
            done,
            lines: seen.lines.take(),
            commands: seen.commands.take(),
            status: String::from_utf8_lossy(&status).replace('\r', ""),
            kubelet: beside.kubelet_runs(),
            node: None,
        }
    }

    /// What the cluster has of it.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn registered(&self, cluster: &Cluster) -> Result<Option<Value>> {
        cluster.node(&self.node())
    }
}

/// Length of the boot partition, bytes: as small as a FAT16 may be, for it is searched again and again.
pub(crate) const CARD: usize = 5 << 20;
