// SPDX-License-Identifier: Apache-2.0
//! The first program that the kernel starts: see the library.

mod pid1;

use anyhow::{Context, Result};
use initrd::command_line::CommandLine;
use initrd::console::say;
use initrd::data::decide;
use initrd::disks::{self, Found, Machine};
use initrd::layers::Layers;
use initrd::modules::Loader;
use initrd::partitions::{Prepared, prepare};
use initrd::report::{Boot, PATH, State, VERSION};
use initrd::table::Table;
use initrd::{dm, ext4, layout, mounts, switch};
use pid1::Pid1;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Modules that no device asks for, in this order: checksums of ext4, and the file systems of a boot.
const FILE_SYSTEMS: [&str; 5] = ["crc32c_generic", "erofs", "dm_verity", "ext4", "overlay"];
/// Where the kernel looks for the program that loads modules.
const MODPROBE: &str = "/sbin/modprobe";
/// Where the new root is until it is `/`.
const NEW_ROOT: &str = "/root";

fn main() {
    if !rustix::process::getpid().is_init() {
        return as_modprobe();
    }
    // A defect of this program must not leave the device standing.
    std::panic::set_hook(Box::new(|info| start_over(&info.to_string())));
    let error = match boot() {
        Ok(line) => switch::start(&line.init),
        Err(error) => error,
    };
    start_over(&format!("{error:#}"))
}

/// What the kernel starts when code in it asks for a module: `/sbin/modprobe -q -- NAME`.
fn as_modprobe() {
    let mut words = std::env::args();
    let (Some(MODPROBE), Some(name)) = (words.next().as_deref(), words.next_back()) else {
        eprintln!("init: start it as the first program of an initrd");
        std::process::exit(2);
    };
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let Ok(mut loader) = Loader::open(&text) else { std::process::exit(1) };
    loader.request(&name);
    std::process::exit(i32::from(!loader.refused.is_empty()))
}

/// Says what happened and restarts the machine, so that the attempt counts and what was passing is over.
fn start_over(reason: &str) -> ! {
    say(&format!("{reason}; starting over in 30 s"));
    std::thread::sleep(Duration::from_secs(30));
    rustix::fs::sync();
    loop {
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Everything up to the root's own init.
fn boot() -> Result<CommandLine> {
    mounts::api()?;
    let text = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let line = CommandLine::parse(&text)?;
    let loader = Loader::open(&text)?;
    fs::create_dir_all("/sbin").context("create /sbin")?;
    if fs::symlink_metadata(MODPROBE).is_err() {
        std::os::unix::fs::symlink("/init", MODPROBE).context("link /sbin/modprobe")?;
    }
    // While the hardware answers. A loader of its own: the kernel settles what both want.
    let mut second = loader.clone();
    let file_systems = std::thread::spawn(move || {
        FILE_SYSTEMS.iter().for_each(|module| second.load(module));
        second.refused
    });
    let mut machine = Pid1::new(loader)?;
    let found =
        disks::find(&mut machine, &line).inspect_err(|_| machine.refused().iter().for_each(|line| say(line)))?;
    for refused in file_systems.join().unwrap_or_default() {
        say(&format!("cannot load {refused}"));
    }

    let disk = Disk::open(&mut machine, &found, &line)?;
    say(&format!("root is {}", disk.root.display()));
    let name = disks::partition_name(&found.disk, found.number);
    let device = dm::open_root(&line.root, &disks::device_number(&machine.sys(), &name)?)?;
    mounts::root(device, Path::new(NEW_ROOT))?;
    switch::switch(Path::new(NEW_ROOT))?;

    let boot = data(&line, disk)?;
    report(&boot)?;
    Ok(line)
}

/// The disk that was started from.
struct Disk {
    /// Device of the root partition.
    root: PathBuf,
    /// Device of the data partition.
    data: Option<PathBuf>,
    /// Whether the kernel lets anyone write to it.
    writable: bool,
    repaired: Vec<String>,
    slot_b: bool,
    /// Why it is not laid out as it should be.
    trouble: Option<String>,
}

impl Disk {
    /// Repairs and lays out the disk; the kernel knows its partitions then. Only a root that the kernel does not show is an
    /// error: with anything else, the device still boots.
    fn open(machine: &mut Pid1, found: &Found, line: &CommandLine) -> Result<Disk> {
        let path = disks::node(&machine.dev(), &found.disk);
        let mut writable = !disks::is_read_only(&machine.sys(), &found.disk);
        let mut trouble = None;
        let open = |write: bool| {
            let file = File::options().read(true).write(write).open(&path);
            file.with_context(|| format!("open {}", path.display()))
        };
        let mut file = match open(writable) {
            Err(error) if writable => {
                (writable, trouble) = (false, Some(format!("{error:#}")));
                open(false)?
            }
            other => other?,
        };
        let mut prepared = None;
        if writable {
            match prepare(&mut file, line.slot) {
                Ok(done) => prepared = Some(done),
                Err(error) => trouble = Some(format!("{error:#}")),
            }
        }
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => Prepared { entries: Table::read(&mut file)?.table.partitions(), repaired: Vec::new() },
        };
        // Closed, so that nothing of it is left in the cache when a partition is opened.
        drop(file);
        if let Err(error) = disks::inform(machine, &found.disk, &prepared.entries) {
            trouble.get_or_insert(format!("{error:#}"));
        }
        let node = |number| disks::node(&machine.dev(), &disks::partition_name(&found.disk, number));
        let data = layout::data(&prepared.entries).map(|(number, _)| node(*number));
        if data.is_none() {
            trouble.get_or_insert("the disk has no data partition, and no room for one".to_owned());
        }
        let (root, slot_b) = (node(found.number), prepared.slot_b());
        Ok(Disk { root, data, writable, repaired: prepared.repaired, slot_b, trouble })
    }
}

/// Puts `/var` and `/etc` together.
fn data(line: &CommandLine, disk: Disk) -> Result<Boot> {
    let directory = Path::new(PATH).parent().context("find the directory of boot.json")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let (mut trouble, mut content) = (disk.trouble, None);
    if let Some(device) = &disk.data {
        match File::open(device).and_then(|file| ext4::content(&file)) {
            Ok(found) => content = Some(found),
            Err(error) => {
                trouble.get_or_insert(format!("read {}: {error}", device.display()));
            }
        }
    }
    if !disk.writable {
        trouble.get_or_insert("the disk is write-protected".to_owned());
    }
    let mut layers = Layers { root: "/".into(), device: disk.data.clone(), say };
    let mut outcome = decide(&mut layers, content, disk.writable, trouble)?;
    let on_disk = disk.data.filter(|_| outcome.state != State::Memory).map(|path| path.display().to_string());
    let mut repaired = disk.repaired;
    repaired.append(&mut outcome.repaired);
    repaired.iter().for_each(|what| say(&format!("repaired: {what}")));
    if outcome.state != State::Kept || outcome.reason.is_some() {
        let reason = outcome.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        say(&format!("data is {}{reason}", outcome.state.name()));
    }
    Ok(Boot {
        version: VERSION,
        slot: line.root.slot,
        root: disk.root.display().to_string(),
        data: on_disk,
        state: outcome.state,
        reason: outcome.reason,
        repaired,
        slot_b: disk.slot_b,
    })
}

/// Writes `boot.json`, whole or not at all.
fn report(boot: &Boot) -> Result<()> {
    let text = serde_json::to_string(boot).context("write boot.json")? + "\n";
    let scratch = format!("{PATH}.new");
    fs::write(&scratch, text)
        .and_then(|()| fs::set_permissions(&scratch, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&scratch, PATH))
        .with_context(|| format!("write {PATH}"))
}
