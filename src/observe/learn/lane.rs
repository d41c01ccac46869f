//! Owns [`Lane`]: conversations that one statement can speak of together, because they differ in ports or addresses that mean the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::seen::{Conversation, Evidence, Who};
use crate::metadata::{L4Proto, PortRange, Ports};
use crate::observe::Carried;
use crate::policy::{Traffic, is_internet};

/// The first port that clients choose at random (Linux, `net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL: u16 = 32_768;
/// As many ports nearby, or at random, become a range.
const MANY_PORTS: usize = 4;
/// How far ports of one range may lie apart.
const NEARBY: u16 = 8;
/// As many addresses of the internet on one port stand for all of it.
const MANY_ADDRESSES: usize = 3;

/// Some traffic between two parties.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) from: Who,
    pub(super) to: Who,
    pub(super) traffic: Traffic,
    pub(super) helper: Option<&'static str>,
    pub(super) evidence: Evidence,
    /// How many ports were seen, where `traffic` is a range.
    pub(super) ports_seen: usize,
    pub(super) conversations: Vec<Conversation>,
}

impl Lane {
    /// Whether it says more than what was seen.
    pub(super) fn is_generalised(&self) -> bool {
        self.ports_seen > 1 || self.from == Who::Internet || self.to == Who::Internet
    }

    /// Whether the policy in force allows all of it.
    pub(super) fn is_in_force(&self) -> bool {
        self.conversations.iter().all(|one| one.was_allowed)
    }
}

/// What may become one lane: everything but the port.
type Pair = (Who, Who, Option<&'static str>, bool);

/// The lanes of these conversations, sorted. `was_allowed` keeps conversations apart.
pub(super) fn lanes(conversations: Vec<Conversation>) -> Vec<Lane> {
    let mut pairs: BTreeMap<Pair, BTreeMap<Carried, Vec<Conversation>>> = BTreeMap::new();
    for (from, to, one) in generalised(conversations) {
        let pair = (from, to, one.helper, one.was_allowed);
        pairs.entry(pair).or_default().entry(one.carried).or_default().push(one);
    }
    let mut found = Vec::new();
    for ((from, to, helper, _), mut by_port) in pairs {
        for (traffic, carried) in ranges(by_port.keys().copied(), &to) {
            let conversations: Vec<Conversation> =
                carried.iter().filter_map(|one| by_port.remove(one)).flatten().collect();
            let mut evidence = Evidence::default();
            conversations.iter().for_each(|one| evidence.add(&one.evidence));
            found.push(Lane {
                from: from.clone(),
                to: to.clone(),
                traffic,
                helper,
                evidence,
                ports_seen: carried.len(),
                conversations,
            });
        }
    }
    found
}

/// Conversations with their parties, addresses of the internet taken together where they stand for it.
fn generalised(conversations: Vec<Conversation>) -> Vec<(Who, Who, Conversation)> {
    let mut there: BTreeMap<(Who, Carried), (BTreeSet<IpAddr>, bool)> = BTreeMap::new();
    let mut here: BTreeMap<(Who, Carried), BTreeSet<IpAddr>> = BTreeMap::new();
    for one in &conversations {
        if let Some(address) = of_internet(&one.server) {
            let (addresses, is_named) = there.entry((one.client.clone(), one.carried)).or_default();
            addresses.insert(address);
            *is_named |= one.is_named;
        }
        if let Some(address) = of_internet(&one.client) {
            here.entry((one.server.clone(), one.carried)).or_default().insert(address);
        }
    }
    // What has a name is reached by it, and the name's addresses change.
    let is_all_of_it = |one: &Conversation, is_server: bool| match is_server {
        true => there
            .get(&(one.client.clone(), one.carried))
            .is_some_and(|(addresses, is_named)| *is_named || addresses.len() >= MANY_ADDRESSES),
        false => here
            .get(&(one.server.clone(), one.carried))
            .is_some_and(|addresses| addresses.len() >= MANY_ADDRESSES),
    };
    let general = |who: &Who, is_all: bool| match is_all && of_internet(who).is_some() {
        true => Who::Internet,
        false => who.clone(),
    };
    let ends = |one: Conversation| {
        let from = general(&one.client, is_all_of_it(&one, false));
        let to = general(&one.server, is_all_of_it(&one, true));
        (from, to, one)
    };
    conversations.into_iter().map(ends).collect()
}

fn of_internet(who: &Who) -> Option<IpAddr> {
    match who {
        Who::Address(address) if is_internet(*address) => Some(*address),
        _ => None,
    }
}

/// What is carried as traffic: each alone, or ranges of many ports, with what each was made of.
fn ranges(carried: impl Iterator<Item = Carried>, to: &Who) -> Vec<(Traffic, Vec<Carried>)> {
    let mut found = Vec::new();
    let mut by_proto: BTreeMap<L4Proto, Vec<u16>> = BTreeMap::new();
    for one in carried {
        match one {
            Carried::Port { proto, port } => by_proto.entry(proto).or_default().push(port),
            Carried::Ping => found.push((Traffic::Ping, vec![one])),
            Carried::Icmp(_) | Carried::Protocol(_) | Carried::Frame(_) => {}
        }
    }
    for (proto, mut ports) in by_proto {
        ports.sort_unstable();
        // An address that many ports were tried of is no server one knows.
        let is_random = |port: &&u16| **port >= FIRST_EPHEMERAL && *to != Who::Internet;
        let is_ephemeral = ports.iter().filter(is_random).count() >= MANY_PORTS;
        let mut group: Vec<u16> = Vec::new();
        let mut groups = Vec::new();
        for port in ports {
            let follows = group.last().is_some_and(|last| {
                port - last <= NEARBY || is_ephemeral && *last >= FIRST_EPHEMERAL
            });
            if !follows {
                groups.push(std::mem::take(&mut group));
            }
            group.push(port);
        }
        groups.push(group);
        for group in groups {
            let parts = match group.len() >= MANY_PORTS {
                true => vec![group],
                false => group.into_iter().map(|port| vec![port]).collect(),
            };
            found.extend(parts.into_iter().filter_map(|part| {
                let range = PortRange::new(*part.first()?, *part.last()?).ok()?;
                let carried = part.iter().map(|port| Carried::Port { proto, port: *port });
                Some((Traffic::Ports(Ports { proto, range }), carried.collect()))
            }));
        }
    }
    found
}
