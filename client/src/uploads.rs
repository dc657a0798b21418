//! The file of an image, sent in parts.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::{Body, Client, Error, Method, Request, Result};

/// Small enough to be sent again, large enough not to notice.
const PART: u64 = 16 << 20;
/// So often the same part is sent.
const TRIES: u32 = 5;

/// The SHA-256 of a file, in hexadecimal. `seen` hears how many bytes were read at a time.
pub fn digest(file: &mut File, mut seen: impl FnMut(u64)) -> io::Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => {
                hasher.update(&buffer[..count]);
                seen(count as u64);
            }
        }
    }
}

impl Client {
    /// Sends what a file of `size` bytes has from `offset` on to the upload at this path, as far as it is not there, and
    /// goes on where the cloud says after an answer was lost. `seen` hears how much is there.
    ///
    /// # Errors
    /// What the API says when it refuses, and what keeps one part from arriving again and again.
    pub async fn send_file(
        &self,
        upload: &str,
        file: &mut File,
        size: u64,
        mut offset: u64,
        mut seen: impl FnMut(u64),
    ) -> Result<()> {
        let mut tries = 0;
        while offset < size {
            let (next, lost) = self.send_part(upload, file, offset).await?;
            tries = if next > offset { 0 } else { tries + 1 };
            match lost {
                Some(error) if tries == TRIES => return Err(error),
                _ => offset = next,
            }
            seen(offset);
        }
        Ok(())
    }

    /// Where the next part begins, which the cloud says; and why it had to be asked.
    async fn send_part(&self, upload: &str, file: &mut File, offset: u64) -> Result<(u64, Option<Error>)> {
        let part = read_part(file, offset)
            .map_err(|cause| Error::File { path: "the image's file".to_owned(), cause })?;
        let mut request = Request::new(Method::PATCH, upload);
        request.headers.push((HeaderName::from_static("upload-offset"), offset.into()));
        request.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
        request.body = Some(Body::Bytes(part.into()));
        let (answer, lost) = match self.send(&request).await {
            Ok(answer) => (answer.body, None),
            Err(error @ Error::Unreachable { .. }) => (self.get(upload).await?, Some(error)),
            Err(error) if error.code() == Some("offset_mismatch") => (self.get(upload).await?, Some(error)),
            Err(error) => return Err(error),
        };
        let offset = answer["offset_bytes"].as_u64();
        let offset = offset.ok_or_else(|| Error::Foreign { url: self.url().to_owned(), status: 200 })?;
        Ok((offset, lost))
    }
}

fn read_part(file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut part = Vec::new();
    file.take(PART).read_to_end(&mut part)?;
    Ok(part)
}
