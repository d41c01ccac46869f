//! Owns turning statements into set elements: parties become addresses, traffic becomes protocol and port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::intervals::{Cuboid, disjoint};
use super::ruleset::{Comment, Element, Family, Key, KeyKind, Set};
use crate::metadata::{Attachment, Inventory, Workload};
use crate::policy::{
    Action, Direction, INTERNET_V4, INTERNET_V6, Peer, Policy, Settings, Statement, Traffic,
    resolvers,
};

/// Ranges of at most this many ports become single elements, so that a peer coming or going stays a matter of elements.
const MAX_EXPANDED_PORTS: u32 = 32;

/// ICMP echo request and reply types (RFC 792, RFC 4443).
const ECHO: [(Family, u8, u8); 2] = [(Family::V4, 8, 0), (Family::V6, 128, 129)];

/// What one set is for. Its name follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Role {
    /// Deny sets are asked before allow sets.
    pub action: Action,
    /// Whose connections.
    pub direction: Direction,
    /// What its keys are.
    pub kind: KeyKind,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Whether it holds intervals.
    pub interval: bool,
}

impl Role {
    /// The set's name, or its beginning where a hash of the content follows.
    pub fn name(&self) -> String {
        format!(
            "{}{}{}{}{}",
            if self.action == Action::Deny { "deny_" } else { "" },
            if self.kind == KeyKind::Ping { "ping_" } else { "" },
            if self.direction == Direction::Ingress { "in" } else { "out" },
            if self.interval { "_net" } else { "" },
            self.family.digit()
        )
    }

    /// The role a set's name tells, if it is a name seawall gives.
    pub fn of(name: &str) -> Option<Self> {
        let (action, rest) = match name.strip_prefix("deny_") {
            Some(rest) => (Action::Deny, rest),
            None => (Action::Allow, name),
        };
        let (kind, rest) = match rest.strip_prefix("ping_") {
            Some(rest) => (KeyKind::Ping, rest),
            None => (KeyKind::Tuple, rest),
        };
        let (direction, rest) = match rest.strip_prefix("in") {
            Some(rest) => (Direction::Ingress, rest),
            None => (Direction::Egress, rest.strip_prefix("out")?),
        };
        let (family, interval) = of_end(rest)?;
        Some(Self { action, direction, kind, family, interval })
    }

    /// Every role: deny before allow, exact before interval.
    pub fn all() -> impl Iterator<Item = Self> {
        [Action::Deny, Action::Allow].into_iter().flat_map(|action| {
            [Direction::Ingress, Direction::Egress].into_iter().flat_map(move |direction| {
                [KeyKind::Tuple, KeyKind::Ping].into_iter().flat_map(move |kind| {
                    [false, true].into_iter().flat_map(move |interval| {
                        Family::BOTH.into_iter().map(move |family| Self {
                            action,
                            direction,
                            kind,
                            family,
                            interval,
                        })
                    })
                })
            })
        })
    }

    /// Whether the set is there even when nothing is in it: the exact allow sets, which change most.
    fn is_permanent(&self) -> bool {
        self.action == Action::Allow && !self.interval
    }

    fn comment(&self) -> Comment {
        let who = match (self.direction, self.action) {
            (Direction::Ingress, Action::Allow) => "clients that may connect",
            (Direction::Egress, Action::Allow) => "servers that may be reached",
            (Direction::Ingress, Action::Deny) => "clients denied by a statement",
            (Direction::Egress, Action::Deny) => "servers denied by a statement",
        };
        let key = match self.kind {
            KeyKind::Tuple => "protocol . server port",
            KeyKind::Ping => "ICMP type",
            KeyKind::Address => "nothing",
        };
        Comment::new(&format!("{who}: address . {key}"))
    }
}

/// All sets of a netns, by name: those that are always there, and those with something in them.
pub fn sets(
    members: &[&Policy],
    owner: &Workload,
    inventory: &Inventory,
    settings: &Settings,
) -> BTreeMap<String, Set> {
    let mut exact: BTreeMap<Role, BTreeMap<Element, Comment>> = BTreeMap::new();
    let mut boxes: BTreeMap<Role, Vec<(Cuboid, Comment)>> = BTreeMap::new();
    let stated = members
        .iter()
        .flat_map(|policy| policy.statements.iter().map(|statement| (&policy.workload, statement)));
    for (member, statement) in stated {
        let comment = Comment::new(&statement.peer.to_string());
        let dns = inventory.get(member).map(|member| resolvers(member, inventory, settings));
        for (first, last) in addresses(statement, owner, inventory, dns) {
            for cell in cells(&statement.traffic, first, last) {
                let mut role = cell.role(statement);
                if cell.is_exact() {
                    for element in cell.elements() {
                        exact.entry(role).or_default().entry(element).or_insert(comment.clone());
                    }
                } else {
                    role.interval = true;
                    boxes.entry(role).or_default().push((cell.into_cuboid(), comment.clone()));
                }
            }
        }
    }
    let exact_roles = Role::all().filter(|role| !role.interval);
    let exact_sets = exact_roles.filter_map(|role| {
        let elements = exact.remove(&role).unwrap_or_default();
        let wanted = role.is_permanent() || !elements.is_empty();
        wanted.then(|| (role.name(), set(role, elements)))
    });
    let mut all: BTreeMap<String, Set> = exact_sets.collect();
    all.extend(boxes.into_iter().map(|(role, boxes)| {
        let elements = disjoint(boxes);
        (format!("{}_{:016x}", role.name(), content_hash(&elements)), set(role, elements))
    }));
    all
}

fn set(role: Role, elements: BTreeMap<Element, Comment>) -> Set {
    Set {
        family: role.family,
        kind: role.kind,
        interval: role.interval,
        comment: role.comment(),
        elements: elements.into(),
    }
}

/// The inclusive address ranges of a statement's peer, as this netns can meet them.
pub(super) fn addresses(
    statement: &Statement,
    owner: &Workload,
    inventory: &Inventory,
    dns: Option<&BTreeSet<IpAddr>>,
) -> Vec<(IpAddr, IpAddr)> {
    let single = |address: IpAddr| (address, address);
    match &statement.peer {
        Peer::Workloads { members, .. } => members
            .iter()
            .filter(|member| !inventory.has_left(member))
            .filter_map(|member| inventory.get(inventory.netns_owner(member)))
            .filter(|peer| peer.id != owner.id)
            .flat_map(|peer| {
                let shared = |(key, _): &(&_, &_)| owner.networks.contains_key(*key);
                peer.networks
                    .iter()
                    .filter(shared)
                    .flat_map(|(_, attachment)| attachment.addresses.iter().copied().map(single))
            })
            .collect(),
        Peer::Host => {
            owner.networks.values().flat_map(Attachment::host_addresses).map(single).collect()
        }
        Peer::Dns => dns.into_iter().flatten().copied().map(single).collect(),
        Peer::World => vec![
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST)),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from(u128::MAX))),
        ],
        Peer::Internet => {
            let v4 = INTERNET_V4.iter().map(|(a, b)| (IpAddr::V4(*a), IpAddr::V4(*b)));
            let v6 = (IpAddr::V6(INTERNET_V6.0), IpAddr::V6(INTERNET_V6.1));
            v4.chain([v6]).collect()
        }
        Peer::Cidr(network) => match network {
            ipnetwork::IpNetwork::V4(net) => {
                vec![(IpAddr::V4(net.network()), IpAddr::V4(net.broadcast()))]
            }
            ipnetwork::IpNetwork::V6(net) => {
                vec![(IpAddr::V6(net.network()), IpAddr::V6(net.broadcast()))]
            }
        },
    }
}

/// One kind of traffic with one address range.
pub(super) struct Cell {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    pub(super) kind: KeyKind,
    pub(super) selector: u8,
    pub(super) ports: (u16, u16),
}

pub(super) fn cells(traffic: &BTreeSet<Traffic>, first: IpAddr, last: IpAddr) -> Vec<Cell> {
    let family = Family::of(first);
    let cell = |kind, selector, ports| Cell { first, last, kind, selector, ports };
    traffic
        .iter()
        .flat_map(|traffic| match traffic {
            Traffic::Ports(ports) | Traffic::Control(ports, _) => {
                let range = (ports.range.first(), ports.range.last());
                vec![cell(KeyKind::Tuple, ports.proto.number(), range)]
            }
            // The reply's type as well: a reply is judged again after a revocation.
            Traffic::Ping => ECHO
                .iter()
                .filter(|(of, ..)| *of == family)
                .flat_map(|(_, request, reply)| [*request, *reply])
                .map(|icmp_type| cell(KeyKind::Ping, icmp_type, (0, 0)))
                .collect(),
        })
        .collect()
}

impl Cell {
    fn role(&self, statement: &Statement) -> Role {
        Role {
            action: statement.action,
            direction: statement.direction,
            kind: self.kind,
            family: self.family(),
            interval: false,
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.first)
    }

    pub(super) fn is_exact(&self) -> bool {
        let span = u32::from(self.ports.1 - self.ports.0) + 1;
        self.first == self.last && span <= MAX_EXPANDED_PORTS
    }

    fn key(&self, port: u16) -> Key {
        Key { address: self.first, selector: self.selector, port }
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = Element> + '_ {
        (self.ports.0..=self.ports.1).map(|port| Element::exact(self.key(port)))
    }

    pub(super) fn into_cuboid(self) -> Cuboid {
        Cuboid { addresses: (self.first, self.last), selector: self.selector, ports: self.ports }
    }
}

/// What the end of a set's name tells: of which family it is, and whether of intervals, where a hash of its content follows.
pub(super) fn of_end(end: &str) -> Option<(Family, bool)> {
    let (interval, rest) = match end.strip_prefix("_net") {
        Some(rest) => (true, rest),
        None => (false, end),
    };
    let mut families = Family::BOTH.into_iter();
    let (family, rest) = families.find_map(|f| Some((f, rest.strip_prefix(f.digit())?)))?;
    let is_ours = if interval { rest.starts_with('_') } else { rest.is_empty() };
    is_ours.then_some((family, interval))
}

/// FNV-1a over the elements: the same content has the same name on every host and in every build.
pub(super) fn content_hash(elements: &BTreeMap<Element, Comment>) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for (element, comment) in elements {
        // It takes all that is written.
        let _ = writeln!(hash, "{element:?}{}", comment.as_str());
    }
    hash.0
}

/// A hash of what is written to it.
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text
            .bytes()
            .fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sets_name_tells_its_role_and_no_other_name_tells_any() {
        for role in Role::all() {
            let name = role.name();
            let hashed = format!("{name}_0123456789abcdef");
            assert_eq!(Role::of(&name), (!role.interval).then_some(role), "{name}");
            assert_eq!(Role::of(&hashed), role.interval.then_some(role), "{hashed}");
        }
        for foreign in ["", "in", "in5", "in44", "input4", "ping_deny_in4", "out_net4x", "in_4"] {
            assert_eq!(Role::of(foreign), None, "{foreign}");
        }
    }
}
