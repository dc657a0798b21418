//! The Cumulo control plane.
//!
//! A request comes in through [`http`], proves who sent it and what it may do ([`auth`]), and reads or
//! changes one resource. Every resource is one folder with the same files: `routes` (handlers), `types` (the
//! wire), `model` (rules, no I/O), `store` (all SQL), `reconcile` (from intent to done). A mutating call is
//! one PostgreSQL transaction ([`http::Mutation`]); nothing of it lives in memory.
//!
//! Hosts are never called. Their agents fetch what their host shall look like and report what they saw
//! ([`agents`]); [`scheduler`] decides where an instance goes, as a pure function; [`controllers`] carry rows
//! from intent to done.

pub mod address_pools;
pub mod agents;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod clock;
pub mod consoles;
pub mod controllers;
pub mod database;
pub mod drift;
pub mod events;
pub mod fleet_metrics;
pub mod floating_ips;
pub mod groups;
pub mod hosts;
pub mod http;
pub mod images;
pub mod insight;
pub mod instance_types;
pub mod instances;
pub mod key_pairs;
pub mod net;
pub mod networks;
pub mod nudge;
pub mod operations;
pub mod pki;
mod pki_store;
pub mod placement_groups;
pub mod placement_settings;
pub mod placements;
pub mod policies;
pub mod pools;
pub mod ports;
pub mod projects;
pub mod quotas;
pub mod routers;
pub mod scheduler;
pub mod security_groups;
pub mod serve;
pub mod service_accounts;
pub mod snapshot_schedules;
pub mod snapshots;
pub mod subnets;
#[cfg(test)]
mod testing;
pub mod users;
pub mod verify;
pub mod volumes;
mod web_ui;
