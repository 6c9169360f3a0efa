// SPDX-License-Identifier: Apache-2.0
//! What seeds ask of a device that has joined: at its boots, and when a stick is plugged in while it runs.

use super::admit::admit;
use super::messages::{report_refusal, reporter};
use super::seed_file::{SeedFile, look_at_all};
use crate::boot_partition::{BootPartition, Place, SeedLocator, internal_partition};
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::reset;
use crate::reset::by_seed::{Decision, ResetRequest, decide};
use crate::seed;
use crate::status::State;

/// What the seeds that a joined device finds ask for.
pub(super) struct Asked {
    /// The device's own boot partition.
    pub(super) boot: Option<BootPartition>,
    /// The first seed that asks for a reset and may: what it asks for.
    pub(super) reset: Option<(SeedFile, ResetRequest)>,
    /// The first seed that asks for a reset and may not: why.
    pub(super) refused: Option<(SeedFile, Fault)>,
    /// The first of the others.
    pub(super) seen: Option<SeedFile>,
}

/// Looks at all of them. A file that is no seed is not the node's trouble.
pub(super) fn asked(host: &Host, there: Vec<Place>) -> Asked {
    let mut asked = Asked { boot: internal_partition(&there), reset: None, refused: None, seen: None };
    for found in look_at_all(host, there).0 {
        let answer = seed::parse_request(&found.bytes).map(|r| decide(&host.journal(), r, found.place.removable));
        let Ok(Decision::Reset(request)) = answer else {
            asked.seen.get_or_insert(found);
            continue;
        };
        match admit(host, &found) {
            Ok(()) if asked.reset.is_none() => asked.reset = Some((found, request)),
            Ok(()) => {}
            Err(fault) => {
                asked.refused.get_or_insert((found, fault));
            }
        }
    }
    asked
}

/// What firstboot-stick.service does, which udev starts for each stick: a device that has joined looks at it. Any other
/// device looks every few seconds by itself.
///
/// # Errors
/// A host fault when the disk cannot be found, or the reset cannot be started.
pub fn plugged_in(host: &Host, places: SeedLocator<'_>) -> Result<(), Fault> {
    if !host.journal().sealed() {
        return Ok(());
    }
    let image = ImageInfo::read(host)?;
    let there = places(&image.boot_label).coded(Code::BootDisk)?;
    // A seed on the boot partition waits for the next boot, as ever.
    let Asked { reset, refused, .. } = asked(host, there);
    match (reset.filter(|(found, _)| found.place.removable), refused) {
        (Some((found, request)), _) => be_reset(host, &found, &image, request),
        (None, Some((found, fault))) => {
            report_refusal(host, &image, &found, &fault);
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// Hands this device over to firstboot-reset.service, which restarts the machine when it is done.
pub(super) fn be_reset(host: &Host, found: &SeedFile, image: &ImageInfo, request: ResetRequest) -> Result<(), Fault> {
    let mut reporter = reporter(host, found, image);
    reporter.say(&format!("{} asks for a reset", found.name));
    reporter.status.state = State::Resetting;
    reporter.write();
    reset::by_service(host, Some(request.digest), request.destroys_cluster)
}
