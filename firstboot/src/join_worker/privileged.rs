// SPDX-License-Identifier: Apache-2.0
//! The privileged part's end: it answers, and takes nothing for granted.
//!
//! The server may have taken over the join worker. So each message may come in its turn only, texts
//! become one line without the token, the time has bounds, and what is said to come from the cluster is held against
//! the seed and against the node's own key.

use super::message::{Accepted, JoinRequest, WorkerMessage, at, receive, send};
use super::validate::{self, impossible};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::kube::contract::{JoinHost, JoinInput, Joined};
use crate::kube::csr::Request;
use crate::seed::JoinToken;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest silence: one step of a join asks every API server of the seed, each for some seconds, waits for a Node of
/// this name to go away, and for approval.
const SILENCE: Duration = Duration::from_secs(600);
/// Most lines of progress and notices in one join.
const LINES: u32 = 50;
/// Longest text, characters.
const TEXT: usize = 2000;
/// Longest time for which the cluster may ask to be left alone.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Has the join worker at the other end of `stream` join, and answers its questions by `device`.
///
/// # Errors
/// What [`crate::kube::join::obtain`] says there; the cluster's fault, too, when the join worker ends without a word
/// or says what cannot be: an answer of the server made it do so, and the next try starts another.
pub fn obtain(stream: &UnixStream, input: &JoinInput, device: &mut dyn JoinHost) -> Result<Joined, Fault> {
    stream.set_read_timeout(Some(SILENCE)).owned_by(Owner::Host)?;
    stream.set_write_timeout(Some(SILENCE)).owned_by(Owner::Host)?;
    // One that ended at once has said why before that.
    let _ = send(stream, &JoinRequest::new(input));
    Talk { input, device, lines: 0, clock: false, request: None, asked: 0 }.until_the_end(stream)
}

/// How far the conversation is.
struct Talk<'a, 'd> {
    input: &'a JoinInput,
    device: &'d mut dyn JoinHost,
    lines: u32,
    clock: bool,
    request: Option<Request>,
    asked: u32,
}

impl Talk<'_, '_> {
    fn until_the_end(mut self, stream: &UnixStream) -> Result<Joined, Fault> {
        loop {
            let message = receive(stream).coded(Code::NetworkPart)?;
            match message.ok_or_else(|| impossible("it ended without a word; journalctl -u 'firstboot-network@*'"))? {
                WorkerMessage::Progress(text) => {
                    let text = self.line(&text)?;
                    self.device.progress(&text);
                }
                WorkerMessage::Notice(text) => {
                    let text = self.line(&text)?;
                    self.device.notice(&text);
                }
                WorkerMessage::Clock(seconds) => {
                    if std::mem::replace(&mut self.clock, true) || self.asked > 0 {
                        return Err(impossible("it tells the time a second time or too late"));
                    }
                    self.device.server_time(at(seconds))?;
                    send(stream, &Accepted).coded(Code::NetworkPart)?;
                }
                WorkerMessage::Ask { fresh } => {
                    // The key that is kept, then a new one: no correct worker asks for a third.
                    if self.asked > 1 || fresh != (self.asked == 1) {
                        return Err(impossible("it asks for a key out of turn"));
                    }
                    self.asked += 1;
                    let request = self.device.request(fresh)?;
                    send(stream, &request).coded(Code::NetworkPart)?;
                    self.request = Some(request);
                }
                WorkerMessage::Joined(joined) => return validate::joined(*joined, self.input, self.request.as_ref()),
                WorkerMessage::Failed { code, text, retry_after } => {
                    let code = Code::parse(&code).filter(|code| accepts(*code));
                    let code = code.ok_or_else(|| impossible("its fault has no code that a join can have"))?;
                    let mut fault = Fault::new(code, one_line(&text, &self.input.cluster.token));
                    fault.retry_after = retry_after.map(|s| Duration::from_secs(s).min(RETRY_AFTER));
                    return Err(fault);
                }
            }
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

/// Whether the join worker may report this code: the cluster's, that the image's kubelet does not fit the cluster, or
/// that this device does not let it work. A code of the seed or another one of the image would stop the device.
fn accepts(code: Code) -> bool {
    code.owner() == Owner::Cluster || matches!(code, Code::KubeletVersion | Code::NotConfined | Code::Host)
}

/// A text made fit for console, log and status file: one line, not too long, and never the token.
fn one_line(text: &str, token: &JoinToken) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect();
    clean.replace(token.secret(), "…")
}
