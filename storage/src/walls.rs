//! The walls around a program that reads bytes of strangers: it sees itself, its libraries and the files that it is given,
//! and nothing else of the host; it has no network, no other processes and hardly any capability; all of it ends with us.
//! `unshare` of util-linux and bubblewrap build them, so that no code runs between fork and exec here.

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::Uid;

/// The only places where programs are looked for.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where programs and their libraries are, on any distribution.
const PROGRAMS: [&str; 7] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"];

/// The directory of programs that the path is in, if it is in one: each program behind the walls sees all that is there,
/// so no pool may be.
#[must_use]
pub fn shown_with_programs(path: &Utf8Path) -> Option<&'static str> {
    let real = |path: &Utf8Path| path.canonicalize_utf8().unwrap_or_else(|_| Utf8PathBuf::from(path));
    let resolved = real(path);
    PROGRAMS.into_iter().find(|shown| {
        let shown = Utf8Path::new(shown);
        path.starts_with(shown) || resolved.starts_with(real(shown))
    })
}

/// What a program may open by name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walls<'a> {
    pub read: &'a [&'a Utf8Path],
    pub write: &'a [&'a Utf8Path],
}

/// What is left of root behind the walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// To open what may be opened by name, whoever owns it.
    AnyOwner,
    /// All, for a program that gives them up.
    ToGiveUp,
}

impl Walls<'_> {
    /// A program and its arguments, up to those of the one behind the walls.
    pub(crate) fn command(&self, rights: Rights) -> Vec<String> {
        let mut command = vec!["unshare".to_owned()];
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
        if !Uid::effective().is_root() {
            add(&["--user", "--map-root-user"]);
        }
        // bwrap could do all of this, but while it begins, its child does not yet end with it.
        add(&["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child=SIGKILL", "--"]);
        // Without a namespace of its own for processes it would show those of the host.
        add(&["bwrap", "--unshare-pid", "--proc", "/proc", "--dev", "/dev", "--chdir", "/"]);
        PROGRAMS.iter().for_each(|path| add(&["--ro-bind-try", path, path]));
        // What is not there is not needed, and a link leads to what is not of the chain.
        self.read
            .iter()
            .filter(|path| !path.is_symlink())
            .for_each(|path| add(&["--ro-bind-try", path.as_str(), path.as_str()]));
        self.write.iter().for_each(|path| add(&["--bind", path.as_str(), path.as_str()]));
        if rights == Rights::AnyOwner {
            add(&["--cap-drop", "ALL", "--cap-add", "CAP_DAC_OVERRIDE"]);
        }
        add(&["--"]);
        command
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn a_pool_may_not_be_where_programs_are() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::try_from(folder.path().canonicalize().unwrap()).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink("/usr/share", &link).unwrap();
        for path in ["/usr", "/usr/local/pool", "/lib64/pool", "/etc/alternatives/pool", link.as_str()] {
            assert!(shown_with_programs(Utf8Path::new(path)).is_some(), "{path}");
        }
        for path in ["/srv/pool", "/usrlocal", "/", folder.as_str()] {
            assert_eq!(shown_with_programs(Utf8Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn nothing_but_the_files_that_are_given_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::try_from(folder.path().canonicalize().unwrap()).unwrap();
        let [read, write, other] = ["read", "write", "other"].map(|name| folder.join(name));
        for file in [&read, &write, &other] {
            fs::write(file, "before").unwrap();
        }
        let link = folder.join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let walls = Walls { read: &[&read, &write, &link, &folder.join("missing")], write: &[&write] };
        let command = walls.command(Rights::AnyOwner);
        let script = "ls -A $1; cat $1/read; echo after > $1/write; (echo after > $1/read); cat /etc/shadow; \
                      grep -c : /proc/net/dev; ls -d /proc/[0-9]* | wc -l; mount -t tmpfs none /tmp; echo done";
        let arguments = ["sh", "-c", script, "sh", folder.as_str()];
        let ran = Command::new(&command[0]).args(&command[1..]).args(arguments).output().unwrap();
        let (said, complaints) =
            (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        // Its own loopback interface; bwrap, the shell, and what the shell runs.
        let expected = "read\nwrite\nbefore1\n";
        assert!(said.starts_with(expected) && said.ends_with("done\n"), "{said}\n{complaints}");
        let processes: u32 = said[expected.len()..].lines().next().unwrap().trim().parse().unwrap();
        assert!(processes <= 5, "{said}");
        for refused in ["read: Read-only file system", "/etc/shadow: No such file", "mount: "] {
            assert!(complaints.contains(refused), "{refused}: {complaints}");
        }
        let [read, write, other] = [read, write, other].map(|file| fs::read_to_string(file).unwrap());
        assert_eq!([read, write, other], ["before", "after\n", "before"]);
    }
}
