// SPDX-License-Identifier: Apache-2.0
//! What a server can do wrong on the wire, by a small TLS server in this process; a real kube-apiserver, which does
//! none of it, is met in tests/tests/join.

pub(crate) mod cluster;
mod dates;
mod network;
mod proxy;
mod token;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use super::client::Client;
use super::discovery::discover;
use super::error::Error;
use super::pin;
use super::runtime::run;
use super::tls::{PinnedCa, Validity, unverified, verified};
use crate::proxy::Via;
use crate::seed::{Cluster, Endpoint, JoinToken, Trust};

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A CA's certificate with this common name, valid in the years `from` to `until`.
fn ca_params(name: &str, from: i32, until: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

impl Ca {
    pub(crate) fn new() -> Self {
        Ca::named("kubernetes", KeyPair::generate().unwrap())
    }

    /// A CA with this common name and key; its certificate is signed by itself.
    pub(crate) fn named(name: &str, key: KeyPair) -> Self {
        let params = ca_params(name, 2000, 2100);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// A CA whose own certificate is valid in the years `from` to `until`.
    pub(crate) fn within(from: i32, until: i32) -> Self {
        let (params, key) = (ca_params("kubernetes", from, until), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn trusted(&self) -> Vec<CertificateDer<'static>> {
        pin::certificates(&self.pem).unwrap()
    }

    /// The certificate of another CA over `key`, DER: the key of a new CA below this one, or of one that exists.
    pub(crate) fn sign_ca(&self, name: &str, key: &KeyPair, from: i32, until: i32) -> CertificateDer<'static> {
        ca_params(name, from, until).signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// A server's certificate for `name`, valid in the years `from` to `until`.
    pub(crate) fn leaf(&self, name: &str, from: i32, until: i32) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    /// The certificate by which the API server knows the node `name`, valid in the years `from` to `until`.
    pub(crate) fn node(&self, name: &str, from: i32, until: i32) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }
}

/// Answers every request with `reply`, status line and all.
pub(crate) fn serve(leaf: (CertificateDer<'static>, KeyPair), reply: String) -> Endpoint {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), leaf, reply)
}

pub(crate) fn serve_on(listener: TcpListener, leaf: (CertificateDer<'static>, KeyPair), reply: String) -> Endpoint {
    serve_chain(listener, vec![leaf.0], &leaf.1, reply).0
}

/// The requests that a server has read, head and body of each.
pub(crate) type Requests = Arc<Mutex<Vec<String>>>;

/// Answers every request with `reply`, shows the certificates `chain` and records the requests.
pub(crate) fn serve_chain(
    listener: TcpListener,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    reply: String,
) -> (Endpoint, Requests) {
    let local = listener.local_addr().unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, mut tls) = (socket.unwrap(), ServerConnection::new(config.clone()).unwrap());
            let mut stream = Stream::new(&mut tls, &mut socket);
            let mut request = [0; 4096];
            // One request a connection; a client that gives up during the handshake is part of the tests.
            if let Ok(n) = stream.read(&mut request)
                && n > 0
            {
                seen.lock().unwrap().push(String::from_utf8_lossy(&request[..n]).into_owned());
                let _ = stream.write_all(reply.as_bytes());
                tls.send_close_notify();
                let _ = tls.complete_io(&mut socket);
            }
        }
    });
    (Endpoint { host: local.ip().to_string(), port: local.port() }, requests)
}

pub(crate) fn http(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn ok_json(body: &str) -> String {
    http("200 OK\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 16:31:48 GMT", body)
}

fn get(at: &Endpoint, ca: Arc<PinnedCa>) -> Result<super::client::Reply, Error> {
    let client = Client::new(&format!("https://{at}"), verified(ca).unwrap()).unwrap();
    let mut result = None;
    run(async {
        result = Some(client.get("/x").await);
        Ok(())
    })
    .unwrap();
    result.unwrap()
}

fn message(at: &Endpoint, ca: &Ca, validity: Validity) -> String {
    get(at, PinnedCa::new(ca.trusted(), validity)).unwrap_err().text
}

fn year(year: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
}

#[test]
fn dates_are_set_aside_then_judged_by_the_servers_time() {
    let ca = Ca::new();
    let at = serve(ca.leaf("127.0.0.1", 2020, 2022), ok_json("{}"));
    assert_eq!(message(&at, &ca, Validity::SystemClock), format!("certificate of API server {at} has expired"));
    let early = Validity::Server(year(2019), std::time::Instant::now());
    assert_eq!(message(&at, &ca, early), format!("certificate of API server {at} is not yet valid"));
    let pinned = PinnedCa::new(ca.trusted(), Validity::SetAside);
    let reply = get(&at, pinned.clone()).unwrap();
    assert_eq!(reply.date.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_795_365_108);
    let why = |time: u64| pinned.settle(ca.trusted(), year(time)).unwrap_err();
    assert_eq!(why(2023).to_string(), "certificate has expired");
    assert_eq!(why(2019).to_string(), "certificate is not yet valid");
    assert_eq!(pinned.settle(ca.trusted(), year(2021)), Ok(()));
    assert!(get(&at, pinned).is_ok());
}

#[test]
fn without_a_server_there_is_nothing_to_settle() {
    let ca = Ca::new();
    assert!(PinnedCa::new(ca.trusted(), Validity::SetAside).settle(ca.trusted(), year(2021)).is_err());
}

#[test]
fn certificates_that_prove_nothing() {
    let (ca, other) = (Ca::new(), Ca::new());
    let at = serve(ca.leaf("api.example.org", 2020, 2090), ok_json("{}"));
    assert_eq!(
        message(&at, &ca, Validity::SetAside),
        format!("certificate of API server {at} does not cover that address: it covers api.example.org")
    );
    let at = serve(ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
    let want = format!("certificate of API server {at} is not signed by the cluster's CA");
    assert_eq!(message(&at, &other, Validity::SetAside), want);
    assert!(get(&at, PinnedCa::new(ca.trusted(), Validity::SystemClock)).is_ok());
}

/// cluster-info with these CA certificates, signed with `token`.
fn cluster_info(bundle: &str, token: &JoinToken) -> String {
    cluster_info_of("https://10.0.0.1:6443", bundle, token)
}

/// The same, naming `server`.
fn cluster_info_of(server: &str, bundle: &str, token: &JoinToken) -> String {
    let config = format!(
        "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \"\"\n",
        STANDARD.encode(bundle)
    );
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, token.secret().as_bytes());
    let tag = ring::hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(&config)).as_bytes());
    let jws = format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag));
    let name = format!("jws-kubeconfig-{}", token.id());
    ok_json(&serde_json::json!({"data": {"kubeconfig": config, name: jws}}).to_string())
}

#[test]
fn who_shares_the_token_cannot_add_a_ca_to_the_bundle() {
    let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
    let (real, own) = (Ca::new(), Ca::new());
    let bundle = format!("{}{}", real.pem, own.pem);
    let attempt = |server: &Ca| {
        let at = serve(server.leaf("127.0.0.1", 2020, 2090), cluster_info(&bundle, &token));
        let trust = Trust::Pins(vec![pin::pin_of(&real.trusted()[0]).unwrap()]);
        let cluster = Cluster {
            apiserver: vec![at.clone()],
            token: token.clone(),
            trust,
            token_expires: None,
            certificate_key: None,
            virtual_ip: None,
        };
        let mut found = None;
        run(async {
            found = Some(discover(&cluster, &Via::default(), year(2026)).await);
            Ok(())
        })
        .unwrap();
        found.unwrap().map_err(|e| e.text.replace(&at.to_string(), "HOST"))
    };
    let Err(text) = attempt(&own) else { panic!("an impostor was believed") };
    let digest = pin::pin_of(&own.trusted()[0]).unwrap();
    let want = format!(
        "certificate of API server HOST is signed by another CA of cluster-info than ca-cert-hashes names: add {digest} \
         if the cluster is replacing its CA; if not, it is an impostor"
    );
    assert_eq!(text, want);
    let found = attempt(&real).unwrap_or_else(|text| panic!("{text}"));
    assert_eq!((found.cluster.ca_pem.as_str(), found.server.as_str()), (bundle.as_str(), "https://10.0.0.1:6443"));
}

#[test]
fn unverified_believes_any_certificate_but_says_so_in_its_name() {
    let at = serve(Ca::new().leaf("elsewhere", 2000, 2001), ok_json(r#"{"a":1}"#));
    let client = Client::new(&format!("https://{at}"), unverified().unwrap()).unwrap();
    let reply = run(async { Ok(client.get("/x").await?) }).unwrap();
    assert_eq!(reply.body["a"], 1);
}

#[test]
fn ipv6_addresses_are_verified_without_their_brackets() {
    // A build machine without IPv6 has nothing to show here.
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let ca = Ca::new();
    let at = serve_on(listener, ca.leaf("::1", 2020, 2090), ok_json("{}"));
    assert!(at.to_string().starts_with("[::1]:"));
    let reply = get(&at, PinnedCa::new(ca.trusted(), Validity::SystemClock)).map_err(|e| e.text);
    assert!(reply.is_ok(), "{reply:?}");
}
