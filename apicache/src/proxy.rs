// SPDX-License-Identifier: Apache-2.0
//! One connection of a client: its requests go to an API server over a connection of their own, so that no request ever
//! goes out with the credential of another client. Without an API server they are answered from the store.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};

use crate::body::{Body, pieces, whole};
use crate::copy::both_ways;
use crate::identity::{self, Identity, bearer};
use crate::object::Encoding;
use crate::offline::{Offline, expired, failure, question_key, unavailable, whole_key};
use crate::questions;
use crate::record::{Plan, Progress, Recording};
use crate::request::{self, Query, Question, Target};
use crate::rewrite::{Passing, Rewrite};
use crate::store::{NODE, Op, Source, Store, now};
use crate::upstream::{Connection, Link, Servers, Unanswered};

/// How long the first requests wait for the first news of the API servers.
const FIRST_NEWS: Duration = Duration::from_secs(3);
/// After so long without an answer to a GET, the state of the API servers is looked at.
const PATIENCE: Duration = Duration::from_secs(4);
/// Largest body of a request that is looked at, bytes.
const QUESTION: usize = 1 << 20;
/// Longest time for such a body to come.
const ASKING: Duration = Duration::from_secs(30);

/// What all connections share.
pub struct Shared {
    /// The API servers.
    pub servers: Arc<Servers>,
    /// The store.
    pub store: Store,
    /// What was recorded so far.
    pub progress: Arc<Progress>,
    /// What kubelet reads in another form.
    pub rewrite: Option<Arc<Rewrite>>,
}

/// One connection of a client.
pub struct Session {
    shared: Arc<Shared>,
    is_node: bool,
    upstream: Mutex<Option<Connection>>,
    /// Its place among all connections, also after it has become another protocol.
    _place: OwnedSemaphorePermit,
}

impl Asked {
    /// Which encodings the client takes, its favourite first; none if it asks for something else first.
    fn accepted(&self) -> Vec<Encoding> {
        let accept = self.parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok());
        Encoding::accepted(accept.unwrap_or("application/json"))
    }
}

/// A request, read.
struct Asked {
    parts: Parts,
    target: Target,
    query: Query,
    who: Identity,
    question: Option<Question>,
}

impl Session {
    /// Of a client that did or did not prove to be this node.
    pub fn new(shared: Arc<Shared>, is_node: bool, place: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Session { shared, is_node, upstream: Mutex::new(None), _place: place })
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Never: a failure is an answer, too.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        Ok(self.answer(request).await)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.headers().contains_key(UPGRADE) {
            return self.upgraded(request).await;
        }
        let (parts, body) = request.into_parts();
        let target = request::target(&parts.uri);
        let query = request::query(&parts.uri);
        let who = Identity::of(self.is_node, &parts.headers);
        let question = request::question(&parts.method, &target);
        let asked = Asked { parts, target, query, who, question };
        let mut link = self.shared.servers.link();
        let known = tokio::time::timeout(FIRST_NEWS, link.wait_for(|link| *link != Link::Unknown)).await;
        let connected = matches!(known.ok().and_then(Result::ok).as_deref(), Some(Link::Connected(_)));
        // Bodies that may be looked at are small; all others pass as they come. Only the node's are looked at, so that no
        // other client can have them fill the memory.
        let registers = asked.parts.method == Method::POST
            && matches!(&asked.target, Target::Collection(place) if place.resource == "nodes");
        let mut read = Bytes::new();
        let body = if asked.who == Identity::Node && (asked.question.is_some() || registers) {
            match tokio::time::timeout(ASKING, Limited::new(body, QUESTION).collect()).await {
                Ok(Ok(all)) => read = all.to_bytes(),
                Err(_) => {
                    let text = format!("firstboot cache: the body did not come within {} s", ASKING.as_secs());
                    return failure(StatusCode::REQUEST_TIMEOUT, "Timeout", &text);
                }
                Ok(Err(_)) => {
                    let text = "firstboot cache: the body is cut short or too large";
                    return failure(StatusCode::BAD_REQUEST, "BadRequest", text);
                }
            }
            whole(read.clone())
        } else {
            body.map_err(Into::into).boxed_unsync()
        };
        if connected {
            match self.online(&asked, body, &read, link).await {
                Ok(response) => return response,
                Err(Unanswered { .. }) => self.shared.servers.doubt(),
            }
        }
        let rewrite = self.rewrite(&asked).cloned();
        let offline = Offline { store: &self.shared.store, link: self.shared.servers.link(), rewrite };
        offline.answer(&asked.who, &asked.parts, &asked.target, &asked.query, &read)
    }

    /// How answers to this request are changed.
    fn rewrite(&self, asked: &Asked) -> Option<&Arc<Rewrite>> {
        let concerned = asked.who == Identity::Node && asked.parts.method == Method::GET;
        self.shared.rewrite.as_ref().filter(|_| concerned && Rewrite::concerns(&asked.target))
    }

    /// A connection for the next request. One at a time is made for all requests of this client.
    async fn connection(&self) -> Result<Connection, Unanswered> {
        let mut upstream = self.upstream.lock().await;
        // A server that is no longer the best keeps the watches that it has; new requests go to the one that is.
        let good = |c: &&Connection| c.usable() && self.shared.servers.is_best(c.server());
        if let Some(Connection::Two(sender, server)) = upstream.as_ref().filter(good) {
            return Ok(Connection::Two(sender.clone(), server.clone()));
        }
        if matches!(*self.shared.servers.link().borrow(), Link::Disconnected(_)) {
            return Err(Unanswered::new("no API server answers"));
        }
        let made = self.shared.servers.connect(self.is_node, true).await?;
        if let Connection::Two(sender, server) = &made {
            *upstream = Some(Connection::Two(sender.clone(), server.clone()));
        }
        Ok(made)
    }

    async fn online(
        &self,
        asked: &Asked,
        body: Body,
        read: &Bytes,
        mut link: watch::Receiver<Link>,
    ) -> Result<Response<Body>, Unanswered> {
        if let Some(gap) = self.gap(asked).await {
            return Ok(gap);
        }
        let get = asked.parts.method == Method::GET;
        let mut body = Some(body);
        let mut tries = if get { 2 } else { 1 };
        loop {
            tries -= 1;
            let mut connection = self.connection().await?;
            let mut request =
                forwarded(&asked.parts, connection.server(), body.take().unwrap_or_else(|| whole(Bytes::new())));
            if self.rewrite(asked).is_some() {
                request.headers_mut().remove(ACCEPT_ENCODING);
            }
            let mut patience = Box::pin(async {
                tokio::time::sleep(PATIENCE).await;
                self.shared.servers.doubt();
                let _ = link.wait_for(|link| matches!(link, Link::Disconnected(_))).await;
            });
            let answer = tokio::select! {
                answer = connection.send(request) => answer,
                () = &mut patience, if get => Err(Unanswered::new("no API server answers")),
            };
            drop(patience);
            match answer {
                Ok(response) => return Ok(self.passed(asked, response, read).await),
                // A server that goes away closes its connections; the next one may take the request.
                Err(_) if tries > 0 && !connection.usable() => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Whose answers are recorded, by what a client proves. A token that is not known yet counts once it was accepted.
    fn recorded_as(&self, asked: &Asked) -> Option<String> {
        match &asked.who {
            Identity::Node => Some(NODE.to_owned()),
            Identity::Token(digest) => self.shared.store.token(digest),
            Identity::Unknown => None,
        }
    }

    /// The refusal of a watch that would leave a gap in the store: the client lists anew.
    async fn gap(&self, asked: &Asked) -> Option<Response<Body>> {
        let Target::Collection(place) = &asked.target else { return None };
        let Query { watch, initial_events, version, altered, .. } = asked.query;
        if !watch || initial_events || altered || !self.shared.store.keeps(place) || asked.parts.method != Method::GET {
            return None;
        }
        let accepted = asked.accepted();
        let encoding = *accepted.first()?;
        let identity = self.recorded_as(asked)?;
        let mut source = Source { identity, place: place.clone(), selector: asked.query.selector.clone(), encoding };
        if self.shared.store.version(&source) < version {
            // The list that the client goes on from may be on its way into the store.
            self.shared.store.applied().await;
        }
        // What has no protobuf comes as JSON, to a client that takes both.
        if self.shared.store.version(&source) == 0 && accepted.contains(&Encoding::Json) {
            source.encoding = Encoding::Json;
        }
        let gap = self.shared.progress.gap(&self.shared.store, &source, version);
        gap.then(|| expired("this watch does not continue what is kept: list again"))
    }

    fn plan(&self, asked: &Asked, identity: &str, encoding: Option<Encoding>, read: &Bytes) -> Option<Plan> {
        let (store, path) = (&self.shared.store, asked.parts.uri.path());
        if asked.query.altered || asked.query.exact {
            return None;
        }
        // A client that asks for a table, or for metadata alone, is sent that as `application/json`, too.
        let encoding = encoding.filter(|encoding| asked.accepted().contains(encoding));
        match (&asked.parts.method, &asked.target) {
            (&Method::GET, Target::Collection(place)) if store.keeps(place) => {
                let (identity, place, selector) = (identity.to_owned(), place.clone(), asked.query.selector.clone());
                let source = Arc::new(Source { identity, place, selector, encoding: encoding? });
                match asked.query.watch {
                    false => Some(Plan::List { source, page: asked.query.page.clone() }),
                    true if asked.query.initial_events => Some(Plan::Watch { source, from: None }),
                    // From no version on, all objects come and nothing marks their end.
                    true => {
                        (asked.query.version > 0).then_some(Plan::Watch { source, from: Some(asked.query.version) })
                    }
                }
            }
            (&Method::GET, Target::Object(place, name)) if store.keeps(place) && !asked.query.watch => {
                let followed = store.follows(identity, place, name, encoding?);
                (!followed).then(|| Plan::Whole(identity.to_owned(), whole_key(identity, path, encoding)))
            }
            // By its path alone: a parameter that changes a document is one of those that are not recorded (`altered`).
            (&Method::GET, Target::Document) => {
                Some(Plan::Whole(identity.to_owned(), whole_key(identity, path, encoding)))
            }
            _ => {
                let question = asked.question.filter(|_| asked.who == Identity::Node)?;
                let counts = question == Question::Token && questions::for_api_server(read);
                Some(Plan::Question { key: question_key(identity, path, encoding?, read), question, counts })
            }
        }
    }

    /// Passes an answer on, and records it on the way where it is worth it.
    async fn passed(&self, asked: &Asked, response: Response<Incoming>, read: &Bytes) -> Response<Body> {
        let (mut parts, mut incoming) = response.into_parts();
        hop_by_hop(&mut parts.headers);
        parts.version = Version::default();
        let store = &self.shared.store;
        // Documents are for everybody: an answer to that vouches for no one.
        let vouched = parts.status.is_success() && matches!(asked.target, Target::Collection(_) | Target::Object(..));
        let claimed = bearer(&asked.parts.headers).filter(|_| vouched).map(|token| identity::claims(token, now()));
        if let (Identity::Token(digest), Some((user, until))) = (&asked.who, &claimed)
            && store.token_is_stale(digest)
        {
            store.change(Op::Token(*digest, user.clone(), *until)).await;
        }
        if let Identity::Token(digest) = &asked.who
            && parts.status == StatusCode::UNAUTHORIZED
            && store.token(digest).is_some()
        {
            store.change(Op::Refused(*digest)).await;
        }
        let header = |name: HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (content_type, packed) = (header(CONTENT_TYPE).to_owned(), header(CONTENT_ENCODING).to_owned());
        let encoding = Encoding::of_content_type(&content_type);
        let identity = match &asked.who {
            Identity::Token(_) => claimed.map(|(user, _)| user).or_else(|| self.recorded_as(asked)),
            _ => self.recorded_as(asked),
        };
        let plan = match parts.status {
            StatusCode::OK | StatusCode::CREATED => identity.and_then(|who| self.plan(asked, &who, encoding, read)),
            StatusCode::NOT_FOUND => {
                // Only an API server's own word counts, and only for an object, not for its whole resource.
                if let (Some(who), Target::Object(..), Some(encoding)) = (&identity, &asked.target, encoding)
                    && asked.parts.method == Method::GET
                {
                    for encoding in [Encoding::Protobuf, Encoding::Json, encoding] {
                        let key = whole_key(who, asked.parts.uri.path(), Some(encoding));
                        store.change(Op::Forget(key)).await;
                    }
                }
                None
            }
            _ => None,
        };
        let recording = plan
            .filter(|_| packed.is_empty() || packed == "gzip")
            .and_then(|plan| Recording::new(store, &self.shared.progress, plan, &content_type, packed == "gzip"));
        let passing = self.rewrite(asked).filter(|_| parts.status == StatusCode::OK && packed.is_empty()).cloned();
        let mut passing = passing.zip(encoding).map(|(all, encoding)| Passing::new(all, encoding, asked.query.watch));
        if recording.is_none() && passing.is_none() {
            return Response::from_parts(parts, incoming.map_err(Into::into).boxed_unsync());
        }
        if passing.is_some() {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let mut recording = recording;
        let (sender, body) = pieces();
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = incoming.frame() => frame,
                    () = sender.closed() => return,
                };
                let Some(frame) = frame else { break };
                let mut frame: Result<Frame<Bytes>, _> = frame.map_err(io::Error::other);
                let bytes = frame.as_ref().ok().and_then(|f| f.data_ref()).cloned();
                if let (Some(bytes), Some(passing)) = (&bytes, &mut passing) {
                    let on = passing.bytes(bytes).ok_or_else(|| io::Error::other("the answer is too large"));
                    frame = on.map(|on| Frame::data(on.into()));
                }
                let broken = frame.is_err();
                // The client first: what is recorded does not delay what it waits for.
                let empty = frame.as_ref().ok().and_then(|f| f.data_ref()).is_some_and(Bytes::is_empty);
                let gone = !empty && sender.send(frame).await.is_err();
                if let (Some(bytes), Some(open)) = (bytes, &mut recording)
                    && !open.bytes(&bytes).await
                {
                    recording = None;
                }
                if gone || broken {
                    return;
                }
            }
            let rest = passing.map(Passing::end).filter(|rest| !rest.is_empty());
            if let Some(rest) = rest
                && sender.send(Ok(Frame::data(rest.into()))).await.is_err()
            {
                return;
            }
            if let Some(recording) = recording {
                recording.end().await;
            }
        });
        Response::from_parts(parts, body)
    }

    /// A request that becomes another protocol: exec, attach, port-forward. It has a connection of its own.
    async fn upgraded(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let mut connection = match self.shared.servers.connect(self.is_node, false).await {
            Ok(connection) => connection,
            Err(why) => {
                self.shared.servers.doubt();
                return unavailable(&why.to_string());
            }
        };
        let client = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let mut forwarded = Request::new(body.map_err(Into::into).boxed_unsync());
        *forwarded.method_mut() = parts.method;
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        *forwarded.uri_mut() = path.parse().unwrap_or_default();
        *forwarded.headers_mut() = parts.headers;
        if let Ok(host) = HeaderValue::from_str(connection.server()) {
            forwarded.headers_mut().insert(HOST, host);
        }
        let mut response = match connection.send(forwarded).await {
            Ok(response) => response,
            Err(why) => return unavailable(&why.to_string()),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let server = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                let _session = self;
                if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                    both_ways(TokioIo::new(client), TokioIo::new(server)).await;
                }
            });
        }
        let (parts, incoming) = response.into_parts();
        // Without an upgrade the body goes on; the connection lives as long as it.
        Response::from_parts(parts, incoming.map_err(Into::into).boxed_unsync())
    }
}

/// What is between two ends of one connection, and no part of the message (RFC 9110, section 7.6.1).
fn hop_by_hop(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, TE, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// The request for an API server.
fn forwarded(asked: &Parts, server: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.clone();
    let path = asked.uri.path_and_query().map_or("/", |p| p.as_str());
    let uri: Result<Uri, _> = format!("https://{server}{path}").parse();
    *request.uri_mut() = uri.unwrap_or_default();
    *request.headers_mut() = asked.headers.clone();
    hop_by_hop(request.headers_mut());
    request.headers_mut().remove(HOST);
    request
}
