// SPDX-License-Identifier: Apache-2.0
//! Questions to this node's own kubelet, on loopback, over TLS that its own certificate file vouches for.
//!
//! Blocking, one connection a question, HTTP/1.0: it is asked by `firstboot audit` alone. What kubelet lets a node's
//! certificate see is the cluster's decision (`nodes/configz`), and by default that is nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS12;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::pin;
use super::tls::{self, PinnedCa, Validity};

/// kubelet's port with authentication.
const PORT: u16 = 10250;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// This node's kubelet.
pub struct Kubelet {
    name: ServerName<'static>,
    trusted: Arc<PinnedCa>,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
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
    /// When name or certificates cannot be used.
    pub fn new(name: &str, ca_pem: &str) -> Result<Self> {
        let name = ServerName::try_from(name.to_owned()).with_context(|| format!("use node name {name}"))?;
        let trusted = pin::certificates(ca_pem).context("read kubelet's certificate")?;
        Ok(Kubelet { name, trusted: PinnedCa::new(trusted, Validity::SetAside) })
    }

    /// GET without a credential.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask(tls::verified(self.trusted.clone())?, path)
    }

    /// GET as the owner of the certificate and key in `pem`.
    ///
    /// # Errors
    /// No answer, or a certificate that cannot be used.
    pub fn get_as(&self, pem: &str, path: &str) -> Result<Answer> {
        let chain = pin::certificates(pem).context("read the node's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("read the node's key")?;
        self.ask(tls::identified(self.trusted.clone(), chain, key)?, path)
    }

    /// Whether kubelet takes a connection of TLS 1.2.
    ///
    /// # Errors
    /// No connection, or it was cut before TLS said why.
    pub fn speaks_tls12(&self) -> Result<bool> {
        let config = tls::only(self.trusted.clone(), &[&TLS12])?;
        let mut stream = self.connect(config)?;
        match stream.conn.complete_io(&mut stream.sock) {
            Ok(_) => Ok(true),
            Err(error) if refused(&error) => Ok(false),
            Err(error) => Err(error).context("start TLS with kubelet"),
        }
    }

    fn connect(&self, config: ClientConfig) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let socket = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("connect to {address}"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), self.name.clone())?, socket))
    }

    fn ask(&self, config: ClientConfig, path: &str) -> Result<Answer> {
        let mut stream = self.connect(config)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).context("ask kubelet")?;
        let mut bytes = Vec::new();
        match (&mut stream).take(MAX_ANSWER).read_to_end(&mut bytes) {
            // Go closes the connection without saying so in TLS; the length of the body tells whether it is whole.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error).context("ask kubelet"),
            _ => answer(&bytes),
        }
    }
}

/// Whether the other side said in TLS that it does not speak this version.
fn refused(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)))
}

fn answer(bytes: &[u8]) -> Result<Answer> {
    let end =
        bytes.windows(4).position(|w| w == b"\r\n\r\n").context("read kubelet's answer: it has no end of head")?;
    let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok());
    let length =
        lines.find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    ensure!(length.is_none_or(|length| length == body.len()), "read kubelet's answer: it is cut off");
    Ok(Answer { status: status.context("read kubelet's answer: it has no status")?, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_refused() {
        let good = answer(b"HTTP/1.0 403 Forbidden\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((good.status, good.body.as_slice()), (403, b"abc".as_slice()));
        let open = answer(b"HTTP/1.0 200 OK\r\n\r\n{}").unwrap();
        assert_eq!((open.status, open.body.as_slice()), (200, b"{}".as_slice()));
        let why = |bytes: &[u8]| answer(bytes).unwrap_err().to_string();
        assert_eq!(why(b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\nabc"), "read kubelet's answer: it is cut off");
        assert_eq!(why(b"HTTP/1.0 200"), "read kubelet's answer: it has no end of head");
        assert_eq!(why(b"x\r\n\r\n"), "read kubelet's answer: it has no status");
    }
}
