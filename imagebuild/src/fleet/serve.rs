// SPDX-License-Identifier: Apache-2.0
//! `imagebuild fleet serve`: the manifest and the images of a fleet over HTTP, each image patched while it is sent.
//!
//! Images hold tokens. So the server listens on the loopback address unless --listen has another, and its paths begin with a
//! random prefix: other users of the machine and web pages in its browser cannot guess it.

use super::manifest::{Fleet, Source};
use super::patched::Patched;
use anyhow::{Context as _, Result};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

/// Name of the manifest below the prefix. Imager opens addresses that end like this.
pub const MANIFEST: &str = "fleet.rpi-imager-manifest";
/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Flags of `imagebuild fleet serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Address and port; images hold tokens, so anything but loopback is for networks that you trust
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// First part of all paths instead of a random one
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
}

/// What every connection needs.
struct Server {
    fleet: Fleet,
    prefix: String,
    sums: Mutex<Vec<Option<String>>>,
}

/// Runs `imagebuild fleet serve` until it is interrupted.
///
/// # Errors
/// As [`Fleet::new`]; and when the address cannot be used.
pub fn main(args: &Args) -> Result<()> {
    let fleet = Fleet::new(&args.source)?;
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().with_context(|| format!("listen on {}", args.listen))?;
    if !address.ip().is_loopback() {
        eprintln!(
            "imagebuild: warning: everyone who can reach {address} and knows the address below gets seeds with tokens"
        );
    }
    let prefix = args.prefix.clone().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    println!("{} devices: rpi-imager --repo http://{address}/{prefix}/{MANIFEST}", fleet.devices.len());
    let sums = Mutex::new(vec![None; fleet.devices.len()]);
    let server = Arc::new(Server { fleet, prefix, sums });
    let behind = Arc::clone(&server);
    thread::spawn(move || {
        let keep = |index: usize, sum| behind.sums.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(sum);
        match behind.fleet.digests(&keep) {
            Ok(()) => eprintln!("imagebuild: the digests of all images are known; Imager checks them from now on"),
            Err(error) => eprintln!("imagebuild: {error:#}"),
        }
    });
    for stream in listener.incoming() {
        let (server, stream) = (Arc::clone(&server), stream.context("accept a connection")?);
        // A thread for each connection: an image is read as it is sent, and that blocks.
        thread::spawn(move || server.connection(stream));
    }
    Ok(())
}

impl Server {
    fn connection(self: Arc<Self>, stream: TcpStream) -> Result<()> {
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
            let service = service_fn(|request| {
                let response = self.answer(&request);
                async { Ok::<_, Infallible>(response) }
            });
            Ok(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await?)
        })
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Content> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(&*self.prefix));
        match path.and_then(|path| path.strip_prefix('/')) {
            Some(MANIFEST) => {
                let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
                self.manifest(&format!("http://{host}/{}", self.prefix))
            }
            Some(path) => self.image(path, request).unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found\n")),
            None => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn manifest(&self, url: &str) -> Response<Content> {
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let manifest = self.fleet.manifest(url, &|index| sums[index].clone());
        let mut response = text(StatusCode::OK, &format!("{manifest}\n"));
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        response
    }

    fn image<B>(&self, path: &str, request: &Request<B>) -> Option<Response<Content>> {
        let id = path.strip_prefix("images/")?.strip_suffix(".img")?;
        let device = self.fleet.devices.iter().find(|device| device.id == percent(id))?;
        let len = self.fleet.template.len;
        let mut image = self.fleet.template.of(device);
        let wanted = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let response =
            Response::builder().header(CONTENT_TYPE, "application/octet-stream").header(ACCEPT_RANGES, "bytes");
        let (response, left) = match wanted.and_then(|range| part(range, len)) {
            None => (response.status(StatusCode::OK), len),
            Some(Err(())) => {
                let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
                (response.header(CONTENT_RANGE, format!("bytes */{len}")), 0)
            }
            Some(Ok((first, last))) => {
                image.seek(first);
                let response = response.status(StatusCode::PARTIAL_CONTENT);
                (response.header(CONTENT_RANGE, format!("bytes {first}-{last}/{len}")), last - first + 1)
            }
        };
        response.header(CONTENT_LENGTH, left).body(Content::Image { image: Box::new(image), left }).ok()
    }
}

fn text(status: StatusCode, text: &str) -> Response<Content> {
    let mut response = Response::new(Content::Text(Some(Bytes::from(text.to_owned()))));
    *response.status_mut() = status;
    response
}

/// First and last byte of a `Range` (RFC 9110, §14.1.2). `None` for what may be ignored: several ranges, another unit.
fn part(range: &str, len: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let (first, last) = match (first, last) {
        ("", last) => (len.saturating_sub(number(last)?), len - 1),
        (first, "") => (number(first)?, len - 1),
        (first, last) => (number(first)?, number(last)?.min(len - 1)),
    };
    Some(if first <= last && first < len { Ok((first, last)) } else { Err(()) })
}

/// The text of a path that is percent-encoded (RFC 3986, §2.1); names of seeds may have letters of any script.
fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a response holds.
enum Content {
    Text(Option<Bytes>),
    Image { image: Box<Patched>, left: u64 },
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match &mut *self {
            Content::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Content::Image { left: 0, .. } => None,
            Content::Image { image, left } => {
                let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
                match image.read(&mut piece) {
                    Ok(n) => {
                        piece.truncate(n);
                        *left -= n as u64;
                        Some(Ok(Frame::data(piece.into())))
                    }
                    Err(error) => Some(Err(error)),
                }
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Content::Text(text) => text.as_ref().map_or(0, |text| text.len() as u64),
            Content::Image { left, .. } => *left,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        assert_eq!(part("bytes=0-9", 100), Some(Ok((0, 9))));
        assert_eq!(part("bytes=90-", 100), Some(Ok((90, 99))));
        assert_eq!(part("bytes=-10", 100), Some(Ok((90, 99))));
        assert_eq!(part("bytes=90-200", 100), Some(Ok((90, 99))));
        assert_eq!(part("bytes=100-", 100), Some(Err(())));
        assert_eq!((part("items=0-1", 100), part("bytes=0-1,3-4", 100)), (None, None));
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(percent("caf%C3%A9-1"), "café-1");
        assert_eq!(percent("100%"), "100%");
    }
}
