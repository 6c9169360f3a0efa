// SPDX-License-Identifier: Apache-2.0
//! Which of a cluster's addresses leads to it.

use firstboot::kube::files::{Content, files};
use firstboot::paths::KUBELET_CONF;
use qemu::control_plane::config::Family;
use qemu::control_plane::{ControlPlane, Options};

use super::bench::*;
use e2e::native::cluster::publish_server;

pub fn certificate_that_does_not_cover_the_address(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let elsewhere = relay(plane, "127.0.0.2").unwrap();
    let text = refused(&pinned(&elsewhere, &token, &plane.ca_pin().unwrap()), "not-covered");
    let covered = text
        .strip_prefix(&format!("FB413: certificate of API server {elsewhere} does not cover that address: it covers "));
    let mut names: Vec<&str> = covered.unwrap_or_else(|| panic!("{text}")).split(", ").collect();
    names.sort_unstable();
    for name in ["10.0.2.2", "10.96.0.1", "127.0.0.1", "kubernetes.default.svc.cluster.local", "localhost"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert_no_trace(plane, "not-covered", &token);
}

pub fn refused_connection_then_the_next_server(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    let closed = format!("127.0.0.1:{}", qemu::ports::free().unwrap());
    let text = refused(&pinned(&closed, &token, &pin), "refused");
    assert_eq!(text, format!("FB407: connect to API server {closed}: connection refused"));
    assert_no_trace(plane, "refused", &token);
    // In order: the first two fail, each for its own cause, and the third serves.
    let elsewhere = relay(plane, "127.0.0.2").unwrap();
    let list =
        |all: &[&str]| pinned_text(&all.join("\", \""), &token, &pin).replacen("apiserver = \"", "apiserver = [\"", 1);
    let text = |all: &[&str]| list(all).replacen("\"\ntoken", "\"]\ntoken", 1);
    let reported = refused(&seed_of(&text(&[&closed, &elsewhere])), "refused");
    let (first, second) = reported.split_once("; ").unwrap();
    assert_eq!(first, format!("FB407: connect to API server {closed}: connection refused"));
    assert!(second.starts_with(&format!("certificate of API server {elsewhere} does not cover")), "{second}");
    let joined = Bench::default().join(&seed_of(&text(&[&closed, &elsewhere, &endpoint])), "refused").unwrap();
    assert_eq!(joined.server, format!("https://{endpoint}"));
}

/// cluster-info names an address that cannot be reached from here, as behind a NAT.
pub fn seeds_server_is_kept_when_the_clusters_own_fails(plane: &ControlPlane) {
    let own = "255.255.255.255:6443";
    publish_server(plane, own).unwrap();
    let (_, seed) = good(plane);
    let mut device = Bench::default();
    let joined = device.join(&seed, "behind-nat");
    publish_server(plane, &plane.endpoint_for_host()).unwrap();
    let (joined, seeds) = (joined.unwrap(), plane.endpoint_for_host());
    assert_eq!(
        device.reported,
        [format!(
            "keeping API server {seeds} of the seed, as cluster-info's own failed: connect to API server {own}: network \
             unreachable"
        )]
    );
    let all = files(&joined, &device.kubelets_key(), &seed, "behind-nat", device.now);
    let conf = all.into_iter().find(|f| f.path == KUBELET_CONF).unwrap();
    let Content::File(text, _) = &conf.content else { panic!("{KUBELET_CONF} is no file") };
    let text = String::from_utf8(text.to_vec()).unwrap();
    let servers: Vec<&str> = text.lines().filter(|l| l.contains("server: ")).map(str::trim).collect();
    assert_eq!(servers, [format!("server: https://{seeds}")]);
    assert_eq!(device.node_client(&joined).node().unwrap(), None);
}

/// A cluster whose API server, Services and pods have IPv6 addresses only.
pub fn ipv6() {
    let options = Options { family: Family::V6, ..Options::without_addons() };
    let plane = ControlPlane::start(&options).unwrap();
    let endpoint = plane.endpoint_for_host();
    assert!(endpoint.starts_with("[::1]:"), "{endpoint}");
    publish_server(&plane, &endpoint).unwrap();
    let (_, seed) = good(&plane);
    let mut device = Bench::default();
    let joined = device.join(&seed, "six").unwrap();
    assert_eq!((joined.server.clone(), device.reported.len()), (format!("https://{endpoint}"), 0));
    assert_eq!(device.node_client(&joined).node().unwrap(), None);
    let services = plane.get(&["service", "kubernetes"]).unwrap();
    assert_eq!(services["spec"]["clusterIPs"], serde_json::json!(["fd00:96::1"]));
    let closed = format!("[::1]:{}", qemu::ports::free().unwrap());
    let token = plane.create_token("1h").unwrap();
    let text = refused(&pinned(&closed, &token, &plane.ca_pin().unwrap()), "six-refused");
    assert_eq!(text, format!("FB407: connect to API server {closed}: connection refused"));
}
