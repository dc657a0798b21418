//! Where everything of a cluster lies.
//!
//! ```text
//! <cluster>/            ours; others may pass through, not look
//!   lock                held by the process that keeps the cluster
//!   conf/               ours: PostgreSQL reads its configuration and cannot change it
//!   data/               PostgreSQL's
//!   run/                PostgreSQL's: the socket, for it and for root only
//!   postgres.log        ours, appended by PostgreSQL; postgres.log.1 is the part before
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::account::Account;
use super::error::ClusterError;

pub(super) const PORT: u16 = 5432;

/// `sockaddr_un.sun_path` holds 108 bytes with the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The log is moved aside when it has grown past this, so both parts stay within twice as much.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// How much of the log an error message may quote.
const QUOTED_LOG_BYTES: u64 = 2048;

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: Utf8PathBuf,
}

impl Layout {
    /// Makes the folders, as far as they are missing, and checks what can be checked beforehand.
    pub(super) fn prepare(root: &Utf8Path, account: &Account) -> Result<Self, ClusterError> {
        let io = ClusterError::io;
        fs::create_dir_all(root).map_err(io("create", root))?;
        // The kernel shows a process its working directory without links: compare like with like.
        let root = root.canonicalize_utf8().map_err(io("resolve", root))?;
        set_mode(&root, 0o711)?;
        let layout = Self { root };
        let socket = layout.run().join(format!(".s.PGSQL.{PORT}"));
        if socket.as_str().len() > MAX_SOCKET_PATH {
            return Err(ClusterError::SocketPathTooLong { path: socket });
        }
        account.check_can_reach(&layout.root)?;
        make_directory(&layout.conf(), 0o755)?;
        make_directory(&layout.run(), 0o700)?;
        account.give(&layout.run())?;
        Ok(layout)
    }

    pub(super) fn data(&self) -> Utf8PathBuf {
        self.root.join("data")
    }

    pub(super) fn conf(&self) -> Utf8PathBuf {
        self.root.join("conf")
    }

    pub(super) fn run(&self) -> Utf8PathBuf {
        self.root.join("run")
    }

    fn log(&self) -> Utf8PathBuf {
        self.root.join("postgres.log")
    }

    /// One process keeps a cluster. The kernel lets go of the lock however that process ends.
    pub(super) fn lock(&self) -> Result<File, ClusterError> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(ClusterError::InUse { directory: self.root.clone() }),
            Err(fs::TryLockError::Error(error)) => Err(ClusterError::io("lock", &path)(error)),
        }
    }

    /// The log, for PostgreSQL to append to.
    pub(super) fn open_log(&self) -> Result<File, ClusterError> {
        let path = self.log();
        OpenOptions::new().create(true).append(true).open(&path).map_err(ClusterError::io("open", &path))
    }

    pub(super) fn log_len(&self) -> u64 {
        self.log().metadata().map_or(0, |metadata| metadata.len())
    }

    /// Keeps the log bounded. PostgreSQL goes on writing to the same file, so it is copied and emptied;
    /// a line written in between is lost, and none that matters more than a full disk.
    pub(super) fn trim_log(&self) {
        if self.log_len() <= MAX_LOG_BYTES {
            return;
        }
        let path = self.log();
        let trimmed = fs::copy(&path, self.root.join("postgres.log.1"))
            .and_then(|_| OpenOptions::new().write(true).open(&path)?.set_len(0));
        if let Err(error) = trimmed {
            tracing::warn!(%path, %error, "cannot trim the log of PostgreSQL");
        }
    }

    /// The end of what PostgreSQL has logged since the log was `since` bytes long.
    pub(super) fn log_after(&self, since: u64) -> String {
        read_tail(&self.log(), since).unwrap_or_default().trim().to_owned()
    }
}

/// Opens a file to lock, without touching what is in it.
pub(in crate::database) fn open_lock(path: &Utf8Path) -> Result<File, ClusterError> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(ClusterError::io("open", path))
}

/// Makes a folder with exactly this mode, whatever the umask, unless it is there.
pub(super) fn make_directory(path: &Utf8Path, mode: u32) -> Result<(), ClusterError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(error) => return Err(ClusterError::io("create", path)(error)),
    }
    set_mode(path, mode)
}

/// Sets the mode of a file or folder of ours, whatever the umask.
pub(in crate::database) fn set_mode(path: &Utf8Path, mode: u32) -> Result<(), ClusterError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(ClusterError::io("set the mode of", path))
}

fn read_tail(path: &Utf8Path, since: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = since.max(file.metadata()?.len().saturating_sub(QUOTED_LOG_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(QUOTED_LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
