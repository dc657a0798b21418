//! Whether a TCP port is free, and if not, who has it.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// An error that names the owner of the port and the variable that chooses another.
pub(crate) fn ensure_free(address: SocketAddr, variable: &str) -> Result<()> {
    let Err(error) = TcpListener::bind(address) else { return Ok(()) };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        bail!("cannot listen on {address}: {error}; choose another address with {variable}=ADDRESS:PORT");
    }
    let owner = owner(address.port()).unwrap_or_else(|| "another process".to_owned());
    let other = SocketAddr::new(address.ip(), address.port().saturating_add(10_000));
    bail!("port {} is taken by {owner}; choose another with {variable}={other}", address.port())
}

/// The process that listens on a port, as `name (pid 1)`.
fn owner(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().find_map(|line| listening_inode(line, port))
    })?;
    let socket = format!("socket:[{inode}]");
    crate::process::all().into_iter().find_map(|process| {
        let mut files = fs::read_dir(format!("/proc/{}/fd", process.pid)).ok()?.flatten();
        files.find(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })?;
        let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).ok()?;
        Some(format!("{} (pid {})", name.trim(), process.pid))
    })
}

/// The socket of a line of `/proc/net/tcp` (`proc_net_tcp`): field 1 is the local address with the port in
/// hexadecimal, field 3 the state (0A listens), field 9 the inode.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.split_once(':')?;
    (u16::from_str_radix(local_port, 16) == Ok(port) && *fields.get(3)? == "0A")
        .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refusal = ensure_free(address, "CUMULO_LISTEN").unwrap_err().to_string();
        assert!(refusal.contains(&format!("(pid {})", std::process::id())), "{refusal}");
        assert!(refusal.contains("CUMULO_LISTEN=127.0.0.1:"), "{refusal}");
        drop(taken);
        ensure_free(address, "CUMULO_LISTEN").unwrap();
    }
}
