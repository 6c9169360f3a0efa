// SPDX-License-Identifier: Apache-2.0
//! The API servers: connections to them, and whether they answer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::body::Body;
use crate::config::{Config, certificates, pair};
use crate::copy::both_ways;
use crate::store::{Op, Store, now};

/// Longest time for one connection, TLS included: three lost packets in a row at TCP's waits.
const CONNECT: Duration = Duration::from_secs(8);
/// Longest time for an answer to the question whether a server is ready.
const PROBE: Duration = Duration::from_secs(5);
/// Between two questions while a server answers, and while none does.
const CALM: Duration = Duration::from_secs(20);
const ANXIOUS: Duration = Duration::from_secs(2);
/// A connection on which nothing comes for so long is asked for a sign of life, which it has as long again to give.
const ALIVE: Duration = Duration::from_secs(10);

/// Bytes that may wait on one stream for a slow reader: what waits is memory, on both sides of the cache.
pub(crate) const STREAM: u32 = 64 << 10;

/// Whether an API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not known yet.
    Unknown,
    /// One answers, since then (seconds since 1970).
    Connected(u64),
    /// None answers, since then.
    Disconnected(u64),
}

/// A connection to an API server.
pub enum Connection {
    /// For many requests at once.
    Two(http2::SendRequest<Body>, String),
    /// For one request, which may become another protocol.
    One(http1::SendRequest<Body>, String),
}

/// Why a request got no answer.
#[derive(Debug)]
pub struct Unanswered(String);

impl Unanswered {
    /// For this reason.
    pub fn new(why: &str) -> Self {
        Unanswered(why.to_owned())
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Connection {
    /// Whether it still takes requests.
    pub fn usable(&self) -> bool {
        match self {
            Connection::Two(sender, _) => !sender.is_closed(),
            Connection::One(sender, _) => !sender.is_closed(),
        }
    }

    /// `HOST:PORT` of its server.
    pub fn server(&self) -> &str {
        match self {
            Connection::Two(_, server) | Connection::One(_, server) => server,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let answer = match self {
            Connection::Two(sender, _) => sender.send_request(request).await,
            Connection::One(sender, _) => sender.send_request(request).await,
        };
        answer.map_err(|e| Unanswered(e.to_string()))
    }
}

/// The API servers of the cluster.
pub struct Servers {
    servers: Vec<String>,
    name: ServerName<'static>,
    as_node: Arc<ClientConfig>,
    anonymous: Arc<ClientConfig>,
    /// Index of the server that answered last.
    best: AtomicUsize,
    link: watch::Sender<Link>,
    doubt: Notify,
}

impl Servers {
    /// By the settings.
    ///
    /// # Errors
    /// A certificate or a key cannot be used; names the file.
    pub fn new(config: &Config) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&config.ca)?);
        let node = pair(&config.node)?;
        let unusable = |e: rustls::Error| io::Error::other(format!("use {}: {e}", config.node.display()));
        let client = || ClientConfig::builder().with_root_certificates(roots.clone());
        let as_node = client().with_client_auth_cert(node.chain, node.key).map_err(unusable)?;
        let name = ServerName::try_from(config.server_name.clone()).map_err(io::Error::other)?;
        Ok(Servers {
            servers: config.servers.clone(),
            name,
            as_node: Arc::new(as_node),
            anonymous: Arc::new(client().with_no_client_auth()),
            best: AtomicUsize::new(0),
            link: watch::Sender::new(Link::Unknown),
            doubt: Notify::new(),
        })
    }

    /// Whether one answers, now and later.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Whether requests go to this server now.
    pub fn is_best(&self, server: &str) -> bool {
        self.servers.get(self.best.load(Ordering::Relaxed)).is_some_and(|best| best == server)
    }

    /// Says that a request got no answer: the state is looked at right now.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    async fn stream(&self, as_node: bool, two: bool) -> Result<(TlsStream<TcpStream>, String), Unanswered> {
        let mut config = (*if as_node { &self.as_node } else { &self.anonymous }).as_ref().clone();
        config.alpn_protocols = vec![if two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let connector = TlsConnector::from(Arc::new(config));
        let first = self.best.load(Ordering::Relaxed);
        let mut why = Unanswered("there is no API server".to_owned());
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = &self.servers[index];
            let connect = async {
                let stream = TcpStream::connect(server).await?;
                stream.set_nodelay(true)?;
                connector.connect(self.name.clone(), stream).await
            };
            match tokio::time::timeout(CONNECT, connect).await {
                Ok(Ok(stream)) => {
                    self.best.store(index, Ordering::Relaxed);
                    return Ok((stream, server.clone()));
                }
                Ok(Err(error)) => why = Unanswered(format!("connect to {server}: {error}")),
                Err(_) => why = Unanswered(format!("connect to {server}: no answer within {} s", CONNECT.as_secs())),
            }
        }
        Err(why)
    }

    /// Connects: as this node, or without a certificate, for requests with a token; by HTTP/2, or by HTTP/1.1 for one request.
    ///
    /// # Errors
    /// None of the servers answers.
    pub async fn connect(&self, as_node: bool, two: bool) -> Result<Connection, Unanswered> {
        let (stream, server) = self.stream(as_node, two).await?;
        let failed = |e: hyper::Error| Unanswered(format!("connect to {server}: {e}"));
        let io = TokioIo::new(stream);
        if two {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
            builder.initial_stream_window_size(STREAM).initial_connection_window_size(4 * STREAM);
            builder.max_send_buf_size(STREAM as usize);
            let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
            tokio::spawn(connection);
            Ok(Connection::Two(sender, server))
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
            tokio::spawn(connection.with_upgrades());
            Ok(Connection::One(sender, server))
        }
    }

    /// Copies bytes between a client and the server that answered last, until both have ended, and looks at none of them.
    ///
    /// # Errors
    /// The server does not take the connection.
    pub async fn copy(&self, client: TcpStream) -> io::Result<()> {
        let server = self.servers.get(self.best.load(Ordering::Relaxed)).ok_or(io::ErrorKind::NotFound)?;
        let server = tokio::time::timeout(CONNECT, TcpStream::connect(server)).await??;
        server.set_nodelay(true)?;
        both_ways(client, server).await;
        Ok(())
    }

    /// Whether a server is ready; each is asked, and one that is not ready gives way to the next.
    async fn any_ready(&self, connection: &mut Option<Connection>) -> bool {
        // The only one is asked a second time before it counts as gone.
        for _ in 0..self.servers.len().max(2) {
            let asked = self.best.load(Ordering::Relaxed);
            if self.ready(connection).await {
                return true;
            }
            // Unless a request has found another one meanwhile.
            let next = (asked + 1) % self.servers.len();
            let _ = self.best.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        false
    }

    async fn ready(&self, connection: &mut Option<Connection>) -> bool {
        // One to another server says nothing of the one that requests go to.
        let good = |open: &Connection| open.usable() && self.is_best(open.server());
        if !connection.as_ref().is_some_and(good) {
            *connection = self.connect(true, true).await.ok();
        }
        let Some(open) = connection else { return false };
        let uri = format!("https://{}/readyz", open.server());
        let Ok(request) = Request::get(uri).body(Empty::<Bytes>::new().map_err(|e| match e {}).boxed_unsync()) else {
            return false;
        };
        // Whatever answers in its place (a login page, a load balancer) does not say `ok`.
        let ask = async {
            let Ok(answer) = open.send(request).await else { return false };
            let good = answer.status() == StatusCode::OK;
            let body = Limited::new(answer.into_body(), 64).collect().await;
            good && body.is_ok_and(|body| body.to_bytes().trim_ascii() == b"ok")
        };
        let answered = tokio::time::timeout(PROBE, ask).await.unwrap_or(false);
        if !answered {
            *connection = None;
        }
        answered
    }

    /// Watches over the state for ever.
    pub async fn watch_over(&self, store: &Store) {
        let mut connection = None;
        loop {
            let ready = self.any_ready(&mut connection).await;
            let was = *self.link.borrow();
            let link = match (ready, was) {
                (true, Link::Connected(_)) | (false, Link::Disconnected(_)) => was,
                (true, _) => Link::Connected(now()),
                (false, _) => Link::Disconnected(now()),
            };
            if link != was {
                if ready || matches!(was, Link::Connected(_)) {
                    store.change(Op::Contact(now())).await;
                }
                self.link.send_replace(link);
            }
            let pause = if ready { CALM } else { ANXIOUS };
            let _ = tokio::time::timeout(pause, self.doubt.notified()).await;
        }
    }
}
