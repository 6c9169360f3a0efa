// SPDX-License-Identifier: Apache-2.0
//! Which servers firstboot believes: those that Go's TLS client believes, which kubeadm, kubelet and containerd use.
//!
//! `tests/judge/certificates` makes servers with certificates of all kinds, and has Go judge each. firstboot asks the same
//! servers, with dates judged by this machine's clock, and with dates set aside until the server has given the time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use firstboot::kube::client::{Client, host_of};
use firstboot::kube::clock::server_time;
use firstboot::kube::pin;
use firstboot::kube::tls::{PinnedCa, Validity, verified};
use firstboot::proxy::Via;
use rustls::CertificateError::NotValidForNameContext;
use rustls::ClientConnection;
use rustls::Error::InvalidCertificate;
use rustls::pki_types::ServerName;
use serde_json::Value;

/// What Go believes and firstboot does not, in its words. Each is a limit that docs/rationale.md names.
const STRICTER: [(&str, &str); 9] = [
    (
        "ca-p224-leaf-p256-sha256",
        "FB416: certificate of API server HOST is signed by ECDSA with SHA-256 on P-224, which firstboot cannot verify: BETTER",
    ),
    (
        "ca-p224-leaf-p521-sha512",
        "FB416: certificate of API server HOST is signed by ECDSA with SHA-512 on P-224, which firstboot cannot verify: BETTER",
    ),
    (
        "ca-rsa1024-leaf-rsa2048-sha384",
        "FB416: certificate of API server HOST is signed by RSA with SHA-384 and an RSA key of 1024 bits, which firstboot cannot verify: BETTER",
    ),
    (
        "ca-rsa1024-leaf-rsa2048-pss256",
        "FB416: certificate of API server HOST is signed by RSA-PSS with SHA-256 and an RSA key of 1024 bits, which firstboot cannot verify: BETTER",
    ),
    ("ca-rsa2048-leaf-rsa1024-sha256", WEAK_SERVER),
    ("tls1.2-rsa1024", WEAK_SERVER),
    ("tls1.3-rsa1024", WEAK_SERVER),
    (
        "server-critical-policies",
        "FB416: certificate of API server HOST or one above it has a critical extension that firstboot does not know",
    ),
    (
        "ca-true-name-constraints",
        "FB414: CA certificate of API server HOST limits names, and the server's certificate is a CA's: reissue that with CA:FALSE",
    ),
];

const WEAK_SERVER: &str = "FB416: certificate of API server HOST has an RSA key of 1024 bits, whose TLS 1.3 firstboot \
                           cannot verify: BETTER";
const BETTER: &str = "reissue it with RSA with 2048 bits or more, ECDSA or Ed25519, and SHA-256 or longer";

/// What both refuse, in firstboot's words.
const REFUSED: [(&str, &str); 24] = [
    (
        "ca-rsa2048-sha1",
        "FB416: certificate of API server HOST is signed by RSA with SHA-1, which Kubernetes refuses: BETTER",
    ),
    (
        "ca-p256-sha1",
        "FB416: certificate of API server HOST is signed by ECDSA with SHA-1 on P-256, which Kubernetes refuses: BETTER",
    ),
    ("ca-p521-sha512-spoilt", UNKNOWN),
    ("root-expired", "FB415: CA certificate of API server HOST has expired"),
    ("root-not-yet-valid", "FB415: CA certificate of API server HOST is not yet valid"),
    ("root-no-basic-constraints", "FB414: CA certificate of API server HOST is not a CA's: it has no basicConstraints"),
    ("root-ca-false", "FB414: CA certificate of API server HOST is not a CA's: its basicConstraints have CA:FALSE"),
    (
        "root-without-cert-sign",
        "FB414: CA certificate of API server HOST may not sign certificates: its keyUsage lacks keyCertSign",
    ),
    (
        "root-for-clients",
        "FB416: CA certificate of API server HOST is not for servers: its extendedKeyUsage lacks serverAuth",
    ),
    (
        "root-unknown-critical",
        "FB416: CA certificate of API server HOST has critical extension 1.2.3.4, which Kubernetes does not know",
    ),
    (
        "root-permits-other-name",
        "FB416: certificate of API server HOST has a name that a CA above it may not certify (nameConstraints)",
    ),
    ("below-expired", "FB415: intermediate certificate of API server HOST has expired"),
    (
        "below-ca-false",
        "FB414: intermediate certificate of API server HOST is not a CA's: its basicConstraints lack CA:TRUE",
    ),
    (
        "below-without-cert-sign",
        "FB414: intermediate certificate of API server HOST may not sign certificates: its keyUsage lacks keyCertSign",
    ),
    (
        "below-path-length-0-of-root",
        "FB414: CA certificate of API server HOST has more CAs below it than its pathLenConstraint permits",
    ),
    ("below-not-sent", UNKNOWN),
    ("below-expired-root", "FB415: CA certificate of API server HOST has expired"),
    ("bundle-without-it", UNKNOWN),
    ("server-expired", "FB415: certificate of API server HOST has expired"),
    (
        "server-for-clients",
        "FB416: certificate of API server HOST is not for servers: its extendedKeyUsage lacks serverAuth",
    ),
    (
        "server-common-name-alone",
        "FB413: certificate of API server HOST has no subjectAltName of a server, and its common name does not count: reissue it with its addresses",
    ),
    ("signed-by-a-trusted-leaf", "FB414: CA certificate of API server HOST is not a CA's: it has no basicConstraints"),
    ("ca-true-expired-root", "FB415: CA certificate of API server HOST has expired"),
    ("ca-true-forged", UNKNOWN),
];

const UNKNOWN: &str = "FB414: certificate of API server HOST is not signed by the cluster's CA";

/// The program that serves and judges; ends with the test.
struct Judge(Child);

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// firstboot's verdict with dates by this machine's clock, and with dates by the server's: code and text of a refusal.
fn ask(server: &str, bundle: &str) -> (Result<(), String>, Result<(), String>) {
    let Some(trusted) = pin::certificates(bundle) else {
        let none = Err("FB422: its CA certificate cannot be read".to_owned());
        return (none.clone(), none);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = verified(PinnedCa::new(trusted, Validity::SystemClock)).unwrap();
    let reply = runtime.block_on(Client::new(server, tls).unwrap().get("/version"));
    let own = reply.map(drop).map_err(|error| format!("{}: {error}", error.code));
    let servers = server_time(&Via::default(), server, bundle).map(drop);
    (own, servers.map_err(|fault| format!("{}: {fault}", fault.code)))
}

/// The verdict on a name that only the certificate knows, by a handshake alone.
fn greet(host: &str, port: u64, bundle: &str) -> (Result<(), String>, Result<(), String>) {
    let verdict = |validity: Validity| {
        let tls = verified(PinnedCa::new(pin::certificates(bundle).unwrap(), validity)).unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(tls), name).unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut socket) {
                let error = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).unwrap();
                assert!(matches!(error, InvalidCertificate(NotValidForNameContext { .. })), "{host}: {error}");
                return Err("FB413".to_owned());
            }
        }
        Ok(())
    };
    (verdict(Validity::SystemClock), verdict(Validity::SetAside))
}

#[test]
fn firstboot_believes_the_servers_that_go_believes() {
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("judge");
    let source = "judge/certificates";
    let built =
        imagebuild::go::command().unwrap().args(["build", "-o"]).arg(&program).arg(".").current_dir(source).status();
    assert!(built.unwrap().success());
    let child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut judge = Judge(child);
    let mut stricter = BTreeMap::from(STRICTER);
    let mut refused = BTreeMap::from(REFUSED);
    let (mut wrong, mut believed, mut all) = (Vec::new(), 0, 0);
    for line in BufReader::new(judge.0.stdout.take().unwrap()).lines() {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |key: &str| case[key].as_str().unwrap();
        let (name, go) = (text("name"), text("refused"));
        let server = format!("https://{}:{}", text("host"), case["port"]);
        let (own, servers) = match text("host") {
            "127.0.0.1" => ask(&server, text("bundle")),
            host => greet(host, case["port"].as_u64().unwrap(), text("bundle")),
        };
        let place = host_of(&server);
        let tidy =
            |result: Result<(), String>| result.map_err(|text| text.replace(&place, "HOST").replace(BETTER, "BETTER"));
        let (own, servers) = (tidy(own), tidy(servers));
        all += 1;
        believed += usize::from(own.is_ok());
        let limit = stricter.remove(name);
        let expected = match limit {
            Some(limit) => Err(Some(limit)),
            None if go.is_empty() => Ok(()),
            None => Err(refused.remove(name)),
        };
        let agrees = match (&own, &expected) {
            (Ok(()), Ok(())) => true,
            (Err(text), Err(Some(words))) => text == words,
            (Err(text), Err(None)) => text.starts_with("FB4"),
            _ => false,
        };
        // The same with the server's time, but for the time that messages about dates give.
        let same = match (&own, &servers) {
            (Ok(()), Ok(())) => true,
            (Err(own), Err(servers)) => servers.starts_with(own.as_str()),
            _ => false,
        };
        if !agrees || !same {
            wrong.push(format!(
                "{name}:\n  Go       {go:?}\n  expected {expected:?}\n  found    {own:?}\n  settled  {servers:?}"
            ));
        }
        if case["last"] == true {
            break;
        }
    }
    println!("{all} kinds of servers: {believed} believed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(stricter.is_empty() && refused.is_empty(), "no such cases: {stricter:?} {refused:?}");
}
