//! The agent protocol: JSON over HTTPS with mutual TLS, the agent always the client.
//!
//! ```text
//! POST /agent/v1/join                    JoinRequest      -> JoinResponse       (join token, no certificate yet)
//! POST /agent/v1/renew                   RenewRequest     -> RenewResponse
//! POST /agent/v1/sessions                OpenSession      -> SessionOpened
//! GET  /agent/v1/desired?epoch&after&wait_seconds         -> DesiredPage        (long poll)
//! POST /agent/v1/observed                ObservedBatch    -> ObservedAccepted
//! POST /agent/v1/heartbeat               Heartbeat        -> HeartbeatReply
//! POST /agent/v1/insight                 InsightBatch     -> InsightAccepted    (best effort)
//! POST /agent/v1/drift                   DriftReport      -> DriftAccepted      (best effort)
//! GET  /agent/v1/blobs/{sha256}                           -> the image's bytes
//! POST /agent/v1/transfers/{id}?epoch    bytes            -> 204                (answers DesiredBody::SendSerialLog)
//! POST /agent/v1/images/{id}?epoch       bytes            -> 204                (answers DesiredBody::SendImage)
//! POST /agent/v1/images/{id}/status      ImageStatus      -> 204                (while it is on its way)
//! GET  /agent/v1/consoles/{id}?epoch     Upgrade          -> 101, a console     (answers HostRequest::OpenConsole)
//! POST /agent/v1/requests/{id}/refusal?epoch  Refusal     -> 204                (instead of the answer)
//! ```
//!
//! Requests with a property that the control plane does not know are refused, so that a mistyped one is noticed; in its
//! inventory a host may say more. Agents pass over what they do not know in answers. How the messages change from one release to
//! the next is said in `version.rs`.
//!
//! A request on an epoch that is no longer the host's newest is answered 409 `stale_epoch`; the agent then
//! stops acting and opens a new session. Every message is validated and scoped to the host that the
//! certificate names.

mod console;
mod desired;
mod drift;
mod guest;
mod hardware;
mod image;
mod insight;
mod join;
mod lease;
mod migration;
mod network;
mod observed;
mod session;
mod version;
mod volume;

pub use console::{
    CONSOLE_PROTOCOL, ConsoleKind, HostRequest, MAX_SCREEN_PIXELS, MAX_SCREENSHOT_BYTES, Refusal,
    RefusalReason, RequestQuery,
};
pub use desired::{
    DesiredBody, DesiredObject, DesiredPage, DesiredQuery, Firmware, ImageSource, InstanceSpec,
    MAX_SERIAL_LOG_BYTES, MAX_WAIT_SECONDS, Power, Seed, StopMode,
};
pub use drift::{
    DriftAccepted, DriftCode, DriftReport, DriftSubject, HostDifference, MAX_DRIFT, MAX_DRIFT_DETAIL_CHARS,
};
pub use guest::{
    MAX_UNKNOWN_GUESTS, MAX_UNKNOWN_PARTS, UnknownCard, UnknownGuest, UnknownSpec, UnknownVolume,
    told_of_unknown,
};
pub use hardware::{
    BootOrder, CpuModel, CpuTopology, DiskBus, GuestHardware, NicModel, NoCpuModel, is_model_name,
};
pub use image::{ImageStatus, SendQuery, Sending};
pub use insight::{
    CardCounters, DiskCounters, GuestAddress, GuestAnswer, GuestFilesystem, GuestInfo, GuestInterface,
    GuestOs, GuestReport, GuestSilence, InsightAccepted, InsightBatch, MAX_GUEST_CHARS, MAX_GUEST_ITEMS,
    MAX_GUESTS, MAX_MEASURED, MAX_SAMPLES, MemorySample, PortSample, Sample, VolumeSample, believable,
};
pub use join::{JoinRequest, JoinResponse, JoinToken, ParseJoinTokenError, RenewRequest, RenewResponse};
pub use lease::{
    GuardedPool, LEASE_SECONDS, LEASE_WRITE_SECONDS, MAX_SEEN_LEASES, OnHostFailure, SeenLease,
    TAKEOVER_SECONDS,
};
pub use migration::{
    CopiedLayer, DISK_MOVES, GUARDED_MIGRATION, LIVE_DISKS, LIVE_MIGRATION, MAX_DOWNTIME_MS, Migration,
    MigrationReport, MigrationState,
};
pub use network::{
    AddressPair, Direction, FloatingIp, HostNetwork, MAX_NETWORK_FAULTS, Metadata, Network, NetworkCheck,
    NetworkFault, NetworkReport, NetworkSubject, Nic, Port, PortAddress, PortRange, Remote, RemotePort,
    Router, RouterInterface, RuleProtocol, SecurityGroup, SecurityGroupRule, StaticRoute, Subnet,
};
pub use observed::{
    EndReason, InstanceReport, MAX_DETAIL_CHARS, MAX_REPORTS, NOT_FROZEN, NotTaken, ObservedAccepted,
    ObservedBatch, ObservedState, PauseReason, Step, StepReport,
};
pub use session::{
    Acceleration, Architecture, Epoch, Heartbeat, HeartbeatReply, HypervisorHealth, Inventory,
    MAX_SHARED_POOLS, NESTED_VIRTUALIZATION, OpenSession, PoolUsage, SessionOpened, SharedPoolReport,
    SharedPoolState,
};
pub use version::{EARLIEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
pub use volume::{
    Disk, IoLimits, MAX_LAYERS, MemoryFile, SaveMemory, VolumeReport, VolumeSpec, VolumeState, memory_seconds,
};
