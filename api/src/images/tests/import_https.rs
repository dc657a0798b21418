//! Imports by TLS, from servers with certificates of all kinds.

use std::io::Write;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use super::server::{MAX_BYTES, Reply, Server, image, import, operation, options, resolver};
use super::swept;
use crate::images::{ImportOptions, Importer, run_imports};
use crate::testing::TestCloud;

const VALID: (i32, i32) = (2020, 2999);

/// An authority of a LAN.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::called("the secret authority")
    }

    fn called(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// What a server shows that is called so, from the beginning of a year to the end of another.
    fn server(&self, name: &str, years: (i32, i32)) -> Option<TlsAcceptor> {
        let key = KeyPair::generate().unwrap();
        let params = leaf(name, years);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        acceptor(&certificate, &key)
    }
}

fn leaf(name: &str, (from, until): (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "secret");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 12, 31);
    params
}

fn acceptor(certificate: &Certificate, key: &KeyPair) -> Option<TlsAcceptor> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Some(TlsAcceptor::from(Arc::new(config)))
}

/// A cloud that imports by TLS alone, from the servers of this authority, too.
async fn strict(authority: Option<&Authority>) -> TestCloud {
    let file = authority.map(Authority::file);
    let path = file.as_ref().map(|file| file.path().to_path_buf().try_into().unwrap());
    let options = ImportOptions { import_http: false, import_ca: path, ..options() };
    let cloud = TestCloud::start_importing(Importer::for_tests(options, resolver(), MAX_BYTES)).await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
    cloud
}

/// The operation of an import that was run once.
async fn imported(cloud: &TestCloud, name: &str, url: &str) -> Value {
    let begun = import(cloud, name, url).await;
    run_imports(&cloud.app).await.unwrap();
    operation(cloud, &begun).await
}

fn url(name: &str, server: &Server) -> String {
    format!("https://{name}:{}/image?signature=secret", server.port)
}

#[tokio::test]
async fn a_further_authority_is_trusted_beside_those_of_the_world() {
    let authority = Authority::new();
    let file = |_: usize, _: &str| Reply::file(&[7; 4096]);
    let server = Server::serve(authority.server("mirror.test", VALID), file).await;
    let trusting = strict(Some(&authority)).await;
    let ended = imported(&trusting, "image", &url("mirror.test", &server)).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(image(&trusting, "image").await["state"], "available");
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_asked_once_and_the_fault_is_named() {
    let (ours, other) = (Authority::new(), Authority::called("another secret authority"));
    let cloud = strict(Some(&ours)).await;
    let key = KeyPair::generate().unwrap();
    let alone = leaf("mirror.test", VALID).self_signed(&key).unwrap();
    let mut usual = leaf("mirror.test", VALID);
    usual.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let usual = usual.self_signed(&key).unwrap();
    for (name, shown, why) in [
        ("expired", ours.server("mirror.test", (2020, 2021)), "has expired"),
        ("early", ours.server("mirror.test", (2998, 2999)), "is not valid yet"),
        ("named", ours.server("secret.test", VALID), "is for another name"),
        ("unknown", other.server("mirror.test", VALID), "is by nobody who is trusted here"),
        ("alone", acceptor(&alone, &key), "is by nobody who is trusted here"),
        ("usual", acceptor(&usual, &key), "is none that a server can be trusted by"),
    ] {
        let server = Server::serve(shown, |_, _| Reply::file(&[7; 4096])).await;
        let ended = imported(&cloud, name, &url("mirror.test", &server)).await;
        let origin = format!("https://mirror.test:{}", server.port);
        assert_eq!(ended["error"]["code"], "source_certificate_invalid", "{name}: {ended}");
        let detail = ended["error"]["detail"].as_str().unwrap();
        let begins = format!("{origin} cannot be trusted: its certificate {why}");
        assert!(detail.starts_with(&begins), "{name}: {detail}");
        assert!(!ended.to_string().contains("secret"), "{ended}");
        assert_eq!(image(&cloud, name).await["failure"], ended["error"]);
        assert_eq!((server.connections(), server.heads().len()), (1, 0), "{name}");
        assert_eq!(swept(&cloud).await, (0, 0), "{name}");
    }
    // A server that speaks no TLS shows no certificate: that is another fault, and may pass.
    let plain = Server::of(vec![7; 4096]).await;
    let begun = imported(&cloud, "plain", &url("mirror.test", &plain)).await;
    assert_eq!(begun["status"], "running", "{begun}");
    assert!(begun["trail"].to_string().contains("attempt_1_failed"), "{begun}");
}

#[tokio::test]
async fn redirects_lead_to_servers_that_are_as_good_and_no_further() {
    let ours = Authority::new();
    let cloud = strict(Some(&ours)).await;
    let file = Server::serve(ours.server("other.test", VALID), |_, _| Reply::file(&[7; 4096])).await;
    let expired =
        Server::serve(ours.server("other.test", (2020, 2021)), |_, _| Reply::file(&[7; 4096])).await;
    let plain = Server::of(vec![7; 4096]).await;
    let (other, port) = (url("other.test", &file), file.port);
    // (name, where to, code, part of the detail)
    for (name, to, code, why) in [
        (
            "plain",
            format!("http://other.test:{}/", plain.port),
            "import_refused",
            "plain HTTP is not allowed",
        ),
        ("inside", format!("https://inside.test:{port}/"), "import_refused", "private"),
        ("literal", format!("https://127.0.0.2:{port}/"), "import_refused", "loopback"),
        ("metadata", "https://169.254.169.254/latest".to_owned(), "import_refused", "link-local"),
        (
            "user",
            format!("https://user:secret@other.test:{port}/"),
            "import_refused",
            "leave user and password",
        ),
        ("expired", url("other.test", &expired), "source_certificate_invalid", "has expired"),
        ("loop", "/image?signature=secret".to_owned(), "import_failed", "more than 5 redirects"),
    ] {
        let server = Server::serve(ours.server("mirror.test", VALID), move |_, _| Reply::redirect(&to)).await;
        let ended = imported(&cloud, name, &url("mirror.test", &server)).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!(code)), "{ended}");
        assert!(ended["error"]["detail"].as_str().unwrap().contains(why), "{name}: {ended}");
        assert!(!ended.to_string().contains("secret"), "{ended}");
        assert_eq!(server.heads().len(), if name == "loop" { 6 } else { 1 }, "{name}");
    }
    assert_eq!(plain.connections() + file.connections(), 0);
    // Five of them are followed, the last one to another server; nothing of the first one is told to that.
    let server = Server::serve(ours.server("mirror.test", VALID), move |number, _| match number {
        4 => {
            let headers =
                [("location", other.as_str()), ("set-cookie", "session=1"), ("content-length", "0")];
            Reply::with("307 Temporary Redirect", &headers, b"")
        }
        _ => Reply::with("302 Found", &[("location", "/on"), ("set-cookie", "session=1")], b""),
    })
    .await;
    let ended = imported(&cloud, "followed", &url("mirror.test", &server)).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!((server.heads().len(), file.heads().len()), (5, 1));
    for head in server.heads().into_iter().chain(file.heads()) {
        for kept in ["cookie", "authorization", "referer"] {
            assert!(!head.contains(kept), "{head}");
        }
    }
    assert!(!file.heads()[0].contains("mirror.test"), "{:?}", file.heads());
}

#[tokio::test]
async fn a_file_of_no_certificates_is_noticed_at_the_start() {
    let garbage = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
    for (text, why) in [("", "no certificates"), ("secret", "no certificates"), (garbage, "no certificate")] {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_path_buf().try_into().unwrap();
        let made = Importer::new(ImportOptions { import_ca: Some(path), ..ImportOptions::default() });
        let error = made.err().expect("it is taken").to_string();
        assert!(error.contains(why), "{error}");
    }
    let options = ImportOptions { import_ca: Some("/nowhere/ca.pem".into()), ..ImportOptions::default() };
    assert!(Importer::new(options).err().unwrap().to_string().contains("cannot read /nowhere/ca.pem"));
}
