use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use http_body_util::BodyExt;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use protocol::agent::{DesiredBody, HostNetwork, InstanceSpec, PortAddress, Subnet};
use protocol::{InstanceId, SubnetId, Vni};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::answer::{Metadata, Question};
use super::listeners::serve;
use crate::clock::ManualClock;
use crate::desired::DesiredStore;
use crate::networks::NetworkStore;
use crate::samples::{networks, nic, page, running, wish};

const FIRST: &str = "10.7.0.10";
const SECOND: &str = "10.7.0.11";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

struct Host {
    _dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    metadata: Arc<Metadata>,
    spec: InstanceSpec,
}

fn instance() -> InstanceSpec {
    let id = InstanceId::from_uuid(Uuid::from_u128(9));
    let mut spec = InstanceSpec { nics: vec![nic(1), nic(2)], ..running(id) };
    spec.seed.user_data = Some("#cloud-config\n".to_owned());
    spec.seed.ssh_authorized_keys = vec!["ssh-ed25519 AAAA me".to_owned()];
    spec
}

fn document(spec: &InstanceSpec) -> HostNetwork {
    let mut document = networks(spec);
    let network = &mut document.networks[0];
    let subnet_id = SubnetId::from_uuid(Uuid::from_u128(2));
    network.subnets = vec![Subnet {
        id: subnet_id,
        cidr: "10.7.0.0/24".parse().unwrap(),
        gateway: None,
        routed: false,
        service_address: "10.7.0.2".parse().unwrap(),
        dhcp: true,
        dns_servers: Vec::new(),
    }];
    for (port, address) in network.ports.iter_mut().zip([FIRST, SECOND, "127.0.0.1"]) {
        port.addresses = vec![PortAddress { subnet_id, address: address.parse().unwrap() }];
    }
    network.ports[0].metadata.public_ipv4 = Some("198.51.100.7".parse().unwrap());
    document
}

impl Host {
    fn new() -> Self {
        Self::with(instance(), document)
    }

    fn with(spec: InstanceSpec, document: fn(&InstanceSpec) -> HostNetwork) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| Utf8PathBuf::from_path_buf(dir.path().join(name)).unwrap();
        let desired = DesiredStore::open(path("desired")).unwrap();
        let store = NetworkStore::open(path("networks.json")).unwrap();
        desired.take(&page(true, [wish(&spec)])).unwrap();
        store.take(&page(true, [DesiredBody::Network(Box::new(document(&spec)))])).unwrap();
        let clock = Arc::new(ManualClock::default());
        let metadata = Metadata::new(Arc::new(store), Arc::new(desired), Arc::clone(&clock) as _);
        Self { _dir: dir, clock, metadata: Arc::new(metadata), spec }
    }

    async fn ask(
        &self,
        source: &str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (StatusCode, String) {
        self.ask_in(7, source, method, path, headers).await
    }

    async fn ask_in(
        &self,
        vni: u32,
        source: &str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (StatusCode, String) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let (vni, source): (_, IpAddr) = (Vni::try_from(vni).unwrap(), source.parse().unwrap());
        let question = Question { vni, source, method: &method, path, headers: &headers };
        let (head, body) = self.metadata.answer(&question).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn token(&self, source: &str) -> String {
        let (status, token) = self.ask(source, Method::PUT, "/latest/api/token", &[(TTL, "60")]).await;
        assert_eq!(status, StatusCode::OK);
        token
    }

    async fn read(&self, path: &str) -> String {
        let token = self.token(FIRST).await;
        let (status, text) = self.ask(FIRST, Method::GET, path, &[(TOKEN, &token)]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        text
    }
}

#[tokio::test]
async fn nothing_is_told_without_a_token_of_ones_own_that_is_still_good() {
    let host = Host::new();
    let get = async |source: &str, headers: &[(&'static str, &str)]| {
        host.ask(source, Method::GET, "/latest/meta-data/instance-id", headers).await.0
    };
    let token = host.token(FIRST).await;
    assert_eq!(get(FIRST, &[(TOKEN, &token)]).await, StatusCode::OK);
    let other = host.token(SECOND).await;
    let damaged = token.replacen(&token[20..21], if &token[20..21] == "A" { "B" } else { "A" }, 1);
    for bad in ["", "x", &other, &damaged, &token[..20]] {
        assert_eq!(get(FIRST, &[(TOKEN, bad)]).await, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert_eq!(get(FIRST, &[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(SECOND, &[(TOKEN, &token)]).await, StatusCode::UNAUTHORIZED);
    host.clock.advance(Duration::from_secs(59));
    assert_eq!(get(FIRST, &[(TOKEN, &token)]).await, StatusCode::OK);
    host.clock.advance(Duration::from_secs(1));
    assert_eq!(get(FIRST, &[(TOKEN, &token)]).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_is_given_to_whoever_asks_as_it_has_to_be_asked() {
    let host = Host::new();
    let path = "/latest/api/token";
    for (method, path, headers, expected) in [
        (Method::PUT, path, vec![(TTL, "21600")], StatusCode::OK),
        (Method::PUT, path, vec![], StatusCode::BAD_REQUEST),
        (Method::PUT, path, vec![(TTL, "0")], StatusCode::BAD_REQUEST),
        (Method::PUT, path, vec![(TTL, "21601")], StatusCode::BAD_REQUEST),
        (Method::PUT, path, vec![(TTL, "x")], StatusCode::BAD_REQUEST),
        (Method::PUT, path, vec![(TTL, "60"), ("x-forwarded-for", "1.1.1.1")], StatusCode::FORBIDDEN),
        (Method::GET, path, vec![(TTL, "60")], StatusCode::UNAUTHORIZED),
        (Method::POST, path, vec![(TTL, "60")], StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/latest/meta-data", vec![(TTL, "60")], StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (status, _) = host.ask(FIRST, method.clone(), path, &headers).await;
        assert_eq!(status, expected, "{method} {path} {headers:?}");
    }
    let stranger = host.ask("10.7.0.99", Method::PUT, path, &[(TTL, "60")]).await.0;
    let elsewhere = host.ask_in(8, FIRST, Method::PUT, path, &[(TTL, "60")]).await.0;
    assert_eq!((stranger, elsewhere), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn an_instance_reads_about_itself_as_on_ec2() {
    let host = Host::new();
    let id = host.spec.id.to_string();
    let port = host.spec.nics[1].port_id.to_string();
    for (path, expected) in [
        ("/", "2009-04-04\n2016-09-02\n2018-09-24\n2021-03-23\nlatest"),
        ("/latest", "meta-data/\nuser-data"),
        (
            "/latest/meta-data/",
            "hostname\ninstance-id\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\npublic-ipv4\npublic-keys/",
        ),
        ("/2009-04-04/meta-data/instance-id", id.as_str()),
        ("/latest/meta-data/instance-type", "small"),
        ("/latest/meta-data/local-hostname", "web-1.demo.internal"),
        ("/latest/meta-data/local-ipv4", FIRST),
        ("/latest/meta-data/public-ipv4", "198.51.100.7"),
        ("/latest/meta-data/mac", "02:00:00:00:00:01"),
        ("/latest/meta-data/public-keys/", "0=key-0"),
        ("/latest/meta-data/public-keys/0/", "openssh-key"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA me"),
        ("/latest/meta-data/network/interfaces/macs", "02:00:00:00:00:01/\n02:00:00:00:00:02/"),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/device-number", "1"),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/interface-id", &port),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/local-ipv4s", SECOND),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/subnet-ipv4-cidr-block", "10.7.0.0/24"),
        ("/latest/user-data", "#cloud-config\n"),
    ] {
        assert_eq!(host.read(path).await, expected, "{path}");
    }
    let token = host.token(FIRST).await;
    for path in [
        "/latest/meta-data/nothing",
        "/latest/meta-data/mac/x",
        "/latest/meta-data/public-keys/1",
        "/latest/dynamic/",
        "/1/meta-data",
        "/latest/../etc",
    ] {
        let status = host.ask(FIRST, Method::GET, path, &[(TOKEN, &token)]).await.0;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn it_is_spoken_over_http_and_one_address_cannot_have_all_connections() {
    let host = Host::with(InstanceSpec { nics: vec![nic(1), nic(2), nic(3)], ..instance() }, document);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(
        listener,
        Vni::try_from(7).unwrap(),
        Arc::clone(&host.metadata),
        Arc::new(Semaphore::new(1000)),
    ));
    let exchange = async |request: String| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let asked = exchange(format!("PUT /latest/api/token HTTP/1.1\r\nhost: x\r\n{TTL}: 60\r\n\r\n")).await;
    assert!(asked.contains(&format!("{TTL}: 60\r\n")), "{asked}");
    let token = asked.split("\r\n\r\n").nth(1).unwrap();
    let path = "/latest/meta-data/mac";
    let told = exchange(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{TOKEN}: {token}\r\n\r\n")).await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("02:00:00:00:00:03"), "{told}");

    let mut idle = Vec::new();
    for _ in 0..32 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), one_more.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(idle);
    task.abort();
}

#[tokio::test]
async fn all_networks_together_have_so_many_connections() {
    let host = Host::new();
    let all = Arc::new(Semaphore::new(2));
    let mut addresses = Vec::new();
    for vni in [7, 8] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let (metadata, all) = (Arc::clone(&host.metadata), Arc::clone(&all));
        tokio::spawn(serve(listener, Vni::try_from(vni).unwrap(), metadata, all));
    }
    let is_closed = async |stream: &mut TcpStream| {
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    };
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(addresses[0]).await.unwrap();
        assert!(!is_closed(&mut stream).await);
        idle.push(stream);
    }
    let mut one_more = TcpStream::connect(addresses[1]).await.unwrap();
    assert!(is_closed(&mut one_more).await);
    drop(idle);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!is_closed(&mut TcpStream::connect(addresses[1]).await.unwrap()).await);
}
