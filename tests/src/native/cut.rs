// SPDX-License-Identifier: Apache-2.0
//! Every state in which a power cut may leave a device: what was there before each effect of an installation, and what a journaled
//! ext4 and a FAT may hold of that effect.
//!
//! Only what was not flushed is lost or torn. `firstboot/src/flush/tests.rs` shows that each flush is made; here it is
//! taken for granted. firstboot writes a file beside its place, flushes it, renames it and flushes the directory: so the
//! file beside may be absent, empty, of zeros or cut short, a rename may be there or not (the cut before and the one
//! after), and a file in its place is whole. The journal is appended to and flushed: its last record may be cut short, of
//! zeros, or lack the end of its line. Its second copy is not flushed each time: it may lack that record, or hold half of
//! it. Beside that, any byte of the journal or of its copy may have been changed by the medium. The boot partition is
//! flushed after each change: of that change any sector may be old or new.

use super::tree::{self, Entry, Tree, changed};
use super::{CARD, Device, ground};
use anyhow::{Context, Result};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

const JOURNAL: &str = "var/lib/firstboot/journal";
const JOURNAL_COPY: &str = "var/lib/firstboot/journal.copy";
const SECTOR: usize = 512;
/// What the words of an effect on the boot partition begin with.
pub const BOOT: &str = "boot partition: ";

/// What a device holds while it is switched off.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Its root file system.
    pub tree: Tree,
    /// Its boot partition, without the zeros at its end.
    card: Rc<Vec<u8>>,
}

/// A state, and the effect that came next.
#[derive(Debug, Clone)]
pub struct Cut {
    /// What the effect is about; nothing came after the last one.
    pub what: String,
    /// The state before it.
    pub state: State,
}

impl State {
    /// What a device holds; what `before` holds as well is shared with it.
    fn of(device: &Device, before: &State, card: bool) -> Result<Self> {
        let tree = tree::read(&device.root, &before.tree)?;
        if !card {
            return Ok(State { tree, card: before.card.clone() });
        }
        let mut bytes = std::fs::read(device.boot.path()).context("read the boot partition")?;
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        bytes.truncate(end.next_multiple_of(SECTOR));
        Ok(State { tree, card: Rc::new(bytes) })
    }

    /// Makes a device hold this, whatever it held before; it is in the first of its boots.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_to(&self, device: &Device) -> Result<()> {
        if device.root.exists() {
            std::fs::remove_dir_all(&device.root)?;
        }
        tree::write(&self.tree, &device.root)?;
        ground::power_on(&device.root, &device.serial)?;
        let card = std::fs::OpenOptions::new().write(true).truncate(true).create(true).open(device.boot.path())?;
        std::io::Write::write_all(&mut &card, &self.card)?;
        Ok(card.set_len(CARD as u64 + (1 << 20))?)
    }

    fn with(&self, path: &str, entry: Entry) -> State {
        let mut state = self.clone();
        // The very first record comes with the state directory.
        for (at, _) in path.match_indices('/') {
            state.tree.entry(path[..at].to_owned()).or_insert(Entry::Directory(0o700));
        }
        state.tree.insert(path.to_owned(), entry);
        state
    }
}

/// Notes the state of a device before each effect.
#[derive(Debug, Default)]
pub struct Recorder {
    cuts: RefCell<Vec<Cut>>,
}

impl Recorder {
    /// Called before each effect.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn note(&self, device: &Device, what: &str) -> Result<()> {
        let mut cuts = self.cuts.borrow_mut();
        let none = State::default();
        let (before, card) = match cuts.last() {
            // Nothing else changes the partition.
            Some(cut) => (&cut.state, cut.what.starts_with(BOOT)),
            None => (&none, true),
        };
        let state = State::of(device, before, card)?;
        cuts.push(Cut { what: what.to_owned(), state });
        Ok(())
    }

    /// All of them, and the end.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn end(&self, device: &Device) -> Result<Vec<Cut>> {
        self.note(device, "")?;
        Ok(self.cuts.take())
    }
}

/// A way in which the power may go during an effect.
#[derive(Debug, Clone)]
pub struct Damage {
    /// In words.
    pub how: String,
    /// What is left then.
    pub state: State,
}

/// All the ways in which the power may go between two effects; the first is a clean one. `choice` gives random bits.
pub fn damages(before: &Cut, after: Option<&Cut>, choice: &mut dyn FnMut() -> u64) -> Vec<Damage> {
    let mut all = vec![Damage { how: "clean".into(), state: before.state.clone() }];
    let Some(after) = after.map(|cut| &cut.state) else { return all };
    let before = &before.state;
    all.extend(unflushed_copy(before, after));
    all.extend([JOURNAL, JOURNAL_COPY].iter().filter_map(|path| flipped(before, path, choice)));
    for path in changed(&before.tree, &after.tree) {
        let Some(Entry::File(mode, new)) = after.tree.get(path) else { continue };
        let name = path.rsplit('/').next().unwrap_or_default();
        if path == JOURNAL {
            let old: &[u8] = match before.tree.get(path) {
                Some(Entry::File(_, old)) => old,
                _ => &[],
            };
            let Some(line) = new.strip_prefix(old) else { continue };
            let cut = |tail: &[u8]| Entry::File(*mode, [old, tail].concat().into());
            for (how, tail) in [
                ("half a record", &line[..line.len() / 2]),
                ("a record of zeros", &vec![0; line.len()]),
                ("a record without the end of its line", &line[..line.len() - 1]),
            ] {
                all.push(Damage { how: format!("journal: {how}"), state: before.with(path, cut(tail)) });
            }
        } else if name.starts_with('.') && name.ends_with(".firstboot") {
            for (how, bytes) in
                [("empty", Vec::new()), ("half", new[..new.len() / 2].to_vec()), ("zeros", vec![0; new.len()])]
            {
                let entry = Entry::File(*mode, bytes.into());
                all.push(Damage { how: format!("{path}: {how}"), state: before.with(path, entry) });
            }
        }
    }
    all.extend(cards(before, after, choice));
    all
}

/// The journal's new record in its first copy alone, or with half of it in the second.
fn unflushed_copy(before: &State, after: &State) -> Vec<Damage> {
    let (Some(new), Some(Entry::File(mode, copy))) = (after.tree.get(JOURNAL), after.tree.get(JOURNAL_COPY)) else {
        return Vec::new();
    };
    if before.tree.get(JOURNAL) == Some(new) {
        return Vec::new();
    }
    let state = before.with(JOURNAL, new.clone());
    let half = state.with(JOURNAL_COPY, Entry::File(*mode, copy[..copy.len() - 9].into()));
    vec![
        Damage { how: "journal: not in its copy".into(), state },
        Damage { how: "journal: half in its copy".into(), state: half },
    ]
}

/// A file of which the medium has changed one bit.
fn flipped(before: &State, path: &str, choice: &mut dyn FnMut() -> u64) -> Option<Damage> {
    let Entry::File(mode, bytes) = before.tree.get(path)? else { return None };
    let mut bytes = bytes.to_vec();
    let at = usize::try_from(choice()).unwrap_or(usize::MAX).checked_rem(bytes.len())?;
    bytes[at] ^= 1 << (choice() % 8);
    let how = format!("{path}: byte {at} changed");
    Some(Damage { how, state: before.with(path, Entry::File(*mode, bytes.into())) })
}

/// The boot partition with some of the sectors that changed: the first of them, the last, any.
fn cards(before: &State, after: &State, choice: &mut dyn FnMut() -> u64) -> Vec<Damage> {
    if Rc::ptr_eq(&before.card, &after.card) {
        return Vec::new();
    }
    let length = before.card.len().max(after.card.len());
    let padded = |card: &[u8]| [card, &vec![0; length - card.len()]].concat();
    let (old, new) = (padded(&before.card), padded(&after.card));
    let differs = |n: &usize| old[n * SECTOR..][..SECTOR] != new[n * SECTOR..][..SECTOR];
    let sectors: Vec<usize> = (0..length / SECTOR).filter(differs).collect();
    if sectors.len() < 2 {
        return Vec::new();
    }
    let half = sectors.len() / 2;
    let any: Vec<usize> = sectors.iter().copied().filter(|_| choice() & 1 == 1).collect();
    let with = |written: &[usize]| {
        let mut card = old.clone();
        written.iter().for_each(|n| card[n * SECTOR..][..SECTOR].copy_from_slice(&new[n * SECTOR..][..SECTOR]));
        State { tree: before.tree.clone(), card: Rc::new(card) }
    };
    [("the first half", &sectors[..half]), ("the last half", &sectors[half..]), ("any", &any[..])]
        .map(|(how, written)| {
            let how = format!("card: {how} of its sectors, {written:?} of {sectors:?}");
            Damage { how, state: with(written) }
        })
        .into()
}

/// Where the token's secret stands in what a device holds: files of its root file system, and `boot partition`.
///
/// # Errors
/// When the partition cannot be searched.
pub fn holding(device: &Device, tree: &Tree, secret: &str) -> Result<Vec<PathBuf>> {
    let holds = |entry: &Entry| match entry {
        Entry::File(_, bytes) => !firstboot::boot_partition::find_all(bytes, secret.as_bytes()).is_empty(),
        Entry::Directory(_) | Entry::Link(_) => false,
    };
    let mut found: Vec<PathBuf> = tree.iter().filter(|(_, e)| holds(e)).map(|(path, _)| path.into()).collect();
    if !device.boot.scan(secret)?.is_empty() {
        found.push("boot partition".into());
    }
    Ok(found)
}
