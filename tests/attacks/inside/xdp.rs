//! Owns attacks by AF_XDP sockets, whose frames go to the driver by a way of their own (`linux/if_xdp.h`).

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;

use crate::packet::{UDP, ether_of, frame, ip, udp};
use crate::target::Mac;
use crate::wire::index_of;
use crate::{Attack, BOTH};

const CHUNK: usize = 4096;
const CHUNKS: usize = 16;
const RING: u32 = 16;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("AF_XDP socket: UDP", BOTH, |attempt| {
        let own = attempt.targets.mac("own_mac");
        let frames = attempt.away().map(|(to, mac): (IpAddr, Mac)| {
            let ends = (attempt.own(), to);
            let datagram = udp(ends, (attempt.port(), 9), &attempt.payload());
            frame(mac, own, ether_of(to), &ip(ends.0, to, UDP, &datagram))
        });
        Ok(send(&frames)?)
    }),
    Attack::new("AF_XDP socket: a peer's source addresses", BOTH, |attempt| {
        let (from, own) = (attempt.at("friend"), attempt.targets.mac("friend_mac"));
        let frames = attempt.away().map(|(to, mac): (IpAddr, Mac)| {
            let datagram = udp((from, to), (attempt.port(), 9), &attempt.payload());
            frame(mac, own, ether_of(to), &ip(from, to, UDP, &datagram))
        });
        Ok(send(&frames)?)
    }),
];

/// Sends at most as many frames as there are chunks, each at most as long.
fn send(frames: &[Vec<u8>]) -> io::Result<()> {
    // SAFETY: takes no pointers; what it returns is checked.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened above, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let memory = map(CHUNK * CHUNKS, flags, -1, 0)?;
    let region = libc::xdp_umem_reg {
        addr: memory as u64,
        len: (CHUNK * CHUNKS) as u64,
        chunk_size: CHUNK as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(&fd, libc::XDP_UMEM_REG, &region)?;
    for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_TX_RING] {
        set(&fd, ring, &RING)?;
    }
    let offset = offsets(&fd)?;
    let length = offset.tx.desc as usize + RING as usize * size_of::<libc::xdp_desc>();
    let shared = libc::MAP_SHARED | libc::MAP_POPULATE;
    let ring = map(length, shared, fd.as_raw_fd(), libc::XDP_PGOFF_TX_RING)?;
    for (number, frame) in frames.iter().enumerate().take(CHUNKS) {
        let place = number * CHUNK;
        let described = libc::xdp_desc { addr: place as u64, len: frame.len() as u32, options: 0 };
        // SAFETY: chunk and descriptor `number` lie within the two mappings; the kernel reads them when it is told to.
        unsafe {
            let chunk = memory.cast::<u8>().add(place);
            std::ptr::copy_nonoverlapping(frame.as_ptr(), chunk, frame.len().min(CHUNK));
            let descriptors = ring.cast::<u8>().add(offset.tx.desc as usize);
            descriptors.cast::<libc::xdp_desc>().add(number).write(described);
        }
    }
    // SAFETY: the producer's index lies within the ring's mapping, aligned as the kernel says.
    unsafe {
        let producer = ring.cast::<u8>().add(offset.tx.producer as usize);
        producer.cast::<u32>().write_volatile(frames.len().min(CHUNKS) as u32);
    }
    // What a socket before this one held is let go of a moment after it was closed.
    let limit = Instant::now() + Duration::from_secs(5);
    while let Err(error) = bind(&fd) {
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > limit {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // SAFETY: no bytes and no address are given.
    let sent = unsafe {
        libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
    };
    let outcome = if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: nothing of the two mappings is used any more. While there is one, the socket holds the device's queue.
    unsafe {
        libc::munmap(ring, length);
        libc::munmap(memory, CHUNK * CHUNKS);
    }
    outcome
}

fn map(length: usize, flags: i32, fd: i32, offset: i64) -> io::Result<*mut libc::c_void> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping; nobody else's memory is touched. It stays until the process ends.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
}

fn set<T>(fd: &OwnedFd, name: i32, value: &T) -> io::Result<()> {
    let (pointer, length) = ((&raw const *value).cast(), size_of::<T>() as u32);
    // SAFETY: the pointer is to a living value of the length given.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    let mut length = size_of::<libc::xdp_mmap_offsets>() as u32;
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to living values; the kernel writes no more than `length`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(offsets) }
}

fn bind(fd: &OwnedFd) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: index_of("eth0")?,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the pointer is to a living value of the length given.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_xdp>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
