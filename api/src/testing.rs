//! A cloud in a test: the real router on a real database, a clock that the test moves, and a host that says
//! what the test tells it to.

pub(crate) mod guide;
mod line;
mod networks;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::HostId;
use protocol::agent::{Acceleration, Architecture, Inventory, PROTOCOL_VERSION};
use protocol::{MemoryMib, SizeGib};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) use self::line::{Line, Lost};
use crate::agents::agent_router;
use crate::app::{App, Parts};
use crate::auth::bootstrap::{FirstRunOptions, PasswordChange};
use crate::auth::{self, KeyUses, Passwords, PolicyCache, Turns};
use crate::clock::Clock;
use crate::consoles::{ConsoleOptions, Consoles};
use crate::database::Pools;
use crate::database::testing::TestDatabase;
use crate::events::EventStreams;
use crate::fleet_metrics::FleetMetrics;
use crate::hosts::Heartbeats;
use crate::http::{Edge, EdgeOptions, Ticks, public_router};
use crate::images::{ImageStore, ImportOptions, Importer};
use crate::net::{self, Listener, Peer};
use crate::networks::Documents;
use crate::nudge::Nudges;
use crate::pki::Ca;
use crate::quotas::Resource;

const START: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

pub(crate) struct TestCloud {
    pub app: App,
    pub router: Router,
    pub agents: Router,
    _database: Option<TestDatabase>,
    token: Mutex<Option<String>>,
    credentials: Value,
    seconds: Arc<AtomicI64>,
    data: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Asserts the status and gives the body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts a problem document with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["request_id"].as_str().map(str::len), Some(36), "{body}");
        body
    }
}

impl TestCloud {
    /// An empty cloud with its administrator.
    pub(crate) async fn start() -> Self {
        let database = TestDatabase::create().await;
        Self::on(database.pool.clone(), Some(database)).await
    }

    /// The same, run with these options.
    pub(crate) async fn start_with(options: EdgeOptions) -> Self {
        let database = TestDatabase::create().await;
        Self::on_with(database.pool.clone(), Some(database), &options).await
    }

    /// The same, importing images like this.
    pub(crate) async fn start_importing(importer: Importer) -> Self {
        let database = TestDatabase::create().await;
        let consoles = ConsoleOptions::default();
        let pools = Pools::one(database.pool.clone());
        Self::made(pools, Some(database), &EdgeOptions::default(), importer, consoles).await
    }

    /// The same, with consoles like this.
    pub(crate) async fn start_with_consoles(consoles: ConsoleOptions) -> Self {
        let database = TestDatabase::create().await;
        let importer = Importer::new(ImportOptions::default()).unwrap();
        let pools = Pools::one(database.pool.clone());
        Self::made(pools, Some(database), &EdgeOptions::default(), importer, consoles).await
    }

    /// The same, with a line to its database that can be cut.
    pub(crate) async fn start_on_a_line() -> (Self, Line) {
        let database = TestDatabase::create().await;
        let line = Line::to(&database.options());
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(std::time::Duration::from_secs(5))
            .connect_lazy_with(line.options(database.options()));
        (Self::on(pool, Some(database)).await, line)
    }

    /// The same, with pools like those of the program, of these sizes.
    pub(crate) async fn start_sharing(own: u32, agents: u32) -> Self {
        let database = TestDatabase::create().await;
        let pools = Pools::of_sizes(database.options(), own, agents);
        let importer = Importer::new(ImportOptions::default()).unwrap();
        Self::made(pools, Some(database), &EdgeOptions::default(), importer, ConsoleOptions::default()).await
    }

    /// An empty cloud on this database.
    pub(crate) async fn on(pool: PgPool, database: Option<TestDatabase>) -> Self {
        Self::on_with(pool, database, &EdgeOptions::default()).await
    }

    async fn on_with(pool: PgPool, database: Option<TestDatabase>, options: &EdgeOptions) -> Self {
        let importer = Importer::new(ImportOptions::default()).unwrap();
        Self::made(Pools::one(pool), database, options, importer, ConsoleOptions::default()).await
    }

    async fn made(
        pools: Pools,
        database: Option<TestDatabase>,
        options: &EdgeOptions,
        imports: Importer,
        consoles: ConsoleOptions,
    ) -> Self {
        let data = TempDir::new().unwrap();
        let root = camino::Utf8Path::from_path(data.path()).unwrap();
        let seconds = Arc::new(AtomicI64::new(0));
        let clock = Clock::from_fn({
            let seconds = Arc::clone(&seconds);
            move || START + Duration::seconds(seconds.load(Ordering::SeqCst))
        });
        let ticks = Ticks::of_seconds({
            let seconds = Arc::clone(&seconds);
            move || seconds.load(Ordering::SeqCst).unsigned_abs()
        });
        let passwords = Passwords::new().unwrap();
        let credentials_file = root.join("credentials.json");
        let first_run = FirstRunOptions {
            first_run_credentials: Some(credentials_file.clone()),
            first_run_password_change: PasswordChange::Optional,
        };
        let tokens = auth::bootstrap::run(&pools.own, &clock, &passwords, &first_run).await.unwrap();
        // A cloud that has its administrator already shows no password again.
        let credentials = std::fs::read(&credentials_file)
            .map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        let made = Ca::generate(clock.now()).unwrap();
        let nudges = Nudges::default();
        tokio::spawn(nudges.clone().listen(pools.own.clone()));
        let app = App::new(Parts {
            pools,
            clock,
            passwords,
            sign_ins: Turns::default(),
            tokens,
            policies: PolicyCache::default(),
            key_uses: KeyUses::default(),
            ca: Arc::new(Ca::load(&made.certificate, &made.key).unwrap()),
            images: ImageStore::local(&root.join("images")).unwrap(),
            imports,
            nudges,
            documents: Documents::default(),
            event_streams: EventStreams::default(),
            consoles: Consoles::new(consoles),
            shutdown: CancellationToken::new(),
            heartbeats: Heartbeats::default(),
            fence: None,
            edge: Edge::new(options, &ticks),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            fleet: FleetMetrics::default(),
        });
        let (router, agents) = (public_router(app.clone()), agent_router(&app));
        Self { app, router, agents, _database: database, token: Mutex::default(), credentials, seconds, data }
    }

    /// Another replica of the API on the same database, with a clock of its own.
    pub(crate) async fn replica(&self) -> Self {
        let mut replica = Self::on(self.app.pool.clone(), None).await;
        replica.credentials = self.credentials.clone();
        replica
    }

    /// The same, with consoles like this.
    pub(crate) async fn replica_with_consoles(&self, consoles: ConsoleOptions) -> Self {
        let importer = Importer::new(ImportOptions::default()).unwrap();
        let pools = self.app.pools.clone();
        let mut replica = Self::made(pools, None, &EdgeOptions::default(), importer, consoles).await;
        replica.credentials = self.credentials.clone();
        replica
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The cloud's data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(crate) fn credentials(&self) -> &Value {
        &self.credentials
    }

    /// The administrator's access token; signs in on first use.
    pub(crate) async fn token(&self) -> String {
        if let Some(token) = self.token.lock().unwrap().clone() {
            return token;
        }
        self.sign_in_again().await
    }

    /// Gets the administrator a new access token, after a time in which the old one has ended.
    pub(crate) async fn sign_in_again(&self) -> String {
        let answer =
            self.send(request(Method::POST, "/v1/auth/login", &[], self.credentials.to_string())).await;
        let token = answer.expect(200)["access_token"].as_str().unwrap().to_owned();
        *self.token.lock().unwrap() = Some(token.clone());
        token
    }

    /// `Bearer …` of another user.
    pub(crate) async fn user(&self, name: &str, administrator: bool) -> String {
        let password = "correct horse";
        auth::testing::insert_user(&self.app, name, administrator, password).await;
        let body = json!({"username": name, "password": password}).to_string();
        let answer = self.send(request(Method::POST, "/v1/auth/login", &[], body)).await;
        format!("Bearer {}", answer.expect(200)["access_token"].as_str().unwrap())
    }

    /// Sends a request to the public API as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        exchange(&self.router, request).await
    }

    /// Sends a request as it is over plain TCP from this address.
    pub(crate) async fn send_from(&self, address: &str, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(peer(address)));
        self.send(request).await
    }

    /// Serves the public API on a real socket.
    pub(crate) async fn listen(&self) -> std::net::SocketAddr {
        let listener = Listener::plain(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        tokio::spawn(net::serve(listener, self.router.clone(), self.app.shutdown.clone()));
        address
    }

    /// Sends a request as the administrator.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token().await);
        let mut all = headers.to_vec();
        // A test may be somebody else.
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            all.push(("authorization", bearer.as_str()));
        }
        self.send(request(method, path, &all, body.map(|body| body.to_string()).unwrap_or_default())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// Sends bytes as the administrator.
    pub(crate) async fn put_bytes(&self, path: &str, bytes: Vec<u8>) -> Answer {
        let bearer = format!("Bearer {}", self.token().await);
        self.send(Request::put(path).header(header::AUTHORIZATION, bearer).body(Body::from(bytes)).unwrap())
            .await
    }

    /// Project `demo` with the available raw image `image` and the type `tiny`.
    pub(crate) async fn furnish(&self) {
        self.post("/v1/projects", json!({"name": "demo"})).await.expect(201);
        let tiny = json!({"name": "tiny", "vcpus": 1, "memory_mib": 256, "root_disk_gib": 1});
        self.post("/v1/instance_types", tiny).await.expect(201);
        let image = json!({"name": "image", "format": "raw"});
        self.post("/v1/projects/demo/images", image).await.expect(201);
        self.put_bytes("/v1/projects/demo/images/image/content", vec![0; 4096]).await.expect(200);
    }

    /// From now on a project may have as much as it likes.
    pub(crate) async fn lift_quotas(&self) {
        let limits: serde_json::Map<_, _> =
            Resource::ALL.iter().map(|resource| (resource.as_str().to_owned(), json!(-1))).collect();
        self.call(Method::PATCH, "/v1/quota_defaults", Some(limits.into())).await.expect(200);
    }

    /// A host that has joined, opened a session and is heard of now.
    pub(crate) async fn join_host(&self, name: &str) -> TestHost<'_> {
        let token = self.post("/v1/host_join_tokens", json!({})).await.expect(201)["token"].clone();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let join =
            json!({"protocol_version": PROTOCOL_VERSION, "token": token, "name": name, "csr_pem": csr});
        let joined = self.agent_call(None, Method::POST, "/agent/v1/join", Some(join)).await.expect(200);
        let id: HostId = joined["host_id"].as_str().unwrap().parse().unwrap();
        let mut host = TestHost::joined(self, id);
        host.open_session().await;
        host
    }

    /// Calls the agent API with the certificate of this host, or with none.
    pub(crate) async fn agent_call(
        &self,
        host: Option<HostId>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        self.agent_send(
            host,
            request(method, path, &[], body.map(|body| body.to_string()).unwrap_or_default()),
        )
        .await
    }

    /// The same with any request.
    pub(crate) async fn agent_send(&self, host: Option<HostId>, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(Peer { host, tls: true, ..peer("127.0.0.1") }));
        exchange(&self.agents, request).await
    }
}

/// The agent's side, by hand.
pub(crate) struct TestHost<'a> {
    cloud: &'a TestCloud,
    pub id: HostId,
    pub epoch: i64,
}

impl<'a> TestHost<'a> {
    /// One that has joined, and has no session.
    pub(crate) fn joined(cloud: &'a TestCloud, id: HostId) -> Self {
        Self { cloud, id, epoch: 0 }
    }
}

impl TestHost<'_> {
    pub(crate) async fn open_session(&mut self) {
        self.open_session_with(inventory()).await;
    }

    /// The same of a host that is like this.
    pub(crate) async fn open_session_with(&mut self, inventory: Inventory) {
        let body =
            json!({"protocol_version": PROTOCOL_VERSION, "agent_version": "test", "inventory": inventory});
        let opened = self.call(Method::POST, "/agent/v1/sessions", Some(body)).await.expect(200);
        self.epoch = opened["epoch"].as_i64().unwrap();
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.cloud.agent_call(Some(self.id), method, path, body).await
    }

    /// A heartbeat that tells of these shared pools.
    pub(crate) async fn beat(&self, shared_pools: Value) -> Answer {
        self.beat_with(json!({"shared_pools": shared_pools})).await
    }

    /// A heartbeat with these fields, too.
    pub(crate) async fn beat_with(&self, fields: Value) -> Answer {
        let mut body = json!({"epoch": self.epoch, "hypervisor": {"status": "ok"}, "quarantined": 0,
            "observed_digest": "0".repeat(64)});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.call(Method::POST, "/agent/v1/heartbeat", Some(body)).await
    }

    /// What the host shall look like, after this revision.
    pub(crate) async fn feed(&self, after: i64) -> Value {
        let path = format!("/agent/v1/desired?epoch={}&after={after}", self.epoch);
        self.call(Method::GET, &path, None).await.expect(200)
    }

    /// The same without the document of its networks.
    pub(crate) async fn desired(&self, after: i64) -> Value {
        let mut page = self.feed(after).await;
        page["objects"].as_array_mut().unwrap().retain(|object| object["kind"] != "network");
        page
    }

    /// The document of its networks.
    pub(crate) async fn network(&self) -> Value {
        let page = self.feed(0).await;
        let mut documents = page["objects"].as_array().unwrap().iter();
        documents.find(|object| object["kind"] == "network").unwrap().clone()
    }

    /// Reports that its networks are as this revision says, but for these faults.
    pub(crate) async fn report_networks(&self, revision: &Value, faults: Value) -> Answer {
        let network = json!({"revision": revision, "faults": faults});
        let body = json!({"epoch": self.epoch, "reports": [], "network": network});
        self.call(Method::POST, "/agent/v1/observed", Some(body)).await
    }

    /// Reports one instance as in this state, with the volumes that are wanted of it at this generation as far as it
    /// is up or down.
    pub(crate) async fn report(&self, instance: &Value, generation: i64, boot: i64, state: Value) -> Value {
        let volumes = self.volumes(instance, generation, &state).await;
        self.report_with(instance, generation, boot, state, volumes).await
    }

    async fn volumes(&self, instance: &Value, generation: i64, state: &Value) -> Value {
        let made = matches!(state["state"].as_str(), Some("running" | "stopped"));
        let disks = self.disks(instance).await.filter(|(wanted, _)| made && *wanted == generation);
        let disks = disks.map(|(_, disks)| disks).unwrap_or_default();
        let ready = |disk: &Value| {
            let volume = &disk["volume"];
            json!({"id": volume["id"], "generation": volume["generation"], "state": "ready"})
        };
        disks.iter().map(ready).collect()
    }

    /// Reports an instance as running, the guest of which still has these cards; an agent before them says `null`.
    pub(crate) async fn report_leaving(&self, instance: &Value, generation: i64, cards: Value) {
        let state = json!({"state": "running"});
        let volumes = self.volumes(instance, generation, &state).await;
        let report = json!({"id": instance, "generation": generation, "boot": 1, "state": state,
            "volumes": volumes, "leaving_cards": cards});
        let body = json!({"epoch": self.epoch, "reports": [report]});
        self.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    }

    /// The same with these volumes.
    pub(crate) async fn report_with(
        &self,
        instance: &Value,
        generation: i64,
        boot: i64,
        state: Value,
        volumes: Value,
    ) -> Value {
        let report = json!({"id": instance, "generation": generation, "boot": boot, "state": state,
            "volumes": volumes, "leaving_cards": []});
        let body = json!({"epoch": self.epoch, "reports": [report]});
        self.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200)
    }

    /// The disks of an instance of this host, and the generation that has them.
    pub(crate) async fn disks(&self, instance: &Value) -> Option<(i64, Vec<Value>)> {
        let page = self.desired(0).await;
        let mut objects = page["objects"].as_array().unwrap().iter();
        let spec = objects.find(|object| object["kind"] == "instance" && object["id"] == *instance)?;
        Some((spec["generation"].as_i64().unwrap(), spec["disks"].as_array().unwrap().clone()))
    }

    /// The orders to remove layers, oldest first.
    pub(crate) async fn removals(&self) -> Vec<Value> {
        let page = self.desired(0).await;
        let objects = page["objects"].as_array().unwrap().iter();
        objects.filter(|object| object["kind"] == "remove_layers").cloned().collect()
    }

    /// Reports this of migrations.
    pub(crate) async fn report_migrations(&self, migrations: Value) -> Answer {
        let body = json!({"epoch": self.epoch, "reports": [], "migrations": migrations});
        self.call(Method::POST, "/agent/v1/observed", Some(body)).await
    }

    /// Reports that nothing is left of what these orders name.
    pub(crate) async fn report_removed(&self, removals: Value) {
        let body = json!({"epoch": self.epoch, "reports": [], "removed": removals});
        self.call(Method::POST, "/agent/v1/observed", Some(body)).await.expect(200);
    }
}

pub(crate) fn inventory() -> Inventory {
    Inventory {
        cpus: 4,
        memory_mib: MemoryMib(8192),
        disk_gib: SizeGib(100),
        cpu_model: "test".to_owned(),
        hypervisor: "test".to_owned(),
        acceleration: Acceleration::Simulated,
        acceleration_detail: "nothing runs".to_owned(),
        architectures: vec![Architecture::X86_64],
        features: Vec::new(),
        cpu_models: vec!["EPYC".to_owned()],
        underlay_address: None,
        boot_id: uuid::Uuid::from_u128(1),
    }
}

/// The other side of a plain connection from this address.
pub(crate) fn peer(address: &str) -> Peer {
    Peer { address: std::net::SocketAddr::new(address.parse().unwrap(), 1), tls: false, host: None }
}

pub(crate) fn request(method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

async fn exchange(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

/// Until so many connections wait for locks of others.
pub(crate) async fn until_waiting(pool: &PgPool, count: i64) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let sql = "SELECT count(*) >= $1 FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while !sqlx::query_scalar::<_, bool>(sql).bind(count).fetch_one(pool).await.unwrap() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("too few ever waited for a lock");
}

/// Makes both calls, the second when the first waits for a lock that `sql` holds until both wait.
pub(crate) async fn queued(
    cloud: &TestCloud,
    sql: &'static str,
    first: impl Future<Output = Answer>,
    second: impl Future<Output = Answer>,
) -> [Answer; 2] {
    let mut holder = cloud.app.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *holder).await.unwrap();
    let second = async {
        until_waiting(&cloud.app.pool, 1).await;
        second.await
    };
    let release = async {
        until_waiting(&cloud.app.pool, 2).await;
        holder.commit().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    [first, second]
}

/// Makes the call while `sql` has happened but is not committed yet.
pub(crate) async fn during(cloud: &TestCloud, sql: &str, path: &str, body: serde_json::Value) -> Answer {
    let mut other = cloud.app.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *other).await.unwrap();
    let commit = async {
        until_waiting(&cloud.app.pool, 1).await;
        other.commit().await.unwrap();
    };
    tokio::join!(cloud.post(path, body), commit).0
}
