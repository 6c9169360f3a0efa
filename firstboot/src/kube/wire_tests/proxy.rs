// SPDX-License-Identifier: Apache-2.0
//! An HTTP proxy between the device and the cluster: what it is asked, and what it does wrong, each by its message.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::proxy::{Direct, Proxy};

/// A proxy that answers CONNECT with `answer` and then, where that is 200, passes everything on to `to`; what it was
/// asked comes out of the channel.
fn proxy(answer: &'static str, to: Endpoint) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(client.try_clone().unwrap());
            while lines.read_line(&mut head).unwrap() > 2 {}
            sender.send(head).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
            if answer.starts_with("HTTP/1.1 200") {
                let server = TcpStream::connect((to.host.as_str(), to.port)).unwrap();
                let (mut up, mut down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut client, &mut up));
                // A client that gives up closes the connection under it.
                let _ = std::io::copy(&mut &server, &mut down);
                let _ = down.shutdown(std::net::Shutdown::Both);
            }
        }
    });
    (port, asked)
}

const OK: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

fn via(url: &str, direct: &[&str]) -> Via {
    let direct = direct.iter().map(|d| Direct::parse(d).unwrap()).collect();
    Via { proxy: Some(Proxy::parse(url).unwrap()), direct }
}

/// GET from https://api.example:6443, which no resolver knows.
fn ask(via: &Via, ca: &Ca) -> Result<serde_json::Value, String> {
    ask_server(via, ca, "https://api.example:6443")
}

/// The same from another server.
fn ask_server(via: &Via, ca: &Ca, server: &str) -> Result<serde_json::Value, String> {
    let tls = verified(PinnedCa::new(ca.trusted(), Validity::SystemClock)).unwrap();
    let client = Client::through(via, server, tls).unwrap();
    let mut result = None;
    run(async {
        result = Some(client.get("/x").await);
        Ok(())
    })
    .unwrap();
    let result = result.unwrap().map(|r| r.body).map_err(|e| e.text);
    if let Err(text) = &result {
        assert!(!text.contains("hunter22"), "{text}");
    }
    result
}

#[test]
fn the_proxy_sees_the_servers_name_and_its_own_credentials() {
    let ca = Ca::new();
    let server = serve(ca.leaf("api.example", 2020, 2090), ok_json("{\"a\":1}"));
    let (port, asked) = proxy(OK, server.clone());
    let body = ask(&via(&format!("http://user:p%40ss@127.0.0.1:{port}"), &[]), &ca).unwrap();
    assert_eq!(body["a"], 1);
    let head = asked.recv().unwrap().to_lowercase();
    assert!(head.starts_with("connect api.example:6443 http/1.1\r\n"), "{head}");
    let credentials = format!("proxy-authorization: basic {}\r\n", STANDARD.encode("user:p@ss")).to_lowercase();
    assert!(head.contains(&credentials), "{head}");
    // The certificate is the API server's business, through a proxy as well.
    let text = ask(&via(&format!("http://127.0.0.1:{port}"), &[]), &Ca::new()).unwrap_err();
    assert_eq!(text, "certificate of API server api.example:6443 is not signed by the cluster's CA");
}

/// Names that kubeadm takes: the whole way from the seed's text through URL, proxy and TLS to the answer.
#[test]
fn servers_with_unusual_names_are_verified() {
    for (text, certified) in [
        ("k8s_master", "k8s_master"),
        ("_a.b_c.example:443", "_a.b_c.example"),
        ("api.example.", "api.example"),
        ("API.Example.:6443", "api.example"),
        ("bücher.example", "xn--bcher-kva.example"),
    ] {
        let ca = Ca::new();
        let server = serve(ca.leaf(certified, 2020, 2090), ok_json("{\"a\":1}"));
        let (port, asked) = proxy(OK, server);
        let (via, at) = (via(&format!("http://127.0.0.1:{port}"), &[]), Endpoint::parse(text).unwrap());
        let body = ask_server(&via, &ca, &crate::kube::client::url_of(&at)).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(body["a"], 1);
        assert!(asked.recv().unwrap().starts_with(&format!("CONNECT {at} HTTP/1.1\r\n")), "{text}");
        // Another name is not taken for it.
        let other = serve(ca.leaf("other.example", 2020, 2090), ok_json("{}"));
        let (port, _asked) = proxy(OK, other);
        let via = self::via(&format!("http://127.0.0.1:{port}"), &[]);
        ask_server(&via, &ca, &crate::kube::client::url_of(&at)).unwrap_err();
    }
}

#[test]
fn what_a_proxy_can_do_wrong() {
    let ca = Ca::new();
    let nowhere = Endpoint { host: "127.0.0.1".into(), port: 1 };
    let wrong = |answer: &'static str| {
        let (port, _asked) = proxy(answer, nowhere.clone());
        let text = ask(&via(&format!("http://user:hunter22@127.0.0.1:{port}"), &[]), &ca).unwrap_err();
        text.replace(&port.to_string(), "PORT")
    };
    let reach = "reach API server api.example:6443 through proxy 127.0.0.1:PORT";
    assert_eq!(
        wrong("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        format!("{reach}: it asks for a user name and a password, or for others")
    );
    assert_eq!(wrong("HTTP/1.1 403 Forbidden\r\n\r\n"), format!("{reach}: it does not let the connection through"));
    assert_eq!(wrong("SSH-2.0-OpenSSH_10.0\r\n\r\n"), format!("{reach}: it does not let the connection through"));
}

#[test]
fn proxies_that_are_not_there() {
    let ca = Ca::new();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = ask(&via(&format!("http://127.0.0.1:{port}"), &[]), &ca).unwrap_err();
    assert_eq!(text, format!("reach API server api.example:6443 through proxy 127.0.0.1:{port}: connection refused"));
    let text = ask(&via("http://proxy.invalid:3128", &[]), &ca).unwrap_err();
    assert_eq!(text, "reach API server api.example:6443 through proxy proxy.invalid:3128: its name is not resolved");
}

#[test]
fn who_is_reached_directly_is_not_asked_of_the_proxy() {
    let ca = Ca::new();
    let server = serve(ca.leaf("api.example", 2020, 2090), ok_json("{}"));
    let (port, asked) = proxy(OK, server);
    let text = ask(&via(&format!("http://127.0.0.1:{port}"), &[".example"]), &ca).unwrap_err();
    assert_eq!(text, "connect to API server api.example:6443: name not resolved");
    assert!(asked.try_recv().is_err());
}

/// Who answers at the proxy's address must not get the password, and before the CA is known anyone could answer.
#[test]
fn s15_no_credentials_go_to_a_tls_proxy_that_nobody_can_verify() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://user:hunter22@127.0.0.1:{}", listener.local_addr().unwrap().port());
    let text = ask(&via(&url, &[]), &ca).unwrap_err();
    let proxy = url.replace("user:hunter22@", "");
    let why = "kubelet verifies such a proxy by the cluster's CA alone: add the server to no-proxy";
    assert_eq!(text, format!("reach API server api.example:6443 through proxy {proxy}: {why}"));
    assert!(listener.accept().is_err(), "the proxy was asked");
    // An API server beside it is reached directly.
    let server = serve(ca.leaf("127.0.0.1", 2020, 2090), ok_json("{\"a\":1}"));
    let body = ask_server(&via(&url, &["127.0.0.0/8"]), &ca, &crate::kube::client::url_of(&server)).unwrap();
    assert_eq!(body["a"], 1);
}
