// SPDX-License-Identifier: Apache-2.0
//! CA pins: SHA-256 over a certificate's DER SubjectPublicKeyInfo, as in `--discovery-token-ca-cert-hash`.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::certificate::{self, Certificate};
use crate::seed::CaPin;

/// The pin of one certificate; none when it cannot be read.
pub fn pin_of(der: &[u8]) -> Option<CaPin> {
    Some(CaPin(Sha256::digest(Certificate::read(der)?.spki).into()))
}

/// All certificates of a PEM text, as kubeadm reads it; none when it holds none, or one that cannot be read.
pub fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all = certificate::pem::certificates(pem);
    let good = !all.is_empty() && all.iter().all(|der| Certificate::read(der).is_some());
    good.then(|| all.into_iter().map(CertificateDer::from).collect())
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

    /// The pin of each kind of key, by openssl as above.
    #[test]
    fn pins_of_all_kinds_of_keys() {
        for (name, pin) in [
            ("ca-ed25519.seed", "b5569ff8447297120dd17b680d9379e3d77b45e37c33c1b3aca5e827f2046553"),
            ("ca-p224.seed", "174e16b4f9c9b4b327cf81e52f7c1b93f238d4c918dbbed12ae4c1349e7f4874"),
            ("ca-p256-sha512.seed", "6498707e6068368a5f64437f19e4bb7a0545e067e4cb9453e69fa6441a6217d5"),
            ("ca-p384-sha512.seed", "4004e5afdf1090c872f7e16c4596378d0c6a239c9097ae8c6c430f67afa748d3"),
            ("ca-p521-sha512.seed", "611d51d1e690a1a33b4e96d525e76a50d2989ea8bde3eb0fa86a3f644d713484"),
            ("ca-rsa1024.seed", "6b448aba5675bbf08a71cb1ec4e13a93b235fb90b43cf13f592f451ce3c65406"),
            ("ca-rsa8192.seed", "3ca8f212314e97dfc813c9d33dc24bda6d0f64dc5c6412d62afa4167f509d430"),
            ("ca-rsa-pss-key.seed", "ee5445bc760d8c1cdbbf794d2967cfd269ad8218074055066b5a4ffa8f3f9ff8"),
        ] {
            let path = std::path::Path::new("tests/field/21-ca-kinds").join(name);
            let all = certificates(&std::fs::read_to_string(path).unwrap()).unwrap();
            assert_eq!(pin_of(&all[0]).unwrap().to_string(), format!("sha256:{pin}"), "{name}");
        }
    }

    #[test]
    fn weak_keys_are_named() {
        let path = std::path::Path::new("tests/field/21-ca-kinds/ca-rsa1024.seed");
        let weak = weaknesses(&std::fs::read_to_string(path).unwrap());
        let want = "the cluster's CA certificate has an RSA key of 1024 bits, which is too weak: replace it soon";
        assert_eq!(weak, [want]);
        assert!(weaknesses(CERTIFICATE).is_empty());
    }

    #[test]
    fn what_is_no_certificate() {
        assert_eq!(certificates(""), None);
        assert_eq!(certificates("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(pin_of(b"\x30\x00"), None);
    }
}
