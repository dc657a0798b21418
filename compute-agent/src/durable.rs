//! Files that are either the old or the new, never half of one.
//!
//! Written beside their place, synced, renamed, and the folder synced: after a return the new contents
//! survive a power cut. A leftover of an interrupted write ends in `.new` and is ignored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use camino::Utf8Path;
use serde::de::DeserializeOwned;

/// The suffix of a file that is being written.
const UNFINISHED: &str = ".new";

/// How much a write has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survive {
    /// The death of this process.
    Process,
    /// A power cut.
    PowerCut,
}

/// Makes a folder for its owner alone, unless it is there.
pub(crate) fn make_folder(folder: &Utf8Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces `path`, readable by its owner alone.
pub(crate) fn write(path: &Utf8Path, contents: &[u8], survive: Survive) -> io::Result<()> {
    stage(path, contents, survive)?;
    if survive == Survive::PowerCut { sync_parent(path) } else { Ok(()) }
}

/// Replaces several files of one folder, with one sync of the folder for all.
pub(crate) fn write_all<'a>(
    folder: &Utf8Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> io::Result<()> {
    for (name, contents) in files {
        stage(&folder.join(name), contents, Survive::PowerCut)?;
    }
    sync_folder(folder)
}

fn stage(path: &Utf8Path, contents: &[u8], survive: Survive) -> io::Result<()> {
    let unfinished = format!("{path}{UNFINISHED}");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(contents)?;
    if survive == Survive::PowerCut {
        file.sync_data()?;
    }
    fs::rename(&unfinished, path)
}

/// Removes `path` for good; that it is missing already is fine.
pub(crate) fn remove(path: &Utf8Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(path),
    }
}

/// Runs blocking file work where it does not hold up the agent.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Makes a new name in `folder` permanent.
pub(crate) fn sync_folder(folder: &Utf8Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Utf8Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

/// Every finished `<key>.json` of a folder, parsed. What cannot be read is logged and left out: one bad
/// file must not keep the others from being looked after.
pub(crate) fn read_json_folder<K, V>(folder: &Utf8Path) -> io::Result<Vec<(K, V)>>
where
    K: std::str::FromStr,
    V: DeserializeOwned,
{
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let Some(key) = entry.file_name().strip_suffix(".json").and_then(|stem| stem.parse().ok()) else {
            continue;
        };
        let parsed =
            fs::read(entry.path()).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match parsed {
            Ok(value) => found.push((key, value)),
            Err(error) => tracing::error!(file = %entry.path(), %error, "unreadable state file is left out"),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_write_replaces_keeps_others_out_and_an_unfinished_one_is_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(dir.path()).unwrap();
        let path = folder.join("1.json");
        write(&path, b"1", Survive::PowerCut).unwrap();
        write(&path, b"2", Survive::Process).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(folder.join("3.json.new"), b"3").unwrap();
        fs::write(folder.join("4.json"), b"half a fi").unwrap();

        assert_eq!(read_json_folder::<u8, u8>(folder).unwrap(), [(1, 2)]);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
