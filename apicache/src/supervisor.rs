// SPDX-License-Identifier: Apache-2.0
//! The process that holds the port. Clients reach an API server through it even when the cache itself fails.
//!
//! It starts the serving process with the listening socket and lets it accept. When that process ends, or gives no sign of
//! life for [`SILENCE`], it is ended, and this process accepts instead: it copies bytes between client and API server and
//! looks at none of them. TLS is then between the two: kubelet knows the API server's name and CA. Every few seconds the
//! serving process is tried again.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::worker::STORE;

/// The serving process is given up after so long without a sign of life.
pub const SILENCE: Duration = Duration::from_secs(5);
/// A serving process that lasted so long was good.
const GOOD: Duration = Duration::from_secs(30);
/// Longest wait before it is started again.
const LONGEST: Duration = Duration::from_secs(30);
/// A store with which it failed so often in a row is set aside.
const FAILURES: u32 = 3;
/// Connections that are copied at once.
const COPIED: usize = 32;
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
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        match start(&listener, Command::new(serving).args(arguments)) {
            Ok((mut child, beats)) => {
                // Accepted by the serving process, from its first sign of life on.
                let mut alive = false;
                while beats.recv_timeout(if alive { SILENCE } else { SILENCE * 4 }).is_ok() {
                    if !alive {
                        alive = true;
                        bypass.accept(false);
                    }
                }
                bypass.accept(true);
                let _ = child.kill();
                let ended = child.wait();
                let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                eprintln!("firstboot cache: the serving process ended ({how}): clients reach the API server directly");
            }
            Err(error) => eprintln!("firstboot cache: start the serving process: {error}"),
        }
        failures = if begun.elapsed() > GOOD { 1 } else { failures + 1 };
        if failures == FAILURES {
            let path = config.state.join(STORE);
            let aside = path.with_extension("damaged");
            if std::fs::rename(&path, &aside).is_ok() {
                eprintln!(
                    "firstboot cache: it failed {FAILURES} times with this store: set aside as {}",
                    aside.display()
                );
            }
        }
        thread::sleep(LONGEST.min(Duration::from_millis(500) * 2u32.pow(failures.min(6))));
    }
}

fn start(listener: &TcpListener, serving: &mut Command) -> io::Result<(Child, mpsc::Receiver<()>)> {
    let socket = OwnedFd::from(listener.try_clone()?);
    let mut child = serving.stdin(Stdio::from(socket)).stdout(Stdio::piped()).spawn()?;
    let (beat, beats) = mpsc::channel();
    if let Some(mut out) = child.stdout.take() {
        thread::spawn(move || {
            let mut byte = [0; 64];
            while matches!(out.read(&mut byte), Ok(1..)) && beat.send(()).is_ok() {}
        });
    }
    Ok((child, beats))
}

/// The sign of life of the serving process; whether it was heard.
pub fn beat() -> bool {
    let mut out = io::stdout();
    out.write_all(b".").and_then(|()| out.flush()).is_ok()
}

/// The port, without the cache.
struct Bypass {
    accepting: Arc<AtomicBool>,
}

impl Bypass {
    fn start(listener: TcpListener, config: Config) -> io::Result<Self> {
        // The socket is shared with the serving process, which needs it so.
        listener.set_nonblocking(true)?;
        let accepting = Arc::new(AtomicBool::new(false));
        let (flag, open) = (accepting.clone(), Arc::new(AtomicUsize::new(0)));
        thread::Builder::new().name("bypass".into()).spawn(move || {
            loop {
                let wait = match flag.load(Ordering::Acquire) {
                    false => Duration::from_millis(200),
                    true => match listener.accept() {
                        Ok((client, _)) if !client.local_addr().is_ok_and(|at| config.serves(at.ip())) => {
                            Duration::ZERO
                        }
                        Ok((client, _)) if open.load(Ordering::Acquire) < COPIED => {
                            let (servers, open) = (config.servers.clone(), open.clone());
                            open.fetch_add(1, Ordering::AcqRel);
                            thread::spawn(move || {
                                let _ = copy(&client, &servers);
                                open.fetch_sub(1, Ordering::AcqRel);
                            });
                            Duration::ZERO
                        }
                        _ => Duration::from_millis(20),
                    },
                };
                thread::sleep(wait);
            }
        })?;
        Ok(Bypass { accepting })
    }

    fn accept(&self, yes: bool) {
        self.accepting.store(yes, Ordering::Release);
    }
}

/// Copies between a client and the first API server that takes the connection.
fn copy(client: &TcpStream, servers: &[String]) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let addresses = servers.iter().filter_map(|s| s.to_socket_addrs().ok()).flatten();
    let server = addresses.into_iter().find_map(|a| TcpStream::connect_timeout(&a, CONNECT).ok());
    let server = server.ok_or_else(|| io::Error::from(io::ErrorKind::HostUnreachable))?;
    server.set_nodelay(true)?;
    let (mut up, mut to) = (client.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || {
        let _ = io::copy(&mut up, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut down, mut from) = (client, &server);
    let _ = io::copy(&mut from, &mut down);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}
