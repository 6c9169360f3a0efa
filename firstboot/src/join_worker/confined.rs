// SPDX-License-Identifier: Apache-2.0
//! The join worker itself.

use super::message::{Accepted, JoinRequest, WorkerMessage, receive, send};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::kube::contract::{FoundCluster, JoinHost, JoinInput};
use crate::kube::csr::Request;
use crate::kube::join::obtain;
use crate::sandbox::PrivateMemory;
use crate::seed::Endpoint;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// What `firstboot-network@.service` runs: takes the connection that systemd gave it as standard input, reads its task
/// there, gives up all rights, joins.
///
/// # Errors
/// A host fault when it was started otherwise, or cannot give up its rights; what fails later is the other part's to
/// tell.
pub fn run() -> Result<(), Fault> {
    let connection = || -> Result<UnixStream> {
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr()?;
        Ok(stream)
    };
    let stream = connection()
        .context("take the connection to the privileged part: only firstboot.service may start this")
        .owned_by(Owner::Host)?;
    let memory = PrivateMemory::new();
    // From the privileged part: it says where the join worker may connect to.
    let Some(task) = receive::<JoinRequest>(&stream).owned_by(Owner::Host)? else { return Ok(()) };
    let input = task.input().owned_by(Owner::Host)?;
    let missing = match memory.and_then(|memory| memory.enter(&ports(&input))) {
        Ok(missing) => missing,
        Err(why) => {
            let fault =
                Fault { code: Code::NotConfined, cause: why.context("confine the join worker"), retry_after: None };
            return send(&stream, &failed(&fault)).owned_by(Owner::Host);
        }
    };
    for notice in missing.notices() {
        deliver(&stream, &WorkerMessage::Notice(notice.to_owned())).owned_by(Owner::Host)?;
    }
    report_panics(&stream).owned_by(Owner::Host)?;
    join(&input, &stream).owned_by(Owner::Host)
}

/// Ports of the seed's API servers, or of the proxy that leads there.
fn ports(input: &JoinInput) -> Vec<u16> {
    let port = |at: &Endpoint| input.via.proxy_for(&at.host, at.port).map_or(at.port, |proxy| proxy.address().1);
    input.cluster.apiserver.iter().map(port).collect()
}

/// A program that stops in the middle says so where a person will read it: its standard error is not shown.
fn report_panics(stream: &UnixStream) -> Result<()> {
    let stream = stream.try_clone().context("copy the connection to the privileged part")?;
    std::panic::set_hook(Box::new(move |why| {
        // The cause is outside of this device, so it is worth another try.
        let fault = Fault::new(Code::NetworkPart, format!("join in the join worker: {why}"));
        let _ = send(&stream, &failed(&fault));
    }));
    Ok(())
}

/// One join, asked for and answered over `stream`, without a sandbox.
///
/// # Errors
/// The other part is gone or says what it should not.
pub fn serve(stream: &UnixStream) -> Result<()> {
    match receive::<JoinRequest>(stream)? {
        Some(task) => join(&task.input()?, stream),
        None => Ok(()),
    }
}

fn join(input: &JoinInput, stream: &UnixStream) -> Result<()> {
    let last = match obtain(input, &mut Remote { stream }) {
        Ok(chain) => WorkerMessage::Issued(chain),
        Err(fault) => failed(&fault),
    };
    send(stream, &last)
}

fn deliver(stream: &UnixStream, message: &WorkerMessage) -> Result<()> {
    send(stream, message)
}

fn failed(fault: &Fault) -> WorkerMessage {
    let retry_after = fault.retry_after.map(|t| t.as_secs());
    WorkerMessage::Failed { code: fault.code.as_str().to_owned(), text: fault.to_string(), retry_after }
}

/// The device, at the other end of the connection.
struct Remote<'a> {
    stream: &'a UnixStream,
}

impl Remote<'_> {
    fn ask<T: DeserializeOwned>(&self, question: &WorkerMessage, answer: &str) -> Result<T> {
        deliver(self.stream, question)?;
        receive(self.stream)?.with_context(|| format!("wait for {answer}: the privileged part is gone"))
    }
}

impl JoinHost for Remote<'_> {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        self.ask(&WorkerMessage::Ask { fresh }, "a certificate request").owned_by(Owner::Host)
    }

    /// The token is sent next, so this waits until the cluster is accepted.
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        let found = WorkerMessage::Found(cluster.clone());
        self.ask(&found, "the cluster to be accepted").map(|Accepted| ()).owned_by(Owner::Host)
    }

    fn progress(&mut self, text: &str) {
        // When the other part is gone the next question says so.
        let _ = deliver(self.stream, &WorkerMessage::Progress(text.to_owned()));
    }

    fn notice(&mut self, text: &str) {
        let _ = deliver(self.stream, &WorkerMessage::Notice(text.to_owned()));
    }
}
