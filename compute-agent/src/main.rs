//! `cumulo-agent`: joins this machine to a cloud as a host, and is that host's agent.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Parser, Subcommand, ValueEnum};
use compute_agent::agent::{self, MakeNetworking, StateDir, Surroundings};
use compute_agent::clock::SystemClock;
use compute_agent::control_plane::http::HttpControlPlane;
use compute_agent::guard::clock::KernelClock;
use compute_agent::guard::witness::Witness;
use compute_agent::guard::{self, Guards};
use compute_agent::host_storage::{HostStorage, LocalPool, OwnPool, Pools, SimulatedStorage};
use compute_agent::hypervisor::Hypervisor;
use compute_agent::hypervisor::libvirt::{self, Libvirt};
use compute_agent::hypervisor::simulated::{Simulated, SimulatedMachine};
use compute_agent::identity::join::{Joined, join};
use compute_agent::identity::{Endpoint, Identity, renew};
use compute_agent::networks::simulated::SimulatedNetworking;
use compute_agent::networks::{self, RealNetworking};
use compute_agent::reconcile::boots::Boots;
use compute_agent::simulate;
use compute_agent::verify::{self, Settings};
use ipnet::IpNet;
use networking::links::{self, Links};
use networking::packets::{self, Packets};
use networking::services::Services;
use protocol::agent::{HostNetwork, JoinToken};
use protocol::{GIB, Name};
use storage::Pool;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Far above a token; what is longer is some other file.
const MAX_TOKEN_BYTES: u64 = 4096;
/// How `verify` ends when something differs.
const DIFFERENCES: u8 = 3;
/// The agent waits far more than it works.
const WORKER_THREADS: usize = 2;
const BLOCKING_THREADS: usize = 32;
const FLEET_LOG: &str = "error,compute_agent::simulate=info";
/// Open files that suffice for a full host.
const FILES: u64 = 65_536;

#[derive(Debug, Parser)]
#[command(name = "cumulo-agent", version, about)]
struct Cli {
    /// How to write the log, which goes to standard error; RUST_LOG says how much.
    #[arg(long, env = "CUMULO_LOG_FORMAT", value_enum, default_value = "plain", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Plain,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this machine a host of a cloud, with a one-time token.
    Join(JoinArgs),
    /// Be the agent of this host.
    Run(RunArgs),
    /// Take the virtual networks off this machine, while no agent runs; the next agent makes them again. Instances that
    /// still run are cut off: as long as there is one, packet rules stay and let nothing pass.
    RemoveNetworks(RemoveNetworksArgs),
    /// Make a directory that several hosts share a pool, once and on one of them. They all have to have it at the same
    /// path, as itself or as a file system that is mounted there.
    MakePool(MakePoolArgs),
    /// Cut the power of guests whose disks are in shared pools that this host cannot reach any more, so that others may
    /// start them. Runs beside the agent, on each host that shares pools, and needs neither it nor libvirt.
    Guard(GuardArgs),
    /// Compare this host with what its agent was last told, beside the agent or without one, and change nothing. Ends
    /// with 3 when something differs, with 1 when that cannot be found out.
    Verify(VerifyArgs),
    /// Be a fleet of hosts on which nothing runs, each with a real agent: for rehearsals, load tests and demonstrations.
    Simulate(Box<simulate::Options>),
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// The control plane, https://HOST:PORT.
    #[arg(long, env = "CUMULO_CONTROL_PLANE")]
    control_plane: Endpoint,
    /// The file with the join token, or - for standard input. A token never goes on a command line, where
    /// every user of the machine could read it.
    #[arg(long, env = "CUMULO_TOKEN_FILE")]
    token_file: Utf8PathBuf,
    /// Where the agent keeps its identity, its memory and the instances' disks.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    state_dir: Utf8PathBuf,
    /// The host's name in the cloud, unique.
    #[arg(long, env = "CUMULO_HOST_NAME")]
    name: Name,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where the agent keeps its identity, its memory and the instances' disks.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    state_dir: Utf8PathBuf,
    /// What runs the guests.
    #[arg(long, env = "CUMULO_HYPERVISOR", value_enum, default_value = "libvirt")]
    hypervisor: HypervisorKind,
    /// How libvirt is reached.
    #[arg(long, env = "CUMULO_LIBVIRT_URI", default_value = "qemu:///system")]
    libvirt_uri: String,
    /// The address of this machine at which other hosts reach its virtual networks; without it, networks end here.
    #[arg(long, env = "CUMULO_UNDERLAY_ADDRESS")]
    underlay_address: Option<IpAddr>,
    /// The interface on which this machine answers for floating IPs; without it they are reached from this machine
    /// alone, and by whoever routes them to it.
    #[arg(long, env = "CUMULO_EXTERNAL_INTERFACE")]
    external_interface: Option<String>,
    /// Networks, as 192.0.2.0/24, that no instance may reach through a router: where the hosts are managed, for
    /// example. The addresses of hosts in the underlay are so without being named.
    #[arg(long = "protected-network", env = "CUMULO_PROTECTED_NETWORKS", value_delimiter = ',')]
    protected_networks: Vec<IpNet>,
    /// What cached images may take of the pool, in GiB. Those that are needed count, and stay in any case; of the others
    /// the ones that were used longest ago go first. A fifth of the pool's file system unless given.
    #[arg(long, env = "CUMULO_IMAGE_CACHE_GIB")]
    image_cache_gib: Option<u32>,
    /// A pool that this host shares with others, as NAME=/PATH; may be given several times. See `make-pool`.
    #[arg(long = "shared-pool", env = "CUMULO_SHARED_POOLS", value_delimiter = ',')]
    shared_pools: Vec<SharedPool>,
}

#[derive(Debug, Args)]
struct MakePoolArgs {
    /// NAME=/PATH: the pool's name in the cloud, and its directory.
    pool: SharedPool,
}

/// `NAME=/PATH`.
#[derive(Debug, Clone)]
struct SharedPool {
    name: Name,
    root: Utf8PathBuf,
}

impl FromStr for SharedPool {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, root) = text.split_once('=').context("not of the form NAME=/PATH")?;
        let root = Utf8PathBuf::from(root);
        if !root.is_absolute() {
            bail!("the path must be absolute: it is the same on all hosts");
        }
        refuse_among_programs(&root)?;
        Ok(Self { name: name.parse()?, root })
    }
}

/// INVARIANT: what opens a disk of one guest never sees those of others.
fn refuse_among_programs(path: &Utf8Path) -> Result<()> {
    match storage::shown_with_programs(path) {
        None => Ok(()),
        Some(shown) => bail!(
            "{path} is in {shown}, all of which each program sees that opens a disk: choose a path elsewhere, as /srv or \
             /var/lib"
        ),
    }
}

#[derive(Debug, Args)]
struct RemoveNetworksArgs {
    /// Where the agent keeps its identity, its memory and the instances' disks.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    state_dir: Utf8PathBuf,
}

#[derive(Debug, Args)]
struct GuardArgs {
    /// Where the agent keeps its identity and its memory.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    state_dir: Utf8PathBuf,
    /// The machine's watchdog, as /dev/watchdog, which resets it when the guard dies or a guest cannot be killed. It must
    /// bite after at most 15 seconds.
    #[arg(long, env = "CUMULO_WATCHDOG")]
    watchdog: Option<Utf8PathBuf>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Where the agent keeps its identity, its memory and the instances' disks.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    state_dir: Utf8PathBuf,
    /// Look again, for this many seconds, while something differs: an agent that runs puts it right.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HypervisorKind {
    Libvirt,
    /// Nothing runs: for trying out large clouds.
    Simulated,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format, matches!(cli.command, Command::Simulate(_)));
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Of a fleet, what each host does is not told unless somebody asks for it.
fn start_log(format: LogFormat, is_fleet: bool) {
    let usual = if is_fleet { FLEET_LOG } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Plain => log.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Join(args) => on_runtime(join_cloud(&args)).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => on_runtime(run_agent(&args)).map(|()| ExitCode::SUCCESS),
        Command::RemoveNetworks(args) => on_runtime(remove_networks(&args)).map(|()| ExitCode::SUCCESS),
        Command::MakePool(args) => make_pool(&args).map(|()| ExitCode::SUCCESS),
        Command::Guard(args) => guard_host(&args).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => on_runtime(verify_host(&args)),
        Command::Simulate(options) => on_runtime(be_fleet(&options)).map(|()| ExitCode::SUCCESS),
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let result = runtime.block_on(work);
    // A call to libvirt that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn join_cloud(args: &JoinArgs) -> Result<()> {
    let token = read_token(&args.token_file)?;
    let state_dir = StateDir::take(&args.state_dir)?;
    match join(&args.control_plane, &token, state_dir.path(), &args.name, &SystemClock).await? {
        Joined::Now(joined) => tracing::info!(host = %joined.host_id, name = %joined.name, "joined"),
        Joined::Already(joined) => {
            tracing::info!(host = %joined.host_id, name = %joined.name, "has joined already: nothing to do");
        }
        Joined::Again(joined) => {
            tracing::info!(host = %joined.host_id, name = %joined.name, "was let in again, with a new certificate");
        }
    }
    Ok(())
}

fn read_token(file: &Utf8Path) -> Result<JoinToken> {
    let mut text = String::new();
    let read = if file == "-" {
        io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("the join token could not be read from {file}"))?;
    Ok(text.parse()?)
}

async fn run_agent(args: &RunArgs) -> Result<()> {
    raise_file_limit();
    refuse_among_programs(&args.state_dir)?;
    let state_dir = StateDir::take(&args.state_dir)?;
    let identity = Identity::load(state_dir.path())?;
    let machine_boot = machine_boot()?;
    let pool = state_dir.path().join("pool");
    let (hypervisor, storage): (Arc<dyn Hypervisor>, Arc<dyn HostStorage>) = match args.hypervisor {
        HypervisorKind::Libvirt => {
            let image_cache_bytes = args.image_cache_gib.map(|gib| u64::from(gib) * GIB);
            let record = state_dir.path().join("pool-record");
            let boots = Boots::open(state_dir.path().join("boots")).context("the boots cannot be read")?;
            let own = OwnPool { image_cache_bytes, instances: boots.ids(), ..OwnPool::new(&pool, &record) };
            let local = LocalPool::open(own).with_context(|| {
                format!("the pool at {pool} with the record {record} could not be opened")
            })?;
            let storage = Pools::new(local, identity.membership.host_id, settings(args).shared_pools);
            let options = libvirt::Options { uri: args.libvirt_uri.clone(), pool };
            (Arc::new(Libvirt::start(options)), Arc::new(storage))
        }
        HypervisorKind::Simulated => {
            let machine = SimulatedMachine::new(machine_boot);
            (Arc::new(Simulated::new(machine)), Arc::new(SimulatedStorage::default()))
        }
    };
    settings(args).keep(state_dir.path()).context("the settings could not be written down")?;
    let control_plane = Arc::new(HttpControlPlane::new(&identity)?);
    let clock = Arc::new(SystemClock);
    let membership = identity.membership.clone();
    tracing::info!(
        host = %membership.host_id, name = %membership.name, control_plane = %membership.control_plane, "agent starts"
    );
    let pools = settings(args).shared_pools;
    let guards = Guards::open(state_dir.path(), pools.clone(), machine_boot, Arc::new(KernelClock));
    let guards = Arc::new(guards.context("what is guarded cannot be read")?);
    guard::second::start(&guards).context("no thread to stand in for the guard")?;
    let stop = CancellationToken::new();
    let surroundings = Surroundings {
        hypervisor,
        storage,
        networking: networking(args, state_dir.path()),
        control_plane: Arc::clone(&control_plane) as _,
        clock: Arc::clone(&clock) as _,
        machine_boot,
        underlay_address: args.underlay_address,
        guards,
        witness: Witness::start(membership.host_id, pools),
    };
    let until_signal = stop_at_signal(stop.clone())?;
    tokio::select! {
        ended = agent::run(&state_dir, surroundings, stop) => ended?,
        () = renew::keep_valid(identity, control_plane, clock) => {}
        () = until_signal => {}
    }
    tracing::info!("agent ends; instances are left as they are");
    Ok(())
}

async fn be_fleet(options: &simulate::Options) -> Result<()> {
    raise_file_limit();
    let stop = CancellationToken::new();
    let until_signal = stop_at_signal(stop.clone())?;
    tokio::select! {
        ended = simulate::run(options, stop) => ended,
        () = until_signal => Ok(()),
    }
}

/// Sockets of networks' services are open files, a few thousand on a full host.
fn raise_file_limit() {
    match networking::files::raise_limit() {
        Ok(files) if files < FILES => {
            tracing::warn!(
                files,
                "few open files are allowed: raise the limit, as with LimitNOFILE of systemd"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// The networks of this machine; those of a simulated hypervisor are simulated, too.
fn networking(args: &RunArgs, state_dir: &Utf8Path) -> MakeNetworking {
    if args.hypervisor == HypervisorKind::Simulated {
        return Box::new(|_| Arc::new(SimulatedNetworking::default()));
    }
    let (links, packets) = (settings(args).links(), settings(args).packets());
    let folder = state_dir.join(networks::FOLDER);
    Box::new(move |metadata| Arc::new(RealNetworking::new(links, packets, &folder, metadata)))
}

fn settings(args: &RunArgs) -> Settings {
    Settings {
        libvirt_uri: (args.hypervisor == HypervisorKind::Libvirt).then(|| args.libvirt_uri.clone()),
        underlay_address: args.underlay_address,
        external_interface: args.external_interface.clone(),
        protected_networks: args.protected_networks.clone(),
        shared_pools: args.shared_pools.iter().map(|pool| (pool.name.clone(), pool.root.clone())).collect(),
    }
}

fn make_pool(args: &MakePoolArgs) -> Result<()> {
    let SharedPool { name, root } = &args.pool;
    let identity =
        Pool::make_shared(name, root).with_context(|| format!("{root} could not be made the pool {name}"))?;
    tracing::info!(%name, %root, %identity, "made; run the agent of each host with --shared-pool");
    Ok(())
}

fn guard_host(args: &GuardArgs) -> Result<()> {
    let identity = Identity::load(&args.state_dir)?;
    guard::run(&guard::Options {
        state_dir: args.state_dir.clone(),
        host: identity.membership.host_id,
        machine_boot: machine_boot()?,
        watchdog: args.watchdog.clone(),
        times: guard::Times::default(),
    })
}

async fn verify_host(args: &VerifyArgs) -> Result<ExitCode> {
    let report = verify::run(&args.state_dir, machine_boot()?, Duration::from_secs(args.wait)).await?;
    match args.output {
        OutputFormat::Table => println!("{report}"),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENCES) })
}

async fn remove_networks(args: &RemoveNetworksArgs) -> Result<()> {
    let state_dir = StateDir::take(&args.state_dir)?;
    let nothing = HostNetwork::default();
    let mut faults = Services::new(state_dir.path().join(networks::FOLDER)).converge(&nothing).await.faults;
    let packets = Packets::new(packets::Surroundings::default());
    packets.guard(&nothing).await?;
    let links = Links::new(links::Surroundings::default());
    faults.extend(links.converge(&nothing).await?.faults);
    if let Some(fault) = faults.first() {
        bail!("{} things are still there; the first: {}", faults.len(), fault.detail);
    }
    // What may be left of ours are cards of guests.
    match links.look(&nothing).await?.len() {
        0 => packets.remove().await?,
        cards => println!(
            "Cards of guests are left ({cards}). As long as there is one, packet rules stay and let nothing pass."
        ),
    }
    Ok(())
}

/// Cancels `stop` at SIGTERM or SIGINT; the future itself never ends, so that the agent can come to rest.
fn stop_at_signal(stop: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        std::future::pending::<()>().await;
    })
}

/// Differs after each boot of the machine (`random(4)`).
fn machine_boot() -> Result<Uuid> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(FILE).with_context(|| format!("{FILE} could not be read"))?;
    match text.trim().parse() {
        Ok(id) => Ok(id),
        Err(_) => bail!("{FILE} is not a UUID"),
    }
}
