// SPDX-License-Identifier: Apache-2.0
//! The privileged part's end: it answers, and takes nothing for granted.
//!
//! The server may have taken over the join worker. So each message may come in its turn only, texts become one line
//! without the token, the whole conversation has one deadline, and what is said of the cluster is a hint: the
//! privileged part looks at that cluster itself ([`crate::kube::confirm`]).

use super::message::{Accepted, JoinRequest, WorkerMessage, receive, send};
use super::validate::{self, impossible};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::kube::confirm::{self, ConfirmedCluster};
use crate::kube::contract::{JoinHost, JoinInput};
use crate::kube::csr::Request;
use crate::seed::JoinToken;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest conversation. A join asks every API server of the seed, each for some seconds, waits up to 90 s for a Node of
/// this name to go away and for 60 s for approval, each of it twice at most. `RuntimeMaxSec=` of the unit is longer.
pub const DEADLINE: Duration = Duration::from_secs(600);
/// Most lines of progress and notices in one join.
const LINES: u32 = 50;
/// Longest text, characters.
const TEXT: usize = 2000;
/// Longest time for which the cluster may ask to be left alone.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What is believed after a conversation: the cluster as the privileged part found it, and the node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained {
    /// The cluster.
    pub cluster: ConfirmedCluster,
    /// The certificate chain that this cluster has signed for the node, PEM.
    pub certificate_pem: String,
}

/// Has the join worker at the other end of `stream` join, and answers its questions by `device`.
///
/// # Errors
/// What [`crate::kube::join::obtain`] says there, as far as it is the cluster's fault; the cluster's, too, when the join
/// worker ends without a word, takes too long or says what cannot be: an answer of the server made it do so, and the
/// next try starts another. Of other owners only what the privileged part has found itself.
pub fn obtain(stream: &UnixStream, input: &JoinInput, device: &mut dyn JoinHost) -> Result<Obtained, Fault> {
    until(Instant::now() + DEADLINE, stream, input, device)
}

/// [`obtain`] with another deadline.
///
/// # Errors
/// As [`obtain`].
pub fn until(
    end: Instant,
    stream: &UnixStream,
    input: &JoinInput,
    device: &mut dyn JoinHost,
) -> Result<Obtained, Fault> {
    let stream = Timed { stream, end };
    // One that ended at once has said why before that.
    let _ = send(&stream, &JoinRequest::new(input));
    Talk { input, device, lines: 0, silent: true, cluster: None, request: None, asked: 0 }.until_the_end(&stream)
}

/// A connection that ends at one moment, however slowly the other side reads and writes.
struct Timed<'s> {
    stream: &'s UnixStream,
    end: Instant,
}

impl Timed<'_> {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for &Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        (&mut &*self.stream).read(bytes)
    }
}

impl Write for &Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How far the conversation is.
struct Talk<'a, 'd> {
    input: &'a JoinInput,
    device: &'d mut dyn JoinHost,
    lines: u32,
    /// Nothing was said yet, so nothing came from the network yet.
    silent: bool,
    cluster: Option<ConfirmedCluster>,
    request: Option<Request>,
    asked: u32,
}

impl Talk<'_, '_> {
    fn until_the_end(mut self, stream: &Timed<'_>) -> Result<Obtained, Fault> {
        loop {
            let message = receive(stream).map_err(|error| match stream.left() {
                Ok(_) => Fault { code: Code::NetworkPart, cause: error, retry_after: None },
                Err(_) => impossible("it takes too long"),
            })?;
            let first = std::mem::replace(&mut self.silent, false);
            match message.ok_or_else(|| impossible("it ended without a word; journalctl -u 'firstboot-network@*'"))? {
                WorkerMessage::Progress(text) => {
                    let text = self.line(&text)?;
                    self.device.progress(&text);
                }
                WorkerMessage::Notice(text) => {
                    let text = self.line(&text)?;
                    self.device.notice(&text);
                }
                WorkerMessage::Found(hint) => {
                    if self.cluster.is_some() {
                        return Err(impossible("it finds a cluster a second time"));
                    }
                    validate::hint(&hint, self.input)?;
                    let cluster = confirm::confirm(self.input, &hint)?;
                    self.device.found(&cluster.found)?;
                    self.cluster = Some(cluster);
                    send(stream, &Accepted).coded(Code::NetworkPart)?;
                }
                WorkerMessage::Ask { fresh } => {
                    // The key that is kept, then a new one: no correct worker asks for a third.
                    if self.cluster.is_none() || self.asked > 1 || fresh != (self.asked == 1) {
                        return Err(impossible("it asks for a key out of turn"));
                    }
                    self.asked += 1;
                    let request = self.device.request(fresh)?;
                    send(stream, &request).coded(Code::NetworkPart)?;
                    self.request = Some(request);
                }
                WorkerMessage::Issued(pem) => {
                    let (Some(cluster), Some(request)) = (self.cluster, &self.request) else {
                        return Err(impossible("it gives a certificate out of turn"));
                    };
                    let chain = confirm::node_certificate(&pem, self.input, request, &cluster);
                    let certificate_pem = chain.map_err(|why| impossible(&format!("the node's certificate {why}")))?;
                    return Ok(Obtained { cluster, certificate_pem });
                }
                WorkerMessage::Failed { code, text, retry_after } => {
                    let text = one_line(&text, &self.input.cluster.token);
                    let mut fault = self.judge(Code::parse(&code), first, &text);
                    fault.retry_after = retry_after.map(|s| Duration::from_secs(s).min(RETRY_AFTER));
                    return Err(fault);
                }
            }
        }
    }

    /// The fault that the join worker reports. One of the cluster is tried again for ever, so it is taken as it is. Any
    /// other would stop the device: it counts when the privileged part finds the same, or when the join worker had
    /// not yet met the network.
    fn judge(&self, code: Option<Code>, first: bool, text: &str) -> Fault {
        match (code, &self.cluster) {
            (Some(code), _) if code.owner() == Owner::Cluster => Fault::new(code, text),
            (Some(Code::NotConfined), _) if first => Fault::new(Code::NotConfined, text),
            (Some(Code::KubeletVersion), Some(cluster)) => {
                confirm::check_version(self.input, cluster).err().unwrap_or_else(|| impossible(text))
            }
            _ => impossible(text),
        }
    }

    fn line(&mut self, text: &str) -> Result<String, Fault> {
        self.lines += 1;
        match self.lines <= LINES {
            true => Ok(one_line(text, &self.input.cluster.token)),
            false => Err(impossible("it talks without end")),
        }
    }
}

/// A text made fit for console, log and status file: one line, not too long, and never the token.
fn one_line(text: &str, token: &JoinToken) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect();
    clean.replace(token.secret(), "…")
}
