// SPDX-License-Identifier: Apache-2.0
//! `/init` of the initrd: see the library.

use anyhow::{Context, Result, bail};
use initrd::command_line::CommandLine;
use initrd::console::say;
use initrd::disks::{self, Choice, Disk};
use initrd::kernel::{open_verity, read_partitions};
use initrd::layout::{self, DATA, ROOT_B};
use initrd::modules::Modules;
use initrd::mounts::{self, DataDevice, IN_ROOT};
use initrd::report::{self, Boot, State};
use initrd::{data, verity};
use rustix::system::{RebootCommand, reboot, uname};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What no device asks for in a file named modalias: file systems, the verified root, disks behind a bus (cards of
/// mmc_block do so in uevent only).
const BY_NAME: [&str; 6] = ["erofs", "dm_verity", "overlay", "ext4", "sd_mod", "mmc_block"];
/// Algorithms of the verified root and of ext4. The kernel asks for them by a program that the initrd does not have.
const ALGORITHMS: [&str; 2] = ["crypto-sha256", "crypto-crc32c"];
/// How long a person has to read what failed.
const READ: Duration = Duration::from_secs(30);
/// Time between two looks for the root.
const LOOK: Duration = Duration::from_millis(50);
/// After this long the console says that the root is still looked for.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == IN_ROOT) {
        eprintln!("initrd: {:#}", mounts::become_in_root(words));
        std::process::exit(127);
    }
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("stopped by a defect of its own: {panic}; starting over in {} s", READ.as_secs()));
        start_over();
    }));
    if let Err(error) = boot() {
        say(&format!("{error:#}; starting over in {} s", READ.as_secs()));
    }
    start_over();
}

fn start_over() {
    std::thread::sleep(READ);
    rustix::fs::sync();
    let _ = reboot(RebootCommand::Restart);
}

/// Everything up to systemd; returns only with an error.
fn boot() -> Result<()> {
    mounts::kernel_file_systems()?;
    let line = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let line = CommandLine::parse(&line)?;
    let release = uname().release().to_string_lossy().into_owned();
    let mut modules = Modules::open(&Path::new("/lib/modules").join(release))?;
    ALGORITHMS.iter().for_each(|alias| modules.load_alias(alias));
    BY_NAME.iter().for_each(|name| modules.load(name));
    let disk = find(&line, &mut modules)?;
    let (root, data, repaired, slot_b) = lay_out(&line, &disk)?;
    say(&format!("root is {}", root.display()));
    open_root(&line.root, &root)?;
    let (state, reason) = mount_data(&disk, data.as_deref())?;
    let aside = mounts::var_and_etc(state)?;
    let data = data.filter(|_| state != State::Memory).map(|path| path.display().to_string());
    let reason_text = reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    say(&format!("data is {}: {}{reason_text}", data.as_deref().unwrap_or("in memory"), state.word()));
    let repaired: Vec<String> = repaired.into_iter().chain(aside).collect();
    repaired.iter().for_each(|what| say(&format!("repaired: {what}")));
    let root = root.display().to_string();
    let boot = Boot { version: 1, slot: line.slot, root, data, state, reason, repaired, slot_b };
    boot.write(Path::new(report::PATH))?;
    mounts::switch()
}

/// Loads drivers and looks until the root is there.
fn find(line: &CommandLine, modules: &mut Modules) -> Result<Disk> {
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let (start, mut since, mut said) = (Instant::now(), None, false);
    loop {
        let new = modules.load_for(&sys.join("devices"));
        let now = start.elapsed();
        match disks::choose(disks::holding(sys, dev, &line.root), now, line.wait, &mut since) {
            Choice::Take(disk) => return Ok(disk),
            Choice::Ambiguous(disks) => {
                let names: Vec<String> = disks.iter().map(|disk| disk.path.display().to_string()).collect();
                bail!(
                    "more than one disk holds this root: {}; remove the one that is not this device's",
                    names.join(" ")
                );
            }
            Choice::Missing => bail!(
                "no disk holds the root {} within {} s; disks and partitions seen: {}; the disk is missing or damaged, or \
                 needs a driver that this image lacks",
                line.root.hex(),
                line.wait.as_secs(),
                disks::seen(sys)
            ),
            Choice::Wait => {}
        }
        if !said && since.is_none() && now >= PATIENCE {
            said = true;
            say(&format!("looking for the root {}; so far: {}", line.root.hex(), disks::seen(sys)));
        }
        if !new {
            std::thread::sleep(LOOK);
        }
    }
}

type LaidOut = (PathBuf, Option<PathBuf>, Vec<String>, bool);

/// Repairs and completes the partition table: device of the root, of data, what was repaired, and whether there is a
/// second slot.
fn lay_out(line: &CommandLine, disk: &Disk) -> Result<LaidOut> {
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let sector = disks::sector(sys, &disk.name);
    let mut repaired = Vec::new();
    let laid = disks::open(&disk.path, sector, true).and_then(|(file, geometry)| {
        let laid = layout::apply(&file, geometry, line.slot_mib, &mut new_guid)?;
        read_partitions(&file)?;
        Ok(laid)
    });
    let table = match laid {
        Ok(laid) => {
            repaired.extend(laid.repaired.iter().map(|what| format!("partition table: {what}")));
            laid.table
        }
        // A write-protected disk keeps the table that it has.
        Err(error) => {
            say(&format!("partition table not written: {error:#}"));
            let (file, geometry) = disks::open(&disk.path, sector, false)?;
            initrd::table::Table::read(&file, geometry)?.table
        }
    };
    let device = |name: &str| {
        let number = table.number(name).with_context(|| format!("find partition {name} on {}", disk.path.display()))?;
        disks::partition(sys, dev, &disk.name, number)
    };
    Ok((device(&disk.root)?, device(DATA).ok(), repaired, table.number(ROOT_B).is_some()))
}

fn new_guid() -> [u8; 16] {
    let mut bytes = [0; 16];
    // Without it the GUIDs are those of a version 4 that is not random, and still ours.
    let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    // Version 4, variant 1 (RFC 9562), in the byte order of GPT.
    bytes[7] = (bytes[7] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

fn open_root(root: &verity::Root, device: &Path) -> Result<()> {
    let mapping = open_verity(root, &device.display().to_string(), "root")?;
    mounts::root(&mapping).with_context(|| format!("read the root {} on {}", root.hex(), device.display()))
}

/// Mounts what data there is: the partition, or the partition as it is, or memory.
fn mount_data(disk: &Disk, device: Option<&Path>) -> Result<(State, Option<String>)> {
    let Some(device) = device else {
        mounts::memory()?;
        return Ok((State::Memory, Some(format!("{} has no room for a data partition", disk.path.display()))));
    };
    let protected = disks::read_only(Path::new("/sys"), &disk.name);
    let prepared = if protected {
        Err(anyhow::anyhow!("{} is write-protected", disk.path.display()))
    } else {
        let file = File::open(device).with_context(|| format!("open {}", device.display()));
        let content = file.and_then(|file| data::content(&file));
        content.and_then(|content| data::prepare(content, &mut DataDevice { path: device.to_owned() }))
    };
    let why = match prepared {
        Ok(prepared) => return Ok(prepared),
        Err(error) => format!("{error:#}"),
    };
    if mounts::read_only(device).is_ok() {
        return Ok((State::ReadOnly, Some(why)));
    }
    mounts::memory()?;
    Ok((State::Memory, Some(why)))
}
