// SPDX-License-Identifier: Apache-2.0
//! An emulated device: whole disk image, UEFI firmware, serial console; switched on and off like a real one.
//!
//! A guard: dropping it cuts its power and removes its disk. When that happens while a test panics, the end of its
//! console is printed.

use crate::accel::{self, Accelerator};
use crate::args::{self, Files, Forward, Kernel, Link, Machine};
use crate::board::WORDS;
use crate::console::Console;
use crate::disk::DiskImage;
use crate::disk_errors::DiskErrors;
pub use crate::options::{Options, Start};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::run_dir::RunDir;
use crate::saved::{Moment, Saved};
use crate::writes::Log;
use crate::{firmware, ports, raspberry_pi, wait};
use anyhow::{Context, Result, bail};
use firstboot::boot_partition::BootPartition;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Environment variable that is `no` for programs that are not to boot a guest: switching a device on fails then.
pub const MAY_BOOT: &str = "FIRSTBOOT_MAY_BOOT";

/// Deadline for reading or writing a guest's memory.
const TRANSFER: Duration = Duration::from_secs(120);
/// What is missing when a device is asked for something that only a running one does.
const OFF: &str = "find a device that is switched on";
/// How long to wait for the effect of the power button before pressing it again. A system that has begun to switch itself
/// off does not mind.
const AGAIN: Duration = Duration::from_secs(2);

/// A device with a disk of its own, switched on or off.
pub struct Device {
    // Order matters: the emulator ends before its directory goes.
    emulator: Option<(Process, DiskErrors)>,
    machine: Machine,
    files: Files,
    disk: DiskImage,
    console: Console,
    /// Length of the console when it was switched on, bytes.
    switched_on_at: u64,
    /// Whether this boot was repeated because the emulated kernel crashed.
    started_again: AtomicBool,
    dir: RunDir,
}

impl Device {
    /// A device that is switched off, its disk a private copy of `image`.
    pub fn new(image: &DiskImage, options: &Options) -> Result<Self> {
        let firmware = firmware::find(options.arch)?;
        let code = if options.start == Start::UBoot { firmware::u_boot()? } else { firmware.code };
        Self::with(image, &code, &firmware.vars, options)
    }

    /// A device that is on and at this moment of its first boot, its disk a private copy of `image` as such a boot leaves
    /// it. The boot itself is done once for an image and a machine, and kept ([`crate::saved`]); the device's clock goes
    /// on from then.
    ///
    /// # Errors
    /// When its options are such that a kept boot cannot be used, or that boot fails.
    pub fn saved(moment: Moment, image: &DiskImage, options: &Options) -> Result<Self> {
        let saved = Saved::at(moment, image, options)?;
        let code = firmware::find(options.arch)?.code;
        let mut device = Self::with(&saved.disk()?, &code, &saved.variables(), options)?;
        std::fs::copy(saved.console(), device.console.path()).context("copy a console")?;
        device.resume(&saved.memory())?;
        Ok(device)
    }

    fn with(image: &DiskImage, code: &Path, variables: &Path, options: &Options) -> Result<Self> {
        if options.link != Link::User && !options.guest_ports.is_empty() {
            bail!("forward guest ports: only a user network can");
        }
        let dir = RunDir::new("device")?;
        let at = |name: &str| dir.path().join(name);
        std::fs::copy(variables, at("vars.fd")).context("copy the firmware's variables")?;
        let files = Files {
            stick: options.stick.as_deref().map(|seed| stick(&at("stick.img"), &[("seed.toml", seed)])).transpose()?,
            second_disk: match &options.second_disk {
                Some(seed) => Some(stick(&at("second.img"), &[("seed.toml", seed)])?),
                None => None,
            },
            usb_ports: options.usb_ports,
            kernel: match options.start {
                Start::BootLoader | Start::UBoot => None,
                Start::Firmware => Some(kernel(image, dir.path())?),
            },
            recording: options.record.then(|| at("writes.log")),
            u_boot: options.start == Start::UBoot,
            ..Files::plain(code, dir.path())
        };
        let disk = image.copy(&files.disk, options.disk_size)?;
        // The probe of an accelerator needs the boot loader of a UEFI image.
        let accelerator = match options.board.is_some() || options.start == Start::UBoot {
            true => Accelerator::Tcg,
            false => accel::find(options.arch, image)?,
        };
        let machine = machine(options, accelerator)?;
        let console = Console::new(files.console.clone());
        let started_again = AtomicBool::new(false);
        Ok(Device { emulator: None, machine, files, disk, console, switched_on_at: 0, started_again, dir })
    }

    /// Content of `seed.toml` on the stick, once the device is switched off.
    pub fn stick_seed(&self) -> Result<Option<Vec<u8>>> {
        let path = self.files.stick.as_ref().context("find a stick")?;
        BootPartition::open_whole(path)?.read("seed.toml")
    }

    /// What it has written to its disk since it was switched on last. Complete once it is switched off.
    ///
    /// # Errors
    /// When it was not recorded, or the recording cannot be read.
    pub fn recording(&self) -> Result<Log> {
        Log::open(self.files.recording.as_deref().context("find a recording of this device")?)
    }

    /// An error when the build machine refused to read or write its disk: then what it did says nothing about it.
    pub fn check_disk(&self) -> Result<()> {
        self.emulator.as_ref().map_or(Ok(()), |(_, errors)| errors.check())
    }

    /// Switches it on.
    pub fn power_on(&mut self) -> Result<()> {
        if self.emulator.is_some() {
            bail!("switch the device on: it is on");
        }
        if let Some(log) = &self.files.recording {
            File::create(log).context("begin a recording")?;
        }
        self.switched_on_at = self.console.length();
        self.started_again = AtomicBool::new(false);
        self.play_firmware(0)?;
        self.start(&[])
    }

    /// Lets the firmware of a board read the disk. `asked`: the partition that a restart named; 0 for none. Returns the
    /// number of the partition that it starts; 0 where the machine has a firmware of its own.
    fn play_firmware(&mut self, asked: u32) -> Result<u32> {
        let Some(board) = &self.machine.board else { return Ok(0) };
        let serial = self.machine.serial.as_deref().unwrap_or_default();
        let boot = raspberry_pi::boot(&self.disk, &board.model, serial, asked).context("play the firmware")?;
        let mut kernel = boot.write(self.dir.path())?;
        kernel.command_line += &format!(" {WORDS}{}", board.words);
        self.files.kernel = Some(kernel);
        Ok(boot.partition)
    }

    /// Starts the emulator, with further arguments.
    fn start(&mut self, more: &[&str]) -> Result<()> {
        if std::env::var_os(MAY_BOOT).is_some_and(|may| may == "no") {
            bail!("switch the device on: {MAY_BOOT}=no; add this test to GUESTS in tests/src/schedule/plan.rs");
        }
        let program = imagebuild::setup::qemu(self.machine.arch)?;
        let mut argv = args::argv(&self.machine, &self.files);
        argv.extend(more.iter().map(|word| (*word).to_owned()));
        let process = Process::start("the emulator", &program, &argv, &self.dir.path().join("emulator.log"))?;
        wait::until("the emulator's control socket", Duration::from_secs(20), || {
            process.check()?;
            Ok(Qmp::connect(&self.files.control).ok())
        })?;
        let errors = DiskErrors::listen(&self.files.events, self.files.recording.is_none())?;
        self.emulator = Some((process, errors));
        Ok(())
    }

    /// Switches it on with the memory and the state of another machine's devices, which `memory` holds.
    fn resume(&mut self, memory: &Path) -> Result<()> {
        self.switched_on_at = self.console.length();
        // Its boot is over: there is none to repeat.
        self.started_again = AtomicBool::new(true);
        self.start(&["-S", "-incoming", "defer"])?;
        let mut qmp = Qmp::connect(&self.files.control)?;
        qmp.receive(memory)?;
        self.wait_transferred(&mut qmp).with_context(|| format!("read {}", memory.display()))?;
        qmp.execute("cont", json!({})).map(drop)
    }

    /// Pauses it and writes its memory and the state of its devices to `memory`, with which [`resume`](Device::resume)
    /// goes on. It stays paused.
    pub(crate) fn save(&self, memory: &Path) -> Result<()> {
        let mut qmp = Qmp::connect(&self.files.control)?;
        qmp.execute("stop", json!({}))?;
        qmp.send(memory)?;
        self.wait_transferred(&mut qmp).with_context(|| format!("write {}", memory.display()))
    }

    fn wait_transferred(&self, qmp: &mut Qmp) -> Result<()> {
        wait::until("the memory of a guest to be copied", TRANSFER, || {
            self.running()?.check()?;
            qmp.transferred()
        })
    }

    /// The firmware's variables, while it is off or paused.
    pub(crate) fn variables(&self) -> &Path {
        &self.files.vars
    }

    /// Whether it has a power button that the system listens to: without ACPI, which comes with UEFI, it has none.
    pub fn has_power_button(&self) -> bool {
        self.machine.board.is_none() && !self.files.u_boot
    }

    /// Presses the power button and waits until the operating system has switched the device off.
    pub fn power_off(&mut self, limit: Duration) -> Result<()> {
        let process = self.running()?;
        let press = || Qmp::connect(&self.files.control)?.execute("system_powerdown", json!({}));
        press()?;
        let mut pressed = Instant::now();
        let ended = wait::until("the device to switch itself off", limit, || {
            // Early in a boot the press is lost, because no program listens to the button yet.
            if pressed.elapsed() > AGAIN {
                pressed = Instant::now();
                // It fails when the emulator has just ended.
                let _ = press();
            }
            process.ended()
        });
        ended.with_context(|| format!("switch the device off; its console ends:\n{}", self.console.tail(15)))?;
        self.emulator = None;
        Ok(())
    }

    /// Changes the seed while the device waits for one, as putting the card back would. The guest is paused
    /// meanwhile; firstboot opens the partition again for every read, so it sees no stale data.
    pub fn change_seed(&self, seed: &str) -> Result<()> {
        self.while_paused(|disk| disk.put_seed(seed))
    }

    /// Changes the disk, of which the guest has read nothing that is changed, while the guest is paused.
    pub fn while_paused<T>(&self, change: impl FnOnce(&DiskImage) -> Result<T>) -> Result<T> {
        self.running()?;
        let mut qmp = Qmp::connect(&self.files.control)?;
        qmp.execute("stop", json!({}))?;
        let done = change(&self.disk);
        qmp.execute("cont", json!({}))?;
        done
    }

    /// Bytes that it has written to its disk since it was switched on.
    pub fn written(&self) -> Result<u64> {
        self.running()?;
        Qmp::connect(&self.files.control)?.written(args::DISK)
    }

    /// Plugs its network cable in or out: the guest sees its interface gain or lose its carrier.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.running()?;
        Qmp::connect(&self.files.control)?.execute("set_link", json!({ "name": args::NET, "up": up })).map(drop)
    }

    /// Plugs in a USB stick labelled `SEED` with these files, under a name of its own.
    ///
    /// # Errors
    /// When it has no free USB port, or there is a stick of this name.
    pub fn plug_in(&self, name: &str, files: &[(&str, &str)]) -> Result<()> {
        self.running()?;
        let path = stick(&self.dir.path().join(format!("{name}.img")), files)?;
        let (mut qmp, node) = (Qmp::connect(&self.files.control)?, format!("{name}-image"));
        let file = json!({ "driver": "file", "filename": path.display().to_string() });
        qmp.execute("blockdev-add", json!({ "driver": "raw", "node-name": node, "file": file }))?;
        qmp.execute("device_add", args::stick_device(name, &node)).map(drop)
    }

    /// Pulls out a stick that [`Device::plug_in`] has plugged in.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn pull_out(&self, name: &str) -> Result<()> {
        self.running()?;
        Qmp::connect(&self.files.control)?.execute("device_del", json!({ "id": name })).map(drop)
    }

    /// Whether its disk refuses writes when it is switched on the next time. Not one whose writes are recorded.
    pub fn set_write_protected(&mut self, protected: bool) {
        self.files.write_protected = protected;
    }

    /// What its clock chip shows when it is switched on the next time: `utc`, or a date such as `1970-01-01T00:00:00`.
    pub fn set_clock(&mut self, clock: &str) {
        clock.clone_into(&mut self.machine.clock);
    }

    /// Waits until a board restarts itself, and starts it again as its firmware does; returns the number of the partition
    /// that it starts from now.
    ///
    /// # Errors
    /// When it does not restart within `limit`, or switches itself off.
    pub fn wait_restarted(&mut self, limit: Duration) -> Result<u32> {
        let register = self.machine.board.context("restart a machine that is no board")?.restart_register;
        let stopped = wait::every(Duration::from_millis(500), "the board to restart", limit, || {
            self.running()?.check()?;
            let mut qmp = Qmp::connect(&self.files.control)?;
            Ok((qmp.execute("query-status", json!({}))?["status"] == "shutdown").then_some(qmp))
        });
        let mut qmp = stopped.map_err(|e| e.context(self.report()))?;
        let asked = raspberry_pi::partition_in(qmp.word_at(register)?);
        if asked == raspberry_pi::HALT {
            bail!("restart the board: it switched itself off");
        }
        drop(qmp);
        self.power_cut()?;
        self.switched_on_at = self.console.length();
        self.started_again = AtomicBool::new(false);
        let partition = self.play_firmware(asked)?;
        self.start(&[])?;
        Ok(partition)
    }

    /// Cuts its power.
    pub fn power_cut(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.emulator = None;
        Ok(())
    }

    /// Whether it was switched on, and not off since.
    pub fn is_on(&self) -> bool {
        self.emulator.is_some()
    }

    /// Whether it is on; an error when it ended by itself or its kernel panicked.
    pub fn check(&self) -> Result<()> {
        let (process, errors) = self.emulator.as_ref().context(OFF)?;
        process.check()?;
        errors.check()?;
        let said = self.console.check();
        if said.is_err() && self.accelerator() == Accelerator::Tcg && self.start_again()? {
            return Ok(());
        }
        said
    }

    /// Repeats a boot, once, when the kernel panicked before the initrd's first line: none of our code ran yet, and no
    /// disk was mounted. QEMU's translator runs the guest's processors in threads, and on a busy machine one of them
    /// sometimes executes an instruction that another one is patching (about one boot in some hundreds, 1.8 s after
    /// power-on).
    fn start_again(&self) -> Result<bool> {
        let Some(line) = self.console.early_panic(self.switched_on_at)? else { return Ok(false) };
        if self.started_again.swap(true, Ordering::Relaxed) {
            return Ok(false);
        }
        let mut qmp = Qmp::connect(&self.files.control)?;
        qmp.execute("stop", json!({}))?;
        println!("the emulated kernel crashed before the initrd ran; this boot is repeated, once: {}", line.trim());
        println!("{}", self.console.tail(40));
        self.console.forget(self.switched_on_at)?;
        qmp.execute("system_reset", json!({}))?;
        qmp.execute("cont", json!({}))?;
        Ok(true)
    }

    fn running(&self) -> Result<&Process> {
        self.emulator.as_ref().map(|(process, _)| process).context(OFF)
    }

    /// Waits until its console shows a line that contains `part`; returns that line.
    pub fn wait_console(&self, part: &str, limit: Duration) -> Result<String> {
        let line = wait::every(Duration::from_millis(300), &format!("`{part}` on the console"), limit, || {
            let line = self.console.find(part)?;
            if line.is_none() {
                self.check()?;
            }
            Ok(line)
        });
        line.map_err(|e| e.context(self.report()))
    }

    /// Waits until its status file on the boot partition holds `part`; returns the whole file.
    /// The guest may be writing: only whole-text matches count, and a torn read is repeated.
    pub fn wait_status(&self, part: &str, limit: Duration) -> Result<String> {
        let status = wait::every(Duration::from_millis(500), &format!("`{part}` in the status file"), limit, || {
            self.check()?;
            Ok(self.disk.status().ok().filter(|text| text.contains(part)))
        });
        status.map_err(|e| e.context(self.report()))
    }

    /// Its serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Its disk.
    pub fn disk(&self) -> &DiskImage {
        &self.disk
    }

    /// What runs its processors.
    pub fn accelerator(&self) -> Accelerator {
        self.machine.accelerator
    }

    /// `http://127.0.0.1:PORT` for a guest port that was asked for.
    pub fn url(&self, guest_port: u16) -> Result<String> {
        let forward = self.machine.forwards.iter().find(|f| f.guest == guest_port);
        let forward = forward.with_context(|| format!("find a forward to guest port {guest_port}"))?;
        Ok(format!("http://127.0.0.1:{}", forward.host))
    }

    /// For a failure's report: the status file, and the end of the console.
    pub fn report(&self) -> String {
        let status = self.disk.status().unwrap_or_else(|e| format!("(cannot be read: {e:#})"));
        format!("--- status file\n{status}\n--- console, last 40 lines\n{}\n---", self.console.tail(40))
    }
}

/// The machine that `options` describe.
pub(crate) fn machine(options: &Options, accelerator: Accelerator) -> Result<Machine> {
    let forward = |guest: &u16| -> Result<Forward> { Ok(Forward { host: ports::free()?, guest: *guest }) };
    Ok(Machine {
        arch: options.arch,
        accelerator,
        cpus: options.cpus,
        memory_mib: options.memory_mib,
        controller: options.controller,
        serial: options.serial.clone(),
        credentials: options.credentials.clone(),
        clock: options.clock.clone(),
        mac: options.mac.clone(),
        link: options.link.clone(),
        forwards: options.guest_ports.iter().map(forward).collect::<Result<_>>()?,
        disk_limits: options.disk_limits,
        board: options.board,
    })
}

/// Takes what the disk's boot loader starts out of `image`, into files in `dir`.
fn kernel(image: &DiskImage, dir: &Path) -> Result<Kernel> {
    let entry = image.boot_entry()?;
    let (kernel, initrd) = (dir.join("kernel"), dir.join("initrd"));
    std::fs::write(&kernel, entry.kernel).context("write the device's kernel")?;
    std::fs::write(&initrd, entry.initrd).context("write the device's initrd")?;
    Ok(Kernel { device_tree: None, kernel, initrd, command_line: entry.command_line })
}

/// A stick as a person would format it: no partitions, one FAT file system labelled `SEED`.
fn stick(path: &Path, files: &[(&str, &str)]) -> Result<PathBuf> {
    let file = File::options().read(true).write(true).create_new(true).open(path).context("create a stick")?;
    file.set_len(16 << 20).context("size the stick")?;
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"SEED       ");
    fatfs::format_volume(fscommon::BufStream::new(file), options).context("format the stick")?;
    let stick = BootPartition::open_whole(path)?;
    for (name, text) in files {
        stick.write(name, text.as_bytes()).with_context(|| format!("write {name} to the stick"))?;
    }
    Ok(path.to_owned())
}

impl Drop for Device {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.report());
        }
    }
}
