// SPDX-License-Identifier: Apache-2.0
//! The key of a cluster's certificates, which one more control plane needs.

use crate::secret::Secret;

/// The key by which the certificates of a control plane are encrypted in Secret `kubeadm-certs`: 32 bytes, as 64
/// hexadecimal digits (`kubeadm init phase upload-certs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateKey(Secret<String>);

impl CertificateKey {
    /// What firstboot leaves in its place once the device is a control plane.
    pub const ERASED: &str = "****************************************************************";

    /// Reads 64 digits `0-9a-f`, or what is left of them when they were overwritten, if only in part.
    ///
    /// # Errors
    /// What was expected, without any value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'*';
        match text.len() == 64 && text.bytes().all(plain) {
            true => Ok(CertificateKey(Secret::new(text.to_owned()))),
            false => Err("expected 64 digits 0-9a-f, as kubeadm init phase upload-certs prints them".to_owned()),
        }
    }

    /// The digits.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_digits_or_what_is_left_of_them() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(CertificateKey::parse(&digits).unwrap().expose(), digits);
        assert!(CertificateKey::parse(CertificateKey::ERASED).is_ok());
        assert!(CertificateKey::parse(&format!("********{}", &digits[8..])).is_ok());
        for wrong in ["", &digits[1..], &digits.to_uppercase(), &digits.replace('0', "g")] {
            let why = CertificateKey::parse(wrong).unwrap_err();
            assert_eq!(why, "expected 64 digits 0-9a-f, as kubeadm init phase upload-certs prints them");
        }
        assert!(!format!("{:?}", CertificateKey::parse(&digits).unwrap()).contains("0123"));
    }
}
