//! Owns helpers in a ruleset: who may have a control connection, who a data connection, and the rules that ask.
//!
//! A connection gets its helper on the way to `allow`, and only when it was found among the control connections. What the
//! kernel then expects carries its master's mark, so `fast` leaves such packets to the judging chains, and these ask by
//! the master's helper and the peer's address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::chains::{goto, rule};
use super::expand::{Cell, addresses, cells, content_hash, of_end};
use super::intervals::{Cuboid, address_of, disjoint, number};
use super::ruleset::{
    Comment, Element, Family, Key, KeyKind, LookupKey, LookupRest, Rule, Ruleset, Set, Side, Stmt,
};
use crate::metadata::{Inventory, L4Proto, PortRange, Workload, WorkloadId};
use crate::model::Helper;
use crate::policy::{Action, Direction, Policy, Settings, Statement, Traffic, resolvers};

/// A named helper of a table, which rules give to connections (`ct helper` in `nft(8)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CtHelper {
    /// The kernel's name for it: `ftp`.
    pub kind: String,
    /// IANA number of the protocol it is spoken over.
    pub protocol: u8,
}

/// What one helper's set is for. Its name follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HelperRole {
    /// Which helper.
    pub helper: Helper,
    /// What its keys are.
    pub part: Part,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Whether it holds intervals.
    pub interval: bool,
}

/// What a helper's set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Who may have a control connection, with protocol and server port.
    Control(Direction),
    /// With whom the netns may have data connections: whoever may have a control connection, whichever end's.
    Data,
}

impl Part {
    const ALL: [Self; 3] =
        [Self::Control(Direction::Ingress), Self::Control(Direction::Egress), Self::Data];

    fn word(self) -> &'static str {
        match self {
            Self::Control(Direction::Ingress) => "in",
            Self::Control(Direction::Egress) => "out",
            Self::Data => "data",
        }
    }
}

impl HelperRole {
    /// The set's name, or its beginning where a hash of the content follows.
    pub fn name(&self) -> String {
        let net = if self.interval { "_net" } else { "" };
        format!("{}_{}{net}{}", self.helper, self.part.word(), self.family.digit())
    }

    /// The role a set's name tells, if it is a name seawall gives.
    pub fn of(name: &str) -> Option<Self> {
        let mut helpers = Helper::ALL.into_iter();
        let (helper, rest) = helpers.find_map(|helper| {
            Some((helper, name.strip_prefix(helper.as_str())?.strip_prefix('_')?))
        })?;
        let mut parts = Part::ALL.into_iter();
        let (part, rest) = parts.find_map(|part| Some((part, rest.strip_prefix(part.word())?)))?;
        let (family, interval) = of_end(rest)?;
        Some(Self { helper, part, family, interval })
    }

    #[cfg(test)]
    fn all() -> impl Iterator<Item = Self> {
        Helper::ALL.into_iter().flat_map(|helper| {
            Part::ALL.into_iter().flat_map(move |part| {
                [false, true].into_iter().flat_map(move |interval| {
                    Family::BOTH.map(|family| Self { helper, part, family, interval })
                })
            })
        })
    }

    fn kind(&self) -> KeyKind {
        // Ranges of addresses are asked for with any port: so they are of the type all other ranges have.
        if self.part == Part::Data && !self.interval { KeyKind::Address } else { KeyKind::Tuple }
    }

    fn comment(&self) -> Comment {
        Comment::new(&match self.part {
            Part::Control(Direction::Ingress) => {
                format!("clients whose {} connections get the helper", self.helper)
            }
            Part::Control(Direction::Egress) => {
                format!("servers the {} connections to which get the helper", self.helper)
            }
            Part::Data => format!("peers of {}'s data connections", self.helper),
        })
    }

    fn set(&self, elements: BTreeMap<Element, Comment>) -> Set {
        Set {
            family: self.family,
            kind: self.kind(),
            interval: self.interval,
            comment: self.comment(),
            elements: elements.into(),
        }
    }
}

/// The name of the object for one helper over one protocol: `ftp_tcp`.
fn object(helper: Helper, proto: L4Proto) -> String {
    format!("{helper}_{proto}")
}

/// The objects that rules around these sets refer to.
pub(super) fn objects(sets: &BTreeMap<String, Set>) -> BTreeMap<String, CtHelper> {
    let helpers: BTreeSet<Helper> =
        sets.keys().filter_map(|name| HelperRole::of(name)).map(|role| role.helper).collect();
    let of = |helper: Helper| {
        helper.protocols().iter().map(move |proto| {
            let kind = helper.as_str().to_owned();
            (object(helper, *proto), CtHelper { kind, protocol: proto.number() })
        })
    };
    helpers.into_iter().flat_map(of).collect()
}

/// The sets of a netns' helpers, by name; none where no statement has one. A helper that is stated has its exact sets even
/// when nobody is in them: a peer that comes is an element, never a rule.
pub(super) fn sets(
    members: &[&Policy],
    owner: &Workload,
    inventory: &Inventory,
    settings: &Settings,
) -> BTreeMap<String, Set> {
    let stated = |action| {
        members.iter().flat_map(move |policy| {
            let own = policy.statements.iter().filter(move |one| one.action == action);
            own.map(move |statement| (&policy.workload, statement))
        })
    };
    let ranges = |member: &WorkloadId, statement: &Statement| {
        let dns = inventory.get(member).map(|member| resolvers(member, inventory, settings));
        addresses(statement, owner, inventory, dns)
    };
    let denied: Vec<(Direction, Cell)> = stated(Action::Deny)
        .flat_map(|(member, statement)| {
            let ranges = ranges(member, statement).into_iter();
            ranges
                .flat_map(move |(first, last)| cells(&statement.traffic, first, last))
                .map(move |cell| (statement.direction, cell))
        })
        .collect();
    let mut found = Found::default();
    for (member, statement) in stated(Action::Allow) {
        let comment = Comment::new(&statement.peer.to_string());
        for traffic in &statement.traffic {
            let Traffic::Control(_, helper) = traffic else { continue };
            let denied = denied.iter().filter(|(direction, _)| *direction == statement.direction);
            let denied: Vec<&Cell> = denied.map(|(_, cell)| cell).collect();
            found.expect(*helper, statement.direction);
            for (first, last) in ranges(member, statement) {
                for cell in cells(&[*traffic].into(), first, last) {
                    for range in reachable(&cell, &denied) {
                        found.data(*helper, range, &comment);
                    }
                    found.control(*helper, statement.direction, cell, &comment);
                }
            }
        }
    }
    found.into_sets()
}

/// Elements and ranges found so far, by the set they belong to.
#[derive(Default)]
struct Found {
    exact: BTreeMap<HelperRole, BTreeMap<Element, Comment>>,
    boxes: BTreeMap<HelperRole, Vec<(Cuboid, Comment)>>,
}

impl Found {
    fn expect(&mut self, helper: Helper, direction: Direction) {
        for part in [Part::Control(direction), Part::Data] {
            for family in Family::BOTH {
                self.exact.entry(HelperRole { helper, part, family, interval: false }).or_default();
            }
        }
    }

    fn control(&mut self, helper: Helper, direction: Direction, cell: Cell, comment: &Comment) {
        let part = Part::Control(direction);
        let role = HelperRole { helper, part, family: cell.family(), interval: !cell.is_exact() };
        if role.interval {
            self.boxes.entry(role).or_default().push((cell.into_cuboid(), comment.clone()));
        } else {
            self.add(role, cell.elements(), comment);
        }
    }

    fn data(&mut self, helper: Helper, addresses: (IpAddr, IpAddr), comment: &Comment) {
        let (first, last) = addresses;
        let family = Family::of(first);
        let role = HelperRole { helper, part: Part::Data, family, interval: first != last };
        if !role.interval {
            let key = Key { address: first, selector: 0, port: 0 };
            return self.add(role, [Element::exact(key)].into_iter(), comment);
        }
        let ports = (PortRange::ALL.first(), PortRange::ALL.last());
        self.boxes.entry(role).or_default().extend(
            helper.data_protocols().iter().map(|proto| {
                (Cuboid { addresses, selector: proto.number(), ports }, comment.clone())
            }),
        );
    }

    fn add(
        &mut self,
        role: HelperRole,
        elements: impl Iterator<Item = Element>,
        comment: &Comment,
    ) {
        let set = self.exact.entry(role).or_default();
        elements.for_each(|element| {
            set.entry(element).or_insert_with(|| comment.clone());
        });
    }

    fn into_sets(self) -> BTreeMap<String, Set> {
        let exact =
            self.exact.into_iter().map(|(role, elements)| (role.name(), role.set(elements)));
        let boxes = self.boxes.into_iter().map(|(role, boxes)| {
            let elements = disjoint(boxes);
            (format!("{}_{:016x}", role.name(), content_hash(&elements)), role.set(elements))
        });
        exact.chain(boxes).collect()
    }
}

/// The addresses of a cell with which at least one of its ports is not denied.
fn reachable(cell: &Cell, denied: &[&Cell]) -> Vec<(IpAddr, IpAddr)> {
    let against = |other: &&&Cell| {
        other.family() == cell.family()
            && (other.kind, other.selector) == (cell.kind, cell.selector)
    };
    let denied: Vec<&&Cell> = denied.iter().filter(against).collect();
    // Between two cuts all ports are denied alike.
    let ends = denied.iter().filter_map(|other| other.ports.1.checked_add(1));
    let cuts: BTreeSet<u16> = denied.iter().map(|other| other.ports.0).chain(ends).collect();
    let ports = cell.ports.0..=cell.ports.1;
    let samples = cuts.into_iter().filter(|cut| ports.contains(cut)).chain([cell.ports.0]);
    let mut found = BTreeSet::new();
    for port in samples {
        let mut left = vec![(number(cell.first), number(cell.last))];
        for other in denied.iter().filter(|other| (other.ports.0..=other.ports.1).contains(&port)) {
            let (first, last) = (number(other.first), number(other.last));
            left = left.into_iter().flat_map(|span| without(span, (first, last))).collect();
        }
        found.extend(left);
    }
    let address = |value| address_of(value, cell.first.is_ipv4());
    found.into_iter().map(|(first, last)| (address(first), address(last))).collect()
}

/// What is left of a range without another.
fn without((first, last): (u128, u128), (from, to): (u128, u128)) -> Vec<(u128, u128)> {
    if to < first || last < from {
        return vec![(first, last)];
    }
    let below = from.checked_sub(1).filter(|end| first <= *end).map(|end| (first, end));
    let above = to.checked_add(1).filter(|start| *start <= last).map(|start| (start, last));
    below.into_iter().chain(above).collect()
}

/// The rules of one judging chain, behind its denials: `from` is whose connections it judges, `peer` where the peer's
/// address stands, `port` where the server's port does.
pub(super) fn rules(
    sets: &BTreeMap<String, Set>,
    from: Direction,
    peer: Side,
    port: Side,
) -> Vec<Rule> {
    let named = |part: Part| {
        sets.keys()
            .filter_map(|name| Some((HelperRole::of(name)?, name.clone())))
            .filter(move |(role, _)| role.part == part)
    };
    let lookup = |role: HelperRole, set: String, rest: LookupRest| Stmt::Lookup {
        key: LookupKey { family: role.family, address: peer, rest },
        set,
    };
    // Only the first packet can be given a helper, and that is one from the client.
    let is_original = port == Side::Destination;
    let control = named(Part::Control(from)).filter(|_| is_original).map(|(role, name)| {
        let mut statements = vec![lookup(role, name, LookupRest::Port(port))];
        // The kernel leaves out those of another protocol than the connection's.
        let own = role.helper.protocols().iter();
        statements.extend(own.map(|proto| Stmt::SetHelper(object(role.helper, *proto))));
        statements.push(goto("allow"));
        rule(statements, "control connections")
    });
    let data = named(Part::Data).map(|(role, name)| {
        let rest = if role.interval { LookupRest::Port(port) } else { LookupRest::Alone };
        let helper = Stmt::HelperIs(role.helper.as_str().to_owned());
        rule(
            vec![helper, lookup(role, name, rest), goto("allow")],
            "agreed on over a control connection",
        )
    });
    control.chain(data).collect()
}

impl Ruleset {
    /// The same without helpers, for kernels that do not have them: control connections are as any others, and nobody gets
    /// a data connection by them.
    pub fn without_helpers(mut self) -> Self {
        let is_helped = |statement: &Stmt| match statement {
            Stmt::SetHelper(_) | Stmt::HelperIs(_) => true,
            Stmt::Lookup { set, .. } => HelperRole::of(set).is_some(),
            _ => false,
        };
        for chain in self.chains.values_mut() {
            Arc::make_mut(&mut chain.rules).retain(|rule| !rule.statements.iter().any(is_helped));
        }
        self.sets.retain(|name, _| HelperRole::of(name).is_none());
        self.helpers.clear();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::expand::Role;

    #[test]
    fn a_helpers_sets_name_tells_its_role_and_is_no_other_sets() {
        for role in HelperRole::all() {
            let name = role.name();
            let hashed = format!("{name}_0123456789abcdef");
            assert_eq!(HelperRole::of(&name), (!role.interval).then_some(role), "{name}");
            assert_eq!(HelperRole::of(&hashed), role.interval.then_some(role), "{hashed}");
            assert_eq!((Role::of(&name), Role::of(&hashed)), (None, None), "{name}");
        }
        for role in Role::all() {
            assert_eq!(HelperRole::of(&role.name()), None);
        }
        assert_eq!(HelperRole::of("own4"), None);
    }

    #[test]
    fn whose_control_ports_are_all_denied_has_no_data_connections() {
        let cell = |first: &str, last: &str, ports| Cell {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            kind: KeyKind::Tuple,
            selector: 6,
            ports,
        };
        let left = |of: &Cell, denied: &[Cell]| {
            let found = reachable(of, &denied.iter().collect::<Vec<_>>());
            found.iter().map(|(a, b)| format!("{a}-{b}")).collect::<Vec<_>>()
        };
        let one = cell("10.0.0.1", "10.0.0.1", (20, 21));
        assert_eq!(left(&one, &[]), ["10.0.0.1-10.0.0.1"]);
        assert_eq!(left(&one, &[cell("10.0.0.0", "10.0.0.255", (21, 21))]), ["10.0.0.1-10.0.0.1"]);
        assert_eq!(left(&one, &[cell("10.0.0.0", "10.0.0.255", (1, 65535))]), [""; 0]);
        let both = [cell("10.0.0.1", "10.0.0.9", (1, 20)), cell("10.0.0.1", "10.0.0.1", (21, 21))];
        assert_eq!(left(&one, &both), [""; 0]);
        let net = cell("10.0.0.0", "10.0.0.255", (21, 21));
        let denied = [cell("10.0.0.7", "10.0.0.8", (1, 100))];
        assert_eq!(left(&net, &denied), ["10.0.0.0-10.0.0.6", "10.0.0.9-10.0.0.255"]);
        let udp = Cell { selector: 17, ..cell("10.0.0.0", "10.0.0.255", (21, 21)) };
        assert_eq!(left(&one, &[udp]).len(), 1);
        let v6 = cell("fd00::", "fd00::ff", (21, 21));
        let denied =
            [cell("0.0.0.0", "255.255.255.255", (21, 21)), cell("fd00::", "fd00::fe", (21, 21))];
        assert_eq!(left(&v6, &denied), ["fd00::ff-fd00::ff"]);
    }
}
