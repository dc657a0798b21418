//! A new password: by a code from an administrator, or in the place of one that somebody else knows.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use client::{Client, Error, Method, Request};
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
    let anonymous = Client::new(place.client.url(), None)?;
    anonymous.send(&Request::new(Method::POST, "/v1/auth/reset_password").json(body)).await?;
    eprintln!("The password is set. Sign in: cumulo login --username {username}");
    Ok(())
}

/// Asks for a new password until the API takes one. The session goes on, and is good for everything then.
pub async fn choose(client: &Client, username: &str, current: &str) -> Result<()> {
    eprintln!("Somebody else knows this password. Choose one that only you know, of at least 12 characters.");
    loop {
        let password = rpassword::prompt_password("new password: ")?;
        if rpassword::prompt_password("the same again: ")? != password {
            eprintln!("The two differ.");
            continue;
        }
        let path = format!("/v1/users/{username}/password");
        let body = json!({"current_password": current, "new_password": password});
        match client.send(&Request::new(Method::POST, &path).json(body)).await {
            Ok(_) => break,
            Err(Error::Refused(problem)) if problem.code == "validation_failed" => {
                let said = problem.errors.iter().map(|field| field.message.as_str());
                eprintln!("It is not taken: {}.", said.collect::<Vec<_>>().join("; "));
            }
            Err(error) => return Err(error.into()),
        }
    }
    eprintln!("Your password is changed.");
    Ok(())
}

/// What to do instead where nobody can be asked: a program would go on with the old password.
pub fn not_here(username: &str) -> String {
    format!(
        "The password in CUMULO_PASSWORD has to be changed before it is good for anything else: somebody else knows it.\n  \
         at a terminal: unset CUMULO_PASSWORD, and `cumulo login` asks for another one\n  \
         in a browser:  sign in to the console\n  \
         with curl:     sign in, and POST /v1/users/{username}/password with current_password and new_password\n\
         Programs use an API key in CUMULO_API_KEY instead."
    )
}
