//! A line to PostgreSQL that a test can cut at any message: before it arrives, or before its answer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Which half of a message's way is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// PostgreSQL never hears of it.
    Request,
    /// PostgreSQL has done it, and nobody learns that.
    Reply,
}

/// Carries every connection that is made with [`Line::options`]. Dropping it cuts them all.
pub(crate) struct Line {
    fuse: Arc<Fuse>,
    socket: TempDir,
    carrier: tokio::task::JoinHandle<()>,
}

/// Burns down with each message from the client.
#[derive(Default)]
struct Fuse {
    /// Messages that still get through, plus one; 0 when nothing is to be cut.
    left: AtomicI64,
    reply: AtomicBool,
    /// Nothing more arrives on either side.
    silent: AtomicBool,
}

impl Fuse {
    fn burn(&self) -> Option<Lost> {
        let left =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left > 0).then(|| left - 1));
        let lost = if self.reply.load(Ordering::SeqCst) { Lost::Reply } else { Lost::Request };
        (left == Ok(1)).then_some(lost)
    }

    async fn wait_if_silent(&self) {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Line {
    /// A line to the PostgreSQL behind these options.
    pub(crate) fn to(server: &PgConnectOptions) -> Self {
        let file = format!(".s.PGSQL.{}", server.get_port());
        let target = server.get_socket().expect("a unix socket").join(&file);
        let socket = TempDir::new().unwrap();
        let listener = UnixListener::bind(socket.path().join(&file)).unwrap();
        let fuse = Arc::new(Fuse::default());
        let carrier = tokio::spawn({
            let fuse = Arc::clone(&fuse);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let server = UnixStream::connect(&target).await.unwrap();
                    connections.spawn(carry(client, server, Arc::clone(&fuse)));
                }
            }
        });
        Self { fuse, socket, carrier }
    }

    pub(crate) fn options(&self, server: PgConnectOptions) -> PgConnectOptions {
        server.socket(self.socket.path())
    }

    /// Lets so many messages through and then cuts one connection; the line works again after that.
    pub(crate) fn cut_after(&self, messages: usize, lost: Lost) {
        self.fuse.reply.store(lost == Lost::Reply, Ordering::SeqCst);
        self.fuse.left.store(i64::try_from(messages).unwrap() + 1, Ordering::SeqCst);
    }

    /// Lets nothing through any more and ends no connection, as when the machine is gone.
    pub(crate) fn fall_silent(&self) {
        self.fuse.silent.store(true, Ordering::SeqCst);
    }

    /// Whether the cut has happened; if not, it will not any more.
    pub(crate) fn was_cut(&self) -> bool {
        self.fuse.left.swap(0, Ordering::SeqCst) == 0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, fuse: Arc<Fuse>) {
    let (mut asked, mut answered) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                fuse.wait_if_silent().await;
                let lost = fuse.burn();
                if lost == Some(Lost::Request) || server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
                if lost == Some(Lost::Reply) {
                    // Once it answers, it has done what was asked. Whether it could answer does not matter.
                    server.readable().await.ok();
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                fuse.wait_if_silent().await;
                if client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
