// SPDX-License-Identifier: Apache-2.0
//! A client of the Kubernetes API: GET, POST, PATCH, DELETE and WATCH of JSON, one server, one kept connection.
//!
//! HTTP/1.1 without redirects, cookies or retries: a failure is reported, and the caller decides. A proxy only where the
//! seed names one: environment variables of this process do not count.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use reqwest::{Method, Response, StatusCode, Url, redirect};
use rustls::ClientConfig;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::{self, Error};
use super::resolve::Resolver;
use super::response::{self, RequestLine};
use crate::fault::Code;
use crate::proxy::{Proxy, Via};
use crate::seed::{Endpoint, JoinToken};

/// Longest time for one call, from connecting to the last byte: what client-go allows a connection alone, so that a
/// link that loses every third packet has time to send again, at waits that double each time (RFC 6298).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for one connection, TLS included: four lost packets in a row at such waits. No longer, for the next of
/// several API servers waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// An answer of the API server.
#[derive(Debug)]
pub struct Reply {
    /// The object.
    pub body: Value,
    /// The server's clock.
    pub date: Option<SystemTime>,
}

/// A client of one API server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    bearer: Option<HeaderValue>,
    via: Via,
}

impl Client {
    /// A client of the API at `server` (`https://host:port[/path]`), without a bearer token.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn new(server: &str, tls: ClientConfig) -> Result<Self, Error> {
        Client::through(&Via::default(), server, tls)
    }

    /// The same, where the server is reached through a proxy (CONNECT, so that it sees names and no content). One with
    /// `https://` is none for API servers ([`Proxy::is_tls`]): a request that would go through it is refused.
    ///
    /// # Errors
    /// TLS settings that cannot be used.
    pub fn through(via: &Via, server: &str, tls: ClientConfig) -> Result<Self, Error> {
        Client::found_by(Resolver(None), via, server, tls)
    }

    /// The same with another source of addresses than the system's.
    pub(super) fn found_by(resolver: Resolver, via: &Via, server: &str, tls: ClientConfig) -> Result<Self, Error> {
        let choice = via.clone();
        let proxy = move |url: &Url| -> Option<Url> {
            let proxy = choice.proxy_for(url.host_str()?, url.port_or_known_default()?).filter(|p| !p.is_tls())?;
            Url::parse(&proxy.to_string()).ok()
        };
        let mut proxy = reqwest::Proxy::custom(proxy);
        // reqwest would replace what is not UTF-8.
        if let Some(value) = via.proxy.as_ref().and_then(Proxy::authorization)
            && let Ok(mut value) = HeaderValue::from_str(&value)
        {
            value.set_sensitive(true);
            proxy = proxy.custom_http_auth(value);
        }
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .dns_resolver(Arc::new(resolver))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(redirect::Policy::none())
            .proxy(proxy)
            .https_only(true)
            .build()
            .map_err(|e| Error::answer(Code::Cluster, format!("set up TLS: {}", error::innermost(&e))))?;
        Ok(Client { http, server: server.trim_end_matches('/').to_owned(), bearer: None, via: via.clone() })
    }

    /// The same client, and its open connections, with a bearer token.
    pub fn with_token(&self, token: &JoinToken) -> Self {
        self.with_bearer(&token.bearer())
    }

    /// The same client, and its open connections, with any bearer token (RFC 6750).
    pub fn with_bearer(&self, token: &str) -> Self {
        // `concat` allocates once, so this copy is zeroed whole. Those in a HeaderValue and in the buffers of HTTP and TLS
        // cannot be zeroed: they end with this process, which is why the join worker is one of its own.
        let value = Zeroizing::new(["Bearer ", token].concat());
        let mut value = HeaderValue::from_str(&value).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        Client { bearer: Some(value), ..self.clone() }
    }

    /// The same client, and its open connections, for another address of the same cluster.
    pub fn at(&self, server: &str) -> Self {
        Client { server: server.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// `https://host:port[/path]` that this client talks to.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// GET of one object.
    pub async fn get(&self, path: &str) -> Result<Reply, Error> {
        self.call(Method::GET, path, None).await
    }

    /// The server's clock. A refusal tells it as well as an answer does; no body is read.
    ///
    /// # Errors
    /// No answer, or one without a `Date` (RFC 9110, 6.6.1: a server with a clock sends it).
    pub async fn clock(&self, path: &str) -> Result<SystemTime, Error> {
        let response = self.send(Method::GET, path, None, CALL_TIMEOUT).await?;
        let none = || {
            let text = format!("read the time of API server {}: its answer has no Date", self.host());
            Error::answer(Code::ClusterTime, text)
        };
        response::date(response.headers()).ok_or_else(none)
    }

    /// Whether a GET is answered with success (2xx); no body is read.
    ///
    /// # Errors
    /// No answer, or another one.
    pub async fn succeeds(&self, path: &str) -> Result<(), Error> {
        self.answers(path, |status| status.is_success()).await
    }

    /// Whether this server can serve at all: a GET is answered by something else than that it is overloaded or fails.
    ///
    /// # Errors
    /// It cannot, or does not answer.
    pub async fn serves(&self, path: &str) -> Result<(), Error> {
        self.answers(path, |status| !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS).await
    }

    async fn answers(&self, path: &str, well: impl Fn(StatusCode) -> bool) -> Result<(), Error> {
        let status = self.send(Method::GET, path, None, CALL_TIMEOUT).await?.status();
        let refused = || {
            let text = format!("read {path} of API server {}: it answers {}", self.host(), status.as_u16());
            Error::answer(Code::ApiError, text)
        };
        if well(status) { Ok(()) } else { Err(refused()) }
    }

    /// POST of a new object; gives what the server made of it.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Reply, Error> {
        self.call(Method::POST, path, Some(("application/json", object))).await
    }

    /// POST to a server of the cluster that is no API server: its status and its answer, whatever they are.
    ///
    /// # Errors
    /// No answer.
    pub async fn ask(&self, path: &str, question: &Value) -> Result<(u16, Vec<u8>), Error> {
        let response = self.send(Method::POST, path, Some(("application/json", question)), CALL_TIMEOUT).await?;
        Ok((response.status().as_u16(), self.read(response).await?))
    }

    /// Strategic merge PATCH of an object.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<Reply, Error> {
        self.call(Method::PATCH, path, Some(("application/strategic-merge-patch+json", patch))).await
    }

    /// Server-side apply of an object: it is created, or changed where it differs (KEP-555). JSON is YAML.
    pub async fn apply(&self, path: &str, manager: &str, object: &Value) -> Result<Reply, Error> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        self.call(Method::PATCH, &path, Some(("application/apply-patch+yaml", object))).await
    }

    /// PUT of a whole object; with `metadata.resourceVersion` only where nothing was changed since that was read.
    pub async fn put(&self, path: &str, object: &Value) -> Result<Reply, Error> {
        self.call(Method::PUT, path, Some(("application/json", object))).await
    }

    /// DELETE of an object.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Reply, Error> {
        self.call(Method::DELETE, path, Some(("application/json", options))).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&'static str, &Value)>) -> Result<Reply, Error> {
        let response = self.send(method.clone(), path, body, CALL_TIMEOUT).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = self.read(response).await?;
        match status.is_success() {
            true => Ok(Reply { body: response::json(&self.host(), &headers, &bytes)?, date: response::date(&headers) }),
            false => Err(self.request_line(&method, path).refusal(status, &headers, &bytes)),
        }
    }

    /// One request of any kind.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
        limit: Duration,
    ) -> Result<Response, Error> {
        let url = Url::parse(&format!("{}{path}", self.server)).map_err(|_| {
            let text = format!("API server address {} cannot be used", error::remote(&self.server));
            Error::answer(Code::ClusterInfo, text)
        })?;
        let proxy = url.host_str().zip(url.port_or_known_default()).and_then(|(h, p)| self.via.proxy_for(h, p));
        if let Some(proxy) = proxy.filter(|proxy| proxy.is_tls()) {
            let text = format!(
                "reach API server {} through proxy {proxy}: kubelet verifies such a proxy by the cluster's CA alone: add the \
                 server to no-proxy",
                self.host()
            );
            return Err(Error::answer(Code::Proxy, text));
        }
        let mut request = self
            .http
            .request(method, url)
            .timeout(limit)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("firstboot/", env!("CARGO_PKG_VERSION")));
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        if let Some((kind, object)) = body {
            request = request.header(CONTENT_TYPE, kind).body(object.to_string());
        }
        request.send().await.map_err(|e| self.transport(&e))
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(&e))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(Error::answer(
                    Code::NotKubernetes,
                    format!("API server {}: answer is larger than 4 MiB", self.host()),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Watches a collection until `see` gives something, or until `limit` has passed (`None`).
    ///
    /// `see` gets the event's type (`ADDED`, `MODIFIED`, `DELETED`) and the object; objects that exist already come
    /// first, as `ADDED`, unless `since` names the resourceVersion after which events count. One request, unless the
    /// server ends it early.
    pub async fn watch<T, E: From<Error>>(
        &self,
        path: &str,
        field_selector: &str,
        since: Option<&str>,
        limit: Duration,
        mut see: impl FnMut(&str, &Value) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let started = tokio::time::Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            if left < Duration::from_secs(1) {
                return Ok(None);
            }
            let selector = field_selector.replace('=', "%3D");
            let since = since.map(|version| format!("&resourceVersion={version}")).unwrap_or_default();
            let path = format!("{path}?watch=true&fieldSelector={selector}&timeoutSeconds={}{since}", left.as_secs());
            // The server ends it; the margin is for a server that does not.
            let response = self.send(Method::GET, &path, None, left + CALL_TIMEOUT).await?;
            if let Some(seen) = self.events(response, &path, &mut see).await? {
                return Ok(Some(seen));
            }
            // A server that ends every watch at once must not be asked in a tight loop.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reads one watch to its end, one JSON document a line.
    async fn events<T, E: From<Error>>(
        &self,
        mut response: Response,
        path: &str,
        see: &mut impl FnMut(&str, &Value) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let bytes = self.read(response).await?;
            return Err(self.request_line(&Method::GET, path).refusal(status, &headers, &bytes).into());
        }
        let mut pending = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(&e))? {
            pending.extend_from_slice(&chunk);
            if pending.len() > MAX_ANSWER {
                let text = format!("API server {}: event is larger than 4 MiB", self.host());
                return Err(Error::answer(Code::NotKubernetes, text).into());
            }
            while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let event = response::json(&self.host(), &headers, &line)?;
                match event["type"].as_str() {
                    Some("ERROR") => {
                        let code = event["object"]["code"].as_u64().and_then(|c| u16::try_from(c).ok());
                        let status = code.and_then(|c| StatusCode::from_u16(c).ok());
                        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                        let asked = self.request_line(&Method::GET, path);
                        return Err(asked.status(status, Some(&event["object"]), None).into());
                    }
                    Some(kind) => {
                        if let Some(seen) = see(kind, &event["object"])? {
                            return Ok(Some(seen));
                        }
                    }
                    None => {}
                }
            }
        }
        Ok(None)
    }

    fn request_line<'a>(&self, method: &'a Method, path: &'a str) -> RequestLine<'a> {
        RequestLine { host: self.host(), method, path }
    }

    fn transport(&self, e: &reqwest::Error) -> Error {
        match Url::parse(&self.server).ok().and_then(|u| Some((u.host_str()?.to_owned(), u.port_or_known_default()?))) {
            Some((host, port)) => error::transport(&self.host(), self.via.proxy_for(&host, port), e),
            None => error::transport(&self.host(), None, e),
        }
    }

    /// `host:port` for messages.
    pub fn host(&self) -> String {
        host_of(&self.server)
    }
}

/// `host:port` of a server's URL.
pub fn host_of(server: &str) -> String {
    let Ok(url) = Url::parse(server) else { return error::remote(server) };
    format!("{}:{}", url.host_str().unwrap_or(""), url.port_or_known_default().unwrap_or(443))
}

/// URL of an endpoint as the seed names it.
pub fn url_of(endpoint: &Endpoint) -> String {
    format!("https://{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host_of("https://[fd00::1]:6443"), "[fd00::1]:6443");
        assert_eq!(host_of("https://a.example/k8s/c1"), "a.example:443");
        assert_eq!(host_of(&url_of(&Endpoint::parse("10.0.0.1").unwrap())), "10.0.0.1:6443");
    }
}
