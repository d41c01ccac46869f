//! Owns reading what connection tracking tells of connections that begin and end. Pure.
//!
//! Source: `linux/netfilter/nfnetlink_conntrack.h` (`CTA_*`), `nf_conntrack_common.h` (`IPS_*`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::decode::{attribute, number};
use super::log::count;
use super::wire::{self, messages};

/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;

/// Who talks to whom, as the client's first packet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The client's address.
    pub source: IpAddr,
    /// The server's.
    pub destination: IpAddr,
    /// The transport protocol (IANA number).
    pub protocol: u8,
    /// The client's port and the server's; 0 where there are none.
    pub ports: (u16, u16),
    /// The type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
}

/// What was counted of a connection in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It began.
    New,
    /// It is over.
    Ended {
        /// Whether the server ever answered.
        was_answered: bool,
        /// From client to server, where the kernel counts (`nf_conntrack_acct`).
        out: Count,
        /// From server to client.
        back: Count,
    },
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which connection.
    pub tuple: Tuple,
    /// The connection that this one belongs to (a connection tracking helper's expectation).
    pub master: Option<Tuple>,
    /// Its mark.
    pub mark: u32,
    /// What became of it.
    pub change: Change,
}

/// The events in what one `recv` gave; changes of connections in between are left out.
pub fn told(bytes: &[u8]) -> impl Iterator<Item = Told> {
    messages(bytes).filter_map(|message| {
        // `IPCTNL_MSG_CT_NEW` is also that something changed; a new one says that it was created.
        let is_new = i32::from(message.flags) & libc::NLM_F_CREATE != 0;
        match message.of(wire::CONNTRACK)? {
            (0, attributes) if is_new => of(attributes, Change::New),
            (2, attributes) => {
                let status = number(attributes, 3).unwrap_or_default();
                let was_answered = status & SEEN_REPLY != 0;
                let (out, back) = (counted(attributes, 9), counted(attributes, 10));
                of(attributes, Change::Ended { was_answered, out, back })
            }
            _ => None,
        }
    })
}

fn of(attributes: &[u8], change: Change) -> Option<Told> {
    Some(Told {
        tuple: tuple(attribute(attributes, 1)?)?,
        master: attribute(attributes, 14).and_then(tuple),
        mark: number(attributes, 8).unwrap_or_default(),
        change,
    })
}

fn counted(attributes: &[u8], kind: u16) -> Count {
    let counters = attribute(attributes, kind).unwrap_or(&[]);
    Count { packets: count(counters, 1), bytes: count(counters, 2) }
}

fn tuple(attributes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attribute(attributes, 1)?, attribute(attributes, 2)?);
    let v4 = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?).into());
    let v6 = |kind| Some(Ipv6Addr::from(<[u8; 16]>::try_from(attribute(ip, kind)?).ok()?).into());
    let port = |kind| {
        let bytes = attribute(proto, kind).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    let icmp = attribute(proto, 5).or_else(|| attribute(proto, 8));
    Some(Tuple {
        source: v4(1).or_else(|| v6(3))?,
        destination: v4(2).or_else(|| v6(4))?,
        protocol: *attribute(proto, 1)?.first()?,
        ports: (port(2), port(3)),
        icmp_type: icmp.and_then(|bytes| bytes.first().copied()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(values: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in values {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend((kind | 0x8000).to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn tuple_of(client: [u8; 4], port: u16) -> Vec<u8> {
        let ip = nested(&[(1, client.to_vec()), (2, vec![10, 0, 0, 2])]);
        let (from, to) = (40000u16.to_be_bytes().to_vec(), port.to_be_bytes().to_vec());
        nested(&[(1, ip), (2, nested(&[(1, vec![6]), (2, from), (3, to)]))])
    }

    fn event(kind: u16, flags: i32, values: &[(u16, Vec<u8>)]) -> Vec<u8> {
        wire::write_bytes((wire::CONNTRACK << 8) | kind, flags, 0, (2, 0), values)
    }

    #[test]
    fn beginnings_and_ends_are_read_and_what_is_between_is_left_out() {
        let who = || (1, tuple_of([10, 0, 0, 1], 5432));
        let new = event(0, libc::NLM_F_CREATE, &[who(), (8, 0x1_0000u32.to_be_bytes().to_vec())]);
        let update = event(0, 0, &[who()]);
        let counts =
            nested(&[(1, 3u64.to_be_bytes().to_vec()), (2, 180u64.to_be_bytes().to_vec())]);
        let over = event(2, 0, &[who(), (3, 2u32.to_be_bytes().to_vec()), (9, counts)]);
        let found: Vec<_> = told(&[new, update, over].concat()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].change, found[0].mark), (Change::New, 0x1_0000));
        assert_eq!(found[0].tuple.ports, (40000, 5432));
        let out = Count { packets: 3, bytes: 180 };
        let ended = Change::Ended { was_answered: true, out, back: Count::default() };
        assert_eq!(found[1].change, ended);
    }

    #[test]
    fn a_data_channel_names_its_control_connection() {
        let values = [(1, tuple_of([10, 0, 0, 1], 41000)), (14, tuple_of([10, 0, 0, 1], 21))];
        let bytes = event(0, libc::NLM_F_CREATE, &values);
        let found = told(&bytes).next().unwrap();
        assert_eq!(found.master.unwrap().ports.1, 21);
        for end in 0..bytes.len() {
            assert_eq!(told(&bytes[..end]).count(), 0);
        }
    }
}
