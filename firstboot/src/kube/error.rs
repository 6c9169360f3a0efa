// SPDX-License-Identifier: Apache-2.0
//! Why a request to the API server failed: the causes, one line each.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use super::tls_error;
use crate::fault::{Code, Fault};
use crate::proxy::Proxy;

/// What kind of failure it was, for callers that act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No answer: name, route, connection, TLS or time.
    Transport,
    /// The API server refused, in its own words, with this HTTP status.
    Status(u16),
    /// The server answered something that it should not.
    Answer,
}

/// A failed request. `text` is one line and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// For the program.
    pub kind: Kind,
    /// For people and scripts.
    pub code: Code,
    /// For the person.
    pub text: String,
    /// How long the server asks to be left alone (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, code: Code, text: impl Into<String>) -> Self {
        Error { kind, code, text: text.into(), retry_after: None }
    }

    /// The server answered, but not what was asked for.
    pub fn answer(code: Code, text: impl Into<String>) -> Self {
        Error::new(Kind::Answer, code, text)
    }

    /// The same error with another code and in other words.
    pub fn saying(self, code: Code, text: impl Into<String>) -> Self {
        Error { code, text: text.into(), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { code: error.code, retry_after: error.retry_after, cause: error.into() }
    }
}

/// Says why no answer came from `server` (`host:port`), reached through `proxy` or directly.
pub(super) fn transport(server: &str, proxy: Option<&Proxy>, error: &reqwest::Error) -> Error {
    if let Some(proxy) = proxy
        && let Some(why) = proxy_cause(error)
    {
        let text = format!("reach API server {server} through proxy {}: {why}", proxy.host());
        return Error::new(Kind::Transport, Code::Proxy, text);
    }
    // TCP connections that fail in the middle of the handshake are someone's doing: firewalls that look into TLS.
    if error.is_connect() && cut(error) {
        let text = format!(
            "start TLS with API server {server}: connection cut in the handshake: is a firewall or a proxy in between?"
        );
        return Error::new(Kind::Transport, Code::ConnectionCut, text);
    }
    let (code, text) = cause(server, error).unwrap_or_else(|| {
        if error.is_timeout() {
            return (Code::Unreachable, format!("connect to API server {server}: no answer in time"));
        }
        (Code::Cluster, format!("talk to API server {server}: {}", innermost(error)))
    });
    Error::new(Kind::Transport, code, text)
}

/// What failed, in words: never those of a library, which are for programmers.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let chain = || std::iter::successors(error.source(), |&e| e.source());
    if let Some(tls) = tls(error) {
        return tls_error::words(tls);
    }
    // An error without a number is a library's own, and only wrapped.
    let system = chain().flat_map(wrapped).find_map(|io| io.raw_os_error().map(|number| (io.kind(), number)));
    match system {
        Some((kind, number)) => {
            io_cause(kind).map_or_else(|| format!("{kind} (errno {number})"), |(_, why)| why.to_owned())
        }
        None if error.is_timeout() => "no answer in time".to_owned(),
        None if error.is_builder() => "the request cannot be made".to_owned(),
        None => "its answer is not HTTP, or ends too early".to_owned(),
    }
}

/// The TLS error behind it, if there is one.
pub(super) fn tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    std::iter::successors(error.source(), |&e| e.source())
        .find_map(|e| e.downcast_ref().or_else(|| wrapped(e).find_map(|io| io.get_ref()?.downcast_ref())))
}

/// What the proxy made of it, as far as it is the proxy that failed: the API server's name and address are its to
/// find, and before it agrees no byte reaches the API server.
fn proxy_cause(error: &reqwest::Error) -> Option<&'static str> {
    let chain = || std::iter::successors(error.source(), |&e| e.source());
    // hyper-util's TunnelError is not public; its texts are (client/legacy/connect/proxy/tunnel.rs).
    let tunnel = chain().map(ToString::to_string).find_map(|text| match text.strip_prefix("tunnel error: ")? {
        "proxy authorization required" => Some("it asks for a user name and a password, or for others"),
        "unsuccessful" => Some("it does not let the connection through"),
        "unexpected end of file" => Some("it ended the connection"),
        "failed to create underlying connection" | "io error establishing tunnel" => None,
        _ => Some("it answers with something that is no HTTP proxy's answer"),
    });
    let resolved = || chain().any(|e| e.to_string().starts_with("dns error")).then_some("its name is not resolved");
    let io = || chain().flat_map(wrapped).find_map(|e| io_cause(e.kind())).map(|(_, why)| why);
    let connected = || chain().any(|e| e.downcast_ref::<rustls::Error>().is_some()) || !error.is_connect();
    tunnel.or_else(resolved).or_else(|| if connected() { None } else { io() })
}

/// Whether the connection was there and then ended.
fn cut(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ended = |e: &io::Error| matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    std::iter::successors(error.source(), |&e| e.source()).any(|e| wrapped(e).any(ended))
}

/// The I/O errors in one link of the chain: an [`io::Error`] hides what it wraps from `source`, and TLS errors are
/// wrapped twice.
fn wrapped<'e>(link: &'e (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'e io::Error> {
    std::iter::successors(link.downcast_ref::<io::Error>(), |e| e.get_ref()?.downcast_ref())
}

/// Looks for a cause with a name along the chain of sources.
fn cause(server: &str, error: &reqwest::Error) -> Option<(Code, String)> {
    let mut next = error.source();
    while let Some(source) = next {
        if source.to_string().starts_with("dns error") {
            return Some((Code::NameNotResolved, format!("connect to API server {server}: name not resolved")));
        }
        if let Some(tls) = source.downcast_ref::<rustls::Error>() {
            return Some(tls_error::cause(server, tls));
        }
        for io in wrapped(source) {
            if let Some(tls) = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                return Some(tls_error::cause(server, tls));
            }
            if let Some((code, why)) = io_cause(io.kind()) {
                return Some((code, format!("connect to API server {server}: {why}")));
            }
        }
        next = source.source();
    }
    None
}

/// Code and words for the failures of a connection that have a name.
fn io_cause(kind: io::ErrorKind) -> Option<(Code, &'static str)> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => (Code::ConnectionRefused, "connection refused"),
        io::ErrorKind::NetworkUnreachable => (Code::Unreachable, "network unreachable"),
        io::ErrorKind::HostUnreachable => (Code::Unreachable, "host unreachable"),
        io::ErrorKind::ConnectionReset => (Code::ConnectionCut, "connection reset"),
        io::ErrorKind::UnexpectedEof => (Code::ConnectionCut, "connection closed"),
        io::ErrorKind::TimedOut => (Code::Unreachable, "no answer in time"),
        _ => return None,
    })
}

/// Text from the other side, made fit for one line: printable, at most 300 characters.
pub(super) fn remote(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}
