//! Cached images: from a stranger's bytes to a qcow2 file of our own.
//!
//! Fetched once into `incoming/` with length and digest checked on the way, read by the parser, rewritten by
//! the [`crate::sandbox`] from the same open file, read by the parser again, renamed into `images/`.

use std::fs::{File, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;

use futures_util::{Stream, StreamExt};
use nix::unistd::fchown;
use nix::unistd::{Gid, Uid};
use protocol::agent::ImageSource;
use protocol::image::{Format, ImageInfo, InspectError, inspect};
use protocol::{MIB, Sha256};
use sha2::Digest;
use tokio::io::AsyncWriteExt;

use crate::durable::{PRIVATE_FILE, Unfinished, blocking};
use crate::sandbox::largest_output;
use crate::{Made, Needed, Pool, PoolError, qemu_img};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Plain clusters: a base is only read, and every tool can read it.
const OPTIONS: &str = "compat=1.1,cluster_size=65536,lazy_refcounts=off,preallocation=off";
/// The image is written once; QEMU's own user reads it.
const READ_ONLY_FILE: u32 = 0o444;
/// Read by the converter through its descriptor. The directory keeps everybody else out.
const CONVERTER_INPUT: u32 = 0o444;
const NEARLY_FULL_BYTES: u64 = 16 * MIB;

impl Pool {
    /// Brings the image into the cache. Others leave it for that when there is no room, unless they are `needed`.
    ///
    /// `fetch` is called once at most, and by one caller at a time per image. How long a silent source is
    /// waited for is for its stream to say. A dropped call leaves nothing behind.
    pub async fn ensure_base<F, S, B, E, G>(
        &self,
        image: &ImageSource,
        needed: Needed<'_>,
        fetch: impl FnOnce() -> F,
    ) -> Result<Made, PoolError>
    where
        F: Future<Output = Result<S, E>>,
        S: Stream<Item = Result<B, G>>,
        B: AsRef<[u8]>,
        E: Into<BoxError>,
        G: Into<BoxError>,
    {
        let work = async {
            if self.use_base(image).await? {
                return Ok(Made::Before);
            }
            self.make_room(image.size_bytes, needed).await?;
            let source = fetch().await.map_err(|error| PoolError::Fetch(image.sha256, error.into()))?;
            let fetched = self.download(image, source).await?;
            self.adopt(image, needed, fetched).await
        };
        let made = self.inner().flights.run(image.sha256, work).await?;
        if made == Made::Now
            && let Err(error) = self.trim_images(needed).await
        {
            tracing::warn!(%error, "the image cache keeps more than it should");
        }
        Ok(made)
    }

    /// Streams to a file, checking length and digest.
    async fn download<S, B, E>(&self, image: &ImageSource, source: S) -> Result<Unfinished, PoolError>
    where
        S: Stream<Item = Result<B, E>>,
        B: AsRef<[u8]>,
        E: Into<BoxError>,
    {
        const STORE: &str = "store an image's bytes";
        let unfinished = Unfinished::new(self.inner().layout.fresh());
        let file = unfinished.create().map_err(PoolError::io(STORE))?;
        let mut file = tokio::fs::File::from_std(file);
        let (mut digest, mut got) = (sha2::Sha256::new(), 0);
        let mut source = pin!(source);
        while let Some(chunk) = source.next().await {
            let chunk = chunk.map_err(|error| PoolError::Fetch(image.sha256, error.into()))?;
            got += chunk.as_ref().len() as u64;
            if got > image.size_bytes {
                break;
            }
            digest.update(chunk.as_ref());
            file.write_all(chunk.as_ref()).await.map_err(PoolError::io(STORE))?;
        }
        file.flush().await.map_err(PoolError::io(STORE))?;
        if got != image.size_bytes {
            return Err(PoolError::Length { image: image.sha256, expected: image.size_bytes, got });
        }
        let got = Sha256::from_bytes(digest.finalize().into());
        if got != image.sha256 {
            return Err(PoolError::Digest { expected: image.sha256, got });
        }
        Ok(unfinished)
    }

    /// Makes the fetched file our own.
    async fn adopt(
        &self,
        image: &ImageSource,
        needed: Needed<'_>,
        fetched: Unfinished,
    ) -> Result<Made, PoolError> {
        const OPEN: &str = "open a fetched image";
        let path = fetched.path().to_owned();
        let input = blocking(OPEN, move || {
            let input = File::open(path)?;
            input.set_permissions(Permissions::from_mode(CONVERTER_INPUT))?;
            Ok(input)
        })
        .await?;
        let info = look(input.try_clone().map_err(PoolError::io(OPEN))?, image.format)
            .await?
            .map_err(|refused| PoolError::Refused(image.sha256, refused))?;
        if info.virtual_size_bytes != image.virtual_size_bytes {
            let (expected, got) = (image.virtual_size_bytes, info.virtual_size_bytes);
            return Err(PoolError::VirtualSize { image: image.sha256, expected, got });
        }
        let converted = self.convert(image.sha256, needed, input, &info).await?;
        drop(fetched);
        let target = self.base(image);
        blocking("put an image into the cache", move || converted.publish_new(&target)).await
    }

    /// One sandboxed conversion, whose result is inspected like an upload.
    async fn convert(
        &self,
        image: Sha256,
        needed: Needed<'_>,
        input: File,
        info: &ImageInfo,
    ) -> Result<Unfinished, PoolError> {
        const PREPARE: &str = "prepare a conversion";
        let Ok(_turn) = self.inner().conversions.acquire().await else {
            return Err(PoolError::io(PREPARE)(io::Error::other("no conversions any more")));
        };
        self.make_room(largest_output(info), needed).await?;
        let sandbox = &self.inner().sandbox;
        let converted = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(converted.path(), OPTIONS, None, info.virtual_size_bytes).await?;
        let (path, user) = (converted.path().to_owned(), sandbox.user());
        let output = blocking(PREPARE, move || {
            let output = File::options().read(true).write(true).open(path)?;
            hand_over(&output, user, PRIVATE_FILE)?;
            Ok(output)
        })
        .await?;
        let for_child = output.try_clone().map_err(PoolError::io(PREPARE))?;
        if let Err(error) = sandbox.convert(input, info, for_child).await {
            // Others may have taken the room meanwhile; the converter only says that it failed.
            self.require_space(NEARLY_FULL_BYTES).await?;
            return Err(PoolError::Convert(image, error));
        }
        let ours = user.map(|_| (Uid::effective(), Gid::effective()));
        let output = blocking("take a converted image back", move || {
            hand_over(&output, ours, READ_ONLY_FILE)?;
            Ok(output)
        })
        .await?;
        match look(output, Format::Qcow2).await? {
            Ok(made) if made.virtual_size_bytes == info.virtual_size_bytes => Ok(converted),
            Ok(_) => Err(PoolError::Converted(image, None)),
            Err(refused) => Err(PoolError::Converted(image, Some(refused))),
        }
    }
}

fn hand_over(file: &File, owner: Option<(Uid, Gid)>, mode: u32) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        fchown(file, Some(uid), Some(gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// What the parser says of an open file; the outer error is the host's.
async fn look(mut file: File, format: Format) -> Result<Result<ImageInfo, InspectError>, PoolError> {
    blocking("inspect an image", move || {
        let length = file.metadata()?.len();
        Ok(inspect(&mut file, format, length))
    })
    .await
}
