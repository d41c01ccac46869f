//! Frames a container must not send, and the sockets it could send them by.
#![allow(dead_code, reason = "not every test sends everything")]

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Six bytes by which an attack is recognised in what arrives.
pub(crate) type Mark = [u8; 6];
pub(crate) type Mac = [u8; 6];

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IP: u16 = 0x0800;
pub(crate) const IP6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
/// An EtherType for experiments (IEEE 802).
pub(crate) const LOCAL: u16 = 0x88b5;

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to, &from, kind.to_be_bytes().as_slice(), payload].concat()
}

pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let words = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [words, payload.to_vec()].concat()
}

pub(crate) fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend([length, 7, fragment].map(u16::to_be_bytes).concat());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let checksum = sum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [header, payload.to_vec()].concat()
}

pub(crate) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, hops]);
    header.extend(from.octets());
    header.extend(to.octets());
    [header, payload.to_vec()].concat()
}

/// An ICMPv6 message with its checksum (RFC 4443, 2.3).
pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0], body].concat();
    let length = (message.len() as u32).to_be_bytes();
    let checksum = sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// A neighbour solicitation or advertisement with one option, which holds the mark.
pub(crate) fn discovery(
    from: Ipv6Addr,
    to: Ipv6Addr,
    kind: u8,
    target: Ipv6Addr,
    mark: Mark,
    more: usize,
) -> Vec<u8> {
    let option = [&[2u8, 1][..], &mark].concat();
    let body = [vec![0; 4], target.octets().to_vec(), option, vec![0; more]].concat();
    ipv6(from, to, 58, 255, &icmp6(from, to, kind, &body))
}

/// A neighbour advertisement as short as can be, of an address that ends in the mark, behind destination options that say
/// nothing (RFC 8200, 4.6).
pub(crate) fn hidden_advertisement(from: Ipv6Addr, to: Ipv6Addr, mark: Mark) -> Vec<u8> {
    let target = [&[0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0][..], &mark].concat();
    let advertisement = icmp6(from, to, 136, &[vec![0; 4], target].concat());
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    ipv6(from, to, 60, 255, &[&options[..], &advertisement].concat())
}

/// An ARP reply; the mark stands in for the link address it is told to.
pub(crate) fn arp(sender: Mac, ip: Ipv4Addr, mark: Mark, to: Ipv4Addr, padding: usize) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    [&head[..], &sender, &ip.octets(), &mark, &to.octets(), &vec![0; padding]].concat()
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn open(family: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: the call takes numbers only; a result that is not negative is a descriptor of ours.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

fn set(fd: &OwnedFd, level: i32, option: i32, value: i32) {
    // SAFETY: the value lives during the call.
    let result = unsafe {
        let length = size_of_val(&value) as u32;
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn link_address(device: &str, protocol: u16, to: Mac) -> libc::sockaddr_ll {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: zeroes are a valid address; the name is a C string.
    let (mut address, index) =
        unsafe { (zeroed::<libc::sockaddr_ll>(), libc::if_nametoindex(name.as_ptr())) };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as i32;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    address
}

fn send_to<T>(fd: &OwnedFd, bytes: &[u8], address: &T) -> io::Result<usize> {
    // SAFETY: the bytes and the address live during the call.
    checked(unsafe {
        let (address, length) = ((&raw const *address).cast(), size_of::<T>() as u32);
        libc::sendto(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, address, length)
    })
}

/// Sends a whole frame by a packet socket that says its protocol is `protocol`.
pub(crate) fn by_packet(
    device: &str,
    protocol: u16,
    frame: &[u8],
    bypasses_queue: bool,
) -> io::Result<usize> {
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, 0);
    if bypasses_queue {
        set(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1);
    }
    send_to(&fd, frame, &link_address(device, protocol, [0; 6]))
}

/// Sends a packet by a packet socket for which the kernel writes the frame's header.
pub(crate) fn by_cooked(device: &str, to: Mac, protocol: u16, packet: &[u8]) -> io::Result<usize> {
    let fd = open(libc::AF_PACKET, libc::SOCK_DGRAM, 0);
    send_to(&fd, packet, &link_address(device, protocol, to))
}

/// Sends a frame through a ring shared with the kernel (`PACKET_TX_RING`).
pub(crate) fn by_ring(device: &str, protocol: u16, frame: &[u8]) -> io::Result<usize> {
    const SIZE: usize = 4096;
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol.to_be()));
    let address = link_address(device, protocol, [0; 6]);
    let ring = libc::tpacket_req {
        tp_block_size: SIZE as u32,
        tp_block_nr: 1,
        tp_frame_size: SIZE as u32,
        tp_frame_nr: 1,
    };
    // SAFETY: the ring is one page, mapped as long as it is written to; the header is at its beginning and the frame
    // behind it, where the kernel looks for it (`TPACKET_HDRLEN - sizeof(struct sockaddr_ll)`).
    unsafe {
        let length = size_of_val(&address) as u32;
        assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length), 0);
        let size = size_of_val(&ring) as u32;
        let option = libc::PACKET_TX_RING;
        assert_eq!(
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const ring).cast(),
                size
            ),
            0
        );
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let page =
            libc::mmap(std::ptr::null_mut(), SIZE, rights, libc::MAP_SHARED, fd.as_raw_fd(), 0)
                .cast::<u8>();
        let header = page.cast::<libc::tpacket_hdr>();
        let offset = libc::TPACKET_HDRLEN - size_of::<libc::sockaddr_ll>();
        std::ptr::copy_nonoverlapping(frame.as_ptr(), page.add(offset), frame.len());
        (*header).tp_len = frame.len() as u32;
        (*header).tp_status = libc::TP_STATUS_SEND_REQUEST as _;
        let sent = checked(libc::send(fd.as_raw_fd(), std::ptr::null(), 0, 0));
        libc::munmap(page.cast(), SIZE);
        sent
    }
}

/// Sends an IPv4 packet whose header is its sender's own work.
pub(crate) fn by_raw4(packet: &[u8]) -> io::Result<usize> {
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
    // SAFETY: zeroes are a valid address.
    let mut to = unsafe { zeroed::<libc::sockaddr_in>() };
    to.sin_family = libc::AF_INET as u16;
    to.sin_addr.s_addr = u32::from_ne_bytes(packet[16..20].try_into().unwrap());
    send_to(&fd, packet, &to)
}

/// Sends an IPv6 packet whose header is its sender's own work.
pub(crate) fn by_raw6(device: &str, packet: &[u8]) -> io::Result<usize> {
    let fd = open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW);
    // SAFETY: zeroes are a valid address.
    let mut to = unsafe { zeroed::<libc::sockaddr_in6>() };
    to.sin6_family = libc::AF_INET6 as u16;
    to.sin6_addr.s6_addr.copy_from_slice(&packet[24..40]);
    to.sin6_scope_id = link_address(device, 0, [0; 6]).sll_ifindex as u32;
    send_to(&fd, packet, &to)
}

/// Sends a datagram from an address that is not its own, as a process that may nothing special can over IPv6.
pub(crate) fn by_anybody6(
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    data: &[u8],
) -> io::Result<usize> {
    const NOBODY: libc::c_long = 65_534;
    // SAFETY: of this thread only; all its capabilities go with it.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) }, 0);
    send_to(&bound6(libc::SOCK_DGRAM, from), data, &end6(to))
}

/// Begins a TCP connection from an address that need not be its own, and waits for nothing.
pub(crate) fn begin_tcp6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> OwnedFd {
    let fd = bound6(libc::SOCK_STREAM | libc::SOCK_NONBLOCK, from);
    let to = end6(to);
    // SAFETY: the address lives during the call. Whether anybody answers is not asked.
    unsafe { libc::connect(fd.as_raw_fd(), (&raw const to).cast(), size_of_val(&to) as u32) };
    fd
}

fn end6((address, port): (Ipv6Addr, u16)) -> libc::sockaddr_in6 {
    // SAFETY: zeroes are a valid address.
    let mut end = unsafe { zeroed::<libc::sockaddr_in6>() };
    end.sin6_family = libc::AF_INET6 as u16;
    end.sin6_addr.s6_addr = address.octets();
    end.sin6_port = port.to_be();
    end
}

fn bound6(kind: i32, from: (Ipv6Addr, u16)) -> OwnedFd {
    let fd = open(libc::AF_INET6, kind, 0);
    set(&fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1);
    let from = end6(from);
    // SAFETY: the address lives during the call.
    let bound =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const from).cast(), size_of_val(&from) as u32) };
    assert_eq!(bound, 0);
    fd
}

/// Everything that arrives at a link.
pub(crate) struct Capture(OwnedFd);

impl Capture {
    /// Begins at once.
    pub(crate) fn at(device: &str) -> Self {
        const ALL: u16 = 3;
        let fd = open(libc::AF_PACKET, libc::SOCK_RAW, i32::from(ALL.to_be()));
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20);
        let address = link_address(device, ALL, [0; 6]);
        // SAFETY: the address lives during the call.
        let bound = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
        };
        assert_eq!(bound, 0);
        Self(fd)
    }

    /// What has arrived, up to and with the frame that holds these bytes.
    pub(crate) fn until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut frames = Vec::new();
        loop {
            let mut buffer = vec![0; 65_536];
            // SAFETY: the buffer is that long.
            let length = checked(unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            });
            match length {
                Ok(length) => {
                    buffer.truncate(length);
                    let is_last = holds(&buffer, last);
                    frames.push(buffer);
                    if is_last {
                        return frames;
                    }
                }
                Err(_) => {
                    assert!(Instant::now() < deadline, "what was waited for never arrived");
                    let mut poll =
                        libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                    // SAFETY: one descriptor, which lives during the call.
                    unsafe { libc::poll(&raw mut poll, 1, 100) };
                }
            }
        }
    }
}

/// Whether the bytes are somewhere in the frame.
pub(crate) fn holds(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}
