//! Beginnings and ends in the audit log. That a ticket was given is in it, too, like any change.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::model::End;
use super::store::Console;
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};

/// What the audit log calls these; policies cannot allow or deny them.
const BEGIN: &str = "compute:BeginConsole";
const END: &str = "compute:EndConsole";

/// What passed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Passed {
    pub to_guest_bytes: u64,
    pub from_guest_bytes: u64,
}

pub(super) async fn begin(conn: &mut PgConnection, app: &App, console: &Console) -> Result<(), sqlx::Error> {
    let after = json!({"console_id": console.id, "kind": console.kind});
    write(conn, app, console, BEGIN, after).await
}

/// `passed` is not known of a session whose replica has gone.
pub(super) async fn end(
    conn: &mut PgConnection,
    app: &App,
    console: &Console,
    end: End,
    passed: Option<Passed>,
) -> Result<(), sqlx::Error> {
    let Some(began_at) = console.began_at else { return Ok(()) };
    let mut after = json!({"console_id": console.id, "kind": console.kind, "reason": end.as_str(),
        "seconds": (app.clock.now() - began_at).whole_seconds()});
    if let Some(passed) = passed {
        after["to_guest_bytes"] = json!(passed.to_guest_bytes);
        after["from_guest_bytes"] = json!(passed.from_guest_bytes);
    }
    write(conn, app, console, END, after).await
}

async fn write(
    conn: &mut PgConnection,
    app: &App,
    console: &Console,
    action: &'static str,
    after: Value,
) -> Result<(), sqlx::Error> {
    let actor = Actor {
        id: Some(console.principal),
        name: &console.principal_name,
        credential_kind: console.credential_kind,
        credential_id: Some(console.credential_id),
        source: console.source_address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    let deed = Deed {
        action,
        resource: console.resource.clone(),
        resource_id: Some(console.instance.as_uuid()),
        project: Some(console.project),
        after: Some(after),
        ..Deed::default()
    };
    audit::write(conn, app, &actor, console.request_id, Outcome::Allowed, deed).await
}
