// SPDX-License-Identifier: Apache-2.0
//! Waiting for a seed, and for another one in the place of a seed that did not work.

use super::admit::admit;
use super::messages::{manual_steps, reporter_at};
use super::sealed::LostCredential;
use super::seed_file::{SeedFile, look_at_all};
use super::waits::LOOK;
use crate::boot_partition::{BootPartition, SeedLocator, internal_partition, root_disk_name};
use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::phases::seal::{finish_without_seed, is_half_erased};
use crate::status::State;
use std::time::Duration;

pub(super) const NO_SEED: &str =
    "find seed.toml on the boot partition: there is none; copy seed.toml.example to seed.toml and fill it in";

/// Waits until there is a seed that this device may take. `None`: there is none and none is needed, because all was
/// done but the last record, or the credential is good after all.
///
/// A device that was sealed, and whose credential is lost, looks at its clock meanwhile: that may be what is wrong.
pub(super) fn wait_for_seed(
    host: &Host,
    places: SeedLocator<'_>,
    image: &ImageInfo,
    lost: &mut Option<LostCredential>,
) -> Result<Option<SeedFile>, Fault> {
    let mut reported: Option<String> = None;
    loop {
        let there = places(&image.boot_label).coded(Code::BootDisk)?;
        let boot = internal_partition(&there);
        let all_but_the_record = host.journal().done("ready") && !host.journal().sealed();
        let (seeds, mut wrong) = look_at_all(host, there);
        for found in seeds {
            // The power went while this one was being destroyed: it is no seed any more.
            if all_but_the_record && !found.place.removable && is_half_erased(&found.bytes) {
                continue;
            }
            match admit(host, &found) {
                Ok(()) => return Ok(Some(found)),
                // The next place may have one.
                Err(refused) => {
                    wrong.get_or_insert(refused);
                }
            }
        }
        if let (true, Some(boot)) = (all_but_the_record, &boot) {
            let mut reporter = reporter_at(host, Some(boot.clone()), image);
            finish_without_seed(host, boot, &Installed::read(host)?.id)?;
            reporter.status.state = State::Joined;
            manual_steps(host, &mut reporter);
            reporter.write();
            return Ok(None);
        }
        let fault = wrong.unwrap_or_else(|| match lost.as_ref() {
            None => Fault::new(Code::NoSeed, NO_SEED),
            Some(lost) => Fault::new(Code::NewSeedNeeded, lost.needs(host, image)),
        });
        let text = fault.to_string();
        if reported.as_ref() != Some(&text) {
            report_waiting(host, image, boot, fault)?;
            reported = Some(text);
        } else if let Some(lost) = lost.as_mut()
            && lost.regained(host, image)?
        {
            let mut reporter = reporter_at(host, boot, image);
            reporter.status.state = State::Joined;
            reporter.write();
            return Ok(None);
        }
        host.sys().sleep(LOOK);
    }
}

pub(super) fn report_waiting(
    host: &Host,
    image: &ImageInfo,
    boot: Option<BootPartition>,
    why: Fault,
) -> Result<(), Fault> {
    if boot.is_none() {
        let text = format!(
            "find the boot partition: no FAT file system labelled {} on disk {}; flash the image again",
            image.boot_label,
            root_disk_name()
        );
        return Err(Fault::new(Code::NoBootPartition, text));
    }
    let mut reporter = reporter_at(host, boot, image);
    reporter.waits(&why);
    host.sys().notify("STATUS=waiting for a seed");
    Ok(())
}

/// Waits until the seed has changed or `limit` has passed; tells whether it changed.
pub(super) fn wait_for_change(
    host: &Host,
    image: &ImageInfo,
    old: &SeedFile,
    limit: Option<Duration>,
    places: SeedLocator<'_>,
) -> Result<bool, Fault> {
    let until = limit.map(|l| host.sys().uptime() + l);
    loop {
        let now = host.sys().uptime();
        let left = until.map_or(LOOK, |u| u.saturating_sub(now).min(LOOK));
        if left.is_zero() {
            return Ok(false);
        }
        host.sys().sleep(left);
        let there = places(&image.boot_label).coded(Code::BootDisk)?;
        // An unreadable card is the same as an unchanged one here: the next look may be better. So is a stick that this
        // device does not obey.
        let seeds = look_at_all(host, there).0;
        let first = seeds.iter().find(|found| !found.place.removable || admit(host, found).is_ok());
        if first.is_some_and(|new| new.bytes != old.bytes) {
            return Ok(true);
        }
    }
}
