//! The bytes of a URL as a stream that goes on after a broken connection, and does not wait for ever.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use reqwest::{Response, Url};
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher, Resume, cause, strong_etag};
use super::source::shown;

/// How often one download is taken up again.
const MAX_RESUMES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// Slower than this is as good as silent.
const MIN_BYTES_PER_SECOND: u64 = 1024;

pub(super) struct Download {
    fetcher: Fetcher,
    url: Url,
    response: Response,
    etag: Option<String>,
    offset: u64,
    resumes: u32,
    /// Since when, and how many bytes since then.
    window: (Instant, u64),
    /// Bytes in all, if the server said so.
    pub length: Option<u64>,
}

impl Download {
    /// Asks, and takes the head of the answer.
    ///
    /// # Errors
    /// With the reason, for people.
    pub(super) async fn begin(fetcher: Fetcher, url: Url) -> Result<Self, FetchError> {
        let response = fetcher.open(&url, None).await?;
        Ok(Self {
            etag: strong_etag(&response),
            length: response.content_length(),
            window: (Instant::now(), 0),
            offset: 0,
            resumes: 0,
            fetcher,
            url,
            response,
        })
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, FetchError>> {
        futures_util::stream::try_unfold(self, |mut download| async {
            let chunk = download.next().await?;
            Ok(chunk.map(|chunk| (chunk, download)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let silence = self.fetcher.silence;
            let next = tokio::time::timeout(silence, self.response.chunk());
            match next.await.map_err(|_| self.too_slow())? {
                Ok(Some(chunk)) => {
                    self.offset += chunk.len() as u64;
                    self.check_pace(chunk.len() as u64)?;
                    return Ok(Some(chunk));
                }
                Ok(None) => return Ok(None),
                Err(error) => self.take_up(&error).await?,
            }
        }
    }

    fn check_pace(&mut self, bytes: u64) -> Result<(), FetchError> {
        let silence = self.fetcher.silence;
        self.window.1 += bytes;
        if self.window.0.elapsed() < silence {
            return Ok(());
        }
        if self.window.1 < MIN_BYTES_PER_SECOND * silence.as_secs().max(1) {
            return Err(self.too_slow());
        }
        self.window = (Instant::now(), 0);
        Ok(())
    }

    fn too_slow(&self) -> FetchError {
        let seconds = self.fetcher.silence.as_secs();
        FetchError::broken(format!(
            "{} sent less than {MIN_BYTES_PER_SECOND} bytes per second for {seconds} seconds",
            shown(&self.url)
        ))
    }

    /// Asks for the rest, if the server can be trusted to give that of the same file.
    async fn take_up(&mut self, error: &reqwest::Error) -> Result<(), FetchError> {
        let broken = FetchError::broken(format!(
            "{} broke off after {} bytes: {}",
            shown(&self.url),
            self.offset,
            cause(error)
        ));
        let (Some(etag), true) = (self.etag.clone(), self.resumes < MAX_RESUMES && self.offset > 0) else {
            return Err(broken);
        };
        self.resumes += 1;
        tokio::time::sleep(PAUSE).await;
        let resume = Resume { offset: self.offset, etag };
        self.response = self.fetcher.open(&self.url, Some(&resume)).await?;
        self.window = (Instant::now(), 0);
        Ok(())
    }
}
