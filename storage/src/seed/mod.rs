//! Seeds: the small disk from which cloud-init's NoCloud data source configures a guest.

mod fat;
mod nocloud;

use std::fs;
use std::io::{self, Write};

use camino::Utf8Path;
use protocol::agent::Seed;
use protocol::{InstanceId, Name};

use crate::durable::{REACHABLE_DIR, Unfinished, blocking, make_dir};
use crate::{InstancePaths, Made, Pool, PoolError};

impl Pool {
    /// Makes the seed, in place of one with other contents. May hold secrets: for its owner alone.
    pub async fn ensure_seed(&self, id: InstanceId, hostname: &Name, seed: &Seed) -> Result<Made, PoolError> {
        let files = nocloud::files(id, hostname, seed).map_err(PoolError::io("make the seed"))?;
        let (paths, fresh) = (self.paths(id), self.inner().layout.fresh());
        blocking("make the seed", move || write(&paths, &fresh, &fat::image(&files)?)).await
    }
}

fn write(paths: &InstancePaths, fresh: &Utf8Path, image: &[u8]) -> io::Result<Made> {
    // The same contents always make the same bytes.
    if fs::read(&paths.seed).is_ok_and(|there| there == image) {
        return Ok(Made::Before);
    }
    let seed = Unfinished::new(fresh.to_owned());
    seed.create()?.write_all(image)?;
    make_dir(&paths.dir, REACHABLE_DIR)?;
    seed.publish_over(&paths.seed)?;
    Ok(Made::Now)
}
