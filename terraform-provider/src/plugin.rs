//! Being a plugin: the handshake with Terraform, the socket, mutual TLS, and when to end.
//!
//! Terraform starts the program, gives its certificate in the environment, and reads one line: where the socket is and
//! which certificate the program has. Nobody else gets in: the socket is in a folder of its owner, and only the
//! certificate that Terraform gave is let through.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::{Request, Response, Status};

use crate::pinned::Pinned;
use crate::protocol::plugin::Empty;
use crate::protocol::plugin::grpc_controller_server::{GrpcController, GrpcControllerServer};
use crate::protocol::tfplugin6::provider_server::ProviderServer;
use crate::server::Cumulo;

/// What Terraform sets, so that a provider knows that it was not started by hand.
const COOKIE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";
/// Terraform comes at once; whoever does not is dead.
const FIRST: Duration = Duration::from_secs(60);
/// So long what was begun may go on when Terraform has gone.
const LAST: Duration = Duration::from_secs(300);
/// States and schemas may be large.
const MESSAGE: usize = 256 << 20;

pub fn is_started_by_terraform() -> bool {
    std::env::var("TF_PLUGIN_MAGIC_COOKIE").is_ok_and(|cookie| cookie == COOKIE)
}

/// Serves until Terraform has no use for it any more.
pub async fn serve(cumulo: Cumulo) -> Result<()> {
    let versions = std::env::var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
    if !versions.is_empty() && !versions.split(',').any(|version| version == "6") {
        bail!("this provider speaks plugin protocol 6; Terraform 1.11 or newer does, too");
    }
    let client = std::env::var("PLUGIN_CLIENT_CERT").context("Terraform gave no certificate")?;
    let client = CertificateDer::from_pem_slice(client.as_bytes()).context("Terraform's certificate")?;
    let (config, certificate) = tls(client)?;
    let folder = socket_folder()?;
    let path = folder.path().join("provider");
    let listener = UnixListener::bind(&path).context("open the socket")?;
    let line = format!("1|6|unix|{}|grpc|{}\n", path.display(), STANDARD_NO_PAD.encode(&certificate));
    std::io::stdout().write_all(line.as_bytes())?;
    std::io::stdout().flush()?;
    // A Ctrl-C reaches this program, too. Terraform ends its work in order, and then this program.
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::spawn(async move { while interrupts.recv().await.is_some() {} });
    accept(&listener, TlsAcceptor::from(Arc::new(config)), &cumulo).await;
    cumulo.finish(LAST).await;
    Ok(())
}

/// Ends when it is told to, or when the last connection has closed.
async fn accept(listener: &UnixListener, tls: TlsAcceptor, cumulo: &Cumulo) {
    let (end, mut ended) = watch::channel(false);
    // Each connection holds a sender; when all are gone there is nothing more to receive.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let end = Arc::new(end);
    match tokio::time::timeout(FIRST, listener.accept()).await {
        Ok(Ok((stream, _))) => connect(stream, tls.clone(), cumulo.clone(), Arc::clone(&end), open.clone()),
        _ => return,
    }
    let weak = open.downgrade();
    drop(open);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let (Ok((stream, _)), Some(open)) = (accepted, weak.upgrade()) {
                    connect(stream, tls.clone(), cumulo.clone(), Arc::clone(&end), open);
                }
            }
            _ = all_closed.recv() => return,
            _ = ended.changed() => {
                // The answer to the order goes out first.
                let _closed = tokio::time::timeout(Duration::from_millis(500), all_closed.recv()).await;
                return;
            }
        }
    }
}

fn connect(
    stream: UnixStream,
    tls: TlsAcceptor,
    cumulo: Cumulo,
    end: Arc<watch::Sender<bool>>,
    open: mpsc::Sender<()>,
) {
    tokio::spawn(async move {
        let _open = open;
        let Ok(stream) = tls.accept(stream).await else { return };
        let provider = ProviderServer::new(cumulo).max_decoding_message_size(MESSAGE);
        let controller = GrpcControllerServer::new(Controller { end });
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (mut provider, mut controller) = (provider.clone(), controller.clone());
            async move {
                use tonic::codegen::Service as _;
                let answer: hyper::Response<Body> =
                    if request.uri().path().starts_with("/plugin.GRPCController/") {
                        controller.call(request).await?
                    } else {
                        provider.call(request).await?
                    };
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _broken = server.serve_connection(TokioIo::new(stream), service).await;
    });
}

struct Controller {
    end: Arc<watch::Sender<bool>>,
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> std::result::Result<Response<Empty>, Status> {
        self.end.send_replace(true);
        Ok(Response::new(Empty {}))
    }
}

/// Only its owner may pass.
fn socket_folder() -> Result<tempfile::TempDir> {
    let folder = match std::env::var_os("PLUGIN_UNIX_SOCKET_DIR") {
        Some(within) if !within.is_empty() => tempfile::tempdir_in(within),
        _ => tempfile::tempdir(),
    }
    .context("make a folder for the socket")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;
    Ok(folder)
}

/// The configuration that lets in whoever has this certificate, and our own certificate, made for this run.
fn tls(client: CertificateDer<'static>) -> Result<(ServerConfig, CertificateDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned::new(client, provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, certificate))
}
