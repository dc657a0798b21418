//! Reaps what libvirtd leaves behind, at once.
//!
//! libvirt detaches every QEMU and, when one ends, waits until it is reaped. That is up to the init process,
//! and some look only every other second. Here orphans become children of the test, which looks all the time.

use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::getsid;

/// How long to leave a child of ours to the one who waits for it.
const COURTESY: Duration = Duration::from_millis(2);

pub fn start() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    thread::spawn(|| {
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => {
                    let Some(pid) = status.pid() else { continue };
                    // What libvirt detaches has a session of its own; what the test starts has the test's.
                    if getsid(Some(pid)) == getsid(None) {
                        thread::sleep(COURTESY);
                    } else {
                        let _ = waitpid(pid, None);
                    }
                }
                // Nothing to wait for yet.
                Err(Errno::ECHILD) => thread::sleep(COURTESY),
                Err(Errno::EINTR) => {}
                Err(error) => panic!("waiting for orphans: {error}"),
            }
        }
    });
}
