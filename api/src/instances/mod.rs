//! Instances: virtual machines, from the call that asks for one to the last file of it on a host.
//!
//! Intent, observation and the state that a user sees are three things. Calls change intent and count it
//! with a generation; the host's agent makes it so and reports what it saw; [`model::shown`] computes the
//! visible state from the two. Placement ([`reconcile`]) decides the host.

mod custom_size;
mod deeds;
pub(crate) mod evacuation;
mod fit;
mod leases;
mod lost;
pub(crate) mod migration;
mod model;
mod reconcile;
mod recovery;
mod routes;
pub(crate) mod store;
mod types;
mod verbs;
mod verify;

#[cfg(test)]
mod tests;

pub(crate) use custom_size::{CustomSize, SizedType};
pub(crate) use evacuation::evacuate;
pub(crate) use fit::misfits;
pub(crate) use leases::{confirm_resizes, end_leases};
pub(crate) use lost::end_on_lost_hosts;
pub(crate) use model::{OF_MIGRATIONS, OF_VOLUMES, Observed, Outcome, outcome};
pub(crate) use reconcile::place_pending;
pub(crate) use recovery::recover;
pub(crate) use routes::{OfVolume, Resume, change_volumes, resume_instance, router};
pub(crate) use store::placement::take_turn as placement_turn;
pub(crate) use types::{OperationSummary, Reference};
pub(crate) use verify::verify;
