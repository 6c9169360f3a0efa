// SPDX-License-Identifier: Apache-2.0
//! Who may move a joined device's clock, and where to: real TLS servers in this process, certificates made for each
//! case. The real kube-apiserver is asked in tests/tests/clocks.rs.

use super::{compare_with, floor, once};
use crate::fault::Owner;
use crate::host::Host;
use crate::host::fake::{Fake, Recorded};
use crate::image::ImageInfo;
use crate::kube::kubeconfig::kubelet_conf;
use crate::kube::wire_tests::{Ca, http, ok_json, serve, serve_on};
use crate::paths::CURRENT_PEM;
use crate::paths::{CA_FILE, KUBELET_CONF};
use crate::run::sealed::look_after;
use crate::seed::Endpoint;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// `Date` of [`ok_json`]: 2026-11-22T16:31:48Z.
const DATE: u64 = 1_795_365_108;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A device that trusts `ca`, whose kubelet talks to `server`, and whose clock shows `clock`.
struct Joined {
    host: Host,
    seen: Rc<Recorded>,
    image: ImageInfo,
    _root: tempfile::TempDir,
}

fn joined(ca: &Ca, server: &Endpoint, clock: u64) -> Joined {
    let root = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let host = Host::open(root.path(), Box::new(fake)).unwrap();
    host.write(KUBELET_CONF, kubelet_conf(&format!("https://{server}"), &ca.pem).as_bytes(), 0o600).unwrap();
    host.write(CA_FILE, ca.pem.as_bytes(), 0o644).unwrap();
    seen.clock.set(Some(at(clock)));
    let image = ImageInfo { build_time: DATE - 30 * DAY, ..ImageInfo::for_tests() };
    Joined { host, seen, image, _root: root }
}

impl Joined {
    /// One try: by how much the clock was moved, or why not.
    fn once(&self, server: &Endpoint) -> Result<i64, String> {
        once(&self.host, &self.image).map_err(|fault| {
            assert_eq!(fault.owner(), Owner::Cluster);
            fault.to_string().replace(&server.to_string(), "HOST")
        })
    }

    fn clock(&self) -> u64 {
        self.seen.clock.get().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }
}

#[test]
fn a_certificate_from_the_devices_future_sets_the_clock_either_way() {
    let ca = Ca::new();
    let server = serve(ca.leaf("127.0.0.1", 2026, 2027), ok_json("{}"));
    // Before the certificate began, as after a renewal while the device was off; in 1970; two years ahead.
    for (clock, floored) in
        [(DATE - 20 * DAY, DATE - 20 * DAY), (0, DATE - 30 * DAY), (DATE + 730 * DAY, DATE + 730 * DAY)]
    {
        let device = joined(&ca, &server, clock);
        assert_eq!(device.once(&server), Ok(DATE as i64 - floored as i64));
        assert_eq!(device.clock(), DATE);
        assert_eq!(floor(&device.host, &device.image).unwrap(), at(DATE));
        assert_eq!(device.once(&server), Ok(0));
    }
}

#[test]
fn a_refusal_tells_the_time_as_well() {
    let ca = Ca::new();
    let refusal = "401 Unauthorized\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 16:31:48 GMT";
    let server = serve(ca.leaf("127.0.0.1", 2020, 2090), http(refusal, "{}"));
    assert_eq!(joined(&ca, &server, DATE - 100).once(&server), Ok(100));
}

#[test]
fn who_is_not_the_cluster_moves_no_clock() {
    let (ca, other) = (Ca::new(), Ca::new());
    let cases = [
        (other.leaf("127.0.0.1", 2020, 2090), "certificate of API server HOST is not signed by the cluster's CA"),
        (
            ca.leaf("api.example.org", 2020, 2090),
            "certificate of API server HOST does not cover that address: it covers api.example.org",
        ),
        // A key that leaked long ago: its certificate was not valid at the time that it tells.
        (
            ca.leaf("127.0.0.1", 2020, 2022),
            "certificate of API server HOST has expired at its own time, 2026-11-22T16:31:48Z",
        ),
        (
            ca.leaf("127.0.0.1", 2030, 2032),
            "certificate of API server HOST is not yet valid at its own time, 2026-11-22T16:31:48Z",
        ),
    ];
    for (leaf, want) in cases {
        let server = serve(leaf, ok_json("{}"));
        let device = joined(&ca, &server, DATE + DAY);
        assert_eq!(device.once(&server), Err(want.to_owned()));
        assert_eq!(device.clock(), DATE + DAY);
        assert_eq!(floor(&device.host, &device.image).unwrap(), at(device.image.build_time));
    }
}

#[test]
fn times_that_cannot_be_are_refused() {
    let ca = Ca::new();
    let server = serve(ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
    let mut device = joined(&ca, &server, DATE + 90 * DAY);
    device.image.build_time = DATE + 1;
    let want = "take the time from the API server: it says 2026-11-22T16:31:48Z, but this image was built \
                2026-11-22T16:31:49Z";
    assert_eq!(device.once(&server), Err(want.to_owned()));
    assert_eq!(device.clock(), DATE + 90 * DAY);

    let server = serve(ca.leaf("127.0.0.1", 2020, 2090), http("200 OK", "{}"));
    let device = joined(&ca, &server, DATE);
    assert_eq!(device.once(&server), Err("read the time of API server HOST: its answer has no Date".to_owned()));
}

/// A device whose own certificate is valid in the years `from` to `until`.
fn with_certificate(device: &Joined, ca: &Ca, from: i32, until: i32) {
    let (certificate, key) = ca.leaf("node", from, until);
    let pem = pem(&certificate) + &key.serialize_pem();
    device.host.write(CURRENT_PEM, pem.as_bytes(), 0o600).unwrap();
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

#[test]
fn a_certificate_is_judged_after_the_clock() {
    let ca = Ca::new();
    let server = serve(ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
    let judged = |clock: u64, until: i32| {
        let device = joined(&ca, &server, clock);
        with_certificate(&device, &ca, 2020, until);
        let lost = look_after(&device.host, &device.image, &|_| Ok(()), &mut || ()).unwrap();
        assert_eq!(device.clock(), DATE);
        lost.map(|lost| lost.why)
    };
    // Two years ahead of the cluster a good certificate looks expired; behind it an expired one looks good.
    assert_eq!(judged(DATE + 730 * DAY, 2027), None);
    let want = format!("use {CURRENT_PEM}: its certificate expired at 2026-01-01T00:00:00Z");
    assert_eq!(judged(DATE - 400 * DAY, 2026), Some(want));
}

#[test]
fn a_device_that_cannot_ask_yet_is_not_lost_for_good() {
    let ca = Ca::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Endpoint { host: address.ip().to_string(), port: address.port() };
    let device = joined(&ca, &server, DATE + 730 * DAY);
    with_certificate(&device, &ca, 2020, 2027);
    let lost = look_after(&device.host, &device.image, &|_| Ok(()), &mut || ()).unwrap();
    let mut lost = lost.unwrap_or_else(|| panic!("no server was asked"));
    serve_on(TcpListener::bind(address).unwrap(), ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
    // It waited five minutes for the link; from then on it asks less and less often, and not before its time.
    assert_eq!(device.host.sys().uptime(), Duration::from_secs(300));
    assert!(!lost.regained(&device.host, &device.image).unwrap());
    device.host.sys().sleep(Duration::from_secs(300));
    assert!(lost.regained(&device.host, &device.image).unwrap());
    assert_eq!(device.clock(), DATE);
}

#[test]
fn it_keeps_trying_until_the_link_is_there_and_says_so_once() {
    let ca = Ca::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Endpoint { host: address.ip().to_string(), port: address.port() };
    let device = joined(&ca, &server, DATE - 3600);
    let mut tries = 0;
    let mut link = || {
        tries += 1;
        if tries == 3 {
            serve_on(TcpListener::bind(address).unwrap(), ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
        }
    };
    compare_with(&device.host, &device.image, &mut link).unwrap();
    assert_eq!(tries, 3);
    let lines = device.seen.lines.take();
    let want = [
        format!(
            "firstboot: clock not compared (cluster, FB407): connect to API server {server}: connection refused; it keeps trying"
        ),
        "firstboot: clock moved by +3600 s to 2026-11-22T16:31:48Z, the cluster's time".to_owned(),
    ];
    assert_eq!((lines.first(), lines.last()), (want.first(), want.last()));
    assert_eq!(lines.iter().filter(|l| **l == want[0]).count(), 1);
}
