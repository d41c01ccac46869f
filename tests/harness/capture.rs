//! Owns counting frames on all interfaces of a netns: what really left a container is seen on the host's side of its cable.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::netns::Netns;

/// One frame that was seen; the same packet is seen on every interface it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its source address.
    pub(crate) from: IpAddr,
    /// Its destination address.
    pub(crate) to: IpAddr,
    /// The IP protocol.
    pub(crate) protocol: u8,
}

/// Watches a netns for TCP and UDP packets to one port.
pub(crate) struct Capture {
    ended: Arc<AtomicBool>,
    watching: JoinHandle<Vec<Seen>>,
}

impl Capture {
    /// Begins to watch; everything that is sent after this returns is seen.
    pub(crate) fn of_port(netns: &Netns, port: u16) -> Self {
        let socket: OwnedFd = netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("a packet socket needs root")
        });
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).expect("a large buffer needs root");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
        let ended = Arc::new(AtomicBool::new(false));
        let seen_end = Arc::clone(&ended);
        let watching = std::thread::spawn(move || {
            let (mut frame, mut seen) = ([0; 2048], Vec::new());
            loop {
                match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                    Ok(length) => seen.extend(read(&frame[..length], port)),
                    // Nothing is waiting: what was sent before the end was told has been read.
                    Err(Errno::EAGAIN) if seen_end.load(Ordering::Acquire) => return seen,
                    Err(_) => {}
                }
            }
        });
        Self { ended, watching }
    }

    /// Ends, with all that was seen.
    #[track_caller]
    pub(crate) fn end(self) -> Vec<Seen> {
        self.ended.store(true, Ordering::Release);
        self.watching.join().expect("watching does not fail")
    }
}

/// Reads a frame without VLAN tags, options and extension headers, if it is a TCP or UDP packet to the port.
fn read(frame: &[u8], port: u16) -> Option<Seen> {
    let kind = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let packet = frame.get(14..)?;
    let address = |at: usize, length: usize| -> Option<IpAddr> {
        let bytes = packet.get(at..at + length)?;
        Some(match length {
            4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
            _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
        })
    };
    let (protocol, from, to, start) = match kind {
        0x0800 => (*packet.get(9)?, address(12, 4)?, address(16, 4)?, 20),
        0x86dd => (*packet.get(6)?, address(8, 16)?, address(24, 16)?, 40),
        _ => return None,
    };
    let found = u16::from_be_bytes(packet.get(start + 2..start + 4)?.try_into().ok()?);
    (matches!(protocol, 6 | 17) && found == port).then_some(Seen { from, to, protocol })
}
