// SPDX-License-Identifier: Apache-2.0
//! A registry that means harm to the build machine: answers without end, and addresses that it has no business with.
#![allow(clippy::unwrap_used)]

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A server that answers each connection by `answer`; its address, and the paths that were asked for.
fn serve(answer: impl Fn(&mut TcpStream) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            seen.lock().unwrap().push(first.split(' ').nth(1).unwrap().to_owned());
            answer(&mut stream);
        }
    });
    (address, asked)
}

fn pulled(address: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let pulled = pull("app", &format!("{address}/team/app"), DIGEST, true, Arch::Amd64, scratch.path());
    format!("{:#}", pulled.err().unwrap())
}

#[test]
fn s18_a_manifest_without_end_is_not_read_to_its_end() {
    let (address, _) = serve(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        // Until the other end has enough, or 64 MiB.
        for _ in 0..1024 {
            if stream.write_all(&[b' '; 64 << 10]).is_err() {
                return;
            }
        }
    });
    let error = pulled(&address);
    assert!(
        error.ends_with(&format!("/v2/team/app/manifests/{DIGEST}: the answer is larger than 4194304 bytes")),
        "{error}"
    );
}

#[test]
fn s18_a_registry_sends_the_build_machine_to_no_other_server() {
    let (other, asked) = serve(|stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap());
    let challenge = format!("Bearer realm=\"http://{other}/latest/meta-data\",service=\"x\"");
    let head = format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n");
    let (address, _) = serve(move |stream| stream.write_all(head.as_bytes()).unwrap());
    let error = pulled(&address);
    assert_eq!(*asked.lock().unwrap(), Vec::<String>::new(), "{error}");
    assert_eq!(error, format!("ask registry {address} for a token: its token server {other} is another one's"));
}

#[test]
fn s18_no_redirect_leads_from_https_to_http() {
    let follow = |from: &str, to: &str, before: usize| {
        let parse = |url: &str| reqwest::Url::parse(url).unwrap();
        http::may_follow(&vec![parse(from); before], &parse(to)).is_ok()
    };
    assert!(follow("https://a.example/x", "https://cdn.example/y", 1));
    assert!(follow("http://a.example/x", "http://b.example/y", 1));
    assert!(!follow("https://a.example/x", "http://127.0.0.1/y", 1));
    assert!(!follow("https://a.example/x", "https://a.example/y", 6));
}
