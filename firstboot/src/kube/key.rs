// SPDX-License-Identifier: Apache-2.0
//! The node's private key, and the PKCS#10 request over it, as kubelet makes them. Only a device makes keys.

use rcgen::string::PrintableString;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData};
use sec1::EcParameters;
use sec1::der::asn1::ObjectIdentifier;
use sec1::der::{Decode, EncodePem};
use sec1::pkcs8::PrivateKeyInfo;

use super::csr::{Request, name};
use crate::fault::{Code, Fault};
use crate::secret::Secret;

/// NIST P-256.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// The node's private key, ECDSA P-256.
pub struct Key(pub(super) KeyPair);

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self, Fault> {
        let broken = |_| Fault::new(Code::Host, "make private key: the kernel gives no random numbers");
        KeyPair::generate().map(Key).map_err(broken)
    }

    /// The key that [`Key::pem`] gave; none when the text is not one.
    pub fn from_pem(pem: &str) -> Option<Self> {
        KeyPair::from_pem(pem).ok().filter(|k| k.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256)).map(Key)
    }

    /// PKCS#8 PEM, for keeping it until the certificate is there.
    pub fn pem(&self) -> Secret<String> {
        Secret::new(self.0.serialize_pem())
    }

    /// SEC 1 PEM (`EC PRIVATE KEY`), the form in which kubelet stores it.
    pub fn sec1_pem(&self) -> Result<Secret<String>, Fault> {
        let broken = || Fault::new(Code::Host, "write private key in SEC 1 form");
        let info = PrivateKeyInfo::from_der(self.0.serialized_der()).map_err(|_| broken())?;
        let mut key = sec1::EcPrivateKey::from_der(info.private_key).map_err(|_| broken())?;
        // Go reads the curve from here; ring leaves it to the PKCS#8 shell.
        key.parameters = Some(EcParameters::NamedCurve(P256));
        key.to_pem(sec1::LineEnding::LF).map(Secret::new).map_err(|_| broken())
    }

    /// The request for a certificate over this key.
    pub fn request(&self, node: &str) -> Result<Request, Fault> {
        let spki = self.0.subject_public_key_info();
        Ok(Request { name: name(&spki, node), pem: self.pkcs10(node)?, spki })
    }

    /// PKCS#10 request, PEM: `O=system:nodes, CN=system:node:<name>`, no further names.
    fn pkcs10(&self, node: &str) -> Result<String, Fault> {
        let broken = |_: rcgen::Error| Fault::new(Code::Host, format!("make certificate request of node {node}"));
        let text = |s: &str| PrintableString::try_from(s).map(DnValue::PrintableString).map_err(broken);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, text("system:nodes")?);
        subject.push(DnType::CommonName, text(&format!("system:node:{node}"))?);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.serialize_request(&self.0).and_then(|csr| csr.pem()).map_err(broken)
    }
}
