//! Owns reading a netns' links and addresses (rtnetlink, `linux/rtnetlink.h`).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, send};

use super::buffer::Buffer;
use super::decode::attribute;
use super::netlink::{open, receive};
use super::wire::{Message, messages};
use crate::compile::guard::Link;

/// `struct ifinfomsg`: family, padding, kind, number, flags, change mask.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, link number.
const ADDRESS_HEADER: usize = 8;
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// The listing changed while it was told (`NLM_F_DUMP_INTR`).
const INTERRUPTED: u16 = 0x10;
/// How often a listing that changes meanwhile is asked for again.
const READINGS: usize = 20;

/// The links of the calling thread's netns with their addresses, by number.
pub(super) fn links_here() -> io::Result<Vec<Link>> {
    let fd = open(SockProtocol::NetlinkRoute, 0, SockFlag::empty())?;
    let told = list(&fd, libc::RTM_GETLINK, link)?;
    let mut links: BTreeMap<u32, Link> = told.into_iter().map(|link| (link.index, link)).collect();
    for (index, address, bits) in list(&fd, libc::RTM_GETADDR, address)? {
        if let Some(link) = links.get_mut(&index) {
            link.addresses.insert(address, bits);
        }
    }
    Ok(links.into_values().collect())
}

fn list<T>(fd: &OwnedFd, kind: u16, decode: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    for _ in 0..READINGS {
        if let Some(found) = list_once(fd, kind, &decode)? {
            return Ok(found);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINTR))
}

/// `None` when the listing changed meanwhile.
fn list_once<T>(
    fd: &OwnedFd,
    kind: u16,
    decode: &impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<Vec<T>>> {
    send(fd.as_raw_fd(), &request(kind), MsgFlags::empty())?;
    let mut buffer = Buffer::take();
    let (mut found, mut is_whole) = (Vec::new(), true);
    loop {
        let length = receive(fd, &mut buffer, MsgFlags::empty())?;
        for Message { kind, flags, payload, .. } in messages(&buffer[..length]) {
            is_whole &= flags & INTERRUPTED == 0;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(is_whole.then_some(found)),
                libc::NLMSG_ERROR => {
                    let errno = payload.get(..4).and_then(|bytes| bytes.try_into().ok());
                    let errno = errno.map_or(libc::EIO, |bytes| -i32::from_ne_bytes(bytes));
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => found.extend(decode(payload)),
            }
        }
    }
}

/// A request for everything of a kind, of every address family.
fn request(kind: u16) -> Vec<u8> {
    const LENGTH: usize = 16 + LINK_HEADER;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = vec![0; LENGTH];
    bytes[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn link(payload: &[u8]) -> Option<Link> {
    let kind = u16::from_ne_bytes(payload.get(2..4)?.try_into().ok()?);
    let (index, flags) = (word(payload, 4)?, word(payload, 8)?);
    let attributes = payload.get(LINK_HEADER..)?;
    let name = attribute(attributes, LINK_NAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    let mac = attribute(attributes, LINK_ADDRESS).and_then(|mac| mac.try_into().ok());
    Some(Link {
        index,
        name: String::from_utf8_lossy(name).into_owned(),
        is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        is_up: flags & libc::IFF_UP as u32 != 0,
        mac: mac.filter(|_| kind == libc::ARPHRD_ETHER),
        addresses: BTreeMap::new(),
    })
}

fn address(payload: &[u8]) -> Option<(u32, IpAddr, u8)> {
    let (bits, index) = (*payload.get(1)?, word(payload, 4)?);
    let attributes = payload.get(ADDRESS_HEADER..)?;
    // On a link between two ends the first is the other end's.
    let bytes = attribute(attributes, ADDRESS_LOCAL).or_else(|| attribute(attributes, ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some((index, address, bits))
}
