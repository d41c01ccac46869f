//! Owns the two ways of saying one rule: seawall's statements, and the kernel's expressions with registers.
//!
//! `lower` writes the expressions that `nft(8)` 1.0.6 writes for the same text; `lift` (its own file) is its inverse and turns
//! anything else into [`Stmt::Foreign`]. Constants: `linux/netfilter/nf_tables.h`.

mod lift;
mod links;

use std::net::{IpAddr, Ipv6Addr};

pub use lift::lift;

use crate::compile::ruleset::{
    ANSWER_GROUP, CtDirection, CtState, Family, Generation, LOG_GROUP, LookupKey, LookupRest,
    Reject, Side, Stmt, Verdict,
};

/// One kernel expression, normalised: registers as 32-bit register numbers (0 to 15), counters without their counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `meta`: load a property of the packet.
    Meta {
        /// `NFT_META_*`.
        key: u32,
        /// Register.
        dreg: u32,
    },
    /// `ct`: load a property of the connection.
    CtLoad {
        /// `NFT_CT_*`.
        key: u32,
        /// Register.
        dreg: u32,
    },
    /// `ct`: set a property of the connection.
    CtSet {
        /// `NFT_CT_*`.
        key: u32,
        /// Register.
        sreg: u32,
    },
    /// `payload`: load bytes of a header.
    Payload {
        /// `NFT_PAYLOAD_*_HEADER`.
        base: u32,
        /// First byte.
        offset: u32,
        /// How many.
        len: u32,
        /// Register.
        dreg: u32,
    },
    /// `bitwise`: `reg = (reg & mask) ^ xor`.
    Bitwise {
        /// Register, source and destination.
        reg: u32,
        /// Mask.
        mask: Vec<u8>,
        /// Xor.
        xor: Vec<u8>,
    },
    /// `cmp`.
    Cmp {
        /// `NFT_CMP_*`.
        op: u32,
        /// Register.
        sreg: u32,
        /// Compared with.
        data: Vec<u8>,
    },
    /// `lookup`: the key that starts in the register is in the set.
    Lookup {
        /// Set name.
        set: String,
        /// Register.
        sreg: u32,
    },
    /// `objref`: what the table's object of this name does.
    Object {
        /// `NFT_OBJECT_*`.
        kind: u32,
        /// Its name.
        name: String,
    },
    /// `counter`.
    Counter,
    /// `limit`, in packets.
    Limit {
        /// How many.
        rate: u64,
        /// In how many seconds.
        unit: u64,
        /// At once.
        burst: u32,
    },
    /// `log` to an NFLOG group.
    Log {
        /// Prefix.
        prefix: String,
        /// Group.
        group: u16,
    },
    /// `reject`.
    Reject {
        /// `NFT_REJECT_*`.
        kind: u32,
        /// `NFT_REJECT_ICMPX_*`.
        code: u8,
    },
    /// `immediate` with a verdict.
    Verdict(Verdict),
    /// Anything else, by name.
    Other(String),
}

const META_LEN: u32 = 0;
const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_RTCLASSID: u32 = 13;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_MARK: u32 = 3;
const CT_HELPER: u32 = 6;
/// How long a helper's name is in a register, in bytes (`NF_CT_HELPER_NAME_LEN`).
const HELPER_NAME: usize = 16;
/// `NFT_OBJECT_CT_HELPER`.
pub(super) const HELPER_OBJECT: u32 = 3;
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const GTE: u32 = 5;
const REJECT_TCP_RST: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_ADMIN_PROHIBITED: u8 = 3;
/// The loopback interface's index in every netns (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// A class no route has (`tc_classid` is 16 bits of realm twice). Loading it fails for a packet without a route, and then
/// no comparison holds (`NFT_META_RTCLASSID`, `nft_meta_get_eval`).
const NO_CLASS: u32 = u32::MAX;
/// An ARP frame for IPv4 on Ethernet, as the kernel sends it: 14 bytes of Ethernet, 28 of ARP (RFC 826).
const ARP_LENGTH: u32 = 42;
/// What stands between the two sender addresses of such a frame: EtherType, Ethernet, IPv4, their addresses' lengths.
pub(super) const ARP_HEAD: [u8; 8] = [8, 6, 0, 1, 8, 0, 6, 4];
const LOG_RATE: u64 = 10;
const LOG_BURST: u32 = 20;
const ANSWER_RATE: u64 = 50;
const ANSWER_BURST: u32 = 100;
/// By which a copy of an answer is known.
const ANSWER_PREFIX: &str = "seawall dns";
const UDP: u8 = 17;

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 58,
    }
}

/// Offset and length of an address in its header (RFC 791, RFC 8200).
fn address_field(family: Family, side: Side) -> (u32, u32) {
    match (family, side) {
        (Family::V4, Side::Source) => (12, 4),
        (Family::V4, Side::Destination) => (16, 4),
        (Family::V6, Side::Source) => (8, 16),
        (Family::V6, Side::Destination) => (24, 16),
    }
}

fn is_byte(dreg_key: u32, value: u8) -> [Expr; 2] {
    [Expr::Meta { key: dreg_key, dreg: 0 }, Expr::Cmp { op: EQ, sreg: 0, data: vec![value] }]
}

fn payload_byte(base: u32, offset: u32, value: u8) -> [Expr; 2] {
    [
        Expr::Payload { base, offset, len: 1, dreg: 0 },
        Expr::Cmp { op: EQ, sreg: 0, data: vec![value] },
    ]
}

fn ne_bytes(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The state's bit in `NFT_CT_STATE`.
fn state_bit(state: CtState) -> u32 {
    match state {
        CtState::Invalid => 1,
        CtState::Related => 4,
        CtState::New => 8,
    }
}

/// The expressions of a statement. A statement that is not seawall's own has none.
pub fn lower(statement: &Stmt) -> Vec<Expr> {
    match statement {
        Stmt::FromLoopback => loopback(META_IIF),
        Stmt::ToLoopback => loopback(META_OIF),
        Stmt::GenerationIs(generation) => mark_is(*generation),
        Stmt::SetGeneration(generation) => set_mark(*generation),
        Stmt::IsUnjudged => compare_mark(0),
        Stmt::IsLocal => mark_is(Generation::LOCAL),
        Stmt::SetLocal => set_mark(Generation::LOCAL),
        Stmt::IsObserved => mark_is(Generation::OBSERVED),
        Stmt::SetObserved => set_mark(Generation::OBSERVED),
        Stmt::CtState(state) => vec![
            Expr::CtLoad { key: CT_STATE, dreg: 0 },
            Expr::Bitwise { reg: 0, mask: ne_bytes(state_bit(*state)), xor: ne_bytes(0) },
            Expr::Cmp { op: NEQ, sreg: 0, data: ne_bytes(0) },
        ],
        Stmt::CtStateIsNot(state) => vec![
            Expr::CtLoad { key: CT_STATE, dreg: 0 },
            Expr::Cmp { op: NEQ, sreg: 0, data: ne_bytes(state_bit(*state)) },
        ],
        Stmt::CtDirection(direction) => vec![
            Expr::CtLoad { key: CT_DIRECTION, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: vec![u8::from(*direction == CtDirection::Reply)] },
        ],
        Stmt::HelperIs(name) => {
            let mut data = name.as_bytes().to_vec();
            data.resize(HELPER_NAME, 0);
            vec![Expr::CtLoad { key: CT_HELPER, dreg: 0 }, Expr::Cmp { op: EQ, sreg: 0, data }]
        }
        Stmt::L4Proto(protocol) => is_byte(META_L4PROTO, *protocol).to_vec(),
        Stmt::L4ProtoIsNot(protocol) => vec![
            Expr::Meta { key: META_L4PROTO, dreg: 0 },
            Expr::Cmp { op: NEQ, sreg: 0, data: vec![*protocol] },
        ],
        Stmt::HopLimit(limit) => {
            let family = is_byte(META_NFPROTO, nfproto(Family::V6));
            [family, payload_byte(NETWORK, 7, *limit)].concat()
        }
        Stmt::Icmp6Type(icmp_type) => {
            [is_byte(META_L4PROTO, icmp(Family::V6)), payload_byte(TRANSPORT, 0, *icmp_type)]
                .concat()
        }
        Stmt::Icmp6Types(first, last) => {
            let mut exprs = is_byte(META_L4PROTO, icmp(Family::V6)).to_vec();
            exprs.push(Expr::Payload { base: TRANSPORT, offset: 0, len: 1, dreg: 0 });
            exprs.push(Expr::Cmp { op: GTE, sreg: 0, data: vec![*first] });
            exprs.push(Expr::Cmp { op: LTE, sreg: 0, data: vec![*last] });
            exprs
        }
        Stmt::Ip6LengthAtMost(length) => vec![
            Expr::Payload { base: NETWORK, offset: 4, len: 2, dreg: 0 },
            Expr::Cmp { op: LTE, sreg: 0, data: length.to_be_bytes().to_vec() },
        ],
        Stmt::Ip6To(network, bits) => ip6_to(*network, *bits),
        Stmt::Protocol(family) => {
            let data = ethertype(*family).to_be_bytes().to_vec();
            vec![Expr::Meta { key: META_PROTOCOL, dreg: 0 }, Expr::Cmp { op: EQ, sreg: 0, data }]
        }
        Stmt::SenderIs(address) => {
            let (offset, len) = address_field(Family::of(*address), Side::Source);
            let data = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            vec![
                Expr::Payload { base: NETWORK, offset, len, dreg: 0 },
                Expr::Cmp { op: EQ, sreg: 0, data },
            ]
        }
        Stmt::HasRoute => vec![
            Expr::Meta { key: META_RTCLASSID, dreg: 0 },
            Expr::Cmp { op: NEQ, sreg: 0, data: ne_bytes(NO_CLASS) },
        ],
        Stmt::ArpFrom(mac) => vec![
            Expr::Meta { key: META_LEN, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: ne_bytes(ARP_LENGTH) },
            // From the frame itself: what the sender of a packet socket says the protocol is may be another.
            Expr::Payload { base: LINK, offset: 6, len: 14, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: [mac.as_slice(), &ARP_HEAD].concat() },
            Expr::Payload { base: LINK, offset: 22, len: 6, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: mac.to_vec() },
        ],
        Stmt::ArpSenderIn(set) => vec![
            Expr::Meta { key: META_PROTOCOL, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: vec![8, 6] },
            Expr::Payload { base: NETWORK, offset: 14, len: 4, dreg: 0 },
            Expr::Lookup { set: set.clone(), sreg: 0 },
        ],
        Stmt::NeighbourTarget(address) => vec![
            Expr::Payload { base: TRANSPORT, offset: 8, len: 16, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data: address.octets().to_vec() },
        ],
        Stmt::Lookup { key, set } => lookup(key, set),
        Stmt::Counter => vec![Expr::Counter],
        Stmt::FromUdpPort(port) => {
            let mut exprs = is_byte(META_L4PROTO, UDP).to_vec();
            exprs.push(Expr::Payload { base: TRANSPORT, offset: 0, len: 2, dreg: 0 });
            exprs.push(Expr::Cmp { op: EQ, sreg: 0, data: port.to_be_bytes().to_vec() });
            exprs
        }
        Stmt::Log(prefix) => vec![
            Expr::Limit { rate: LOG_RATE, unit: 1, burst: LOG_BURST },
            Expr::Log { prefix: prefix.clone(), group: LOG_GROUP },
        ],
        Stmt::LogAnswer => vec![
            Expr::Limit { rate: ANSWER_RATE, unit: 1, burst: ANSWER_BURST },
            Expr::Log { prefix: ANSWER_PREFIX.to_owned(), group: ANSWER_GROUP },
        ],
        Stmt::SetHelper(name) => vec![Expr::Object { kind: HELPER_OBJECT, name: name.clone() }],
        Stmt::Reject(Reject::TcpReset) => vec![Expr::Reject { kind: REJECT_TCP_RST, code: 0 }],
        Stmt::Reject(Reject::AdminProhibited) => {
            vec![Expr::Reject { kind: REJECT_ICMPX, code: ICMPX_ADMIN_PROHIBITED }]
        }
        Stmt::Verdict(verdict) => vec![Expr::Verdict(verdict.clone())],
        Stmt::Foreign(_) => Vec::new(),
    }
}

fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    }
}

/// As nft writes prefixes: whole bytes are compared as they are, others under a mask.
fn ip6_to(network: Ipv6Addr, bits: u8) -> Vec<Expr> {
    let (offset, len) = address_field(Family::V6, Side::Destination);
    let whole = u32::from(bits) / 8;
    if bits.is_multiple_of(8) && whole > 0 {
        let data = network.octets()[..whole as usize].to_vec();
        return vec![
            Expr::Payload { base: NETWORK, offset, len: whole, dreg: 0 },
            Expr::Cmp { op: EQ, sreg: 0, data },
        ];
    }
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    vec![
        Expr::Payload { base: NETWORK, offset, len, dreg: 0 },
        Expr::Bitwise { reg: 0, mask: mask.to_be_bytes().to_vec(), xor: vec![0; 16] },
        Expr::Cmp { op: EQ, sreg: 0, data: network.octets().to_vec() },
    ]
}

fn mark_is(generation: Generation) -> Vec<Expr> {
    compare_mark(generation.mark())
}

/// Compares the generation's bits of the mark.
fn compare_mark(mark: u32) -> Vec<Expr> {
    vec![
        Expr::CtLoad { key: CT_MARK, dreg: 0 },
        Expr::Bitwise { reg: 0, mask: ne_bytes(Generation::MASK), xor: ne_bytes(0) },
        Expr::Cmp { op: EQ, sreg: 0, data: ne_bytes(mark) },
    ]
}

fn set_mark(generation: Generation) -> Vec<Expr> {
    let xor = ne_bytes(generation.mark());
    vec![
        Expr::CtLoad { key: CT_MARK, dreg: 0 },
        Expr::Bitwise { reg: 0, mask: ne_bytes(!Generation::MASK), xor },
        Expr::CtSet { key: CT_MARK, sreg: 0 },
    ]
}

fn loopback(key: u32) -> Vec<Expr> {
    vec![Expr::Meta { key, dreg: 0 }, Expr::Cmp { op: EQ, sreg: 0, data: ne_bytes(LOOPBACK) }]
}

/// Loads the key field by field; each field starts in a 32-bit register of its own.
fn lookup(key: &LookupKey, set: &str) -> Vec<Expr> {
    let (offset, len) = address_field(key.family, key.address);
    let next = len / 4;
    let address = Expr::Payload { base: NETWORK, offset, len, dreg: 0 };
    let found = Expr::Lookup { set: set.to_owned(), sreg: 0 };
    let family = is_byte(META_NFPROTO, nfproto(key.family)).to_vec();
    let fields = match key.rest {
        // In a table that sees all protocols a statement before has said which.
        LookupRest::Nothing => return vec![address, found],
        LookupRest::Alone => vec![address, found],
        LookupRest::Port(side) => {
            let offset = if side == Side::Source { 0 } else { 2 };
            vec![
                address,
                Expr::Meta { key: META_L4PROTO, dreg: next },
                Expr::Payload { base: TRANSPORT, offset, len: 2, dreg: next + 1 },
                found,
            ]
        }
        LookupRest::IcmpType => {
            let mut fields = is_byte(META_L4PROTO, icmp(key.family)).to_vec();
            fields.extend([
                address,
                Expr::Payload { base: TRANSPORT, offset: 0, len: 1, dreg: next },
                found,
            ]);
            fields
        }
    };
    [family, fields].concat()
}

#[cfg(test)]
mod tests;
