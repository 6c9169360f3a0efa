// SPDX-License-Identifier: Apache-2.0
//! Whose validity dates count: those of the certificates between the server and the CA, not of whatever else the
//! server sends.

use super::*;
use crate::kube::clock::server_time;

/// Asks a server that sends these certificates for its time, which is 2026-11-22T16:31:48Z.
fn ask(ca: &Ca, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<SystemTime, String> {
    let (at, _) = serve_chain(TcpListener::bind("127.0.0.1:0").unwrap(), chain, key, ok_json("{}"));
    let time = server_time(&Via::default(), &format!("https://{at}"), &ca.pem);
    time.map_err(|fault| fault.to_string().replace(&at.to_string(), "HOST"))
}

fn copy(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).unwrap()
}

#[test]
fn certificates_beside_the_path_may_have_any_dates() {
    // The cluster's CA, once cross-signed by an older one: that certificate is sent as well.
    let key = KeyPair::generate().unwrap();
    let (ca, old) = (Ca::named("kubernetes", copy(&key)), Ca::named("old", KeyPair::generate().unwrap()));
    for (from, until) in [(2000, 2001), (2020, 2090), (2080, 2090)] {
        let (leaf, leaf_key) = ca.leaf("127.0.0.1", 2020, 2030);
        let cross = old.sign_ca("kubernetes", &key, from, until);
        assert!(ask(&ca, vec![leaf, cross], &leaf_key).is_ok(), "{from} {until}");
    }
}

#[test]
fn certificates_on_the_path_must_be_valid_at_the_servers_time() {
    let ca = Ca::new();
    let below = |years: (i32, i32), leaf_years: (i32, i32)| {
        let key = KeyPair::generate().unwrap();
        let intermediate = ca.sign_ca("below", &key, years.0, years.1);
        let (leaf, leaf_key) = Ca::named("below", key).leaf("127.0.0.1", leaf_years.0, leaf_years.1);
        ask(&ca, vec![leaf, intermediate], &leaf_key)
    };
    assert!(below((2020, 2030), (2025, 2028)).is_ok());
    let expired = "certificate of API server HOST has expired at its own time, 2026-11-22T16:31:48Z";
    let early = "certificate of API server HOST is not yet valid at its own time, 2026-11-22T16:31:48Z";
    assert_eq!(below((2020, 2022), (2020, 2090)).unwrap_err(), format!("intermediate {expired}"));
    assert_eq!(below((2020, 2090), (2020, 2022)).unwrap_err(), expired);
    assert_eq!(below((2030, 2040), (2020, 2090)).unwrap_err(), format!("intermediate {early}"));
    assert_eq!(below((2020, 2090), (2030, 2040)).unwrap_err(), early);
    // At no time is all of it valid.
    let never = below((2020, 2022), (2024, 2090)).unwrap_err();
    assert_eq!(never, "intermediate certificate of API server HOST has expired");
}

#[test]
fn the_ca_must_be_valid_at_the_servers_time() {
    for (from, until, what) in [(2020, 2022, "has expired"), (2030, 2040, "is not yet valid")] {
        let ca = Ca::within(from, until);
        let (leaf, key) = ca.leaf("127.0.0.1", 2020, 2090);
        let want = format!("CA certificate of API server HOST {what} at its own time, 2026-11-22T16:31:48Z");
        assert_eq!(ask(&ca, vec![leaf], &key).unwrap_err(), want);
    }
    // The same CA, renewed: one valid certificate is enough, in either order.
    let key = KeyPair::generate().unwrap();
    let old = Ca {
        pem: ca_params("kubernetes", 2020, 2022).self_signed(&key).unwrap().pem(),
        ..Ca::named("kubernetes", copy(&key))
    };
    let new = Ca::named("kubernetes", key);
    for bundle in [format!("{}{}", old.pem, new.pem), format!("{}{}", new.pem, old.pem)] {
        let (leaf, key) = new.leaf("127.0.0.1", 2020, 2090);
        let both = Ca { pem: bundle, ..Ca::named("kubernetes", KeyPair::generate().unwrap()) };
        assert!(ask(&both, vec![leaf], &key).is_ok());
    }
}
