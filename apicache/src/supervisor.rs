// SPDX-License-Identifier: Apache-2.0
//! The process that holds the port. Clients reach an API server through it even when the cache itself fails.
//!
//! It starts the serving process with the listening socket and lets it accept. When that process ends, or gives no sign of
//! life for [`SILENCE`], it is ended, and this process accepts instead: it copies bytes between client and API server and
//! looks at none of them. TLS is then between the two: kubelet knows the API server's name and CA. Every few seconds the
//! serving process is tried again. Once it serves, what is copied is cut off, so that clients come back through the cache.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::worker::{STORE, set_aside};

/// The serving process is given up after so long without a sign of life.
pub const SILENCE: Duration = Duration::from_secs(5);
/// A serving process that lasted so long was good.
const GOOD: Duration = Duration::from_secs(30);
/// Longest wait before it is started again.
const LONGEST: Duration = Duration::from_secs(30);
/// A store with which it crashed or hung so often in a row is set aside.
const FAILURES: u32 = 3;
/// Connections that are copied at once, and how many of them may be pods'.
const COPIED: usize = 32;
const OF_PODS: usize = 24;
/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;
/// Signs of life: it serves, and its store is being opened.
const SERVING: u8 = b'.';
const OPENING: u8 = b'o';
/// Longest time for a connection to one API server.
const CONNECT: Duration = Duration::from_secs(5);

/// Holds the port for ever. `serving` and its arguments start the serving process: its standard input is the listening
/// socket, its standard output takes one byte for each sign of life ([`beat`]).
///
/// # Errors
/// The port cannot be had.
pub fn run(config: &Config, serving: &Path, arguments: &[&str]) -> io::Result<()> {
    let socket = config.socket();
    let listener =
        TcpListener::bind(socket).map_err(|e| io::Error::new(e.kind(), format!("listen on {socket}: {e}")))?;
    let bypass = Bypass::start(listener.try_clone()?, config.clone())?;
    let (mut failures, mut crashes) = (0, 0);
    loop {
        let begun = Instant::now();
        let mut crashed = false;
        match start(&listener, Command::new(serving).args(arguments)) {
            Ok((mut child, beats)) => {
                // Accepted by the serving process, from the moment on in which it serves.
                let mut alive = false;
                let silence = loop {
                    match beats.recv_timeout(if alive { SILENCE } else { SILENCE * 4 }) {
                        Ok(serves) if serves && !alive => {
                            alive = true;
                            bypass.accept(false);
                        }
                        Ok(_) => {}
                        Err(silence) => break silence,
                    }
                };
                bypass.accept(true);
                let _ = child.kill();
                let ended = child.wait();
                crashed = is_crash(silence, ended.as_ref().ok());
                let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                eprintln!("firstboot cache: the serving process ended ({how}): clients reach the API server directly");
            }
            Err(error) => eprintln!("firstboot cache: start the serving process: {error}"),
        }
        let good = begun.elapsed() > GOOD;
        failures = if good { 1 } else { failures + 1 };
        // One that ends with an error says why, and sets a damaged store aside itself.
        crashes = match crashed {
            false => 0,
            true if good => 1,
            true => crashes + 1,
        };
        if crashes == FAILURES {
            eprintln!("firstboot cache: it crashed or hung {FAILURES} times in a row");
            // There may be none.
            let _ = set_aside(&config.state.join(STORE));
        }
        thread::sleep(LONGEST.min(Duration::from_millis(500) * 2u32.pow(failures.min(6))));
    }
}

/// Whether the serving process hung, was killed by a signal, or panicked.
fn is_crash(silence: RecvTimeoutError, ended: Option<&ExitStatus>) -> bool {
    let died = ended.is_some_and(|status| status.signal().is_some() || status.code() == Some(PANICKED));
    silence == RecvTimeoutError::Timeout || died
}

/// Starts the serving process. Each sign of life says whether it serves already.
fn start(listener: &TcpListener, serving: &mut Command) -> io::Result<(Child, mpsc::Receiver<bool>)> {
    let socket = OwnedFd::from(listener.try_clone()?);
    let mut child = serving.stdin(Stdio::from(socket)).stdout(Stdio::piped()).spawn()?;
    let (beat, beats) = mpsc::channel();
    if let Some(mut out) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                if beat.send(bytes[..count].contains(&SERVING)).is_err() {
                    return;
                }
            }
        });
    }
    Ok((child, beats))
}

/// The sign of life of the serving process; whether it was heard.
pub fn beat() -> bool {
    sign(SERVING)
}

/// The sign of life while the store is being opened.
pub(crate) fn opening() {
    // Whether anybody hears it is seen at the first sign of the other kind.
    let _ = sign(OPENING);
}

fn sign(kind: u8) -> bool {
    let mut out = io::stdout();
    out.write_all(&[kind]).and_then(|()| out.flush()).is_ok()
}

/// A connection that is copied.
struct Copied {
    client: TcpStream,
    is_of_pod: bool,
}

/// The port, without the cache.
#[derive(Clone, Default)]
struct Bypass {
    accepting: Arc<AtomicBool>,
    copied: Arc<Mutex<HashMap<u64, Copied>>>,
}

impl Bypass {
    fn start(listener: TcpListener, config: Config) -> io::Result<Self> {
        // The socket is shared with the serving process, which needs it so.
        listener.set_nonblocking(true)?;
        let bypass = Bypass::default();
        let own = bypass.clone();
        thread::Builder::new().name("bypass".into()).spawn(move || {
            let mut number = 0;
            loop {
                let wait = match own.accepting.load(Ordering::Acquire) {
                    false => Duration::from_millis(200),
                    true => match listener.accept() {
                        Ok((client, peer)) => {
                            let local = client.local_addr().ok().map(|at| at.ip()).filter(|at| config.serves(*at));
                            if let Some(local) = local {
                                number += 1;
                                let is_of_pod = config.is_of_pod(local, peer.ip());
                                own.take(number, client, is_of_pod, config.servers.clone());
                            }
                            Duration::ZERO
                        }
                        Err(_) => Duration::from_millis(20),
                    },
                };
                thread::sleep(wait);
            }
        })?;
        Ok(bypass)
    }

    /// Accepts or leaves that to the serving process. What was copied until then is cut off: a connection lasts for a day
    /// and more, and past the cache nothing is recorded.
    fn accept(&self, yes: bool) {
        self.accepting.store(yes, Ordering::Release);
        if !yes {
            for copied in self.copied().values() {
                let _ = copied.client.shutdown(Shutdown::Both);
            }
        }
    }

    fn copied(&self) -> MutexGuard<'_, HashMap<u64, Copied>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a connection, if there is a place for it: pods do not take those of kubelet.
    fn take(&self, number: u64, client: TcpStream, is_of_pod: bool, servers: Vec<String>) {
        let Ok(handle) = client.try_clone() else { return };
        {
            let mut copied = self.copied();
            let pods = copied.values().filter(|other| other.is_of_pod).count();
            if copied.len() >= COPIED || is_of_pod && pods >= OF_PODS {
                return;
            }
            copied.insert(number, Copied { client: handle, is_of_pod });
        }
        // The serving process may have come since it was accepted.
        if !self.accepting.load(Ordering::Acquire) {
            let _ = client.shutdown(Shutdown::Both);
        }
        let own = self.clone();
        thread::spawn(move || {
            let _ = copy(&client, &servers, &own.accepting);
            own.copied().remove(&number);
        });
    }
}

/// Copies between a client and the first API server that takes the connection.
fn copy(client: &TcpStream, servers: &[String], accepting: &Arc<AtomicBool>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let addresses = servers.iter().filter_map(|s| s.to_socket_addrs().ok()).flatten();
    let server = addresses.into_iter().find_map(|a| TcpStream::connect_timeout(&a, CONNECT).ok());
    let server = server.ok_or_else(|| io::Error::from(io::ErrorKind::HostUnreachable))?;
    server.set_nodelay(true)?;
    let (mut up, mut to) = (client.try_clone()?, server.try_clone()?);
    let accepting = accepting.clone();
    let upward = thread::spawn(move || {
        let _ = io::copy(&mut up, &mut to);
        // Of one that was cut off no client waits for the rest, and the server may be gone.
        let cut = !accepting.load(Ordering::Acquire);
        let _ = to.shutdown(if cut { Shutdown::Both } else { Shutdown::Write });
    });
    let (mut down, mut from) = (client, &server);
    let _ = io::copy(&mut from, &mut down);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_counts_against_a_store() {
        use RecvTimeoutError::{Disconnected, Timeout};
        let [good, error, panic, killed] = [0, 1 << 8, PANICKED << 8, 9].map(ExitStatus::from_raw);
        assert!(!is_crash(Disconnected, Some(&good)) && !is_crash(Disconnected, Some(&error)));
        assert!(is_crash(Disconnected, Some(&panic)) && is_crash(Disconnected, Some(&killed)));
        assert!(is_crash(Timeout, Some(&good)), "it hung");
    }

    /// `PORT` echoes what comes, as an API server that is reached.
    fn echo() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        at
    }

    #[test]
    fn what_was_copied_comes_back_through_the_cache() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let none = std::path::PathBuf::new();
        let config = Config {
            listen: at,
            service: None,
            servers: vec![echo().to_string()],
            server_name: "k".into(),
            ca: none.clone(),
            node: none.clone(),
            serving: none.clone(),
            state: none,
            status: None,
            secrets: false,
        };
        let bypass = Bypass::start(listener, config).unwrap();
        bypass.accept(true);
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!((&heard, bypass.copied().len()), (b"hello", 1));
        bypass.accept(false);
        assert_eq!(client.read(&mut heard).unwrap(), 0, "its end");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !bypass.copied().is_empty() {
            assert!(Instant::now() < deadline, "its place is free again");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn pods_leave_places_for_others() {
        let (bypass, at) = (Bypass::default(), echo());
        bypass.accept(true);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Vec::new();
        let mut take = |number, is_of_pod| {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            bypass.take(number, listener.accept().unwrap().0, is_of_pod, vec![at.to_string()]);
            bypass.copied().len()
        };
        let taken: Vec<usize> = (0..40).map(|number| take(number, true)).collect();
        assert_eq!(taken.last(), Some(&OF_PODS));
        let taken: Vec<usize> = (40..80).map(|number| take(number, false)).collect();
        assert_eq!(taken.last(), Some(&COPIED));
    }
}
