// SPDX-License-Identifier: Apache-2.0
//! The node's own credential: kubelet.conf, and the pair of certificate and key that it names.
//!
//! A sealed device takes no other seed while this is usable, and needs one when it is not (docs/operations.md, "Which
//! seed is accepted when"). kubelet.conf alone proves nothing: kubelet writes it before it has a certificate.

use crate::host::{Host, Stamp};
use crate::kube::{pin, tls};
use crate::paths::{CURRENT_PEM, KUBELET_CONF, PKI};
use crate::text::{timestamp, unix_seconds};
use anyhow::{Context, Result};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Where the copy of the pair is.
const COPY: &str = "/var/lib/firstboot/credential.copy";

/// Where the pair is written that came back from its copy.
const RESTORED: &str = "kubelet-client-restored.pem";

/// A copy of the pair, kept with the same mode on the same disk, and when the original was written.
#[derive(Serialize, Deserialize)]
struct Copy {
    pem: Zeroizing<String>,
    stamp: Option<Stamp>,
}

/// What the credential is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// It opens the API server until then.
    Usable {
        /// End of the certificate's validity.
        until: SystemTime,
    },
    /// It does not.
    Unusable {
        /// Why, one line: the text of a fault.
        why: String,
        /// When its certificate expired by this device's clock, if that is all that is wrong.
        expired: Option<SystemTime>,
    },
}

impl Credential {
    /// Whether it opens the API server.
    pub fn usable(&self) -> bool {
        matches!(self, Credential::Usable { .. })
    }
}

/// Looks at the credential on this device. The clock must have been set before: an hour beyond its end, a certificate
/// that is good looks expired.
///
/// # Errors
/// When a file is there but cannot be read at all.
pub fn credential(host: &Host) -> Result<Credential> {
    if host.read_text(KUBELET_CONF)?.is_none() {
        return Ok(unusable(format!("find {KUBELET_CONF}: it is missing or empty")));
    }
    let Some(pem) = host.read_utf8(CURRENT_PEM)? else {
        return Ok(unusable(format!("find {CURRENT_PEM}: it is missing")));
    };
    Ok(pair(&pem, host.now()))
}

/// Keeps a copy of a usable pair, so that a damaged byte does not cost the node. Nothing is written where it is kept already.
///
/// # Errors
/// When a file cannot be read or written.
pub fn keep_copy(host: &Host) -> Result<()> {
    let Some(pem) = host.read_utf8(CURRENT_PEM)? else { return Ok(()) };
    if !pair(&pem, host.now()).usable() {
        return Ok(());
    }
    let copy = Copy { pem: pem.into(), stamp: host.stamp(CURRENT_PEM)? };
    let bytes = Zeroizing::new(serde_json::to_vec(&copy).context("encode a copy of the node's credential")?);
    host.write_copy(COPY, &bytes, 0o600)
}

fn read_copy(host: &Host) -> Option<Copy> {
    serde_json::from_slice(&Zeroizing::new(host.read_copy(COPY)?)).ok()
}

fn restore(host: &Host, copy: &Copy) -> Result<()> {
    let path = format!("{PKI}/{RESTORED}");
    host.write(&path, copy.pem.as_bytes(), 0o600)?;
    host.symlink(CURRENT_PEM, &path)?;
    host.note_damage(&format!("read {CURRENT_PEM}: it was damaged, its copy stands in"))?;
    keep_copy(host)
}

/// [`credential`], after the pair was looked for among those that kubelet keeps beside it: the power may have gone, or
/// kubelet been ended, between writing a renewed certificate and moving the link to it. A pair that the medium has damaged
/// comes back from its copy; one that is gone does not, for `kubeadm reset` removes it.
///
/// # Errors
/// As [`credential`], and when the link cannot be moved or the copy not be put in place.
pub fn repaired(host: &Host) -> Result<Credential> {
    let copy = read_copy(host);
    if let Some(copy) = &copy
        && host.is_corrupted(CURRENT_PEM, copy.stamp, copy.pem.as_bytes())?
    {
        restore(host, copy)?;
    }
    let found = credential(host)?;
    if found.usable() || host.read_text(KUBELET_CONF)?.is_none() {
        return Ok(found);
    }
    let mut best = None;
    for name in host.list(PKI)?.iter().filter(|n| n.starts_with("kubelet-client-") && n.ends_with(".pem")) {
        let path = format!("{PKI}/{name}");
        let pem = host.read_utf8(&path)?.unwrap_or_default();
        if let Credential::Usable { until } = pair(&pem, host.now()) {
            best = best.max(Some((until, path)));
        }
    }
    let Some((until, path)) = best else {
        let Some(copy) = copy.filter(|copy| pair(&copy.pem, host.now()).usable()) else { return Ok(found) };
        if host.read(CURRENT_PEM)?.is_none() {
            return Ok(found);
        }
        restore(host, &copy)?;
        return credential(host);
    };
    host.symlink(CURRENT_PEM, &path)?;
    Ok(Credential::Usable { until })
}

/// Until when the certificate is good, by its own word; `None` where there is none that can be read.
///
/// # Errors
/// When the file is there but cannot be read at all.
pub fn end(host: &Host) -> Result<Option<SystemTime>> {
    let Some(pem) = host.read_utf8(CURRENT_PEM)? else { return Ok(None) };
    let leaf = pin::certificates(&pem).and_then(|chain| chain.into_iter().next());
    Ok(leaf.as_ref().and_then(tls::dates).map(|(_, until)| until))
}

fn unusable(why: String) -> Credential {
    Credential::Unusable { why, expired: None }
}

/// The certificate chain and its key, one after the other, as kubelet keeps them.
fn pair(pem: &str, now: SystemTime) -> Credential {
    let torn = |what: &str| unusable(format!("read {CURRENT_PEM}: {what}"));
    let Some(chain) = pin::certificates(pem) else { return torn("it holds no certificate") };
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem.as_bytes()) else { return torn("it holds no private key") };
    let Some((_, until)) = chain.first().and_then(tls::dates) else { return torn("its certificate cannot be read") };
    let Ok(key) = any_supported_type(&key) else { return torn("its private key cannot be used") };
    if CertifiedKey::new(chain, key).keys_match().is_err() {
        return torn("its private key is not that of its certificate");
    }
    if until < now {
        let why = format!("use {CURRENT_PEM}: its certificate expired at {}", timestamp(unix_seconds(until)));
        return Credential::Unusable { why, expired: Some(until) };
    }
    Credential::Usable { until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;

    /// A certificate that is valid from 2020 to 2030, and its key.
    fn made() -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn at(year: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
    }

    #[test]
    fn a_link_to_a_bad_pair_is_moved_to_the_best_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = crate::host::fake::Fake::new();
        seen.clock.set(Some(at(2026)));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let (certificate, key) = made();
        host.write(KUBELET_CONF, b"apiVersion: v1\n", 0o600).unwrap();
        host.write(&format!("{PKI}/kubelet-client-1.pem"), certificate.as_bytes(), 0o600).unwrap();
        host.symlink(CURRENT_PEM, &format!("{PKI}/kubelet-client-1.pem")).unwrap();
        assert!(!repaired(&host).unwrap().usable());
        let whole = format!("{certificate}{key}");
        host.write(&format!("{PKI}/kubelet-client-2.pem"), whole.as_bytes(), 0o600).unwrap();
        assert!(!credential(&host).unwrap().usable());
        assert!(repaired(&host).unwrap().usable() && credential(&host).unwrap().usable());
        assert_eq!(host.read_link(CURRENT_PEM).unwrap(), Some(format!("{PKI}/kubelet-client-2.pem")));
        seen.clock.set(Some(at(2031)));
        assert!(!repaired(&host).unwrap().usable());
        assert_eq!(end(&host).unwrap(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)));
        host.remove(CURRENT_PEM).unwrap();
        assert_eq!(end(&host).unwrap(), None);
    }

    #[test]
    fn a_damaged_pair_comes_back_from_its_copy_and_a_missing_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = crate::host::fake::Fake::new();
        seen.clock.set(Some(at(2026)));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let (certificate, key) = made();
        let whole = format!("{certificate}{key}");
        let path = format!("{PKI}/kubelet-client-1.pem");
        host.write(KUBELET_CONF, b"apiVersion: v1\n", 0o600).unwrap();
        host.write(&path, whole.as_bytes(), 0o600).unwrap();
        host.symlink(CURRENT_PEM, &path).unwrap();
        let on_disk = dir.path().join(&path[1..]);
        keep_copy(&host).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 0x04;
            // As a medium does it: nothing of the file system changes.
            let modified = std::fs::metadata(&on_disk).unwrap().modified().unwrap();
            std::fs::write(&on_disk, &bytes).unwrap();
            std::fs::File::options().write(true).open(&on_disk).unwrap().set_modified(modified).unwrap();
            assert!(repaired(&host).unwrap().usable(), "byte {at}");
            assert_eq!(host.read(CURRENT_PEM).unwrap().unwrap(), whole.as_bytes(), "byte {at}");
            host.write(&path, whole.as_bytes(), 0o600).unwrap();
            host.symlink(CURRENT_PEM, &path).unwrap();
            keep_copy(&host).unwrap();
        }
        for length in 0..whole.len() {
            std::fs::write(&on_disk, &whole.as_bytes()[..length]).unwrap();
            std::fs::remove_file(dir.path().join(&PKI[1..]).join(RESTORED)).unwrap_or_default();
            assert!(repaired(&host).unwrap().usable(), "{length} bytes");
            host.symlink(CURRENT_PEM, &path).unwrap();
        }
        std::fs::remove_file(dir.path().join(&PKI[1..]).join(RESTORED)).unwrap_or_default();
        std::fs::remove_file(&on_disk).unwrap();
        assert!(!repaired(&host).unwrap().usable());
    }

    #[test]
    fn a_pair_is_judged_by_what_kubelet_would_find() {
        let ((certificate, key), (_, other)) = (made(), made());
        let whole = format!("{certificate}{key}");
        assert_eq!(
            pair(&whole, at(2026)),
            Credential::Usable { until: SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000) }
        );
        let why = |pem: &str, now| match pair(pem, now) {
            Credential::Unusable { why, .. } => why,
            usable => panic!("{usable:?}"),
        };
        let pem = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        assert_eq!(why("", at(2026)), format!("read {pem}: it holds no certificate"));
        assert_eq!(why(&key, at(2026)), format!("read {pem}: it holds no certificate"));
        assert_eq!(why(&certificate, at(2026)), format!("read {pem}: it holds no private key"));
        assert_eq!(
            why(&format!("{certificate}{other}"), at(2026)),
            format!("read {pem}: its private key is not that of its certificate")
        );
        assert_eq!(why(&whole, at(2031)), format!("use {pem}: its certificate expired at 2030-01-01T00:00:00Z"));
    }
}
