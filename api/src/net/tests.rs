//! Real sockets, real handshakes.

mod certificates;
mod serving;

use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::pki::{Ca, SERVER_NAME, ServerCertificates};

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[expect(clippy::disallowed_methods, reason = "rustls verifies certificates against the real clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn new_ca() -> Arc<Ca> {
    let pem = Ca::generate(now()).unwrap();
    Arc::new(Ca::load(&pem.certificate, &pem.key).unwrap())
}

/// A client's identity: certificate chain and key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn host_identity(ca: &Ca, host: HostId) -> Identity {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let certificate = ca.issue_host(host, &csr, now()).unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
}

fn connector(trusted: &CertificateDer<'static>, identity: Option<Identity>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Serves `GET /` with the host of the peer, or "none".
fn serve(listener: Listener) -> SocketAddr {
    let address = listener.address().unwrap();
    let router = Router::new().route(
        "/",
        get(|ConnectInfo(peer): ConnectInfo<Peer>| async move {
            peer.host.map_or_else(|| "none".to_owned(), |host| host.to_string())
        }),
    );
    tokio::spawn(super::serve(listener, router, CancellationToken::new()));
    address
}

async fn serve_agents(ca: &Arc<Ca>) -> SocketAddr {
    serve(agent_listener(ca).await)
}

async fn agent_listener(ca: &Arc<Ca>) -> Listener {
    let certificates = Arc::new(ServerCertificates::new(Arc::clone(ca), now).unwrap());
    Listener::tls(LOCALHOST, tls::agents(ca, certificates).unwrap()).await.unwrap()
}

async fn ask(address: SocketAddr, name: &'static str, connector: &TlsConnector) -> std::io::Result<String> {
    let tcp = TcpStream::connect(address).await?;
    let stream = connector.connect(ServerName::try_from(name).unwrap(), tcp).await?;
    ask_over(stream).await
}

async fn ask_over(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

#[tokio::test]
async fn a_host_is_known_by_its_certificate_alone() {
    let ca = new_ca();
    let address = serve_agents(&ca).await;
    let host = HostId::from_uuid(Uuid::now_v7());

    let stranger = connector(ca.certificate(), None);
    assert_eq!(ask(address, SERVER_NAME, &stranger).await.unwrap(), "none");

    let member = connector(ca.certificate(), Some(host_identity(&ca, host)));
    assert_eq!(ask(address, SERVER_NAME, &member).await.unwrap(), host.to_string());
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_the_handshake() {
    let (ca, other) = (new_ca(), new_ca());
    let address = serve_agents(&ca).await;
    let host = HostId::from_uuid(Uuid::now_v7());
    let intruder = connector(ca.certificate(), Some(host_identity(&other, host)));
    // TLS 1.3 tells the client after its own side of the handshake is done, hence at the first read.
    let error = ask(address, SERVER_NAME, &intruder).await.unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    // The listener goes on.
    assert_eq!(ask(address, SERVER_NAME, &connector(ca.certificate(), None)).await.unwrap(), "none");
}

#[tokio::test]
async fn the_server_certificate_verifies_for_its_name_and_carries_the_authority() {
    let (ca, other) = (new_ca(), new_ca());
    let address = serve_agents(&ca).await;
    assert!(ask(address, SERVER_NAME, &connector(other.certificate(), None)).await.is_err());
    assert!(ask(address, "example.org", &connector(ca.certificate(), None)).await.is_err());

    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = connector(ca.certificate(), None).connect(name, tcp).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(chain.last(), Some(ca.certificate()));
    assert_eq!(chain.len(), 2);
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_others() {
    let ca = new_ca();
    let address = serve(agent_listener(&ca).await.with_limits(Duration::from_secs(600), 100));
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut halting = TcpStream::connect(address).await.unwrap();
    halting.write_all(&[22, 3, 1]).await.unwrap();
    let answer = ask(address, SERVER_NAME, &connector(ca.certificate(), None)).await;
    assert_eq!(answer.unwrap(), "none");
}

#[tokio::test]
async fn too_many_handshakes_cost_the_oldest_its_turn() {
    let ca = new_ca();
    let address = serve(agent_listener(&ca).await.with_limits(Duration::from_secs(600), 2));
    let mut oldest = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    let answer = ask(address, SERVER_NAME, &connector(ca.certificate(), None)).await;
    assert_eq!(answer.unwrap(), "none");
    assert_eq!(oldest.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let ca = new_ca();
    let address = serve(agent_listener(&ca).await.with_limits(Duration::from_millis(50), 100));
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn plain_tcp_never_names_a_host() {
    let address = serve(Listener::plain(LOCALHOST).await.unwrap());
    let answer = ask_over(TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(answer.unwrap(), "none");
}

#[test]
fn plain_http_stays_on_loopback() {
    for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(require_tls_unless_loopback(address.parse().unwrap(), false).is_ok(), "{address}");
    }
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"] {
        assert!(require_tls_unless_loopback(address.parse().unwrap(), false).is_err(), "{address}");
        assert!(require_tls_unless_loopback(address.parse().unwrap(), true).is_ok(), "{address}");
    }
}
