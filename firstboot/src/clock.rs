// SPDX-License-Identifier: Apache-2.0
//! What time it can be, and what time it is.
//!
//! Small boards have no clock chip and start in 1970, where no certificate is valid yet. The *floor* is the later of
//! the image's build time and the last verified time: no time before it can be right. `firstboot guard` lays it at
//! every boot. A *verified* time is the `Date` of an API server that the cluster's CA vouches for: at the join, at
//! every later boot and once a day. It may set the clock either way, but never below the build time.

use crate::backoff::backoff;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::host::kept::VERIFIED_TIME;
use crate::image::ImageInfo;
use crate::kube::clock::server_time;
use crate::node::client::cluster;
use crate::node::proxy_env;
use crate::text::{timestamp, unix_seconds};
use anyhow::Result;
use std::time::{Duration, SystemTime};

/// A clock that is this close needs no setting: a `Date` has whole seconds, and the answer took its time.
const CLOSE: u64 = 5;
/// A verified time is kept when it is this far, in seconds, from the one that is kept. The floor only has to be late
/// enough for certificates, so ten minutes lose nothing, and a device that starts every few minutes does not wear its
/// flash.
const KEEP: u64 = 600;
/// An image that is older than this joins nothing any more, seconds.
const AGE: u64 = 20 * 365 * 24 * 3600;

/// The last verified time, seconds since 1970; 0 when there is none.
fn kept(host: &Host) -> Result<u64> {
    let bytes = host.read_kept(VERIFIED_TIME.path).bytes.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0))
}

/// The earliest time that it can be: the later of the image's build time and the last verified time.
pub fn floor(host: &Host, image: &ImageInfo) -> Result<SystemTime> {
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(image.build_time.max(kept(host)?)))
}

/// Sets the clock to the floor when it is behind it.
pub fn raise_to_floor(host: &Host, image: &ImageInfo) -> Result<()> {
    let floor = floor(host, image)?;
    if host.now() < floor {
        host.set_clock(floor)?;
    }
    Ok(())
}

/// Believes the time of an API server that has proven itself: sets the clock by it and keeps it as the new floor.
/// Returns by how many seconds the clock was moved; 0 when it was close.
///
/// # Errors
/// A cluster fault when it is before the image's build time, or [`AGE`] after it: then the server's clock is wrong, or
/// the sender is not the server.
pub fn accept_server_time(host: &Host, image: &ImageInfo, time: SystemTime) -> Result<i64, Fault> {
    let (reported, now) = (unix_seconds(time), unix_seconds(host.now()));
    if reported < image.build_time {
        let (reported, built) = (timestamp(reported), timestamp(image.build_time));
        let text = format!("take the time from the API server: it says {reported}, but this image was built {built}");
        return Err(Fault::new(Code::ClusterTime, text));
    }
    if reported > image.build_time.saturating_add(AGE) {
        let built = timestamp(image.build_time);
        let text =
            format!("take the time from the API server: it is more than 20 years after this image was built, {built}");
        return Err(Fault::new(Code::ClusterTime, text));
    }
    let far = reported.abs_diff(now) > CLOSE;
    if far {
        host.set_clock(time).owned_by(Owner::Host)?;
    }
    let keep = || -> Result<()> {
        // An earlier one is kept as well: the one before it came from a server whose clock was ahead.
        if reported.abs_diff(kept(host)?) >= KEEP {
            host.keep(VERIFIED_TIME, format!("{reported}\n").as_bytes())?;
        }
        Ok(())
    };
    // A disk that takes no writes costs the floor of the next boot, not the time of this one.
    if let Err(error) = keep()
        && host.first_time("verified time")
    {
        host.sys().say(&format!("firstboot: verified time not kept: {error:#}"));
    }
    Ok(if far { reported as i64 - now as i64 } else { 0 })
}

/// Compares a joined device's clock with the cluster's, beside kubelet: tries until the API server answers, for a link
/// may come late, and says something only when the clock was wrong or the server does not answer.
///
/// # Errors
/// A host fault when kubelet's files cannot be read.
pub fn compare(host: &Host, image: &ImageInfo) -> Result<(), Fault> {
    compare_with(host, image, &mut || ())
}

/// [`compare`], with something else to do after each try that came to nothing.
///
/// # Errors
/// As [`compare`].
pub(crate) fn compare_with(host: &Host, image: &ImageInfo, beside: &mut dyn FnMut()) -> Result<(), Fault> {
    let mut tries = 0;
    let mut reported = String::new();
    loop {
        let fault = match once(host, image) {
            Ok(by) => {
                report_change(host, by);
                return Ok(());
            }
            Err(fault) if fault.owner() == Owner::Cluster => fault,
            Err(fault) => return Err(fault),
        };
        if reported != fault.to_string() {
            host.sys().say(&format!("firstboot: clock not compared ({}): {fault}; it keeps trying", fault.tag()));
            reported = fault.to_string();
        }
        beside();
        host.sys().sleep(backoff(tries, host.sys().random()));
        tries += 1;
    }
}

/// Says that the clock was moved, if it was.
pub(crate) fn report_change(host: &Host, by: i64) {
    if by != 0 {
        let now = timestamp(unix_seconds(host.now()));
        host.sys().say(&format!("firstboot: clock moved by {by:+} s to {now}, the cluster's time"));
    }
}

/// One try of [`compare`]; by how many seconds the clock was moved.
pub(crate) fn once(host: &Host, image: &ImageInfo) -> Result<i64, Fault> {
    // Whatever else sets clocks on this device (NTP is not authenticated) may have gone below it.
    raise_to_floor(host, image).owned_by(Owner::Host)?;
    let (server, ca) = cluster(host).coded(Code::NodeCredential)?;
    let via = proxy_env::kept(host).owned_by(Owner::Host)?;
    accept_server_time(host, image, server_time(&via, &server, &ca)?)
}

/// The NTP client that firstboot configures.
pub(crate) const NTP_UNIT: &str = "systemd-timesyncd.service";

/// Whether this image has the NTP client that firstboot configures.
pub(crate) fn has_timesyncd(host: &Host) -> Result<bool> {
    Ok(host.size_and_mode(&format!("/usr/lib/systemd/system/{NTP_UNIT}"))?.is_some())
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod wire_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Fake, Recorded};
    use crate::paths::KUBELET_CONF;
    use std::rc::Rc;

    fn device(dir: &std::path::Path) -> (Host, Rc<Recorded>, ImageInfo) {
        let (fake, seen) = Fake::new();
        let image = ImageInfo { build_time: 10_000, ..ImageInfo::for_tests() };
        (Host::open(dir, Box::new(fake)).unwrap(), seen, image)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_clock_is_lifted_to_the_floor_and_never_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen, image) = device(dir.path());
        seen.clock.set(Some(at(5)));
        raise_to_floor(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(10_000)));
        accept_server_time(&host, &image, at(30_000)).unwrap();
        seen.clock.set(Some(at(5)));
        raise_to_floor(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(30_000)));
        seen.clock.set(Some(at(40_000)));
        raise_to_floor(&host, &image).unwrap();
        assert_eq!(seen.clock.get(), Some(at(40_000)));
    }

    #[test]
    fn a_verified_time_moves_the_clock_either_way_but_not_below_the_build_time() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen, image) = device(dir.path());
        seen.clock.set(Some(at(20_000)));
        assert_eq!(accept_server_time(&host, &image, at(90_000)).unwrap(), 70_000);
        assert_eq!(accept_server_time(&host, &image, at(50_000)).unwrap(), -40_000);
        assert_eq!(seen.clock.get(), Some(at(50_000)));
        // The later one was wrong: it does not come back at the next boot.
        assert_eq!(floor(&host, &image).unwrap(), at(50_000));
        let fault = accept_server_time(&host, &image, at(9_999)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "take the time from the API server: it says 1970-01-01T02:46:39Z, but this image was built \
             1970-01-01T02:46:40Z"
        );
        assert_eq!((fault.code, seen.clock.get()), (Code::ClusterTime, Some(at(50_000))));
        let fault = accept_server_time(&host, &image, at(10_000 + AGE + 1)).unwrap_err();
        let text = "take the time from the API server: it is more than 20 years after this image was built, \
                    1970-01-01T02:46:40Z";
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::ClusterTime, text));
    }

    #[test]
    fn a_clock_that_is_right_is_left_alone_and_nothing_is_written_for_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen, image) = device(dir.path());
        seen.clock.set(Some(at(20_004)));
        assert_eq!(accept_server_time(&host, &image, at(20_000)).unwrap(), 0);
        assert_eq!(seen.clock.get(), Some(at(20_004)));
        // The clock is set, and nothing else.
        seen.fuse.set(Some(1));
        assert_eq!(accept_server_time(&host, &image, at(20_599)).unwrap(), 595);
        seen.fuse.set(Some(1));
        assert_eq!(accept_server_time(&host, &image, at(20_600)).unwrap(), 0);
        let said = seen.lines.take().pop().unwrap();
        assert!(said.starts_with("firstboot: verified time not kept: "), "{said}");
        assert!(said.ends_with(": power lost before /var/lib/firstboot/verified-time.copy"), "{said}");
    }

    #[test]
    fn a_device_without_kubelets_files_says_which_one() {
        let dir = tempfile::tempdir().unwrap();
        let (host, _, image) = device(dir.path());
        let fault = compare(&host, &image).unwrap_err();
        assert_eq!(
            (fault.code, fault.to_string().as_str()),
            (Code::NodeCredential, "find /etc/kubernetes/kubelet.conf")
        );
        host.write(KUBELET_CONF, b"kind: Config\n", 0o600).unwrap();
        let fault = compare(&host, &image).unwrap_err();
        assert_eq!(fault.to_string(), "read /etc/kubernetes/kubelet.conf: it names no cluster");
    }
}
