//! Sends the file of an image.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use client::{Client, Method, Request};
use serde_json::{Value as Json, json};

/// What the API answers when it has everything: the operation that looks at it.
pub async fn send(client: &Client, image: &str, path: &str) -> Result<Json> {
    let file = || File::open(path).with_context(|| path.to_owned());
    let size = file()?.metadata()?.len();
    ensure!(size > 0, "{path} is empty");
    let mut hashed = file()?;
    let digest = tokio::task::spawn_blocking(move || client::digest(&mut hashed, |_| {})).await??;
    let begin = format!("{image}/uploads");
    let body = json!({"size_bytes": size, "sha256": digest});
    let begun = client.send(&Request::new(Method::POST, &begin).json(body)).await?.body;
    let upload = format!("{begin}/{}", begun["id"].as_str().context("the answer names no upload")?);
    client.send_file(&upload, &mut file()?, size, 0, |_| {}).await?;
    Ok(client.send(&Request::new(Method::POST, &format!("{upload}/finish"))).await?.body)
}
