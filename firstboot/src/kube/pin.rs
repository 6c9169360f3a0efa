// SPDX-License-Identifier: Apache-2.0
//! CA pins: SHA-256 over a certificate's DER SubjectPublicKeyInfo, as in `--discovery-token-ca-cert-hash`.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::certificate::Certificate;
use crate::seed::CaPin;

/// The pin of one certificate; none when it cannot be read.
pub fn pin_of(der: &[u8]) -> Option<CaPin> {
    Some(CaPin(Sha256::digest(Certificate::read(der)?.spki).into()))
}

/// All certificates of a PEM text; none when it holds none or a broken one.
pub fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// What of a CA bundle should be replaced although Kubernetes takes it, a sentence each.
pub fn weaknesses(pem: &str) -> Vec<String> {
    let all = certificates(pem).unwrap_or_default();
    let weakness = |der: &CertificateDer<'_>| Certificate::read(der)?.key.weakness();
    all.iter().filter_map(weakness).map(|why| format!("the cluster's CA certificate {why}")).collect()
}

/// Those of `certificates` that one of `pins` names.
pub fn pinned(certificates: &[CertificateDer<'static>], pins: &[CaPin]) -> Vec<CertificateDer<'static>> {
    certificates.iter().filter(|c| pin_of(c).is_some_and(|p| pins.contains(&p))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=t -days 36500`; the pin is
    /// `openssl x509 -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum`.
    const CERTIFICATE: &str = "\
        -----BEGIN CERTIFICATE-----\n\
        MIIBbzCCARWgAwIBAgIUPrBDCK9rNBTP4/NOZyUj7pAue88wCgYIKoZIzj0EAwIw\n\
        DDEKMAgGA1UEAwwBdDAgFw0yNjExMjIxNjM2MjhaGA8yMTI2MTAyOTE2MzYyOFow\n\
        DDEKMAgGA1UEAwwBdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABExxdo2j6QSR\n\
        toqd3bReZ1CdDZFu/7GBoK4tX1xm7xwu7Q/xK9PLJ4rNU0PepJqXMzg4QoV9rk6c\n\
        bZJymBd9U7qjUzBRMB0GA1UdDgQWBBQeSiofgsPVlEYxCl7c6iw03mepSzAfBgNV\n\
        HSMEGDAWgBQeSiofgsPVlEYxCl7c6iw03mepSzAPBgNVHRMBAf8EBTADAQH/MAoG\n\
        CCqGSM49BAMCA0gAMEUCIQCEn9td/40yr1WPkcjClNW5eG3qfiMDP3DRnZVEqny1\n\
        5gIgCK1SO2J3NwgTvwWxhn6DLSzn1EOMG8NGpRLmjAuMdcM=\n\
        -----END CERTIFICATE-----\n";
    const PIN: &str = "sha256:9a45e3c7d9b31ef92b074beb2aff54149c0f021291c798a18a827b42293773ec";

    #[test]
    fn agrees_with_openssl() {
        let all = certificates(CERTIFICATE).unwrap();
        assert_eq!(pin_of(&all[0]).unwrap().to_string(), PIN);
        assert_eq!(pinned(&all, &[CaPin([0; 32]), CaPin::parse(PIN).unwrap()]), all);
        assert!(pinned(&all, &[CaPin([0; 32])]).is_empty());
    }

    #[test]
    fn what_is_no_certificate() {
        assert_eq!(certificates(""), None);
        assert_eq!(certificates("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(pin_of(b"\x30\x00"), None);
    }
}
