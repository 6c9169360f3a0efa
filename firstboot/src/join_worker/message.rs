// SPDX-License-Identifier: Apache-2.0
//! What the two parts say to each other: four bytes of length (big-endian), then that much JSON.
//!
//! The privileged part says one [`JoinRequest`], then [`Accepted`] for the cluster and a [`Request`](crate::kube::csr::Request) for
//! each that is asked for; all else comes from the join worker, as [`WorkerMessage`]. Values of the seed travel as the text that
//! they were read from, and are validated again.

use crate::kube::contract::{FoundCluster, JoinInput};
use crate::proxy::Proxy;
use crate::seed::{JoinToken, MAX_SIZE};
use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use zeroize::Zeroizing;

/// Longest message, bytes: as long as the longest answer of an API server that is read.
pub const LONGEST: usize = 4 * 1024 * 1024;

const SEND: &str = "send a message";

/// What the join worker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerMessage {
    /// What it is doing, one line.
    Progress(String),
    /// What a person should know although it goes on, one line.
    Notice(String),
    /// The cluster that it has found to be the seed's; answered by [`Accepted`].
    Found(FoundCluster),
    /// Asks for a certificate request, over a new key or the one that is kept.
    Ask {
        /// Over a new key.
        fresh: bool,
    },
    /// The last message: the node's certificate chain, PEM.
    Issued(String),
    /// The last message: why there is nothing.
    Failed {
        /// [`crate::fault::Code::as_str`].
        code: String,
        /// One line.
        text: String,
        /// How long the cluster asks to be left alone, seconds.
        retry_after: Option<u64>,
    },
}

/// The privileged part's answer to [`WorkerMessage::Found`], once it has looked at that cluster itself. Without it no
/// token is sent; a cluster or a time that is refused ends the conversation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted;

/// The join to do. Serde of [`JoinInput`] leaves secrets out: here alone they are written down, and are zeroed when
/// dropped.
#[derive(Serialize, Deserialize)]
pub struct JoinRequest {
    input: JoinInput,
    /// The join token, whole.
    token: Zeroizing<String>,
    /// The proxy's URL, with credentials.
    proxy: Option<Zeroizing<String>>,
}

impl JoinRequest {
    /// What is to be handed over.
    pub fn new(input: &JoinInput) -> Self {
        let proxy = input.via.proxy.as_ref().map(Proxy::url);
        JoinRequest { token: input.cluster.token.bearer(), proxy, input: input.clone() }
    }

    /// What was handed over.
    ///
    /// # Errors
    /// Which secret cannot be read; never the secret.
    pub fn input(self) -> Result<JoinInput> {
        let mut input = self.input;
        input.cluster.token = JoinToken::parse(&self.token).map_err(|why| anyhow!("read the task's token: {why}"))?;
        let proxy = self.proxy.as_ref().map(|url| Proxy::parse(url)).transpose();
        input.via.proxy = proxy.map_err(|why| anyhow!("read the task's proxy: {why}"))?;
        Ok(input)
    }
}

/// Says something to the other part. What is written down on the way is zeroed.
///
/// # Errors
/// The other part is gone, or the message is too long.
pub fn send(mut to: impl Write, message: &impl Serialize) -> Result<()> {
    // A vector that grows would leave copies behind: this is more than a task can take, whose texts are a seed's.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 * MAX_SIZE));
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
    let mut bytes = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut bytes).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => anyhow!("receive a message: it ends in the middle"),
        _ => anyhow!(e).context("receive a message"),
    })?;
    // The parser's own words could repeat what it found.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| anyhow!("read a message: it is not one"))
}
