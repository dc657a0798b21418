//! A floor for what speaks mutual TLS: the same configuration of TLS, the same kind of certificates, and nothing behind it
//! but an echo, on a thread of its own whose processor time is read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use api::clock::Clock;
use api::net::tls;
use api::pki::{Ca, ServerCertificates};
use protocol::HostId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use uuid::Uuid;

use crate::process;

pub(crate) struct Echo {
    address: SocketAddr,
    thread: i32,
    connector: TlsConnector,
}

impl Echo {
    /// Starts one that gives back every `bytes` bytes at once. It ends with this process.
    pub(crate) async fn start(bytes: usize) -> Result<Self> {
        let clock = Clock::system();
        let made = Ca::generate(clock.now())?;
        let ca = Arc::new(Ca::load(&made.certificate, &made.key)?);
        let certificates = ServerCertificates::new(Arc::clone(&ca), move || Clock::system().now())?;
        let acceptor = TlsAcceptor::from(tls::agents(&ca, Arc::new(certificates))?);
        let (sender, started) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
            if let Err(error) = serve(acceptor, bytes, sender) {
                eprintln!("echo: {error:#}");
            }
        })?;
        let (address, thread) = started.await.context("the echo does not start")?;
        Ok(Self { address, thread, connector: connector(&ca, &clock)? })
    }

    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(api::pki::SERVER_NAME.try_into()?, stream).await?)
    }

    /// Processor time of its thread, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds_in(&format!("/proc/self/task/{}/stat", self.thread))
    }
}

type Started = tokio::sync::oneshot::Sender<(SocketAddr, i32)>;

fn serve(acceptor: TlsAcceptor, bytes: usize, started: Started) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let place = (listener.local_addr()?, nix::unistd::gettid().as_raw());
        started.send(place).map_err(|_| anyhow::anyhow!("nobody waits for it"))?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut buffer = vec![0; bytes];
                loop {
                    stream.read_exact(&mut buffer).await?;
                    stream.write_all(&buffer).await?;
                    stream.flush().await?;
                }
                #[expect(unreachable_code, reason = "it says what the task ends with")]
                std::io::Result::Ok(())
            });
        }
    })
}

/// Shows a host's certificate.
fn connector(ca: &Ca, clock: &Clock) -> Result<TlsConnector> {
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
    let certificate = ca.issue_host(HostId::from(Uuid::now_v7()), &request, clock.now())?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
        )?;
    Ok(TlsConnector::from(Arc::new(config)))
}
