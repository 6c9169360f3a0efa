// SPDX-License-Identifier: Apache-2.0
//! Which signatures are verified, in certificates and in handshakes: what Go's crypto/x509 and crypto/tls verify.
//!
//! ring lacks P-521, and SHA-512 with P-256 or P-384: those come from RustCrypto's curves, with ring's hashes, which are
//! there anyway. It verifies RSA keys
//! below 2048 bits with SHA-256 and SHA-512 alone, under names that warn; Kubernetes takes such a CA, so it is taken,
//! with a notice. P-224 is left out for its size (27 KB), as no kubeadm makes it; what is left out is named by [`crate::certificate::algorithm::Signature::refusal`].

use ::ring::digest::{Algorithm as Hash, SHA256, SHA384, SHA512, digest};
use ::ring::signature as ring;
use ecdsa::elliptic_curve::sec1::{FromEncodedPoint, ModulusSize, ToEncodedPoint};
use ecdsa::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytes, FieldBytesSize, PublicKey};
use ecdsa::hazmat::VerifyPrimitive;
use ecdsa::{PrimeCurve, Signature, SignatureSize};
use p256::NistP256;
use p384::NistP384;
use p521::NistP521;
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::digest::generic_array::ArrayLength;
use sha2::digest::typenum::Unsigned;
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS, RSA_PSS_2048_8192_SHA256_LEGACY_KEY, RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Reader, SliceReader};

/// ring, with the signatures that Go verifies as well.
pub fn provider() -> CryptoProvider {
    CryptoProvider { signature_verification_algorithms: ALGORITHMS, ..rustls::crypto::ring::default_provider() }
}

/// The signatures of certificates, and of handshakes in order of preference. In TLS 1.2 the curve is free; TLS 1.3 looks
/// at the first of each list alone.
pub const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        ECDSA_P256_SHA256,
        ECDSA_P256_SHA384,
        &P256_SHA512,
        ECDSA_P384_SHA256,
        ECDSA_P384_SHA384,
        &P384_SHA512,
        &P521_SHA256,
        &P521_SHA384,
        &P521_SHA512,
        ED25519,
        &RSA_SHA256,
        &RSA_SHA256_ABSENT,
        RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        &RSA_SHA512,
        &RSA_SHA512_ABSENT,
        RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[ECDSA_P384_SHA384, ECDSA_P256_SHA384, &P521_SHA384]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256, ECDSA_P384_SHA256, &P521_SHA256]),
        (SignatureScheme::ED25519, &[ED25519]),
        (SignatureScheme::ECDSA_NISTP521_SHA512, &[&P521_SHA512, &P384_SHA512, &P256_SHA512]),
        (SignatureScheme::RSA_PSS_SHA512, &[RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA256, &[RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[&RSA_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[RSA_PKCS1_2048_8192_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[&RSA_SHA256]),
    ],
};

/// RSA as ring verifies it, from 1024 bits.
#[derive(Debug)]
struct Rsa {
    signature: AlgorithmIdentifier,
    parameters: &'static ring::RsaParameters,
}

/// sha256WithRSAEncryption and sha512WithRSAEncryption, without the parameters that RFC 4055 section 5 requires: they are
/// to be accepted nonetheless.
const RSA_SHA256_OID: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b");
const RSA_SHA512_OID: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d");

static RSA_SHA256: Rsa =
    Rsa { signature: alg_id::RSA_PKCS1_SHA256, parameters: &ring::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY };
static RSA_SHA256_ABSENT: Rsa = Rsa { signature: RSA_SHA256_OID, ..RSA_SHA256 };
static RSA_SHA512: Rsa =
    Rsa { signature: alg_id::RSA_PKCS1_SHA512, parameters: &ring::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY };
static RSA_SHA512_ABSENT: Rsa = Rsa { signature: RSA_SHA512_OID, ..RSA_SHA512 };

impl SignatureVerificationAlgorithm for Rsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        ring::UnparsedPublicKey::new(self.parameters, key).verify(message, signature).map_err(|_| InvalidSignature)
    }
}

/// ECDSA on a curve of RustCrypto's.
struct Ecdsa {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    hash: &'static Hash,
    verify: Verify,
}

/// Verifies a signature: key (SEC 1, uncompressed point), hash of the message, signature (DER ECDSA-Sig-Value).
type Verify = fn(&[u8], &[u8], &[u8]) -> Option<()>;

const fn on(key: AlgorithmIdentifier, signature: AlgorithmIdentifier, hash: &'static Hash, verify: Verify) -> Ecdsa {
    Ecdsa { key, signature, hash, verify }
}

static P256_SHA512: Ecdsa = on(alg_id::ECDSA_P256, alg_id::ECDSA_SHA512, &SHA512, ecdsa::<NistP256>);
static P384_SHA512: Ecdsa = on(alg_id::ECDSA_P384, alg_id::ECDSA_SHA512, &SHA512, ecdsa::<NistP384>);
static P521_SHA256: Ecdsa = on(alg_id::ECDSA_P521, alg_id::ECDSA_SHA256, &SHA256, ecdsa::<NistP521>);
static P521_SHA384: Ecdsa = on(alg_id::ECDSA_P521, alg_id::ECDSA_SHA384, &SHA384, ecdsa::<NistP521>);
static P521_SHA512: Ecdsa = on(alg_id::ECDSA_P521, alg_id::ECDSA_SHA512, &SHA512, ecdsa::<NistP521>);

impl std::fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ecdsa").field("key", &self.key).field("signature", &self.signature).finish_non_exhaustive()
    }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(key, digest(self.hash, message).as_ref(), signature).ok_or(InvalidSignature)
    }
}

/// ECDSA (FIPS 186-5, 6.4.2): the hash's leftmost bits, as many as the order has, make the number that is signed.
fn ecdsa<C>(key: &[u8], digest: &[u8], signature: &[u8]) -> Option<()>
where
    C: PrimeCurve + CurveArithmetic,
    AffinePoint<C>: VerifyPrimitive<C> + FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
    SignatureSize<C>: ArrayLength<u8>,
{
    /// Tag of an uncompressed point: Go and ring take no other.
    const UNCOMPRESSED: u8 = 4;
    let _ = key.first().filter(|tag| **tag == UNCOMPRESSED)?;
    let key = PublicKey::<C>::from_sec1_bytes(key).ok()?;
    let mut reader = SliceReader::new(signature).ok()?;
    let numbers = reader.sequence(|r| Ok((UintRef::decode(r)?, UintRef::decode(r)?))).ok()?;
    let (r, s) = reader.finish(numbers).ok()?;
    let signature = Signature::<C>::from_scalars(padded::<C>(r.as_bytes())?, padded::<C>(s.as_bytes())?).ok()?;
    let leftmost = digest.len().min(FieldBytesSize::<C>::USIZE);
    key.as_affine().verify_prehashed(&padded::<C>(&digest[..leftmost])?, &signature).ok()
}

/// A number with zeros before it; none when it is too long.
fn padded<C: PrimeCurve>(number: &[u8]) -> Option<FieldBytes<C>> {
    let mut bytes = FieldBytes::<C>::default();
    let zeros = bytes.len().checked_sub(number.len())?;
    bytes[zeros..].copy_from_slice(number);
    Some(bytes)
}
