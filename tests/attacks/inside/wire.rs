//! Owns sending: raw IP sockets, packet sockets, and the options of theirs that no safe interface has.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use crate::packet::{ether_of, frame};
use crate::target::{Attempt, Mac};

/// How often everything is sent: one of them may be lost for reasons of its own.
const COPIES: usize = 3;
const DEVICE: &str = "eth0";

/// The index of a network device.
pub(crate) fn index_of(device: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Where to send to an address: those of the link need to be told which link.
pub(crate) fn socket_address(to: IpAddr, port: u16) -> io::Result<SocketAddr> {
    Ok(match to {
        IpAddr::V6(to) if to.is_unicast_link_local() || to.is_multicast() => {
            SocketAddrV6::new(to, port, 0, index_of(DEVICE)?).into()
        }
        to => (to, port).into(),
    })
}

/// A raw socket that takes whole IP packets (`raw(7)`, IPPROTO_RAW).
pub(crate) fn raw_socket(to: IpAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?)
}

/// Sends a whole IP packet, by way of the IP layer.
pub(crate) fn send_ip(to: IpAddr, packet: &[u8]) -> io::Result<()> {
    send_over(&raw_socket(to)?, to, packet)
}

/// The same by a socket that is there.
pub(crate) fn send_over(socket: &OwnedFd, to: IpAddr, packet: &[u8]) -> io::Result<()> {
    let to = SockaddrStorage::from(socket_address(to, 0)?);
    for _ in 0..COPIES {
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
    }
    Ok(())
}

/// Sends a payload by an ordinary UDP socket bound to the attempt's port.
pub(crate) fn send_plain(attempt: &Attempt<'_>, to: IpAddr, port: u16) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, attempt.port()))?;
    socket.set_broadcast(true)?;
    let to = socket_address(to, port)?;
    for _ in 0..COPIES {
        socket.send_to(&attempt.payload(), to)?;
    }
    Ok(())
}

/// Runs everything although some of it fails; the first error is told.
pub(crate) fn all<E>(results: impl IntoIterator<Item = Result<(), E>>) -> Result<(), E> {
    let mut results: Vec<_> = results.into_iter().collect();
    match results.iter().position(Result::is_err) {
        Some(place) => results.swap_remove(place),
        None => Ok(()),
    }
}

/// A packet socket (`packet(7)`).
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    device: u32,
    is_raw: bool,
}

impl PacketSocket {
    /// One that takes whole frames.
    pub(crate) fn raw() -> io::Result<Self> {
        Self::open(libc::SOCK_RAW, DEVICE)
    }

    /// One whose frames get their header from the kernel.
    pub(crate) fn cooked() -> io::Result<Self> {
        Self::open(libc::SOCK_DGRAM, DEVICE)
    }

    /// One on another device, which takes whole frames.
    pub(crate) fn raw_on(device: &str) -> io::Result<Self> {
        Self::open(libc::SOCK_RAW, device)
    }

    fn open(kind: i32, device: &str) -> io::Result<Self> {
        let device = index_of(device)?;
        // SAFETY: takes no pointers; what it returns is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was opened above, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, device, is_raw: kind == libc::SOCK_RAW })
    }

    /// Frames go straight to the driver (PACKET_QDISC_BYPASS).
    pub(crate) fn bypassing(self) -> io::Result<Self> {
        set_option(&self.fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        Ok(self)
    }

    /// Sends, with `kind` as the protocol that the kernel believes it to be, and the address of who gets it.
    pub(crate) fn send(&self, to: Mac, kind: u16, bytes: &[u8]) -> io::Result<()> {
        let address = link_address(self.device, to, kind);
        for _ in 0..COPIES {
            // SAFETY: both pointers are to living values of the lengths given.
            let sent = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Sends an IP packet to the Ethernet address `to`, from the attacker's own.
    pub(crate) fn send_ip(
        &self,
        attempt: &Attempt<'_>,
        to: (IpAddr, Mac),
        packet: &[u8],
    ) -> io::Result<()> {
        let kind = ether_of(to.0);
        if !self.is_raw {
            return self.send(to.1, kind, packet);
        }
        self.send(to.1, kind, &frame(to.1, attempt.targets.mac("own_mac"), kind, packet))
    }

    /// Sends one frame through a ring shared with the kernel (PACKET_TX_RING).
    pub(crate) fn send_by_ring(&self, to: Mac, kind: u16, bytes: &[u8]) -> io::Result<()> {
        const FRAME: usize = 2048;
        let ring = libc::tpacket_req {
            tp_block_size: 4096,
            tp_block_nr: 1,
            tp_frame_size: 2048,
            tp_frame_nr: 2,
        };
        // SAFETY: the pointer is to a living value of the length given.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_TX_RING,
                (&raw const ring).cast(),
                size_of::<libc::tpacket_req>() as u32,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, of the ring's size.
        let memory = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, protection, flags, self.fd.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Data begins behind the header, TPACKET_HDRLEN less the address that only received frames have.
        let start = size_of::<libc::tpacket_hdr>().next_multiple_of(16);
        let length = bytes.len().min(FRAME - start);
        // SAFETY: the first frame of the mapping holds the header and `length` bytes behind it; the kernel looks at it
        // only when it is told to send.
        unsafe {
            let header = memory.cast::<libc::tpacket_hdr>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast::<u8>().add(start), length);
            (*header).tp_len = length as u32;
            std::ptr::write_volatile(
                &raw mut (*header).tp_status,
                libc::TP_STATUS_SEND_REQUEST as libc::c_ulong,
            );
        }
        self.send_nothing(to, kind)
    }

    fn send_nothing(&self, to: Mac, kind: u16) -> io::Result<()> {
        let address = link_address(self.device, to, kind);
        // SAFETY: no bytes are sent, so the pointer to them is not read; the address is a living value.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                std::ptr::null(),
                0,
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn link_address(device: u32, to: Mac, kind: u16) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&to);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: kind.to_be(),
        sll_ifindex: device as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    }
}

/// Sets an option whose value is a number.
pub(crate) fn set_option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to a living value of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
