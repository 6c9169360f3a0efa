// SPDX-License-Identifier: Apache-2.0
//! The two slots of an image: which one is on trial, confirming it, and switching to the other one.
//!
//! [`BootSlots`] is for UEFI, [`autoboot::Autoboot`] for the firmware of a Raspberry Pi; [`Slots`] is what a device has.
//!
//! systemd-boot counts the boots of an entry on trial by renaming its file, and prefers the other entry when no try is
//! left (systemd-boot(7), "Boot counting"). No change here ever leaves the disk without an entry that starts: a file is
//! written before the one that it replaces is removed, and both name the same kernel image.

pub mod autoboot;
pub mod entry;

use crate::boot_partition::{BootPartition, on_root_disk};
use crate::host::Host;
use anyhow::{Context, Result, ensure};
use autoboot::{Autoboot, Due};
pub use entry::TRIES;
use entry::{Entry, EntryName, Slot, Tries};

/// The directory of the boot loader's entries.
pub const ENTRIES: &str = "loader/entries";

/// The slots of this device.
#[derive(Debug)]
pub enum Slots {
    /// Boot entries, whose tries systemd-boot counts.
    Entries(BootSlots),
    /// `autoboot.txt`, whose tries the good slot counts.
    Autoboot(Autoboot),
}

impl Slots {
    /// Finds them on the disk of the root file system; `None` when that disk has none.
    ///
    /// # Errors
    /// When the disk or the partition cannot be read.
    pub fn find(host: &Host) -> Result<Option<Slots>> {
        match Autoboot::find(host)? {
            Some(slots) => Ok(Some(Slots::Autoboot(slots))),
            None => Ok(BootSlots::find()?.map(Slots::Entries)),
        }
    }

    /// The counter of a slot that is on trial; `None` when a boot of it was confirmed, or there is none.
    pub fn trial(&self, slot: Slot) -> Option<Tries> {
        match self {
            Slots::Entries(slots) => slots.trial(slot),
            Slots::Autoboot(slots) => slots.trial(slot),
        }
    }

    /// Whether a slot that does not run failed its trial.
    pub fn failed(&self, slot: Slot) -> bool {
        match self {
            Slots::Entries(slots) => slots.failed(slot),
            Slots::Autoboot(slots) => slots.failed(slot),
        }
    }

    /// Notes this boot of slot `running`, and says what is due.
    ///
    /// # Errors
    /// When the partition cannot be written.
    pub fn begin(&mut self, host: &Host, running: Slot) -> Result<Due> {
        match self {
            Slots::Entries(slots) => Ok(slots.trial(running).map_or(Due::Nothing, |_| Due::Confirm(running))),
            Slots::Autoboot(slots) => slots.begin(host, running),
        }
    }

    /// Ends the trial of a slot.
    ///
    /// # Errors
    /// When the slot has no entry, or the partition cannot be written.
    pub fn confirm(&mut self, host: &Host, slot: Slot) -> Result<()> {
        match self {
            Slots::Entries(slots) => slots.confirm(host, slot),
            Slots::Autoboot(slots) => slots.confirm(host, slot),
        }
    }
}

/// The EFI system partition of this device, with its boot entries.
#[derive(Debug)]
pub struct BootSlots {
    partition: BootPartition,
    names: Vec<String>,
}

impl BootSlots {
    /// Finds the partition on the disk of the root file system; `None` when that disk has none.
    ///
    /// # Errors
    /// When the disk or the partition cannot be read.
    pub fn find() -> Result<Option<BootSlots>> {
        let found = on_root_disk(&|fat| fat.list_in(ENTRIES).is_ok_and(|names| names.is_some()))?;
        found.into_iter().next().map(BootSlots::open).transpose()
    }

    /// The slots on this partition.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(partition: BootPartition) -> Result<BootSlots> {
        let names =
            partition.list_in(ENTRIES)?.with_context(|| format!("find {ENTRIES} on the EFI system partition"))?;
        Ok(BootSlots { partition, names })
    }

    /// Entries of a slot: file name as it is on the disk, and what it says.
    fn of(&self, slot: Slot) -> impl Iterator<Item = (&String, EntryName)> {
        self.names
            .iter()
            .filter_map(|name| Some((name, EntryName::parse(name)?)))
            .filter(move |(_, of)| of.slot == slot)
    }

    /// The counter of a slot that is on trial; `None` when a boot of it was confirmed, or there is none.
    pub fn trial(&self, slot: Slot) -> Option<Tries> {
        // Beside a confirmed entry, one with a counter is what a power cut left of the confirmation.
        if self.of(slot).any(|(_, name)| name.tries.is_none()) {
            return None;
        }
        self.of(slot).find_map(|(_, name)| name.tries)
    }

    /// Whether a slot used up its tries and was never confirmed.
    pub fn failed(&self, slot: Slot) -> bool {
        self.trial(slot).is_some_and(|tries| tries.left == 0)
    }

    /// Ends the trial of a slot: its entry loses the counter.
    ///
    /// # Errors
    /// When the slot has no entry, or the partition cannot be written.
    pub fn confirm(&mut self, host: &Host, slot: Slot) -> Result<()> {
        let (name, _) = self.of(slot).next().with_context(|| format!("find the boot entry of slot {slot}"))?;
        let path = format!("{ENTRIES}/{name}");
        let text = self.partition.read(&path)?.with_context(|| format!("find {path}"))?;
        self.put(host, EntryName { slot, tries: None }, &text)
    }

    /// Makes a slot the one that is started next, on trial: [`TRIES`] boots, and then the other slot again, unless
    /// [`BootSlots::confirm`] ends the trial. The slot's root and kernel image must be on the disk already. The boot loader
    /// prefers the newest entry, so the entry must be newer than the other slot's.
    ///
    /// # Errors
    /// When the other slot has no entry to return to, or a newer one, or the partition cannot be written.
    pub fn switch_to(&mut self, host: &Host, entry: &Entry) -> Result<()> {
        let other = entry.slot.other();
        let (name, _) = self
            .of(other)
            .find(|(_, name)| name.tries.is_none())
            .with_context(|| format!("switch to slot {}: slot {other} was never confirmed", entry.slot))?;
        let path = format!("{ENTRIES}/{name}");
        let text = self.partition.read(&path)?.with_context(|| format!("find {path}"))?;
        let running = Entry::parse(other, &String::from_utf8_lossy(&text))?;
        ensure!(
            entry.build_time > running.build_time,
            "switch to slot {}: its system was built at {}, not after the {} of slot {other}",
            entry.slot,
            entry.build_time,
            running.build_time
        );
        let tries = Some(Tries { left: TRIES, done: 0 });
        self.put(host, EntryName { slot: entry.slot, tries }, entry.text().as_bytes())
    }

    /// Writes an entry, then removes all others of its slot.
    fn put(&mut self, host: &Host, entry: EntryName, text: &[u8]) -> Result<()> {
        let name = entry.to_string();
        let path = format!("{ENTRIES}/{name}");
        host.change_boot("write", &path, || self.partition.write(&path, text))?;
        let old: Vec<String> =
            self.of(entry.slot).map(|(old, _)| old.clone()).filter(|old| !old.eq_ignore_ascii_case(&name)).collect();
        for old in old {
            let path = format!("{ENTRIES}/{old}");
            host.change_boot("remove", &path, || self.partition.remove(&path))?;
        }
        *self = BootSlots::open(self.partition.clone())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_partition::formatted_for_tests;
    use crate::host::fake::Fake;

    fn entry(slot: Slot, build_time: u64) -> Entry {
        Entry { slot, build_time, build_id: "id".into(), sha256: "ab".repeat(32) }
    }

    struct Device {
        dir: tempfile::TempDir,
        partition: BootPartition,
    }

    impl Device {
        fn new(entries: &[&str]) -> Device {
            let dir = tempfile::tempdir().unwrap();
            let partition = formatted_for_tests(&dir.path().join("esp.img"), 0, 40 << 20).unwrap();
            partition.make_directory_for_tests("loader").unwrap();
            partition.make_directory_for_tests(ENTRIES).unwrap();
            for name in entries {
                let slot = EntryName::parse(name).unwrap().slot;
                let text = entry(slot, if slot == Slot::A { 100 } else { 200 }).text();
                partition.write(&format!("{ENTRIES}/{name}"), text.as_bytes()).unwrap();
            }
            Device { dir, partition }
        }

        fn host(&self) -> Host {
            Host::open(self.dir.path(), Box::new(Fake::new().0)).unwrap()
        }

        fn slots(&self) -> BootSlots {
            BootSlots::open(self.partition.clone()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names = self.partition.list_in(ENTRIES).unwrap().unwrap();
            names.sort();
            names
        }
    }

    #[test]
    fn a_slot_on_trial_is_confirmed_once() {
        let device = Device::new(&["firstboot-a.conf", "firstboot-b+2-1.conf"]);
        let mut slots = device.slots();
        assert_eq!(slots.trial(Slot::A), None);
        assert_eq!(slots.trial(Slot::B), Some(Tries { left: 2, done: 1 }));
        slots.confirm(&device.host(), Slot::B).unwrap();
        assert_eq!(device.names(), ["firstboot-a.conf", "firstboot-b.conf"]);
        assert_eq!((slots.trial(Slot::B), slots.failed(Slot::B)), (None, false));
        let text = device.partition.read(&format!("{ENTRIES}/firstboot-b.conf")).unwrap().unwrap();
        assert_eq!(Entry::parse(Slot::B, &String::from_utf8(text).unwrap()).unwrap(), entry(Slot::B, 200));
        // What a power cut between the two steps leaves.
        let device = Device::new(&["firstboot-b.conf", "firstboot-b+2-1.conf"]);
        assert_eq!(device.slots().trial(Slot::B), None);
        device.slots().confirm(&device.host(), Slot::B).unwrap();
        assert_eq!(device.names(), ["firstboot-b.conf"]);
    }

    #[test]
    fn a_switch_gives_three_tries_and_keeps_the_way_back() {
        let device = Device::new(&["firstboot-a.conf", "firstboot-b+0-3.conf"]);
        let mut slots = device.slots();
        assert!(slots.failed(Slot::B) && !slots.failed(Slot::A));
        slots.switch_to(&device.host(), &entry(Slot::B, 300)).unwrap();
        assert_eq!(device.names(), ["firstboot-a.conf", "firstboot-b+3.conf"]);
        assert_eq!(slots.trial(Slot::B), Some(Tries { left: 3, done: 0 }));
        let older = slots.switch_to(&device.host(), &entry(Slot::B, 100)).unwrap_err().to_string();
        assert_eq!(older, "switch to slot b: its system was built at 100, not after the 100 of slot a");
        let back = slots.switch_to(&device.host(), &entry(Slot::A, 400)).unwrap_err().to_string();
        assert_eq!(back, "switch to slot a: slot b was never confirmed");
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_both_slots_an_entry() {
        for steps in 0..3 {
            let device = Device::new(&["firstboot-a.conf", "firstboot-b+2-1.conf"]);
            let (fake, seen) = Fake::new();
            let host = Host::open(device.dir.path(), Box::new(fake)).unwrap();
            seen.fuse.set(Some(steps));
            let done = device.slots().confirm(&host, Slot::B);
            assert_eq!(done.is_ok(), steps == 2, "{steps}");
            let names = device.names();
            assert!(names.iter().any(|name| name.starts_with("firstboot-b")), "{names:?}");
            assert!(names.contains(&"firstboot-a.conf".to_owned()));
            device.slots().confirm(&device.host(), Slot::B).unwrap();
            assert_eq!(device.names(), ["firstboot-a.conf", "firstboot-b.conf"]);
        }
    }
}
