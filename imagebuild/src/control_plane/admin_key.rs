// SPDX-License-Identifier: Apache-2.0
//! The administrator's private key: made here, kept here, and held against the certificate that the cluster signed.
//! No device ever has it.

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::Path;
use zeroize::Zeroizing;

/// The group that kubeadm binds to the role cluster-admin (`ClusterAdminsGroupAndClusterRoleBinding` of kubeadm). Unlike
/// system:masters it is bound by RBAC, so that it can be taken back.
pub const GROUP: &str = "kubeadm:cluster-admins";
/// Longest common name (RFC 5280, ub-common-name).
const LONGEST_NAME: usize = 64;

/// A new private key and the request for its certificate.
pub struct NewKey {
    /// ECDSA P-256, PKCS #8 in PEM.
    pub pem: Zeroizing<String>,
    /// PKCS #10 in PEM.
    pub request: String,
}

impl NewKey {
    /// A key of an administrator of this name.
    ///
    /// # Errors
    /// The system gives no random numbers, or the name is one that no certificate can have.
    pub fn make(user: &str) -> Result<NewKey> {
        let make = || -> Result<NewKey, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut subject = DistinguishedName::new();
            subject.push(DnType::OrganizationName, GROUP);
            subject.push(DnType::CommonName, user);
            let mut params = CertificateParams::default();
            params.distinguished_name = subject;
            let request = params.serialize_request(&key)?.pem()?;
            Ok(NewKey { pem: Zeroizing::new(key.serialize_pem()), request })
        };
        make().map_err(|why| anyhow!("make the private key and certificate request of {user}: {why}"))
    }
}

/// Whether Kubernetes can have a user of this name by a certificate.
///
/// # Errors
/// What is wrong.
pub fn user_name(text: &str) -> Result<String, String> {
    let printable = !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if !printable || text.chars().count() > LONGEST_NAME {
        return Err(format!("expected 1 to {LONGEST_NAME} characters without blanks, as in admin"));
    }
    if text.starts_with("system:") {
        return Err("names that begin with system: are those of Kubernetes itself".to_owned());
    }
    Ok(text.to_owned())
}

/// A private key out of a file.
pub struct AdminKey(PrivateKeyDer<'static>);

impl AdminKey {
    /// The first private key in a PEM file, in each form that kubectl reads.
    ///
    /// # Errors
    /// It cannot be read, or holds none. Nothing of its text is repeated.
    pub fn read(path: &Path) -> Result<AdminKey> {
        let bytes = fs::read(path).map(Zeroizing::new).with_context(|| format!("read {}", path.display()))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            anyhow!("read {}: it has no private key in PEM without a passphrase, as admin.key is", path.display())
        })?;
        Ok(AdminKey(key))
    }

    /// Whether a certificate is over this key.
    ///
    /// # Errors
    /// The key or the certificate is of a kind that is not supported.
    pub fn is_of(&self, certificate: &CertificateDer<'static>) -> Result<bool> {
        let key = any_supported_type(&self.0).map_err(|_| anyhow!("its kind of key is not supported"))?;
        ensure!(key.public_key().is_some(), "its kind of key is not supported");
        Ok(CertifiedKey::new(vec![certificate.clone()], key).keys_match().is_ok())
    }

    /// The key alone, in PEM: text around it in the file is left out.
    pub fn pem(&self) -> Zeroizing<String> {
        let label = match &self.0 {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let data = Zeroizing::new(STANDARD.encode(self.0.secret_der()));
        let mut pem = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
        for line in data.as_bytes().chunks(64) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str(&format!("-----END {label}-----\n"));
        pem
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_back_and_text_around_it_is_left_out() {
        let new = NewKey::make("admin").unwrap();
        assert!(new.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.key");
        fs::write(&path, format!("a note\n{}another\n", *new.pem)).unwrap();
        assert_eq!(*AdminKey::read(&path).unwrap().pem(), new.pem.replace("\r\n", "\n"));
        for text in ["", "nonsense", &new.request, &new.pem.replace("PRIVATE", "ENCRYPTED PRIVATE")] {
            fs::write(&path, text).unwrap();
            let error = AdminKey::read(&path).map(drop).unwrap_err().to_string();
            let why = "it has no private key in PEM without a passphrase, as admin.key is";
            assert_eq!(error, format!("read {}: {why}", path.display()));
        }
    }

    #[test]
    fn names_of_users() {
        assert_eq!(user_name("kim@example.com").as_deref(), Ok("kim@example.com"));
        for name in ["", "a b", "a\n", &"x".repeat(65)] {
            assert!(user_name(name).unwrap_err().starts_with("expected 1 to 64 characters"), "{name}");
        }
        assert!(user_name("system:node:a").unwrap_err().contains("Kubernetes itself"));
    }
}
