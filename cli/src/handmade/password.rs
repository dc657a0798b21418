//! A new password by a code from an administrator.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use client::{Method, Request};
use serde_json::json;

use crate::contexts::Place;

pub fn command() -> Command {
    Command::new("reset-password")
        .about("Set a new password with the code that an administrator gave you")
        .arg(Arg::new("username").value_name("USERNAME").required(true))
}

pub async fn run(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let username = matches.get_one::<String>("username").context("clap asks for it")?;
    let code = rpassword::prompt_password("code: ")?;
    let password = rpassword::prompt_password("new password: ")?;
    let body = json!({"username": username, "code": code.trim(), "new_password": password});
    let anonymous = client::Client::new(place.client.url(), None)?;
    anonymous.send(&Request::new(Method::POST, "/v1/auth/reset_password").json(body)).await?;
    eprintln!("The password is set. Sign in: cumulo login --username {username}");
    Ok(())
}
