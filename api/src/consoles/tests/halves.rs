//! The two sides of a console: a WebSocket, and an agent's connection.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::HostId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::net::{self, Listener, Peer};
use crate::testing::{TestCloud, peer};

const PATIENCE: Duration = Duration::from_secs(10);
/// A side that takes nothing for so long is full.
const FULL: Duration = Duration::from_millis(700);

/// Serves the agents' API on a socket, to this host alone.
pub(super) async fn listen_for_host(cloud: &TestCloud, host: HostId) -> SocketAddr {
    let show = move |mut request: Request| async move {
        let shown = Peer { host: Some(host), tls: true, ..peer("127.0.0.1") };
        request.extensions_mut().insert(ConnectInfo(shown));
        request
    };
    let router = cloud.agents.clone().layer(axum::middleware::map_request(show));
    let listener = Listener::plain(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(net::serve(listener, router, cloud.app.shutdown.clone()));
    address
}

pub(super) struct UserHalf(WebSocketStream<TcpStream>);

impl UserHalf {
    /// Opens what an answer of the API names.
    pub(super) async fn open(at: SocketAddr, console: &Value) -> Result<Self, (u16, Value)> {
        let [first, second] = [0, 1].map(|index| console["subprotocols"][index].as_str().unwrap());
        let headers = [("sec-websocket-protocol", format!("{first}, {second}"))];
        Self::open_with(at, console["id"].as_str().unwrap(), &headers).await
    }

    /// Or the status and the problem of the refusal.
    pub(super) async fn open_with(
        at: SocketAddr,
        id: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, (u16, Value)> {
        let mut request = format!("ws://{at}/v1/consoles/{id}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(at).await.unwrap();
        match timeout(2 * PATIENCE, client_async(request, stream)).await.expect("an answer") {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], "binary", "the ticket is not echoed");
                Ok(Self(socket))
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn send(&mut self, bytes: Vec<u8>) {
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    pub(super) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next bytes; nothing when it is closed.
    pub(super) async fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("something is said")? {
                Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The code and the reason with which it is closed.
    pub(super) async fn closed(&mut self) -> (u16, String) {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("it is closed") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while let Some(Ok(_)) = timeout(PATIENCE, self.0.next()).await.expect("it is closed") {}
    }

    /// Sends until nothing goes any more; how much went.
    pub(super) async fn flood(&mut self) -> usize {
        let piece = Bytes::from(vec![7; 32 << 10]);
        let mut sent = 0;
        while timeout(FULL, self.0.send(Message::Binary(piece.clone()))).await.is_ok() {
            sent += piece.len();
        }
        sent
    }
}

pub(super) struct HostHalf(TcpStream);

impl HostHalf {
    /// Brings the console, as an agent does; or the status of the refusal.
    pub(super) async fn bring(at: SocketAddr, console: &Value, epoch: i64) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let id = console.as_str().unwrap();
        let head = format!(
            "GET /agent/v1/consoles/{id}?epoch={epoch} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\
             Upgrade: cumulo-console\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").unwrap());
        }
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        if status == 101 { Ok(Self(stream)) } else { Err(status) }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(super) async fn expect(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        timeout(PATIENCE, self.0.read_exact(&mut heard)).await.expect("it arrives").unwrap();
        assert_eq!(heard, bytes);
    }

    pub(super) async fn expect_end(&mut self) {
        let mut rest = vec![0; 64 << 10];
        let end = async { while !matches!(self.0.read(&mut rest).await, Ok(0) | Err(_)) {} };
        timeout(PATIENCE, end).await.expect("the half ends");
    }

    /// Sends until nothing goes any more; how much went.
    pub(super) async fn flood(&mut self) -> usize {
        let piece = vec![7; 32 << 10];
        let mut sent = 0;
        while timeout(FULL, self.0.write_all(&piece)).await.is_ok() {
            sent += piece.len();
        }
        sent
    }
}
