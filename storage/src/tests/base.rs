//! Caching images.

use futures_util::future::join_all;
use protocol::MIB;

use super::*;
use crate::Blame;

#[tokio::test]
async fn an_image_becomes_a_file_of_our_own() {
    let fixture = Fixture::new();
    for flavour in [&[][..], &["-o", "compat=0.10"], &["-c", "-o", "compression_type=zstd,cluster_size=2M"]] {
        let path = fixture.qcow2("upload.qcow2", flavour);
        let image = source(&path, Format::Qcow2, 4 * MIB);
        assert_eq!(fixture.cache(&path, &image).await.unwrap(), Made::Now);
        assert_eq!(fixture.cache(&path, &image).await.unwrap(), Made::Before);
        let base = fixture.pool.base(&image);
        qemu_img(&["compare", "-f", "qcow2", "-F", "qcow2", path.as_str(), base.as_str()]);
        qemu_img(&["check", "-q", "-f", "qcow2", base.as_str()]);
        let info = info(&base);
        assert_eq!(info["cluster-size"], 65536);
        let data = &info["format-specific"]["data"];
        assert_eq!((&data["compat"], &data["lazy-refcounts"]), (&"1.1".into(), &false.into()));
        assert_eq!(mode(&base), 0o444);
        fs::remove_file(&base).unwrap();
    }
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_raw_image_is_read_as_raw_and_keeps_its_holes() {
    let fixture = Fixture::new();
    let path = fixture.raw("upload.raw", 64);
    let image = source(&path, Format::Raw, 64 * MIB);
    fixture.cache(&path, &image).await.unwrap();
    let base = fixture.pool.base(&image);
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2", path.as_str(), base.as_str()]);
    assert!(fs::metadata(&base).unwrap().len() < 2 * MIB);
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn ten_callers_make_one_download() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let outcomes = join_all((0..10).map(|_| fixture.cache(&path, &image))).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Made::Now))).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Made::Before))).count(), 9);
    assert_eq!(fixture.fetches.load(Ordering::SeqCst), 1);
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn ten_callers_share_a_failure_and_the_next_one_tries_again() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let mut image = source(&path, Format::Qcow2, 4 * MIB);
    image.sha256 = Sha256::from_bytes([7; 32]);
    let outcomes = join_all((0..10).map(|_| fixture.cache(&path, &image))).await;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.blame(), Blame::Source);
        assert!(error.to_string().contains("digest"), "{error}");
    }
    assert_eq!(fixture.fetches.load(Ordering::SeqCst), 1);
    fixture.cache(&path, &image).await.unwrap_err();
    assert_eq!(fixture.fetches.load(Ordering::SeqCst), 2);
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_source_that_sends_too_little_too_much_or_breaks_is_named() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    for size_bytes in [image.size_bytes + 1, image.size_bytes - 1] {
        let error = fixture.cache(&path, &ImageSource { size_bytes, ..image.clone() }).await.unwrap_err();
        assert!(error.to_string().contains(&size_bytes.to_string()), "{error}");
        assert_eq!(error.blame(), Blame::Source);
    }
    let breaks = || async {
        let pieces = [Ok(vec![1; 10]), Err(std::io::Error::other("connection reset"))];
        Ok::<_, std::io::Error>(stream::iter(pieces))
    };
    let error = fixture.pool.ensure_base(&image, &no_others, breaks).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Source);
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_hostile_image_is_refused_before_it_is_converted() {
    let fixture = Fixture::new();
    let path = fixture.path("passwd.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw"];
    qemu_img(&[&create[..], &[path.as_str(), "4M"]].concat());
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let error = fixture.cache(&path, &image).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image);
    assert!(error.to_string().ends_with("is refused"), "{error}");
    // The same bytes under another name, and a disk of another size than was said.
    let raw = ImageSource { format: Format::Raw, virtual_size_bytes: image.size_bytes, ..image };
    assert_eq!(fixture.cache(&path, &raw).await.unwrap_err().blame(), Blame::Image);
    let honest = fixture.qcow2("upload.qcow2", &[]);
    let lie = source(&honest, Format::Qcow2, 8 * MIB);
    let error = fixture.cache(&honest, &lie).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image);
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn data_that_does_not_unpack_is_the_images_fault() {
    let fixture = Fixture::new();
    let path = fixture.path("broken.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", path.as_str(), "4M"]);
    tool("qemu-io", &["-f", "qcow2", "-c", "write -c -P 7 0 64k", path.as_str()]);
    let mut bytes = fs::read(&path).unwrap();
    // The compressed data is the last thing in the file.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 15..=end].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let error = fixture.cache(&path, &source(&path, Format::Qcow2, 4 * MIB)).await.unwrap_err();
    assert!(format!("{error:?}").contains("Convert"), "{error:?}");
    assert_eq!(error.blame(), Blame::Image, "{error:?}");
    fixture.assert_only(&[]);
}

/// The shape in which an agent calls: boxed, and from a task that may move between threads.
#[tokio::test]
async fn caching_can_move_between_threads() {
    use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
    type Pieces = BoxStream<'static, std::io::Result<Vec<u8>>>;
    type BoxError = Box<dyn std::error::Error + Send + Sync>;

    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let (pool, bytes) = (fixture.pool.clone(), fs::read(&path).unwrap());
    let pieces = async move { Ok(stream::iter([Ok(bytes)]).boxed()) };
    let fetch: BoxFuture<'static, Result<Pieces, BoxError>> = pieces.boxed();
    let cached = image.clone();
    let task = tokio::spawn(async move { pool.ensure_base(&cached, &no_others, || fetch).await });
    assert_eq!(task.await.unwrap().unwrap(), Made::Now);
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn a_call_that_goes_away_leaves_nothing_and_hands_on() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let pool = fixture.pool.clone();
    let stuck = tokio::spawn({
        let image = image.clone();
        async move {
            let silent =
                || async { Ok::<_, std::io::Error>(stream::pending::<Result<Vec<u8>, std::io::Error>>()) };
            pool.ensure_base(&image, &no_others, silent).await
        }
    });
    let incoming = fixture.root.join("incoming");
    wait_for("the download", || incoming.read_dir_utf8().unwrap().count() == 1).await;
    let next = fixture.cache(&path, &image);
    let cancel = async {
        stuck.abort();
        assert!(stuck.await.unwrap_err().is_cancelled());
    };
    assert_eq!(tokio::join!(next, cancel).0.unwrap(), Made::Now);
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn opening_clears_unfinished_work_and_locks_others_out() {
    let fixture = Fixture::new();
    assert!(matches!(Pool::open(&fixture.root, Options::new().unwrap()), Err(PoolError::InUse)));
    let root = fixture.root.clone();
    fs::write(root.join("incoming/half"), b"half").unwrap();
    fs::create_dir(root.join("incoming/grave")).unwrap();
    fs::write(root.join("incoming/grave/root.qcow2"), b"old").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("incoming/link")).unwrap();
    let Fixture { _dir, pool, .. } = fixture;
    drop(pool);
    let _pool = Pool::open(&root, Options::new().unwrap()).unwrap();
    assert_eq!(root.join("incoming").read_dir_utf8().unwrap().count(), 0);
    assert!(fs::exists("/etc/passwd").unwrap());
    assert_eq!(mode(&root.join("incoming")), 0o700);
    for dir in [root.clone(), root.join("images"), root.join("instances")] {
        assert_eq!(mode(&dir), 0o711);
    }
}

fn mode(path: &Utf8Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
