//! Owns taking a link's queue for `AF_XDP` sockets, so that nobody else can.
//!
//! What an `AF_XDP` socket sends passes no netfilter hook at all (`__dev_direct_xmit`). But a queue of a link has one such
//! socket's memory only, and refuses others (`xp_assign_dev`). Constants and structures: `linux/if_xdp.h`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::OnceLock;

const PAGE: usize = 4096;
/// The fewest entries a ring can have.
const ENTRIES: libc::c_int = 1;

/// Takes a queue of a link of the calling thread's netns. It is free again when the result is closed.
///
/// Errors: `EAFNOSUPPORT` where the kernel has no such sockets, `EINVAL` where the link has no such queue, `EBUSY` where
/// somebody has it already.
pub fn take(link: u32, queue: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only, and a result that is not negative is a new descriptor that is ours.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    sit(&fd, page()?, link, queue).map(|()| fd)
}

/// The memory all these sockets would send from. Nothing is ever in it.
fn page() -> io::Result<u64> {
    static PLACE: OnceLock<u64> = OnceLock::new();
    if let Some(page) = PLACE.get() {
        return Ok(*page);
    }
    let (rights, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which nobody reads or writes, and which stays for as long as the process does.
    let page = unsafe { libc::mmap(null_mut(), PAGE, rights, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Another thread may have been first; then one page more is never used.
    Ok(*PLACE.get_or_init(|| page as u64))
}

fn sit(fd: &OwnedFd, page: u64, link: u32, queue: u32) -> io::Result<()> {
    let memory = libc::xdp_umem_reg {
        addr: page,
        len: PAGE as u64,
        chunk_size: PAGE as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, libc::XDP_UMEM_REG, &memory)?;
    for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
        set(fd, ring, &ENTRIES)?;
    }
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        // No driver is asked for anything: nothing changes for who uses the link.
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: link,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the address lives during the call.
    let result = unsafe {
        let length = size_of_val(&address) as libc::socklen_t;
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value lives during the call.
    let result = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (&raw const *value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
