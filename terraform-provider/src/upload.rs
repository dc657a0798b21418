//! Sends the file of an image, in parts.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result, ensure};
use client::{Body, Client, Error, Method, Request};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

/// Small enough to be sent again, large enough not to notice.
const PART: u64 = 16 << 20;

/// What the API answers when it has everything: the operation that looks at it.
pub async fn send(client: &Client, image: &str, path: &str) -> Result<Json> {
    let file = || File::open(path).with_context(|| path.to_owned());
    let size = file()?.metadata()?.len();
    ensure!(size > 0, "{path} is empty");
    let mut hashed = file()?;
    let digest = tokio::task::spawn_blocking(move || digest(&mut hashed)).await??;
    let begin = format!("{image}/uploads");
    let body = json!({"size_bytes": size, "sha256": digest});
    let begun = client.send(&Request::new(Method::POST, &begin).json(body)).await?.body;
    let upload = format!("{begin}/{}", begun["id"].as_str().context("the answer names no upload")?);
    let (mut offset, mut file) = (0, file()?);
    while offset < size {
        offset = send_part(client, &upload, &mut file, offset).await?;
    }
    Ok(client.send(&Request::new(Method::POST, &format!("{upload}/finish"))).await?.body)
}

/// Where the next part begins, which the cloud says; also when the answer to a part was lost.
async fn send_part(client: &Client, upload: &str, file: &mut File, offset: u64) -> Result<u64> {
    file.seek(SeekFrom::Start(offset))?;
    let mut part = Vec::new();
    file.take(PART).read_to_end(&mut part)?;
    let mut request = Request::new(Method::PATCH, upload);
    request.headers.push((HeaderName::from_static("upload-offset"), offset.into()));
    request.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
    request.body = Some(Body::Bytes(part.into()));
    let answered = match client.send(&request).await {
        Ok(answer) => answer.body,
        Err(error @ Error::Refused(_)) if error.code() != Some("offset_mismatch") => return Err(error.into()),
        Err(_) => client.get(upload).await?,
    };
    answered["offset_bytes"].as_u64().context("the answer does not say how much has arrived")
}

fn digest(file: &mut File) -> Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
