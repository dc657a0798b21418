//! Agents that are one process, with real files: what is given and taken, and what is not.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use camino::Utf8Path;
use protocol::agent::{CopiedLayer, VolumeSpec};
use protocol::{HostId, Sha256};
use sha2::Digest;
use tokio::io::{DuplexStream, duplex};
use uuid::Uuid;

use super::wire::{Answer, Ask, End};
use super::*;
use crate::control_plane::fake::FakeControlPlane;
use crate::host_storage::{LocalPool, OwnPool, SimulatedStorage, Users};
use crate::hypervisor::simulated::{Simulated, SimulatedMachine};
use crate::migration::tests::identify;
use crate::samples::{disk, instance_id};

struct Side {
    _dir: tempfile::TempDir,
    path: Utf8PathBuf,
    host: HostId,
    moves: Arc<DiskMoves>,
}

fn side() -> Side {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
    let pool = LocalPool::open(OwnPool::new(&path.join("pool"), &path.join("record"))).unwrap();
    side_with(dir, path, Arc::new(pool))
}

fn side_with(dir: tempfile::TempDir, path: Utf8PathBuf, storage: Arc<dyn HostStorage>) -> Side {
    let host = HostId::from(Uuid::now_v7());
    identify(&path, host);
    let hypervisor = Arc::new(Simulated::new(SimulatedMachine::new(Uuid::now_v7())));
    let moves = DiskMoves {
        state_dir: path.clone(),
        underlay_address: Some(Ipv4Addr::LOCALHOST.into()),
        control_plane: Arc::new(FakeControlPlane::default()),
        storage,
        desired: Arc::new(DesiredStore::open(path.join("desired")).unwrap()),
        domains: Arc::new(DomainView::new(hypervisor)),
        outbox: Arc::new(Outbox::open(path.join("outbox")).unwrap()),
        underway: Arc::default(),
        stop: CancellationToken::new(),
    };
    Side { _dir: dir, path, host, moves: Arc::new(moves) }
}

impl Side {
    fn said(&self, of: Of) -> Option<MigrationState> {
        let told = self.moves.outbox.outgoing(100)?.migrations;
        told.into_iter().find(|report| report.id == of.id).map(|report| report.state)
    }

    async fn until(&self, of: Of, wanted: impl Fn(&MigrationState) -> bool) -> MigrationState {
        for _ in 0..1000 {
            if let Some(said) = self.said(of).filter(&wanted) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never said: {:?}", self.said(of));
    }

    async fn address(&self, of: Of) -> SocketAddr {
        match self.until(of, |said| matches!(said, MigrationState::Ready { .. })).await {
            MigrationState::Ready { address } => address,
            _ => unreachable!(),
        }
    }

    async fn refused(&self, of: Of) -> String {
        match self.until(of, |said| matches!(said, MigrationState::Refused { .. })).await {
            MigrationState::Refused { detail } => detail,
            _ => unreachable!(),
        }
    }

    async fn ended(&self, of: Of) -> String {
        match self.until(of, |said| matches!(said, MigrationState::Ended { .. })).await {
            MigrationState::Ended { detail } => detail,
            _ => unreachable!(),
        }
    }

    fn take(&self, of: Of, source: HostId, layers: &[CopiedLayer]) {
        let layers = layers.to_vec();
        self.moves.begin(&DesiredBody::TakeDisks { id: of.id, instance_id: of.instance, source, layers });
    }

    fn give(&self, of: Of, destination: HostId, address: SocketAddr, layers: &[LayerId]) {
        let layers = layers.to_vec();
        let (id, instance_id) = (of.id, of.instance);
        self.moves.begin(&DesiredBody::GiveDisks {
            id,
            instance_id,
            destination,
            address,
            layers,
            runs: false,
        });
    }

    fn files(&self) -> Vec<String> {
        let files = |folder: &str| fs::read_dir(self.path.join("pool").join(folder)).unwrap();
        let named = files("layers").chain(files("incoming"));
        named.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn of() -> Of {
    Of { id: MigrationId::from(Uuid::now_v7()), instance: instance_id() }
}

/// A volume of two layers without an image, which is made, with something in it; and its layers as they are taken.
async fn volume(at: &Side) -> (VolumeSpec, Vec<CopiedLayer>) {
    let mut volume = disk(Uuid::now_v7()).volume;
    volume.image = None;
    at.moves.storage.ensure_volume(&volume).await.unwrap();
    let path = at.moves.storage.layer(None, volume.layers[0]).await.unwrap();
    write(&path, "write -P 7 0 1M");
    volume.layers.push(LayerId::from(Uuid::now_v7()));
    at.moves.storage.ensure_volume(&volume).await.unwrap();
    let copied = |index: usize| CopiedLayer {
        fresh: false,
        id: volume.layers[index],
        below: index.checked_sub(1).map(|below| volume.layers[below]),
        image: None,
        size_gib: volume.size_gib,
    };
    let copied = vec![copied(0), copied(1)];
    (volume, copied)
}

fn write(path: &Utf8Path, command: &str) {
    let done =
        std::process::Command::new("qemu-io").args(["-f", "qcow2", "-c", command, path.as_str()]).output();
    assert!(done.unwrap().status.success());
}

fn detail(broken: Result<(), Broken>) -> &'static str {
    match broken.unwrap_err() {
        Broken::Because(detail, _) => detail,
        Broken::Cancelled => "cancelled",
    }
}

#[tokio::test]
async fn disks_go_to_the_host_that_expects_them_and_stay_where_they_were() {
    let (from, to, third) = (side(), side(), side());
    let (of, (volume, mut layers)) = (of(), volume(&from).await);
    // One that nothing was ever written to.
    let never = CopiedLayer { id: LayerId::from(Uuid::now_v7()), below: None, ..layers[0].clone() };
    layers.push(never);
    let ids: Vec<_> = layers.iter().map(|layer| layer.id).collect();
    to.take(of, from.host, &layers);
    let address = to.address(of).await;
    // A host of the cloud that is not the source is turned away, and so is a destination that is another host.
    third.give(of, to.host, address, &ids);
    third.ended(of).await;
    let elsewhere = self::of();
    third.take(elsewhere, from.host, &layers);
    from.give(of, to.host, third.address(elsewhere).await, &ids);
    assert!(from.ended(of).await.contains("did not reach"));
    from.give(of, to.host, address, &ids);
    to.until(of, |said| *said == MigrationState::Received).await;
    assert_eq!((to.files().len(), from.files().len()), (2, 2));
    for layer in &volume.layers {
        assert!(to.moves.storage.has_layer(*layer).await.unwrap());
        assert!(from.moves.storage.has_layer(*layer).await.unwrap());
    }
    let chain = to.moves.storage.chain(&volume).await.unwrap();
    assert!(chain.layers.iter().all(|path| path.starts_with(&to.path)), "{chain:?}");
    // Told again, as after another session: it is there.
    to.take(of, from.host, &layers);
    assert_eq!(to.said(of), Some(MigrationState::Received));
}

#[tokio::test]
async fn an_agent_that_begins_anew_takes_what_it_lacks() {
    let (from, to) = (side(), side());
    let (of, (volume, layers)) = (of(), volume(&from).await);
    to.take(of, from.host, &layers[..1]);
    from.give(of, to.host, to.address(of).await, &volume.layers);
    to.until(of, |said| *said == MigrationState::Received).await;
    // What it was told before, nobody knows any more.
    to.moves.keep_only(&HashSet::new());
    to.take(of, from.host, &layers);
    from.give(of, to.host, to.address(of).await, &volume.layers);
    to.until(of, |said| *said == MigrationState::Received).await;
    assert!(to.moves.storage.has_layer(volume.layers[1]).await.unwrap());
}

#[tokio::test]
async fn of_a_guest_that_runs_what_is_below_is_given_and_an_empty_one_is_made_of_the_rest() {
    let (from, to) = (side(), side());
    let (of, (volume, mut layers)) = (of(), volume(&from).await);
    write(&from.moves.storage.layer(None, volume.layers[1]).await.unwrap(), "write -P 8 1M 1M");
    layers[1].fresh = true;
    to.take(of, from.host, &layers);
    let (id, instance_id, destination) = (of.id, of.instance, to.host);
    let (address, layers) = (to.address(of).await, volume.layers[..1].to_vec());
    from.moves.begin(&DesiredBody::GiveDisks { id, instance_id, destination, address, layers, runs: true });
    to.until(of, |said| *said == MigrationState::Received).await;
    let chain = to.moves.storage.chain(&volume).await.unwrap();
    let size = |path: &Utf8PathBuf| fs::metadata(path).unwrap().len();
    assert_eq!(chain.layers.len(), 2);
    assert!(size(&chain.layers[0]) > 1 << 20 && size(&chain.layers[1]) < 1 << 20, "{chain:?}");
}

#[tokio::test]
async fn the_source_gives_nothing_but_what_the_move_is_about() {
    let from = side();
    let (of, (volume, _)) = (of(), volume(&from).await);
    let (other, _) = self::volume(&from).await;
    let asks = [
        Ask::Bytes { migration: of.id, layer: other.layers[0] },
        Ask::Size { migration: self::of().id, layer: volume.layers[0] },
    ];
    for ask in asks {
        let (mut ours, mut theirs) = duplex(1 << 20);
        wire::say(&mut ours, &ask).await.unwrap();
        let refused = from.moves.answer(of, (&volume.layers, Users::Nobody), &mut theirs).await;
        assert!(detail(refused).contains("not of this instance"));
        drop(theirs);
        assert!(wire::hear::<Answer>(&mut ours).await.unwrap().is_none(), "nothing was said");
    }
    // Who says more than there is to say, and who says nothing.
    let (mut ours, mut theirs) = duplex(1 << 20);
    wire::send(&mut ours, &u32::MAX.to_be_bytes()).await.unwrap();
    assert!(
        detail(from.moves.answer(of, (&volume.layers, Users::Nobody), &mut theirs).await)
            .contains("broken off")
    );
    drop(ours);
    let (_, mut theirs) = duplex(1);
    assert!(
        detail(from.moves.answer(of, (&volume.layers, Users::Nobody), &mut theirs).await)
            .contains("broken off")
    );
}

#[tokio::test]
async fn the_source_waits_for_a_destination_that_fetches_an_image_or_flushes_a_layer() {
    let from = side();
    let (of, (volume, _)) = (of(), volume(&from).await);
    let (mut ours, mut theirs) = duplex(1 << 20);
    let (moves, layers) = (Arc::clone(&from.moves), volume.layers.clone());
    let giving = tokio::spawn(async move { moves.answer(of, (&layers, Users::Nobody), &mut theirs).await });
    wire::say(&mut ours, &Ask::Size { migration: of.id, layer: volume.layers[0] }).await.unwrap();
    assert!(matches!(wire::hear(&mut ours).await.unwrap(), Some(Answer::Layer { .. })));
    tokio::time::sleep(wire::PATIENCE + Duration::from_secs(1)).await;
    wire::say(&mut ours, &Ask::Done).await.unwrap();
    giving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_changes_while_it_is_sent_is_not_given() {
    let from = side();
    let (of, (volume, _)) = (of(), volume(&from).await);
    let path = from.moves.storage.layer(None, volume.layers[0]).await.unwrap();
    let (mut ours, mut theirs) = duplex(64 << 10);
    let moves = Arc::clone(&from.moves);
    let layers = volume.layers.clone();
    let giving = tokio::spawn(async move { moves.answer(of, (&layers, Users::Nobody), &mut theirs).await });
    wire::say(&mut ours, &Ask::Bytes { migration: of.id, layer: volume.layers[0] }).await.unwrap();
    let Some(Answer::Layer { size_bytes }) = wire::hear(&mut ours).await.unwrap() else { panic!("no layer") };
    write(&path, "write -P 9 0 64k");
    let mut left = usize::try_from(size_bytes).unwrap();
    let mut chunk = vec![0; 64 << 10];
    while left > 0 {
        let most = left.min(chunk.len());
        left -= wire::receive(&mut ours, &mut chunk[..most]).await.unwrap();
    }
    assert!(wire::hear::<End>(&mut ours).await.unwrap().is_none(), "it is said to be whole");
    assert!(detail(giving.await.unwrap()).contains("writes to them"));
}

/// Answers like a source that sends this instead of a layer, and says that it has this digest.
async fn send(mut stream: DuplexStream, size_bytes: u64, bytes: Vec<u8>, sha256: Sha256) -> DuplexStream {
    while let Ok(Some(ask)) = wire::hear::<Ask>(&mut stream).await {
        wire::say(&mut stream, &Answer::Layer { size_bytes }).await.unwrap();
        if matches!(ask, Ask::Bytes { .. }) {
            let _ = wire::send(&mut stream, &bytes).await;
            let _ = wire::say(&mut stream, &End { sha256 }).await;
            break;
        }
    }
    stream
}

#[tokio::test]
async fn the_destination_keeps_nothing_of_what_is_not_to_come() {
    let (from, to) = (side(), side());
    let (of, (volume, layers)) = (of(), volume(&from).await);
    let path = from.moves.storage.layer(None, volume.layers[0]).await.unwrap();
    let good = fs::read(&path).unwrap();
    let digest = |bytes: &[u8]| Sha256::from_bytes(sha2::Sha256::digest(bytes).into());
    let mut changed = good.clone();
    changed[70_000] ^= 1;
    let length = good.len() as u64;
    let cases = [
        // Another byte, the end missing, no disk, more than any disk of its size has.
        (length, changed, digest(&good), "not what the disks"),
        (length, good[..good.len() / 2].to_vec(), digest(&good), "broken off"),
        (9, b"no qcow2!".to_vec(), digest(b"no qcow2!"), "not what the disks"),
        (1 << 40, good.clone(), digest(&good), "not what the disks"),
    ];
    for (size_bytes, bytes, sha256, why) in cases {
        let (mut ours, theirs) = duplex(64 << 10);
        let source = tokio::spawn(async move { drop(send(theirs, size_bytes, bytes, sha256).await) });
        let asked = to.moves.ask(of, &layers[..1], &mut ours, &CancellationToken::new()).await;
        let said = detail(asked);
        assert!(said.contains(why), "{said}");
        drop(ours);
        source.await.unwrap();
        assert_eq!(to.files(), Vec::<String>::new(), "{why}");
        assert!(!to.moves.storage.has_layer(volume.layers[0]).await.unwrap());
    }
}

#[tokio::test]
async fn a_disk_without_room_is_said_to_be_full() {
    let from = side();
    let (of, (volume, layers)) = (of(), volume(&from).await);
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    let storage = Arc::new(SimulatedStorage::default());
    storage.set_full(true);
    let to = side_with(dir, path, Arc::clone(&storage) as _);
    to.take(of, from.host, &layers);
    from.give(of, to.host, to.address(of).await, &volume.layers);
    assert!(to.refused(of).await.contains("too little room"));
    assert!(from.ended(of).await.contains("broken off"), "it is told of, too");
    assert_eq!(storage.layers(), Vec::new());
}

#[tokio::test]
async fn nothing_comes_of_what_is_given_up() {
    let (from, to) = (side(), side());
    let (of, (volume, layers)) = (of(), volume(&from).await);
    to.take(of, from.host, &layers);
    let address = to.address(of).await;
    let removing = to.moves.underway.give_up(&volume.layers[..1]).await;
    from.give(of, to.host, address, &volume.layers);
    assert!(from.ended(of).await.contains("did not reach"));
    assert_eq!(to.files(), Vec::<String>::new());
    // Another one waits until the removal is over.
    let next = self::of();
    to.take(next, from.host, &layers);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(to.said(next), None);
    drop(removing);
    to.address(next).await;
    // A page without it ends it, too.
    to.moves.keep_only(&HashSet::new());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(to.said(next), None);
}
