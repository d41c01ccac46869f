//! Owns the sockets by which a netns' denials and connections are heard. They keep the netns alive while they are open.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, send, setsockopt, sockopt};

use super::log::{ANSWERS, DENIALS, Group, bind_group};
use super::netlink::{self, Received};
use super::netns::{Entrance, Netns, NetnsError};
use super::wire;

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY` as bits.
const CONNECTIONS: u32 = 0x1 | 0x4;
/// Room for what is told between two looks, in bytes. What does not fit is told to be lost.
const BUFFER: usize = 1 << 20;
/// The netns' own setting of whether connections' packets and bytes are counted (`nf_conntrack-sysctl`, 0 or 1).
const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// A socket something is heard by.
pub type Ear = Arc<OwnedFd>;

/// What is heard of one netns. Of each group of logged packets one process can be told, in the kernel's whole netns.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Told of denied packets; or why it is not.
    pub denials: Result<Ear, String>,
    /// Told what resolvers answer; or why it is not.
    pub answers: Result<Ear, String>,
    /// Told of connections.
    pub connections: Ear,
}

impl Listeners {
    /// What is not heard, and why.
    pub fn missing(&self) -> Option<&str> {
        let told = [self.denials.as_ref().err(), self.answers.as_ref().err()];
        told.into_iter().flatten().next().map(String::as_str)
    }

    /// The same sockets, for one who reads on where another stops: what was read is not told again.
    ///
    /// Errors: too many open files.
    pub fn again(&self) -> io::Result<Self> {
        let again = |ear: &Ear| ear.try_clone().map(Arc::new);
        let maybe = |ear: &Result<Ear, String>| match ear {
            Ok(ear) => again(ear).map(Ok),
            Err(why) => Ok(Err(why.clone())),
        };
        Ok(Self {
            denials: maybe(&self.denials)?,
            answers: maybe(&self.answers)?,
            connections: again(&self.connections)?,
        })
    }
}

impl Entrance {
    /// Has denials and connections of a netns be told from now on. What is heard there already, by `former`, is taken over.
    pub fn listen(
        &self,
        netns: &Netns,
        former: Option<&Listeners>,
    ) -> Result<Listeners, NetnsError> {
        let former = former.and_then(|former| former.again().ok());
        if let Some(former) = &former
            && former.missing().is_none()
        {
            return Ok(former.clone());
        }
        self.enter(netns, || {
            // Where connection tracking's netlink part is a module, who asks it something waits until it is loaded; who only
            // listens has it loaded some time, and hears nothing until then.
            let _ = wake_connection_tracking();
            // Bytes are for people; where they cannot be counted connections are still told.
            let _ = std::fs::write(ACCOUNTING, "1");
            let (denials, answers, connections) = match former {
                Some(former) => (former.denials, former.answers, Ok(former.connections)),
                None => {
                    let nothing = || Err(String::new());
                    (nothing(), nothing(), hearing(CONNECTIONS).map(Arc::new))
                }
            };
            Ok(Listeners {
                denials: denials.or_else(|_| logged(DENIALS)),
                answers: answers.or_else(|_| logged(ANSWERS)),
                connections: connections?,
            })
        })
    }
}

fn wake_connection_tracking() -> io::Result<()> {
    /// `IPCTNL_MSG_CT_GET_STATS`: how many connections there are.
    const STATISTICS: u16 = 5;
    let socket = netlink::open(SockProtocol::NetlinkNetFilter, 0, SockFlag::empty())?;
    let request = wire::write(wire::CONNTRACK << 8 | STATISTICS, 0, 1, (0, 0), &[]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(())
}

/// A socket that is told a group's logged packets, in the calling thread's netns.
fn logged(group: Group) -> Result<Ear, String> {
    let bound = hearing(0).and_then(|socket| bind_group(&socket, group).map(|()| socket));
    bound.map(Arc::new).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EPERM) => {
            format!("another process listens to NFLOG group {} there", group.number)
        }
        _ => format!("NFLOG cannot be heard: {error}"),
    })
}

fn hearing(groups: u32) -> io::Result<OwnedFd> {
    open(SockProtocol::NetlinkNetFilter, groups)
}

/// A socket that is told what these groups are told, in the calling thread's netns.
pub(super) fn open(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let fd = netlink::open(protocol, groups, SockFlag::SOCK_NONBLOCK)?;
    // Where there is less room more is lost, and that is told.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
    Ok(fd)
}

/// What one look at a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is nothing more.
    Nothing,
    /// So many bytes; none where it was not the kernel who sent something.
    Bytes(usize),
    /// More was told than there was room for.
    Lost,
}

/// Reads what the kernel told next.
pub fn hear(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Heard> {
    match netlink::receive_any(socket, buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(Received::Kernels(length)) => Ok(Heard::Bytes(length)),
        // It counts as something that was read: however much others send, looking at it ends.
        Ok(Received::Others) => Ok(Heard::Bytes(0)),
        Err(Errno::EAGAIN) => Ok(Heard::Nothing),
        Err(Errno::ENOBUFS) => Ok(Heard::Lost),
        Err(errno) => Err(errno.into()),
    }
}
