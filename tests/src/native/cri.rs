// SPDX-License-Identifier: Apache-2.0
//! The container runtime's stand-in: the three questions of firstboot over CRI, answered on a local socket.
//!
//! gRPC is HTTP/2 with five bytes before each message (a flag and a length) and the outcome in a trailer. The messages
//! are short, so they are written byte by byte; the field numbers are those of `api.proto` (k8s.io/cri-api runtime/v1).

use super::ground::DATABASE;
use anyhow::{Context, Result};
use firstboot::bundle::{BUNDLE_DIR, Manifest};
use h2::server::SendResponse;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};

/// A runtime that runs until it is dropped.
pub(super) struct Runtime {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Listens on `socket`. It knows the images of the bundle below `root` where its data base is the bundle's.
    pub(super) fn start(socket: &Path, root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        stopped.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            // The client sees that no server answers.
            let _ = runtime.block_on(serve(listener, stopped, root));
        });
        Ok(Runtime { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: UnixListener, stopped: UnixStream, root: PathBuf) -> Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let stopped = tokio::net::UnixStream::from_std(stopped)?;
    loop {
        tokio::select! {
            _ = stopped.readable() => return Ok(()),
            accepted = listener.accept() => {
                let (stream, root) = (accepted?.0, root.clone());
                tokio::spawn(async move { connection(stream, root).await });
            }
        }
    }
}

async fn connection(stream: tokio::net::UnixStream, root: PathBuf) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let root = root.clone();
        tokio::spawn(async move { answer(request, respond, &root).await });
    }
    Ok(())
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, root: &Path) -> Result<()> {
    let (head, mut body) = request.into_parts();
    let mut question = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        question.extend_from_slice(&data);
    }
    let message = match head.uri.path() {
        "/runtime.v1.RuntimeService/Status" => {
            field(1, &field(1, &[field(1, b"RuntimeReady"), vec![2 << 3, 1]].concat()))
        }
        "/runtime.v1.ImageService/ImageStatus" => image(question.get(5..).unwrap_or_default(), root),
        // No pods.
        _ => Vec::new(),
    };
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    frame.extend_from_slice(&message);
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(frame.into(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(stream.send_trailers(trailers)?)
}

/// `ImageStatusResponse` for an `ImageStatusRequest`: the image where the runtime knows it, else nothing.
fn image(question: &[u8], root: &Path) -> Vec<u8> {
    let name = content(question).and_then(content).unwrap_or_default();
    match knows(root, &String::from_utf8_lossy(name)).unwrap_or(false) {
        true => field(1, &field(1, name)),
        false => Vec::new(),
    }
}

/// As containerd does by its data base, which is here only compared with the bundle's.
fn knows(root: &Path, name: &str) -> Result<bool> {
    let bundle = root.join(&BUNDLE_DIR[1..]);
    let database = |state: &Path| std::fs::read(state.join(DATABASE));
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(bundle.join("manifest.json"))?)?;
    let same = database(&root.join("var/lib/containerd"))? == database(&bundle.join("containerd"))?;
    Ok(same && manifest.images.iter().any(|image| image.name == name))
}

/// A field whose content has a length; shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// What is in field 1, the only one.
fn content(message: &[u8]) -> Option<&[u8]> {
    match message {
        [0x0a, length, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    }
}
