//! `cumulo-api recover`: the way back in when nobody can sign in any more. Whoever may run it on the control
//! plane's machine can read and write the database anyway, so it asks for nothing.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use protocol::{Name, PrincipalId};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{second_factor, store};
use crate::audit::{self, Actor, Deed, Outcome};
use crate::clock::Clock;
use crate::database::{Database, Location};
use crate::http::{ApiError, ErrorCode};
use crate::policies;

/// What the audit log calls this.
const RECOVER: &str = "iam:RecoverUser";

/// Whom to let in, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub database: Location,
    /// The user to let in. Made if there is none of this name.
    #[arg(long, default_value = "admin")]
    pub user: Name,
    /// Detach this policy of the cloud from the user, their groups and everyone: what it denies, no administrator
    /// may do. Can be given several times.
    #[arg(long)]
    pub detach: Vec<Name>,
}

/// The way in.
pub struct Recovered {
    /// For setting a password; shown once.
    pub code: String,
    /// The policies that decide for the user in the whole cloud.
    pub policies: Vec<String>,
}

/// Makes or enables the user as an administrator without password, second factor and sessions, and gives the
/// one-time code with which they set a password.
pub async fn recover(options: &Options) -> anyhow::Result<Recovered> {
    let Database { pools, keeper } = Database::join(&options.database).await?;
    let recovered = recover_in(&pools.own, &Clock::system(), &options.user, &options.detach).await;
    pools.own.close().await;
    keeper.leave().await.context("cannot stop PostgreSQL again")?;
    recovered.map_err(|error| anyhow::anyhow!("{error}")).context("cannot recover the user")
}

pub(super) async fn recover_in(
    pool: &PgPool,
    clock: &Clock,
    name: &Name,
    detach: &[Name],
) -> Result<Recovered, ApiError> {
    let now = clock.now();
    let mut tx = crate::database::begin(pool).await?;
    policies::managed::install(&mut tx, now).await?;
    let found = store::recovery::enable_user(&mut tx, name.as_str(), now).await?;
    let user = match found {
        Some(user) => user,
        None => {
            let id: PrincipalId = clock.new_id();
            store::insert_user(&mut tx, id, name.as_str(), "", None, now).await?;
            id
        }
    };
    second_factor::remove(&mut tx, user).await?;
    store::end_sessions(&mut tx, user, None, now).await?;
    let names: Vec<String> = detach.iter().map(|name| name.as_str().to_owned()).collect();
    let detached = store::recovery::detach(&mut tx, user, &names).await?;
    if let Some(missing) = names.iter().find(|name| !detached.contains(name)) {
        let detail = format!("no policy {missing} of the cloud decides for {name}");
        return Err(ApiError::because(ErrorCode::NotFound, detail));
    }
    policies::managed::make_administrator(&mut tx, clock.new_id(), user, now).await?;
    let policies = store::recovery::policies_of(&mut tx, user).await?;
    let code = store::passwords::reset(&mut tx, user, now).await?.code;
    let after = json!({"id": user, "name": name, "made": found.is_none(), "detached": detached});
    record(&mut tx, clock, user, name, after).await?;
    tx.commit().await?;
    Ok(Recovered { code, policies })
}

async fn record(
    conn: &mut PgConnection,
    clock: &Clock,
    user: PrincipalId,
    name: &Name,
    after: Value,
) -> Result<(), sqlx::Error> {
    let actor = Actor {
        id: None,
        name: "cumulo-api recover",
        credential_kind: "none",
        credential_id: None,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let deed = Deed {
        action: RECOVER,
        resource: format!("crn:cumulo:iam::user/{name}"),
        resource_id: Some(user.as_uuid()),
        after: Some(after),
        ..Deed::default()
    };
    audit::write_at(conn, clock, &actor, clock.new_id(), Outcome::Allowed, deed).await
}
