//! Open files of this process, of which sockets are most.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most that one kind of service has open for all networks.
const MOST: u64 = 4096;

/// Lets this process have as many open files as it may (`RLIMIT_NOFILE`). Returns how many.
pub fn raise_limit() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// What one kind of service may have open for all networks together: an eighth of what the process may have, and at most
/// [`MOST`], so that no guest, nor all of them, keep the agent from its own work.
pub fn share() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from((soft / 8).min(MOST)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_goes_up_to_what_is_allowed_and_a_service_has_its_share_of_it() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        assert_eq!(share(), 32);
        assert_eq!(raise_limit().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        assert_eq!(share() as u64, (hard / 8).min(MOST));
    }
}
