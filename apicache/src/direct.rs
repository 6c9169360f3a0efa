// SPDX-License-Identifier: Apache-2.0
//! Pods that reach the API server itself, through the cache's port: those that do not trust its certificate, because they
//! began before it was there or read their CA elsewhere, and those that no place is left for.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::upstream::{Link, Servers};

/// Connections that are copied at once.
const PLACES: usize = 64;
/// Addresses that are remembered at once.
const REMEMBERED: usize = 256;

/// Which connections those are.
pub struct Direct {
    servers: Arc<Servers>,
    places: Arc<Semaphore>,
    refused: Mutex<HashSet<IpAddr>>,
}

impl Direct {
    /// To these servers.
    pub fn new(servers: Arc<Servers>) -> Self {
        Direct { servers, places: Arc::new(Semaphore::new(PLACES)), refused: Mutex::default() }
    }

    /// Takes note that a client ended the handshake. If it refused the certificate (RFC 8446, section 6.2: it says so by an
    /// alert), the next connection from its address goes to the API server. Only that one: pods on the host's network have
    /// one address, and most of them do trust the cache.
    pub fn refused(&self, client: IpAddr, error: &io::Error) {
        let why = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(why, Some(rustls::Error::AlertReceived(_))) && refused.len() < REMEMBERED {
            refused.insert(client);
        }
    }

    /// Whether this connection goes to the API server. Without one it does not: the cache may have what it asks for.
    pub fn takes(&self, client: IpAddr) -> bool {
        if !matches!(*self.servers.link().borrow(), Link::Connected(_)) {
            return false;
        }
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&client)
    }

    /// Copies between a client and an API server in the background. TLS is then between the two.
    pub fn copy(&self, client: TcpStream) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let servers = self.servers.clone();
        tokio::spawn(async move {
            let _place = place;
            let _ = servers.copy(client).await;
        });
    }
}
