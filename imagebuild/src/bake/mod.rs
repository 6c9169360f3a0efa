// SPDX-License-Identifier: Apache-2.0
//! `imagebuild bake`: an image of an operating system in, the same image with firstboot out, and nothing else changed.
//!
//! Without root and without mounts. The base is looked at first, and everything that it lacks is said at once. The result
//! gets its name only when it is complete and was read back.

mod base;
mod bundle_image;
mod content;
mod ext4;
mod fstab;
mod kernel;
mod machinery;
mod partitions;
mod report;
mod unpack;
mod write;

use crate::progress::step;
use crate::sign::Signer;
use crate::target::Target;
use crate::{bundle, cache, digest};
use anyhow::{Context, Result, bail, ensure};
pub use base::{Base, Network};
pub use content::{Added, What};
pub use ext4::{Node, Reader};
use firstboot::boot_partition::BootPartition;
use firstboot::image::{ImageInfo, is_machine_id, machine_id_digest};
pub use partitions::{Disk, Kind, Partition};
pub use report::Report;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use unpack::Packing;

const MIB: u64 = 1 << 20;
/// Bytes that have to be free in the root for pods and logs when the device starts, where the base does not lengthen it.
const FREE: u64 = 512 * MIB;
/// Bytes that are added at most: what `--check` counts with, for which no bundle is made.
const ADDED: u64 = 400 * MIB;

/// How the name of the directory begins that a run works in, and the file in it that the run has locked.
const SCRATCH: &str = ".bake-";
const LOCK: &str = "lock";

/// `imagebuild bake`: adds firstboot to an image.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a target, as in targets/NAME.toml, or path of such a file: architecture and lights
    #[arg(long)]
    target: String,
    /// The image: raw, xz, zstd, gzip, zip with one image, or qcow2
    #[arg(long, value_name = "IMG")]
    base: PathBuf,
    /// Kubernetes version of the bundle; the newest in components.lock by default
    #[arg(long)]
    kubernetes_version: Option<String>,
    /// With the images of a control plane in the bundle
    #[arg(long)]
    control_plane: bool,
    /// Key that signs the bundle for the device: private, or public of one that ssh-agent holds [default: not signed]
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Switch the memory cgroup on in cmdline.txt: a Raspberry Pi's own kernel has it off
    #[arg(long)]
    enable_memory_cgroup: bool,
    /// Directory for the result, NAME-firstboot.img, and its report
    #[arg(long, default_value = "out/images")]
    out: PathBuf,
    /// Only look at the image, and say what it is and what it lacks
    #[arg(long)]
    check: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `imagebuild bake`.
///
/// # Errors
/// What the base lacks, and everything that fails; nothing with the result's name is left then.
pub fn main(args: &Args) -> Result<()> {
    let mut target = Target::load(&args.target)?;
    if args.control_plane {
        target = target.for_control_plane();
    }
    // Before the work of minutes: a key may be missing.
    let signer = args.sign_key.as_deref().map(|key| Signer::open(Some(key))).transpose()?;
    let choices = Choices {
        kubernetes_version: args.kubernetes_version.as_deref(),
        signer,
        enable_memory_cgroup: args.enable_memory_cgroup,
    };
    let report = match args.check {
        true => check(&target, &args.base, &choices, &args.out)?,
        false => bake(&target, &args.base, &choices, &args.out)?,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report).context("write the report")?),
        false => print!("{}", report.text()),
    }
    fail_if_missing(&args.base, &report.missing)
}

/// One line, whatever is missing; several things are listed before it.
fn fail_if_missing(base: &Path, missing: &[String]) -> Result<()> {
    match missing {
        [] => Ok(()),
        [one] => bail!("bake {}: {one}", base.display()),
        all => {
            all.iter().for_each(|line| eprintln!("imagebuild: missing: {line}"));
            bail!("bake {}: {} things are missing in the image, listed above", base.display(), all.len())
        }
    }
}

/// Looks at a base, and leaves nothing. What is packed is unpacked where the result would go: the directory for
/// temporary files may be memory, and an image may be larger than it.
///
/// # Errors
/// When it is no image, or a damaged one, or there is no room to unpack it. What it lacks is in the report.
pub fn check(target: &Target, path: &Path, choices: &Choices, out: &Path) -> Result<Report> {
    let packing = Packing::of(path)?;
    let what = || format!("bake {}", path.display());
    let base = match packing {
        Packing::Raw => examine(path, target, choices).with_context(what)?,
        _ => {
            let directory = nearest(out);
            // It has no name, so it is gone however this process ends.
            let mut file = tempfile::tempfile_in(directory)
                .with_context(|| format!("create a file for the base in {}", directory.display()))?;
            step("unpack the base", || unpack::unpack(path, packing, &mut file, directory))?;
            examine(&unpack::path_of(&file), target, choices).with_context(what)?
        }
    };
    Ok(Report::of(path, target, &base))
}

/// Looks at an unpacked base, with what the user chose and the room for what is added at most.
fn examine(path: &Path, target: &Target, choices: &Choices) -> Result<Base> {
    let mut base = base::examine(path, target.arch)?;
    base.choose_memory_cgroup(choices.enable_memory_cgroup);
    room(&mut base, ADDED);
    Ok(base)
}

/// A directory for results, or the nearest one above it that is there.
fn nearest(out: &Path) -> &Path {
    // Above a relative path there is nothing with a name but the current directory.
    out.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

/// By how many bytes the root has to be longer, a multiple of 1 MiB; it is missing where that is not possible.
fn room(base: &mut Base, added: u64) -> u64 {
    let Some((partition, superblock)) = &base.root else { return 0 };
    // What lies behind the file system in its partition is used first. Inodes take their part of what is added, and root's
    // reserve its own: 5 % by default.
    let unused = partition.length.saturating_sub(superblock.size);
    let lacks = (added + FREE).saturating_sub(superblock.free.saturating_add(unused / 8 * 7));
    let more = (lacks + lacks / 8).next_multiple_of(MIB);
    if lacks == 0 {
        return 0;
    }
    let why = match (base.disk.behind(partition), base.disk.fixed()) {
        (Some(behind), _) => format!("partition {} behind it", behind.number),
        (None, Some(why)) => format!("bake cannot make the root longer: {why}"),
        (None, None) => return more,
    };
    base.missing.push(format!(
        "use an image with {} MiB more free space in its root: it has {} MiB, and {why}",
        lacks.div_ceil(MIB),
        superblock.free / MIB
    ));
    0
}

/// What a user chooses.
#[derive(Debug, Default)]
pub struct Choices<'a> {
    /// Version of the bundle; none is the newest.
    pub kubernetes_version: Option<&'a str>,
    /// Who signs the bundle's manifest, where the device is to verify it.
    pub signer: Option<Signer>,
    /// Whether a Raspberry Pi's cmdline.txt is changed so that the memory cgroup is on, where it is off.
    pub enable_memory_cgroup: bool,
}

/// Bakes `path` into a file in `out`; returns the report, of which a copy is beside it.
///
/// # Errors
/// As [`main`]; where the base lacks something, the report says it and nothing is written.
pub fn bake(target: &Target, path: &Path, choices: &Choices, out: &Path) -> Result<Report> {
    let packing = Packing::of(path)?;
    let what = || format!("bake {}", path.display());
    if packing == Packing::Raw {
        // Before anything is copied.
        let base = examine(path, target, choices).with_context(what)?;
        if !base.missing.is_empty() {
            return Ok(Report::of(path, target, &base));
        }
    }
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    remove_left(out)?;
    let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(out).context("create a scratch directory")?;
    let _lock = cache::lock_file(&scratch.path().join(LOCK))?;
    let raw = scratch.path().join("image");
    let mut file = File::options().read(true).write(true).create_new(true).open(&raw).context("create the image")?;
    step("unpack the base", || unpack::unpack(path, packing, &mut file, out))?;
    let mut base = examine(&raw, target, choices).with_context(what)?;
    if !base.missing.is_empty() {
        return Ok(Report::of(path, target, &base));
    }
    let choice = bundle::Choice { kubernetes_version: choices.kubernetes_version, control_plane: target.control_plane };
    let bundle = step("bundle", || bundle::ensure(target.arch, choice))?;
    let image = step("pack the bundle", || bundle_image::ensure(&bundle))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
    let fixed = crate::build::fixed_build_time(std::env::var_os(crate::build::BUILD_TIME_ENV).as_deref(), now)?;
    let info = ImageInfo {
        version: 1,
        target: target.name.clone(),
        arch: target.arch.to_string(),
        build_time: fixed.unwrap_or(now),
        build_id: digest::key(&[&image.hash, &digest::file(path)?]),
        boot_label: base.boot.as_ref().map(|(_, label)| label.clone()).unwrap_or_default(),
        leds: target.leds.clone(),
        machine_id: machine_id(&base, &raw).with_context(what)?,
    };
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).context("create a scratch directory")?;
    if let Some(signer) = &choices.signer {
        signer.put_in_image(&bundle, &tree)?;
    }
    let added = content::fill(target, &base, &info, &image, &tree)?;
    let report = step("write the image", || put(&mut base, &mut file, &raw, &added, &info)).with_context(what)?;
    let mut report = Report { base: path.display().to_string(), ..report.of_target(target) };
    let name = stem(path);
    let result = out.join(format!("{name}-firstboot.img"));
    report.result = Some(result.display().to_string());
    let text = serde_json::to_string_pretty(&report).context("write the report")? + "\n";
    let beside = scratch.path().join("report");
    fs::write(&beside, text).context("write the report")?;
    file.sync_all().with_context(|| format!("write {}", raw.display()))?;
    fs::rename(&beside, out.join(format!("{name}-firstboot.json"))).context("rename the report")?;
    fs::rename(&raw, &result).with_context(|| format!("rename the image to {}", result.display()))?;
    Ok(report)
}

/// Removes what runs that were interrupted have left in `out`: no process holds its lock.
fn remove_left(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out).with_context(|| format!("list {}", out.display()))?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let free = || File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if name.to_string_lossy().starts_with(SCRATCH) && free() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes everything into the image, and reads it back from there.
fn put(base: &mut Base, file: &mut File, raw: &Path, added: &[Added], info: &ImageInfo) -> Result<Report> {
    let size: u64 = added.iter().map(|one| if let What::File { size, .. } = &one.what { *size } else { 0 }).sum();
    ensure!(size <= ADDED, "add {size} bytes: at most {ADDED} are provided for");
    let more = room(base, size);
    let (mut partition, superblock) = base.root.clone().context("find the root")?;
    let before = partition.length;
    if more > 0 {
        partition = base.disk.lengthen(file, partition.number, more)?;
    }
    // e2fsprogs work on a file of its own: after replaying a journal they open it again without an offset.
    let alone = tempfile::NamedTempFile::new_in(raw.parent().context("find the scratch directory")?);
    let alone = alone.context("create a file for the root file system")?;
    alone.as_file().set_len(partition.length).context("make room for the root file system")?;
    ext4::copy_part(file, partition.offset, alone.as_file(), 0, superblock.size.min(partition.length))?;
    if more > 0 || superblock.free < size + FREE {
        write::lengthen(alone.path())?;
    }
    let written = write::add(alone.path(), added, info.build_time)?;
    ext4::copy_part(alone.as_file(), 0, file, partition.offset, partition.length)?;
    write::verify_at(raw, partition.offset, &written)?;

    let (boot, label) = base.boot.clone().context("find the FAT partition")?;
    let fat = BootPartition::open(raw, boot.offset, boot.length)?;
    let put = |name: &str, bytes: &[u8]| -> Result<()> {
        fat.write(name, bytes).with_context(|| format!("write {name} to the FAT partition {label}"))?;
        ensure!(fat.read(name)?.as_deref() == Some(bytes), "read {name} back: it is not what was written");
        Ok(())
    };
    let mut on_boot = Vec::new();
    for (name, bytes) in crate::build::never_started() {
        ensure!(fat.read(name)?.is_none(), "add {name} to the FAT partition: the base has it already");
        put(name, &bytes)?;
        on_boot.push(name.to_owned());
    }
    if let Some(text) = &base.command_line {
        put(base::CMDLINE, text.as_bytes())?;
    }
    let mut report = Report::new(base);
    report.added = written;
    report.added_to_boot = on_boot;
    report.lengthened = partition.length - before;
    report.free_after = Some(write::free(alone.path())?);
    Ok(report)
}

/// The base's name without what says how it is packed.
fn stem(path: &Path) -> String {
    let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for end in [".xz", ".zst", ".gz", ".zip", ".img", ".raw", ".wic", ".qcow2"] {
        if let Some(shorter) = name.strip_suffix(end) {
            name = shorter.to_owned();
        }
    }
    name
}

/// What tells the machine-id of a base, which its devices would share; none where each makes one, as it should.
fn machine_id(base: &base::Base, raw: &Path) -> Result<Option<String>> {
    let Some((root, _)) = &base.root else { return Ok(None) };
    let id = Reader::open(raw, root)?.text("/etc/machine-id")?.unwrap_or_default();
    let id = id.trim();
    Ok(is_machine_id(id).then(|| machine_id_digest(id)))
}

#[cfg(test)]
mod tests;
