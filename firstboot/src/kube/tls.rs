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
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DEFAULT_VERSIONS, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};
use x509_cert::der::Decode;

use super::error;
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
    provider: CryptoProvider,
}

#[derive(Debug)]
struct State {
    roots: RootCertStore,
    validity: Validity,
    /// What the last accepted server sent, its own certificate first.
    presented: Vec<CertificateDer<'static>>,
}

impl PinnedCa {
    /// Trusts these certificates; those that cannot serve as a CA are left out.
    pub fn new(trusted: Vec<CertificateDer<'static>>, validity: Validity) -> Arc<Self> {
        let state = State { roots: roots(trusted), validity, presented: Vec::new() };
        Arc::new(PinnedCa { state: Mutex::new(state), provider: ring::default_provider() })
    }

    /// Checks that the server which was accepted last is valid at its own time `now`: some path from its certificate to
    /// a CA that was trusted so far must be. From then on trusts `trusted` and judges dates by `now`.
    ///
    /// # Errors
    /// No such path, as rustls says it; no server was accepted.
    pub fn settle(&self, trusted: Vec<CertificateDer<'static>>, now: SystemTime) -> Result<(), Error> {
        let mut state = self.state();
        let Some((end_entity, intermediates)) = state.presented.split_first() else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        self.verify_path(&state.roots, end_entity, intermediates, unix_time(now))?;
        state.roots = roots(trusted);
        state.validity = Validity::Server(now, Instant::now());
        Ok(())
    }

    /// Whether a path from the server's certificate to one of `roots` is valid at `now`. Certificates that the server
    /// sends beside that path may have any dates.
    fn verify_path(
        &self,
        roots: &RootCertStore,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
    }

    /// Whether such a path is valid at some time. The latest begin of validity along a path is a time at which all of
    /// it is valid, if there is one, so these are the times to try. The error is that of the latest time.
    fn verify_path_at_any_time(
        &self,
        roots: &RootCertStore,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let mut times: Vec<UnixTime> = chain.filter_map(dates).map(|(from, _)| unix_time(from)).collect();
        times.sort_unstable();
        times.dedup();
        let mut result = Err(CertificateError::BadEncoding.into());
        for time in times {
            result = self.verify_path(roots, end_entity, intermediates, time);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn roots(trusted: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted);
    roots
}

/// From when until when a certificate is valid.
pub fn dates(der: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let validity = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate.validity;
    Some((validity.not_before.to_system_time(), validity.not_after.to_system_time()))
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO))
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
            Validity::SystemClock => self.verify_path(&state.roots, end_entity, intermediates, now),
            Validity::Server(time, read) => {
                self.verify_path(&state.roots, end_entity, intermediates, unix_time(time + read.elapsed()))
            }
            Validity::SetAside => self.verify_path_at_any_time(&state.roots, end_entity, intermediates),
        }?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        state.presented = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts any server. Only for the first fetch of cluster-info, which carries no secret and whose answer is
/// believed only after signature and pin hold.
#[derive(Debug)]
struct Unverified(CryptoProvider);

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
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Settings of a connection that proves nothing about the server.
pub fn unverified() -> Result<ClientConfig, Error> {
    Ok(settings(Arc::new(Unverified(ring::default_provider())), DEFAULT_VERSIONS)?.with_no_client_auth())
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
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_protocol_versions(versions)?.dangerous().with_custom_certificate_verifier(verifier))
}

/// Why TLS settings cannot be used.
pub(super) fn setup(error: Error) -> error::Error {
    error::Error::answer(Code::Cluster, format!("set up TLS: {error}"))
}
