//! Owns netlink sockets: opening them, and taking what the kernel sends to one, and nothing that anybody else does.
//!
//! Whoever has `NET_ADMIN` in a netns can send to every netlink socket that acts on it: an answer that the table is as it
//! was left, a denial that never was (security model 7). The kernel itself sends from port 0 (`netlink(7)`).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, socket,
};

/// A socket that acts on the calling thread's netns, and is told what these groups are told.
pub(super) fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// The length of the next thing the kernel sent. Waits for it, unless the socket or `flags` say otherwise; what others sent
/// is passed over.
///
/// Errors: `EAGAIN` where there is nothing and waiting was not asked for, `ENOBUFS` where there was more than room for it.
pub(super) fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, flags) {
            Ok(message) if message.address.is_some_and(|from| from.pid() != 0) => {}
            Ok(message) => return Ok(message.bytes),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
