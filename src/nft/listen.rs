//! Owns the sockets by which a netns' denials and connections are heard. They keep the netns alive while they are open.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

use super::log::bind_groups;
use super::netns::{Entrance, Netns, NetnsError};

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY` as bits.
const CONNECTIONS: u32 = 0x1 | 0x4;
/// Room for what is told between two looks, in bytes. What does not fit is told to be lost.
const BUFFER: usize = 1 << 20;
/// The netns' own setting of whether connections' packets and bytes are counted (`nf_conntrack-sysctl`, 0 or 1).
const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// What is heard of one netns.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Told of logged packets. None where somebody else is, or the kernel has no NFLOG, and why.
    pub log: Result<Arc<OwnedFd>, String>,
    /// Told of connections.
    pub connections: Arc<OwnedFd>,
}

impl Entrance {
    /// Has denials and connections of a netns be told from now on.
    pub fn listen(&self, netns: &Netns) -> Result<Listeners, NetnsError> {
        self.enter(netns, || {
            // Bytes are for people; where they cannot be counted connections are still told.
            let _ = std::fs::write(ACCOUNTING, "1");
            let netfilter = SockProtocol::NetlinkNetFilter;
            let log = open(netfilter, 0).and_then(|socket| bind_groups(&socket).map(|()| socket));
            let log = log.map_err(|error| match error.raw_os_error() {
                Some(libc::EBUSY | libc::EPERM) => {
                    "another process listens to NFLOG group 5747 or 5748 there".to_owned()
                }
                _ => format!("NFLOG cannot be heard: {error}"),
            });
            let connections = Arc::new(open(netfilter, CONNECTIONS)?);
            Ok(Listeners { log: log.map(Arc::new), connections })
        })
    }
}

/// A socket that is told what these groups are told, in the calling thread's netns.
pub(super) fn open(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    // Where there is less room more is lost, and that is told.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// What one look at a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is nothing more.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// More was told than there was room for.
    Lost,
}

/// Reads what the kernel told next. What a process of the netns sent is passed over: with `NET_ADMIN` it could say anything
/// (security model 7).
pub fn hear(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Heard> {
    loop {
        return match recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer) {
            Ok((length, from)) => match from {
                Some(from) if from.pid() != 0 => continue,
                _ => Ok(Heard::Bytes(length)),
            },
            Err(Errno::EAGAIN) => Ok(Heard::Nothing),
            Err(Errno::ENOBUFS) => Ok(Heard::Lost),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno.into()),
        };
    }
}
