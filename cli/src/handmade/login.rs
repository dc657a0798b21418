//! Sign-in, with a second factor where there is one, and sign-out.

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command};
use client::{Client, Context, Contexts, Credential, Error, Method, Request, Session};
use serde_json::json;

use super::password;
use crate::contexts::named;

pub fn login() -> Command {
    Command::new("login")
        .about("Sign in to a cloud, and remember it as a context")
        .arg(Arg::new("url").long("url").env("CUMULO_URL").value_name("URL").help("Where its API is; that of the context unless given"))
        .arg(Arg::new("username").long("username").short('u').env("CUMULO_USERNAME").value_name("NAME").help("Asked for unless given"))
        .after_help(
            "The password is asked for, or taken from CUMULO_PASSWORD; so is the code of a second factor. What is kept is a session \
             that ends when you sign out, in a file that only you can read. Who signs in with a password that somebody else knows is \
             asked for another one. Programs use an API key in CUMULO_API_KEY instead.",
        )
}

pub fn logout() -> Command {
    Command::new("logout").about("End the session of the context")
}

pub async fn run_login(matches: &ArgMatches) -> Result<()> {
    let mut contexts = Contexts::load()?;
    let name = contexts.name(named(matches));
    let known = contexts.contexts.get(&name);
    let given = matches.get_one::<String>("url").cloned().or_else(|| Some(known?.url.clone()));
    let url = given.context("which cloud? Give --url http://…")?.trim_end_matches('/').to_owned();
    let username = match matches.get_one::<String>("username") {
        Some(username) => username.clone(),
        None => ask("username: ")?,
    };
    let given = std::env::var("CUMULO_PASSWORD").ok();
    let password = match &given {
        Some(password) => password.clone(),
        None => rpassword::prompt_password("password: ")?,
    };
    let client = Client::new(&url, None)?;
    let signed_in = match client.sign_in(&username, &password, None).await {
        Err(error) if error.code() == Some("second_factor_required") => {
            let code = rpassword::prompt_password("code of the second factor: ")?;
            client.sign_in(&username, &password, Some(code.trim())).await?
        }
        answered => answered?,
    };
    let session = signed_in.session;
    if signed_in.password_change_required && given.is_some() {
        end(&client, &session).await?;
        return Err(Error::NotSignedIn(password::not_here(&username)).into());
    }
    let file = Contexts::session(&name)?;
    let project = known.filter(|known| known.url == url).and_then(|known| known.project.clone());
    let context = Context { url: url.clone(), username: Some(username.clone()), project };
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    // Makes the folder, too.
    contexts.save()?;
    file.write(&session)?;
    let client = Client::new(&url, Some(Credential::Session(file)))?;
    if signed_in.password_change_required {
        password::choose(&client, &username, &password).await?;
    }
    choose_project(&client, matches, &name).await?;
    eprintln!("Signed in to {url} as {username}, in the context '{name}'.");
    let project = Contexts::load()?.contexts.get(&name).and_then(|context| context.project.clone());
    match project {
        Some(project) => {
            eprintln!("Commands work in the project '{project}'; another: cumulo context project NAME");
        }
        None => eprintln!("Choose a project: cumulo project list, cumulo context project NAME"),
    }
    Ok(())
}

/// The project that was asked for, or the only one that there is.
async fn choose_project(client: &Client, matches: &ArgMatches, name: &str) -> Result<()> {
    let mut contexts = Contexts::load()?;
    let Some(context) = contexts.contexts.get_mut(name) else { return Ok(()) };
    if let Some(project) = matches.get_one::<String>("project") {
        context.project = Some(project.clone());
    } else if context.project.is_none() {
        let page = client.send(&Request::new(Method::GET, "/v1/projects").query("limit", &2)).await?.body;
        if let Some([only]) = page["items"].as_array().map(Vec::as_slice) {
            context.project = only["name"].as_str().map(str::to_owned);
        }
    }
    Ok(contexts.save()?)
}

pub async fn run_logout(matches: &ArgMatches) -> Result<()> {
    let contexts = Contexts::load()?;
    let Some((name, context)) = contexts.chosen(named(matches)) else {
        bail!("there is no context to sign out of")
    };
    let file = Contexts::session(&name)?;
    let Some(session) = file.read()? else {
        eprintln!("You were not signed in.");
        return Ok(());
    };
    end(&Client::new(&context.url, Some(Credential::Session(file.clone())))?, &session).await?;
    file.remove()?;
    eprintln!("Signed out of {}.", context.url);
    Ok(())
}

async fn end(client: &Client, session: &Session) -> Result<()> {
    let request =
        Request::new(Method::POST, "/v1/auth/logout").json(json!({"refresh_token": session.refresh_token}));
    match client.send(&request).await {
        // What has ended already is as good.
        Ok(_) | Err(Error::NotSignedIn(_)) => Ok(()),
        Err(Error::Refused(problem)) if problem.status == 401 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn ask(prompt: &str) -> Result<String> {
    eprint!("{prompt}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
