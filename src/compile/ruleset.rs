//! Owns [`Ruleset`]: the typed form of one of a netns' tables `seawall`, the same whether wanted or read back.
//!
//! Only what seawall itself writes can be said here; anything else found in the kernel is [`Stmt::Foreign`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::Serialize;

use super::helped::CtHelper;
use crate::input::Text;

/// The name of our tables, in every family.
pub const TABLE: &str = "seawall";

/// The NFLOG group denials are sent to (`nflog` in `nft(8)`: `log group`).
pub const LOG_GROUP: u16 = 5747;

/// The NFLOG group that answers of resolvers are sent to.
pub const ANSWER_GROUP: u16 = 5748;

/// A comment in the ruleset: printable ASCII without quotes and backslashes, at most 120 bytes
/// (nft and the kernel keep 128 at most). Security model 7. Copies share what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Comment(Arc<str>);

impl Comment {
    /// Makes a comment of any text; what may not stand there becomes `?`.
    pub fn new(raw: &str) -> Self {
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ';
        let characters = raw.chars().map(|c| if allowed(c) { c } else { '?' });
        Self(characters.take(120).collect::<String>().into())
    }

    /// The comment; empty means none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Text> for Comment {
    fn from(text: &Text) -> Self {
        Self::new(text.as_str())
    }
}

/// A ruleset's revision: 1 to 65533, carried in the upper 16 bits of the conntrack mark.
/// A connection accepted under an older one is judged again on its next packet. 65534 and 65535 are no revisions: see
/// [`Self::OBSERVED`] and [`Self::LOCAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Generation(u16);

impl Generation {
    /// The revision of a table that never revoked anything.
    pub const FIRST: Self = Self(1);
    /// What stands in the generation's place in the mark of a connection that began on `lo`: no policy was asked about it.
    pub const LOCAL: Self = Self(u16::MAX);
    /// The same of a connection that nothing allows and that passed because its workload is only observed.
    pub const OBSERVED: Self = Self(u16::MAX - 1);
    /// The bits of the conntrack mark that hold the generation; the others belong to the container.
    pub const MASK: u32 = 0xffff_0000;

    /// The next revision. After 65533 comes 1 again; 0 is the mark of a connection nobody judged.
    pub fn next(self) -> Self {
        match self.0.saturating_add(1) {
            next if next >= Self::OBSERVED.0 => Self::FIRST,
            next => Self(next),
        }
    }

    /// The mark a judged connection carries.
    pub fn mark(self) -> u32 {
        u32::from(self.0) << 16
    }

    /// The generation a mark carries.
    pub fn from_mark(mark: u32) -> Option<Self> {
        let generation = Self((mark >> 16) as u16);
        let is_revision = generation.0 != 0 && generation < Self::OBSERVED;
        (is_revision && mark & !Self::MASK == 0).then_some(generation)
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `4` or `6`.
    pub fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// A table's family: what its hooks see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFamily {
    /// Packets of the netns' IP stack: the policy.
    Inet,
    /// Everything that goes out through a link, packet sockets' frames too: the guard.
    Netdev,
}

impl TableFamily {
    /// Both that seawall uses.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Netdev];
}

/// What a set's elements are made of, after the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// `address . protocol . port`
    Tuple,
    /// `address . icmp type`
    Ping,
    /// Only the address. Such elements count nothing.
    Address,
}

/// One end of an element: an address, then protocol and port, or the ICMP type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// The peer's address.
    pub address: IpAddr,
    /// IANA protocol number, or ICMP type; 0 where there is none.
    pub selector: u8,
    /// Port; 0 for ICMP and where there is none.
    pub port: u16,
}

/// An element: every key between `first` and `last`, field by field, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Element {
    /// Lowest key.
    pub first: Key,
    /// Highest key; equal to `first` in sets without intervals.
    pub last: Key,
}

impl Element {
    /// An element that is one key.
    pub fn exact(key: Key) -> Self {
        Self { first: key, last: key }
    }

    /// Whether the key lies within.
    pub fn contains(&self, key: &Key) -> bool {
        (self.first.address..=self.last.address).contains(&key.address)
            && (self.first.selector..=self.last.selector).contains(&key.selector)
            && (self.first.port..=self.last.port).contains(&key.port)
    }
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set {
    /// IPv4 or IPv6.
    pub family: Family,
    /// What its elements are made of.
    pub kind: KeyKind,
    /// Whether elements may be intervals. Such a set is never changed: its name carries a hash of its content.
    pub interval: bool,
    /// What it is for.
    pub comment: Comment,
    /// Elements, each with what it stands for. Copies share them.
    #[serde(serialize_with = "serialize_elements")]
    pub elements: Arc<BTreeMap<Element, Comment>>,
}

fn serialize_elements<S: serde::Serializer>(
    elements: &BTreeMap<Element, Comment>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(elements.iter())
}

/// The field of the IP header an address is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// What a rule's statement looks a key up by: whose address, and whose port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LookupKey {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Which address: the peer's.
    pub address: Side,
    /// What follows the address.
    pub rest: LookupRest,
}

/// What follows the address in a looked-up key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LookupRest {
    /// Protocol, and the source or destination port: the port of the connection's server.
    Port(Side),
    /// The ICMP type.
    IcmpType,
    /// Nothing, in a table that sees one protocol or has asked before.
    Nothing,
    /// Nothing, in a table that sees IPv4 and IPv6.
    Alone,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes this table.
    Accept,
    /// It is dropped.
    Drop,
    /// Go on in another chain, and come back.
    Jump(String),
    /// Go on in another chain.
    Goto(String),
    /// Back to the calling chain.
    Return,
}

/// How a rejected sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// TCP reset.
    TcpReset,
    /// ICMP(v6) destination unreachable, administratively prohibited.
    AdminProhibited,
}

/// A connection's state or direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CtState {
    /// Belongs to no connection and starts none.
    Invalid,
    /// Starts a connection, or belongs to one that was not answered yet.
    New,
    /// An error about a connection, or what a connection tracking helper expects.
    Related,
}

/// A connection's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CtDirection {
    /// From client to server.
    Original,
    /// From server to client.
    Reply,
}

/// One statement of a rule: a match, or what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stmt {
    /// The packet came in through `lo`.
    FromLoopback,
    /// The packet goes out through `lo`.
    ToLoopback,
    /// The connection was accepted under this generation.
    GenerationIs(Generation),
    /// No policy accepted the connection.
    IsUnjudged,
    /// The connection began on `lo`.
    IsLocal,
    /// The connection passed although nothing allows it, because the workload was only observed.
    IsObserved,
    /// The connection's state.
    CtState(CtState),
    /// The connection's state is another.
    CtStateIsNot(CtState),
    /// The packet's direction.
    CtDirection(CtDirection),
    /// The connection was expected by one that has this helper, by the kernel's name.
    HelperIs(String),
    /// The transport protocol (IANA number).
    L4Proto(u8),
    /// The transport protocol is another (IANA number).
    L4ProtoIsNot(u8),
    /// IPv6 hop limit.
    HopLimit(u8),
    /// ICMPv6 type.
    Icmp6Type(u8),
    /// ICMPv6 type, from the first to the last.
    Icmp6Types(u8, u8),
    /// The IPv6 payload is at most this long, in bytes.
    Ip6LengthAtMost(u16),
    /// The IPv6 destination begins with this many bits of this address. Behind a statement that says it is IPv6.
    Ip6To(Ipv6Addr, u8),
    /// The packet is IPv4 or IPv6, in a table that sees others too.
    Protocol(Family),
    /// The IP source. Behind a statement that says which IP it is.
    SenderIs(IpAddr),
    /// The packet has a route: it comes from the IP stack and passed its hooks. What a packet socket sends has none.
    HasRoute,
    /// An ARP frame of the length the kernel writes, from this link address, that claims to be its.
    ArpFrom([u8; 6]),
    /// The IPv4 address an ARP frame claims is in the set.
    ArpSenderIn(String),
    /// The address a neighbour solicitation or advertisement speaks of.
    NeighbourTarget(Ipv6Addr),
    /// The key is in the set.
    Lookup {
        /// What is looked up.
        key: LookupKey,
        /// The set's name.
        set: String,
    },
    /// Count packets and bytes.
    Counter,
    /// A UDP packet from this port.
    FromUdpPort(u16),
    /// Log to [`LOG_GROUP`] with this prefix, 10 a second, 20 at once.
    Log(String),
    /// Send to [`ANSWER_GROUP`], 50 a second, 100 at once.
    LogAnswer,
    /// Mark the connection as accepted under this generation.
    SetGeneration(Generation),
    /// Mark the connection as one that began on `lo`.
    SetLocal,
    /// Mark the connection as one that passed although nothing allows it.
    SetObserved,
    /// Give the connection the helper of this name, if it is new and of the helper's protocol.
    SetHelper(String),
    /// Tell the sender.
    Reject(Reject),
    /// A verdict.
    Verdict(Verdict),
    /// Something seawall does not write, in words.
    Foreign(String),
}

/// A rule: its statements from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Statements.
    pub statements: Vec<Stmt>,
    /// Why it is there.
    pub comment: Comment,
}

/// Where the kernel calls a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// The link whose packets it is called for, by its name; only in family `netdev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Priority; `filter` is 0.
    pub priority: i32,
    /// Whether a packet that reaches the end of the chain is dropped. Never the only guard: the last rule decides.
    pub drops: bool,
}

/// Netfilter's hooks for packets of the netns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// To the netns' own sockets.
    Input,
    /// Passing through.
    Forward,
    /// From the netns' own sockets.
    Output,
    /// Out through a link.
    Egress,
    /// Any other hook; seawall uses none.
    Other(u32),
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain only other chains lead to.
    pub base: Option<Base>,
    /// Rules in order. Copies share them.
    pub rules: Arc<Vec<Rule>>,
}

/// The content of one table `seawall` in one netns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// The table's family.
    pub family: TableFamily,
    /// Helpers by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub helpers: BTreeMap<String, CtHelper>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets by name.
    pub sets: BTreeMap<String, Set>,
}

impl Ruleset {
    /// A table with nothing in it.
    pub fn empty(family: TableFamily) -> Self {
        let (helpers, chains, sets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { family, helpers, chains, sets }
    }

    /// The generation its rules accept, if they agree on one.
    pub fn generation(&self) -> Option<Generation> {
        let mut found = self.statements().filter_map(|statement| match statement {
            Stmt::GenerationIs(generation) | Stmt::SetGeneration(generation) => Some(*generation),
            _ => None,
        });
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }

    /// The same ruleset under another generation.
    pub fn at_generation(mut self, new: Generation) -> Self {
        let is_of = |statement: &Stmt| matches!(statement, Stmt::GenerationIs(old) | Stmt::SetGeneration(old) if *old != new);
        for chain in self.chains.values_mut() {
            if chain.rules.iter().flat_map(|rule| &rule.statements).any(is_of) {
                let rules = Arc::make_mut(&mut chain.rules).iter_mut();
                for statement in rules.flat_map(|rule| &mut rule.statements) {
                    if let Stmt::GenerationIs(old) | Stmt::SetGeneration(old) = statement {
                        *old = new;
                    }
                }
            }
        }
        self
    }

    /// Every statement of every rule.
    pub fn statements(&self) -> impl Iterator<Item = &Stmt> {
        self.chains.values().flat_map(|chain| chain.rules.iter()).flat_map(|rule| &rule.statements)
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[cfg(test)]
mod tests;
