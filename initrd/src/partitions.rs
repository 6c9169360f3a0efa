// SPDX-License-Identifier: Apache-2.0
//! The partitions of a disk, made and repaired as at each boot. A power cut at any moment leaves one copy of the table
//! whole, in a place where firmware looks for it, and the next boot goes on from there.

use crate::layout;
use crate::medium::Medium;
use crate::table::{Copy, Numbered, SECTOR, Table, write_mbr};
use crate::{command_line::Slot, ext4};
use anyhow::{Context, Result};

/// A partition, as those who open the disk from outside want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its number, from 1.
    pub number: u32,
    /// Its name in the table.
    pub label: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A disk whose partitions are as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// All partitions, in the order of their numbers.
    pub entries: Vec<Numbered>,
    /// What was repaired, as `boot.json` has it.
    pub repaired: Vec<String>,
}

impl Prepared {
    /// The partitions with their places in bytes.
    pub fn placed(&self) -> Vec<Placed> {
        let place = |(number, entry): &Numbered| Placed {
            number: *number,
            label: entry.name.clone(),
            offset: entry.first * SECTOR,
            length: (entry.last + 1 - entry.first) * SECTOR,
        };
        self.entries.iter().map(place).collect()
    }

    /// Whether there is a second slot.
    pub fn slot_b(&self) -> bool {
        layout::slot(&self.entries, Slot::B).is_some()
    }
}

/// Repairs the table of a disk or image file and lays it out; `slot` is the size of a slot in bytes. What is as it should
/// be is not written again, so a normal boot writes nothing.
///
/// # Errors
/// When no copy of the table is valid, the disk is shorter than its table, or it cannot be written.
pub fn prepare(medium: &mut dyn Medium, slot: Option<u64>) -> Result<Prepared> {
    let sectors = medium.size().context("read the size of the disk")? / SECTOR;
    let found = Table::read(medium)?;
    anyhow::ensure!(found.table.fits(sectors), "use the partition table: the disk is shorter than it says");
    let mut repaired = Vec::new();
    // Before anything else changes: until then only the backup is whole.
    if found.damaged.contains(&Copy::Primary) {
        found.table.write(medium, Copy::Primary, sectors)?;
    }
    for copy in &found.damaged {
        repaired.push(format!("partition table: {} copy", copy.name()));
    }

    let mut table = found.table.clone();
    for (number, entry) in layout::plan(&table.partitions(), sectors, slot, table.disk) {
        if entry.name == layout::DATA {
            wipe(medium, entry.first * SECTOR, (entry.last + 1 - entry.first) * SECTOR)?;
        }
        table.set(number, &entry)?;
    }
    // The backup first. Firmware that finds the primary torn takes the new backup, which is whole by then.
    for copy in [Copy::Backup, Copy::Primary] {
        if !table.is_written(medium, copy, sectors)? {
            table.write(medium, copy, sectors)?;
        }
    }
    if found.mbr_damaged {
        repaired.push("partition table: protective MBR".to_owned());
    }
    write_mbr(medium, &table, sectors)?;
    Ok(Prepared { entries: table.partitions(), repaired })
}

/// Makes a new partition blank, before the table has it: a disk that is flashed anew still holds the file system of its
/// last owner at this place, whole or with copies of its superblock.
fn wipe(medium: &mut dyn Medium, offset: u64, length: u64) -> Result<()> {
    let mut zero = |at: u64, bytes: usize| medium.write(offset + at, &vec![0; bytes]);
    let copies = ext4::COPIES.into_iter().filter(|at| at + 4096 <= length);
    zero(0, ext4::START)
        .and_then(|()| copies.into_iter().try_for_each(|at| zero(at, 4096)))
        .and_then(|()| medium.flush())
        .context("wipe the place of the data partition")
}
