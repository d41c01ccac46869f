//! Owns hearing what rules log: binding NFLOG groups in a netns, and reading what comes.
//!
//! Reading is pure. Source: `linux/netfilter/nfnetlink_log.h` (`NFULNL_*`, `NFULA_*`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use super::decode::{attribute, long, number, string};
use super::netlink::receive;
use super::wire::{self, messages};
use crate::compile::ruleset::{ANSWER_GROUP, LOG_GROUP};

/// `NFULNL_MSG_PACKET`.
const PACKET: u8 = 0;
/// `NFULNL_MSG_CONFIG`.
const CONFIG: u16 = 1;
/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`.
const COPY: u8 = 2;

/// A group of logged packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// By which rules name it.
    pub(super) number: u16,
    /// How much of each packet is asked for, in bytes.
    length: u32,
}

/// Denied packets: all headers there usually are.
pub(super) const DENIALS: Group = Group { number: LOG_GROUP, length: 128 };
/// What resolvers answer: what fits one datagram (RFC 6891 recommends 1232 at most).
pub(super) const ANSWERS: Group = Group { number: ANSWER_GROUP, length: 1500 };

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged<'a> {
    /// The rule's prefix.
    pub prefix: String,
    /// EtherType of what follows.
    pub ethertype: u16,
    /// The packet from its network header on, or its beginning.
    pub payload: &'a [u8],
    /// The user whose socket sent it, where one of this netns did.
    pub uid: Option<u32>,
    /// When it was received, in microseconds since 1970, where the kernel told.
    pub at_us: Option<u64>,
}

/// Has a group's packets be sent to this socket. It acts on the netns it was opened in.
///
/// Errors: `EBUSY` where somebody else listens to the group there already.
pub(super) fn bind_group(socket: &OwnedFd, group: Group) -> io::Result<()> {
    configure(socket, group.number, (1, vec![BIND]))?;
    let mode = [&group.length.to_be_bytes()[..], &[COPY, 0]].concat();
    configure(socket, group.number, (2, mode))?;
    // One packet is sent as soon as it is there: the rules' limits keep them few.
    configure(socket, group.number, (5, 1u32.to_be_bytes().to_vec()))
}

fn configure(socket: &OwnedFd, group: u16, value: (u16, Vec<u8>)) -> io::Result<()> {
    let kind = (wire::LOG << 8) | CONFIG;
    let request = wire::write_bytes(kind, libc::NLM_F_ACK, 1, (0, group), &[value]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; 4096];
    loop {
        // The answer is there when `send` returns; packets of a group that was bound before may come first.
        let length = match receive(socket, &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::ENOBUFS) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match messages(&buffer[..length]).find_map(|message| message.errno()) {
            Some(0) => return Ok(()),
            Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            None => continue,
        }
    }
}

/// The packets in what one `recv` gave.
pub fn logged(bytes: &[u8]) -> impl Iterator<Item = Logged<'_>> {
    messages(bytes).filter_map(|message| match message.of(wire::LOG)? {
        (PACKET, attributes) => Some(of(attributes)),
        _ => None,
    })
}

fn of(attributes: &[u8]) -> Logged<'_> {
    let header = attribute(attributes, 1).unwrap_or(&[]);
    // `struct nfulnl_msg_packet_timestamp`: seconds, microseconds.
    let time = attribute(attributes, 3).and_then(|time| time.split_at_checked(8));
    let big = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    let at_us = time.and_then(|(seconds, micros)| {
        Some(big(seconds)?.saturating_mul(1_000_000).saturating_add(big(micros)?))
    });
    Logged {
        prefix: string(attributes, 10).unwrap_or_default(),
        ethertype: header.get(..2).map_or(0, |at| u16::from_be_bytes([at[0], at[1]])),
        payload: attribute(attributes, 9).unwrap_or(&[]),
        uid: number(attributes, 11),
        at_us,
    }
}

/// A 64-bit number in big endian.
pub(super) fn count(attributes: &[u8], kind: u16) -> u64 {
    long(attributes, kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_packet_is_read_and_cut_ones_are_no_panic() {
        let values = [
            (1, vec![8, 0, 1, 0]),
            (3, [7u64.to_be_bytes(), 9u64.to_be_bytes()].concat()),
            (9, vec![0x45, 1, 2]),
            (10, b"seawall deny in \0".to_vec()),
            (11, 33u32.to_be_bytes().to_vec()),
        ];
        let bytes = wire::write_bytes(wire::LOG << 8, 0, 0, (2, LOG_GROUP), &values);
        let found: Vec<_> = logged(&bytes).collect();
        let expected = Logged {
            prefix: "seawall deny in ".to_owned(),
            ethertype: 0x0800,
            payload: &[0x45, 1, 2],
            uid: Some(33),
            at_us: Some(7_000_009),
        };
        assert_eq!(found, [expected]);
        for end in 0..bytes.len() {
            assert_eq!(logged(&bytes[..end]).count(), 0);
        }
    }
}
