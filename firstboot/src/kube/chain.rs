// SPDX-License-Identifier: Apache-2.0
//! Whether a CA that is trusted vouches for a server: by Go's rules, because kubelet, kubeadm and containerd judge the
//! same server by them (crypto/x509, verify.go, Go 1.26).
//!
//! webpki builds the path and verifies its signatures, dates, names and purposes. What Go sees otherwise is here:
//! - Go holds the trusted certificates against their own dates, limits and purposes; webpki believes them.
//! - Go takes a server that shows a trusted certificate as its own, and one whose certificate is a CA's.
//! - Go takes the purpose "any", and requires keyCertSign of each signer.
//!
//! Stricter than Go: critical policies, and name constraints above a server's certificate that is a CA's.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, RawPublicKeyEntity, VerifiedPath,
    anchor_from_trusted_cert,
};

use super::algorithms::ALGORITHMS;
use crate::certificate::algorithm::{BETTER, Key, RSA_FULL};
use crate::certificate::{self, Certificate, Usage};
use crate::fault::Code;

/// Longest chain of CAs below the trusted one, as in webpki.
const MAX_DEPTH: usize = 6;
/// Most signatures that are verified in the search for a chain, as in Go and webpki.
const MAX_SIGNATURES: usize = 100;
/// Most certificates that are taken of a server besides its own. Each may be tried at the first moment of every other.
const MAX_SENT: usize = 32;

/// Certificates that are trusted to vouch for servers.
#[derive(Debug)]
pub struct Roots(Vec<Root>);

#[derive(Debug)]
struct Root {
    der: CertificateDer<'static>,
    read: Certificate,
    anchor: TrustAnchor<'static>,
}

/// Which certificate is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The server's own.
    Server,
    /// One that the server sends besides.
    Intermediate,
    /// One that is trusted.
    Ca,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Which::Server => "certificate",
            Which::Intermediate => "intermediate certificate",
            Which::Ca => "CA certificate",
        })
    }
}

/// Why no trusted CA vouches for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For scripts.
    pub code: Code,
    /// The certificate that is not as it should be.
    pub which: Which,
    /// What it is not; a predicate without the server's name.
    pub what: String,
}

impl Refusal {
    /// A refusal of this certificate.
    pub fn new(code: Code, which: Which, what: impl Into<String>) -> Self {
        Refusal { code, which, what: what.into() }
    }

    fn unknown() -> Self {
        Refusal::new(Code::UnknownCa, Which::Server, "is not signed by the cluster's CA")
    }

    /// The search for a chain was given up; at another time it would not be shorter.
    pub fn too_many() -> Self {
        Refusal::new(Code::Tls, Which::Server, "comes with too many certificates: send the chain alone")
    }

    fn malformed(which: Which) -> Self {
        Refusal::new(Code::Tls, which, format!("cannot be read: reissue {}", it(which)))
    }

    /// About the server `host:port`.
    pub fn of(&self, server: &str) -> String {
        format!("{} of API server {server} {}", self.which, self.what)
    }
}

fn it(which: Which) -> &'static str {
    match which {
        Which::Server | Which::Intermediate => "it",
        Which::Ca => "it, and what it signed",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.which, self.what)
    }
}

impl std::error::Error for Refusal {}

/// One certificate that a server sends.
struct Sent<'a> {
    der: &'a CertificateDer<'a>,
    read: Certificate,
}

/// A search for a chain.
struct Search<'s> {
    sent: &'s [Sent<'s>],
    now: SystemTime,
    /// How many signatures may still be verified: a server can send certificates that sign each other.
    signatures: Cell<usize>,
}

impl Search<'_> {
    /// Whether `issuer` signed the certificate `der`.
    fn is_issuer(&self, issuer: &Certificate, der: &[u8], read: &Certificate) -> bool {
        if issuer.subject != read.issuer || self.signatures.get() == 0 {
            return false;
        }
        self.signatures.set(self.signatures.get() - 1);
        signed_by(der, issuer)
    }
}

impl Roots {
    /// Trusts these certificates; those that cannot be read are left out, as Go's `AppendCertsFromPEM` does.
    pub fn new(trusted: Vec<CertificateDer<'static>>) -> Self {
        let root = |der: CertificateDer<'static>| {
            let anchor = anchor_from_trusted_cert(&der).ok()?.to_owned();
            Some(Root { read: Certificate::read(&der)?, anchor, der })
        };
        Roots(trusted.into_iter().filter_map(root).collect())
    }

    /// Whether a path from the server's certificate to one of these is valid at `now`. Certificates that the server
    /// sends beside that path may have any dates.
    ///
    /// # Errors
    /// Why not: what is wrong with the path that came closest.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let server = Certificate::read(end_entity).ok_or_else(|| Refusal::malformed(Which::Server))?;
        let sent = |der| Some(Sent { der, read: Certificate::read(der)? });
        let sent: Vec<Sent<'_>> = intermediates.iter().filter_map(sent).collect();
        judge(Which::Server, &server, Usage::Server, now)?;
        if sent.len() > MAX_SENT {
            return Err(Refusal::too_many());
        }
        if self.0.iter().any(|root| root.der == *end_entity) {
            return Ok(());
        }
        let result = match server.is_ca() {
            true => {
                let search = Search { sent: &sent, now, signatures: Cell::new(MAX_SIGNATURES) };
                self.vouch_for_ca(end_entity, &server, &search, 0)
            }
            false => self.verify_path(end_entity, intermediates, Usage::Server, now),
        };
        // Which key a signature needs is known only here; webpki calls some of these forged.
        result.map_err(|refusal| self.unverifiable(&server, &sent).unwrap_or(refusal))
    }

    /// Whether a path from a client's certificate, which is no CA's, to one of these is valid at `now`.
    ///
    /// # Errors
    /// Why not, with [`Which::Server`] in the place of the client's certificate.
    pub fn verify_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let client = Certificate::read(end_entity).ok_or_else(|| Refusal::malformed(Which::Server))?;
        judge(Which::Server, &client, Usage::Client, now)?;
        match client.is_ca() {
            true => Err(Refusal::new(Code::UnknownCa, Which::Server, "is a CA's, not a node's")),
            false => self.verify_path(end_entity, intermediates, Usage::Client, now),
        }
    }

    /// By webpki, with Go's rules for the trusted certificate.
    fn verify_path(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let anchors: Vec<TrustAnchor<'_>> = self.0.iter().map(|root| root.anchor.clone()).collect();
        let certificate = EndEntityCert::try_from(end_entity).map_err(|e| refusal(&e))?;
        // Signatures held on that path: why it is not good enough is more than what is wrong with any other.
        let closest = RefCell::new(None);
        let ours = |path: &VerifiedPath<'_>| {
            self.judge_path(path, usage, now).map_err(|refusal| {
                *closest.borrow_mut() = Some(refusal);
                webpki::Error::UnknownIssuer
            })
        };
        let all = ALGORITHMS.all;
        let result = certificate
            .verify_for_usage(all, &anchors, intermediates, unix(now), AnyPurpose, None, Some(&ours))
            .map(drop);
        result.map_err(|error| closest.take().unwrap_or_else(|| refusal(&error)))
    }

    /// What Go requires of the CAs along a path whose signatures hold.
    fn judge_path(&self, path: &VerifiedPath<'_>, usage: Usage, now: SystemTime) -> Result<(), Refusal> {
        let mut below = 0;
        for der in path.intermediate_certificates().map(webpki::Cert::der) {
            let read = Certificate::read(&der).ok_or_else(|| Refusal::malformed(Which::Intermediate))?;
            judge_issuer(Which::Intermediate, &read, below, usage, now)?;
            below += 1;
        }
        let key = |root: &&Root| root.anchor == *path.anchor();
        let mut result = Err(Refusal::unknown());
        // The same CA may be there twice, once renewed.
        for root in self.0.iter().filter(key) {
            result = judge_issuer(Which::Ca, &root.read, below, usage, now);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Whether these vouch for a certificate that is a CA's itself, with `depth` more between it and the server.
    fn vouch_for_ca(&self, der: &[u8], read: &Certificate, search: &Search<'_>, depth: usize) -> Result<(), Refusal> {
        let mut closest = Refusal::unknown();
        for root in self.0.iter().filter(|root| search.is_issuer(&root.read, der, read)) {
            match judge_issuer(Which::Ca, &root.read, depth, Usage::Server, search.now) {
                Ok(()) if root.read.constrains_names => {
                    let text = "limits names, and the server's certificate is a CA's: reissue that with CA:FALSE";
                    closest = Refusal::new(Code::UnknownCa, Which::Ca, text);
                }
                Ok(()) => return Ok(()),
                Err(refusal) => closest = refusal,
            }
        }
        let others = search.sent.iter().filter(|one| depth < MAX_DEPTH && one.read.spki != read.spki);
        for one in others.filter(|one| search.is_issuer(&one.read, der, read)) {
            let good = judge_issuer(Which::Intermediate, &one.read, depth, Usage::Server, search.now);
            match good.and_then(|()| self.vouch_for_ca(one.der, &one.read, search, depth + 1)) {
                Ok(()) if one.read.constrains_names => {}
                Ok(()) => return Ok(()),
                Err(refusal) => closest = refusal,
            }
        }
        if search.signatures.get() == 0 { Err(Refusal::too_many()) } else { Err(closest) }
    }

    /// A certificate whose signature cannot be verified, because of its algorithm.
    fn unverifiable(&self, server: &Certificate, sent: &[Sent<'_>]) -> Option<Refusal> {
        let sent = || sent.iter().map(|one| &one.read);
        let all = std::iter::once((Which::Server, server)).chain(sent().map(|read| (Which::Intermediate, read)));
        all.filter(|(_, read)| !read.is_self_issued()).find_map(|(which, read)| {
            let issuers = sent().chain(self.0.iter().map(|root| &root.read));
            let mut keys = issuers.filter(|issuer| issuer.subject == read.issuer).map(|issuer| &issuer.key).peekable();
            keys.peek()?;
            let why: Option<Vec<String>> = keys.map(|key| read.signature.refusal(key)).collect();
            Some(Refusal::new(Code::Tls, which, why?.into_iter().next()?))
        })
    }

    /// The first moments of the certificates that vouch for one of `issuers` (DER Names).
    pub fn beginnings<'a>(&'a self, issuers: &'a [Vec<u8>]) -> impl Iterator<Item = SystemTime> + 'a {
        let vouches = |root: &&Root| issuers.contains(&root.read.subject);
        self.0.iter().filter(vouches).map(|root| root.read.not_before)
    }
}

/// Why a handshake was not signed by the key in the server's certificate, where that key is the reason.
pub fn weak_handshake(end_entity: &CertificateDer<'_>) -> Option<Refusal> {
    match Certificate::read(end_entity)?.key {
        Key::Rsa(bits) if bits < RSA_FULL => {
            let what =
                format!("has {}, whose TLS 1.3 firstboot cannot verify: reissue it with {BETTER}", Key::Rsa(bits));
            Some(Refusal::new(Code::Tls, Which::Server, what))
        }
        _ => None,
    }
}

/// Go's `isValid`, and the purposes, for a certificate of the path.
fn judge(which: Which, read: &Certificate, usage: Usage, now: SystemTime) -> Result<(), Refusal> {
    if now < read.not_before {
        return Err(Refusal::new(Code::CertificateDates, which, "is not yet valid"));
    }
    if now > read.not_after {
        return Err(Refusal::new(Code::CertificateDates, which, "has expired"));
    }
    match read.cannot_prove(usage) {
        Some(why) => Err(Refusal::new(Code::Tls, which, why)),
        None => Ok(()),
    }
}

/// The same for a CA on the path, with `below` more CAs between it and the server.
fn judge_issuer(which: Which, read: &Certificate, below: usize, usage: Usage, now: SystemTime) -> Result<(), Refusal> {
    if let Some(why) = read.cannot_issue(which == Which::Ca, below) {
        return Err(Refusal::new(Code::UnknownCa, which, why));
    }
    judge(which, read, usage, now)
}

/// Whether the key of `issuer` signed the certificate `der`.
fn signed_by(der: &[u8], issuer: &Certificate) -> bool {
    let Some(signed) = certificate::signed(der) else { return false };
    let spki = SubjectPublicKeyInfoDer::from(issuer.spki.as_slice());
    let Ok(key) = RawPublicKeyEntity::try_from(&spki) else { return false };
    let named =
        |algorithm: &&&dyn SignatureVerificationAlgorithm| algorithm.signature_alg_id().as_ref() == signed.algorithm;
    ALGORITHMS.all.iter().filter(named).any(|a| key.verify_signature(*a, signed.content, signed.signature).is_ok())
}

/// Purposes are judged here, not by webpki: a certificate may be for its end of the connection, for everything, or say
/// nothing.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    /// [`judge`] has looked at the peer's own certificate, and [`Roots::judge_path`] looks at the CAs.
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// What webpki says, in words.
fn refusal(error: &webpki::Error) -> Refusal {
    use webpki::Error as E;
    let other = |which, what: &str| Refusal::new(Code::Tls, which, what);
    match error {
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refusal::unknown(),
        // The server's own dates were right before webpki looked.
        E::CertExpired { .. } => Refusal::new(Code::CertificateDates, Which::Intermediate, "has expired"),
        E::CertNotValidYet { .. } => Refusal::new(Code::CertificateDates, Which::Intermediate, "is not yet valid"),
        E::InvalidCertValidity => other(Which::Server, "is valid at no time: it ends before it begins"),
        E::EndEntityUsedAsCa => {
            Refusal::new(Code::UnknownCa, Which::Intermediate, "is not a CA's: its basicConstraints lack CA:TRUE")
        }
        E::PathLenConstraintViolated => {
            let what = "has more CAs below it than its pathLenConstraint permits";
            Refusal::new(Code::UnknownCa, Which::Intermediate, what)
        }
        E::NameConstraintViolation => {
            other(Which::Server, "has a name that a CA above it may not certify (nameConstraints)")
        }
        E::InvalidNetworkMaskConstraint | E::MalformedNameConstraint => {
            other(Which::Ca, "has nameConstraints that cannot be read")
        }
        E::UnsupportedCertVersion => other(Which::Server, "is not of X.509 version 3: reissue it"),
        E::UnsupportedCriticalExtension => {
            other(Which::Server, "or one above it has a critical extension that firstboot does not know")
        }
        E::MaximumPathDepthExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => Refusal::too_many(),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            other(Which::Server, "is signed by an algorithm that its CA's key cannot have: reissue it")
        }
        _ => Refusal::malformed(Which::Server),
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
