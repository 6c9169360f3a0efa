// SPDX-License-Identifier: Apache-2.0
//! `autoboot.txt` of a Raspberry Pi: which partition its firmware starts (documentation of Raspberry Pi,
//! "autoboot.txt"), and the state of a trial.
//!
//! The firmware counts nothing. So the file names the slot that is known to be good until the other one was confirmed,
//! and a slot is tried by a restart into its partition, which the firmware forgets at the next one: after a crash, a
//! kernel that does not start or a power cut, the good slot runs again. It counts the tries in a comment of the file.
//!
//! The file has one fixed length and lies within a sector, which is written in place: a power cut leaves the old text or
//! the new one. It has no `[tryboot]` section: a bootloader from before November 2022 knows no sections, and would start
//! what the last line names.

use super::entry::{Slot, TRIES, Tries};
use crate::boot_partition::{BootPartition, on_root_disk};
use crate::host::Host;
use anyhow::{Context, Result, ensure};

/// The file on the first FAT partition.
pub const NAME: &str = "autoboot.txt";
/// Its length in bytes; the firmware reads 512.
pub const LENGTH: usize = 256;
/// The word of the kernel's command line that says which partitions the slots are: `firstboot.slots=2:3`.
pub const WORD: &str = "firstboot.slots=";

/// Numbers of the partitions that the firmware reads slot a and slot b from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Of slot a.
    pub a: u32,
    /// Of slot b.
    pub b: u32,
}

impl Numbers {
    /// Those that a kernel's command line names; `None` where the firmware reads no `autoboot.txt`.
    pub fn of_command_line(line: &str) -> Option<Numbers> {
        let (a, b) = line.split_whitespace().find_map(|word| word.strip_prefix(WORD)?.split_once(':'))?;
        Some(Numbers { a: a.parse().ok()?, b: b.parse().ok()? })
    }

    /// As on the kernel's command line.
    pub fn word(self) -> String {
        format!("{WORD}{}:{}", self.a, self.b)
    }

    fn of(self, slot: Slot) -> u32 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// This slot is started, and no other is tried.
    Settled(Slot),
    /// The other slot is started, and this one is tried, or was.
    Trial {
        /// The slot on trial.
        of: Slot,
        /// Tries that are left.
        left: u32,
        /// Whether its system ran at the last try.
        ran: bool,
    },
}

impl State {
    /// All that there are.
    fn all() -> impl Iterator<Item = State> {
        [Slot::A, Slot::B].into_iter().flat_map(|of| {
            let trials = (0..=TRIES).flat_map(move |left| [false, true].map(|ran| State::Trial { of, left, ran }));
            std::iter::once(State::Settled(of)).chain(trials)
        })
    }

    /// The slot that the firmware starts by itself.
    pub fn starts(self) -> Slot {
        match self {
            State::Settled(slot) => slot,
            State::Trial { of, .. } => of.other(),
        }
    }

    /// The file. What the firmware reads is said twice, in the line for it and in words, so no flipped bit makes one text
    /// another.
    pub fn text(self, numbers: Numbers) -> String {
        let start = self.starts();
        let mut text = format!("boot_partition={}\n# firstboot: slot {start} is started", numbers.of(start));
        if let State::Trial { of, left, ran } = self {
            let ran = if ran { "ran" } else { "did not run yet" };
            let done = TRIES - left;
            text += &format!("; slot {of} is on trial: {done} tries done, {left} left, its system {ran}");
        }
        text += ".\n# Without this file, slot a is started.\n";
        format!("{text:\n<LENGTH$}")
    }

    /// What these bytes say; `None` when they are no such file, as a whole.
    pub fn parse(bytes: &[u8], numbers: Numbers) -> Option<State> {
        State::all().find(|state| state.text(numbers).as_bytes() == bytes)
    }
}

/// What is to be done at a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// This slot is on trial, and this boot is one.
    Confirm(Slot),
    /// A restart into this slot.
    Try(Slot),
}

/// The boot partition of this device, with `autoboot.txt`.
#[derive(Debug)]
pub struct Autoboot {
    partition: BootPartition,
    numbers: Numbers,
    state: Option<State>,
}

impl Autoboot {
    /// Finds the file on the disk of the root file system: the firmware reads the first FAT partition. `None` where the
    /// kernel's command line does not say that it does.
    ///
    /// # Errors
    /// When the disk or the partition cannot be read.
    pub fn find(host: &Host) -> Result<Option<Autoboot>> {
        let line = host.read_text("/proc/cmdline")?.unwrap_or_default();
        let Some(numbers) = Numbers::of_command_line(&line) else { return Ok(None) };
        let first = on_root_disk(&|_| true)?.into_iter().next();
        let partition = first.with_context(|| format!("find the partition with {NAME}: the disk has no FAT"))?;
        Autoboot::open(partition, numbers).map(Some)
    }

    /// The file on this partition, which may be damaged or missing.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub fn open(partition: BootPartition, numbers: Numbers) -> Result<Autoboot> {
        let bytes = partition.read(NAME)?.unwrap_or_default();
        Ok(Autoboot { state: State::parse(&bytes, numbers), partition, numbers })
    }

    /// What the file says; `None` when it is damaged.
    pub fn state(&self) -> Option<State> {
        self.state
    }

    /// The tries of a slot that is on trial.
    pub fn trial(&self, slot: Slot) -> Option<Tries> {
        match self.state {
            Some(State::Trial { of, left, .. }) if of == slot => Some(Tries { left, done: TRIES - left }),
            _ => None,
        }
    }

    /// Whether a slot that does not run failed its trial: its tries are used up, or its system did not run at the last
    /// one. Where not even its initrd could restart the device, a person has cut the power, and would have to do so again
    /// for each further try.
    pub fn failed(&self, slot: Slot) -> bool {
        match self.state {
            Some(State::Trial { of, left, ran }) => of == slot && (left == 0 || left < TRIES && !ran),
            _ => false,
        }
    }

    /// Makes a slot the one that is tried. Its root, kernel, initrd and firmware must be on the disk already.
    ///
    /// # Errors
    /// When the other slot is not the settled one, or the partition cannot be written.
    pub fn switch_to(&mut self, host: &Host, slot: Slot) -> Result<()> {
        let other = slot.other();
        let settled = match self.state {
            Some(State::Trial { of, .. }) => of == slot,
            state => state == Some(State::Settled(other)),
        };
        ensure!(settled, "switch to slot {slot}: slot {other} was never confirmed");
        self.put(host, State::Trial { of: slot, left: TRIES, ran: false })
    }

    /// Ends the trial of a slot: it is started from now on.
    ///
    /// # Errors
    /// When the partition cannot be written.
    pub fn confirm(&mut self, host: &Host, slot: Slot) -> Result<()> {
        self.put(host, State::Settled(slot))
    }

    /// Notes this boot of slot `running`, and says what is due. A damaged file is written again: slot a is what the
    /// firmware starts without one, and slot b has to be confirmed again.
    ///
    /// # Errors
    /// When the partition cannot be written.
    pub fn begin(&mut self, host: &Host, running: Slot) -> Result<Due> {
        match self.state {
            None => {
                let state = match running {
                    Slot::A => State::Settled(running),
                    Slot::B => State::Trial { of: running, left: 0, ran: true },
                };
                self.put(host, state)?;
                host.sys().say(&format!("firstboot: repaired: {NAME}: it was damaged; slot a is started from now on"));
                Ok(if running == Slot::A { Due::Nothing } else { Due::Confirm(running) })
            }
            Some(State::Trial { of, left, ran }) if of == running => {
                if !ran {
                    self.put(host, State::Trial { of, left, ran: true })?;
                }
                Ok(Due::Confirm(running))
            }
            Some(State::Trial { of, left, .. }) if !self.failed(of) => {
                // Counted before it is tried, so that nothing is tried for ever.
                self.put(host, State::Trial { of, left: left - 1, ran: false })?;
                Ok(Due::Try(of))
            }
            Some(_) => Ok(Due::Nothing),
        }
    }

    /// Writes the file: in its sector, where it has its length already.
    fn put(&mut self, host: &Host, state: State) -> Result<()> {
        let text = state.text(self.numbers);
        host.change_boot("write", NAME, || self.partition.write(NAME, text.as_bytes()))?;
        self.state = Some(state);
        Ok(())
    }
}

#[cfg(test)]
#[path = "autoboot_tests.rs"]
mod tests;
