// SPDX-License-Identifier: Apache-2.0
//! The trial of a slot, on a real FAT file system and a scripted machine.

use super::*;
use crate::boot_partition::{BootPartition, formatted_for_tests};
use crate::boot_report::BOOT_REPORT;
use crate::boot_slot::autoboot::{self, Autoboot, Numbers};
use crate::boot_slot::entry::{Entry, EntryName};
use crate::boot_slot::{BootSlots, ENTRIES};
use crate::host::fake::{Fake, Recorded};
use crate::journal::Record;
use std::rc::Rc;

struct Device {
    host: Host,
    seen: Rc<Recorded>,
    partition: BootPartition,
    dir: tempfile::TempDir,
}

impl Device {
    /// A device that runs slot `running`, with these entries.
    fn new(running: &str, entries: &[&str]) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let partition = formatted_for_tests(&dir.path().join("esp.img"), 0, 40 << 20).unwrap();
        partition.make_directory_for_tests("loader").unwrap();
        partition.make_directory_for_tests(ENTRIES).unwrap();
        for name in entries {
            let slot = EntryName::parse(name).unwrap().slot;
            let entry = Entry { slot, build_time: 1, build_id: "x".into(), sha256: "ab".repeat(32) };
            partition.write(&format!("{ENTRIES}/{name}"), entry.text().as_bytes()).unwrap();
        }
        let (fake, seen) = Fake::new();
        let host = Host::open(
            dir.path(),
            Box::new(fake.answering(|argv| (argv[0] == "systemctl").then(|| Ok(String::new())))),
        )
        .unwrap();
        let report = format!(r#"{{"version":1,"slot":"{running}","root":"/dev/vda4","data":null,"state":"kept"}}"#);
        host.write(BOOT_REPORT, report.as_bytes(), 0o644).unwrap();
        Device { host, seen, partition, dir }
    }

    fn confirm(&self, ready: &dyn Fn(&Host) -> Result<(), Fault>) -> Result<(), Fault> {
        let slots = |_: &Host| Ok(Some(Slots::Entries(BootSlots::open(self.partition.clone())?)));
        confirm_with(&self.host, &Surroundings { slots: &slots, ready })
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.partition.list_in(ENTRIES).unwrap().unwrap();
        names.sort();
        names
    }

    fn seal(&self) {
        self.host.record(Record::Sealed).unwrap();
    }
}

const ON_TRIAL: [&str; 2] = ["firstboot-a.conf", "firstboot-b+2-1.conf"];

#[test]
fn a_device_that_waits_for_a_seed_is_good() {
    let device = Device::new("b", &ON_TRIAL);
    let status = Status { state: State::Waiting, code: Some(Code::NoSeed), ..Status::default() };
    device.host.write(STATUS_FOR_ALL, &serde_json::to_vec(&status).unwrap(), 0o644).unwrap();
    device.confirm(&|_| panic!("it is no node")).unwrap();
    assert_eq!(device.names(), ["firstboot-a.conf", "firstboot-b.conf"]);
    assert_eq!(device.seen.lines.take(), ["firstboot: slot b is confirmed"]);
}

#[test]
fn a_node_is_good_when_it_is_ready_and_not_before() {
    let device = Device::new("b", &ON_TRIAL);
    device.seal();
    let asked = std::cell::Cell::new(0);
    device
        .confirm(&|_| {
            asked.set(asked.get() + 1);
            match asked.get() {
                3 => Ok(()),
                _ => Err(Fault::new(Code::NodeNotReady, "node edge-1 is not Ready after 30 s: x")),
            }
        })
        .unwrap();
    assert_eq!((asked.get(), device.names()), (3, vec!["firstboot-a.conf".to_owned(), "firstboot-b.conf".to_owned()]));
}

#[test]
fn a_trial_that_is_not_good_in_time_restarts_the_device() {
    let device = Device::new("b", &ON_TRIAL);
    device.seal();
    let fault = device.confirm(&|_| Err(Fault::new(Code::NodeNotReady, "node edge-1 is not Ready"))).unwrap_err();
    assert_eq!(fault.code, Code::SlotFailed);
    assert_eq!(
        fault.to_string(),
        "confirm slot b: not Ready within 900 s of power-on: node edge-1 is not Ready; restarting"
    );
    assert_eq!(device.names(), ON_TRIAL);
    assert_eq!(device.seen.commands.take(), ["systemctl --no-block reboot"]);
}

#[test]
fn the_kernels_command_line_sets_the_limit() {
    let device = Device::new("b", &ON_TRIAL);
    device.host.write("/proc/cmdline", b"quiet firstboot.trial=60 panic=30\n", 0o444).unwrap();
    let fault = device.confirm(&|_| panic!("it is no node")).unwrap_err();
    let why = "it neither joined nor waits for a seed";
    assert_eq!(fault.to_string(), format!("confirm slot b: not Ready within 60 s of power-on: {why}; restarting"));
}

#[test]
fn a_slot_that_failed_is_in_the_status_until_it_is_replaced() {
    let device = Device::new("a", &["firstboot-a.conf", "firstboot-b+0-3.conf"]);
    device.confirm(&|_| panic!("slot a is not on trial")).unwrap();
    assert_eq!(
        warning(&device.host).unwrap(),
        "Slot: slot b did not start in its tries, so the other one runs (FB326)"
    );
    device.partition.remove(&format!("{ENTRIES}/firstboot-b+0-3.conf")).unwrap();
    device.confirm(&|_| panic!("slot a is not on trial")).unwrap();
    assert_eq!(warning(&device.host), None);
}

#[test]
fn a_device_without_slots_has_nothing_to_confirm() {
    let device = Device::new("a", &["firstboot-a.conf"]);
    device.host.remove(BOOT_REPORT).unwrap();
    device.confirm(&|_| panic!("nothing is on trial")).unwrap();
}

const NUMBERS: Numbers = Numbers { a: 2, b: 3 };

impl Device {
    /// As on a board whose firmware reads `autoboot.txt`.
    fn confirm_autoboot(&self, ready: &dyn Fn(&Host) -> Result<(), Fault>) -> Result<(), Fault> {
        let slots = |_: &Host| Ok(Some(Slots::Autoboot(Autoboot::open(self.partition.clone(), NUMBERS)?)));
        confirm_with(&self.host, &Surroundings { slots: &slots, ready })
    }

    fn set(&self, state: autoboot::State) {
        self.partition.write(autoboot::NAME, state.text(NUMBERS).as_bytes()).unwrap();
    }

    fn state(&self) -> autoboot::State {
        Autoboot::open(self.partition.clone(), NUMBERS).unwrap().state().unwrap()
    }
}

#[test]
fn the_good_slot_restarts_the_device_into_the_one_on_trial() {
    let device = Device::new("a", &[]);
    device.set(autoboot::State::Trial { of: Slot::B, left: 3, ran: false });
    device.confirm_autoboot(&|_| panic!("slot a is not on trial")).unwrap();
    assert_eq!(device.seen.lines.take(), ["firstboot: slot b is tried, 1 of 3: restarting"]);
    assert_eq!(device.seen.commands.take(), ["systemctl --no-block --reboot-argument=slot-b reboot"]);
    // It came back, and its system never ran.
    device.confirm_autoboot(&|_| panic!("slot a is not on trial")).unwrap();
    assert!(device.seen.commands.take().is_empty());
    assert_eq!(
        warning(&device.host).unwrap(),
        "Slot: slot b did not start in its tries, so the other one runs (FB326)"
    );
}

#[test]
fn a_slot_that_the_good_one_tried_is_confirmed_for_good() {
    let device = Device::new("b", &[]);
    device.set(autoboot::State::Trial { of: Slot::B, left: 2, ran: false });
    device.seal();
    let fault = device.confirm_autoboot(&|_| Err(Fault::new(Code::NodeNotReady, "node edge-1 is not Ready")));
    assert_eq!(fault.unwrap_err().code, Code::SlotFailed);
    assert_eq!(device.state(), autoboot::State::Trial { of: Slot::B, left: 2, ran: true });
    assert_eq!(device.seen.commands.take(), ["systemctl --no-block reboot"]);
    device.seen.lines.take();
    let device = Device::new("b", &[]);
    device.set(autoboot::State::Trial { of: Slot::B, left: 0, ran: false });
    device.seal();
    device.confirm_autoboot(&|_| Ok(())).unwrap();
    assert_eq!(device.state(), autoboot::State::Settled(Slot::B));
    assert_eq!(device.seen.lines.take(), ["firstboot: slot b is confirmed"]);
}

#[test]
fn a_version_that_cannot_use_the_data_is_not_good() {
    let device = Device::new("b", &ON_TRIAL);
    let report = r#"{"version":1,"slot":"b","root":"/dev/vda4","data":null,"state":"memory","reason":"no ext4"}"#;
    device.host.write(BOOT_REPORT, report.as_bytes(), 0o644).unwrap();
    let status = Status { state: State::Waiting, code: Some(Code::NoSeed), ..Status::default() };
    device.host.write(STATUS_FOR_ALL, &serde_json::to_vec(&status).unwrap(), 0o644).unwrap();
    let fault = device.confirm(&|_| panic!("it is no node")).unwrap_err();
    assert_eq!(fault.code, Code::SlotFailed);
    assert!(fault.to_string().contains("/var is in memory and lost at power-off (no ext4)"), "{fault}");
    assert_eq!(device.names(), ON_TRIAL);
}

/// firstboot.service writes the journal while this one waits.
#[test]
fn a_device_that_joins_meanwhile_is_good() {
    let device = Device::new("b", &ON_TRIAL);
    let other = Host::open(device.dir.path(), Box::new(Fake::new().0)).unwrap();
    other.record(Record::Sealed).unwrap();
    device.confirm(&|_| Ok(())).unwrap();
    assert_eq!(device.names(), ["firstboot-a.conf", "firstboot-b.conf"]);
}
