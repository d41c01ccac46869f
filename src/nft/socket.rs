//! Owns the netlink socket: one transaction in one `send`, its errors told by object, and consistent dumps.
//!
//! A socket acts on the netns it was opened in, whichever thread uses it. While it is open the netns lives on, and what it
//! owns there is its own: it is kept as long as the container lives, and no longer.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{
    MsgFlags, NetlinkAddr, SockFlag, SockProtocol, getsockname, send, setsockopt, sockopt,
};

use super::buffer::Buffer;
use super::decode::{self, Counts, attribute};
use super::diff::{Op, Transaction};
use super::message::{ask_for_short_errors, encode, number};
use super::netlink::{open, receive};
use super::owner::{Holder, TableState};
use super::wire;
use crate::compile::ruleset::{Comment, Element, Ruleset, Set, TableFamily};

/// Room for a whole transaction or dump in the socket's buffers, in bytes; the default of 208 KiB is not enough.
const BUFFER: usize = 16 << 20;
/// How often a large set is read at most until two readings agree.
const READINGS: usize = 20;
/// How often the whole is read at most until nobody changed it meanwhile.
const DUMPS: usize = 10;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A set's elements, each with what it stands for.
type Elements = Arc<BTreeMap<Element, Comment>>;

/// Why a transaction was not applied. The old ruleset is whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Someone changed the ruleset since it was read; plan again.
    #[error("the ruleset changed while the change was prepared")]
    Stale,
    /// The kernel refused an object.
    #[error("the kernel refused to {object}: {reason}")]
    Refused {
        /// The operation, in words.
        object: String,
        /// The kernel's reason, with its own explanation where it gives one.
        reason: String,
        /// The error number.
        errno: i32,
        /// The family of the table it is in; none where it is none of an object.
        family: Option<TableFamily>,
    },
    /// Another process made the table its own (`NFT_TABLE_F_OWNER`).
    #[error("{} owns the table `inet seawall` there and nobody else may change it; {}", owner_name(.0), owner_remedy(.0))]
    Owned(Option<Holder>),
    /// The kernel has no tables that are owned and stay (`NFT_TABLE_F_PERSIST`, Linux 6.9).
    #[error("this kernel has no owned tables that outlive their owner")]
    NoOwnership,
    /// The kernel has no such helper.
    #[error(
        "this kernel has no connection tracking helper `{0}`; load it: modprobe nf_conntrack_{0}"
    )]
    NoHelper(String),
    /// seawall may not change it.
    #[error("no permission to change nftables; run seawall as root (it needs CAP_NET_ADMIN)")]
    Permission,
    /// The socket failed.
    #[error("cannot talk to nftables over netlink")]
    Io(#[from] io::Error),
}

fn owner_name(holder: &Option<Holder>) -> String {
    holder.as_ref().map_or("another process".to_owned(), ToString::to_string)
}

fn owner_remedy(holder: &Option<Holder>) -> &'static str {
    match holder {
        Some(holder) if holder.name == "seawall" => {
            "ask that daemon (`seawall --socket PATH clear`), or end it"
        }
        _ => "end that process, or restart the container",
    }
}

/// What one netns holds now.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Table `inet seawall`, if there is one.
    pub ruleset: Option<Ruleset>,
    /// Whose that table is.
    pub table: Option<TableState>,
    /// Table `netdev seawall`, if there is one.
    pub guard: Option<Ruleset>,
    /// Whose that table is.
    pub guard_table: Option<TableState>,
    /// Counts of counting rules, summed by chain.
    pub counts: BTreeMap<String, Counts>,
    /// The generation of the netns' whole nftables configuration this was read at.
    pub generation_id: u32,
}

/// A socket onto the nftables of one netns.
#[derive(Debug)]
pub struct KernelTable {
    socket: OwnedFd,
    sequence: u32,
    /// The address others know the socket by; what it owns carries it.
    port_id: u32,
}

impl KernelTable {
    /// Opens a socket in the calling thread's netns.
    pub fn open_here() -> io::Result<Self> {
        let fd = open(SockProtocol::NetlinkNetFilter, 0, SockFlag::empty())?;
        // Without CAP_NET_ADMIN in the initial user namespace the buffers stay small; then large changes fail loudly.
        let _ = setsockopt(&fd, sockopt::SndBufForce, &BUFFER);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
        ask_for_short_errors(&fd)?;
        let port_id = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Self { socket: fd, sequence: 0, port_id })
    }

    /// The address others know the socket by (`nl_pid`, `netlink(7)`).
    pub fn port_id(&self) -> u32 {
        self.port_id
    }

    /// Applies a transaction, whole or not at all.
    ///
    /// `generation_id` is that of the dump it was planned from; [`ApplyError::Stale`] when it is another by now.
    pub fn commit(
        &mut self,
        transaction: &Transaction,
        generation_id: Option<u32>,
    ) -> Result<(), ApplyError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let encoded = encode(transaction.operations(), generation_id);
        let refused = self.send_batch(encoded.bytes)?;
        match refused.iter().find(|reply| reply.errno != 0) {
            None => Ok(()),
            Some(reply) => Err(reply.explain(transaction, &encoded.sequence)),
        }
    }

    /// Sends a batch about tables of others.
    pub(super) fn send_all(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let refused = self.send_batch(bytes.to_vec())?;
        match refused.iter().find(|reply| reply.errno != 0) {
            None => Ok(()),
            Some(reply) => Err(ApplyError::Io(io::Error::from_raw_os_error(reply.errno))),
        }
    }

    /// Sends a batch. Returns what the kernel has to say of it.
    fn send_batch(&mut self, mut bytes: Vec<u8>) -> Result<Vec<Reply>, ApplyError> {
        wire::ask_for_an_answer(&mut bytes);
        let sent = send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty());
        sent.map_err(|errno| self.send_error(errno))?;
        // The kernel has done or refused everything when `send` returns: what it has to say is there now. Where it says
        // nothing there was no room for it, and nobody knows.
        let mut replies = Vec::new();
        let mut buffer = Buffer::take();
        loop {
            let length = match receive(&self.socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(nix::errno::Errno::EAGAIN) if replies.is_empty() => {
                    return Err(ApplyError::Io(nix::errno::Errno::ENOBUFS.into()));
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(replies),
                Err(errno) => return Err(ApplyError::Io(errno.into())),
            };
            replies.extend(wire::messages(&buffer[..length]).filter_map(Reply::of));
        }
    }

    /// Asks for objects of any family (0: of all), whoever's. Hands over each with its family: how many there are is
    /// for others to choose, so they are not kept.
    pub(super) fn ask(
        &mut self,
        (kind, is_dump): (i32, bool),
        family: u8,
        strings: &[(u16, &str)],
        mut each: impl FnMut(u8, &[u8]),
    ) -> Result<(), ApplyError> {
        self.sequence = self.sequence.wrapping_add(1);
        let kind = (wire::NFTABLES << 8) | kind as u16;
        let flags = if is_dump { libc::NLM_F_DUMP } else { 0 };
        let request = wire::write(kind, flags, self.sequence, (family, 0), strings);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())
            .map_err(|errno| self.send_error(errno))?;
        let mut buffer = Buffer::take();
        let mut is_told = false;
        while is_dump || !is_told {
            let length = receive(&self.socket, &mut buffer, MsgFlags::empty())
                .map_err(|errno| ApplyError::Io(errno.into()))?;
            for message in wire::messages(&buffer[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.nftables() {
                    Some((_, family, attributes)) => {
                        is_told = true;
                        each(family, attributes);
                    }
                    // The end. What went away meanwhile shows in the generation.
                    None => match message.errno() {
                        None | Some(0 | libc::ENOENT) => return Ok(()),
                        Some(libc::EPERM) => return Err(ApplyError::Permission),
                        Some(errno) => {
                            return Err(ApplyError::Io(io::Error::from_raw_os_error(errno)));
                        }
                    },
                }
            }
        }
        Ok(())
    }

    fn send_error(&self, errno: nix::errno::Errno) -> ApplyError {
        match errno {
            nix::errno::Errno::EPERM => ApplyError::Permission,
            other => ApplyError::Io(other.into()),
        }
    }

    /// Reads the netns' tables, their elements and counters, all of one moment.
    pub fn dump(&mut self) -> Result<Dump, ApplyError> {
        // A change in between shows in the generation; then the whole is read again.
        for _ in 0..DUMPS {
            let before = self.generation_id()?;
            let dump = self.dump_once(before);
            if self.generation_id()? == before {
                return dump;
            }
        }
        Err(ApplyError::Stale)
    }

    fn dump_once(&mut self, generation_id: u32) -> Result<Dump, ApplyError> {
        let mut dump = Dump { generation_id, ..Dump::default() };
        let tables = self.request(None, libc::NFT_MSG_GETTABLE, &[], true)?;
        let mut held: BTreeMap<TableFamily, Ruleset> = BTreeMap::new();
        for Answer { family, payload } in tables.iter().filter(|answer| answer.is_ours()) {
            let Some(family) = *family else { continue };
            let state = Some(decode::table(payload));
            match family {
                TableFamily::Inet => dump.table = state,
                TableFamily::Netdev => dump.guard_table = state,
            }
            held.insert(family, Ruleset::empty(family));
        }
        if held.is_empty() {
            return Ok(dump);
        }
        for answer in self.request(None, libc::NFT_MSG_GETCHAIN, &[], true)? {
            let Some(ruleset) = answer.ruleset(&mut held) else { continue };
            ruleset.chains.extend(decode::chain(ruleset.family, &answer.payload));
        }
        let table = [(1, crate::compile::TABLE)];
        // Of one family each: the kernel stops at the first table of that name.
        for (family, ruleset) in &mut held {
            for answer in self.request(Some(*family), libc::NFT_MSG_GETRULE, &table, true)? {
                let Some((chain, rule, counts)) = decode::rule(&answer.payload) else { continue };
                if let Some(counts) = counts {
                    let sum = dump.counts.entry(chain.clone()).or_default();
                    sum.packets += counts.packets;
                    sum.bytes += counts.bytes;
                }
                if let Some(chain) = ruleset.chains.get_mut(&chain) {
                    Arc::make_mut(&mut chain.rules).push(rule);
                }
            }
            if *family == TableFamily::Inet {
                let objects = self.request(Some(*family), libc::NFT_MSG_GETOBJ, &table, true)?;
                let helpers = objects.iter().filter_map(|answer| decode::helper(&answer.payload));
                ruleset.helpers.extend(helpers);
            }
            for answer in self.request(Some(*family), libc::NFT_MSG_GETSET, &table, true)? {
                let (name, set) = decode::set(&answer.payload);
                let Some(mut set) = set else { continue };
                set.elements = self.elements(*family, &name, &set)?;
                ruleset.sets.insert(name, set);
            }
        }
        dump.ruleset = held.remove(&TableFamily::Inet);
        dump.guard = held.remove(&TableFamily::Netdev);
        Ok(dump)
    }

    /// A set's elements.
    ///
    /// The kernel tells a large hash set in parts, each beginning where the last one ended by count. While it grows
    /// such a set's table in the background (after many elements were added), the order changes between parts, and
    /// elements are left out. So what comes in parts is read until two readings agree.
    fn elements(
        &mut self,
        family: TableFamily,
        name: &str,
        set: &Set,
    ) -> Result<Elements, ApplyError> {
        let names = [(1, crate::compile::TABLE), (2, name)];
        let mut last: Option<Elements> = None;
        for _ in 0..READINGS {
            let parts = self.request(Some(family), libc::NFT_MSG_GETSETELEM, &names, true)?;
            let mut found = Set { elements: Elements::default(), ..set.clone() };
            // The kernel ends with a part that holds nothing.
            let holds_some = |part: &&Answer| decode::elements(&part.payload, &mut found) > 0;
            let parts = parts.iter().filter(holds_some).count();
            if parts <= 1 || last.as_ref() == Some(&found.elements) {
                return Ok(found.elements);
            }
            last = Some(found.elements);
        }
        Err(ApplyError::Stale)
    }

    /// The generation of the netns' nftables configuration (`NFT_MSG_GETGEN`); any change by anyone raises it.
    pub fn generation_id(&mut self) -> Result<u32, ApplyError> {
        let answer = self.request(None, libc::NFT_MSG_GETGEN, &[], false)?;
        let id = answer.first().and_then(|answer| attribute(&answer.payload, 1));
        id.and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| ApplyError::Io(io::Error::other("the kernel told no generation")))
    }

    /// Asks for objects of one family or all, and collects the answers' attributes.
    fn request(
        &mut self,
        family: Option<TableFamily>,
        kind: i32,
        strings: &[(u16, &str)],
        is_dump: bool,
    ) -> Result<Vec<Answer>, ApplyError> {
        let mut answers = Vec::new();
        let number = family.map_or(libc::NFPROTO_UNSPEC, number) as u8;
        self.ask((kind, is_dump), number, strings, |family, attributes| {
            answers
                .push(Answer { family: decode::family(&[family]), payload: attributes.to_vec() });
        })?;
        Ok(answers)
    }
}

/// One object, as the kernel tells it.
struct Answer {
    family: Option<TableFamily>,
    /// Its attributes.
    payload: Vec<u8>,
}

impl Answer {
    fn is_ours(&self) -> bool {
        decode::is_ours(&self.payload)
    }

    /// The ruleset it is a part of.
    fn ruleset<'a>(&self, held: &'a mut BTreeMap<TableFamily, Ruleset>) -> Option<&'a mut Ruleset> {
        held.get_mut(&self.family?).filter(|_| self.is_ours())
    }
}

/// The kernel's answer to one message of a batch (`struct nlmsgerr`).
struct Reply {
    sequence: u32,
    errno: i32,
    explanation: Option<String>,
}

impl Reply {
    fn of(message: wire::Message<'_>) -> Option<Self> {
        (i32::from(message.kind) == libc::NLMSG_ERROR).then_some(())?;
        let errno = -i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
        // With NLM_F_CAPPED (0x100) only the refused message's header follows, then the extended attributes.
        let is_capped = message.flags & 0x100 != 0;
        let inner = match is_capped {
            true => wire::HEADER,
            false => u32::from_ne_bytes(message.payload.get(4..8)?.try_into().ok()?) as usize,
        };
        let extended = message.payload.get(4 + inner.next_multiple_of(4)..).unwrap_or(&[]);
        let text = attribute(extended, NLMSGERR_ATTR_MSG);
        let explanation = text.map(|text| {
            String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
        });
        Some(Self { sequence: message.sequence, errno, explanation })
    }

    fn explain(&self, transaction: &Transaction, sequence: &[(u32, usize)]) -> ApplyError {
        let op = sequence
            .binary_search_by_key(&self.sequence, |(sequence, _)| *sequence)
            .ok()
            .and_then(|at| transaction.operations().nth(sequence[at].1));
        let (family, op) = (op.map(|(family, _)| family), op.map(|(_, op)| op));
        match (self.errno, op) {
            (libc::ERESTART, _) => return ApplyError::Stale,
            // Without permission the batch as a whole is refused, not an operation in it.
            (libc::EPERM, None) => return ApplyError::Permission,
            (libc::EPERM, Some(_)) => return ApplyError::Owned(None),
            // Before Linux 6.9 the flags are unknown, or persisting is.
            (libc::EOPNOTSUPP | libc::EINVAL, Some(Op::AddOwnedTable)) => {
                return ApplyError::NoOwnership;
            }
            (libc::ENOENT, Some(Op::AddHelper { helper, .. })) => {
                return ApplyError::NoHelper(helper.kind.clone());
            }
            _ => {}
        }
        let object = op.map_or("commit the transaction".to_owned(), |op| {
            op.to_string().chars().take(200).collect()
        });
        let system = io::Error::from_raw_os_error(self.errno).to_string();
        let reason = match &self.explanation {
            Some(explanation) => format!("{explanation} ({system})"),
            None => system,
        };
        ApplyError::Refused { object, reason, errno: self.errno, family }
    }
}
