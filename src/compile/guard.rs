//! Owns the guard: table `netdev seawall`, which stops at the links what never meets the IP stack's hooks.
//!
//! Pure. A packet of the IP stack has a route, and was judged by `inet seawall` when it got one; what a packet socket
//! (`AF_PACKET`) sends has none. So nothing of the policy is repeated here: without a route only the link's own ARP
//! leaves. With one all does but neighbour discovery of others, where the policy asked whom it is from ([`super::sender`]);
//! elsewhere that is asked here, of each packet (security model 4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use super::chains::{ICMP6, LINK_MULTICAST, denying, goto, jump, rule};
use super::ruleset::{
    Base, Chain, Family, Hook, LookupKey, LookupRest, Rule, Ruleset, Side, Stmt, TableFamily,
    Verdict,
};
use super::sender::{OWN4, OWN6, SENDER, addresses};
use crate::metadata::{Capabilities, Inventory, Workload};
use crate::policy::{DenyVerdict, Mode, Policy, netns_mode};

/// A link of a netns, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in the netns.
    pub index: u32,
    /// Its name. In a container with `NET_ADMIN`, anything the kernel takes.
    pub name: String,
    /// Whether it is `lo`.
    pub is_loopback: bool,
    /// Whether it was set up.
    pub is_up: bool,
    /// Its address, where it is Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Its IP addresses, each with the length of its network's prefix.
    pub addresses: BTreeMap<IpAddr, u8>,
}

/// What of a policy the guard needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whether there is one: something can open raw sockets.
    pub guards: bool,
    /// Whether it denies; it only counts and tells where the mode is observe.
    pub denies: bool,
    /// It forwards packets for others, whose source addresses are not its own.
    pub routes: bool,
    /// It can give itself any address: only those it had from the runtime are its own.
    pub is_admin: bool,
    /// The addresses the runtime names.
    pub named: BTreeSet<IpAddr>,
}

/// The chain a packet ends in that may not leave.
pub const DENY: &str = "deny_raw";
const ROUTED: &str = "routed";
const DISCOVERY: &str = "discovery";
const TARGET: &str = "target";
/// Neighbour advertisement (RFC 4861, 4.4).
const ADVERTISEMENT: u8 = 136;

impl Terms {
    /// Those of a netns nobody is known to need anything in.
    pub fn closed() -> Self {
        Self { guards: true, denies: true, ..Self::default() }
    }

    /// Those of the workloads of one netns.
    pub fn of(members: &[&Policy], inventory: &Inventory) -> Self {
        let workloads: Vec<&Workload> =
            members.iter().filter_map(|policy| inventory.get(&policy.workload)).collect();
        let has = |capability: fn(&Capabilities) -> bool| {
            workloads.iter().any(|workload| capability(&workload.capabilities))
        };
        let is_admin = has(|held| held.net_admin || held.privileged);
        let is_raw = is_admin || has(|held| held.net_raw);
        // Named only where it matters: an address that comes changes no terms but theirs.
        let named = workloads.iter().filter(|_| is_admin).flat_map(|workload| workload.addresses());
        let mode = netns_mode(members);
        Self {
            guards: is_raw && mode != Mode::Off,
            denies: mode == Mode::Enforce,
            routes: members.iter().any(|policy| policy.routes),
            is_admin,
            named: named.collect(),
        }
    }

    /// Which of the addresses its links hold are its own. `is_first`: nobody but the runtime has put any there yet.
    pub fn own(&self, links: &[Link], is_first: bool) -> BTreeSet<IpAddr> {
        let mut own = addresses_of(links);
        if self.is_admin && !is_first {
            // A link-local address is nobody's in a policy: no set holds one.
            own.retain(|address| self.named.contains(address) || is_link_local(address));
        }
        own
    }
}

/// The numbers of the links that are guarded against what sends past the netns' own hooks.
pub fn guarded(terms: &Terms, links: &[Link]) -> Vec<u32> {
    let is_closed = terms.guards && terms.denies;
    let guarded = links.iter().filter(|link| is_closed && !link.is_loopback);
    guarded.filter(|link| is_guarded(link, terms)).map(|link| link.index).collect()
}

/// The guard of a netns with these links beside this policy, where there is something to guard; `own` are the addresses it
/// may send from.
pub fn guard(
    terms: &Terms,
    links: &[Link],
    own: &BTreeSet<IpAddr>,
    policy: &Ruleset,
) -> Option<Ruleset> {
    if !terms.guards || !links.iter().any(|link| is_guarded(link, terms)) {
        return None;
    }
    let has_v6 = own.iter().any(IpAddr::is_ipv6);
    // Who may configure its netns can make connections known to the kernel that nobody was asked about.
    let trusts = policy.chains.contains_key(SENDER) && !terms.is_admin;
    let mut guard = Ruleset::empty(TableFamily::Netdev);
    guard.sets.insert(OWN4.to_owned(), addresses(Family::V4, own));
    guard.chains.insert(ROUTED.to_owned(), plain(routed(terms, has_v6)));
    let verdict = terms.denies.then_some(DenyVerdict::Drop);
    guard.chains.insert(DENY.to_owned(), plain(denying("raw", verdict)));
    if has_v6 {
        if !terms.routes {
            guard.sets.insert(OWN6.to_owned(), addresses(Family::V6, own));
        }
        guard.chains.insert(DISCOVERY.to_owned(), plain(discovery(links)));
        guard.chains.insert(TARGET.to_owned(), plain(target(own)));
    }
    for link in links.iter().filter(|link| is_guarded(link, terms)) {
        let base = Base {
            hook: Hook::Egress,
            device: Some(link.name.clone()),
            priority: 0,
            drops: terms.denies,
        };
        // What most packets are comes first: it takes no jump, and no set is asked.
        let first = match trusts {
            true => vec![judged(vec![Stmt::HasRoute, Stmt::L4ProtoIsNot(ICMP6)])],
            false => from_own_address(link, terms, own),
        };
        // By its number: no name from outside is a chain's.
        let name = format!("link{}", link.index);
        let rules = if link.is_up { leaving(link, first) } else { arriving() };
        guard.chains.insert(name, Chain { base: Some(base), rules: rules.into() });
    }
    Some(guard)
}

/// Whether something may leave through a link. One that is down sends nothing, and one that is no Ethernet (tunnels the
/// kernel puts into every netns) is set up by nobody without asking; Ethernet is guarded before it is up.
fn is_guarded(link: &Link, terms: &Terms) -> bool {
    if link.is_loopback {
        // What is put on lo may come back to be forwarded.
        return terms.routes;
    }
    link.is_up || link.mac.is_some()
}

fn plain(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules: rules.into() }
}

fn accept() -> Stmt {
    Stmt::Verdict(Verdict::Accept)
}

fn judged(mut which: Vec<Stmt>) -> Rule {
    which.push(accept());
    rule(which, "judged by inet seawall")
}

/// What comes from a link's own address.
fn from_own_address(link: &Link, terms: &Terms, own: &BTreeSet<IpAddr>) -> Vec<Rule> {
    let of = |family| {
        let is_usual = |address: &&IpAddr| {
            Family::of(**address) == family && own.contains(*address) && !is_link_local(address)
        };
        let address = link.addresses.keys().find(is_usual)?;
        let mut statements = vec![Stmt::Protocol(family), Stmt::HasRoute];
        statements.extend((family == Family::V6).then_some(Stmt::L4ProtoIsNot(ICMP6)));
        statements.extend((!terms.routes).then_some(Stmt::SenderIs(*address)));
        Some(judged(statements))
    };
    Family::BOTH.into_iter().filter_map(of).collect()
}

/// The rules at one link, behind the first ones.
fn leaving(link: &Link, mut rules: Vec<Rule>) -> Vec<Rule> {
    // What comes back is no IP: what resolves an address for a packet takes over that packet's route on links that keep it
    // until the end, macvlan and ipvlan among them (`arp_solicit` in the kernel, `IFF_XMIT_DST_RELEASE`).
    rules.push(rule(vec![Stmt::HasRoute, jump(ROUTED)], "the rest of what has a route"));
    if let Some(mac) = link.mac.filter(|_| !link.is_loopback) {
        let own = vec![Stmt::ArpFrom(mac), Stmt::ArpSenderIn(OWN4.to_owned()), accept()];
        rules.push(rule(own, "its own ARP"));
    }
    rules.push(rule(vec![goto(DENY)], "packet sockets"));
    rules
}

/// The rules at a link that is not up yet: they count from the moment it is, until this is known and its own are there.
///
/// Docker from 28 on puts addresses and a link layer address on a link, sets it up, and announces the addresses itself, by ARP
/// and neighbour advertisements. It gives the container up when one of these is not sent, so they must not be dropped.
fn arriving() -> Vec<Rule> {
    let v6 = Stmt::Protocol(Family::V6);
    let announced = vec![v6.clone(), Stmt::Icmp6Type(ADVERTISEMENT), LINK_MULTICAST, accept()];
    vec![
        rule(announced, "addresses that are announced"),
        rule(vec![Stmt::HasRoute, jump(ROUTED)], "judged by inet seawall"),
        rule(vec![Stmt::Protocol(Family::V4), goto(DENY)], "packet sockets"),
        rule(vec![v6, goto(DENY)], "packet sockets"),
        rule(vec![accept()], "ARP, while it is set up"),
    ]
}

/// What came from the IP stack.
fn routed(terms: &Terms, has_v6: bool) -> Vec<Rule> {
    let from = |family, set: &str| {
        let key = LookupKey { family, address: Side::Source, rest: LookupRest::Nothing };
        let mut statements = vec![Stmt::Protocol(family)];
        if !terms.routes {
            statements.push(Stmt::Lookup { key, set: set.to_owned() });
        }
        statements.push(accept());
        rule(statements, if terms.routes { "from whomever it forwards for" } else { "" })
    };
    let mut rules = vec![from(Family::V4, OWN4)];
    if has_v6 {
        let neighbour =
            vec![Stmt::Protocol(Family::V6), Stmt::Icmp6Types(133, ADVERTISEMENT), jump(DISCOVERY)];
        rules.push(rule(neighbour, ""));
    }
    if has_v6 || terms.routes {
        rules.push(from(Family::V6, OWN6));
    }
    // What is left with a route and is no IP is ARP, which the link's own chain knows.
    for family in Family::BOTH {
        let denied = vec![Stmt::Protocol(family), goto(DENY)];
        rules.push(rule(denied, "senders that are not this container"));
    }
    rules
}

/// Neighbour discovery: to neighbours, and of own addresses.
fn discovery(links: &[Link]) -> Vec<Rule> {
    let own_target = vec![Stmt::Protocol(Family::V6), Stmt::Icmp6Type(ADVERTISEMENT), jump(TARGET)];
    let near = |to: Stmt, comment: &str| {
        rule(vec![Stmt::Protocol(Family::V6), to, Stmt::Verdict(Verdict::Return)], comment)
    };
    let link_local = Stmt::Ip6To(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let mut rules = vec![
        rule(own_target, ""),
        near(LINK_MULTICAST, "on the link"),
        near(link_local, "on the link"),
    ];
    rules.extend(
        on_link(links).into_iter().map(|(network, bits)| near(Stmt::Ip6To(network, bits), "")),
    );
    rules.push(rule(vec![goto(DENY)], "not on the link"));
    rules
}

/// The IPv6 networks neighbours have addresses of.
fn on_link(links: &[Link]) -> BTreeSet<(Ipv6Addr, u8)> {
    let guarded = links.iter().filter(|link| !link.is_loopback);
    let all = guarded.flat_map(|link| &link.addresses);
    all.filter_map(|(address, bits)| match address {
        IpAddr::V6(address) if !is_link_local(&IpAddr::V6(*address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
            Some((Ipv6Addr::from(u128::from(*address) & mask), *bits))
        }
        _ => None,
    })
    .collect()
}

fn target(own: &BTreeSet<IpAddr>) -> Vec<Rule> {
    let own6 = own.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let is_own =
        |address| rule(vec![Stmt::NeighbourTarget(address), Stmt::Verdict(Verdict::Return)], "");
    own6.map(is_own).chain([rule(vec![goto(DENY)], "speaking for others")]).collect()
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// All addresses of all links a netns may send from: those that reach beyond it.
pub fn addresses_of(links: &[Link]) -> BTreeSet<IpAddr> {
    let all = links.iter().flat_map(|link| link.addresses.keys().copied());
    all.filter(|address| !address.is_loopback()).collect()
}
