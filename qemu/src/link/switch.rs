// SPDX-License-Identifier: Apache-2.0
//! A learning switch between local datagram sockets (IEEE 802.1Q-2022, 8.8): a frame goes where its address was seen.
//!
//! A hub will not do: QEMU's user network answers for every address of others, whatever the frame's own address is.
//!
//! A guard: dropping it unplugs all ends.

use super::frame;
use super::relay::{Ends, bind, unplug};
use super::vrrp::{Claim, is_claim};
use anyhow::Result;
use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an end may take to make room for a frame. A paused guest never does, and loses it.
const PATIENCE: Duration = Duration::from_millis(200);

/// Address of an interface.
type Mac = [u8; 6];

/// Where frames go.
#[derive(Debug, Default)]
struct Table(HashMap<Mac, usize>);

impl Table {
    /// Learns who is at `from`, and gives the places of `places` to which the frame goes. The last place is a network's
    /// gateway, which gets nothing that is for an address not seen yet.
    fn places(&mut self, frame: &[u8], from: usize, places: usize) -> Vec<usize> {
        let address = |at: usize| -> Option<Mac> { frame.get(at..at + 6)?.try_into().ok() };
        let (Some(to), Some(by)) = (address(0), address(6)) else { return Vec::new() };
        self.0.insert(by, from);
        let group = to[0] & 1 == 1;
        match self.0.get(&to) {
            Some(place) if !group => [*place].into_iter().filter(|place| *place != from).collect(),
            _ => (0..places).filter(|place| *place != from && (group || *place + 1 < places)).collect(),
        }
    }
}

/// A running switch.
pub struct Switch {
    sockets: Vec<Arc<UnixDatagram>>,
    threads: Vec<JoinHandle<()>>,
    claims: Arc<Mutex<Vec<Claim>>>,
}

impl Switch {
    /// Binds the switch's sockets and begins to carry frames. The last end is that of the gateway.
    ///
    /// # Errors
    /// Names the socket that cannot be made.
    pub fn start(ends: &[Ends]) -> Result<Self> {
        let sockets: Vec<Arc<UnixDatagram>> = ends.iter().map(|ends| bind(ends, PATIENCE)).collect::<Result<_>>()?;
        let table = Arc::new(Mutex::new(Table::default()));
        let (claims, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let carry = |from: usize| {
            let (sockets, ends, table) = (sockets.clone(), ends.to_vec(), Arc::clone(&table));
            let claims = Arc::clone(&claims);
            std::thread::spawn(move || {
                let mut buffer = vec![0; frame::LARGEST];
                // Nothing is empty but the end: a frame has a header.
                while let Some(length) = sockets[from].recv(&mut buffer).ok().filter(|length| *length > 0) {
                    let frame = &buffer[..length];
                    if is_claim(frame) {
                        let claim = Claim { place: from, at: start.elapsed() };
                        claims.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
                    }
                    let places = table.lock().unwrap_or_else(PoisonError::into_inner).places(frame, from, ends.len());
                    for place in places {
                        // An end that is off or paused loses it, as a cable without a machine does.
                        let _ = sockets[place].send_to(frame, &ends[place].peer);
                    }
                }
            })
        };
        let threads = (0..ends.len()).map(carry).collect();
        Ok(Switch { sockets, threads, claims })
    }

    /// Who has claimed a virtual address, and when, in the order of time.
    pub fn claims(&self) -> Vec<Claim> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        unplug(&self.sockets, &mut self.threads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat()
    }

    #[test]
    fn frames_go_where_their_address_was_seen() {
        let mut table = Table::default();
        let all = [[255; 6].to_vec(), vec![2, 0, 0, 0, 0, 1]].concat();
        assert_eq!(table.places(&all, 0, 3), [1, 2], "a broadcast goes to all others");
        assert_eq!(table.places(&frame(1, 2), 1, 3), [0]);
        assert_eq!(table.places(&frame(2, 1), 0, 3), [1]);
        assert_eq!(table.places(&frame(9, 1), 0, 3), [1], "the gateway would answer for anyone");
        assert_eq!(table.places(&frame(1, 7), 2, 3), [0]);
        assert_eq!(table.places(&frame(7, 1), 0, 3), [2]);
        assert_eq!(table.places(&frame(1, 1), 0, 3), [0; 0], "it came from there");
        assert_eq!(table.places(&[0; 5], 0, 3), [0; 0]);
    }

    #[test]
    fn datagrams_are_carried_between_two_ends() {
        let dir = tempfile::tempdir().unwrap();
        let ends: Vec<Ends> = (0..3)
            .map(|n| Ends { relay: dir.path().join(format!("s{n}")), peer: dir.path().join(format!("p{n}")) })
            .collect();
        let peers: Vec<UnixDatagram> = ends.iter().map(|ends| UnixDatagram::bind(&ends.peer).unwrap()).collect();
        let _switch = Switch::start(&ends).unwrap();
        let receive = |peer: usize| {
            peers[peer].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = [0; 100];
            let length = peers[peer].recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        let hello = [[255; 6].to_vec(), vec![2, 0, 0, 0, 0, 1]].concat();
        peers[0].send_to(&hello, &ends[0].relay).unwrap();
        assert_eq!((receive(1), receive(2)), (hello.clone(), hello));
        peers[1].send_to(&frame(1, 2), &ends[1].relay).unwrap();
        assert_eq!(receive(0), frame(1, 2));
    }
}
