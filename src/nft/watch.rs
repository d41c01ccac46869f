//! Owns noticing what others do in a netns: changes of nftables, of interfaces, of addresses.
//!
//! [`Reader`] is pure: bytes in, what was done out. Sources: `NFNLGRP_NFTABLES` (`nf_tables_commit` tells each object and
//! then `NFT_MSG_NEWGEN` with the committer's port id, pid and name), and `rtnetlink(7)`.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::SockProtocol;

use super::buffer::Buffer;
use super::decode::{number, string};
use super::listen::{Heard, hear, open};
use super::message::filter::leave_out;
use super::wire::{Message, messages};
use crate::compile::TABLE;
use crate::input::Text;

/// `NFNLGRP_NFTABLES` (7) as a bit.
const NFTABLES_GROUP: u32 = 1 << 6;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`.
const LINK_GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// How many of these are read before what they say is looked at.
const READS: usize = 64;
/// Docker's chains in a container's netns: its resolver's address is translated there.
const DOCKERS: &str = "DOCKER_";

/// Who committed a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committer {
    /// The pid, in the daemon's pid namespace.
    pub pid: u32,
    /// What the process calls itself.
    pub name: Text,
}

impl fmt::Display for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// What others did since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many transactions.
    pub commits: usize,
    /// Who committed the last one that touched our tables.
    pub ours: Option<Committer>,
    /// Who committed the last one that touched tables of others.
    pub others: Option<Committer>,
    /// Who took rules of Docker's away.
    pub dockers: Option<Committer>,
    /// Whether an interface or address changed.
    pub links: bool,
    /// Whether more was done than there was room to tell.
    pub is_lost: bool,
}

impl Seen {
    /// Adds what was done later.
    pub fn merge(&mut self, later: Self) {
        self.commits += later.commits;
        self.ours = later.ours.or(self.ours.take());
        self.others = later.others.or(self.others.take());
        self.dockers = later.dockers.or(self.dockers.take());
        self.links |= later.links;
        self.is_lost |= later.is_lost;
    }

    /// Whether nobody did anything.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes sense of what is told. Keeps what belongs to a transaction whose end was not told yet.
#[derive(Debug)]
pub struct Reader {
    /// The port id of our own socket: what it commits is no news.
    own: u32,
    touched: Touched,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, Default)]
struct Touched {
    ours: bool,
    others: bool,
    dockers: bool,
}

impl Reader {
    /// A reader that leaves out what the socket with this port id commits.
    pub fn new(own: u32) -> Self {
        Self { own, touched: Touched::default(), seen: Seen::default() }
    }

    /// What was read since the last time.
    pub fn take(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// Reads what a socket in `NFNLGRP_NFTABLES` was told.
    pub fn nftables(&mut self, bytes: &[u8]) {
        for message in messages(bytes) {
            if let Some((kind, family, attributes)) = message.nftables() {
                match kind {
                    libc::NFT_MSG_NEWGEN => self.committed(&message, attributes),
                    _ => self.touch(kind, family, attributes),
                }
            }
        }
    }

    /// An object of a table. Its first attribute is the table's name, whatever it is; a rule's second its chain's.
    fn touch(&mut self, kind: i32, family: u8, attributes: &[u8]) {
        let table = string(attributes, 1).unwrap_or_default();
        let family = i32::from(family);
        if table == TABLE && matches!(family, libc::NFPROTO_INET | libc::NFPROTO_NETDEV) {
            self.touched.ours = true;
            return;
        }
        self.touched.others = true;
        let is_end = matches!(kind, libc::NFT_MSG_DELRULE | libc::NFT_MSG_DELCHAIN);
        let named =
            |attribute| string(attributes, attribute).is_some_and(|name| name.starts_with(DOCKERS));
        self.touched.dockers |= is_end && table == "nat" && (named(2) || named(3));
    }

    /// The end of a transaction (`NFTA_GEN_PROC_PID`, `NFTA_GEN_PROC_NAME`).
    fn committed(&mut self, message: &Message<'_>, attributes: &[u8]) {
        let touched = std::mem::take(&mut self.touched);
        if message.port_id == self.own {
            return;
        }
        let pid = number(attributes, 2).unwrap_or_default();
        let name = string(attributes, 3).unwrap_or_default();
        let by = Committer { pid, name: Text::new(&name) };
        self.seen.commits += 1;
        for (is_touched, place) in [
            (touched.ours, &mut self.seen.ours),
            (touched.others, &mut self.seen.others),
            (touched.dockers, &mut self.seen.dockers),
        ] {
            if is_touched {
                *place = Some(by.clone());
            }
        }
    }

    /// That an interface or address changed.
    pub fn links(&mut self) {
        self.seen.links = true;
    }

    /// That there was no room for all.
    pub fn lost(&mut self) {
        self.touched = Touched::default();
        self.seen.is_lost = true;
    }
}

/// Two sockets that are told of changes in one netns. They keep it alive while they are open.
#[derive(Debug)]
pub struct Watch {
    /// Told of nftables.
    pub nftables: Arc<OwnedFd>,
    /// Told of interfaces and addresses.
    pub links: Arc<OwnedFd>,
}

impl Watch {
    /// Has changes in the calling thread's netns be told from now on.
    pub(super) fn open_here() -> io::Result<Self> {
        Ok(Self {
            nftables: Arc::new(open(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?),
            links: Arc::new(open(SockProtocol::NetlinkRoute, LINK_GROUPS)?),
        })
    }

    /// Leaves out, from now on, what the socket with this port id commits; where the kernel cannot, [`Reader`] does.
    pub fn leave_out(&self, own: u32) {
        let _ = leave_out(&self.nftables, own);
    }

    /// Reads what was told so far, or a good deal of it.
    /// Returns whether that was all.
    pub fn read(&self, reader: &mut Reader) -> io::Result<bool> {
        let mut buffer = Buffer::take();
        let (mut first, mut second) = (false, false);
        for _ in 0..READS {
            match hear(&self.nftables, &mut buffer)? {
                Heard::Nothing => {
                    first = true;
                    break;
                }
                Heard::Bytes(length) => reader.nftables(&buffer[..length]),
                Heard::Lost => reader.lost(),
            }
        }
        for _ in 0..READS {
            match hear(&self.links, &mut buffer)? {
                Heard::Nothing => {
                    second = true;
                    break;
                }
                Heard::Bytes(_) | Heard::Lost => reader.links(),
            }
        }
        Ok(first && second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::wire::{NFTABLES, write};

    const OURS: u32 = 7;
    const INET: u8 = libc::NFPROTO_INET as u8;
    const IP: u8 = libc::NFPROTO_IPV4 as u8;

    fn object(kind: i32, family: u8, names: &[(u16, &str)]) -> Vec<u8> {
        write((NFTABLES << 8) | kind as u16, 0, 1, (family, 0), names)
    }

    fn generation(port_id: u32, pid: u32, name: &str) -> Vec<u8> {
        let mut bytes = object(libc::NFT_MSG_NEWGEN, 0, &[(3, name)]);
        bytes.extend([8, 0, 2, 0]);
        bytes.extend(pid.to_be_bytes());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[12..16].copy_from_slice(&port_id.to_ne_bytes());
        bytes
    }

    fn seen(told: &[Vec<u8>]) -> Seen {
        let mut reader = Reader::new(OURS);
        for bytes in told {
            reader.nftables(bytes);
        }
        reader.take()
    }

    fn nft() -> Committer {
        Committer { pid: 42, name: "nft".into() }
    }

    #[test]
    fn what_we_commit_ourselves_is_no_news() {
        let change = object(libc::NFT_MSG_NEWRULE, INET, &[(1, TABLE), (2, "ingress")]);
        assert!(seen(&[change, generation(OURS, 42, "seawall")]).is_nothing());
    }

    #[test]
    fn who_changes_our_table_is_told_with_a_harmless_name() {
        let change = object(libc::NFT_MSG_DELTABLE, INET, &[(1, TABLE)]);
        let told = seen(&[[change, generation(8, 42, "n\u{1b}[31mft")].concat()]);
        let by = told.ours.unwrap();
        assert_eq!((by.pid, told.others, told.commits), (42, None, 1));
        assert!(!by.name.as_str().contains('\u{1b}'), "{}", by.name);
    }

    #[test]
    fn tables_of_the_same_name_in_other_families_are_not_ours() {
        let change = object(libc::NFT_MSG_NEWTABLE, IP, &[(1, TABLE)]);
        let told = seen(&[change, generation(8, 42, "nft")]);
        assert_eq!((told.ours, told.others), (None, Some(nft())));
    }

    #[test]
    fn the_end_of_dockers_rules_is_told_apart() {
        let gone = object(libc::NFT_MSG_DELRULE, IP, &[(1, "nat"), (2, "DOCKER_OUTPUT")]);
        assert_eq!(seen(&[gone, generation(8, 42, "nft")]).dockers, Some(nft()));
        let made = object(libc::NFT_MSG_NEWRULE, IP, &[(1, "nat"), (2, "DOCKER_OUTPUT")]);
        let told = seen(&[made, generation(8, 42, "nft")]);
        assert_eq!((told.dockers, told.others), (None, Some(nft())));
    }

    #[test]
    fn what_is_not_committed_yet_is_no_change_yet() {
        let change = object(libc::NFT_MSG_DELTABLE, INET, &[(1, TABLE)]);
        assert!(seen(std::slice::from_ref(&change)).is_nothing());
        assert!(!seen(&[change, generation(8, 42, "nft")]).is_nothing());
    }

    #[test]
    fn whatever_is_told_is_no_panic() {
        let good = [object(libc::NFT_MSG_DELTABLE, INET, &[(1, TABLE)]), generation(8, 1, "x")];
        let good = good.concat();
        for end in 0..good.len() {
            let _ = seen(&[good[..end].to_vec()]);
        }
    }
}
