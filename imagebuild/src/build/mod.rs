// SPDX-License-Identifier: Apache-2.0
//! `imagebuild build`: a bootable disk image for a target, from packages, bundle and device binary.

mod boot;
mod device_trees;
mod extlinux;
pub(crate) mod manifest;
mod output;
mod provenance;
mod raspberry_pi;
mod sbom;
pub(crate) mod tree;

use crate::archive::Archive;
use crate::debian::{Debian, locked};
use crate::disk::{self, Content, Ids};
use crate::erofs::Mkfs;
use crate::progress::step;
use crate::sign::Signer;
use crate::sums::Unseeded;
use crate::target::{Role, Target};
use crate::verity::{self, Tree};
use crate::{bundle, cache, device, digest, initrd, repo, rootfs};
use anyhow::{Context, Result, ensure};
use firstboot::status::{self, STATUS_NAME};
use firstboot::status_page::{HTML_NAME, HTML_SIZE};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The example on the boot partition, and its name there.
pub const SEED_EXAMPLE: (&str, &str) = ("seed.toml.example", include_str!("../../seed.toml.example"));
/// Environment variable that sets an image's build time (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub const BUILD_TIME_ENV: &str = "SOURCE_DATE_EPOCH";
/// Images of one target that stay in the cache; older ones are removed.
const KEEP: usize = 5;
/// A change in how images are put together makes a new key.
const RECIPE: [&str; 17] = [
    include_str!("boot.rs"),
    include_str!("extlinux.rs"),
    include_str!("mod.rs"),
    include_str!("provenance.rs"),
    include_str!("raspberry_pi.rs"),
    include_str!("sbom.rs"),
    include_str!("sbom/crates.rs"),
    include_str!("sbom/document.rs"),
    include_str!("sbom/modules.rs"),
    include_str!("tree.rs"),
    include_str!("../archive.rs"),
    include_str!("../disk/mod.rs"),
    include_str!("../disk/fat.rs"),
    include_str!("../disk/table.rs"),
    include_str!("../erofs.rs"),
    include_str!("../uki.rs"),
    include_str!("../verity.rs"),
];

/// `imagebuild build`: makes a disk image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Environment:
  SOURCE_DATE_EPOCH  build time of the image, in seconds since 1970; now by default
  FIRSTBOOT_DEBIAN_MIRROR, FIRSTBOOT_DEBIAN_SECURITY_MIRROR
                     mirrors of Debian and of its security updates; those of this machine's apt by default
  FIRSTBOOT_DEBIAN_EXCEPTIONS
                     no-security, old-lists: what the package lists may lack; the manifest names it")]
pub struct Args {
    /// Name of a target, as in targets/NAME.toml, or path of such a file
    #[arg(long)]
    target: String,
    /// Kubernetes version of the bundle, for example 1.36.3; the newest in components.lock by default
    #[arg(long)]
    kubernetes_version: Option<String>,
    /// With the images of a control plane in the bundle; the image is then called NAME-control-plane
    #[arg(long)]
    control_plane: bool,
    /// Directory for the image, its compressed form, manifest, bill of materials, provenance, checksums and signature
    #[arg(long, default_value = "out/images")]
    out: PathBuf,
    /// Key that signs the image, inside for the device and outside in SHA256SUMS: private, or public of one that ssh-agent
    /// holds [default: SHA256SUMS alone is signed, by this machine's own key, made once]
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Use the Debian packages of this NAME.packages.json, by their digests, and no others
    #[arg(long, value_name = "FILE", conflicts_with = "refresh")]
    packages: Option<PathBuf>,
    /// Fetch new package lists first, so that the image gets the newest Debian packages
    #[arg(long)]
    refresh: bool,
}

/// Runs `imagebuild build`.
pub fn main(args: &Args) -> Result<()> {
    if let Some(lock) = &args.packages {
        locked::use_lock(lock)?;
    }
    // Before the work of minutes: a key may be missing.
    let signer = Signer::open(args.sign_key.as_deref())?;
    let mut target = Target::load(&args.target)?;
    if args.control_plane {
        target = target.for_control_plane();
    }
    let debian = Debian::open(target.arch)?;
    match args.refresh {
        true => step("fetch Debian package lists", || debian.refresh())?,
        false => step("check the age of Debian package lists", || debian.renew())?,
    }
    for exception in debian.exceptions()? {
        eprintln!("imagebuild: warning: the image is made under the exception {}", exception.word());
    }
    let inside = args.sign_key.is_some().then(|| signer.clone());
    let image = ensure_at(target, args.kubernetes_version.as_deref(), None, inside)?;
    output::write(&image, &signer, &args.out)?;
    println!("{}", args.out.join(image.file("img")).display());
    Ok(())
}

/// An image in the cache.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name of the target.
    pub target: String,
    /// The directory that holds it.
    pub dir: PathBuf,
}

impl Image {
    /// Name of one of its files: `img`, `img.zst`, `manifest.json`, `packages.json`, `sbom.json` or `provenance.json`.
    fn file(&self, ending: &str) -> String {
        format!("{}.{ending}", self.target)
    }

    /// The raw image. It belongs to the cache: copy it, or put an overlay on it, but do not write to it.
    pub fn raw(&self) -> PathBuf {
        self.dir.join(self.file("img"))
    }

    /// The description of the image and of all that went into it.
    pub fn manifest(&self) -> PathBuf {
        self.dir.join(self.file("manifest.json"))
    }
}

/// What an image is made of.
#[derive(Debug)]
pub struct Parts {
    /// The board.
    pub target: Target,
    /// The device binary.
    pub firstboot: Option<PathBuf>,
    /// The bundle.
    pub bundle: Option<bundle::Bundle>,
    /// Who signs the bundle's manifest, where the device is to verify it.
    pub signer: Option<Signer>,
    /// Build time in seconds since 1970, when it is not to be now or what the environment says.
    pub build_time: Option<u64>,
}

/// The raw image of a target, built now when the cache does not have it. It belongs to the cache: copy it, or put
/// an overlay on it, but do not write to it.
pub fn ensure_raw(target: &str, kubernetes_version: Option<&str>) -> Result<PathBuf> {
    Ok(ensure(target, kubernetes_version)?.raw())
}

/// The image of a target, built now when the cache does not have it.
pub fn ensure(target: &str, kubernetes_version: Option<&str>) -> Result<Image> {
    ensure_at(Target::load(target)?, kubernetes_version, None, None)
}

/// [`ensure()`] for an image that says it was built at `time`, in seconds since 1970: a device believes no earlier time.
pub fn ensure_built_at(target: &str, time: u64) -> Result<Image> {
    ensure_at(Target::load(target)?, None, Some(time), None)
}

/// [`ensure()`] for an image whose bundle is signed.
pub fn ensure_signed(target: &str, signer: Signer) -> Result<Image> {
    ensure_at(Target::load(target)?, None, None, Some(signer))
}

fn ensure_at(
    target: Target,
    kubernetes_version: Option<&str>,
    build_time: Option<u64>,
    signer: Option<Signer>,
) -> Result<Image> {
    locked::begin();
    let firstboot = step("device binary", || device::ensure(target.arch))?;
    let choice = bundle::Choice { kubernetes_version, control_plane: target.control_plane };
    let bundle = step("bundle", || bundle::ensure(target.arch, choice))?;
    assemble(&Parts { target, firstboot: Some(firstboot), bundle: Some(bundle), signer, build_time })
}

/// Assembles an image from given parts. Without a device binary or bundle it boots, and does nothing more.
pub fn assemble(parts: &Parts) -> Result<Image> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
    let fixed = match parts.build_time {
        Some(time) => Some(time),
        None => fixed_build_time(std::env::var_os(BUILD_TIME_ENV).as_deref(), now)?,
    };
    let target = &parts.target;
    // Before the packages are chosen: another build may renew the lists meanwhile.
    let debian = Debian::open(target.arch)?;
    let (lists, exceptions) = (debian.lists()?, debian.exceptions()?);
    let rootfs = step("root file system", || rootfs::ensure(target))?;
    let programs = boot::Programs {
        kernel: rootfs.kernel.clone(),
        release: rootfs.release.clone(),
        initrd: step("initrd", || initrd::ensure(target, &rootfs))?,
        loader: boot::Loader::ensure(target, &rootfs)?,
    };
    let mkfs = step("mkfs.erofs", Mkfs::ensure)?;
    let units = repo::root()?.join("firstboot/units");
    let packages = manifest::Packages::new(&rootfs, &lists, exceptions);
    let key = key(parts, &packages, &programs, &mkfs, &units, fixed)?;
    let image =
        Image { target: target.name.clone(), dir: cache::dir()?.join("images").join(format!("{}-{key}", target.name)) };
    cache::once_kept(&image.dir, |scratch| {
        let ids = Ids::new(&key);
        let info = tree::info(target, fixed.unwrap_or(now), &key);
        let own = scratch.join("own");
        let archive = step("fill the root file system", || tree::fill(parts, &rootfs, &units, &info, &own))?;
        let root = scratch.join("root");
        let verity = step("pack the root file system", || pack(&mkfs, &archive, &ids, info.build_time, &root))?;
        let (mut fats, kernel_image) = step("make the kernel image", || {
            let os_release = archive.read("usr/lib/os-release")?;
            programs.fats(target, &info, &os_release, &verity)
        })?;
        let boot = fats.entry(Role::Boot).or_default();
        boot.files.extend(never_started().map(|(name, bytes)| (name.to_owned(), bytes)));
        let content = Content { fats, root: &root };
        let raw = scratch.join(image.file("img"));
        let placed = step("write the disk image", || disk::build(target, &ids, &content, &raw))?;
        let unseeded = Unseeded::of(&raw, &placed)?;
        let built = manifest::Built { root: manifest::Root::new(&verity), kernel_image, placed, unseeded };
        manifest::write(parts, &packages, &info, &built, &scratch.join(image.file("manifest.json")))?;
        step("list what the image consists of", || {
            sbom::write(parts, &packages, &info, &scratch.join(image.file("sbom.json")))
        })?;
        let to = scratch.join(image.file("packages.json"));
        fs::write(&to, locked::text()?).with_context(|| format!("write {}", to.display()))?;
        let made = provenance::predicate(parts, &packages, &info, fixed)?;
        let made = serde_json::to_vec(&made).context("write the provenance")?;
        let to = scratch.join(image.file(provenance::ENDING_OF_PREDICATE));
        fs::write(&to, made).with_context(|| format!("write {}", to.display()))?;
        fs::remove_file(&root).with_context(|| format!("remove {}", root.display()))?;
        fs::remove_dir_all(&own).with_context(|| format!("remove {}", own.display()))
    })?;
    forget_old(&image)?;
    Ok(image)
}

/// Writes the root partition's content to the file `to`: the file system, and its hash tree after it.
fn pack(mkfs: &Mkfs, archive: &Archive, ids: &Ids, time: u64, to: &Path) -> Result<Tree> {
    mkfs.pack(archive, ids.root_file_system(), time, to)?;
    let tree = verity::tree(to, ids.verity())?;
    let file = OpenOptions::new().append(true).open(to);
    let written = file.and_then(|mut file| file.write_all(&tree.bytes));
    written.with_context(|| format!("write the hash tree to {}", to.display()))?;
    Ok(tree)
}

/// The build time that [`BUILD_TIME_ENV`] sets, in seconds since 1970.
///
/// # Errors
/// When it is no number, or later than `now`: the build time is the earliest time that a device believes.
pub(crate) fn fixed_build_time(value: Option<&OsStr>, now: u64) -> Result<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    let what = || format!("read {BUILD_TIME_ENV}={}", value.display());
    let seconds: Option<u64> = value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    let seconds = seconds.with_context(|| format!("{}: not a number of seconds since 1970", what()))?;
    ensure!(seconds <= now, "{}: later than this machine's clock, {now}", what());
    Ok(Some(seconds))
}

fn key(
    parts: &Parts,
    packages: &manifest::Packages,
    programs: &boot::Programs,
    mkfs: &Mkfs,
    units: &Path,
    fixed_build_time: Option<u64>,
) -> Result<String> {
    let content = |path: Option<PathBuf>| match path {
        Some(path) => digest::file(&path),
        None => Ok("none".to_owned()),
    };
    Ok(digest::key(&[
        &RECIPE.concat(),
        &format!("{:?}", parts.target),
        &packages.rootfs.key,
        &packages.lists_key()?,
        &programs.key()?,
        &mkfs.version,
        &content(parts.firstboot.clone())?,
        &content(parts.bundle.as_ref().map(bundle::Bundle::manifest_file))?,
        &parts.signer.as_ref().map(|signer| signer.public().key.clone()).unwrap_or_default(),
        &digest::tree(units, &["."])?,
        SEED_EXAMPLE.1,
        &firstboot::harden::mounts::fstab(),
        firstboot::leds::MODULES,
        firstboot::firewall::MODULES,
        &fixed_build_time.map(|seconds| seconds.to_string()).unwrap_or_default(),
    ]))
}

/// Removes images of the same target from the cache, except the newest.
fn forget_old(image: &Image) -> Result<()> {
    let directory = image.dir.parent().context("find the image cache")?;
    let mut others = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = name.strip_prefix(&format!("{}-", image.target)).is_some_and(|key| key.len() == 16);
        if ours && path != image.dir {
            others.push((path.metadata()?.modified()?, path));
        }
    }
    others.sort();
    let excess = (others.len() + 1).saturating_sub(KEEP);
    for (_, path) in others.into_iter().take(excess) {
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// What to do with a card that no device was started from.
const FIRST_STEPS: &str = "copy seed.toml.example to seed.toml on this drive and fill it in, put the card into the device \
    and switch it on; if this line is still here minutes later, the device did not start from this card";

/// What a laptop shows of a device that was never switched on: name and content of each file.
pub(crate) fn never_started() -> [(&'static str, Vec<u8>); 3] {
    let text = format!("state: never started\nadvice: {FIRST_STEPS}\n");
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Never started</title>\n<h1>Never started</h1>\n\
         <table><tr><th>advice<td>{FIRST_STEPS}</table>\n"
    )
    .into_bytes();
    page.resize(HTML_SIZE, b'\n');
    let example = SEED_EXAMPLE.1.replace('\n', "\r\n").into_bytes();
    [(STATUS_NAME, status::padded(&text)), (HTML_NAME, page), (SEED_EXAMPLE.0, example)]
}

/// Label of the partition that carries the seed.
pub fn boot_label(target: &Target) -> Result<&str> {
    Ok(&target.partition(Role::Boot)?.label)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn build_time_is_fixed_by_the_environment() {
        let read = |text: &str| fixed_build_time(Some(OsStr::new(text)), 2000).map_err(|e| e.to_string());
        assert_eq!(fixed_build_time(None, 2000).unwrap(), None);
        assert_eq!(read("2000"), Ok(Some(2000)));
        for bad in ["", "0", "-1", "1e9", "yesterday"] {
            assert_eq!(read(bad), Err(format!("read SOURCE_DATE_EPOCH={bad}: not a number of seconds since 1970")));
        }
        assert_eq!(read("2001"), Err("read SOURCE_DATE_EPOCH=2001: later than this machine's clock, 2000".to_owned()));
    }

    /// The file as a user edits it: comment marks removed from the lines that are set, values filled in.
    #[test]
    fn the_example_becomes_a_seed_by_its_own_instructions() {
        let example = SEED_EXAMPLE.1;
        firstboot::seed::parse(example.as_bytes()).map(drop).unwrap_err();
        let edited = example
            .replace("ADDRESS:6443", "192.0.2.10:6443")
            .replace("TOKEN", "abcdef.0123456789abcdef")
            .replace("sha256:HASH", &format!("sha256:{}", "ab".repeat(32)));
        firstboot::seed::parse(edited.as_bytes()).unwrap();
        // Every optional line is valid too, apart from those that replace others.
        let used = |skip: &[&str]| {
            let lines = edited.lines().map(|l| l.strip_prefix("#~ ").unwrap_or(l));
            let mut skipped = "";
            let mut text = String::new();
            for line in lines {
                if line.starts_with('[') || line.starts_with("join") {
                    skipped = skip.iter().find(|s| line.starts_with(**s)).copied().unwrap_or_default();
                }
                if skipped.is_empty() && !skip.iter().any(|s| line.starts_with(s)) {
                    text += &format!("{line}\r\n");
                }
            }
            firstboot::seed::parse(text.as_bytes()).unwrap()
        };
        let wired = used(&["join", "[network.wifi]"]);
        assert_eq!(wired.network.vlan, Some(42));
        let by_line = used(&["[cluster]", "[network]"]);
        // The line says the same of the cluster as the table; the proxy is in [network], which is skipped here.
        let of_cluster = |seed: &firstboot::seed::Seed| {
            let cluster = &seed.join().unwrap();
            (cluster.apiserver.clone(), cluster.token.clone(), cluster.trust.clone())
        };
        assert_eq!((of_cluster(&by_line), by_line.network.wifi.is_some()), (of_cluster(&wired), true));
    }
}
