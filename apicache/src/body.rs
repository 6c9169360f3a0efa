// SPDX-License-Identifier: Apache-2.0
//! Bodies of answers: whole, or piece by piece as they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// What a body may fail with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// Any body.
pub type Body = UnsyncBoxBody<Bytes, Failure>;

/// A body that is there.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose pieces come through a channel; it ends when the sender is gone.
pub struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

/// Where the pieces go in. Sending waits for the reader, and fails once it is gone.
pub type Sender = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// A body and the way into it. Few pieces wait: memory is bounded, and a slow reader slows the source down.
pub fn pieces() -> (Sender, Body) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, Pieces(receiver).map_err(Into::into).boxed_unsync())
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx)
    }
}
