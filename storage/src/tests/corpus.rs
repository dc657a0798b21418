//! The corpus of hostile images, through the whole pool, beside a file of the host that they would like to have.

use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use protocol::image::corpus::{Case, Fate, cases, honest};
use protocol::image::{ImageInfo, inspect};

use super::*;
use crate::Blame;

const SECRET: &[u8] = b"the canary sings";
/// Far above what any of them takes on a busy machine, far below the sandbox's own limits.
const LONGEST: Duration = Duration::from_secs(45);

/// A folder that everybody, also the converter's user, may read and write, and somebody who watches it.
struct Canary {
    _dir: TempDir,
    file: Utf8PathBuf,
    watch: Inotify,
}

impl Canary {
    fn new() -> Self {
        let open = fs::Permissions::from_mode(0o777);
        let dir = tempfile::Builder::new().permissions(open.clone()).tempdir().unwrap();
        fs::set_permissions(dir.path(), open).unwrap();
        let file = Utf8PathBuf::try_from(dir.path().canonicalize().unwrap().join("canary")).unwrap();
        fs::write(&file, SECRET.repeat(1000)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        watch.add_watch(dir.path(), AddWatchFlags::IN_ALL_EVENTS).unwrap();
        Self { _dir: dir, file, watch }
    }

    /// What has been done in the folder since the last call, by whomever: opened, read, written, made.
    fn events(&self) -> Vec<AddWatchFlags> {
        match self.watch.read_events() {
            Ok(events) => events.into_iter().map(|event| event.mask).collect(),
            Err(Errno::EAGAIN) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Puts the image through the pool; says what held.
async fn meet(fixture: &Fixture, case: &Case, bytes: &[u8]) -> String {
    let path = fixture.path("upload");
    fs::write(&path, bytes).unwrap();
    let length = bytes.len() as u64;
    let found = inspect(&mut std::io::Cursor::new(bytes), case.format, length);
    let virtual_size = found.map_or(length, |info| info.virtual_size_bytes);
    let image = source(&path, case.format, virtual_size);
    let outcome = fixture.cache(&path, &image).await;
    let outcome = outcome.map_err(|error| {
        assert_eq!(error.blame(), Blame::Image, "{}: {error:?}", case.name);
        match error {
            PoolError::Shared(shared) => shared,
            own => std::sync::Arc::new(own),
        }
    });
    match (case.fate, outcome.as_ref().map_err(|error| &**error)) {
        (Fate::Refused(code), Err(PoolError::Refused(_, why))) => {
            assert_eq!(why.code(), code, "{}", case.name);
            format!("refused before it is opened: {code}")
        }
        (Fate::Contained, Err(PoolError::Convert(..))) => "in the sandbox: the conversion fails".to_owned(),
        (Fate::Contained, Ok(_)) => {
            let base = fixture.pool.base(&image);
            let disk = fixture.path("contents.raw");
            qemu_img(&["convert", "-f", "qcow2", "-O", "raw", base.as_str(), disk.as_str()]);
            let disk = fs::read(disk).unwrap();
            assert!(
                !disk.windows(SECRET.len()).any(|window| window == SECRET),
                "{} has the secret",
                case.name
            );
            fs::remove_file(&base).unwrap();
            "in the sandbox: a disk without the secret".to_owned()
        }
        (fate, outcome) => panic!("{}: {outcome:?}, expected {fate:?}", case.name),
    }
}

#[tokio::test]
async fn hostile_images_reach_nothing() {
    let (fixture, canary) = (Fixture::new(), Canary::new());
    let mut contained = 0;
    for case in cases() {
        let began = Instant::now();
        let verdict = meet(&fixture, case, &case.bytes(canary.file.as_str())).await;
        println!("{}: {verdict}", case.name);
        assert!(began.elapsed() < LONGEST, "{} took {:?}", case.name, began.elapsed());
        assert_eq!(canary.events(), [], "{} was at the canary", case.name);
        fixture.assert_only(&[]);
        contained += u32::from(case.fate == Fate::Contained);
    }
    assert!(contained >= 10, "{contained} cases went through the sandbox");
    assert_eq!(fs::read(&canary.file).unwrap(), SECRET.repeat(1000));
    // The watch would have seen it: this was a reader.
    assert!(canary.events().contains(&AddWatchFlags::IN_ACCESS));
}

/// The seeds of the corpus are right: QEMU reads them as the parser does.
#[tokio::test]
async fn honest_seeds_are_converted() {
    let fixture = Fixture::new();
    for (name, format, bytes) in honest() {
        let path = fixture.path("upload");
        fs::write(&path, &bytes).unwrap();
        let info = inspect(&mut std::io::Cursor::new(&bytes), format, bytes.len() as u64).unwrap();
        let image = source(&path, format, info.virtual_size_bytes);
        fixture.cache(&path, &image).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let base = fixture.pool.base(&image);
        qemu_img(&["compare", "-f", format.as_str(), "-F", "qcow2", path.as_str(), base.as_str()]);
        fs::remove_file(&base).unwrap();
    }
    fixture.assert_only(&[]);
}

/// Were the parser blind: the converter may open what an image names, and is nobody.
#[tokio::test]
async fn behind_the_parser_there_is_nothing_to_gain() {
    let (fixture, canary) = (Fixture::new(), Canary::new());
    let sandbox = Sandbox::new().unwrap();
    let Some((uid, gid)) = sandbox.user() else {
        return println!(
            "not root: the converter has the rights of the user who runs us, and nothing is proven"
        );
    };
    // Like all that matters on a host.
    fs::set_permissions(&canary.file, fs::Permissions::from_mode(0o600)).unwrap();
    canary.events();
    let target = canary.file.as_str().as_bytes();
    let naming = |bytes: &[u8]| bytes.windows(target.len()).any(|window| window == target);
    let mut tried = 0;
    for case in cases() {
        let bytes = case.bytes(canary.file.as_str());
        if matches!(case.fate, Fate::Contained) || bytes.len() > 1 << 20 || !naming(&bytes) {
            continue;
        }
        let (input, output) = (fixture.path("input"), fixture.path("output"));
        fs::write(&input, &bytes).unwrap();
        fs::set_permissions(&input, fs::Permissions::from_mode(0o444)).unwrap();
        let size = 10 * protocol::MIB;
        crate::qemu_img::create(&output, "compat=1.1", None, size).await.unwrap();
        let made = fs::File::options().read(true).write(true).open(&output).unwrap();
        nix::unistd::fchown(&made, Some(uid), Some(gid)).unwrap();
        let info = ImageInfo { format: case.format, virtual_size_bytes: size, data_bytes: size };
        let outcome = sandbox.convert(fs::File::open(&input).unwrap(), &info, made).await;
        println!(
            "{}: {}",
            case.name,
            outcome.map_or_else(|error| error.to_string(), |()| "converted".to_owned())
        );
        let made = fs::read(&output).unwrap();
        assert!(!made.windows(SECRET.len()).any(|window| window == SECRET), "{} has the secret", case.name);
        assert_eq!(canary.events(), [], "{} was at the canary", case.name);
        tried += 1;
    }
    assert!(tried >= 20, "{tried} cases name a file");
    assert_eq!(fs::read(&canary.file).unwrap(), SECRET.repeat(1000));
}
