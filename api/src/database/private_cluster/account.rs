//! The operating system account that PostgreSQL runs as.
//!
//! PostgreSQL refuses to be root. When we are, it runs as the distribution's `postgres`; otherwise it runs
//! as ourselves and nothing needs to be changed.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Stdio;

use camino::Utf8Path;
use nix::unistd::{Gid, Uid, User, geteuid};
use tokio::process::Command;

use super::error::ClusterError;

const POSTGRES: &str = "postgres";

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    /// Who we are: the name PostgreSQL sees when we connect.
    pub(super) client: String,
    uid: Uid,
    gid: Gid,
    /// Whether running as this account means giving up root.
    switch: bool,
}

impl Account {
    pub(super) fn choose() -> Result<Self, ClusterError> {
        let uid = geteuid();
        let nameless = || ClusterError::NamelessUser(uid.as_raw());
        let me = User::from_uid(uid).ok().flatten().ok_or_else(nameless)?;
        if !uid.is_root() {
            return Ok(Self { name: me.name.clone(), client: me.name, uid, gid: me.gid, switch: false });
        }
        let postgres = User::from_name(POSTGRES).ok().flatten().ok_or(ClusterError::NoAccount(POSTGRES))?;
        Ok(Self { name: postgres.name, client: me.name, uid: postgres.uid, gid: postgres.gid, switch: true })
    }

    /// A command that runs as this account, in a process group of its own (a Ctrl-C meant for us must not
    /// reach the database) and with an environment that does not depend on ours.
    pub(super) fn command(&self, program: &Utf8Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            // Ours may be closed to this account.
            .current_dir("/")
            .stdin(Stdio::null())
            .process_group(0);
        if self.switch {
            // Also drops the supplementary groups.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// Makes this account the owner of a file or folder of ours.
    pub(super) fn give(&self, path: &Utf8Path) -> Result<(), ClusterError> {
        if !self.switch {
            return Ok(());
        }
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
            .map_err(ClusterError::io("change the owner of", path))
    }

    /// Folders are given to the account before anything is read: what another one's PostgreSQL has must not be touched.
    pub(super) fn refuse_data_of_others(&self, cluster: &Utf8Path) -> Result<(), ClusterError> {
        let data = cluster.join("data");
        let owner = match data.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            metadata => Uid::from_raw(metadata.map_err(ClusterError::io("look at", &data))?.uid()),
        };
        // Nobody's PostgreSQL is root's.
        if owner == self.uid || owner.is_root() {
            return Ok(());
        }
        let name = User::from_uid(owner).ok().flatten().map_or(owner.to_string(), |user| user.name);
        // Root's is run by that account.
        let how = if name == POSTGRES {
            "as root".to_owned()
        } else {
            format!("as {name} (runuser -u {name} -- …)")
        };
        let (directory, account) = (cluster.to_owned(), self.name.clone());
        Err(ClusterError::OfOthers { directory, owner: name, account, how })
    }

    /// Every folder on the way to the cluster must let this account through. PostgreSQL itself would only
    /// say that something was denied, not where.
    pub(super) fn check_can_reach(&self, cluster: &Utf8Path) -> Result<(), ClusterError> {
        if !self.switch {
            return Ok(());
        }
        for directory in cluster.ancestors() {
            let metadata = directory.metadata().map_err(ClusterError::io("look at", directory))?;
            if !self.may_search(metadata.uid(), metadata.gid(), metadata.mode()) {
                return Err(ClusterError::Unsearchable {
                    account: self.name.clone(),
                    directory: directory.to_owned(),
                    cluster: cluster.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn may_search(&self, owner: u32, group: u32, mode: u32) -> bool {
        let class = if owner == self.uid.as_raw() {
            6
        } else if group == self.gid.as_raw() {
            3
        } else {
            0
        };
        mode >> class & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_applies_decides() {
        let account = Account {
            name: "postgres".into(),
            client: "root".into(),
            uid: Uid::from_raw(100),
            gid: Gid::from_raw(200),
            switch: true,
        };
        for (owner, group, mode, allowed) in [
            (0, 0, 0o755, true),
            (0, 0, 0o711, true),
            (0, 0, 0o750, false),
            (0, 200, 0o710, true),
            (0, 200, 0o701, false),
            (100, 0, 0o700, true),
            (100, 200, 0o071, false),
        ] {
            assert_eq!(account.may_search(owner, group, mode), allowed, "{owner} {group} {mode:o}");
        }
    }
}
