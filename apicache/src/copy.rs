// SPDX-License-Identifier: Apache-2.0
//! Bytes between a client and a server, of which nothing is looked at.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink, split};

/// How long a client may take to end what the server has ended.
const LINGER: Duration = Duration::from_secs(30);

/// Copies until both have ended.
///
/// A direction that fails leaves the other one alone: a command that ends before it has read all its input refuses the rest,
/// and what it has said until then still arrives. What the client sends on is taken and thrown away; otherwise it would
/// hear of a broken connection in place of the server's last words.
pub async fn both_ways(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
    let up = async {
        let _ = copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
        let _ = copy(&mut from_client, &mut sink()).await;
    };
    let down = async {
        let _ = copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => drop(tokio::time::timeout(LINGER, up).await),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};

    #[tokio::test]
    async fn the_last_words_of_a_server_that_no_longer_listens_arrive() {
        let ((client, near), (far, mut server)) = (duplex(64), duplex(64));
        let copied = tokio::spawn(both_ways(near, far));
        let (mut reader, mut writer) = split(client);
        let sent = tokio::spawn(async move {
            writer.write_all(&vec![7; 100_000]).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(b"enough").await.unwrap();
        drop(server);
        let mut said = String::new();
        reader.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "enough");
        sent.await.unwrap();
        copied.await.unwrap();
    }

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_other_direction_goes_on() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let copied = tokio::spawn(both_ways(near, far));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!((asked.as_str(), said.as_str()), ("question", "answer"));
        copied.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_it() {
        let ((client, near), (far, mut server)) = (duplex(64), duplex(64));
        let copied = tokio::spawn(both_ways(near, far));
        drop(client);
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        drop(server);
        copied.await.unwrap();
        assert_eq!(asked, "");
    }
}
