//! Which differences are told, and when.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use async_trait::async_trait;
use protocol::InstanceId;
use protocol::agent::{DriftCode, DriftSubject, Epoch, HostDifference, MAX_DRIFT, MAX_DRIFT_DETAIL_CHARS};

use super::looks::Looks;
use super::{Drift, Look, Looked, NOT_WANTED};
use crate::control_plane::fake::FakeControlPlane;
use crate::samples::instance_id;
use crate::session::Session;

fn of_host(detail: &str) -> HostDifference {
    HostDifference { code: DriftCode::ForeignFile, about: DriftSubject::Host, detail: detail.to_owned() }
}

fn of_instance(id: InstanceId, detail: &str) -> HostDifference {
    let (code, about) = (DriftCode::InstanceDiffers, DriftSubject::Instance(id));
    HostDifference { code, about, detail: detail.to_owned() }
}

fn looked(found: &[&HostDifference], busy: &[InstanceId]) -> Looked {
    let found = found.iter().copied().cloned().collect();
    Looked { found, busy: busy.iter().copied().collect() }
}

/// What counts of these two, after a look.
fn counted(looks: &mut Looks, looked: Looked, [a, b]: [&HostDifference; 2]) -> Option<[bool; 2]> {
    let counted = looks.next(looked)?;
    let both = [counted.contains(a), counted.contains(b)];
    assert_eq!(counted.len(), both.iter().filter(|is_there| **is_there).count());
    Some(both)
}

#[test]
fn what_is_seen_in_two_looks_in_a_row_counts() {
    let (mut looks, a, b) = (Looks::default(), of_host("a"), of_host("b"));
    let mut next = |found: &[&HostDifference]| counted(&mut looks, looked(found, &[]), [&a, &b]);
    assert_eq!(next(&[&a]), None, "the first look says nothing, not even that all is well");
    assert_eq!(next(&[&b, &a]), Some([true, false]));
    assert_eq!(next(&[&b]), Some([false, true]));
    assert_eq!(next(&[]), Some([false, false]));
    assert_eq!(next(&[&b]), Some([false, false]), "it was gone in between");
}

#[test]
fn of_an_instance_that_is_being_worked_on_nothing_new_counts() {
    let mut looks = Looks::default();
    let (id, other) = (instance_id(), instance_id());
    let (mine, others) = (of_instance(id, "start it"), of_instance(other, "start it"));
    let mut next = |found: &[&HostDifference], busy: &[InstanceId]| {
        counted(&mut looks, looked(found, busy), [&mine, &others])
    };
    assert_eq!(next(&[&mine, &others], &[id]), None);
    assert_eq!(next(&[&mine, &others], &[id]), Some([false, true]));
    assert_eq!(next(&[&mine, &others], &[]), Some([false, true]), "one look at rest");
    assert_eq!(next(&[&mine, &others], &[]), Some([true, true]));
    // What counted stays while the agent tries once more, and is over when a look at rest does not find it.
    assert_eq!(next(&[&others], &[id]), Some([true, true]));
    assert_eq!(next(&[&mine, &others], &[]), Some([true, true]));
    assert_eq!(next(&[&others], &[]), Some([false, true]));
}

/// A host that has what the test says, or cannot be looked at.
#[derive(Default)]
struct Scene(Mutex<Option<Vec<HostDifference>>>);

impl Scene {
    fn set(&self, found: Option<Vec<HostDifference>>) {
        *self.0.lock().unwrap() = found;
    }
}

#[async_trait]
impl Look for Scene {
    async fn look(&self) -> Result<Looked> {
        match &*self.0.lock().unwrap() {
            Some(found) => Ok(Looked { found: found.clone(), busy: HashSet::new() }),
            None => bail!("no hypervisor"),
        }
    }
}

/// A host that cannot be looked at to the end.
struct Hanging;

#[async_trait]
impl Look for Hanging {
    async fn look(&self) -> Result<Looked> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_look_that_never_ends_is_given_up() {
    let (control_plane, session) = (Arc::new(FakeControlPlane::default()), Arc::new(Session::default()));
    let drift = Drift {
        patience: Duration::from_millis(20),
        ..Drift::new(Arc::clone(&control_plane) as _, session, Arc::new(Hanging))
    };
    let mut looks = Looks::default();
    for _ in 0..2 {
        let told = tokio::time::timeout(Duration::from_secs(20), drift.tell_once(Epoch(0), &mut looks)).await;
        assert_eq!(told.expect("the look is bounded").unwrap(), None);
    }
    assert_eq!(control_plane.take_drift(), []);
}

#[test]
fn what_runs_and_is_not_wanted_is_never_left_out() {
    let of = |code, detail: &str| HostDifference { code, ..of_instance(instance_id(), detail) };
    let mut found: Vec<_> = (0..300).map(|number| of_host(&number.to_string())).collect();
    found.extend((0..300).map(|number| of(DriftCode::InstanceDiffers, &number.to_string())));
    let worst = [DriftCode::UnknownProcess, DriftCode::UnknownGuest, DriftCode::PoolUnusable];
    found.extend(worst.map(|code| of(code, "at once")));
    found.sort();
    let report = super::report(Epoch(0), found);
    assert_eq!((report.total, report.differences.len()), (603, MAX_DRIFT));
    let told: HashSet<_> = report.differences.iter().map(|one| one.code.as_str()).collect();
    assert!(worst.iter().all(|code| told.contains(code.as_str())), "{told:?}");
    assert!(report.differences[..2].iter().all(|one| worst[..2].contains(&one.code)));
}

#[tokio::test]
async fn the_control_plane_is_told_all_that_counts_within_bounds() {
    let (control_plane, session) = (Arc::new(FakeControlPlane::default()), Arc::new(Session::default()));
    let scene = Arc::new(Scene::default());
    let drift = Drift::new(Arc::clone(&control_plane) as _, session, Arc::clone(&scene) as _);
    let mut looks = Looks::default();
    let mut look_twice = async || {
        let first = drift.tell_once(Epoch(0), &mut looks).await.unwrap();
        (first, drift.tell_once(Epoch(0), &mut looks).await.unwrap())
    };
    assert_eq!(look_twice().await, (None, None), "who cannot look says nothing");
    assert_eq!(control_plane.take_drift(), []);

    scene.set(Some(vec![of_host(&"ä".repeat(2000))]));
    let minute = Some(Duration::from_secs(60));
    assert_eq!(look_twice().await, (None, minute));
    let told = control_plane.take_drift();
    assert_eq!((told.len(), told[0].total, told[0].differences.len()), (1, 1, 1));
    assert_eq!(told[0].differences[0].detail.chars().count(), MAX_DRIFT_DETAIL_CHARS);

    scene.set(Some((0..=MAX_DRIFT).map(|number| of_host(&number.to_string())).collect()));
    assert_eq!(look_twice().await, (minute, minute));
    let told = control_plane.take_drift();
    let sizes: Vec<_> = told.iter().map(|one| (one.total, one.differences.len())).collect();
    assert_eq!(sizes, [(0, 0), (201, MAX_DRIFT)]);

    // One of an earlier release is left in peace, and asked again later.
    control_plane.want_drift(false);
    assert_eq!(look_twice().await, (Some(NOT_WANTED), Some(NOT_WANTED)));
    control_plane.want_drift(true);
    scene.set(None);
    assert_eq!(look_twice().await, (None, None));
    assert_eq!(control_plane.take_drift(), []);
    scene.set(Some(Vec::new()));
    assert_eq!(look_twice().await, (minute, minute));
    assert_eq!(control_plane.take_drift().len(), 2);
    assert!(drift.tell_once(Epoch(7), &mut looks).await.is_err());
}
