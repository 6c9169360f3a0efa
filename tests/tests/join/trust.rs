// SPDX-License-Identifier: Apache-2.0
//! Whether the cluster is the seed's, and whether the token is the cluster's.

use std::time::{Duration, SystemTime};

use qemu::control_plane::ControlPlane;
use serde_json::Value;

use super::bench::*;

/// With the CA in the seed, one request has no token: it reads the time of a server that has proven itself.
pub fn ca_in_the_seed_reads_the_time_without_the_token(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let before = plane.audit().unwrap().len();
    Bench::default().join(&with_ca(plane, &token), "by-ca").unwrap();
    let all = requests(plane, before);
    // Once by the join worker, once by the privileged part.
    assert_eq!(all[..2], ["system:anonymous get /version"; 2], "{all:?}");
    assert!(all[2..6].iter().all(|r| r.starts_with("system:bootstrap:")), "{all:?}");
    assert!(all[6..].iter().all(|r| r.starts_with("system:node:by-ca ")), "{all:?}");
    assert_eq!(all.len(), 9, "{all:?}");
}

pub fn wrong_ca_hash(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let endpoint = plane.endpoint_for_host();
    let before = plane.audit().unwrap().len();
    let text = refused(&pinned(&endpoint, &token, &format!("sha256:{}", "0".repeat(64))), "wrong-pin");
    let pin = plane.ca_pin().unwrap();
    assert_eq!(text, format!("FB418: CA of the cluster at {endpoint} does not match ca-cert-hashes: it is {pin}"));
    assert_no_trace(plane, "wrong-pin", &token);
    let all = requests(plane, before);
    assert!(all.iter().all(|r| r.starts_with("system:anonymous get ")), "{all:?}");
}

const NEVER: &str = "zzzzzz.q7w2e9r4t1y6u8i3";
const UNKNOWN: &str = "FB420: join token \"zzzzzz\" is unknown to the cluster (no JWS signature for it in cluster-info): \
                       it may have expired, or never existed";

pub fn unknown_token(plane: &ControlPlane) {
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    assert_eq!(refused(&pinned(&endpoint, NEVER, &pin), "no-token"), UNKNOWN);
    assert_no_trace(plane, "no-token", NEVER);
}

/// Whether the seed's `token-expires` has passed is decided by the cluster's clock, not by the device's.
pub fn expired_token_by_the_clusters_clock(plane: &ControlPlane) {
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    let until = |pin: &str, time: &str| {
        let text = pinned_text(&endpoint, NEVER, pin);
        seed_of(&format!("{text}token-expires = {time}\n"))
    };
    let at = |year: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600);
    let reported = |now: SystemTime, seed| {
        let mut device = Bench { now, ..Bench::default() };
        let (code, text) = device.fails(&seed, "expired");
        format!("{code}: {text}")
    };
    let expired = "FB421: join token \"zzzzzz\" is unknown to the cluster (no JWS signature for it in cluster-info): it expired \
                   at 2020-01-01T00:00:00Z";
    for own_clock in [at(1970), SystemTime::now(), at(2090)] {
        assert_eq!(reported(own_clock, until(&pin, "2020-01-01T00:00:00Z")), expired);
        assert_eq!(reported(own_clock, until(&pin, "2080-01-01T00:00:00Z")), UNKNOWN);
        // A server that cannot prove itself has no clock that counts.
        let other = format!("sha256:{}", "0".repeat(64));
        assert_eq!(reported(own_clock, until(&other, "2020-01-01T00:00:00Z")), UNKNOWN);
    }
    assert_no_trace(plane, "expired", NEVER);
}

pub fn wrong_token_secret(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let endpoint = plane.endpoint_for_host();
    let wrong = format!("{}.q7w2e9r4t1y6u8i3", id(&token));
    let text = refused(&pinned(&endpoint, &wrong, &plane.ca_pin().unwrap()), "wrong-secret");
    let want = format!(
        "FB419: JWS signature of cluster-info does not match join token \"{}\": its secret is not the cluster's, or \
         {endpoint} is an impostor",
        id(&token)
    );
    assert_eq!(text, want);
    assert_no_trace(plane, "wrong-secret", &token);
}

/// Discovery succeeds, the first request with the token does not.
pub fn token_that_signs_but_does_not_authenticate(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let secret = format!("bootstrap-token-{}", id(&token));
    let patch = r#"{"stringData":{"usage-bootstrap-authentication":"false"}}"#;
    plane.kubectl(&["-n", "kube-system", "patch", "secret", &secret, "--type=merge", "-p", patch]).unwrap();
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    // The API server takes the change from its own watch, a moment later.
    let want = format!(
        "FB420: join token \"{}\" is refused by the cluster (401): it may have expired, or lacks usage authentication",
        id(&token)
    );
    qemu::wait::until("the token to be refused", Duration::from_secs(10), || {
        let mut device = Bench { kubelet: "1.99.0", ..Bench::default() };
        let (code, text) = device.fails(&pinned(&endpoint, &token, &pin), "no-auth");
        Ok((format!("{code}: {text}") == want).then_some(()))
    })
    .unwrap();
    assert_eq!(refused(&pinned(&endpoint, &token, &pin), "no-auth"), want);
    let text = format!("{}token-expires = 2020-01-01T00:00:00Z\n", pinned_text(&endpoint, &token, &pin));
    let text = refused(&seed_of(&text), "no-auth");
    let want = format!(
        "FB421: join token \"{}\" is refused by the cluster (401): it expired at 2020-01-01T00:00:00Z",
        id(&token)
    );
    assert_eq!(text, want);
    assert_no_trace(plane, "no-auth", &token);
}

pub fn cluster_info_that_is_not_published(plane: &ControlPlane) {
    let (token, seed) = good(plane);
    let binding = ["-n", "kube-public", "rolebinding", "kubeadm:bootstrap-signer-clusterinfo"];
    let mut kept: Value = plane.get(&binding).unwrap();
    plane.kubectl(&[&["delete"], &binding[..]].concat()).unwrap();
    let endpoint = plane.endpoint_for_host();
    let want = format!(
        "FB422: cluster-info of {endpoint} may not be read without a credential (403): publish it with kubeadm init phase \
         bootstrap-token, or put ca-cert in place of ca-cert-hashes in seed.toml"
    );
    wait_access(plane, ANYBODY, "kube-public", "cluster-info", false);
    assert_eq!(refused(&seed, "closed"), want);
    assert_no_trace(plane, "closed", &token);
    // The remedy in the message is one.
    Bench::default().join(&with_ca(plane, &token), "closed").unwrap();
    kept["metadata"].as_object_mut().unwrap().retain(|key, _| key == "name" || key == "namespace");
    create(plane, &kept);
    wait_access(plane, ANYBODY, "kube-public", "cluster-info", true);
}
