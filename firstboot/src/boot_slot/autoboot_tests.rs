// SPDX-License-Identifier: Apache-2.0
//! Trials by `autoboot.txt`, on a real FAT file system.

use super::*;
use crate::boot_partition::formatted_for_tests;
use crate::host::fake::Fake;

const NUMBERS: Numbers = Numbers { a: 2, b: 3 };

struct Device {
    dir: tempfile::TempDir,
    partition: BootPartition,
}

impl Device {
    fn new(state: State) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let partition = formatted_for_tests(&dir.path().join("boot.img"), 0, 40 << 20).unwrap();
        partition.write(NAME, state.text(NUMBERS).as_bytes()).unwrap();
        Device { dir, partition }
    }

    fn host(&self) -> Host {
        Host::open(self.dir.path(), Box::new(Fake::new().0)).unwrap()
    }

    fn open(&self) -> Autoboot {
        Autoboot::open(self.partition.clone(), NUMBERS).unwrap()
    }

    /// A boot of slot `running`.
    fn boot(&self, running: Slot) -> Due {
        self.open().begin(&self.host(), running).unwrap()
    }
}

const fn trial(of: Slot, left: u32, ran: bool) -> State {
    State::Trial { of, left, ran }
}

#[test]
fn every_state_reads_back_and_fits_a_sector() {
    for state in State::all() {
        let text = state.text(NUMBERS);
        assert_eq!(text.len(), LENGTH);
        assert_eq!(State::parse(text.as_bytes(), NUMBERS), Some(state));
        // What a bootloader that knows no sections reads, too: one line, the first.
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let number = if state.starts() == Slot::A { 2 } else { 3 };
        assert_eq!(lines, [format!("boot_partition={number}")]);
        assert_eq!(text.matches("boot_partition").count(), 1);
    }
    assert_eq!(
        trial(Slot::B, 2, true).text(NUMBERS).trim_end(),
        "boot_partition=2\n# firstboot: slot a is started; slot b is on trial: 1 tries done, 2 left, its system ran.\n\
         # Without this file, slot a is started."
    );
}

#[test]
fn no_flipped_bit_makes_another_state() {
    for state in State::all() {
        let mut bytes = state.text(NUMBERS).into_bytes();
        for bit in 0..LENGTH * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::parse(&bytes, NUMBERS), None, "{state:?}, bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for other in [&b""[..], b"[all]\nboot_partition=2\n", &[0; LENGTH]] {
        assert_eq!(State::parse(other, NUMBERS), None);
    }
}

#[test]
fn numbers_are_on_the_command_line() {
    assert_eq!(Numbers::of_command_line("quiet firstboot.slots=2:3 panic=30\n"), Some(NUMBERS));
    assert_eq!(Numbers::of_command_line(&NUMBERS.word()), Some(NUMBERS));
    for other in ["quiet", "firstboot.slots=2", "firstboot.slots=a:b"] {
        assert_eq!(Numbers::of_command_line(other), None, "{other}");
    }
}

#[test]
fn a_good_slot_is_tried_once_and_stays() {
    let device = Device::new(State::Settled(Slot::A));
    device.open().switch_to(&device.host(), Slot::B).unwrap();
    assert_eq!(device.boot(Slot::A), Due::Try(Slot::B));
    assert_eq!(device.open().state().unwrap().starts(), Slot::A, "until it is confirmed");
    assert_eq!(device.boot(Slot::B), Due::Confirm(Slot::B));
    assert_eq!(device.open().trial(Slot::B), Some(Tries { left: 2, done: 1 }));
    device.open().confirm(&device.host(), Slot::B).unwrap();
    assert_eq!(device.open().state(), Some(State::Settled(Slot::B)));
    assert_eq!(device.boot(Slot::B), Due::Nothing);
    assert_eq!(device.partition.read(NAME).unwrap().unwrap().len(), LENGTH);
}

#[test]
fn a_slot_that_runs_and_is_not_good_has_three_tries() {
    let device = Device::new(State::Settled(Slot::B));
    device.open().switch_to(&device.host(), Slot::A).unwrap();
    for left in (0..TRIES).rev() {
        assert_eq!(device.boot(Slot::B), Due::Try(Slot::A));
        assert_eq!(device.boot(Slot::A), Due::Confirm(Slot::A));
        assert_eq!(device.open().state(), Some(trial(Slot::A, left, true)));
    }
    assert_eq!(device.boot(Slot::B), Due::Nothing);
    assert!(device.open().failed(Slot::A) && !device.open().failed(Slot::B));
    // A newer version in the same slot.
    device.open().switch_to(&device.host(), Slot::A).unwrap();
    assert_eq!(device.open().trial(Slot::A), Some(Tries { left: 3, done: 0 }));
}

#[test]
fn a_slot_whose_system_does_not_run_has_one_try() {
    let device = Device::new(trial(Slot::B, TRIES, false));
    assert!(!device.open().failed(Slot::B));
    assert_eq!(device.boot(Slot::A), Due::Try(Slot::B));
    assert_eq!(device.boot(Slot::A), Due::Nothing);
    assert!(device.open().failed(Slot::B));
    let error = device.open().switch_to(&device.host(), Slot::A).unwrap_err().to_string();
    assert_eq!(error, "switch to slot a: slot b was never confirmed");
}

#[test]
fn a_damaged_file_is_written_again() {
    for bytes in [&b""[..], b"\xff\x00", &[b'x'; 512]] {
        let device = Device::new(State::Settled(Slot::B));
        device.partition.write(NAME, bytes).unwrap();
        assert_eq!(device.boot(Slot::B), Due::Confirm(Slot::B));
        assert_eq!(device.open().state(), Some(trial(Slot::B, 0, true)));
        device.open().confirm(&device.host(), Slot::B).unwrap();
        device.partition.remove(NAME).unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(device.dir.path(), Box::new(fake)).unwrap();
        assert_eq!(device.open().begin(&host, Slot::A).unwrap(), Due::Nothing);
        assert_eq!(device.open().state(), Some(State::Settled(Slot::A)));
        let said = "firstboot: repaired: autoboot.txt: it was damaged; slot a is started from now on";
        assert_eq!(seen.lines.take(), [said]);
    }
}

/// The file lies where it did: a switch is one write within a sector.
#[test]
fn the_file_keeps_its_place() {
    let device = Device::new(State::Settled(Slot::A));
    let image = device.dir.path().join("boot.img");
    let before = std::fs::read(&image).unwrap();
    device.open().switch_to(&device.host(), Slot::B).unwrap();
    let after = std::fs::read(&image).unwrap();
    let changed: std::collections::BTreeSet<usize> =
        before.iter().zip(&after).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at / 512).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
}
