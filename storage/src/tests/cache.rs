//! Which images stay in the cache, and which go.

use std::fs::File;
use std::thread;

use futures_util::future::join_all;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocol::MIB;

use super::*;
use crate::Blame;
use crate::cache::now;

/// The most that an image of one MiB takes in the cache: its data, and five clusters of qcow2's own.
const ONE: u64 = MIB + 5 * 65536;
const LONG: Duration = Duration::from_secs(3600);

impl Fixture {
    /// In memory: images also go when the file system is almost full, as that of this machine may be.
    fn with_cache(bytes: u64) -> Self {
        Self::within(
            Path::new("/dev/shm"),
            Options { image_cache_bytes: Some(bytes), ..Options::new().unwrap() },
        )
    }

    /// An image full of this byte.
    fn full(&self, byte: u8, mib: usize) -> (Utf8PathBuf, ImageSource) {
        let path = self.path(&format!("{byte}.raw"));
        fs::write(&path, vec![byte; mib << 20]).unwrap();
        let image = source(&path, Format::Raw, (mib << 20) as u64);
        (path, image)
    }

    /// Such an image in the cache, last used so long ago.
    async fn cached(&self, byte: u8, mib: usize, ago: Duration) -> ImageSource {
        let (path, image) = self.full(byte, mib);
        self.cache(&path, &image).await.unwrap();
        self.last_used(&image, ago);
        image
    }

    fn last_used(&self, image: &ImageSource, ago: Duration) {
        let file = File::open(self.pool.base(image)).unwrap();
        file.set_modified(now() - ago).unwrap();
    }

    fn is_cached(&self, image: &ImageSource) -> bool {
        self.pool.base(image).exists()
    }
}

#[tokio::test]
async fn ten_instances_of_one_image_make_one_download_and_one_base() {
    let fixture = Fixture::new();
    let (path, image) = fixture.full(1, 1);
    let start = |number| {
        let (fixture, path, volume) = (&fixture, &path, volume(number, Some(&image), 1));
        async move {
            fixture.cache(path, volume.image.as_ref().unwrap()).await.unwrap();
            fixture.pool.ensure_volume(&volume).await.unwrap();
            info(&fixture.pool.layer(volume.layers[0]))["backing-filename"].clone()
        }
    };
    let stand_on = join_all((1..=10).map(start)).await;
    assert_eq!(stand_on, vec![serde_json::json!(fixture.pool.base(&image)); 10]);
    assert_eq!(fixture.fetches.load(Ordering::SeqCst), 1);
    fixture.assert_only(&[&image]);
    let usage = fixture.pool.usage().await.unwrap();
    assert!((MIB..=ONE).contains(&usage.image_cache_bytes), "{usage:?}");
}

#[tokio::test]
async fn above_the_limit_the_images_that_were_used_longest_ago_go() {
    let fixture = Fixture::with_cache(2 * ONE);
    // The memory of a guest stands on no image.
    fs::write(fixture.pool.memory(layer(9)), "LibvirtQemudSave").unwrap();
    let second = fixture.cached(2, 1, 2 * LONG).await;
    let first = fixture.cached(1, 1, 3 * LONG).await;
    assert!(fixture.is_cached(&first) && fixture.is_cached(&second), "as much as fits");
    let third = fixture.cached(3, 1, LONG).await;
    fixture.assert_only(&[&second, &third]);
    // Asked for again, it is no longer the one that goes next.
    fixture.cache(&fixture.path("2.raw"), &second).await.unwrap();
    let (path, fourth) = fixture.full(4, 1);
    fixture.cache(&path, &fourth).await.unwrap();
    fixture.assert_only(&[&second, &fourth]);
}

#[tokio::test]
async fn what_is_needed_stays_and_is_noted_across_a_restart() {
    let fixture = Fixture::with_cache(0);
    let [stood_on, wanted, open] = [
        fixture.cached(1, 1, LONG).await,
        fixture.cached(2, 1, LONG).await,
        fixture.cached(3, 1, LONG).await,
    ];
    let all = [&stood_on, &wanted, &open];
    // Each was the last to come, and is old since then.
    for (byte, image) in [(1, &stood_on), (2, &wanted), (3, &open)] {
        let path = fixture.path(&format!("{byte}.raw"));
        fixture.cache_beside(&all, &path, image).await.unwrap();
        fixture.last_used(image, LONG);
    }
    let [lower, upper] = [volume(1, Some(&stood_on), 1), volume(2, None, 1)];
    let upper =
        VolumeSpec { layers: vec![lower.layers[0], upper.layers[0]], image: Some(stood_on.clone()), ..upper };
    fixture.pool.ensure_volume(&upper).await.unwrap();
    let file = lock_as_qemu(&fixture.pool.base(&open));
    let idle = fixture.full(4, 1);
    fixture.cache_beside(&all, &idle.0, &idle.1).await.unwrap();
    fixture.assert_only(&[&stood_on, &wanted, &open, &idle.1]);
    fixture.last_used(&idle.1, LONG);
    fixture.last_used(&open, LONG);

    fixture.pool.trim_images(&|| HashSet::from([wanted.sha256])).await.unwrap();
    fixture.assert_only(&all);
    drop(file);
    // The use of what was needed just now is remembered, also by the next process.
    let Fixture { _dir, root, pool, .. } = fixture;
    pool.remove_layers(&upper.layers).await.unwrap();
    let bases = [&stood_on, &wanted, &open].map(|image| pool.base(image));
    drop(pool);
    let pool = Pool::open(&root, Options { image_cache_bytes: Some(0), ..Options::new().unwrap() }).unwrap();
    pool.trim_images(&no_others).await.unwrap();
    assert_eq!(bases.each_ref().map(|base| base.exists()), [true, true, false]);
    for base in &bases[..2] {
        File::open(base).unwrap().set_modified(now() - LONG).unwrap();
    }
    pool.trim_images(&no_others).await.unwrap();
    assert_eq!(bases.map(|base| base.exists()), [false; 3]);
}

/// Locks the bytes that a QEMU locks which reads the file.
fn lock_as_qemu(path: &Utf8Path) -> File {
    let file = File::open(path).unwrap();
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 100,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    file
}

#[tokio::test]
async fn nothing_goes_while_a_layer_cannot_be_read() {
    let fixture = Fixture::with_cache(0);
    let image = fixture.cached(1, 1, LONG).await;
    fs::write(fixture.pool.layer(layer(1)), "torn").unwrap();
    fixture.pool.trim_images(&no_others).await.unwrap_err();
    assert!(fixture.is_cached(&image));
}

/// Whoever was told that an image is there finds it, however eager the eviction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_does_not_go_between_being_asked_for_and_being_stood_on() {
    const ROUNDS: u128 = 30;
    let fixture = Fixture::with_cache(0);
    let (path, image) = fixture.full(1, 1);
    let evicting = tokio::spawn({
        let pool = fixture.pool.clone();
        async move {
            loop {
                pool.trim_images(&no_others).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for number in 1..=ROUNDS {
        fixture.cache(&path, &image).await.unwrap();
        let volume = volume(number, Some(&image), 1);
        fixture.pool.ensure_volume(&volume).await.unwrap();
        // Old as it is now, it is kept by the layer alone.
        fixture.last_used(&image, LONG);
        tokio::task::yield_now().await;
        qemu_img(&["check", "-q", "-f", "qcow2", fixture.pool.layer(volume.layers[0]).as_str()]);
        assert!(fixture.is_cached(&image), "round {number}");
        fixture.last_used(&image, LONG);
        fixture.pool.remove_layers(&volume.layers).await.unwrap();
        // In every other round there is time for the image to go.
        if number % 2 == 0 {
            wait_for("the eviction", || match File::open(fixture.pool.base(&image)) {
                // An eviction that had seen the layer may have noted the use once more.
                Ok(base) => base.set_modified(now() - LONG).is_err(),
                Err(_) => true,
            })
            .await;
        }
    }
    let fetched = u128::from(fixture.fetches.load(Ordering::SeqCst));
    assert!((ROUNDS / 2..=ROUNDS).contains(&fetched), "{fetched} downloads");
    evicting.abort();
}

#[test]
fn images_that_nobody_needs_make_room_for_a_new_one() {
    on_a_small_file_system(64, async |fixture| {
        let mut images = Vec::new();
        for byte in 1..=4 {
            images.push(fixture.cached(byte, 8, LONG * (10 - u32::from(byte))).await);
        }
        let (path, fifth) = fixture.full(5, 8);
        fixture.cache(&path, &fifth).await.unwrap();
        fixture.assert_only(&[&images[1], &images[2], &images[3], &fifth]);

        let needed = [&images[1], &images[2], &images[3], &fifth];
        let (path, sixth) = fixture.full(6, 8);
        let error = fixture.cache_beside(&needed, &path, &sixth).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Space, "{error:?}");
        fixture.assert_only(&needed);
    });
}

/// A pool on a file system of its own, which is gone with the thread that has mounted it. Takes root.
fn on_a_small_file_system(mib: u64, test: impl AsyncFnOnce(Fixture) + Send + 'static) {
    let inside = thread::spawn(move || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        mount(Some("pool"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap().join("pool");
        let options = Options { image_cache_bytes: Some(u64::MAX), ..Options::new().unwrap() };
        let fixture = Fixture { pool: Pool::open(&root, options).unwrap(), root, ..Fixture::new() };
        // Threads of this runtime are in this thread's namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(fixture));
        nix::mount::umount(dir.path()).unwrap();
    });
    inside.join().unwrap();
}
