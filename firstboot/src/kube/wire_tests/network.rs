// SPDX-License-Identifier: Apache-2.0
//! Networks between the device and the cluster that refuse, cut, redirect or answer themselves: each cause by its
//! exact message.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::fault::{Code, Fault};
use crate::kube::error::Kind;

const PORTAL: &str = "API server HOST answers with a web page, not the Kubernetes API: is a captive portal or a proxy \
                      in between?";
const NO_TLS: &str = "talk to API server HOST: it does not speak TLS: is a captive portal or a proxy in between?";
const PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The first request of a join to `at`, by the digest of a CA. It proves nothing, sends no secret and gives the cause.
fn found_by_digest(at: &Endpoint) -> Error {
    let cluster = Cluster {
        apiserver: vec![at.clone()],
        token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
        trust: Trust::Pins(vec![crate::seed::CaPin::parse(PIN).unwrap()]),
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
    let Some(Err(error)) = found else { panic!("a cluster was found at {at}") };
    assert!(!error.text.contains("0123456789abcdef"), "{}", error.text);
    Error { text: error.text.replace(&at.to_string(), "HOST"), ..error }
}

/// Gives every connection to `each`.
fn listen(each: impl Fn(TcpStream) + Send + 'static) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Endpoint { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    std::thread::spawn(move || listener.incoming().for_each(|socket| each(socket.unwrap())));
    at
}

/// What an HTTPS server answers becomes this error; verified or not, it is the same.
fn answered(reply: String) -> Error {
    let ca = Ca::new();
    let at = serve(ca.leaf("127.0.0.1", 2020, 2090), reply.clone());
    let verified = get(&at, PinnedCa::new(ca.trusted(), Validity::SystemClock)).unwrap_err();
    let by_digest = found_by_digest(&at);
    let text = verified.text.replace(&at.to_string(), "HOST");
    assert_eq!(text.replace("/x", "PATH"), by_digest.text.replace(super::super::discovery::CLUSTER_INFO, "PATH"));
    Error { text, ..verified }
}

#[test]
fn portals_and_proxies_that_answer_https_themselves() {
    assert_eq!(answered(http("200 OK\r\nContent-Type: text/html; charset=utf-8", "<html>")).text, PORTAL);
    let redirect = |head: &str| answered(http(head, "<html>")).text;
    assert_eq!(
        redirect("302 Found\r\nLocation: https://portal.example.com/?q=1\r\nContent-Type: text/html"),
        "API server HOST redirects to portal.example.com, which the Kubernetes API never does: is a captive portal or \
         a proxy in between?"
    );
    assert_eq!(
        redirect("307 Temporary Redirect\r\nLocation: /login"),
        "API server HOST redirects to another page, which the Kubernetes API never does: is a captive portal or a \
         proxy in between?"
    );
    assert_eq!(
        answered(http("511 Network Authentication Required\r\nContent-Type: text/html", "<html>")).text,
        "a proxy or captive portal answers in place of API server HOST: 511 Network Authentication Required"
    );
    assert_eq!(
        answered(http("407 Proxy Authentication Required", "")).text,
        "a proxy or captive portal answers in place of API server HOST: 407 Proxy Authentication Required"
    );
    assert_eq!(answered(http("503 Service Unavailable\r\nContent-Type: text/html", "<html>")).text, PORTAL);
    assert_eq!(
        answered(http("502 Bad Gateway", "")).text,
        "GET /x: API server HOST answers 502 Bad Gateway, not in the words of the Kubernetes API: is a proxy in \
         between?"
    );
    assert_eq!(
        answered(http("200 OK", "hello")).text,
        "API server HOST answers with something that is not the Kubernetes API"
    );
    // A verified portal is not possible: its certificate is not the cluster's.
    let (portal, cluster) = (Ca::new(), Ca::new());
    let at = serve(portal.leaf("127.0.0.1", 2020, 2090), http("200 OK\r\nContent-Type: text/html", "<html>"));
    let want = format!("certificate of API server {at} is not signed by the cluster's CA");
    assert_eq!(message(&at, &cluster, Validity::SystemClock), want);
}

#[test]
fn refusals_of_the_api_server_itself() {
    let error = answered(http("418 I'm a teapot", r#"{"kind":"Status","message":"a \"x\" is\nforbidden"}"#));
    assert_eq!((error.kind, error.retry_after), (Kind::Status(418), None));
    assert_eq!(error.text, "GET /x: API server HOST answers 418 I'm a teapot: a \"x\" is forbidden");
    let body = r#"{"kind":"Status","message":"etcd is away","details":{"retryAfterSeconds":3}}"#;
    let error = answered(http("503 Service Unavailable\r\nRetry-After: 3", body));
    let text = "GET /x: API server HOST answers 503 Service Unavailable: etcd is away; it asks to wait 3 s";
    assert_eq!((error.text.as_str(), error.retry_after), (text, Some(Duration::from_secs(3))));
    // As kube-apiserver says it when it has too much to do, in plain text.
    let error = answered(http("429 Too Many Requests\r\nRetry-After: 1", "Too many requests, please try again later."));
    let text = "GET /x: API server HOST answers 429 Too Many Requests; it asks to wait 1 s";
    assert_eq!((error.text.as_str(), error.retry_after), (text, Some(Duration::from_secs(1))));
    let fault = Fault::from(error);
    assert_eq!((fault.code, fault.retry_after), (Code::ApiError, Some(Duration::from_secs(1))));
}

#[test]
fn cluster_info_that_only_known_users_may_read() {
    for (status, what) in [
        ("401 Unauthorized", "may not be read without a credential (401)"),
        ("403 Forbidden", "may not be read without a credential (403)"),
        ("404 Not Found", "does not exist (404)"),
    ] {
        let reply = http(status, r#"{"kind":"Status","message":"m"}"#);
        let at = serve(Ca::new().leaf("127.0.0.1", 2020, 2090), reply);
        assert_eq!(
            found_by_digest(&at).text,
            format!(
                "cluster-info of HOST {what}: publish it with kubeadm init phase bootstrap-token, or put ca-cert in \
                 place of ca-cert-hashes in seed.toml"
            )
        );
    }
}

#[test]
fn ports_that_do_not_speak_tls() {
    for reply in ["HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>"] {
        let at = listen(move |mut socket| {
            let _ = socket.write_all(reply.as_bytes());
            // The client ends it, so that what was written is not lost to a reset.
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.read(&mut [0; 4096]);
        });
        assert_eq!(found_by_digest(&at).text, NO_TLS);
    }
}

#[test]
fn handshakes_that_are_cut() {
    let want = "start TLS with API server HOST: connection cut in the handshake: is a firewall or a proxy in between?";
    let closed = listen(|mut socket| drop(socket.read(&mut [0; 4096])));
    assert_eq!(found_by_digest(&closed).text, want);
    // What was sent is not read: the kernel ends the connection with a reset.
    let reset = listen(|socket| drop(socket.peek(&mut [0; 1])));
    assert_eq!(found_by_digest(&reset).text, want);
}

#[test]
fn addresses_that_lead_nowhere() {
    let silent = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
    };
    assert_eq!(found_by_digest(&silent).text, "connect to API server HOST: connection refused");
    let address = |host: &str| Endpoint { host: host.to_owned(), port: 6443 };
    // The kernel has no route to it over TCP, whatever the machine's network is.
    let error = found_by_digest(&address("255.255.255.255"));
    assert_eq!((error.kind, error.text.as_str()), (Kind::Transport, "connect to API server HOST: network unreachable"));
    // A name that never exists (RFC 6761 section 6.4).
    let error = found_by_digest(&address("api.invalid"));
    assert_eq!((error.kind, error.text.as_str()), (Kind::Transport, "connect to API server HOST: name not resolved"));
}

#[test]
fn servers_that_never_answer() {
    let (sender, held) = std::sync::mpsc::channel();
    let at = listen(move |socket| sender.send(socket).unwrap());
    assert_eq!(found_by_digest(&at).text, "connect to API server HOST: no answer in time");
    drop(held);
}

#[test]
fn all_servers_are_tried_and_all_causes_told() {
    let silent = listen(drop).port;
    let at = |port: u16| Endpoint { host: "127.0.0.1".to_owned(), port };
    let busy = serve(Ca::new().leaf("127.0.0.1", 2020, 2090), http("429 Too Many Requests\r\nRetry-After: 9", ""));
    let cluster = Cluster {
        apiserver: vec![at(silent), busy.clone()],
        token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
        trust: Trust::Pins(vec![crate::seed::CaPin::parse(PIN).unwrap()]),
        token_expires: None,
        certificate_key: None,
        virtual_ip: None,
    };
    let error = run(async { Ok(discover(&cluster, &Via::default(), year(2026)).await.err().unwrap()) }).unwrap();
    let want = format!(
        "start TLS with API server 127.0.0.1:{silent}: connection cut in the handshake: is a firewall or a proxy in \
         between?; GET {}: API server {busy} answers 429 Too Many Requests; it asks to wait 9 s",
        super::super::discovery::CLUSTER_INFO
    );
    assert_eq!((error.text, error.retry_after), (want, Some(Duration::from_secs(9))));
}
