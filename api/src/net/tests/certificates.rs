//! The certificate of the public API, while its files change.

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, raise};

use super::super::certificate::Look;
use super::*;

const NAME: &str = "cloud.example";

/// A certificate and its key, PEM.
struct Pair {
    certificate: rcgen::Certificate,
    key: String,
}

fn pair() -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    Pair { certificate, key: key.serialize_pem() }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(pair: &Pair) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("cert.pem", &pair.certificate.pem());
        folder.put("key.pem", &pair.key);
        folder
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.0.path()).unwrap().join(name)
    }

    /// Replaces a file as a careful program does.
    fn put(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn load(&self) -> Arc<PublicCertificate> {
        Arc::new(PublicCertificate::load(&self.path("cert.pem"), &self.path("key.pem")).unwrap())
    }
}

async fn serve_public(certificate: Arc<PublicCertificate>) -> SocketAddr {
    serve(Listener::tls(LOCALHOST, tls::public(certificate).unwrap()).await.unwrap())
}

/// Whether a new connection gets this certificate.
async fn shows(address: SocketAddr, pair: &Pair) -> bool {
    ask(address, NAME, &connector(pair.certificate.der(), None)).await.is_ok()
}

#[tokio::test]
async fn the_public_api_takes_its_certificate_from_files() {
    let pair = pair();
    let folder = Folder::with(&pair);
    folder.put("empty.pem", "");
    let address = serve_public(folder.load()).await;
    let host = host_identity(&new_ca(), HostId::from_uuid(Uuid::now_v7()));
    let client = connector(pair.certificate.der(), Some(host));
    assert_eq!(ask(address, NAME, &client).await.unwrap(), "none");

    let refused =
        |cert: &str, key: &str| PublicCertificate::load(&folder.path(cert), &folder.path(key)).unwrap_err();
    assert!(matches!(refused("empty.pem", "key.pem"), tls::TlsError::NoCertificate { .. }));
    assert!(matches!(refused("absent.pem", "key.pem"), tls::TlsError::Certificate { .. }));
    assert!(matches!(refused("cert.pem", "cert.pem"), tls::TlsError::Key { .. }));
    folder.put("other.pem", &self::pair().key);
    assert!(matches!(refused("cert.pem", "other.pem"), tls::TlsError::Config(_)));
}

#[tokio::test]
async fn a_new_pair_is_for_new_connections() {
    let (old, new) = (pair(), pair());
    let folder = Folder::with(&old);
    let certificate = folder.load();
    let address = serve_public(Arc::clone(&certificate)).await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let living = connector(old.certificate.der(), None).connect(name, tcp).await.unwrap();

    assert_eq!(certificate.look(false), Look::Same);
    folder.put("cert.pem", &new.certificate.pem());
    // Only half of it is there: said once.
    assert_eq!(certificate.look(false), Look::Refused);
    assert_eq!(certificate.look(false), Look::StillRefused);
    assert!(shows(address, &old).await);
    folder.put("key.pem", &new.key);
    assert_eq!(certificate.look(false), Look::Changed);
    assert_eq!(certificate.look(false), Look::Same);
    assert!(shows(address, &new).await);
    assert!(!shows(address, &old).await);
    assert_eq!(ask_over(living).await.unwrap(), "none", "the old connection lives on");
}

#[tokio::test]
async fn broken_files_change_nothing() {
    let old = pair();
    let folder = Folder::with(&old);
    let certificate = folder.load();
    let address = serve_public(Arc::clone(&certificate)).await;
    let half = &old.certificate.pem()[..200];
    for (name, text) in [("cert.pem", ""), ("cert.pem", half), ("key.pem", "no key"), ("key.pem", "")] {
        folder.put(name, text);
        assert_eq!(certificate.look(false), Look::Refused, "{name}: {text}");
        assert!(shows(address, &old).await);
    }
    std::fs::remove_file(folder.path("key.pem")).unwrap();
    assert_eq!(certificate.look(false), Look::Refused);
    assert!(shows(address, &old).await);
    // Whoever asks is told again.
    assert_eq!(certificate.look(true), Look::Refused);
    folder.put("cert.pem", &old.certificate.pem());
    folder.put("key.pem", &old.key);
    assert_eq!(certificate.look(false), Look::Changed);
}

#[tokio::test]
async fn the_files_are_looked_at_by_and_by_and_on_sighup() {
    for (every, hang_up) in [(Duration::from_millis(20), false), (Duration::from_secs(600), true)] {
        let (old, new) = (pair(), pair());
        let folder = Folder::with(&old);
        let certificate = folder.load();
        let address = serve_public(Arc::clone(&certificate)).await;
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(certificate.watch_every(every, shutdown.clone()).unwrap());
        folder.put("key.pem", &new.key);
        folder.put("cert.pem", &new.certificate.pem());
        if hang_up {
            raise(Signal::SIGHUP).unwrap();
        }
        while !shows(address, &new).await {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        watching.await.unwrap();
    }
}
