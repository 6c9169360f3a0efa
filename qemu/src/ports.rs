// SPDX-License-Identifier: Apache-2.0
//! Free TCP ports on loopback.
//!
//! Ports are taken from below the ephemeral range, so that no outgoing connection takes one between the moment it is
//! chosen and the moment a server binds it, and are never given twice by one process.

use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free port on 127.0.0.1.
pub fn free() -> Result<u16> {
    let Ok(mut given) = GIVEN.lock() else { bail!("read the list of ports given") };
    // Several harnesses run side by side; each starts its search elsewhere.
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let seed = nanos / 1000 + std::process::id().wrapping_mul(7919);
    let start = u16::try_from(seed % u32::from(COUNT)).unwrap_or(0);
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("find a free port between {FIRST} and {} on loopback", FIRST + COUNT - 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_port_is_given_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| super::free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }
}
