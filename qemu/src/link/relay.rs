// SPDX-License-Identifier: Apache-2.0
//! The relay between the two ends of a link: one datagram is one frame, on local datagram sockets, as QEMU's
//! `-netdev dgram` has them. <https://www.qemu.org/docs/master/system/qemu-manpage.html>
//!
//! A guard: dropping it unplugs both ends.

use super::conditions::{Conditions, Direction, Fate, Lane};
use super::frame;
use anyhow::{Context, Result};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest queue of frames in one direction; beyond that they are lost, as in the queue of a slow link. A guest on a busy
/// build machine may take none for seconds.
const UNDER_WAY: usize = 16_384;
/// How long the other end may take to make room for a frame: a guest on a busy build machine takes seconds, a paused one
/// never does it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a link: where it listens, and where its peer, the relay, does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The relay's socket.
    pub relay: PathBuf,
    /// The peer's socket, made by the peer.
    pub peer: PathBuf,
}

/// What happened to the frames so far, both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Handed on.
    pub carried: u64,
    /// Lost by the link's conditions.
    pub lost: u64,
    /// Not of the link's VLAN, or no frames at all.
    pub foreign: u64,
    /// Not delivered: the other end was missing or paused, or the queue was full.
    pub undelivered: u64,
}

#[derive(Debug, Default)]
struct Counters {
    carried: AtomicU64,
    lost: AtomicU64,
    foreign: AtomicU64,
    undelivered: AtomicU64,
}

/// A running relay.
pub struct Relay {
    sockets: [Arc<UnixDatagram>; 2],
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Binds the relay's sockets of both ends and begins to carry frames between them.
    ///
    /// # Errors
    /// Names the socket that cannot be made.
    pub fn start(device: &Ends, network: &Ends, conditions: Conditions) -> Result<Self> {
        let (near, far) = (bind(device, PATIENCE)?, bind(network, PATIENCE)?);
        let counters = Arc::new(Counters::default());
        let mut threads = Vec::new();
        let ways = [(&near, &far, network, Direction::Out), (&far, &near, device, Direction::In)];
        for (from, to, ends, direction) in ways {
            let (queue, frames) = sync_channel(UNDER_WAY);
            let (from, to, peer) = (Arc::clone(from), Arc::clone(to), ends.peer.clone());
            let (taken, given) = (Arc::clone(&counters), Arc::clone(&counters));
            let lane = Lane::new(conditions, direction);
            let latency = conditions.latency;
            threads.push(std::thread::spawn(move || take(&from, lane, latency, &queue, &taken)));
            threads.push(std::thread::spawn(move || give(&to, &peer, &frames, &given)));
        }
        Ok(Relay { sockets: [near, far], counters, threads })
    }

    /// What happened to the frames so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { carried, lost, foreign, undelivered } = &*self.counters;
        Counts { carried: read(carried), lost: read(lost), foreign: read(foreign), undelivered: read(undelivered) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ends the readers; the writers end with them.
        unplug(&self.sockets, &mut self.threads);
    }
}

/// The socket of our side of a link, which waits this long for the other end to make room.
///
/// # Errors
/// Names the socket that cannot be made.
pub(super) fn bind(ends: &Ends, patience: Duration) -> Result<Arc<UnixDatagram>> {
    let socket = UnixDatagram::bind(&ends.relay).with_context(|| format!("bind {}", ends.relay.display()))?;
    socket.set_write_timeout(Some(patience)).context("set a time limit on a socket")?;
    Ok(Arc::new(socket))
}

/// Ends the threads that read these sockets.
pub(super) fn unplug(sockets: &[Arc<UnixDatagram>], threads: &mut Vec<JoinHandle<()>>) {
    for socket in sockets {
        // One that cannot be shut down is closed all the same.
        let _ = socket.shutdown(Shutdown::Both);
    }
    for thread in threads.drain(..) {
        // A thread that panicked has reported it.
        let _ = thread.join();
    }
}

/// A frame and when it arrives.
type UnderWay = (Instant, Vec<u8>);

/// Takes frames from one end until its socket is shut down.
fn take(socket: &UnixDatagram, mut lane: Lane, latency: Duration, queue: &SyncSender<UnderWay>, counters: &Counters) {
    let mut buffer = vec![0; frame::LARGEST];
    // Nothing is empty but the end: a frame has a header.
    while let Some(length) = received(socket, &mut buffer) {
        let counter = match lane.fate(&buffer[..length]) {
            Fate::Lost => &counters.lost,
            Fate::Foreign => &counters.foreign,
            Fate::Carried(bytes) => match queue.try_send((Instant::now() + latency, bytes)) {
                Ok(()) => continue,
                Err(TrySendError::Full(_)) => &counters.undelivered,
                Err(TrySendError::Disconnected(_)) => return,
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Length of the next frame; `None` when the socket was shut down.
fn received(socket: &UnixDatagram, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match socket.recv(buffer) {
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Delivers frames when they are due, until the sender is gone.
fn give(socket: &UnixDatagram, peer: &std::path::Path, frames: &Receiver<UnderWay>, counters: &Counters) {
    for (due, bytes) in frames {
        // The latency itself; all frames take equally long, so their order stays.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let counter = match socket.send_to(&bytes, peer) {
            Ok(_) => &counters.carried,
            Err(_) => &counters.undelivered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
