// SPDX-License-Identifier: Apache-2.0
//! HTTP from the build machine. Proxies and trusted certificates are the machine's own. No server decides how much is read
//! from it, or for how long.

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Longest time without an answer or without further bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most redirects in a row.
const REDIRECTS: usize = 5;

/// What is read of an answer at most.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Bytes of the body.
    pub bytes: u64,
    /// From the first byte of the body to the last.
    pub time: Duration,
}

impl Limit {
    /// For JSON: containerd's limit for a manifest.
    pub const JSON: Limit = Limit { bytes: crate::oci::MAX_JSON, time: Duration::from_secs(120) };
    /// For a program or a tool chain.
    pub const FILE: Limit = Limit { bytes: 2 << 30, time: Duration::from_secs(3600) };

    /// For a file of a known size.
    pub fn of(bytes: u64) -> Limit {
        Limit { bytes, ..Limit::FILE }
    }
}

/// A client for `url`: through the environment's proxy, but never for loopback.
fn client(url: &str) -> Result<Client> {
    // An error only means that another thread was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("firstboot-imagebuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(PATIENCE)
        // Of each step: connecting, the head of an answer, one read of its body.
        .timeout(PATIENCE)
        .redirect(Policy::custom(|attempt| match may_follow(attempt.previous(), attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(why) => attempt.error(why),
        }));
    if let Ok(parsed) = Url::parse(url) {
        let host = parsed.host_str().unwrap_or_default();
        if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
            builder = builder.no_proxy();
        }
    }
    builder.build().context("set up HTTP")
}

/// Whether a redirect to `next` is followed, after the addresses so far: not without end, and never out of TLS.
pub(crate) fn may_follow(previous: &[Url], next: &Url) -> Result<(), &'static str> {
    match previous.last() {
        _ if previous.len() > REDIRECTS => Err("too many redirects"),
        Some(last) if last.scheme() == "https" && next.scheme() != "https" => {
            Err("a redirect leads from https to http")
        }
        _ => Ok(()),
    }
}

/// Sends a GET request and returns the answer, whatever its status.
pub fn request(url: &str, headers: HeaderMap) -> Result<Response> {
    let send = || client(url)?.get(url).headers(headers).send().map_err(|e| anyhow::Error::new(e.without_url()));
    send().with_context(|| format!("get {}", shown(url)))
}

/// A URL without its user and password.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.to_owned();
    }
    // Only a URL without a host refuses.
    let _ = (parsed.set_username(""), parsed.set_password(None));
    parsed.to_string()
}

/// Writes the body of a successful answer to `to`. Redirects are followed.
pub fn get(url: &str, limit: Limit, to: &mut dyn Write) -> Result<()> {
    body(request(url, HeaderMap::new())?, url, limit, to)
}

/// Writes the body of an answer to `to`; a status other than success is an error, and so is more than `limit`.
pub fn body(mut answer: Response, url: &str, limit: Limit, to: &mut dyn Write) -> Result<()> {
    let get = || format!("get {}", shown(url));
    if !answer.status().is_success() {
        bail!("{}: {}", get(), answer.status());
    }
    let (start, mut length, mut buffer) = (Instant::now(), 0, vec![0; 64 << 10]);
    loop {
        let count = answer.read(&mut buffer).with_context(get)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        ensure!(length <= limit.bytes, "{}: the answer is larger than {} bytes", get(), limit.bytes);
        let seconds = limit.time.as_secs();
        ensure!(start.elapsed() <= limit.time, "{}: the answer is not complete after {seconds} s", get());
        to.write_all(&buffer[..count]).with_context(|| format!("store what {} gives", shown(url)))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn s18_an_answer_that_drips_ends() {
        let server = testing::Server::start(vec![("/x", vec![b'x'; 1000])]);
        let url = server.url("/x");
        let get = |limit: Limit| get(&url, limit, &mut Vec::new()).map_err(|e| e.to_string());
        get(Limit::of(1000)).unwrap();
        assert_eq!(get(Limit::of(999)), Err(format!("get {url}: the answer is larger than 999 bytes")));
        let at_once = Limit { time: Duration::ZERO, ..Limit::JSON };
        assert_eq!(get(at_once), Err(format!("get {url}: the answer is not complete after 0 s")));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(super::shown("https://user:word@a.example/x"), "https://a.example/x");
        assert_eq!(super::shown("https://a.example/x?y"), "https://a.example/x?y");
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An HTTP server on loopback that hands out fixed content.
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};

    /// Serves until the process ends; each test has its own.
    pub struct Server {
        address: SocketAddr,
    }

    impl Server {
        /// Starts a server for these paths; every other path is 404.
        pub fn start(content: Vec<(&'static str, Vec<u8>)>) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let first = lines.next().unwrap().unwrap();
                    for line in lines.by_ref() {
                        if line.unwrap().is_empty() {
                            break;
                        }
                    }
                    let path = first.split(' ').nth(1).unwrap();
                    let found = content.iter().find(|(p, _)| *p == path);
                    let (status, body) = match found {
                        Some((_, body)) => ("200 OK", body.as_slice()),
                        None => ("404 Not Found", &b"nothing here"[..]),
                    };
                    let head =
                        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(body).unwrap();
                }
            });
            Server { address }
        }

        /// Address of a path.
        pub fn url(&self, path: &str) -> String {
            format!("http://{}{path}", self.address)
        }
    }
}
