//! Owns the connection entries of a netns, so far as control connections and what they expect are concerned: being told of
//! their ends, reading them with their masters, and removing what is left behind.
//!
//! [`told_of_an_end`] and [`left_behind`] are pure. Sources: `linux/netfilter/nfnetlink_conntrack.h`,
//! `linux/netfilter/nf_conntrack_common.h`, `linux/netfilter/nf_conntrack_tcp.h`.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, send};

use super::buffer::Buffer;
use super::decode::{attribute, number};
use super::listen::{Heard, hear, open};
use super::netlink::{self, receive};
use super::netns::{Entrance, Netns, NetnsError};
use super::wire::{messages, write};

/// `NFNL_SUBSYS_CTNETLINK` and `NFNL_SUBSYS_CTNETLINK_EXP`.
const ENTRIES: u16 = 1;
const EXPECTATIONS: u16 = 2;
/// `IPCTNL_MSG_CT_GET` and `…_DELETE`; the same numbers are those of expectations.
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `NFNLGRP_CONNTRACK_UPDATE` (2) and `NFNLGRP_CONNTRACK_DESTROY` (3) as bits.
const GROUPS: u32 = 1 << 1 | 1 << 2;
/// `CTA_*` of an entry.
const TUPLE: u16 = 1;
const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
const ID: u16 = 12;
const MASTER: u16 = 14;
/// `CTA_EXPECT_*` of an expectation.
const EXPECT_MASTER: u16 = 1;
const EXPECT_TUPLE: u16 = 2;
const EXPECT_ID: u16 = 5;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// A rule has given it a helper (`IPS_HELPER`).
const HAS_HELPER: u32 = 1 << 13;
const TCP: u8 = 6;
/// From the first FIN to the end, or reset (`TCP_CONNTRACK_FIN_WAIT` to `TCP_CONNTRACK_CLOSE`).
const ENDING: std::ops::RangeInclusive<u8> = 4..=8;
/// How many readings of events are made before what they say is looked at.
const READS: usize = 64;

/// A connection as its first packet had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// Client and server address.
    pub addresses: (IpAddr, IpAddr),
    /// IANA protocol number.
    pub protocol: u8,
    /// Client and server port.
    pub ports: (u16, u16),
}

impl Tuple {
    /// Reads `CTA_TUPLE_*`. `None` for a protocol without ports.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (ip, rest) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
        let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?));
        let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, kind)?).ok()?));
        let addresses = v4(1).zip(v4(2)).or_else(|| v6(3).zip(v6(4)))?;
        let port = |kind| Some(u16::from_be_bytes(attribute(rest, kind)?.try_into().ok()?));
        let protocol = *attribute(rest, 1)?.first()?;
        Some(Self { addresses, protocol, ports: (port(2)?, port(3)?) })
    }

    fn family(&self) -> u8 {
        let is_v4 = self.addresses.0.is_ipv4();
        (if is_v4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 }) as u8
    }
}

/// A connection entry, or an expectation of one that has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The connection.
    pub tuple: Tuple,
    /// The connection it was agreed on over.
    pub master: Option<Tuple>,
    /// Whether TCP is being closed, or was reset.
    pub is_ending: bool,
    /// Whether it has not begun.
    pub is_awaited: bool,
    /// How the kernel tells it from another with the same tuple.
    id: u32,
    /// The tuple as the kernel wrote it, and its master's.
    raw: Vec<u8>,
    raw_master: Vec<u8>,
}

impl Entry {
    fn read(payload: &[u8]) -> Option<Self> {
        let raw = attribute(payload, TUPLE)?.to_vec();
        Some(Self {
            tuple: Tuple::read(&raw)?,
            master: attribute(payload, MASTER).and_then(Tuple::read),
            is_ending: is_ending(payload),
            is_awaited: false,
            id: number(payload, ID)?,
            raw,
            raw_master: attribute(payload, MASTER).unwrap_or_default().to_vec(),
        })
    }

    fn read_expectation(payload: &[u8]) -> Option<Self> {
        let raw = attribute(payload, EXPECT_TUPLE)?.to_vec();
        let raw_master = attribute(payload, EXPECT_MASTER)?.to_vec();
        Some(Self {
            tuple: Tuple::read(&raw)?,
            master: Some(Tuple::read(&raw_master)?),
            is_ending: false,
            is_awaited: true,
            id: number(payload, EXPECT_ID)?,
            raw,
            raw_master,
        })
    }
}

fn is_ending(payload: &[u8]) -> bool {
    let tcp = attribute(payload, PROTOCOL_STATE).and_then(|state| attribute(state, 1));
    let state = tcp.and_then(|tcp| attribute(tcp, 1)).and_then(|state| state.first());
    state.is_some_and(|state| ENDING.contains(state))
}

/// The number and attributes of each message of one subsystem.
fn of_subsystem(bytes: &[u8], subsystem: u16) -> impl Iterator<Item = (u16, &[u8])> {
    messages(bytes).filter_map(move |message| {
        let attributes = message.payload.get(4..)?;
        (message.kind >> 8 == subsystem).then_some((message.kind & 0xff, attributes))
    })
}

/// Whether what a socket was told says that a control connection over TCP is being closed, was reset, or is gone.
pub fn told_of_an_end(bytes: &[u8]) -> bool {
    of_subsystem(bytes, ENTRIES).any(|(kind, payload)| {
        let has_helper = number(payload, STATUS).unwrap_or_default() & HAS_HELPER != 0;
        let tuple = attribute(payload, TUPLE).and_then(Tuple::read);
        has_helper
            && tuple.is_some_and(|tuple| tuple.protocol == TCP)
            && (kind == DELETE || is_ending(payload))
    })
}

/// Of the entries of a netns those that were agreed on over a TCP connection that has ended, or is about to.
///
/// UDP has no end, only a time after which nothing was said; and TFTP says nothing more on its control connection. So
/// what was agreed on over UDP is left to its own time.
pub fn left_behind(entries: &[Entry]) -> Vec<&Entry> {
    let is_alive = |entry: &&Entry| !entry.is_awaited && !entry.is_ending;
    let alive: BTreeSet<Tuple> = entries.iter().filter(is_alive).map(|entry| entry.tuple).collect();
    let is_left = |entry: &&Entry| {
        entry.master.is_some_and(|master| master.protocol == TCP && !alive.contains(&master))
    };
    entries.iter().filter(is_left).collect()
}

/// A socket for reading and removing entries.
#[derive(Debug)]
pub struct Entries {
    socket: Arc<OwnedFd>,
    sequence: u32,
}

/// What follows the control connections of one netns. Its sockets keep the netns alive.
#[derive(Debug)]
pub struct ControlWatch {
    /// Told of changes and ends of connections.
    pub events: Arc<OwnedFd>,
    /// For what is to be done about them.
    pub entries: Entries,
}

impl Entrance {
    /// Has the ends of connections in a netns be told from now on.
    pub fn follow_control(&self, netns: &Netns) -> Result<ControlWatch, NetnsError> {
        self.enter(netns, || {
            let events = Arc::new(open(SockProtocol::NetlinkNetFilter, GROUPS)?);
            Ok(ControlWatch { events, entries: Entries::open_here()? })
        })
    }
}

/// Reads what was told so far, or a good deal of it. Returns whether a control connection has ended, as far as is known: what
/// there was no room for may have said so; and whether that was all.
pub fn read_events(events: &OwnedFd) -> io::Result<(bool, bool)> {
    let mut buffer = Buffer::take();
    let mut has_ended = false;
    for _ in 0..READS {
        match hear(events, &mut buffer)? {
            Heard::Nothing => return Ok((has_ended, true)),
            Heard::Bytes(length) => has_ended |= told_of_an_end(&buffer[..length]),
            Heard::Lost => has_ended = true,
        }
    }
    Ok((has_ended, false))
}

impl Entries {
    /// Opens a socket in the calling thread's netns.
    fn open_here() -> io::Result<Self> {
        let fd = netlink::open(SockProtocol::NetlinkNetFilter, 0, SockFlag::empty())?;
        Ok(Self { socket: Arc::new(fd), sequence: 0 })
    }

    /// The socket itself, for whoever looks after its end.
    pub fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Removes what is left behind of control connections that have ended. The next packet of such a connection belongs to none,
    /// and is judged like any other. Returns what was removed.
    pub fn close_left_behind(&mut self) -> io::Result<Vec<Tuple>> {
        let all = self.all()?;
        let mut removed = Vec::new();
        let mut gone: BTreeSet<Tuple> = BTreeSet::new();
        for entry in left_behind(&all) {
            let Some(master) = entry.master else { continue };
            // Entries come and go while they are read, so one may have been passed over.
            let is_seen = all.iter().any(|other| other.tuple == master && !other.is_awaited);
            if !is_seen && !gone.contains(&master) {
                if self.is_alive(master, &entry.raw_master)? {
                    continue;
                }
                gone.insert(master);
            }
            if self.remove(entry)? {
                removed.push(entry.tuple);
            }
        }
        Ok(removed)
    }

    /// Every entry and expectation of the netns, of protocols with ports.
    pub fn all(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (subsystem, read) in [
            (ENTRIES, Entry::read as fn(&[u8]) -> Option<Entry>),
            (EXPECTATIONS, Entry::read_expectation),
        ] {
            let request = self.request(subsystem, GET, libc::NLM_F_DUMP, 0, &[]);
            let result = self.ask(&request, |payload| entries.extend(read(payload)));
            // A kernel without expectations has nothing of them.
            if let Err(errno) = result
                && !(subsystem == EXPECTATIONS && errno == Errno::EOPNOTSUPP)
            {
                return Err(errno.into());
            }
        }
        Ok(entries)
    }

    /// Whether a master that was not among the entries read is there after all, and not ending.
    fn is_alive(&mut self, master: Tuple, raw: &[u8]) -> io::Result<bool> {
        let request = self.request(ENTRIES, GET, 0, master.family(), &[(TUPLE | NESTED, raw)]);
        let mut is_alive = false;
        let read = |payload: &[u8]| is_alive |= !is_ending(payload);
        match self.ask(&request, read) {
            Ok(()) => Ok(is_alive),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes an entry or an expectation. Returns whether it was there.
    fn remove(&mut self, entry: &Entry) -> io::Result<bool> {
        let (subsystem, tuple, id) = match entry.is_awaited {
            false => (ENTRIES, TUPLE, ID),
            true => (EXPECTATIONS, EXPECT_TUPLE, EXPECT_ID),
        };
        let number = entry.id.to_be_bytes();
        let attributes = [(tuple | NESTED, entry.raw.as_slice()), (id, &number)];
        let family = entry.tuple.family();
        let request = self.request(subsystem, DELETE, libc::NLM_F_ACK, family, &attributes);
        match self.ask(&request, |_| {}) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn request(
        &mut self,
        subsystem: u16,
        kind: u16,
        flags: i32,
        family: u8,
        attributes: &[(u16, &[u8])],
    ) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = write(subsystem << 8 | kind, flags, self.sequence, (family, 0), &[]);
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    /// Sends a request and hands over what is answered, up to the end, an error, or the one answer to a request for one.
    fn ask(&mut self, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        let flags = i32::from(u16::from_ne_bytes([request[6], request[7]]));
        let is_single = flags & (libc::NLM_F_DUMP | libc::NLM_F_ACK) == 0;
        let mut buffer = Buffer::take();
        loop {
            let length = receive(&self.socket, &mut buffer, MsgFlags::empty())?;
            for message in messages(&buffer[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                match (i32::from(message.kind), message.errno()) {
                    (libc::NLMSG_DONE, _) | (_, Some(0)) => return Ok(()),
                    (_, Some(errno)) => return Err(Errno::from_raw(errno)),
                    _ => each(message.payload.get(4..).unwrap_or(&[])),
                }
                if is_single {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSIVE: (u16, u16) = (40_000, 50_000);

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        plain(kind | NESTED, &parts.concat())
    }

    fn plain(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, protocol: u8, ports: (u16, u16)) -> Vec<u8> {
        let ip = nested(1, &[plain(1, &[10, 0, 0, 1]), plain(2, &[10, 0, 0, 2])]);
        let (from, to) = (plain(2, &ports.0.to_be_bytes()), plain(3, &ports.1.to_be_bytes()));
        nested(kind, &[ip, nested(2, &[plain(1, &[protocol]), from, to])])
    }

    fn state(number: u8) -> Vec<u8> {
        nested(PROTOCOL_STATE, &[nested(1, &[plain(1, &[number])])])
    }

    fn id() -> Vec<u8> {
        plain(ID, &[0, 0, 0, 7])
    }

    fn told(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = write(ENTRIES << 8 | kind, 0, 1, (2, 0), &[]);
        bytes.extend(attributes.concat());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_end_of_a_control_connection_is_told_apart_from_any_other_news() {
        let helped = plain(STATUS, &HAS_HELPER.to_be_bytes());
        let other = plain(STATUS, &6u32.to_be_bytes());
        let control = |protocol| tuple(TUPLE, protocol, (40_000, 21));
        let cases = [
            (0, vec![control(TCP), helped.clone(), state(3)], false),
            (0, vec![control(TCP), helped.clone(), state(4)], true),
            (0, vec![control(TCP), helped.clone(), state(8)], true),
            (0, vec![control(TCP), other.clone(), state(4)], false),
            (DELETE, vec![control(TCP), helped.clone()], true),
            (DELETE, vec![control(TCP), other], false),
            (DELETE, vec![control(17), helped], false),
        ];
        for (kind, attributes, is_end) in cases {
            let bytes = told(kind, &attributes);
            assert_eq!(told_of_an_end(&bytes), is_end, "{kind} {attributes:?}");
            for end in 0..bytes.len() {
                assert!(!told_of_an_end(&bytes[..end]), "half a message says nothing");
            }
        }
    }

    #[test]
    fn what_was_agreed_on_lives_as_long_as_the_connection_it_was_agreed_on_over() {
        let control = |number| {
            Entry::read(&[tuple(TUPLE, TCP, (40_000, 21)), state(number), id()].concat()).unwrap()
        };
        let data = |protocol| {
            let master = tuple(MASTER, protocol, (40_000, 21));
            Entry::read(&[tuple(TUPLE, protocol, PASSIVE), master, id()].concat()).unwrap()
        };
        let awaited = Entry::read_expectation(
            &[
                tuple(EXPECT_MASTER, TCP, (40_000, 21)),
                tuple(EXPECT_TUPLE, TCP, (0, 50_001)),
                plain(EXPECT_ID, &[0, 0, 0, 8]),
            ]
            .concat(),
        )
        .unwrap();
        let left =
            |entries: &[Entry]| left_behind(entries).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(left(&[control(3), data(TCP), awaited.clone()]), []);
        let both = [data(TCP), awaited];
        assert_eq!(left(&[control(4), both[0].clone(), both[1].clone()]), both);
        assert_eq!(left(&both), both, "it is gone");
        assert_eq!(left(&[data(17)]), [], "what UDP says has no end");
    }
}
