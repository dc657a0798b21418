//! B12: the path to a disk's bytes: reads through a volume beside a raw file, first writes to a fresh layer beside an
//! overlay made by hand with the same options. Both sides are driven by `qemu-img bench`, past the page cache.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use futures_util::stream;
use protocol::agent::{ImageSource, VolumeSpec};
use protocol::image::Format;
use protocol::{Generation, LayerId, MIB, Sha256, SizeGib, VolumeId};
use sha2::Digest;
use storage::{Options, Pool};
use uuid::Uuid;

use crate::compare::{Series, report};
use crate::create::{create_layer, run_command};

const IMAGE_MIB: usize = 512;
/// Reads of 64 KiB, one behind the other, the whole image once, 16 on their way.
const READS: [&str; 7] = ["-c", "8192", "-s", "65536", "-d", "16", "-n"];
/// Writes of 4 KiB, each into another cluster of 128 KiB, 16 on their way.
const WRITES: [&str; 10] = ["-w", "-c", "4000", "-s", "4096", "-S", "131072", "-d", "16", "-n"];

/// Alternates between the two sides.
pub(crate) async fn run(rounds: usize) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("cumulo-bench-").tempdir_in("/var/tmp")?;
    let work = Utf8Path::from_path(folder.path()).context("a path of text")?;
    let content = content();
    let raw = work.join("raw.img");
    write_synced(&raw, &content)?;
    let pool = Pool::open(&work.join("pool"), Options::new()?)?;
    let image = ImageSource {
        sha256: Sha256::from_bytes(sha2::Sha256::digest(&content).into()),
        format: Format::Raw,
        size_bytes: content.len() as u64,
        virtual_size_bytes: content.len() as u64,
    };
    let chunks: Vec<_> = content.chunks(1 << 20).map(|chunk| Ok::<_, Infallible>(chunk.to_vec())).collect();
    pool.ensure_base(&image, &HashSet::new, || async { Ok::<_, Infallible>(stream::iter(chunks)) }).await?;

    let mut reads = [Series::new("a volume over its image"), Series::new("a raw file")];
    let mut writes = [Series::new("a new volume over its image"), Series::new("an overlay made by hand")];
    for _ in 0..rounds {
        let volume = fresh(&pool, &image).await?;
        reads[0].values.push(rate(&READS, "qcow2", &volume, IMAGE_MIB * MIB as usize)?);
        reads[1].values.push(rate(&READS, "raw", &raw, IMAGE_MIB * MIB as usize)?);
        writes[0].values.push(rate(&WRITES, "qcow2", &volume, 4000 * 4096)?);
        let by_hand = by_hand(work, &pool.base(&image))?;
        writes[1].values.push(rate(&WRITES, "qcow2", &by_hand, 4000 * 4096)?);
        [&volume, &by_hand].into_iter().try_for_each(std::fs::remove_file)?;
    }
    report("b12-reads", "MiB/s", &reads[0], &reads[1])?;
    report("b12-first-writes", "MiB/s", &writes[0], &writes[1])
}

/// The writable layer of a new volume.
async fn fresh(pool: &Pool, image: &ImageSource) -> Result<Utf8PathBuf> {
    let layer = LayerId::from_uuid(Uuid::now_v7());
    let volume = VolumeSpec {
        id: VolumeId::from_uuid(Uuid::now_v7()),
        generation: Generation(1),
        size_gib: SizeGib(1),
        image: Some(image.clone()),
        layers: vec![layer],
        merges: Vec::new(),
        pool: None,
    };
    pool.ensure_volume(&volume).await?;
    Ok(pool.layer(layer))
}

fn by_hand(work: &Utf8Path, base: &Utf8Path) -> Result<Utf8PathBuf> {
    let path = work.join("by-hand.qcow2");
    create_layer(path.as_str(), base.as_str(), 1)?;
    Ok(path)
}

/// MiB per second.
fn rate(requests: &[&str], format: &str, path: &Utf8Path, bytes: usize) -> Result<f64> {
    let head = ["bench", "-q", "-t", "none", "-f", format];
    let started = Instant::now();
    run_command("qemu-img", &[&head[..], requests, &[path.as_str()]].concat())?;
    Ok(bytes as f64 / MIB as f64 / started.elapsed().as_secs_f64())
}

/// Bytes that no file system and no format can leave out.
fn content() -> Vec<u8> {
    let words = (1..=IMAGE_MIB as u64 * MIB / 8).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

fn write_synced(path: &Utf8Path, content: &[u8]) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
