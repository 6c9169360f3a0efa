// SPDX-License-Identifier: Apache-2.0
//! Writes a seed to the boot partition of a disk, image or stick.

use super::place::make_private;
use crate::disk::{SeedPartition, seed_partition};
use anyhow::{Context, Result, anyhow, bail};
use firstboot::boot_partition::{SEED_NAMES, SIGNATURE_SUFFIX, STICK_LABEL};
use firstboot::seed::ssh_signature;
use std::path::Path;

/// Writes a seed, on a stick with its signature, replacing what was there, and reads it back; says where it is.
/// Before that, group and others lose their permissions on a file in the place of a disk.
pub fn put(seed: &[u8], signature: Option<&[u8]>, disk: &Path) -> Result<String> {
    let SeedPartition { partition: boot, label, .. } = seed_partition(disk)?;
    if let Some(signature) = signature {
        let by = ssh_signature::signer(signature).context("read the signature of the seed: it is none")?;
        ssh_signature::verify(&[by], seed, signature)
            .map_err(|why| anyhow!("verify the signature of the seed: {why}; sign it again"))?;
    }
    make_private(disk)?;
    let on = |what: &str| format!("{what} {} on {}", SEED_NAMES[0], disk.display());
    for old in SEED_NAMES {
        boot.destroy(old).with_context(|| on("replace"))?;
        boot.remove(&format!("{old}{SIGNATURE_SUFFIX}")).with_context(|| on("replace the signature of"))?;
    }
    boot.write(SEED_NAMES[0], seed).with_context(|| on("write"))?;
    // The boot partition is the owner's: what lies there needs no signature.
    let signature = signature.filter(|_| label == STICK_LABEL);
    let beside = format!("{}{SIGNATURE_SUFFIX}", SEED_NAMES[0]);
    if let Some(signature) = signature {
        boot.write(&beside, signature).with_context(|| on("write the signature of"))?;
    }
    let read = |name: &str| boot.read(name).with_context(|| on("read back"));
    if read(SEED_NAMES[0])?.as_deref() != Some(seed) || signature.is_some() && read(&beside)?.as_deref() != signature {
        bail!("{}: it differs", on("read back"));
    }
    Ok(match (label == STICK_LABEL, signature) {
        (false, _) => format!("seed.toml is on the boot partition of {}", disk.display()),
        (true, Some(_)) => format!("seed.toml and its signature are on the stick {}", disk.display()),
        (true, None) => format!(
            "seed.toml is on the stick {}; a device that has joined obeys it only with a signature (imagebuild seed sign)",
            disk.display()
        ),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use crate::target::Target;
    use firstboot::boot_partition::BootPartition;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_seed_lands_on_the_boot_partition_and_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let target = Target::load("generic-amd64").unwrap();
        let boot = testing::fats_only(&target, &Ids::new("t"), &path).unwrap();
        put(b"version = 1\n# a longer one\n", None, &path).unwrap();
        put(b"version = 1\n", None, &path).unwrap();
        let partition = BootPartition::open(&path, boot.offset, boot.length).unwrap();
        assert_eq!(partition.read("seed.toml").unwrap().as_deref(), Some(&b"version = 1\n"[..]));
        assert_eq!(partition.files_with("a longer one").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_cause_is_said_and_an_image_is_private_before_it_has_a_seed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick.img");
        let stick = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        stick.set_len(4 << 20).unwrap();
        let label = fatfs::FormatVolumeOptions::new().volume_label(*b"SEED       ");
        fatfs::format_volume(fscommon::BufStream::new(stick), label).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", put(&vec![b'x'; 5 << 20], None, &path).unwrap_err());
        let cause = "write seed.toml on the boot partition: No space left on device";
        assert_eq!(error, format!("write seed.toml on {}: {cause}", path.display()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stick_gets_the_signature_and_a_boot_partition_does_not() {
        let fixtures = Path::new("../firstboot/tests/ssh-signature");
        let file = |name: &str| std::fs::read(fixtures.join(name)).unwrap();
        let (seed, signature) = (file("seed.toml"), file("ed25519.sig"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick.img");
        let stick = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        stick.set_len(16 << 20).unwrap();
        let label = fatfs::FormatVolumeOptions::new().volume_label(*b"SEED       ");
        fatfs::format_volume(fscommon::BufStream::new(stick), label).unwrap();
        let said = put(&seed, Some(&signature), &path).unwrap();
        assert_eq!(said, format!("seed.toml and its signature are on the stick {}", path.display()));
        let stick = BootPartition::open_whole(&path).unwrap();
        assert_eq!(stick.signature("seed.toml").unwrap(), Some(signature.clone()));
        // Another seed does not keep it.
        let error = put(b"version = 1\n", Some(&signature), &path).unwrap_err().to_string();
        assert!(error.contains("changed after it was signed; sign it again"), "{error}");
        let said = put(b"version = 1\n", None, &path).unwrap();
        assert!(said.contains("only with a signature"), "{said}");
        assert_eq!(stick.signature("seed.toml").unwrap(), None);
        let path = dir.path().join("disk.img");
        let boot = testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
        put(&seed, Some(&signature), &path).unwrap();
        let partition = BootPartition::open(&path, boot.offset, boot.length).unwrap();
        assert_eq!(partition.signature("seed.toml").unwrap(), None);
        assert_eq!(partition.read("seed.toml").unwrap(), Some(seed));
    }

    #[test]
    fn a_disk_without_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.img");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert_eq!(
            put(b"x", None, &path).unwrap_err().to_string(),
            format!(
                "find a FAT partition labelled BOOT or SEED, or one with firstboot-status.txt, on {}; partitions: none",
                path.display()
            )
        );
        let zst = dir.path().join("a.img.zst");
        assert_eq!(
            put(b"x", None, &zst).unwrap_err().to_string(),
            format!("open {}: unpack it first (zstd --decompress)", zst.display())
        );
    }
}
