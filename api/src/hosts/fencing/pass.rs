//! Looking for hosts that are to be switched off, and doing it.

use protocol::{HostId, RequestId};
use serde_json::json;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::options::Fencer;
use super::program::{self, Ended, FenceAction};
use super::rules;
use super::store::{self, Candidate, End};
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::auth::{Action, actions};
use crate::hosts;

/// After its time limit a program is gone, and what it said is written down. Later, its replica is.
const GRACE: Duration = Duration::seconds(15);

/// Notes that agents are listened to, and which hosts have fallen silent. Any number of replicas may run it at once.
pub(crate) async fn watch(app: &App) -> Result<(), sqlx::Error> {
    let (mut conn, now) = (app.pool.acquire().await?, app.clock.now());
    store::listen(&mut conn, now).await?;
    store::note_silent(&mut conn, now).await
}

/// Does what is due. Any number of replicas may run it at once, and each of them more than once.
pub(crate) async fn fence(app: &App) -> Result<(), sqlx::Error> {
    match &app.fence {
        Some(fencer) => fence_with(app, fencer).await,
        None => Ok(()),
    }
}

/// The same with this program, which runs once at most: for the next host it is asked anew what keeps it from being switched
/// off, since a program takes its time.
pub(crate) async fn fence_with(app: &App, fencer: &Fencer) -> Result<(), sqlx::Error> {
    for candidate in due(app, fencer).await? {
        if app.shutdown.is_cancelled() || switch_off(app, fencer, &candidate).await? {
            break;
        }
    }
    Ok(())
}

/// Silent hosts that nothing keeps from being switched off. Of the others it is noted what does.
async fn due(app: &App, fencer: &Fencer) -> Result<Vec<Candidate>, sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    let Some(since) = store::listening_since(&mut tx, now).await? else { return Ok(Vec::new()) };
    let mut due = store::candidates(&mut tx, now).await?;
    due.retain(|one| rules::is_silent_for(one.last_seen_at, since, fencer.after, now));
    let ids: Vec<_> = due.iter().map(|one| one.id).collect();
    store::forget(&mut tx, &ids, now).await?;
    if !due.is_empty() {
        let fleet = store::fleet(&mut tx, now).await?;
        let mut free = Vec::new();
        for one in due {
            match rules::held(&one, fleet) {
                Some(why) => store::hold(&mut tx, one.id, &why, now).await?,
                None => free.push(one),
            }
        }
        due = free;
    }
    tx.commit().await?;
    Ok(due)
}

/// False when it is another's turn, or not yet time.
///
/// INVARIANT: no transaction is open while the program runs, and its word counts only if the host is as it was when the
/// program was begun: not heard, in no new session.
async fn switch_off(app: &App, fencer: &Fencer, candidate: &Candidate) -> Result<bool, sqlx::Error> {
    let lease = Duration::try_from(fencer.limit).unwrap_or(Duration::HOUR) + GRACE;
    let mut tx = app.begin().await?;
    let begun = store::begin(&mut tx, candidate, lease, app.clock.now()).await?;
    tx.commit().await?;
    let Some(attempt) = begun else { return Ok(false) };
    let subject = candidate.subject();
    tracing::warn!(host = %candidate.name, attempt, "nothing is heard of it: it is switched off");
    let ended = tokio::select! {
        ended = program::run(fencer, FenceAction::Off, &subject) => ended,
        () = app.shutdown.cancelled() => {
            let mut conn = app.pool.acquire().await?;
            store::give_up(&mut conn, candidate.id, attempt, app.clock.now()).await?;
            return Ok(true);
        }
    };
    let mut tx = app.begin().await?;
    match ended {
        Ended::Well(said) => is_off(app, &mut tx, candidate, attempt, &said).await?,
        Ended::Badly(why) => {
            tracing::warn!(host = %candidate.name, attempt, %why, "it could not be switched off; trying again later");
            let due_at = Some(app.clock.now() + rules::pause_after(attempt));
            store::end(&mut tx, candidate.id, attempt, &End { state: "failed", detail: Some(&why), due_at })
                .await?;
        }
    }
    tx.commit().await?;
    Ok(true)
}

/// What the operator would say of it now.
async fn is_off(
    app: &App,
    conn: &mut PgConnection,
    candidate: &Candidate,
    attempt: i32,
    said: &str,
) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    if !store::is_as_it_was(conn, candidate).await? {
        let why = "it was heard, or changed, while it was switched off: nothing is declared";
        tracing::warn!(host = %candidate.name, attempt, why);
        let end = End { state: "failed", detail: Some(why), due_at: Some(now) };
        return store::end(conn, candidate.id, attempt, &end).await;
    }
    hosts::store::lay_dead(conn, candidate.id, now).await?;
    store::end(conn, candidate.id, attempt, &End { state: "off", detail: None, due_at: None }).await?;
    tracing::warn!(host = %candidate.name, attempt, said, "it is off, and declared dead");
    record(app, conn, candidate, attempt, said, now).await
}

/// Nobody called: the log says what it was done for.
async fn record(
    app: &App,
    conn: &mut PgConnection,
    candidate: &Candidate,
    attempt: i32,
    said: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let in_words = |at: OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).ok();
    let deed = Deed {
        action: <actions::DeclareHostDead as Action>::NAME,
        resource: format!("crn:cumulo:host::host/{}", candidate.name),
        resource_id: Some(HostId::from(candidate.id).as_uuid()),
        before: Some(json!({"last_seen_at": in_words(candidate.last_seen_at)})),
        after: Some(json!({"declared_dead_at": in_words(now),
            "proof": {"fence_command": {"attempt": attempt, "said": said}}})),
        ..Deed::default()
    };
    let request: RequestId = app.clock.new_id();
    audit::write(conn, app, &Actor::by_itself(None, "cumulo"), request, Outcome::Allowed, deed).await
}
