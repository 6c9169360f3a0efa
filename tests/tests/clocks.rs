// SPDX-License-Identifier: Apache-2.0
//! Clocks that are wrong, and names that the hardware does not give: the real kube-apiserver asked natively, and two
//! devices whose clock chip is far off, each switched on twice. Boots 2 guests, 4 times.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use e2e::{OFF, SOON, add_script, boot_id, device_options, own_arch, ready_again, remove_script};
use firstboot::clock::{accept_server_time, compare, floor};
use firstboot::fault::Owner;
use firstboot::host::Host;
use firstboot::host::fake::Fake;
use firstboot::image::ImageInfo;
use firstboot::kube::clock::{endpoint_time, server_time};
use firstboot::kube::kubeconfig::kubelet_conf;
use firstboot::paths::CA_FILE;
use firstboot::paths::KUBELET_CONF;
use firstboot::proxy::Via;
use firstboot::seed::{CaPin, Cluster, Endpoint, JoinToken, Trust};
use firstboot::text::{timestamp, unix_seconds};
use qemu::control_plane::{ControlPlane, Options};
use qemu::device::Device;
use qemu::disk::DiskImage;
use qemu::scenario;
use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;

fn now() -> u64 {
    unix_seconds(SystemTime::now())
}

fn image(build_time: u64) -> ImageInfo {
    ImageInfo { build_time, ..ImageInfo::for_tests() }
}

#[test]
fn time_is_taken_only_from_an_authenticated_api_server() {
    let plane = ControlPlane::start(&Options::without_addons()).unwrap();
    let (at, ca) = (plane.endpoint_for_host(), plane.ca_pem().unwrap());
    let server = format!("https://{at}");
    let root = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let host = Host::open(root.path(), Box::new(fake)).unwrap();
    host.write(KUBELET_CONF, kubelet_conf(&server, &ca).as_bytes(), 0o600).unwrap();
    host.write(CA_FILE, ca.as_bytes(), 0o644).unwrap();
    // A token that is signed says that the controllers are up, and outlive a restart of their server.
    plane.create_token("1h").unwrap();
    plane.renew_serving_certificate().unwrap();

    // The device was off while the certificate was renewed, and its clock goes on where it stopped; then it is two
    // years ahead. One anonymous request each.
    let built = image(now() - 90 * DAY);
    let set = |seconds: u64| seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
    for wrong in [now() - 30 * DAY, now() + 730 * DAY] {
        let before = plane.audit().unwrap().len();
        set(wrong);
        compare(&host, &built).unwrap();
        let right = unix_seconds(seen.clock.get().unwrap());
        assert!(right.abs_diff(now()) <= 5, "{}", timestamp(right));
        let line = seen.lines.take().pop().unwrap();
        assert_eq!(
            line,
            format!(
                "firstboot: clock moved by {:+} s to {}, the cluster's time",
                right as i64 - wrong as i64,
                timestamp(right)
            )
        );
        assert!(unix_seconds(floor(&host, &built).unwrap()).abs_diff(right) < 600);
        let asked: Vec<String> = plane
            .audit()
            .unwrap()
            .into_iter()
            .skip(before)
            .filter(|e| e.user_agent.starts_with("firstboot/"))
            .map(|e| format!("{} {}", e.user.username, e.request_uri))
            .collect();
        assert_eq!(asked, ["system:anonymous /version"]);
    }

    // Another CA, a wrong pin, an image from the future: each is refused, and nothing moves.
    let other = std::fs::read_to_string(plane.path().join("pki/front-proxy-ca.crt")).unwrap();
    let refused = |fault: firstboot::fault::Fault| {
        assert_eq!(fault.owner(), Owner::Cluster);
        fault.to_string()
    };
    let text = refused(server_time(&Via::default(), &server, &other).unwrap_err());
    assert_eq!(text, format!("certificate of API server {at} is not signed by the cluster's CA"));
    let endpoint = Endpoint::parse(&at).unwrap();
    let pin = plane.ca_pin().unwrap();
    let token = JoinToken::parse(&plane.create_token("1h").unwrap()).unwrap();
    let by = |pin: CaPin| {
        let (apiserver, trust) = (vec![endpoint.clone()], Trust::Pins(vec![pin]));
        let cluster = Cluster {
            apiserver,
            token: token.clone(),
            trust,
            token_expires: None,
            certificate_key: None,
            virtual_ip: None,
        };
        endpoint_time(&cluster, &Via::default(), &endpoint)
    };
    let text = refused(by(CaPin([7; 32])).unwrap_err());
    assert_eq!(text, format!("CA of the cluster at {at} does not match ca-cert-hashes: it is {pin}"));
    let time = by(CaPin::parse(&pin).unwrap()).unwrap();
    let wrong = now() + 10 * DAY;
    set(wrong);
    let text = refused(accept_server_time(&host, &image(wrong), time).unwrap_err());
    let (reported, built) = (timestamp(unix_seconds(time)), timestamp(wrong));
    let want = format!("take the time from the API server: it says {reported}, but this image was built {built}");
    assert_eq!((text, unix_seconds(seen.clock.get().unwrap())), (want, wrong));
}

/// An image that says it was built 60 days ago or some more: the same for all that ask in ten days, since each is built.
/// Its build time, too.
fn old_image() -> (DiskImage, u64) {
    let built = (now() - 60 * DAY) / (10 * DAY) * (10 * DAY);
    let path = qemu::image_built_at(&format!("generic-{}", own_arch()), built).unwrap();
    (DiskImage::open(&path).unwrap(), built)
}

/// Gives a device that was never on NTP servers that do not answer.
fn without_ntp(device: &Device) {
    let disk = device.disk();
    disk.prepare_data().unwrap();
    // 192.0.2.0/24 is for documentation: no host has such an address.
    let ntp = "[Time]\nNTP=192.0.2.1\nFallbackNTP=\n";
    disk.write_file("/etc/systemd/timesyncd.conf.d/90-unreachable.conf", ntp.as_bytes(), 0o644).unwrap();
}

/// By how many days the console says that the clock was moved; the time that it was moved to must be now.
fn moved_days(line: &str) -> i64 {
    let by: i64 = line.split("moved by ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let to = line.split(" s to ").nth(1).unwrap().split(',').next().unwrap();
    let minutes: Vec<String> = [now(), now() - 60].map(|t| timestamp(t)[..16].to_owned()).to_vec();
    assert!(minutes.iter().any(|m| to.starts_with(m.as_str())), "{line}");
    (by as f64 / DAY as f64).round() as i64
}

/// Name of the node that the console says is Ready.
fn joined(device: &Device) -> String {
    let line = device.wait_console(" is Ready, seed destroyed", SOON).unwrap();
    line.split(" is Ready").next().unwrap().rsplit(' ').next().unwrap().to_owned()
}

#[test]
#[ignore = "boots a guest"]
fn no_clock_chip_no_serial_number_and_a_certificate_renewed_while_it_was_off() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let mut options = device_options("");
    options.serial = None;
    options.clock = "1970-01-01T00:00:00".into();
    let (image, built) = old_image();
    let (mut device, _) = scenario::seeded(plane, &image, &options).unwrap();
    without_ntp(&device);
    device.power_on().unwrap();
    let line = device.wait_console("clock moved by ", SOON).unwrap();
    assert_eq!(moved_days(&line), ((now() - built) as f64 / DAY as f64).round() as i64);
    let node = joined(&device);
    // Neither a serial number nor a universally administered address: a name out of the machine-id.
    let digits = node.strip_prefix("edge-").unwrap();
    assert!(digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{node}");
    let before = boot_id(&plane.node(&node).unwrap().unwrap());
    device.power_off(OFF).unwrap();

    // It was last on 30 days ago; the clock chip shows 2000. The rest is looked at from inside.
    let aged = format!("{}\n", now() - 30 * DAY);
    device.disk().write_file("/var/lib/firstboot/verified-time", aged.as_bytes(), 0o600).unwrap();
    // systemd-timesyncd keeps a time of its own when it stops.
    device.disk().set_modified("/var/lib/systemd/timesync/clock", now() - 30 * DAY).unwrap();
    device.set_clock("2000-01-01T00:00:00");
    plane.renew_serving_certificate().unwrap();
    add_script(device.disk(), SCRIPT).unwrap();
    device.power_on().unwrap();
    let line = device.wait_console("clock moved by +25", SOON).unwrap();
    assert_eq!(moved_days(&line), 30);
    ready_again(plane, &device, &node, &before).unwrap();
    device.wait_console("test: no preflight error", SOON).unwrap();
    let line = device.wait_console("test: own time ", SOON).unwrap();
    println!("{line}");
    assert_eq!(device.console().count("clock moved by ").unwrap(), 2);
    device.power_off(OFF).unwrap();
    remove_script(device.disk()).unwrap();
    let kept = device.disk().read_file("/var/lib/firstboot/verified-time").unwrap().unwrap();
    let kept: u64 = String::from_utf8(kept).unwrap().trim().parse().unwrap();
    assert!(kept.abs_diff(now()) < 1800, "{}", timestamp(kept));
}

/// The preflight checks, once kubelet runs; and what a comparison costs this device itself, once the clock is right.
const SCRIPT: &str = r#"
until firstboot preflight >/run/preflight; do grep ERROR /run/preflight; sleep 5; done
cat /run/preflight
echo "test: no preflight error"
until [ "$(systemctl is-active firstboot)" = inactive ]; do sleep 1; done
TIMEFORMAT="test: own time %U s user, %S s system, %R s in all"
time firstboot clock
"#;

#[test]
#[ignore = "boots a guest"]
fn a_clock_two_years_ahead_and_a_serial_number_that_says_nothing() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let mut options = device_options("To be filled by O.E.M.");
    options.clock = timestamp(now() + 730 * DAY)[..19].to_owned();
    let (mut device, _) = scenario::seeded(plane, &old_image().0, &options).unwrap();
    without_ntp(&device);
    device.power_on().unwrap();
    let line = device.wait_console("clock moved by -", SOON).unwrap();
    assert_eq!(moved_days(&line), -730);
    let node = joined(&device);
    assert!(node.len() == 17 && !node.contains("oem"), "{node}");
    let before = boot_id(&plane.node(&node).unwrap().unwrap());
    device.power_off(OFF).unwrap();

    // The node's certificate is good for a year: by this clock it has long expired, until the cluster is asked.
    device.power_on().unwrap();
    qemu::wait::until("the clock to be moved again", SOON, || {
        device.check()?;
        Ok((device.console().count("clock moved by -")? == 2).then_some(()))
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", device.report()));
    ready_again(plane, &device, &node, &before).unwrap();
    assert_eq!(device.console().count("waiting for a seed").unwrap(), 0);
    device.power_off(OFF).unwrap();
}
