// SPDX-License-Identifier: Apache-2.0
//! What the two parts say to each other: four bytes of length (big-endian), then that much JSON.
//!
//! The privileged part says one [`Task`], then [`Accepted`] for the time and a [`Request`](crate::kube::csr::Request) for
//! each that is asked for; all else comes from the network part, as [`Told`]. Values of the seed travel as the text that they were read from, and
//! are read again by the same rules.

use crate::kube::join::{JoinInput, Joined};
use crate::proxy::{Direct, Proxy, Via};
use crate::report::unix_seconds;
use crate::seed::{CaPin, Cluster, Endpoint, JoinToken, Trust};
use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Longest message, bytes: as long as the longest answer of an API server that is read.
pub const LONGEST: usize = 4 * 1024 * 1024;

const SEND: &str = "send a message";

/// What the network part says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// What it is doing, one line.
    Progress(String),
    /// What a person should know although it goes on, one line.
    Notice(String),
    /// The clock of the verified cluster, seconds since 1970; answered by [`Accepted`].
    Clock(u64),
    /// Asks for a certificate request, over a new key or the one that is kept.
    Ask {
        /// Over a new key.
        fresh: bool,
    },
    /// The last message: what the cluster gave.
    Joined(Box<Joined>),
    /// The last message: why there is nothing.
    Failed {
        /// [`crate::fault::Owner::word`].
        owner: String,
        /// One line.
        text: String,
        /// How long the cluster asks to be left alone, seconds.
        retry_after: Option<u64>,
    },
}

/// The privileged part's answer to [`Told::Clock`]. Without it no token is sent; a time that is refused ends the
/// conversation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted;

/// What a join has to know: [`JoinInput`], written down. The token and the proxy's password are zeroed when dropped.
#[derive(Serialize, Deserialize)]
pub struct Task {
    apiserver: Vec<String>,
    token: Zeroizing<String>,
    ca_pins: Vec<String>,
    ca: Option<String>,
    token_expires: Option<u64>,
    proxy: Option<Zeroizing<String>>,
    direct: Vec<String>,
    node: String,
    kubelet: String,
    target: String,
    cri_socket: String,
    resolv_conf: Option<String>,
    /// Seconds since 1970.
    now: u64,
    /// Milliseconds, as the next.
    csr_wait: u64,
    ready_wait: u64,
}

impl Task {
    /// What is to be handed over.
    pub fn new(input: &JoinInput<'_>) -> Self {
        let cluster = input.cluster;
        let (ca_pins, ca) = match &cluster.trust {
            Trust::Pins(pins) => (pins.iter().map(ToString::to_string).collect(), None),
            Trust::Ca(pem) => (Vec::new(), Some(pem.clone())),
        };
        Task {
            apiserver: cluster.apiserver.iter().map(ToString::to_string).collect(),
            token: cluster.token.bearer(),
            ca_pins,
            ca,
            token_expires: cluster.token_expires.map(unix_seconds),
            proxy: cluster.via.proxy.as_ref().map(Proxy::url),
            direct: cluster.via.direct.iter().map(|d| d.as_str().to_owned()).collect(),
            node: input.node_name.to_owned(),
            kubelet: input.kubelet_version.to_owned(),
            target: input.target.to_owned(),
            cri_socket: input.cri_socket.to_owned(),
            resolv_conf: input.resolv_conf.map(str::to_owned),
            now: unix_seconds(input.now),
            csr_wait: millis(input.csr_wait),
            ready_wait: millis(input.ready_wait),
        }
    }

    /// The cluster of the seed.
    ///
    /// # Errors
    /// Which value cannot be read; never the value.
    pub fn cluster(&self) -> Result<Cluster> {
        let all = |texts: &[String], what: &str| -> Result<Vec<Endpoint>> {
            texts.iter().map(|t| read(Endpoint::parse(t), what)).collect()
        };
        let trust = match &self.ca {
            Some(pem) => Trust::Ca(pem.clone()),
            None => Trust::Pins(self.ca_pins.iter().map(|p| read(CaPin::parse(p), "pin")).collect::<Result<_>>()?),
        };
        Ok(Cluster {
            apiserver: all(&self.apiserver, "API server")?,
            token: read(JoinToken::parse(&self.token), "join token")?,
            trust,
            token_expires: self.token_expires.map(at),
            via: Via {
                proxy: self.proxy.as_ref().map(|url| read(Proxy::parse(url), "proxy")).transpose()?,
                direct: self.direct.iter().map(|d| read(Direct::parse(d), "no-proxy")).collect::<Result<_>>()?,
            },
        })
    }

    /// All of it.
    ///
    /// # Errors
    /// Which value cannot be read.
    pub fn input<'a>(&'a self, cluster: &'a Cluster) -> Result<JoinInput<'a>> {
        Ok(JoinInput {
            cluster,
            node_name: &self.node,
            kubelet_version: &self.kubelet,
            target: &self.target,
            cri_socket: &self.cri_socket,
            resolv_conf: self.resolv_conf.as_deref(),
            now: at(self.now),
            csr_wait: Duration::from_millis(self.csr_wait),
            ready_wait: Duration::from_millis(self.ready_wait),
        })
    }
}

fn read<T>(value: Result<T, String>, what: &str) -> Result<T> {
    value.map_err(|why| anyhow!("read the {what} of the task: {why}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A point in time; the last that there is when it lies beyond it.
pub(super) fn at(seconds: u64) -> SystemTime {
    const END: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(END))
}

/// Says something to the other part. What is written down on the way is zeroed.
///
/// # Errors
/// The other part is gone, or the message is too long.
pub fn send(mut to: impl Write, message: &impl Serialize) -> Result<()> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer(&mut *bytes, message).context(SEND)?;
    ensure!(bytes.len() <= LONGEST, "send a message: it is longer than {LONGEST} bytes");
    let length = u32::try_from(bytes.len()).context(SEND)?.to_be_bytes();
    to.write_all(&length).and_then(|()| to.write_all(&bytes)).context(SEND)
}

/// Waits for what the other part says; `None` when it has ended.
///
/// # Errors
/// It says something that is no such message, stops in the middle of one, or says nothing for too long.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return Ok(None),
        Err(e) => return Err(e).context("wait for a message"),
    }
    let length = u32::from_be_bytes(length) as usize;
    ensure!(length <= LONGEST, "receive a message: it is longer than {LONGEST} bytes");
    // Its length is a claim: memory is taken for what has come.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(64 * 1024)));
    from.take(length as u64).read_to_end(&mut bytes).context("receive a message")?;
    ensure!(bytes.len() == length, "receive a message: it ends in the middle");
    // The parser's own words could repeat what it found.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| anyhow!("read a message: it is not one"))
}
