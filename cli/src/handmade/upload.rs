//! Sends the file of an image in parts, and goes on where an earlier try was cut off.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use client::{Error, Method, Request, segment};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::contexts::Place;
use crate::output::Output;
use crate::wait;

pub fn command() -> Command {
    let image =
        Arg::new("at:image").value_name("IMAGE").required(true).help("Made before, with cumulo image create");
    Command::new("upload")
        .about("Send the file of an image; the same command again goes on where it was cut off")
        .arg(image.add(clap_complete::ArgValueCompleter::new(|word: &std::ffi::OsStr| {
            crate::complete::names("image", word)
        })))
        .arg(Arg::new("file").value_name("FILE").required(true).value_hint(clap::ValueHint::FilePath))
        .arg(
            Arg::new("restart")
                .long("restart")
                .action(ArgAction::SetTrue)
                .help("Drop what an earlier try has sent, and begin anew"),
        )
}

/// What is kept of a try that was cut off.
#[derive(Serialize, Deserialize)]
struct Begun {
    upload: String,
}

pub async fn run(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let image = matches.get_one::<String>("at:image").context("clap asks for it")?;
    let file_name = matches.get_one::<String>("file").context("clap asks for it")?;
    let image_path = format!("/v1/projects/{}/images/{}", segment(place.project()?), segment(image));
    let mut file = File::open(file_name).with_context(|| file_name.clone())?;
    let size = file.metadata()?.len();
    if size == 0 {
        bail!("{file_name} is empty");
    }
    let digest = digest(&mut file, size)?;
    let image_id = place.client.get(&image_path).await?["id"].as_str().unwrap_or_default().to_owned();
    let memory = Memory::of(&image_id, &digest)?;
    if matches.get_flag("restart")
        && let Some(upload) = memory.upload()
    {
        let _gone =
            place.client.send(&Request::new(Method::DELETE, &format!("{image_path}/uploads/{upload}"))).await;
        memory.forget()?;
    }
    let (upload, offset) = begin(&place, &image_path, &memory, size, &digest).await?;
    let path = format!("{image_path}/uploads/{upload}");
    let bar = wait::bytes_bar(Some(size)).with_position(offset);
    place.client.send_file(&path, &mut file, size, offset, |there| bar.set_position(there)).await?;
    bar.finish_and_clear();
    let finish = format!("{path}/finish");
    let answer = place.client.send(&Request::new(Method::POST, &finish)).await?.body;
    memory.forget()?;
    Output::new(matches, "image").record(&wait::until_done(&place, &finish, answer).await?)
}

/// The upload of an earlier try, if the cloud still has it, or a new one; and how much of it is there.
async fn begin(
    place: &Place,
    image: &str,
    memory: &Memory,
    size: u64,
    digest: &str,
) -> Result<(String, u64)> {
    if let Some(upload) = memory.upload() {
        match place.client.get(&format!("{image}/uploads/{upload}")).await {
            Ok(found) => return Ok((upload, found["offset_bytes"].as_u64().unwrap_or_default())),
            Err(Error::Refused(problem)) if problem.status == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    let body = json!({"size_bytes": size, "sha256": digest});
    let made =
        place.client.send(&Request::new(Method::POST, &format!("{image}/uploads")).json(body)).await?.body;
    let upload = made["id"].as_str().context("the answer names no upload")?.to_owned();
    memory.keep(&upload)?;
    Ok((upload, made["offset_bytes"].as_u64().unwrap_or_default()))
}

fn digest(file: &mut File, size: u64) -> Result<String> {
    let bar = wait::bytes_bar(Some(size));
    bar.println("Hashing");
    let digest = client::digest(file, |count| bar.inc(count))?;
    bar.finish_and_clear();
    Ok(digest)
}

/// A file that remembers an upload by the image and the content.
struct Memory {
    path: PathBuf,
}

impl Memory {
    fn of(image: &str, digest: &str) -> Result<Self> {
        let folder = client::Contexts::folder()?;
        std::fs::create_dir_all(&folder)?;
        Ok(Self { path: folder.join(format!("upload-{}-{}.json", segment(image), &digest[..16])) })
    }

    fn upload(&self) -> Option<String> {
        let begun: Begun = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        Some(begun.upload)
    }

    fn keep(&self, upload: &str) -> Result<()> {
        std::fs::write(&self.path, serde_json::to_vec(&Begun { upload: upload.to_owned() })?)?;
        Ok(())
    }

    fn forget(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
