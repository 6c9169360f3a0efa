// SPDX-License-Identifier: Apache-2.0
//! The certificate request in a seed that creates a cluster, as far as it can be judged before there is a cluster.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_cert::der::Decode;
use x509_cert::request::CertReq;

/// The group whose members no authorizer looks at. The signer refuses it (admission plugin CertificateSubjectRestriction).
const MASTERS: &str = "system:masters";

/// Whom a request in a seed names, as in `CN=admin,O=kubeadm:cluster-admins`. The parser of seeds has brought it into one
/// form.
///
/// # Errors
/// It is no certificate request, or one that every cluster refuses.
pub fn subject(pem: &str) -> Result<String> {
    let data: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(data).ok();
    let request = der.as_ref().and_then(|der| CertReq::from_der(der).ok());
    let request = request.context("read admin-request in [cluster]: it is no certificate request (PKCS #10)")?;
    let subject = request.info.subject.to_string();
    ensure!(
        !subject.contains(MASTERS),
        "check admin-request in [cluster]: it names the group {MASTERS}, which the cluster refuses; use kubeadm:cluster-admins"
    );
    Ok(subject.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control_plane::admin_key::{GROUP, NewKey};
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn whom_a_request_names() {
        let request = NewKey::make("kim").unwrap().request;
        assert_eq!(subject(&request).unwrap(), format!("CN=kim,O={GROUP}"));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, MASTERS);
        let masters = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        assert!(subject(&masters).unwrap_err().to_string().contains("which the cluster refuses"));
        let error = subject("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n").unwrap_err().to_string();
        assert_eq!(error, "read admin-request in [cluster]: it is no certificate request (PKCS #10)");
    }
}
