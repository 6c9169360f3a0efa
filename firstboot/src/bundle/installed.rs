// SPDX-License-Identifier: Apache-2.0
//! The bundle in the image, as this device can read it.

use super::{BUNDLE_DIR, MANIFEST, Manifest, SIGNATURE, SIGNATURE_NAMESPACE, SIGNING_KEYS};
use crate::fault::{Code, Fault, OwnedBy, error_number};
use crate::host::Host;
use crate::seed::ssh_signature::{self, Unproven};
use crate::seed::{OWNER_ALGORITHMS, SshKey};
use crate::text::hex;
use anyhow::{Context, Result};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// The bundle in the image.
pub struct Installed {
    /// The bundle's table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: by what the journal knows the bundle.
    pub id: String,
}

/// A fault of the image: damage where the kernel refuses to read a changed block of the verified root, or else `code`.
fn unreadable(error: anyhow::Error, code: Code) -> Fault {
    let damaged = error_number(&error) == Some(Errno::IO);
    Fault { code: if damaged { Code::BundleDamaged } else { code }, cause: error, retry_after: None }
}

impl Installed {
    /// Reads the image's bundle.
    ///
    /// # Errors
    /// An image fault when the manifest is missing, cannot be read, or is of another format, and in a signed image when its
    /// signature is missing or wrong.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let path = format!("{BUNDLE_DIR}/{MANIFEST}");
        let bytes = host.read(&path).and_then(|b| b.with_context(|| format!("find {path}")));
        let bytes = bytes.map_err(|error| unreadable(error, Code::BundleIncomplete))?;
        // Before anything in it is believed.
        verify(host, &bytes)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("read {path}")).coded(Code::BundleIncomplete)?;
        let id = hex(&Sha256::digest(&bytes)[..8]);
        Ok(Installed { manifest, id })
    }
}

/// Verifies the signature of the manifest, if this image is signed. The keys are worth what the root file system is worth
/// that holds them: dm-verity keeps them there, and Secure Boot that.
fn verify(host: &Host, manifest: &[u8]) -> Result<(), Fault> {
    let refused = |text: String| Err(Fault::new(Code::BundleSignature, text));
    let (keys, signature) = (host.read_kept(SIGNING_KEYS), host.read_kept(SIGNATURE));
    let unsigned = [&keys, &signature].iter().all(|file| file.bytes.is_none() && file.damage.is_none());
    if unsigned {
        return Ok(());
    }
    let text = keys.bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let keys: Vec<SshKey> = text.lines().filter_map(|line| SshKey::parse(line).ok()).collect();
    if !keys.iter().any(|key| OWNER_ALGORITHMS.contains(&key.algorithm.as_str())) {
        return refused(format!("read {SIGNING_KEYS}: the image is signed, and has no key to verify that with"));
    }
    let Some(signature) = signature.bytes else {
        return refused(format!("find {SIGNATURE}: the image has a key, and its bundle is not signed"));
    };
    let why = match ssh_signature::verify_for(SIGNATURE_NAMESPACE, &keys, manifest, &signature) {
        Ok(()) => return Ok(()),
        Err(Unproven::Form) => "it is no signature of ssh-keygen -Y sign".to_owned(),
        Err(Unproven::Namespace) => format!("it is made for another purpose than -n {SIGNATURE_NAMESPACE}"),
        Err(Unproven::Key) => format!("it is by another key than those in {SIGNING_KEYS}"),
        Err(Unproven::Content) => format!("it does not belong to {BUNDLE_DIR}/{MANIFEST}"),
    };
    refused(format!("verify {SIGNATURE}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::host::kept;
    use crate::seed::ssh_signature::tests::signed;
    use crate::test_files::put_for_tests;
    use std::path::Path;

    /// The verdict about a bundle with these files beside it.
    fn verdict(manifest: &str, keys: Option<&str>, signature: Option<&str>) -> Result<(), (Code, String)> {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| put_for_tests(dir.path(), &path[1..], text);
        put(&format!("{BUNDLE_DIR}/{MANIFEST}"), manifest);
        for (path, text) in [(SIGNING_KEYS, keys), (SIGNATURE, signature)] {
            let Some(text) = text else { continue };
            put(path, text);
        }
        read(dir.path())
    }

    fn read(root: &Path) -> Result<(), (Code, String)> {
        let host = Host::open(root, Box::new(Fake::new().0)).unwrap();
        Installed::read(&host).map(drop).map_err(|fault| (fault.code, fault.to_string()))
    }

    #[test]
    fn a_signed_image_uses_no_bundle_but_the_one_that_its_key_signed() {
        let manifest = serde_json::to_string(&Manifest::for_tests()).unwrap();
        let (key, signature) = signed([7; 32], SIGNATURE_NAMESPACE, manifest.as_bytes());
        let (other, by_other) = signed([8; 32], SIGNATURE_NAMESPACE, manifest.as_bytes());
        let (_, for_seeds) = signed([7; 32], ssh_signature::NAMESPACE, manifest.as_bytes());
        let (key, other) = (key.to_string(), other.to_string());
        let refused = |text: &str| Err((Code::BundleSignature, text.to_owned()));
        assert_eq!(verdict(&manifest, None, None), Ok(()));
        assert_eq!(verdict(&manifest, Some(&key), Some(&signature)), Ok(()));
        // A new key beside the old one.
        assert_eq!(verdict(&manifest, Some(&format!("{other}\n{key}\n")), Some(&signature)), Ok(()));
        let missing = "find /usr/lib/firstboot/bundle-manifest.sig: the image has a key, and its bundle is not signed";
        assert_eq!(verdict(&manifest, Some(&key), None), refused(missing));
        let no_key = "read /usr/lib/firstboot/image-key.pub: the image is signed, and has no key to verify that with";
        for keys in [None, Some(""), Some("ssh-ed25519 AAAA")] {
            assert_eq!(verdict(&manifest, keys, Some(&signature)), refused(no_key), "{keys:?}");
        }
        let wrong = |why: &str| refused(&format!("verify /usr/lib/firstboot/bundle-manifest.sig: {why}"));
        let by = wrong("it is by another key than those in /usr/lib/firstboot/image-key.pub");
        assert_eq!(verdict(&manifest, Some(&key), Some(&by_other)), by);
        let purpose = wrong("it is made for another purpose than -n firstboot-bundle");
        assert_eq!(verdict(&manifest, Some(&key), Some(&for_seeds)), purpose);
        assert_eq!(verdict(&manifest, Some(&key), Some("")), wrong("it is no signature of ssh-keygen -Y sign"));
        let changed = manifest.replace("1.36.3", "1.36.4");
        let content = wrong("it does not belong to /usr/lib/firstboot/bundle/manifest.json");
        assert_eq!(verdict(&changed, Some(&key), Some(&signature)), content);
    }

    #[test]
    fn a_flipped_byte_of_key_or_signature_is_mended_by_its_copy() {
        let manifest = serde_json::to_string(&Manifest::for_tests()).unwrap();
        let (key, signature) = signed([7; 32], SIGNATURE_NAMESPACE, manifest.as_bytes());
        let files = [(SIGNING_KEYS, key.to_string()), (SIGNATURE, signature)];
        for (path, _) in &files {
            let dir = tempfile::tempdir().unwrap();
            let put = |path: &str, bytes: &[u8]| {
                put_for_tests(dir.path(), &path[1..], "");
                std::fs::write(dir.path().join(&path[1..]), bytes).unwrap();
            };
            put(&format!("{BUNDLE_DIR}/{MANIFEST}"), manifest.as_bytes());
            for (path, text) in &files {
                put(path, text.as_bytes());
                put(&kept::copy_path(path), &kept::copy_of(text.as_bytes(), None));
            }
            let mut bytes = std::fs::read(dir.path().join(&path[1..])).unwrap();
            bytes[40] ^= 1;
            put(path, &bytes);
            assert_eq!(read(dir.path()), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_changed_block_is_damage_and_a_missing_manifest_is_not() {
        let code = |error: std::io::Error| {
            unreadable(anyhow::Error::new(error).context("read x"), Code::BundleIncomplete).code
        };
        assert_eq!(code(std::io::Error::from_raw_os_error(5)), Code::BundleDamaged);
        assert_eq!(code(std::io::Error::from_raw_os_error(2)), Code::BundleIncomplete);
    }
}
