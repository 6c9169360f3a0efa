// SPDX-License-Identifier: Apache-2.0
//! The process that serves: TLS on a socket that it inherits.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, certificate_file, certificates, pair};
use crate::direct::Direct;
use crate::identity::{node_name, subject};
use crate::outage;
use crate::proxy::{Session, Shared};
use crate::rewrite::Rewrite;
use crate::store::{FLUSH, Op, Store, now};
use crate::supervisor;
use crate::upstream::{Link, STREAM, Servers};

/// Requests at once on one connection: as many as an API server takes (`HTTP2MaxStreamsPerConnection`), because each
/// connection of a client has one of its own to it.
const STREAMS: u32 = 100;
/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest time for the head of a request by HTTP/1.1, from the end of the one before.
const HEAD: Duration = Duration::from_secs(60);
/// Connections at once before their handshake is done, of this node, and of all others: each process of the node reaches
/// this port, and none of them must keep kubelet out.
const PLACES: [usize; 3] = [128, 64, 32];
/// Between two notes of the time of the last answer, seconds.
const CONTACT: u64 = 900;
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// Nothing is removed from the store before an API server has answered for so many seconds in a row: by then clients have
/// read again what they use, also after a long time without one.
const STEADY: u64 = 600;
/// Longest time for which a store that is being opened counts as a sign of life. After a power cut it is read as a whole.
const OPENING: Duration = Duration::from_secs(600);
/// A file that is smaller holds nothing: redb's page.
const LEAST: u64 = 4096;
/// Name of the store's file.
pub const STORE: &str = "store.redb";

/// What is published of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// `connected`, `disconnected` or `unknown`.
    pub link: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// When an API server last answered, seconds since 1970; 0 if none ever did.
    pub contact: u64,
    /// How many objects are kept.
    pub objects: u64,
}

fn server_config(config: &Config) -> io::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&config.ca)?);
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
    let clients = clients.map_err(|e| io::Error::other(format!("use {}: {e}", config.ca.display())))?;
    let own = pair(&config.serving)?;
    let made = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(own.chain, own.key);
    let mut tls = made.map_err(|e| io::Error::other(format!("use {}: {e}", config.serving.display())))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Sets a store aside; an earlier one is replaced, unless this one holds nothing.
pub(crate) fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("damaged");
    if aside.exists() && std::fs::metadata(path)?.len() < LEAST {
        eprintln!("firstboot cache: {} holds nothing: removed", path.display());
        return std::fs::remove_file(path);
    }
    std::fs::rename(path, &aside)?;
    eprintln!("firstboot cache: the store is set aside as {}", aside.display());
    Ok(())
}

/// Opens the store. One that is damaged is set aside, once. Any other failure may pass: the store stays.
fn open_store(config: &Config) -> io::Result<Store> {
    std::fs::create_dir_all(&config.state)?;
    let path = config.state.join(STORE);
    match Store::open(&path, !config.secrets) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            eprintln!("firstboot cache: {error}: a new one is begun");
            set_aside(&path)?;
            Store::open(&path, !config.secrets)
        }
        opened => opened,
    }
}

/// The same, with signs of life meanwhile.
fn open_alive(config: &Config) -> io::Result<Store> {
    thread::scope(|scope| {
        let opening = scope.spawn(|| open_store(config));
        let begun = Instant::now();
        while !opening.is_finished() {
            if begun.elapsed() < OPENING {
                supervisor::opening();
            }
            thread::sleep(BEAT / 10);
        }
        opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Serves on a listening socket until the process is ended. `beat` is called once a second while all is well; where it says
/// that no other process hears it any more, this one ends, too.
///
/// # Errors
/// The settings cannot be used; the store can no longer be written.
pub fn serve(config: &Config, listener: TcpListener, beat: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let tls = TlsAcceptor::from(Arc::new(server_config(config)?));
    let servers = Arc::new(Servers::new(config)?);
    let own = pair(&config.node)?.chain.into_iter().next();
    let named = own.and_then(|own| Some((subject(&own)?, node_name(&own)?)));
    let (node, name) =
        named.ok_or_else(|| io::Error::other(format!("read {}: it names no node", config.node.display())))?;
    let own_pem = certificate_file(&config.serving)?;
    // Last: credentials that cannot be used are none of its business.
    let store = open_alive(config)?;
    listener.set_nonblocking(true)?;
    // A flag, not tokio's signals: their sockets would be made in every program of this binary, also where a filter of
    // system calls forbids it.
    let ended = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, ended.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let rewrite = config.service.map(|service| Arc::new(Rewrite::new(&own_pem, service)));
        let progress = Arc::default();
        let shared = Arc::new(Shared { servers: servers.clone(), store: store.clone(), progress, rewrite });
        let direct = Arc::new(Direct::new(servers.clone()));
        let watched = (servers.clone(), store.clone());
        tokio::spawn(async move { watched.0.watch_over(&watched.1).await });
        let mut publisher = tokio::spawn(publish(config.status.clone(), servers.clone(), store.clone(), beat, ended));
        let (watched, name) = ((servers.clone(), store.clone()), name);
        tokio::spawn(async move { outage::report(&name, &watched.0, &watched.1).await });
        let [unproven, ours, others] = PLACES.map(|count| Arc::new(Semaphore::new(count)));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                published = &mut publisher => return match published {
                    Ok(true) => Ok(()),
                    _ => {
                        if store.is_damaged() {
                            set_aside(&config.state.join(STORE))?;
                        }
                        Err(io::Error::other("the store can no longer be written"))
                    }
                },
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(local) = stream.local_addr().ok().map(|at| at.ip()).filter(|at| config.serves(*at)) else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            // A pod that no place is left for, or that does not trust the cache, reaches the API server itself.
            let pod = config.is_of_pod(local, peer.ip()).then(|| peer.ip());
            if pod.is_some_and(|pod| others.available_permits() == 0 || direct.takes(pod)) {
                direct.copy(stream);
                continue;
            }
            let Ok(place) = unproven.clone().try_acquire_owned() else { continue };
            let (tls, shared, node) = (tls.clone(), shared.clone(), node.clone());
            let (ours, others, direct) = (ours.clone(), others.clone(), direct.clone());
            tokio::spawn(async move {
                let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return pod.into_iter().for_each(|pod| direct.refused(pod, &error)),
                    Err(_) => return,
                };
                let proven = stream.get_ref().1.peer_certificates().and_then(|chain| subject(chain.first()?));
                let is_node = proven == Some(node);
                let Ok(proven) = if is_node { ours } else { others }.try_acquire_owned() else { return };
                drop(place);
                connection(stream, Session::new(shared, is_node, proven)).await;
            });
        }
    })
}

async fn connection(stream: TlsStream<TcpStream>, session: Arc<Session>) {
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| session.clone().handle(request));
    let io = TokioIo::new(stream);
    // How a connection ends is the client's business.
    if two {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
        builder.initial_stream_window_size(STREAM).initial_connection_window_size(4 * STREAM);
        builder.max_send_buf_size(STREAM as usize);
        let _ = builder.serve_connection(io, service).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let _ = builder.serve_connection(io, service).with_upgrades().await;
    }
}

/// Publishes the state when it changes, has the store flushed, and gives signs of life. Ends with true when the process is
/// to end and all is on the medium, with false when the store fails.
async fn publish(
    path: Option<std::path::PathBuf>,
    servers: Arc<Servers>,
    store: Store,
    mut beat: impl FnMut() -> bool,
    ended: Arc<AtomicBool>,
) -> bool {
    let link = servers.link();
    let (mut last, mut ticks) = (None, 0u64);
    let (mut steady, mut due) = (0u64, false);
    loop {
        let heard = beat();
        let state = *link.borrow();
        if !heard || ended.load(Ordering::Relaxed) {
            if matches!(state, Link::Connected(_)) {
                store.change(Op::Contact(now())).await;
            }
            store.change(Op::Positions).await;
            store.flush().await;
            return true;
        }
        if last != Some(state) || ticks % 60 == 0 {
            last = Some(state);
            if let Some(path) = &path
                && let Err(error) = write_status(path, state, &store).await
            {
                eprintln!("firstboot cache: write {}: {error}", path.display());
            }
        }
        ticks += 1;
        let mut good = true;
        if matches!(state, Link::Connected(_)) && ticks % CONTACT == 0 {
            good &= store.change(Op::Contact(now())).await;
        }
        steady = if matches!(state, Link::Connected(_)) { steady + 1 } else { 0 };
        due |= ticks % 3600 == 0;
        if due && steady >= STEADY {
            due = false;
            good &= store.change(Op::Prune).await;
        }
        if ticks % FLUSH.as_secs() == 0 {
            good &= store.change(Op::Flush(None)).await;
        }
        if !good {
            return false;
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn write_status(path: &Path, link: Link, store: &Store) -> io::Result<()> {
    let (word, since) = match link {
        Link::Unknown => ("unknown", now()),
        Link::Connected(since) => ("connected", since),
        Link::Disconnected(since) => ("disconnected", since),
    };
    let contact = if word == "connected" { now() } else { store.contact() };
    let published = Published { link: word.to_owned(), since, contact, objects: store.objects() };
    let text = serde_json::to_vec(&published)?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
