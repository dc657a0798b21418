//! Imports by TLS, from servers with certificates of all kinds.

use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use super::server::{MAX_BYTES, Reply, Server, image, import, operation, options, resolver};
use crate::images::{ImportOptions, Importer, run_imports};
use crate::testing::TestCloud;

/// An authority of a LAN.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the secret authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// What a server shows that is called so, until the end of a year.
    fn server(&self, name: &str, until: i32) -> Option<TlsAcceptor> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "secret");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.0).unwrap();
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
    let server = Server::serve(authority.server("mirror.test", 2999), file).await;
    let trusting = strict(Some(&authority)).await;
    let ended = imported(&trusting, "image", &url("mirror.test", &server)).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(image(&trusting, "image").await["state"], "available");
    assert_eq!(server.heads().len(), 1);
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
