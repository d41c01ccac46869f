//! Owns netlink sockets: opening them, and taking what the kernel sends to one, and nothing that anybody else does.
//!
//! Whoever has `NET_ADMIN` in a netns can send to every netlink socket that acts on it: an answer that the table is as it
//! was left, a denial that never was; or so much that there is no room for the kernel's own answer (security model 7). The
//! kernel sends from port 0 (`netlink(7)`), and a socket that is connected to port 0 is refused to everybody else who sends
//! to it alone (`netlink_getsockbyportid`). What is sent to a group still comes, and is told apart by its sender.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// An answer of the kernel's is there within this, or is not coming any more.
const PATIENCE_SECONDS: i64 = 5;

/// A socket that acts on the calling thread's netns, and is told what these groups are told. Reading from it waits for some
/// seconds at most.
pub(super) fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
    Ok(fd)
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes of the kernel's.
    Kernels(usize),
    /// Something of somebody else's.
    Others,
}

/// The next thing that was sent. Waits for it, unless the socket or `flags` say otherwise.
///
/// Errors: `EAGAIN` where there is nothing and waiting was not asked for, or took too long, `ENOBUFS` where there was more
/// than room for it.
pub(super) fn receive_any(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<Received, Errno> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        return match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, flags) {
            Ok(message) if message.address.is_some_and(|from| from.pid() != 0) => {
                Ok(Received::Others)
            }
            Ok(message) => Ok(Received::Kernels(message.bytes)),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// The length of the next thing the kernel sent, for sockets that are in no group: nobody else can send to them.
pub(super) fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    match receive_any(socket, buffer, flags)? {
        Received::Kernels(length) => Ok(length),
        Received::Others => Err(Errno::EPROTO),
    }
}
