// SPDX-License-Identifier: Apache-2.0
//! kubelet's own serving certificate and its key, out of the way when a power cut has torn them.
//!
//! kubelet signs them itself at its first start where nothing else is configured (`InitializeTLS` in its
//! `cmd/kubelet/app/server.go`), and does not flush them: a power cut within the next half minute leaves empty files, which
//! it then refuses to start with, for ever. Where it finds neither of the two it makes both anew. Whatever certificates a
//! cluster signs, for clients or for serving, it does flush.

use crate::host::Host;
use crate::kube::pin;
use crate::paths::PKI;
use anyhow::Result;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// Begins the command that approves a request for a certificate; its name follows.
pub const APPROVE: &str = "kubectl certificate approve ";

/// Whether kubelet has a serving certificate that the cluster signed (`serverTLSBootstrap`).
///
/// # Errors
/// When that cannot be found out.
pub fn is_signed(host: &Host) -> Result<bool> {
    Ok(host.read_link(&format!("{PKI}/kubelet-server-current.pem"))?.is_some())
}

/// Removes the pair when one of its files is missing, empty, cut short or unparsable, and says so; whether it did. A pair
/// that merely differs from what kubelet would make is left alone.
///
/// # Errors
/// When a file cannot be read or removed.
pub fn remove_torn(host: &Host) -> Result<bool> {
    let (certificate, key) = (format!("{PKI}/kubelet.crt"), format!("{PKI}/kubelet.key"));
    let (certificates, private) = (host.read(&certificate)?, host.read(&key)?);
    if certificates.is_none() && private.is_none() {
        return Ok(false);
    }
    let text = certificates.and_then(|bytes| String::from_utf8(bytes).ok());
    let certified = text.is_some_and(|text| pin::certificates(&text).is_some());
    if certified && private.is_some_and(|pem| PrivateKeyDer::from_pem_slice(&pem).is_ok()) {
        return Ok(false);
    }
    host.remove(&certificate)?;
    host.remove(&key)?;
    let line = format!("firstboot: removed {certificate} and kubelet.key, which were torn: kubelet makes them anew");
    host.sys().say(&line);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_torn_pair_goes_and_a_whole_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        assert!(!remove_torn(&host).unwrap());
        let paths = ["kubelet.crt", "kubelet.key"].map(|name| format!("{PKI}/{name}"));
        let made = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let whole = [made.cert.pem(), made.signing_key.serialize_pem()];
        let put = |n: usize, bytes: &[u8]| host.write(&paths[n], bytes, 0o600).unwrap();
        let both = || (0..2).for_each(|n| put(n, whole[n].as_bytes()));
        both();
        assert!(!remove_torn(&host).unwrap());
        for n in 0..2 {
            let good = whole[n].as_bytes();
            for torn in [&b""[..], b"\0\0\0\0", &good[..good.len() / 2], b"\xff\xfe"] {
                put(n, torn);
                assert!(remove_torn(&host).unwrap(), "{torn:?}");
                // Both: kubelet refuses one without the other.
                assert_eq!(paths.each_ref().map(|path| host.read(path).unwrap()), [None, None]);
                both();
            }
            host.remove(&paths[n]).unwrap();
            assert!(remove_torn(&host).unwrap());
            both();
        }
        let line = "firstboot: removed /var/lib/kubelet/pki/kubelet.crt and kubelet.key, which were torn: kubelet makes them anew";
        assert_eq!(seen.lines.take(), [line; 10]);
        // Of an administrator, in other words of PEM.
        put(1, b"-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n");
        assert!(!remove_torn(&host).unwrap());
    }
}
