// SPDX-License-Identifier: Apache-2.0
//! The clock floor: no time before the image was built, or before the last time that was verified, can be right.
//!
//! Small boards have no clock chip and start in 1970, where no certificate is valid yet. The same floor is laid by
//! `firstboot guard` at every boot, before anything looks at a certificate.

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::{Host, STATE_DIR};
use crate::image::ImageInfo;
use crate::report::unix_seconds;
use anyhow::Result;
use std::time::{Duration, SystemTime};

fn verified_path() -> String {
    format!("{STATE_DIR}/verified-time")
}

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    Ok(cx.host.now() >= floor(&cx.host, &cx.image).owned_by(Owner::Host)?)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    lay(&cx.host, &cx.image).owned_by(Owner::Host)
}

/// Sets the clock to the floor when it is behind it.
pub fn lay(host: &Host, image: &ImageInfo) -> Result<()> {
    let floor = floor(host, image)?;
    if host.now() < floor {
        host.sys().set_clock(floor)?;
    }
    Ok(())
}

/// The earliest time that it can be: the later of the image's build time and the last verified time.
pub fn floor(host: &Host, image: &ImageInfo) -> Result<SystemTime> {
    let verified = host.read_text(&verified_path())?.and_then(|t| t.parse().ok()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(image.build_time.max(verified)))
}

/// Keeps a time that a verified API server told; whole seconds.
pub fn keep_verified_time(host: &Host, time: SystemTime) -> Result<()> {
    let seconds = unix_seconds(time);
    host.write(&verified_path(), format!("{seconds}\n").as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn the_clock_is_lifted_to_the_floor_and_never_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let image = ImageInfo {
            version: 1,
            target: "t".into(),
            arch: "amd64".into(),
            build_time: 1000,
            build_id: "b".into(),
            boot_label: "BOOT".into(),
        };
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        seen.clock.set(Some(at(5)));
        lay(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(1000)));
        keep_verified_time(&host, at(3000)).unwrap();
        lay(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(3000)));
        seen.clock.set(Some(at(4000)));
        lay(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(4000)));
    }
}
