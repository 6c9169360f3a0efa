// SPDX-License-Identifier: Apache-2.0
//! TLS settings of the three kinds of request: unverified (the first look at cluster-info), verified against the
//! cluster's CA with a say over validity dates, and the same with the node's own certificate.
//!
//! Most small boards have no clock chip, so dates can only be judged once the server's own time is believed
//! (product decision "time from the cluster"): [`PinnedCa`] sets them aside for the first verified handshake and
//! judges them by [`PinnedCa::settle`] afterwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DEFAULT_VERSIONS, DigitallySignedStruct, Error, OtherError,
    SignatureScheme, SupportedProtocolVersion,
};

use super::algorithms::{self, ALGORITHMS};
use super::chain::{self, Refusal, Roots, Which};
use super::{error, pin, tls_error};
use crate::certificate::Certificate;
use crate::certificate::names::covers;
use crate::fault::Code;

/// By which clock certificates are judged.
#[derive(Debug, Clone, Copy)]
pub enum Validity {
    /// The device's own.
    SystemClock,
    /// Not at all: the chain and the name must hold, dates may be anything.
    SetAside,
    /// A time that was read off the verified server, and the moment when it was.
    Server(SystemTime, Instant),
}

/// Accepts servers whose certificate the given CA certificates vouch for.
#[derive(Debug)]
pub struct PinnedCa {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    roots: Roots,
    /// What is not trusted, but named when it vouches for a server: the certificates beside the pinned ones.
    others: Vec<CertificateDer<'static>>,
    validity: Validity,
    /// What the last accepted server sent, its own certificate first.
    presented: Vec<CertificateDer<'static>>,
}

impl PinnedCa {
    /// Trusts these certificates; those that cannot be read are left out.
    pub fn new(trusted: Vec<CertificateDer<'static>>, validity: Validity) -> Arc<Self> {
        PinnedCa::beside(trusted, Vec::new(), validity)
    }

    /// The same, where `others` are certificates of the same bundle that the seed does not name: a server of theirs is
    /// refused, by their digest.
    pub fn beside(
        trusted: Vec<CertificateDer<'static>>,
        others: Vec<CertificateDer<'static>>,
        validity: Validity,
    ) -> Arc<Self> {
        let state = State { roots: Roots::new(trusted), others, validity, presented: Vec::new() };
        Arc::new(PinnedCa { state: Mutex::new(state) })
    }

    /// Checks that the server which was accepted last is valid at its own time `now`: some path from its certificate to
    /// a CA that was trusted so far must be. From then on trusts `trusted` and judges dates by `now`.
    ///
    /// # Errors
    /// No such path; no server was accepted.
    pub fn settle(&self, trusted: Vec<CertificateDer<'static>>, now: SystemTime) -> Result<(), Refusal> {
        let mut state = self.state();
        let Some((end_entity, intermediates)) = state.presented.split_first() else {
            return Err(Refusal::new(Code::UnknownCa, Which::Server, "was not seen"));
        };
        state.roots.verify(end_entity, intermediates, now)?;
        state.roots = Roots::new(trusted);
        state.validity = Validity::Server(now, Instant::now());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Names the CA that vouches for the server in place of a trusted one, if there is one in the bundle.
    fn name_other(
        &self,
        refusal: Refusal,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Refusal {
        let vouches = |other: &&CertificateDer<'static>| {
            let alone = Roots::new(vec![(*other).clone()]);
            verify_at_any_time(&alone, end_entity, intermediates).is_ok()
        };
        let mut others = self.others.iter().filter(|_| refusal.code == Code::UnknownCa);
        match others.find(vouches).and_then(|other| pin::pin_of(other)) {
            Some(digest) => Refusal {
                what: format!(
                    "is signed by another CA of cluster-info than ca-cert-hashes names: add {digest} if the cluster is \
                     replacing its CA; if not, it is an impostor"
                ),
                ..refusal
            },
            None => refusal,
        }
    }
}

/// Whether a path to one of `roots` is valid at some time. The latest begin of validity along a path is a time at which
/// all of it is valid, if there is one, so these are the times to try. The error is that of the latest time.
fn verify_at_any_time(
    roots: &Roots,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    let sent = std::iter::once(end_entity).chain(intermediates);
    let sent: Vec<Certificate> = sent.filter_map(|der| Certificate::read(der)).collect();
    let issuers: Vec<Vec<u8>> = sent.iter().map(|read| read.issuer.clone()).collect();
    let mut times: Vec<SystemTime> = sent.iter().map(|read| read.not_before).collect();
    times.extend(roots.beginnings(&issuers));
    times.sort_unstable();
    times.dedup();
    let mut result = roots.verify(end_entity, intermediates, times.pop().unwrap_or(SystemTime::UNIX_EPOCH));
    while let (Err(refusal), Some(time)) = (&result, times.pop())
        && *refusal != Refusal::too_many()
    {
        let earlier = roots.verify(end_entity, intermediates, time);
        if earlier.is_ok() {
            result = earlier;
        }
    }
    result
}

/// From when until when a certificate is valid.
pub fn dates(der: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    Certificate::read(der).map(|read| (read.not_before, read.not_after))
}

/// Whether the certificate covers the server's name: as webpki says, or as Go says of wildcards that webpki refuses.
fn verify_name(end_entity: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Result<(), Error> {
    let result = verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
    let ServerName::DnsName(host) = server_name else { return result };
    let names = Certificate::read(end_entity).map(|read| read.dns_names).unwrap_or_default();
    match names.iter().any(|presented| covers(presented, host.as_ref())) {
        true => Ok(()),
        false => result,
    }
}

/// A refusal as rustls passes it on; [`tls_error::refusal`] finds it again.
fn refused(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

fn system(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut state = self.state();
        match state.validity {
            Validity::SystemClock => state.roots.verify(end_entity, intermediates, system(now)),
            Validity::Server(time, read) => state.roots.verify(end_entity, intermediates, time + read.elapsed()),
            Validity::SetAside => verify_at_any_time(&state.roots, end_entity, intermediates),
        }
        .map_err(|refusal| refused(state.name_other(refusal, end_entity, intermediates)))?;
        verify_name(end_entity, server_name)?;
        state.presented = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &ALGORITHMS).map_err(|e| handshake(cert, e))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS).map_err(|e| handshake(cert, e))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Why the server's signature of the handshake does not hold.
fn handshake(cert: &CertificateDer<'_>, error: Error) -> Error {
    chain::weak_handshake(cert).map_or(error, refused)
}

/// Accepts any server. Only for the first fetch of cluster-info, which carries no secret and whose answer is
/// believed only after signature and pin hold.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Settings of a connection that proves nothing about the server.
pub fn unverified() -> Result<ClientConfig, Error> {
    Ok(settings(Arc::new(Unverified), DEFAULT_VERSIONS)?.with_no_client_auth())
}

/// Settings of a verified connection without a certificate of our own.
pub fn verified(ca: Arc<PinnedCa>) -> Result<ClientConfig, Error> {
    only(ca, DEFAULT_VERSIONS)
}

/// Settings of a verified connection without a certificate of our own, in these versions of TLS alone.
pub fn only(ca: Arc<PinnedCa>, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig, Error> {
    Ok(settings(ca, versions)?.with_no_client_auth())
}

/// Settings of a verified connection as the owner of `key`.
pub fn identified(
    ca: Arc<PinnedCa>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    settings(ca, DEFAULT_VERSIONS)?.with_client_auth_cert(chain, key)
}

/// What all connections have in common.
fn settings(
    verifier: Arc<dyn ServerCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(algorithms::provider()));
    Ok(builder.with_protocol_versions(versions)?.dangerous().with_custom_certificate_verifier(verifier))
}

/// Why TLS settings cannot be used.
pub(super) fn setup(error: Error) -> error::Error {
    error::Error::answer(Code::Cluster, format!("set up TLS: {}", tls_error::words(&error)))
}
