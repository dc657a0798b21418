//! The serving loop: who waits for whom, for how long, and how it ends.

use axum::body::{Body, Bytes};
use tokio::sync::{mpsc, oneshot};

use super::super::connection::Patience;
use super::super::server::serve_with;
use super::*;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);
const NEVER: Patience = Patience { head: LONG, idle: LONG, reader: LONG };

/// `GET /` answers at once; `GET /wait` tells the test that it runs, and waits for its word; `GET /endless`
/// has no end, and tells when it is given up.
struct Served {
    address: SocketAddr,
    waiting: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    given_up: mpsc::UnboundedReceiver<()>,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn served(limits: ConnectionLimits, patience: Patience) -> Served {
    let (tell_waiting, waiting) = mpsc::unbounded_channel();
    let (tell_given_up, given_up) = mpsc::unbounded_channel();
    let wait = async move || {
        let (go_on, word) = oneshot::channel();
        tell_waiting.send(go_on).unwrap();
        word.await.unwrap();
        "waited"
    };
    let endless = async move || {
        let guard = Told(tell_given_up.clone());
        Body::from_stream(futures_util::stream::repeat_with(move || {
            let _ = &guard;
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 65536]))
        }))
    };
    let router = Router::new()
        .route("/", get(async || "here"))
        .route("/wait", get(wait))
        .route("/endless", get(endless));
    let listener = Listener::plain(LOCALHOST).await.unwrap().limited(limits, TrustedProxies::default());
    let address = listener.address().unwrap();
    let shutdown = CancellationToken::new();
    let ended = tokio::spawn(serve_with(listener, router, patience, shutdown.clone()));
    Served { address, waiting, given_up, shutdown, ended }
}

struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

impl Served {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks and reads the answer up to its body's last letter.
    async fn ask(&mut self, path: &str, body: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.hear(body).await;
    }

    async fn hear(&mut self, body: &str) {
        let mut heard = Vec::new();
        while !heard.ends_with(format!("\r\n\r\n{body}").as_bytes()) {
            let byte = self.0.read_u8().await;
            heard.push(byte.unwrap_or_else(|_| panic!("only {:?}", String::from_utf8_lossy(&heard))));
        }
        assert!(heard.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&heard));
    }

    /// Waits until the server ends the connection, and gives what it said before.
    async fn end(mut self) -> Vec<u8> {
        let mut said = Vec::new();
        // A reset is an end, too.
        self.0.read_to_end(&mut said).await.ok();
        said
    }
}

#[tokio::test]
async fn whoever_is_slow_to_ask_is_cut_off() {
    let served = served(ConnectionLimits::default(), Patience { head: SHORT, ..NEVER }).await;
    assert_eq!(served.connect().await.end().await, b"", "said nothing");
    let mut halting = served.connect().await;
    halting.send("GET / HTTP/1.1\r\nHo").await;
    assert_eq!(halting.end().await, b"");
}

#[tokio::test]
async fn a_later_request_has_to_arrive_as_quickly() {
    let served =
        served(ConnectionLimits::default(), Patience { head: Duration::from_secs(2), ..NEVER }).await;
    let mut client = served.connect().await;
    client.ask("/", "here").await;
    client.ask("/", "here").await;
    client.send("GET / HT").await;
    assert_eq!(client.end().await, b"");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let served = served(ConnectionLimits::default(), Patience { idle: SHORT, ..NEVER }).await;
    let mut client = served.connect().await;
    client.ask("/", "here").await;
    assert_eq!(client.end().await, b"");
}

#[tokio::test]
async fn a_handler_may_take_longer_than_a_client() {
    let patience = Patience { head: Duration::from_secs(2), idle: SHORT, reader: SHORT };
    let mut served = served(ConnectionLimits::default(), patience).await;
    let mut patient = served.connect().await;
    patient.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let go_on = served.waiting.recv().await.unwrap();
    // Another connection comes, asks, idles and is closed meanwhile, and one that says nothing is cut.
    let mut other = served.connect().await;
    other.ask("/", "here").await;
    other.end().await;
    served.connect().await.end().await;
    go_on.send(()).unwrap();
    patient.hear("waited").await;
}

#[tokio::test]
async fn whoever_does_not_read_the_answer_is_cut_off() {
    let mut served = served(ConnectionLimits::default(), Patience { reader: SHORT, ..NEVER }).await;
    let mut client = served.connect().await;
    client.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    served.given_up.recv().await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    for limits in [
        ConnectionLimits { max_connections: 2, max_connections_per_address: 9 },
        ConnectionLimits { max_connections: 9, max_connections_per_address: 2 },
    ] {
        let served = served(limits, NEVER).await;
        let (mut first, mut second) = (served.connect().await, served.connect().await);
        first.ask("/", "here").await;
        second.ask("/", "here").await;
        assert_eq!(served.connect().await.end().await, b"", "{limits:?}");
        first.ask("/", "here").await;
        drop(first);
        // Its place is free as soon as the server has noticed.
        loop {
            let mut next = served.connect().await;
            next.0.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok();
            if next.end().await.ends_with(b"here") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_shutdown_lets_the_last_answers_out() {
    let mut served = served(ConnectionLimits::default(), NEVER).await;
    let mut busy = served.connect().await;
    let mut idle = served.connect().await;
    idle.ask("/", "here").await;
    busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let go_on = served.waiting.recv().await.unwrap();
    served.shutdown.cancel();
    assert_eq!(idle.end().await, b"");
    go_on.send(()).unwrap();
    let said = String::from_utf8(busy.end().await).unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("waited"), "{said}");
    served.ended.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut served = served(ConnectionLimits::default(), NEVER).await;
    let mut client = served.connect().await;
    client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _never = served.waiting.recv().await.unwrap();
    served.shutdown.cancel();
    served.ended.await.unwrap();
    assert_eq!(client.end().await, b"");
}

/// By hand, since a client library would hide how the connection ends.
#[tokio::test]
async fn an_idle_http_2_connection_is_told_to_go_away() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    const GO_AWAY: u8 = 7;
    let served = served(ConnectionLimits::default(), Patience { idle: SHORT, ..NEVER }).await;
    let mut client = served.connect().await;
    client.0.write_all(PREFACE).await.unwrap();
    write_frame(&mut client.0, SETTINGS, 0, 0, &[]).await;
    // Of the static table: GET, /, http. The flags end headers and stream.
    write_frame(&mut client.0, HEADERS, 0b101, 1, &[0x82, 0x84, 0x86]).await;
    let mut answer = None;
    let mut farewell = None;
    while let Ok((kind, flags, stream, payload)) = read_frame(&mut client.0).await {
        match (kind, stream) {
            (HEADERS, 1) => answer = Some(payload[0]),
            (PING, _) if flags == 0 => write_frame(&mut client.0, PING, 1, 0, &payload).await,
            (GO_AWAY, _) => farewell = Some(payload[7]),
            _ => {}
        }
    }
    assert_eq!(answer, Some(0x88), "status 200 in the static table");
    assert_eq!(farewell, Some(0), "no error");
}

async fn write_frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame).await.ok();
}

async fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}
