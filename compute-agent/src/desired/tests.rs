use camino::Utf8PathBuf;
use proptest::prelude::*;
use protocol::agent::{DesiredBody, InstanceSpec};
use protocol::{Generation, InstanceId};

use super::{DesiredStore, Wanted};
use crate::samples::{GRACEFUL, deleted, instance_id, next, page, running, stopped, wish};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn open(&self) -> DesiredStore {
        DesiredStore::open(Utf8PathBuf::from_path_buf(self.0.path().join("desired")).unwrap()).unwrap()
    }
}

fn instance(store: &DesiredStore, id: InstanceId) -> Option<InstanceSpec> {
    match store.get(id)?.as_ref() {
        Wanted::Instance(spec) => Some((**spec).clone()),
        Wanted::Deleted { .. } => None,
    }
}

#[test]
fn what_was_taken_is_there_after_a_restart_and_only_changes_are_named() {
    let folder = Folder::new();
    let (spec, other) = (running(instance_id()), running(instance_id()));
    let store = folder.open();
    assert_eq!(store.take(&page(true, [wish(&spec), wish(&other)])).unwrap().len(), 2);
    let newer = next(&spec);
    let again = folder.open();
    assert_eq!(again.take(&page(false, [wish(&newer), wish(&other)])).unwrap(), [spec.id]);
    assert_eq!(instance(&folder.open(), spec.id), Some(newer));
    assert_eq!(instance(&folder.open(), other.id), Some(other));
}

#[test]
fn an_older_generation_is_refused_and_a_deletion_is_final() {
    let folder = Folder::new();
    let store = folder.open();
    let old = running(instance_id());
    let new = stopped(&old, GRACEFUL);
    store.take(&page(false, [wish(&new)])).unwrap();
    assert!(store.take(&page(false, [wish(&old)])).unwrap().is_empty());
    assert_eq!(instance(&store, old.id), Some(new.clone()));
    assert!(store.take(&page(false, [stale_deletion(old.id)])).unwrap().is_empty());

    store.take(&page(false, [deleted(&new)])).unwrap();
    let risen = next(&next(&next(&new)));
    assert!(store.take(&page(false, [wish(&risen)])).unwrap().is_empty());
    assert_eq!(instance(&folder.open(), old.id), None);
    assert!(folder.open().get(old.id).is_some(), "the deletion is known");
}

fn stale_deletion(id: InstanceId) -> DesiredBody {
    DesiredBody::DeleteInstance {
        id,
        generation: Generation(0),
        layers: Vec::new(),
        pools: Vec::new(),
        operation_id: None,
    }
}

#[test]
fn a_complete_page_sets_aside_what_it_does_not_name_but_carries_out_deletions() {
    let folder = Folder::new();
    let store = folder.open();
    let (kept, unknown, gone) = (running(instance_id()), running(instance_id()), running(instance_id()));
    store.take(&page(true, [wish(&kept), wish(&unknown), wish(&gone)])).unwrap();
    store.take(&page(false, [deleted(&gone)])).unwrap();
    assert_eq!(store.take(&page(false, [])).unwrap(), [], "a page of changes says nothing about the rest");
    assert_eq!(store.take(&page(true, [wish(&kept)])).unwrap(), [unknown.id]);
    let store = folder.open();
    assert!(store.get(unknown.id).is_none());
    assert!(store.get(gone.id).is_some());
    assert_eq!(store.take(&page(true, [wish(&kept), wish(&unknown)])).unwrap(), [unknown.id]);
    assert_eq!(instance(&store, unknown.id), Some(unknown));
}

#[test]
fn only_an_acknowledged_deletion_is_forgotten() {
    let folder = Folder::new();
    let store = folder.open();
    let spec = running(instance_id());
    store.take(&page(false, [wish(&spec)])).unwrap();
    assert!(!store.forget_deleted(spec.id, spec.generation).unwrap());
    store.take(&page(false, [deleted(&spec)])).unwrap();
    assert!(!store.forget_deleted(spec.id, spec.generation).unwrap(), "another generation");
    assert!(store.forget_deleted(spec.id, next(&spec).generation).unwrap());
    assert!(folder.open().get(spec.id).is_none());
}

#[tokio::test]
async fn whoever_refused_an_instance_that_came_back_asks_anew_once_its_deletion_is_forgotten() {
    let folder = Folder::new();
    let store = folder.open();
    let (spec, other) = (running(instance_id()), running(instance_id()));
    let back = next(&next(&spec));
    store.take(&page(false, [wish(&spec), wish(&other), deleted(&spec), deleted(&other)])).unwrap();
    let mut asks = std::pin::pin!(store.asks_anew());
    assert!(store.forget_deleted(other.id, next(&other).generation).unwrap());
    assert!(futures_util::poll!(&mut asks).is_pending(), "nothing was refused");
    assert!(store.take(&page(false, [wish(&back)])).unwrap().is_empty());
    assert!(futures_util::poll!(&mut asks).is_pending(), "the deletion is known still");
    assert!(store.forget_deleted(spec.id, next(&spec).generation).unwrap());
    asks.await;
    assert_eq!(store.take(&page(true, [wish(&back)])).unwrap(), [spec.id]);
    assert_eq!(instance(&folder.open(), spec.id), Some(back));
    assert!(futures_util::poll!(&mut std::pin::pin!(store.asks_anew())).is_pending(), "once");
}

#[tokio::test]
async fn whoever_works_on_a_wish_learns_of_the_next() {
    let folder = Folder::new();
    let store = folder.open();
    let (spec, other) = (running(instance_id()), running(instance_id()));
    store.take(&page(false, [wish(&spec)])).unwrap();
    let wanted = store.get(spec.id).unwrap();
    let mut superseded = std::pin::pin!(store.superseded(&wanted));
    assert!(futures_util::poll!(&mut superseded).is_pending());
    store.take(&page(false, [wish(&other)])).unwrap();
    assert!(futures_util::poll!(&mut superseded).is_pending(), "somebody else's");
    store.take(&page(false, [wish(&next(&spec))])).unwrap();
    superseded.await;
}

proptest! {
    /// Pages may be repeated, late and mixed: generations only grow, and the dead stay dead.
    #[test]
    fn a_generation_never_goes_back(words in prop::collection::vec((0_i64..6, prop::bool::weighted(0.2)), 0..12)) {
        let folder = Folder::new();
        let id = instance_id();
        let (mut newest, mut is_dead) = (0, false);
        for (generation, delete) in words {
            let spec = InstanceSpec { generation: Generation(generation), ..running(id) };
            let body = if delete {
                DesiredBody::DeleteInstance { id, generation: spec.generation, layers: Vec::new(), pools: Vec::new(), operation_id: None }
            } else {
                wish(&spec)
            };
            // A fresh store each time: what counts is on disk.
            let store = folder.open();
            store.take(&page(false, [body])).unwrap();
            let wanted = store.get(id);
            let known = wanted.as_ref().map_or(0, |wanted| wanted.generation().0);
            prop_assert!(known >= newest);
            newest = known;
            let dead_now = wanted.is_some_and(|wanted| matches!(*wanted, Wanted::Deleted { .. }));
            prop_assert!(dead_now || !is_dead);
            is_dead = dead_now;
        }
    }
}

#[test]
fn secrets_of_a_seed_do_not_show_in_debug() {
    let mut spec = running(instance_id());
    spec.seed.user_data = Some("hunter2".to_owned());
    assert!(!format!("{:?}", Wanted::Instance(Box::new(spec))).contains("hunter2"));
}
