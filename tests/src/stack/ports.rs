//! Who listens on a port, read from /proc.

use std::fs;
use std::net::SocketAddr;

/// The process that listens on the address, if it can be known.
pub(crate) fn listener(address: SocketAddr) -> Option<i32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let port = format!(":{:04X}", address.port());
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The fields are: number, local address, remote address, state (0A listens), ..., inode.
        (fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A")
            .then(|| (*fields.get(9)?).to_owned().into())
            .flatten()
    });
    let socket = format!("socket:[{}]", inode.unwrap_or_else(String::new));
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        if files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        }) {
            return Some(pid);
        }
    }
    None
}

/// Whether nothing listens there.
pub(crate) fn is_free(address: SocketAddr) -> bool {
    std::net::TcpListener::bind(address).is_ok()
}
