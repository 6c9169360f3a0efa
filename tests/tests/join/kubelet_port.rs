// SPDX-License-Identifier: Apache-2.0
//! kubelet's port for an API server that asks it for logs, exec, attach and port-forward: a container that sends back what it gets.
//!
//! What the API server 1.36 asks (`pkg/registry/core/pod/rest/subresources.go`): the WebSocket of its client goes on to a
//! kubelet whose Node declares `ExtendWebSocketsToKubelet`; with any other kubelet it speaks SPDY/3.1.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use apicache::body::{Body, Sender, pieces, whole};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use qemu::wait;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::cache_bench::LIMIT;

/// What the container has written so far.
pub fn log() -> String {
    (0..20_000).map(|number| format!("line {number} of what the container has written so far\n")).collect()
}

/// The port, for as long as the test's program runs.
pub struct KubeletPort {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What was asked: method, first part of the path, the protocol to change to, and what is spoken over that.
    asked: Mutex<Vec<[String; 4]>>,
    /// The way into the answer to a request that follows the log.
    followed: Mutex<Option<Sender>>,
}

impl KubeletPort {
    pub fn start() -> Self {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        // The API server of kubeadm does not verify kubelet's certificate.
        let tls =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key.into());
        let tls = TlsAcceptor::from(Arc::new(tls.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let served = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (tls, shared) = (tls.clone(), served.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        let service = service_fn(move |request| answer(request, shared.clone()));
                        // How a connection ends is the API server's business.
                        let server = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        let _ = server.with_upgrades().await;
                    });
                }
            });
        });
        KubeletPort { port, shared }
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<[String; 4]> {
        std::mem::take(&mut *self.shared.asked.lock().unwrap())
    }

    /// Waits until someone follows the log.
    pub fn followed(&self) -> Sender {
        wait::until("a request that follows the log", LIMIT, || Ok(self.shared.followed.lock().unwrap().take()))
            .unwrap()
    }
}

async fn answer(mut request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let what = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (upgrade, key) = (header("upgrade"), header("sec-websocket-key"));
    let offered = header(if upgrade == "websocket" { "sec-websocket-protocol" } else { "x-stream-protocol-version" });
    let asked = [request.method().to_string(), what.clone(), upgrade.clone(), offered.clone()];
    shared.asked.lock().unwrap().push(asked);
    let has = |wanted: &str| query.split('&').any(|parameter| parameter == wanted);
    if what == "containerLogs" && has("follow=true") {
        let (sender, body) = pieces();
        *shared.followed.lock().unwrap() = Some(sender);
        return Ok(Response::new(body));
    }
    let code = query.split('&').filter_map(|parameter| parameter.strip_prefix("command=")).next_back();
    let (stdin, code) = (has("input=1"), code.unwrap_or_default().to_owned());
    let on = hyper::upgrade::on(&mut request);
    let mut switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "Upgrade");
    switching = switching.header("upgrade", &upgrade);
    let named = match (what.as_str(), upgrade.as_str()) {
        ("containerLogs", "") => return Ok(Response::new(whole(log()))),
        ("exec" | "attach" | "portForward", "websocket") => {
            tokio::spawn(async move {
                let Ok(upgraded) = on.await else { return };
                let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                // A client that goes away is no failure.
                let _ = match what.as_str() {
                    "portForward" => tunnel(stream).await,
                    _ => exec(stream, stdin, &code).await,
                };
            });
            switching
                .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
                .header("sec-websocket-protocol", offered)
        }
        ("portForward", "SPDY/3.1") => {
            tokio::spawn(async move {
                let Ok(upgraded) = on.await else { return };
                let _ = plain(TokioIo::new(upgraded)).await;
            });
            switching.header("x-stream-protocol-version", offered)
        }
        _ => Response::builder().status(StatusCode::NOT_FOUND),
    };
    Ok(named.body(whole(Bytes::new())).unwrap())
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A command that sends back what it reads, has a word on its standard error, and ends with this code, or with none where one
/// was attached to it (`v5.channel.k8s.io`: the first byte of a message is its channel).
async fn exec(mut socket: Socket, stdin: bool, code: &str) -> Done {
    let on = |channel: u8, bytes: &[u8]| Message::Binary([&[channel], bytes].concat().into());
    while stdin && let Some(message) = socket.next().await {
        let Message::Binary(data) = message? else { continue };
        match data.split_first() {
            Some((0, input)) => socket.send(on(1, input)).await?,
            // Standard input has come to its end.
            Some((255, [0])) => break,
            _ => {}
        }
    }
    socket.send(on(2, b"that was all\n")).await?;
    let status = match code {
        "" | "0" => serde_json::json!({"metadata": {}, "status": "Success"}),
        code => serde_json::json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code}]},
        }),
    };
    socket.send(on(3, status.to_string().as_bytes())).await?;
    // kubectl takes no other end for a good one.
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
    Ok(())
}

/// SPDY within the messages of a WebSocket.
async fn tunnel(mut socket: Socket) -> Done {
    let mut echo = Echo::default();
    while let Some(message) = socket.next().await {
        let Message::Binary(data) = message? else { continue };
        let back = echo.push(&data);
        if !back.is_empty() {
            socket.send(Message::Binary(back.into())).await?;
        }
    }
    Ok(())
}

/// SPDY on the connection itself.
async fn plain(mut stream: TokioIo<Upgraded>) -> Done {
    let (mut echo, mut buffer) = (Echo::default(), vec![0; 64 << 10]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let back = echo.push(&buffer[..count]);
        stream.write_all(&back).await?;
        stream.flush().await?;
    }
}

/// The far end of SPDY/3.1: every stream is accepted and gets back what it sends, its end too. So does the stream for
/// errors, on which nothing is sent. No header of a stream is read.
/// <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>
#[derive(Default)]
struct Echo {
    pending: Vec<u8>,
    replied: bool,
}

impl Echo {
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let (mut back, mut at) = (Vec::new(), 0);
        while let Some(head) = pending.get(at..at + 8) {
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            let Some(frame) = pending.get(at..at + 8 + length) else { break };
            match (head[0] & 0x80, head[3]) {
                // Data, or PING.
                (0, _) | (_, 6) => back.extend_from_slice(frame),
                // SYN_STREAM: SYN_REPLY without headers.
                (_, 1) => {
                    let none = self.no_headers();
                    let length = u8::try_from(4 + none.len()).unwrap();
                    back.extend_from_slice(&[0x80, 3, 0, 2, 0, 0, 0, length]);
                    back.extend_from_slice(&frame[8..12]);
                    back.extend_from_slice(&none);
                }
                _ => {}
            }
            at += 8 + length;
        }
        pending.drain(..at);
        self.pending = pending;
        back
    }

    /// Zero headers: four bytes, in a stored block of the one zlib stream of all answers, and an empty block that has the
    /// reader hand them over (RFC 1951, section 3.2.4).
    fn no_headers(&mut self) -> Vec<u8> {
        let head: &[u8] = if std::mem::replace(&mut self.replied, true) { &[] } else { &[0x78, 1] };
        [head, &[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0], &[0, 0, 0, 0xff, 0xff]].concat()
    }
}

/// A line that the container writes.
pub fn line(text: &str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(format!("{text}\n").into()))
}
