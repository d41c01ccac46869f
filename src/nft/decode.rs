//! Owns reading netlink messages: the kernel's dump becomes the same types seawall writes.
//!
//! Pure: bytes in, values out, and nothing it is given makes it panic.
//! Attribute numbers: `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;
use std::sync::Arc;

use super::expr::{Expr, HELPER_OBJECT, lift};
use super::owner::TableState;
use crate::compile::helped::CtHelper;
use crate::compile::ruleset::{
    Base, Chain, Comment, Element, Family, Hook, Key, KeyKind, Rule, Set, TABLE, TableFamily,
    Verdict,
};

/// An attribute's number and bytes.
type Attribute<'a> = (u16, &'a [u8]);

/// The attributes in `bytes`; what is cut off or malformed is left out (`struct nlattr`, `linux/netlink.h`).
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The upper two bits say nested and byte order (`NLA_TYPE_MASK`).
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute with this number.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(bytes, kind)?.try_into().ok()?))
}

pub(super) fn long(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(attribute(bytes, kind)?.try_into().ok()?))
}

pub(super) fn string(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attribute(bytes, kind)?;
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// The comment in user data, whatever else stands there (`libnftnl/udata.h`: type, length, value).
fn comment(user_data: Option<&[u8]>, wanted: u8) -> Comment {
    let mut rest = user_data.unwrap_or(&[]);
    while let [kind, length, tail @ ..] = rest {
        let Some(value) = tail.get(..usize::from(*length)) else { break };
        if *kind == wanted {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            return Comment::new(&String::from_utf8_lossy(&value[..end]));
        }
        rest = &tail[usize::from(*length)..];
    }
    Comment::default()
}

/// Whether a message's table attribute (1) names our table.
pub fn is_ours(payload: &[u8]) -> bool {
    string(payload, 1).as_deref() == Some(TABLE)
}

/// What a table's message says beside its name (`NFTA_TABLE_*`).
pub fn table(payload: &[u8]) -> TableState {
    TableState { flags: number(payload, 2).unwrap_or_default(), owner: number(payload, 7) }
}

/// The family a message speaks of, when it is one of ours (`struct nfgenmsg`).
pub fn family(header: &[u8]) -> Option<TableFamily> {
    match i32::from(*header.first()?) {
        libc::NFPROTO_INET => Some(TableFamily::Inet),
        libc::NFPROTO_NETDEV => Some(TableFamily::Netdev),
        _ => None,
    }
}

/// A chain with its name (`NFTA_CHAIN_*`).
pub fn chain(family: TableFamily, payload: &[u8]) -> Option<(String, Chain)> {
    let base = attribute(payload, 4).map(|hook| Base {
        hook: match (family, number(hook, 1).unwrap_or(u32::MAX)) {
            (TableFamily::Inet, 1) => Hook::Input,
            (TableFamily::Inet, 2) => Hook::Forward,
            (TableFamily::Inet, 3) => Hook::Output,
            (TableFamily::Netdev, 1) => Hook::Egress,
            (_, other) => Hook::Other(other),
        },
        // `NFTA_HOOK_DEV`; not told of a chain at several links.
        device: string(hook, 3),
        priority: number(hook, 2).unwrap_or_default() as i32,
        drops: number(payload, 5) == Some(0),
    });
    Some((string(payload, 3)?, Chain { base, rules: Arc::default() }))
}

/// A rule with its chain's name, and the counts of its counter if it has one (`NFTA_RULE_*`).
pub fn rule(payload: &[u8]) -> Option<(String, Rule, Option<Counts>)> {
    let mut exprs = Vec::new();
    let mut counts = None;
    for (_, element) in attributes(attribute(payload, 4).unwrap_or(&[])) {
        let name = string(element, 1)?;
        let data = attribute(element, 2).unwrap_or(&[]);
        if name == "counter" {
            counts = Some(Counts {
                bytes: long(data, 1).unwrap_or_default(),
                packets: long(data, 2).unwrap_or_default(),
            });
        }
        exprs.extend(expression(&name, data));
    }
    let rule = Rule { statements: lift(&exprs), comment: comment(attribute(payload, 7), 0) };
    Some((string(payload, 2)?, rule, counts))
}

/// A counter's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
}

/// The register as a 32-bit register number: the kernel names the first of each 128-bit one differently.
fn register(raw: u32) -> u32 {
    match raw {
        1..=4 => (raw - 1) * 4,
        other => other.wrapping_sub(8),
    }
}

/// One expression, or nothing for one that does nothing.
fn expression(name: &str, data: &[u8]) -> Option<Expr> {
    let reg = |kind| number(data, kind).map(register);
    let value = |kind| attribute(attribute(data, kind)?, 1).map(<[u8]>::to_vec);
    let known = match name {
        "meta" => number(data, 2).zip(reg(1)).map(|(key, dreg)| Expr::Meta { key, dreg }),
        "ct" if attribute(data, 3).is_some() => None,
        "ct" => number(data, 2).and_then(|key| match (reg(1), reg(4)) {
            (Some(dreg), None) => Some(Expr::CtLoad { key, dreg }),
            (None, Some(sreg)) => Some(Expr::CtSet { key, sreg }),
            _ => None,
        }),
        "payload" => payload(data),
        "bitwise" => bitwise(data),
        "cmp" => number(data, 2).zip(reg(1)).zip(value(3)).map(|((op, sreg), data)| Expr::Cmp {
            op,
            sreg,
            data,
        }),
        // A map lookup has a destination, an inverted one flags.
        "lookup" if reg(3).is_some() || number(data, 5).unwrap_or_default() != 0 => None,
        "lookup" => string(data, 1).zip(reg(2)).map(|(set, sreg)| Expr::Lookup { set, sreg }),
        "objref" => {
            number(data, 1).zip(string(data, 2)).map(|(kind, name)| Expr::Object { kind, name })
        }
        "counter" => Some(Expr::Counter),
        "limit"
            if number(data, 4).unwrap_or_default() | number(data, 5).unwrap_or_default() != 0 =>
        {
            None
        }
        "limit" => long(data, 1)
            .zip(long(data, 2))
            .zip(number(data, 3))
            .map(|((rate, unit), burst)| Expr::Limit { rate, unit, burst }),
        "log" => string(data, 2).zip(attribute(data, 1)).and_then(|(prefix, group)| {
            let group = u16::from_be_bytes(group.try_into().ok()?);
            Some(Expr::Log { prefix, group })
        }),
        "reject" => number(data, 1).map(|kind| Expr::Reject {
            kind,
            code: attribute(data, 2).and_then(|code| code.first()).copied().unwrap_or_default(),
        }),
        "immediate" if number(data, 1) == Some(0) => {
            attribute(data, 2).and_then(|data| verdict(attribute(data, 2)?)).map(Expr::Verdict)
        }
        // nft swaps the bytes of a one-byte field in interval lookups, which changes nothing.
        "byteorder" if number(data, 4) == Some(1) => return None,
        _ => None,
    };
    Some(known.unwrap_or_else(|| Expr::Other(name.to_owned())))
}

fn payload(data: &[u8]) -> Option<Expr> {
    Some(Expr::Payload {
        dreg: register(number(data, 1)?),
        base: number(data, 2)?,
        offset: number(data, 3)?,
        len: number(data, 4)?,
    })
}

fn bitwise(data: &[u8]) -> Option<Expr> {
    let value = |kind| attribute(attribute(data, kind)?, 1).map(<[u8]>::to_vec);
    let (source, destination) = (register(number(data, 1)?), register(number(data, 2)?));
    let is_boolean = number(data, 6).unwrap_or_default() == 0 && source == destination;
    is_boolean.then_some(())?;
    Some(Expr::Bitwise { reg: source, mask: value(4)?, xor: value(5)? })
}

fn verdict(data: &[u8]) -> Option<Verdict> {
    let code = number(data, 1)? as i32;
    let chain = || string(data, 2);
    match code {
        libc::NF_ACCEPT => Some(Verdict::Accept),
        libc::NF_DROP => Some(Verdict::Drop),
        libc::NFT_RETURN => Some(Verdict::Return),
        libc::NFT_JUMP => chain().map(Verdict::Jump),
        libc::NFT_GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}

/// A set with its name, without elements; `None` for the type of a set seawall does not use (`NFTA_SET_*`).
pub fn set(payload: &[u8]) -> (String, Option<Set>) {
    let name = string(payload, 2).unwrap_or_default();
    let interval = number(payload, 3).unwrap_or_default() & 0x4 != 0;
    let comment = comment(attribute(payload, 13), 7);
    let candidates =
        [KeyKind::Tuple, KeyKind::Ping, KeyKind::Address].into_iter().flat_map(|kind| {
            Family::BOTH.map(|family| Set {
                family,
                kind,
                interval,
                comment: comment.clone(),
                elements: Arc::default(),
            })
        });
    let key_type = number(payload, 4);
    let found = candidates
        .into_iter()
        .find(|candidate| key_type == Some(super::message::key_layout(candidate).0));
    (name, found)
}

/// A helper with its name; `None` for any other object (`NFTA_OBJ_*`, `NFTA_CT_HELPER_*`).
pub fn helper(payload: &[u8]) -> Option<(String, CtHelper)> {
    let data = attribute(payload, 4).filter(|_| number(payload, 3) == Some(HELPER_OBJECT))?;
    let protocol = *attribute(data, 3)?.first()?;
    Some((string(payload, 2)?, CtHelper { kind: string(data, 1)?, protocol }))
}

/// The name of the set a message's elements belong to (`NFTA_SET_ELEM_LIST_SET`).
pub fn element_set(payload: &[u8]) -> Option<String> {
    string(payload, 2)
}

/// Adds a message's elements to their set (`NFTA_SET_ELEM_LIST_*`). Returns how many it held.
pub fn elements(payload: &[u8], set: &mut Set) -> usize {
    let mut count = 0;
    for (_, element) in attributes(attribute(payload, 3).unwrap_or(&[])) {
        let end = |kind| attribute(attribute(element, kind)?, 1).and_then(|bytes| key(set, bytes));
        if let Some(first) = end(1) {
            let last = end(10).unwrap_or(first);
            let comment = comment(attribute(element, 6), 0);
            Arc::make_mut(&mut set.elements).insert(Element { first, last }, comment);
            count += 1;
        }
    }
    count
}

fn key(set: &Set, bytes: &[u8]) -> Option<Key> {
    let (address, rest) = match set.family {
        Family::V4 => {
            let (address, rest) = bytes.split_first_chunk::<4>()?;
            (IpAddr::from(*address), rest)
        }
        Family::V6 => {
            let (address, rest) = bytes.split_first_chunk::<16>()?;
            (IpAddr::from(*address), rest)
        }
    };
    let port = match set.kind {
        KeyKind::Tuple => u16::from_be_bytes([*rest.get(4)?, *rest.get(5)?]),
        KeyKind::Ping | KeyKind::Address => 0,
    };
    let selector = if set.kind == KeyKind::Address { 0 } else { *rest.first()? };
    Some(Key { address, selector, port })
}
