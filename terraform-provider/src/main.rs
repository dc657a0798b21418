//! The provider of Cumulo for Terraform.
//!
//! Terraform starts it and talks to it (`plugin.rs`, `server.rs`). What there is says `table.rs`; the attributes follow from
//! the OpenAPI document (`openapi.rs`, `resource.rs`). `plan.rs` decides what changes, `change.rs` does it.

mod change;
mod check;
mod cloud;
mod configuration;
mod convert;
mod data;
mod diagnose;
#[cfg(test)]
mod docs;
mod import;
mod openapi;
mod pinned;
mod plan;
mod plugin;
mod protocol;
mod resource;
mod schema;
mod server;
mod table;
mod upload;
mod validate;
mod value;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if !plugin::is_started_by_terraform() {
        eprintln!(
            "This is a provider of Terraform, which starts it by itself. Install it with `cumulo terraform install`."
        );
        return ExitCode::FAILURE;
    }
    match plugin::serve(server::Cumulo::new()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
