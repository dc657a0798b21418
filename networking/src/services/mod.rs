//! What a network's guests are served on each host: DHCP and DNS by dnsmasq, and the socket of the metadata
//! service. All of it is in the network's own namespace, which has to be there.
//!
//! ```text
//! render.rs      the files of dnsmasq, purely from the document
//! process.rs     a process that outlives the agent: found again, ended, never mistaken for another
//! resolver.rs    the host's own resolvers, for networks that have none
//! inside.rs      work in a network namespace
//! leases.rs      addresses whose cards have gone
//! look.rs        the differences, without changing anything
//! ```
//!
//! A dnsmasq lives on when the agent ends. The next one finds it by what it wrote down, and believes that only if the
//! process is the one that was started: same start, same arguments, same network namespace.

mod inside;
mod leases;
mod look;
mod process;
mod render;
mod resolver;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use protocol::Vni;
use protocol::agent::{HostNetwork, Network, NetworkFault, NetworkSubject};
use tokio::sync::Semaphore;

use self::process::{Dnsmasq, StartError};
use self::render::{Files, RenderError};
use self::resolver::Resolver;
use crate::{files, names, namespace};

/// Where the metadata service answers in every network.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Its answers go no further than to the next machine: no container behind a bridge of the guest gets them.
pub const METADATA_HOP_LIMIT: u32 = 1;

/// dnsmasq passes through to its files, which hold no secrets.
const PASSABLE: u32 = 0o755;

/// See the module.
#[derive(Debug, Clone)]
pub struct Services {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// Those started by this process, which have to be reaped.
    children: Mutex<HashMap<Vni, Child>>,
    resolvers: tokio::sync::Mutex<HashMap<Vni, Resolver>>,
    /// Turns to ask the host's resolvers, of all networks.
    questions: Arc<Semaphore>,
}

/// What [`Services::converge`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub changed: bool,
    /// Networks whose guests are not served.
    pub faults: Vec<NetworkFault>,
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error("the files of its DHCP and DNS could not be written")]
    Files(#[source] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Services {
    /// `dir` is made when it is missing: a folder per network, with the files of its dnsmasq.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_questions(dir, files::share())
    }

    /// As [`Self::new`], with so many questions to the host's resolvers at once.
    fn with_questions(dir: impl Into<PathBuf>, questions: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                dir: dir.into(),
                children: Mutex::default(),
                resolvers: tokio::sync::Mutex::default(),
                questions: Arc::new(Semaphore::new(questions)),
            }),
        }
    }

    /// Makes the services match the document: to be called after the namespaces have been made, by one caller at a
    /// time. Needs root, and dnsmasq.
    pub async fn converge(&self, want: &HostNetwork) -> Outcome {
        let networks: Vec<_> = want.networks.iter().filter(|network| are_here(network)).cloned().collect();
        let mut resolver_faults = self.shared.converge_resolvers(&networks).await;
        let shared = Arc::clone(&self.shared);
        let host = |detail: &str| NetworkFault { subject: NetworkSubject::Host, detail: detail.to_owned() };
        let done = tokio::task::spawn_blocking(move || shared.converge(&networks)).await;
        let mut outcome = done.unwrap_or_else(|error| {
            tracing::error!(%error, "the services of the networks");
            Outcome {
                changed: false,
                faults: vec![host("the services of the networks could not be looked after")],
            }
        });
        outcome.faults.append(&mut resolver_faults);
        outcome
    }
}

/// Whether this host has services of the network. One that routers only lead through has nobody to serve here.
pub fn are_here(network: &Network) -> bool {
    !network.ports.is_empty()
}

/// The socket of a network's metadata service: listening, not blocking.
pub async fn listen_for_metadata(vni: Vni) -> io::Result<TcpListener> {
    namespace::within(&names::services_namespace(vni), || {
        let listener = TcpListener::bind((METADATA_ADDRESS, 80))?;
        listener.set_ttl(METADATA_HOP_LIMIT)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
    .await
}

/// Tells the namespace of a network's services from the one that had its name before; `None` when there is none.
pub fn namespace_identity(vni: Vni) -> Option<u64> {
    inside::identity(&namespace::path(&names::services_namespace(vni)))
}

impl Shared {
    async fn converge_resolvers(&self, networks: &[Network]) -> Vec<NetworkFault> {
        let mut resolvers = self.resolvers.lock().await;
        let asks_host = |vni| networks.iter().any(|net| net.vni == vni && render::asks_host(net));
        resolvers.retain(|vni, resolver| asks_host(*vni) && resolver.serves(*vni));
        let mut faults = Vec::new();
        for network in networks.iter().filter(|network| render::asks_host(network)) {
            if resolvers.contains_key(&network.vni) {
                continue;
            }
            match Resolver::start(network.vni, Arc::clone(&self.questions)).await {
                Ok(resolver) => drop(resolvers.insert(network.vni, resolver)),
                Err(error) => {
                    let detail = format!("names outside the cloud cannot be resolved in it: {error}");
                    faults.push(NetworkFault { subject: NetworkSubject::Network(network.id), detail });
                }
            }
        }
        faults
    }

    fn converge(&self, networks: &[Network]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut fault = |subject, error: &dyn std::error::Error| {
            let causes = std::iter::successors(Some(error), |error| error.source());
            let detail = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            tracing::warn!(?subject, detail, "a network is not served");
            outcome.faults.push(NetworkFault { subject, detail });
        };
        for network in networks {
            match self.serve(network) {
                Ok(changed) => outcome.changed |= changed,
                Err(error) => fault(NetworkSubject::Network(network.id), &error),
            }
        }
        match self.end_others(networks) {
            Ok(changed) => outcome.changed |= changed,
            Err(error) => fault(NetworkSubject::Host, &error),
        }
        outcome
    }

    /// Says whether anything had to be done.
    fn serve(&self, network: &Network) -> Result<bool, ServeError> {
        let folder = self.dir.join(network.vni.to_string());
        let files = Files::of(network, &folder)?;
        make_folder(&folder).map_err(ServeError::Files)?;
        let dnsmasq = Dnsmasq { folder: &folder, namespace: &names::services_namespace(network.vni) };
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        reap(&mut children, network.vni);
        if let Some(running) = dnsmasq.running() {
            dnsmasq.trim_complaints().map_err(ServeError::Files)?;
            let stale = leases::stale(&folder, &files).map_err(ServeError::Files)?;
            if running.config == files.config() && stale.is_empty() {
                let is_news = running.hosts != files.hosts()
                    || !files.differing(&folder).map_err(ServeError::Files)?.is_empty();
                if is_news {
                    files.write(&folder).map_err(ServeError::Files)?;
                    dnsmasq.reload(&running, files.hosts()).map_err(ServeError::Files)?;
                }
                return Ok(is_news);
            }
            dnsmasq.end(&running, children.get_mut(&network.vni)).map_err(ServeError::Files)?;
            reap(&mut children, network.vni);
        }
        leases::forget(&folder, &files).map_err(ServeError::Files)?;
        files.write(&folder).map_err(ServeError::Files)?;
        let child = dnsmasq.start(files.config(), files.hosts())?;
        children.insert(network.vni, child);
        Ok(true)
    }

    /// Ends what serves networks that are not here any more.
    fn end_others(&self, networks: &[Network]) -> io::Result<bool> {
        let wanted: HashSet<_> = networks.iter().map(|network| network.vni.to_string()).collect();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut changed = false;
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let vni = name.to_str().and_then(|name| Vni::try_from(name.parse::<u32>().ok()?).ok());
            let Some(vni) = vni.filter(|vni| !wanted.contains(&vni.to_string())) else { continue };
            let folder = entry.path();
            let dnsmasq = Dnsmasq { folder: &folder, namespace: &names::services_namespace(vni) };
            if let Some(running) = dnsmasq.alive() {
                dnsmasq.end(&running, children.get_mut(&vni))?;
            }
            reap(&mut children, vni);
            fs::remove_dir_all(&folder)?;
            changed = true;
        }
        Ok(changed)
    }
}

/// Forgets a child that has ended.
fn reap(children: &mut HashMap<Vni, Child>, vni: Vni) {
    if let Some(child) = children.get_mut(&vni)
        && !matches!(child.try_wait(), Ok(None))
    {
        children.remove(&vni);
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PASSABLE).create(folder)
}
