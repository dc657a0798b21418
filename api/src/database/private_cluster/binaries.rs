//! Finds the distribution's PostgreSQL programs.

use std::fs;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use super::error::ClusterError;

/// Debian and Ubuntu keep each major version in `<version>/bin` below this.
const DISTRIBUTION: &str = "/usr/lib/postgresql";

/// The programs of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) directory: Utf8PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    /// The programs for the data directory: those of the version that made it, or the newest for a new
    /// one. A distribution upgrade installs a newer version beside the old; that must change nothing.
    pub(super) fn find(chosen: Option<&Utf8Path>, data: &Utf8Path) -> Result<Self, ClusterError> {
        let installed = match chosen {
            Some(directory) => vec![Self::in_directory(directory)?],
            None => Self::installed(&["postgres", "initdb"]),
        };
        let made_by = version_of(data)?;
        Self::choose(installed, made_by.as_deref(), data)
    }

    fn choose(
        mut installed: Vec<Self>,
        made_by: Option<&str>,
        data: &Utf8Path,
    ) -> Result<Self, ClusterError> {
        installed.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        let Some(newest) = installed.first() else {
            return Err(ClusterError::NoBinaries { searched: DISTRIBUTION.into() });
        };
        let Some(made_by) = made_by else { return Ok(newest.clone()) };
        let versions: Vec<_> = installed.iter().map(|binaries| binaries.major.to_string()).collect();
        installed.into_iter().find(|binaries| binaries.major.to_string() == made_by).ok_or_else(|| {
            ClusterError::WrongVersion {
                data: data.to_owned(),
                made_by: made_by.to_owned(),
                found: versions.join(", "),
            }
        })
    }

    /// `pg_dump` and `pg_restore` of this very version: older ones refuse the server, and newer ones write what it refuses.
    pub(super) fn of_clients(major: u32) -> Result<Self, ClusterError> {
        let found =
            Self::installed(&["pg_dump", "pg_restore"]).into_iter().find(|found| found.major == major);
        found.ok_or(ClusterError::NoPrograms { major })
    }

    fn installed(programs: &[&str]) -> Vec<Self> {
        let Ok(versions) = Utf8Path::new(DISTRIBUTION).read_dir_utf8() else { return Vec::new() };
        versions
            .flatten()
            .filter_map(|version| {
                let directory = version.path().join("bin");
                let major = version.file_name().parse().ok()?;
                let complete = programs.iter().all(|name| directory.join(name).is_file());
                complete.then_some(Self { directory, major })
            })
            .collect()
    }

    /// Asks the programs of a directory outside the distribution's scheme for their version.
    fn in_directory(directory: &Utf8Path) -> Result<Self, ClusterError> {
        let unusable = || ClusterError::UnusableBinaries { directory: directory.to_owned() };
        let output = Command::new(directory.join("postgres"))
            .arg("--version")
            .env_clear()
            .output()
            .map_err(|_| unusable())?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", or "17beta1" in place of the number.
        let version = text.split_whitespace().nth(2).ok_or_else(unusable)?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().map_err(|_| unusable())?;
        Ok(Self { directory: directory.to_owned(), major })
    }

    pub(super) fn program(&self, name: &str) -> Utf8PathBuf {
        self.directory.join(name)
    }
}

/// The major version that made a data directory; `None` when there is none yet.
fn version_of(data: &Utf8Path) -> Result<Option<String>, ClusterError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::io("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { directory: format!("/usr/lib/postgresql/{major}/bin").into(), major }
    }

    #[test]
    fn an_existing_cluster_keeps_its_version_and_a_new_one_takes_the_newest() {
        let installed = || vec![binaries(9), binaries(17), binaries(15)];
        let data = Utf8Path::new("/data");
        assert_eq!(Binaries::choose(installed(), None, data).unwrap(), binaries(17));
        assert_eq!(Binaries::choose(installed(), Some("15"), data).unwrap(), binaries(15));
        let error = Binaries::choose(installed(), Some("16"), data).unwrap_err().to_string();
        assert!(error.contains("made by PostgreSQL 16, but only 17, 15, 9 is installed"), "{error}");
        assert!(matches!(Binaries::choose(vec![], None, data), Err(ClusterError::NoBinaries { .. })));
    }

    #[test]
    fn a_chosen_directory_is_asked_for_its_version() {
        let newest = Binaries::find(None, Utf8Path::new("/nonexistent")).unwrap();
        let chosen = Binaries::find(Some(&newest.directory), Utf8Path::new("/nonexistent")).unwrap();
        assert_eq!(chosen, newest);
        let error = Binaries::find(Some(Utf8Path::new("/nonexistent")), Utf8Path::new("/nonexistent"));
        assert!(matches!(error, Err(ClusterError::UnusableBinaries { .. })));
    }
}
