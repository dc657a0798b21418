//! The pool against real `qemu-img`, `mtools` and file systems.

mod base;
mod bombs;
mod cache;
mod copied;
mod corpus;
mod export;
mod formats;
mod headers;
mod images;
mod instances;
mod made;
mod memory;
mod seed;
mod shared;
mod volumes;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::stream;
use protocol::agent::{ImageSource, VolumeSpec};
use protocol::image::Format;
use protocol::{Generation, InstanceId, LayerId, Sha256, SizeGib, VolumeId};
use sha2::Digest;
use tempfile::TempDir;

use crate::sandbox::Sandbox;
use crate::{Made, Options, Pool, PoolError};

/// A pool of its own for a test, and a place for the test's files.
struct Fixture {
    _dir: TempDir,
    work: Utf8PathBuf,
    root: Utf8PathBuf,
    pool: Pool,
    fetches: AtomicU32,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Sandbox::new().unwrap())
    }

    fn with(sandbox: Sandbox) -> Self {
        Self::with_options(Options { sandbox, image_cache_bytes: None, record: None, instances: Vec::new() })
    }

    fn with_options(options: Options) -> Self {
        Self::within(&std::env::temp_dir(), options)
    }

    fn within(folder: &Path, options: Options) -> Self {
        let dir = tempfile::tempdir_in(folder).unwrap();
        let work = Utf8PathBuf::try_from(dir.path().canonicalize().unwrap()).unwrap();
        let root = work.join("pool");
        let pool = Pool::open(&root, options).unwrap();
        Self { _dir: dir, work, root, pool, fetches: AtomicU32::new(0) }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.work.join(name)
    }

    /// A raw disk of `mib` MiB with text in its first and second half.
    fn raw(&self, name: &str, mib: usize) -> Utf8PathBuf {
        let mut disk = vec![0; mib << 20];
        disk[..6].copy_from_slice(b"cumulo");
        disk[(mib << 20) / 2..][..4].copy_from_slice(b"half");
        let path = self.path(name);
        fs::write(&path, disk).unwrap();
        path
    }

    /// [`Fixture::raw`], converted by `qemu-img convert` with more arguments.
    fn qcow2(&self, name: &str, arguments: &[&str]) -> Utf8PathBuf {
        let (raw, path) = (self.raw("source.raw", 4), self.path(name));
        let head = ["convert", "-f", "raw", "-O", "qcow2"];
        qemu_img(&[&head[..], arguments, &[raw.as_str(), path.as_str()]].concat());
        path
    }

    /// Caches the file, sent in pieces.
    async fn cache(&self, path: &Utf8Path, image: &ImageSource) -> Result<Made, PoolError> {
        self.cache_beside(&[], path, image).await
    }

    /// The same while some images are needed.
    async fn cache_beside(
        &self,
        needed: &[&ImageSource],
        path: &Utf8Path,
        image: &ImageSource,
    ) -> Result<Made, PoolError> {
        let needed: HashSet<_> = needed.iter().map(|image| image.sha256).collect();
        let bytes = fs::read(path).unwrap();
        let fetch = || async {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            let pieces: Vec<Vec<u8>> = bytes.chunks(50_000).map(<[u8]>::to_vec).collect();
            Ok::<_, std::io::Error>(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
        };
        self.pool.ensure_base(image, &|| needed.clone(), fetch).await
    }

    /// Nothing unfinished, and nothing cached but what is named.
    fn assert_only(&self, images: &[&ImageSource]) {
        let names = |dir: &str| {
            let mut names: Vec<String> = self
                .root
                .join(dir)
                .read_dir_utf8()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("incoming"), Vec::<String>::new());
        let mut expected: Vec<String> =
            images.iter().map(|image| format!("{}.qcow2", image.sha256)).collect();
        expected.sort();
        assert_eq!(names("images"), expected);
    }
}

/// Nobody needs an image.
fn no_others() -> HashSet<Sha256> {
    HashSet::new()
}

fn qemu_img(arguments: &[&str]) -> String {
    tool("qemu-img", arguments)
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn info(path: &Utf8Path) -> serde_json::Value {
    serde_json::from_str(&qemu_img(&["info", "-f", "qcow2", "--output=json", path.as_str()])).unwrap()
}

/// What the control plane would say of the file.
fn source(path: &Utf8Path, format: Format, virtual_size_bytes: u64) -> ImageSource {
    let bytes = fs::read(path).unwrap();
    ImageSource {
        sha256: Sha256::from_bytes(sha2::Sha256::digest(&bytes).into()),
        format,
        size_bytes: bytes.len() as u64,
        virtual_size_bytes,
    }
}

fn instance(number: u128) -> InstanceId {
    InstanceId::from_uuid(uuid::Uuid::from_u128(number))
}

/// A volume of one layer over the image, both numbered.
fn volume(number: u128, image: Option<&ImageSource>, gib: u32) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId::from_uuid(uuid::Uuid::from_u128(number)),
        generation: Generation(1),
        pool: None,
        size_gib: SizeGib(gib),
        image: image.cloned(),
        layers: vec![layer(number)],
        merges: Vec::new(),
    }
}

fn layer(number: u128) -> LayerId {
    LayerId::from_uuid(uuid::Uuid::from_u128(number))
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
