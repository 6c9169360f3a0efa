// SPDX-License-Identifier: Apache-2.0
//! Everything that the initrd mounts: the kernel's own file systems, the root, data with `/var` and `/etc` on it; and the
//! move into the new root.

use crate::data::{Machine, OPTIONS};
use crate::report::State;
use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_move, mount_remount, unmount};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the new root is mounted.
pub const NEW_ROOT: &str = "/root";
/// First argument of this program when it is to run another one inside the new root.
pub const IN_ROOT: &str = "in-root";
/// Where the data partition is, below the new root.
const DATA: &str = "/root/data";

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

fn put(source: &str, target: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    let options = CString::new(options).context("write mount options")?;
    mount(source, target, kind, flags, options.as_c_str()).with_context(|| format!("mount {source} on {target}"))
}

/// Mounts the kernel's own file systems.
///
/// # Errors
/// When one cannot be mounted.
pub fn kernel_file_systems() -> Result<()> {
    let noexec = SAFE | MountFlags::NOEXEC;
    for (kind, target, flags, options) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
        ("proc", "/proc", noexec, ""),
        ("sysfs", "/sys", noexec, ""),
        ("tmpfs", "/run", SAFE, "mode=0755"),
    ] {
        fs::create_dir_all(target).with_context(|| format!("create {target}"))?;
        put(kind, target, kind, flags, options)?;
    }
    Ok(())
}

/// Mounts the verified root.
///
/// # Errors
/// When its file system cannot be read: a block of it is not what was built.
pub fn root(device: &str) -> Result<()> {
    put(device, NEW_ROOT, "erofs", MountFlags::RDONLY | MountFlags::NOATIME, "")
}

/// The data partition on its device.
#[derive(Debug)]
pub struct DataDevice {
    /// Its device.
    pub path: PathBuf,
}

impl Machine for DataDevice {
    fn run(&mut self, program: &str, arguments: &[&str]) -> Result<i32> {
        let device = self.path.display().to_string();
        let arguments: Vec<&str> = arguments.iter().copied().chain([device.as_str()]).collect();
        in_root(program, &arguments)
    }

    fn mount(&mut self) -> Result<()> {
        put(&self.path.display().to_string(), DATA, "ext4", SAFE | MountFlags::NOATIME, OPTIONS)
    }
}

/// Runs a program inside the new root, which has the devices for it; its exit code.
fn in_root(program: &str, arguments: &[&str]) -> Result<i32> {
    let dev = format!("{NEW_ROOT}/dev");
    mount_bind_recursive("/dev", &dev).with_context(|| format!("mount /dev on {dev}"))?;
    // This program is its own helper: between fork and exec there is no safe place for a chroot.
    let ended = Command::new("/proc/self/exe").args([IN_ROOT, program]).args(arguments).status();
    unmount(&dev, rustix::mount::UnmountFlags::DETACH).with_context(|| format!("unmount {dev}"))?;
    let ended = ended.with_context(|| format!("start {program}"))?;
    ended.code().with_context(|| format!("run {program}: {ended}"))
}

/// What [`IN_ROOT`] asks for: changes into the new root and becomes the program. Returns only with an error.
pub fn become_in_root(mut words: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Error {
    let Some(program) = words.next() else { return anyhow::anyhow!("run a program in the root: none is named") };
    let changed = rustix::process::chroot(NEW_ROOT).and_then(|()| rustix::process::chdir("/"));
    match changed {
        Err(error) => anyhow::Error::new(error).context("change into the root"),
        Ok(()) => {
            let error = Command::new(&program).args(words).exec();
            anyhow::Error::new(error).context(format!("start {}", program.display()))
        }
    }
}

/// Puts memory where data should be.
///
/// # Errors
/// When it cannot be mounted.
pub fn memory() -> Result<()> {
    put("tmpfs", DATA, "tmpfs", SAFE, "mode=0700,size=50%")
}

/// Mounts a data partition that takes no writes.
///
/// # Errors
/// When it cannot be read either.
pub fn read_only(device: &Path) -> Result<()> {
    let flags = SAFE | MountFlags::NOATIME | MountFlags::RDONLY;
    // The journal cannot be replayed; what was not written back when the power went is older than it could be.
    put(&device.display().to_string(), DATA, "ext4", flags, "noload")
}

/// Mounts `/var` and `/etc` of the new root from what is mounted as data. Returns what had to be put aside for it.
///
/// # Errors
/// When they cannot be mounted.
pub fn var_and_etc(state: State) -> Result<Vec<String>> {
    if state == State::ReadOnly {
        return over_read_only().map(|()| Vec::new());
    }
    fs::set_permissions(DATA, Permissions::from_mode(0o700)).with_context(|| format!("chmod {DATA}"))?;
    for directory in ["etc", "etc/upper", "etc/work"] {
        fs::create_dir_all(format!("{DATA}/{directory}")).with_context(|| format!("create {DATA}/{directory}"))?;
    }
    if !Path::new(&format!("{DATA}/var")).exists() {
        fill()?;
    }
    bind_var(&format!("{DATA}/var"))?;
    let mut aside = Vec::new();
    if etc(&format!("{NEW_ROOT}/etc"), &format!("{DATA}/etc/upper"), &format!("{DATA}/etc/work")).is_err() {
        // Its content may be what the kernel refuses; a new one is better than no boot.
        let free = (1..).map(|n| format!("{DATA}/etc.damaged-{n}")).find(|name| !Path::new(name).exists());
        let free = free.unwrap_or_default();
        fs::rename(format!("{DATA}/etc"), &free).with_context(|| format!("rename {DATA}/etc"))?;
        fs::create_dir_all(format!("{DATA}/etc/upper")).context("create a new upper layer of /etc")?;
        fs::create_dir_all(format!("{DATA}/etc/work")).context("create a new work directory of /etc")?;
        etc(&format!("{NEW_ROOT}/etc"), &format!("{DATA}/etc/upper"), &format!("{DATA}/etc/work"))?;
        aside.push(format!("changes of /etc could not be mounted; they are in {}", free.trim_start_matches(NEW_ROOT)));
    }
    Ok(aside)
}

/// Copies the root's own `/var` to data, complete or not at all.
fn fill() -> Result<()> {
    let new = format!("{DATA}/var.new");
    if Path::new(&new).exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {new}"))?;
    }
    let code = in_root("/usr/bin/cp", &["-a", "--", "/var", "/data/var.new"])?;
    ensure!(code == 0, "copy /var to the data partition: cp ended with {code}");
    flush()?;
    fs::rename(&new, format!("{DATA}/var")).with_context(|| format!("rename {new}"))?;
    flush()
}

/// Flushes the file system with the data.
fn flush() -> Result<()> {
    let directory = fs::File::open(DATA).with_context(|| format!("open {DATA}"))?;
    rustix::fs::syncfs(&directory).context("flush the data partition")
}

fn bind_var(from: &str) -> Result<()> {
    let var = format!("{NEW_ROOT}/var");
    mount_bind(from, &var).with_context(|| format!("mount {from} on {var}"))?;
    // A bind mount takes its own flags only when it is mounted again.
    mount_remount(&var, MountFlags::BIND | SAFE | MountFlags::NOATIME, "").with_context(|| format!("remount {var}"))
}

fn etc(lower: &str, upper: &str, work: &str) -> Result<()> {
    let target = format!("{NEW_ROOT}/etc");
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    put("etc", &target, "overlay", SAFE | MountFlags::NOATIME, &options)
}

/// `/var` and `/etc` over data that takes no writes: what changes is in memory.
fn over_read_only() -> Result<()> {
    const MEMORY: &str = "/run/firstboot/memory";
    fs::create_dir_all(MEMORY).with_context(|| format!("create {MEMORY}"))?;
    put("tmpfs", MEMORY, "tmpfs", SAFE, "mode=0700,size=50%")?;
    for name in ["var", "var-work", "etc", "etc-work"] {
        fs::create_dir_all(format!("{MEMORY}/{name}")).with_context(|| format!("create {MEMORY}/{name}"))?;
    }
    let var = format!("{DATA}/var");
    let lower = if Path::new(&var).exists() { var } else { format!("{NEW_ROOT}/var") };
    let options = format!("lowerdir={lower},upperdir={MEMORY}/var,workdir={MEMORY}/var-work");
    put("var", &format!("{NEW_ROOT}/var"), "overlay", SAFE | MountFlags::NOATIME, &options)?;
    let upper = format!("{DATA}/etc/upper");
    let lower = if Path::new(&upper).exists() { format!("{upper}:{NEW_ROOT}/etc") } else { format!("{NEW_ROOT}/etc") };
    etc(&lower, &format!("{MEMORY}/etc"), &format!("{MEMORY}/etc-work"))
}

/// Moves into the new root and becomes its first program. The initrd's own files are removed: they take memory.
///
/// # Errors
/// When a mount cannot be moved, or the program not be started.
pub fn switch() -> Result<()> {
    for name in ["dev", "proc", "sys", "run"] {
        let target = format!("{NEW_ROOT}/{name}");
        mount_move(format!("/{name}"), &target).with_context(|| format!("move /{name} to {target}"))?;
    }
    rustix::process::chdir(NEW_ROOT).context("change into the root")?;
    let own = fs::metadata("/").context("look at the initrd")?.dev();
    remove(Path::new("/"), own);
    mount_move(".", "/").context("move the root to /")?;
    rustix::process::chroot(".").context("change into the root")?;
    rustix::process::chdir("/").context("change into the root")?;
    Err(anyhow::Error::new(Command::new("/sbin/init").exec()).context("start /sbin/init"))
}

/// Removes everything below a directory that is on the file system `own`. What cannot be removed stays.
fn remove(directory: &Path, own: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        if meta.dev() != own {
            continue;
        }
        if meta.is_dir() {
            remove(&entry.path(), own);
            let _ = fs::remove_dir(entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
}
