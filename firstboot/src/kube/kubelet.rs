// SPDX-License-Identifier: Apache-2.0
//! Questions to this node's own kubelet, on loopback, over TLS that its own certificate file vouches for.
//!
//! Blocking, one connection a question: `firstboot audit` alone asks. What kubelet lets a node's certificate see is the
//! cluster's decision (`nodes/configz`), and by default that is nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::{Url, redirect};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS12;
use rustls::{AlertDescription, ClientConfig};

use super::tls::{self, PinnedCa, Validity};
use super::{error, pin, runtime};

/// kubelet's port with authentication.
const PORT: u16 = 10250;
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often one question is asked while it is not answered in time: a busy node is no reason to suspect its kubelet.
const TRIES: u32 = 3;
/// Largest answer that is read, bytes; the rest of a longer one is left out.
const MAX_ANSWER: usize = 1024 * 1024;

/// This node's kubelet.
pub struct Kubelet {
    name: String,
    address: SocketAddr,
    trusted: Arc<PinnedCa>,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct HttpReply {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Kubelet {
    /// The kubelet of node `name`, whose certificate one of those in `ca_pem` vouches for. It may have expired:
    /// kubelet does not renew one that it has signed itself.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(name: &str, ca_pem: &str) -> Result<Self> {
        let trusted = pin::certificates(ca_pem).context("read kubelet's certificate")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        Ok(Kubelet { name: name.to_owned(), address, trusted: PinnedCa::new(trusted, Validity::SetAside) })
    }

    /// GET without a credential.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<HttpReply> {
        self.ask(tls::verified(self.trusted.clone())?, path)?.map_err(unanswered)
    }

    /// GET as the owner of the certificate and key in `pem`.
    ///
    /// # Errors
    /// No answer, or a certificate that cannot be used.
    pub fn get_as(&self, pem: &str, path: &str) -> Result<HttpReply> {
        let chain = pin::certificates(pem).context("read the node's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("read the node's key")?;
        self.ask(tls::identified(self.trusted.clone(), chain, key)?, path)?.map_err(unanswered)
    }

    /// Whether kubelet takes a connection of TLS 1.2.
    ///
    /// # Errors
    /// No answer, other than that it does not speak this version.
    pub fn speaks_tls12(&self) -> Result<bool> {
        let refused = |e: &rustls::Error| *e == rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
        match self.ask(tls::only(self.trusted.clone(), &[&TLS12])?, "/healthz")? {
            Ok(_) => Ok(true),
            Err(error) if error::tls(&error).is_some_and(refused) => Ok(false),
            Err(error) => Err(unanswered(error)),
        }
    }

    fn ask(&self, config: ClientConfig, path: &str) -> Result<Result<HttpReply, reqwest::Error>> {
        let url = format!("https://{}:{}{path}", self.name, self.address.port());
        let url = Url::parse(&url).with_context(|| format!("use node name {}", self.name))?;
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(config)
            .resolve(&self.name, self.address)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()?;
        let answer = async || {
            let mut response = http.get(url.clone()).send().await?;
            let (status, mut body) = (response.status().as_u16(), Vec::new());
            while let Some(chunk) = response.chunk().await?
                && body.len() < MAX_ANSWER
            {
                body.extend_from_slice(&chunk);
            }
            Ok(HttpReply { status, body })
        };
        let answer_in_time = async {
            for _ in 1..TRIES {
                match answer().await {
                    Err(error) if reqwest::Error::is_timeout(&error) => {}
                    answered => return answered,
                }
            }
            answer().await
        };
        runtime::run(async { Ok(answer_in_time.await) }).map_err(|fault| fault.cause)
    }
}

fn unanswered(error: reqwest::Error) -> anyhow::Error {
    anyhow!("ask kubelet: {}", error::innermost(&error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::wire_tests::{Ca, http, serve};
    use super::*;

    fn kubelet(ca: &Ca, reply: String) -> Kubelet {
        let at = serve(ca.leaf("edge-1", 2020, 2022), reply);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, at.port));
        Kubelet { address, ..Kubelet::new("edge-1", &ca.pem).unwrap() }
    }

    #[test]
    fn answers_are_whole_or_refused() {
        let ca = Ca::new();
        let good = kubelet(&ca, http("403 Forbidden", "abc")).get("/configz").unwrap();
        assert_eq!((good.status, good.body.as_slice()), (403, b"abc".as_slice()));
        let open = kubelet(&ca, "HTTP/1.0 200 OK\r\n\r\n{}".to_owned()).get("/configz").unwrap();
        assert_eq!((open.status, open.body.as_slice()), (200, b"{}".as_slice()));
        for bad in ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "HTTP/1.1 200", "x\r\n\r\n"] {
            let why = kubelet(&ca, bad.to_owned()).get("/configz").unwrap_err().to_string();
            assert!(why.starts_with("ask kubelet: ") && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn only_the_owner_of_the_certificate_is_kubelet() {
        let (ca, other) = (Ca::new(), Ca::new());
        let trusted = PinnedCa::new(other.trusted(), Validity::SetAside);
        let why = Kubelet { trusted, ..kubelet(&ca, http("200 OK", "")) }.get("/configz").unwrap_err().to_string();
        assert_eq!(why, "ask kubelet: certificate is not signed by the cluster's CA");
    }

    #[test]
    fn an_older_tls_is_spoken_or_refused() {
        let ca = Ca::new();
        assert!(kubelet(&ca, http("401 Unauthorized", "")).speaks_tls12().unwrap());
        // Alert records of TLS 1.2 (RFC 5246, 7.2): fatal, protocol_version or handshake_failure.
        let alerts = |code: u8| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(&[21, 3, 3, 0, 2, 2, code]);
            });
            Kubelet { address, ..Kubelet::new("edge-1", &ca.pem).unwrap() }.speaks_tls12()
        };
        assert!(!alerts(70).unwrap());
        let want =
            "ask kubelet: it ended TLS: no cipher, key exchange or signature in common (alert handshake_failure)";
        assert_eq!(alerts(40).unwrap_err().to_string(), want);
    }
}
