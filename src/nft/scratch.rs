//! Owns furnishing a scratch netns, in which a kernel is tried: a pair of links that are up, and an address of each family.
//!
//! Sources: `rtnetlink(7)`, `linux/if_link.h` (`IFLA_*`), `linux/veth.h` (`VETH_INFO_PEER`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, send};

use super::links::links_here;
use super::netlink;
use super::wire::{HEADER, messages};

/// The scratch netns' own addresses (RFC 2544 and RFC 3849: nobody's).
pub const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// An address behind its link, where nobody answers.
pub const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const LINKS: [&str; 2] = ["scratch0", "scratch1"];

const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
/// No duplicate address detection (`IFA_F_NODAD`): the address is used at once.
const NO_DETECTION: u8 = 0x02;

/// Moves the calling thread, for good, into a new netns with nothing in it.
pub fn leave() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// Makes the links and addresses in the calling thread's netns.
pub fn furnish() -> io::Result<()> {
    let fd = netlink::open(SockProtocol::NetlinkRoute, 0, SockFlag::empty())?;
    let create = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    ask(&fd, libc::RTM_NEWLINK, create, &pair())?;
    for name in ["lo", LINKS[0], LINKS[1]] {
        let up = [link_header(libc::IFF_UP as u32), attribute(LINK_NAME, name.as_bytes())];
        ask(&fd, libc::RTM_NEWLINK, 0, &up.concat())?;
    }
    let found = links_here()?.into_iter().find(|link| link.name == LINKS[0]);
    let index = found.ok_or(io::ErrorKind::NotFound)?.index;
    for own in OWN {
        match ask(&fd, libc::RTM_NEWADDR, create, &address(own, index)) {
            // A kernel without IPv6 has nothing to be tried of it.
            Err(_) if own.is_ipv6() => {}
            result => result?,
        }
    }
    Ok(())
}

/// A pair of links (`ip link add scratch0 type veth peer name scratch1`).
fn pair() -> Vec<u8> {
    let peer = [link_header(0), attribute(LINK_NAME, LINKS[1].as_bytes())].concat();
    let data = attribute(INFO_DATA, &attribute(VETH_PEER, &peer));
    let info = attribute(LINK_INFO, &[attribute(INFO_KIND, b"veth"), data].concat());
    [link_header(0), attribute(LINK_NAME, LINKS[0].as_bytes()), info].concat()
}

/// `struct ifinfomsg`: family, padding, kind, number, flags, change mask.
fn link_header(flags: u32) -> Vec<u8> {
    [&[0; 8][..], &flags.to_ne_bytes(), &flags.to_ne_bytes()].concat()
}

/// An address on a link, with a network of 24 or 64 bits around it (`struct ifaddrmsg`).
fn address(own: IpAddr, index: u32) -> Vec<u8> {
    let (family, bits, bytes) = match own {
        IpAddr::V4(own) => (libc::AF_INET, 24, own.octets().to_vec()),
        IpAddr::V6(own) => (libc::AF_INET6, 64, own.octets().to_vec()),
    };
    let header = [&[family as u8, bits, NO_DETECTION, 0][..], &index.to_ne_bytes()].concat();
    [header, attribute(ADDRESS_LOCAL, &bytes), attribute(ADDRESS, &bytes)].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn ask(fd: &OwnedFd, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16 | flags;
    let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([1, 0u32].map(u32::to_ne_bytes).concat());
    bytes.extend(payload);
    send(fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answer = vec![0; 8192];
    let length = netlink::receive(fd, &mut answer, MsgFlags::empty())?;
    let told = messages(&answer[..length]).find_map(|message| message.errno());
    match told {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the kernel did not answer")),
    }
}
