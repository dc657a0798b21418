//! Putting the service together and running it until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use camino::Utf8PathBuf;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::agents::agent_router;
use crate::app::{App, Parts};
use crate::auth::bootstrap::FirstRunOptions;
use crate::auth::{self, KeyUses, Passwords, PolicyCache, Turns};
use crate::clock::Clock;
use crate::consoles::{ConsoleOptions, Consoles};
use crate::controllers;
use crate::database::{Database, Pools};
use crate::events::EventStreams;
use crate::fleet_metrics::FleetMetrics;
use crate::hosts::{FenceOptions, Heartbeats};
use crate::http::{Edge, EdgeOptions, Ticks, public_router};
use crate::images::{ImageStoreOptions, ImportOptions, Importer};
use crate::net::{self, ConnectionLimits, Listener, PublicCertificate, tls};
use crate::networks::Documents;
use crate::nudge::Nudges;
use crate::pki::ServerCertificates;

/// How to run the control plane.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the private PostgreSQL and the images live.
    #[arg(long, env = "CUMULO_DATA_DIR", default_value = "/var/lib/cumulo/api")]
    pub data_dir: Utf8PathBuf,
    /// PostgreSQL to use; without it, a private one in the data directory.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Address of the REST API. Other than loopback needs a certificate.
    #[arg(long, env = "CUMULO_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address for agents; always mutual TLS.
    #[arg(long, env = "CUMULO_AGENT_LISTEN", default_value = "127.0.0.1:8443")]
    pub agent_listen: SocketAddr,
    /// Certificate chain of the REST API, PEM, leaf first.
    #[arg(long, env = "CUMULO_TLS_CERTIFICATE", requires = "tls_key")]
    pub tls_certificate: Option<Utf8PathBuf>,
    /// Key of that certificate, PEM.
    #[arg(long, env = "CUMULO_TLS_KEY", requires = "tls_certificate")]
    pub tls_key: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub first_run: FirstRunOptions,
    #[command(flatten)]
    pub connections: ConnectionLimits,
    #[command(flatten)]
    pub edge: EdgeOptions,
    #[command(flatten)]
    pub image_store: ImageStoreOptions,
    #[command(flatten)]
    pub imports: ImportOptions,
    #[command(flatten)]
    pub consoles: ConsoleOptions,
    #[command(flatten)]
    pub fence: FenceOptions,
}

/// Runs until `shutdown`, then answers what is under way and stops the private PostgreSQL.
pub async fn serve(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    net::require_tls_unless_loopback(options.listen, options.tls_certificate.is_some())?;
    // Before anything is made: it is also what an operator gets wrong first.
    options.fence.open()?;
    make_data_dir(&options).context("cannot prepare the data directory")?;
    let database = Database::open(options.database_url.as_deref(), &options.data_dir).await?;
    let keeper_shutdown = CancellationToken::new();
    let keeper = tokio::spawn(database.keeper.run(keeper_shutdown.clone()));
    let served = serve_with(&options, database.pools, shutdown).await;
    // PostgreSQL goes last.
    keeper_shutdown.cancel();
    keeper.await.context("the keeper of PostgreSQL panicked")??;
    served
}

/// PostgreSQL's own user must be able to reach its folder below.
fn make_data_dir(options: &Options) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(&options.data_dir)?;
    std::fs::set_permissions(&options.data_dir, std::fs::Permissions::from_mode(0o711))
}

async fn serve_with(options: &Options, pools: Pools, shutdown: CancellationToken) -> anyhow::Result<()> {
    let clock = Clock::system();
    let passwords = Passwords::new().map_err(|error| plain(&error))?;
    let tokens = auth::bootstrap::run(&pools.own, &clock, &passwords, &options.first_run)
        .await
        .map_err(|error| plain(&error))
        .context("cannot prepare users and keys")?;
    let ca = crate::pki_store::load_or_make(&pools.own, &clock).await?;
    let app = App::new(Parts {
        pools,
        clock: clock.clone(),
        passwords,
        tokens,
        policies: PolicyCache::default(),
        key_uses: KeyUses::default(),
        sign_ins: Turns::default(),
        images: options.image_store.open(&options.data_dir)?,
        imports: Importer::new(options.imports.clone())?,
        nudges: Nudges::default(),
        documents: Documents::default(),
        event_streams: EventStreams::default(),
        consoles: Consoles::new(options.consoles.clone()),
        heartbeats: Heartbeats::default(),
        fence: options.fence.open()?,
        edge: Edge::new(&options.edge, &Ticks::monotonic()),
        metrics: install_metrics()?,
        fleet: FleetMetrics::default(),
        ca: Arc::clone(&ca),
        shutdown: shutdown.clone(),
    });

    let certificates = ServerCertificates::new(Arc::clone(&ca), move || clock.now())?;
    let agents = Listener::tls(options.agent_listen, tls::agents(&ca, Arc::new(certificates))?)
        .await
        .with_context(|| format!("cannot listen for agents on {}", options.agent_listen))?
        .limited(options.connections, options.edge.trusted_proxies.clone());
    let public = public_listener(options, shutdown.clone()).await?;
    tracing::info!(api = %public.address()?, agents = %agents.address()?, "cumulo-api is up");

    let listening = tokio::spawn(app.nudges.clone().listen(app.pool.clone()));
    let controllers = tokio::spawn(controllers::run(app.clone(), shutdown.clone()));
    tokio::join!(
        net::serve(public, public_router(app.clone()), shutdown.clone()),
        net::serve(agents, agent_router(&app), shutdown),
    );
    app.consoles.ended().await;
    listening.abort();
    controllers.await.context("a controller panicked")
}

async fn public_listener(options: &Options, shutdown: CancellationToken) -> anyhow::Result<Listener> {
    let address = options.listen;
    let listener = match (&options.tls_certificate, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            let certificate = Arc::new(PublicCertificate::load(certificate, key)?);
            tokio::spawn(Arc::clone(&certificate).watch(shutdown)?);
            Listener::tls(address, tls::public(certificate)?).await
        }
        _ => Listener::plain(address).await,
    };
    listener
        .with_context(|| format!("cannot listen on {address}; choose another address with --listen"))
        .map(|listener| listener.limited(options.connections, options.edge.trusted_proxies.clone()))
}

fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let builder = PrometheusBuilder::new().set_buckets(SECONDS)?;
    Ok(builder.install_recorder()?)
}

/// An error before there is a request to answer.
fn plain(error: &crate::http::ApiError) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
