//! A server of files that does what the test says, well-behaved or not, and a cloud that may import from it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::IMAGES;
use crate::images::{ImportOptions, Importer, Resolver};
use crate::testing::TestCloud;

/// What comes after the answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Close,
    /// Nothing more, and the connection stays.
    Silence,
    /// One byte every so many milliseconds.
    Drip(u64),
    /// A megabyte a second.
    Flow,
    /// Zeros without end.
    Endless,
}

pub(super) struct Reply(pub Vec<u8>, pub Then);

impl Reply {
    pub(super) fn file(bytes: &[u8]) -> Self {
        Self::with("200 OK", &[("content-length", &bytes.len().to_string())], bytes)
    }

    pub(super) fn with(status: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Self {
        let mut reply = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in headers {
            reply.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut reply = format!("{reply}\r\n").into_bytes();
        reply.extend_from_slice(bytes);
        Self(reply, Then::Close)
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::with("302 Found", &[("location", to), ("content-length", "0")], b"")
    }

    pub(super) fn then(self, then: Then) -> Self {
        Self(self.0, then)
    }
}

pub(super) struct Server {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers the first request with `reply(0, head)`, the next one with `reply(1, head)`.
    pub(super) async fn start(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, reply).await
    }

    /// The same by TLS, if there is something to show for it.
    pub(super) async fn serve(
        tls: Option<TlsAcceptor>,
        reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (all, reply) = (Arc::clone(&heads), Arc::new(reply));
        let connections = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
                let (all, reply, tls) = (Arc::clone(&all), Arc::clone(&reply), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, all, reply).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, all, reply).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, connections, heads }
    }

    /// The same file, always.
    pub(super) async fn of(bytes: Vec<u8>) -> Self {
        Self::start(move |_, _| Reply::file(&bytes)).await
    }

    pub(super) fn url(&self) -> String {
        format!("http://mirror.test:{}/image?signature=secret", self.port)
    }

    /// Connections so far, also those that never came to a request.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The heads of the requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: Arc<Mutex<Vec<String>>>,
    reply: Arc<impl Fn(usize, &str) -> Reply>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let number = {
        let mut heads = heads.lock().unwrap();
        heads.push(head.clone());
        heads.len() - 1
    };
    let Reply(bytes, then) = reply(number, &head);
    let mut sent = stream.write_all(&bytes).await;
    match then {
        Then::Close => {
            stream.shutdown().await.ok();
        }
        Then::Silence => std::future::pending().await,
        Then::Drip(pause) => {
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                sent = stream.write_all(b"x").await;
            }
        }
        Then::Flow => {
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                sent = stream.write_all(&[0; 65536]).await;
            }
        }
        Then::Endless => {
            while sent.is_ok() {
                sent = stream.write_all(&[0; 65536]).await;
            }
        }
    }
}

/// The largest file here.
pub(super) const MAX_BYTES: u64 = 32 << 20;

pub(super) fn options() -> ImportOptions {
    ImportOptions {
        import_networks: vec!["127.0.0.1/32".parse().unwrap()],
        import_http: true,
        import_silence_seconds: 1,
        ..ImportOptions::default()
    }
}

/// Names for tests.
pub(super) fn resolver() -> Resolver {
    Arc::new(|name| {
        let addresses: &[&str] = match name.as_str() {
            "mirror.test" | "other.test" => &["127.0.0.1"],
            "inside.test" => &["10.0.0.7"],
            "disguised.test" => &["::ffff:127.0.0.1"],
            "mixed.test" => &["10.0.0.7", "127.0.0.1"],
            _ => &[],
        };
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Box::pin(async move { Ok(addresses) })
    })
}

/// A cloud with the project `demo` that may import from 127.0.0.1.
pub(super) async fn importing() -> TestCloud {
    let cloud = TestCloud::start_importing(Importer::for_tests(options(), resolver(), MAX_BYTES)).await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud
}

/// Asks for an import into a new raw image of this name; gives the operation.
pub(super) async fn import(cloud: &TestCloud, name: &str, url: &str) -> Value {
    cloud.post(IMAGES, json!({"name": name, "format": "raw"})).await.expect(201);
    cloud.post(&format!("{IMAGES}/{name}/import"), json!({"url": url})).await.expect(202)
}

pub(super) async fn operation(cloud: &TestCloud, operation: &Value) -> Value {
    let id = operation["id"].as_str().unwrap();
    cloud.get(&format!("/v1/projects/demo/operations/{id}")).await.expect(200)
}

pub(super) async fn image(cloud: &TestCloud, name: &str) -> Value {
    cloud.get(&format!("{IMAGES}/{name}")).await.expect(200)
}
