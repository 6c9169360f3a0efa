// SPDX-License-Identifier: Apache-2.0
//! HTTP from the build machine. Proxies and trusted certificates are the machine's own.

use anyhow::{Context, Result, bail};
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;
use std::io::Write;
use std::time::Duration;

/// Longest time without an answer or without further bytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client for `url`: through the environment's proxy, but never for loopback.
fn client(url: &str) -> Result<Client> {
    // An error only means that another thread was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("firstboot-imagebuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(PATIENCE)
        .timeout(None);
    if let Ok(parsed) = reqwest::Url::parse(url) {
        let host = parsed.host_str().unwrap_or_default();
        if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
            builder = builder.no_proxy();
        }
    }
    builder.build().context("set up HTTP")
}

/// Sends a GET request and returns the answer, whatever its status.
pub fn request(url: &str, headers: HeaderMap) -> Result<Response> {
    let send = || client(url)?.get(url).headers(headers).send().map_err(|e| anyhow::Error::new(e.without_url()));
    send().with_context(|| format!("get {}", shown(url)))
}

/// A URL without its user and password.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.to_owned();
    }
    // Only a URL without a host refuses.
    let _ = (parsed.set_username(""), parsed.set_password(None));
    parsed.to_string()
}

/// Writes the body of a successful answer to `to`. Redirects are followed.
pub fn get(url: &str, to: &mut dyn Write) -> Result<()> {
    body(request(url, HeaderMap::new())?, url, to)
}

/// Writes the body of an answer to `to`; a status other than success is an error.
pub fn body(mut answer: Response, url: &str, to: &mut dyn Write) -> Result<()> {
    if !answer.status().is_success() {
        bail!("get {}: {}", shown(url), answer.status());
    }
    answer.copy_to(to).map_err(|e| e.without_url()).with_context(|| format!("get {}", shown(url)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
