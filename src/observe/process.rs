//! Owns finding the process that sent a denied packet, where that can be known. Reads `/proc` only (`proc(5)`).

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use crate::input::Text;

/// A socket of a netns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The first process of the netns' container.
    pub pid: u32,
    /// The netns.
    pub inode: u64,
    /// The user the kernel named.
    pub uid: Option<u32>,
    /// The transport protocol (IANA number).
    pub protocol: u16,
    /// The socket's own port.
    pub port: u16,
    /// Its own address.
    pub address: IpAddr,
}

/// The longest table of sockets that is read, in bytes: a container can make it as long as it likes.
const LONGEST: u64 = 4 << 20;

/// The process whose socket it is, as name and pid; else the only process of that user in the netns. Blocking, until
/// `deadline`.
pub fn find(local: &Local, deadline: Instant) -> Option<Text> {
    let mut candidates = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        if Instant::now() >= deadline {
            return None;
        }
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let is_in = fs::metadata(path.join("ns/net")).is_ok_and(|ns| ns.ino() == local.inode);
        let is_users =
            local.uid.is_none_or(|uid| fs::metadata(&path).is_ok_and(|one| one.uid() == uid));
        if is_in && is_users {
            candidates.push(pid);
        }
    }
    let has_socket = socket(local)
        .and_then(|inode| candidates.iter().copied().find(|pid| holds(*pid, inode, deadline)));
    let only = || (candidates.len() == 1).then(|| candidates[0]);
    let pid = has_socket.or_else(only)?;
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Text::new(&format!("{} (pid {pid})", Text::from_bytes(name.trim_ascii_end()))))
}

/// The inode of the socket with this port.
fn socket(local: &Local) -> Option<u64> {
    let tables = match local.protocol {
        6 => ["tcp", "tcp6"],
        17 => ["udp", "udp6"],
        _ => return None,
    };
    let lines =
        tables.iter().filter_map(|table| read_table(&format!("/proc/{}/net/{table}", local.pid)));
    let mut best = None;
    for text in lines {
        for line in text.lines().skip(1) {
            let Some((address, port, inode)) = entry(line) else { continue };
            let is_any = address.is_unspecified();
            if port == local.port && inode != 0 && (is_any || address == local.address) {
                best = Some(inode);
            }
        }
    }
    best
}

fn read_table(path: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Address, port and inode of a line of `/proc/net/tcp` and its like.
fn entry(line: &str) -> Option<(IpAddr, u16, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(7)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words in the machine's own byte order.
    let word = |at: usize| {
        let text = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_slice()).ok()?))
                .to_canonical()
        }
        _ => return None,
    };
    Some((address, port, inode))
}

fn holds(pid: u32, inode: u64, deadline: Instant) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    for one in descriptors.flatten() {
        if Instant::now() >= deadline {
            return false;
        }
        if fs::read_link(one.path()).is_ok_and(|target| target == Path::new(&wanted)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(10)
    }

    #[test]
    fn the_process_of_a_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let port = socket.local_addr().unwrap().port();
        let mut local = Local {
            pid: std::process::id(),
            inode: own,
            uid: None,
            protocol: 17,
            port,
            address: [127, 0, 0, 1].into(),
        };
        let found = find(&local, soon()).unwrap();
        assert!(found.as_str().ends_with(&format!("(pid {})", std::process::id())), "{found}");
        local.inode = 1;
        assert_eq!(find(&local, soon()), None, "nobody is in that netns");
    }
}
