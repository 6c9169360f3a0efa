// SPDX-License-Identifier: Apache-2.0
//! Certificates from a stranger: pins and dates as another library reads them; a chain is accepted only when the CA
//! signed it, by its dates only, whichever way they are judged. PKI of its own in fuzz/pki: certificates, no keys.
//!
//! Input: one byte of flags, four of a time (Unix seconds, little endian), then certificates, leaf first: PEM text (flag
//! 1), or DER, each after its length (two bytes, little endian).

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use firstboot::kube::tls::{PinnedCa, Validity, dates};
use firstboot::kube::{pin, tls};
use firstboot::seed::CaPin;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use x509_cert::der::{Decode, Encode};

const PEM: u8 = 1;
/// The certificates themselves are trusted, not the CA of fuzz/pki.
const TRUST_INPUT: u8 = 2;

const CA: &str = include_str!("../pki/ca.pem");
/// Those that [`CA`] vouches for, by itself or through `intermediate`.
const GENUINE: [&str; 4] = [
    include_str!("../pki/leaf.pem"),
    include_str!("../pki/under.pem"),
    include_str!("../pki/expired.pem"),
    include_str!("../pki/rsa.pem"),
];

/// What is signed of a certificate.
fn signed_part(der: &[u8]) -> Option<Vec<u8>> {
    x509_cert::Certificate::from_der(der).ok()?.tbs_certificate.to_der().ok()
}

fn genuine() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |pem: &&str| pin::certificates(pem).and_then(|all| signed_part(&all[0])).expect("a certificate");
        GENUINE.iter().map(read).collect()
    })
}

fn chain(flags: u8, mut rest: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    if flags & PEM != 0 {
        return pin::certificates(std::str::from_utf8(rest).ok()?);
    }
    let mut all = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk() {
        let (der, tail) = tail.split_at(usize::from(u16::from_le_bytes(*len)).min(tail.len()));
        all.push(CertificateDer::from(der.to_vec()));
        rest = tail;
    }
    (!all.is_empty()).then_some(all)
}

pub fn run(input: &[u8]) {
    let Some((&[flags, a, b, c, d], rest)) = input.split_first_chunk() else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u32::from_le_bytes([a, b, c, d]).into());
    let Some(chain) = chain(flags, rest) else { return };
    for certificate in &chain {
        one(certificate);
    }
    served(flags, &chain, now);
}

/// Pin and dates of one certificate.
fn one(certificate: &CertificateDer<'static>) {
    let pin = pin::pin_of(certificate);
    if let (Some(pin), Ok(parsed)) = (pin, ParsedCertificate::try_from(certificate)) {
        let key: [u8; 32] = Sha256::digest(parsed.subject_public_key_info()).into();
        assert_eq!(pin, CaPin(key), "the pin is not that of the key");
        assert_eq!(CaPin::parse(&pin.to_string()), Ok(pin));
    }
    let some = std::slice::from_ref(certificate);
    assert_eq!(pin::pinned(some, &[CaPin([0; 32])]).len(), 0);
    assert_eq!(pin::pinned(some, &pin.into_iter().collect::<Vec<_>>()).len(), usize::from(pin.is_some()));
    assert!(dates(certificate).is_none() || pin.is_some(), "half of it can be read");
}

/// The chain as a server shows it.
fn served(flags: u8, chain: &[CertificateDer<'static>], now: SystemTime) {
    let trusted = match flags & TRUST_INPUT != 0 {
        true => chain.to_vec(),
        false => pin::certificates(CA).expect("a certificate"),
    };
    let name = ServerName::try_from("api.example").expect("a name");
    let (leaf, others) = (&chain[0], &chain[1..]);
    let accepts =
        |ca: &PinnedCa| ca.verify_server_cert(leaf, others, &name, &[], UnixTime::since_unix_epoch(Duration::ZERO));
    let ca = PinnedCa::new(trusted.clone(), Validity::SetAside);
    assert!(ca.settle(trusted.clone(), now).is_err(), "no server was accepted, so there is none to judge");
    let judged = accepts(&PinnedCa::new(trusted.clone(), Validity::Server(now, Instant::now())));
    if accepts(&ca).is_err() {
        assert!(judged.is_err(), "dates set aside refuse what dates accept");
        return;
    }
    if flags & TRUST_INPUT == 0 {
        let part = signed_part(leaf).expect("an accepted certificate can be read");
        assert!(genuine().contains(&part), "accepted, although the CA did not sign it");
    }
    let settled = ca.settle(trusted, now);
    assert_eq!(settled.is_ok(), judged.is_ok(), "dates are judged in two ways: {settled:?} {judged:?}");
    assert!(tls::dates(leaf).is_some(), "an accepted certificate has dates");
}
