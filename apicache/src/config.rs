// SPDX-License-Identifier: Apache-2.0
//! What the cache is to do: one JSON file, and credentials beside it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// The settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients of this node find it; a loopback address.
    pub listen: SocketAddr,
    /// The address of Service `kubernetes`, which is this node's own as well: there the cache serves pods, at the same port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<IpAddr>,
    /// API servers as `HOST:PORT`, tried in order.
    pub servers: Vec<String>,
    /// Name that every API server's certificate covers: the host of kubelet.conf.
    pub server_name: String,
    /// Certificates of the cluster's CA, PEM.
    pub ca: PathBuf,
    /// The node's certificate and key, PEM: kubelet's own pair.
    pub node: PathBuf,
    /// The certificate and key of the listening port, PEM.
    pub serving: PathBuf,
    /// Directory of the store.
    pub state: PathBuf,
    /// Where the state is published as JSON; nowhere if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PathBuf>,
    /// Whether Secrets are kept.
    pub secrets: bool,
}

fn at(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("read {}: {error}", path.display()))
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// The file cannot be read, or is none; names it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read(path).map_err(|e| at(path, e))?;
        let config: Config = serde_json::from_slice(&text).map_err(|e| at(path, e))?;
        if config.servers.is_empty() || !config.listen.ip().is_loopback() {
            return Err(at(path, "it must have servers, and listen on a loopback address"));
        }
        // Credentials by a name are those that systemd hands over.
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let place = |path: PathBuf| match &credentials {
            Some(directory) if path.is_relative() => directory.join(path),
            _ => path,
        };
        let (ca, node, serving) = (place(config.ca.clone()), place(config.node.clone()), place(config.serving.clone()));
        Ok(Config { ca, node, serving, ..config })
    }

    /// The address of the listening socket. With a Service it is that of any interface, since the interface may get the
    /// Service's address later; [`Config::serves`] has the last word.
    pub fn socket(&self) -> SocketAddr {
        let any = match self.service {
            None => return self.listen,
            Some(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, self.listen.port())
    }

    /// Whether connections to this address of the node are served: loopback, and the Service's address.
    pub fn serves(&self, local: IpAddr) -> bool {
        local.to_canonical().is_loopback() || self.is_service(local)
    }

    /// Whether a connection is one of a pod: it goes to the Service's address, or comes from it. A pod in the network of the
    /// host has asked for that address, and got it as its own; the packet filter then led it to loopback.
    pub fn is_of_pod(&self, local: IpAddr, peer: IpAddr) -> bool {
        self.is_service(local) || self.is_service(peer)
    }

    fn is_service(&self, address: IpAddr) -> bool {
        self.service == Some(address.to_canonical())
    }
}

/// A certificate with its chain, and its key.
pub struct Pair {
    /// The chain, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// The certificates of a PEM file.
///
/// # Errors
/// It cannot be read or has none.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path).map_err(|e| at(path, e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(at(path, "it has no certificate that can be read")),
    }
}

/// The pair of a PEM file.
///
/// # Errors
/// It cannot be read or lacks one of both.
pub fn pair(path: &Path) -> io::Result<Pair> {
    let chain = certificates(path)?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|_| at(path, "it has no private key that can be read"))?;
    Ok(Pair { chain, key })
}

/// The certificates of a PEM file as they are written, without the key.
///
/// # Errors
/// It cannot be read or has none.
pub fn certificate_file(path: &Path) -> io::Result<String> {
    let all = certificate_pem(&std::fs::read_to_string(path).map_err(|e| at(path, e))?);
    if all.is_empty() { Err(at(path, "it has no certificate")) } else { Ok(all) }
}

/// The certificates in a text as they are written, PEM, without the key that stands beside them.
pub fn certificate_pem(text: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let all = text.split_inclusive(END).filter_map(|part| part.split_once("-----BEGIN CERTIFICATE-----"));
    all.map(|(_, rest)| format!("-----BEGIN CERTIFICATE-----{rest}\n")).collect()
}
