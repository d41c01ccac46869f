//! Owns [`Conversation`]: what two parties were seen to say to each other, counted once, however many ends and verdicts
//! it was recorded at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::input::Text;
use crate::observe::{Carried, Denial, End, Flow, Party, Said, Where};

/// A party of a conversation, without what may differ between two records of the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Workloads, by the selector that means them.
    Workloads(Text),
    /// The host.
    Host,
    /// Any globally routed address.
    Internet,
    /// One address.
    Address(IpAddr),
}

impl Who {
    fn of(party: &Party) -> Self {
        match party {
            Party::Workload { selector, .. } => Self::Workloads(selector.clone()),
            Party::Host => Self::Host,
            Party::Address { address, .. } => Self::Address(address.to_canonical()),
        }
    }
}

/// What was seen of some connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// How many there were.
    pub connections: u64,
    /// How many of these ended without an answer.
    pub unanswered: u64,
    /// When the first began, in microseconds since 1970.
    pub first_us: u64,
    /// When the last began or ended.
    pub last_us: u64,
    /// Bytes from client to server.
    pub bytes_out: u64,
    /// Bytes from server to client.
    pub bytes_in: u64,
    /// How many of the connections were data channels of others.
    pub channels: u64,
    /// The parties that are no workloads: addresses, with the names they were resolved from.
    pub peers: BTreeSet<Text>,
}

impl Evidence {
    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        if *self == Self::default() {
            *self = other.clone();
            return;
        }
        for (sum, more) in [
            (&mut self.connections, other.connections),
            (&mut self.unanswered, other.unanswered),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.channels, other.channels),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.first_us = self.first_us.min(other.first_us);
        self.last_us = self.last_us.max(other.last_us);
        self.peers.extend(other.peers.iter().cloned());
    }
}

/// What two parties were seen to say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) client: Who,
    pub(super) server: Who,
    pub(super) carried: Carried,
    /// The control connection's port, where this is a data channel.
    pub(super) master: Option<Carried>,
    /// The helper it needs, where it is the control connection of data channels.
    pub(super) helper: Option<&'static str>,
    pub(super) evidence: Evidence,
    /// Whether nothing but its denial is known.
    pub(super) is_denied: bool,
    /// Whether whoever judged it when it was made let it pass.
    pub(super) was_allowed: bool,
    /// Whether it needs no statement at all.
    pub(super) is_unasked: bool,
    /// Whether a name was resolved to one of its addresses.
    pub(super) is_named: bool,
}

type Key = (Who, Who, Carried, Option<Carried>);

/// One key, as each end saw it.
#[derive(Default)]
struct Ends {
    client: Evidence,
    server: Evidence,
    peers: BTreeSet<Text>,
    said: BTreeSet<Said>,
    is_named: bool,
}

/// The conversations of these records, sorted. Denials count where no connection was seen.
pub(super) fn conversations(flows: &[Flow], denials: &[Denial]) -> Vec<Conversation> {
    let mut seen: BTreeMap<Key, Ends> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.connections > 0) {
        let key = &flow.key;
        let ends = seen
            .entry((Who::of(&key.client), Who::of(&key.server), key.carried, key.master))
            .or_default();
        let of_end = match key.end {
            End::Client => &mut ends.client,
            End::Server => &mut ends.server,
        };
        of_end.add(&Evidence {
            connections: flow.connections,
            unanswered: flow.unanswered.min(flow.connections),
            first_us: flow.first_us.min(flow.last_us),
            last_us: flow.last_us,
            bytes_out: flow.bytes_out,
            bytes_in: flow.bytes_in,
            channels: 0,
            peers: BTreeSet::new(),
        });
        ends.said.insert(key.said);
        ends.note_peers(&key.client, &key.server);
    }
    let mut denied: BTreeMap<Key, Ends> = BTreeMap::new();
    for denial in denials.iter().filter(|denial| is_of_statements(denial)) {
        let key = &denial.key;
        let place = (Who::of(&key.client), Who::of(&key.server), key.carried, None);
        if seen.contains_key(&place) {
            continue;
        }
        let ends = denied.entry(place).or_default();
        let of_end = match key.at {
            Where::Out => &mut ends.client,
            _ => &mut ends.server,
        };
        of_end.add(&Evidence {
            connections: denial.logged,
            unanswered: denial.logged,
            first_us: denial.first_us.min(denial.last_us),
            last_us: denial.last_us,
            ..Evidence::default()
        });
        ends.note_peers(&key.client, &key.server);
    }
    let seen = seen.into_iter().map(|(key, ends)| ends.into_conversation(key, false));
    let mut all: Vec<_> = seen
        .chain(denied.into_iter().map(|(key, ends)| ends.into_conversation(key, true)))
        .collect();
    all.sort_by(|a, b| a.order().cmp(&b.order()));
    all
}

/// Whether a statement could have anything to do with it: answers, and what is stopped at a link, are not judged by any.
fn is_of_statements(denial: &Denial) -> bool {
    !denial.is_reply && denial.logged > 0 && matches!(denial.key.at, Where::In | Where::Out)
}

impl Ends {
    fn note_peers(&mut self, client: &Party, server: &Party) {
        for party in [client, server] {
            if let Party::Address { name, .. } = party {
                self.is_named |= name.is_some();
                self.peers.insert(Text::new(&party.to_string()));
            }
        }
    }

    fn into_conversation(self, key: Key, is_denied: bool) -> Conversation {
        let (client, server, carried, master) = key;
        // Both ends saw the same connections: whoever saw more saw them all.
        let mut evidence = match self.client.connections >= self.server.connections {
            true => self.client,
            false => self.server,
        };
        evidence.peers = self.peers;
        Conversation {
            client,
            server,
            carried,
            master,
            helper: None,
            evidence,
            is_denied,
            was_allowed: !is_denied && !self.said.contains(&Said::WouldDeny),
            is_unasked: !is_denied && self.said.iter().all(|said| *said == Said::Unasked),
            is_named: self.is_named,
        }
    }
}

impl Conversation {
    pub(super) fn order(&self) -> (&Who, &Who, Carried, Option<Carried>, bool) {
        (&self.client, &self.server, self.carried, self.master, self.is_denied)
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.evidence.unanswered >= self.evidence.connections
    }
}

/// What was seen between two looks at the same daemon's records: `after` without what was in `before` already.
///
/// A count that got smaller was begun anew in between, and is taken whole. When the first of the new connections was made is not
/// known where there were older ones: it is told as when the last of those was.
pub fn since(before: &[Flow], after: &[Flow]) -> Vec<Flow> {
    let known: BTreeMap<_, _> = before.iter().map(|flow| (&flow.key, flow)).collect();
    let fresh = |flow: &Flow| -> Option<Flow> {
        let Some(old) = known.get(&flow.key) else { return Some(flow.clone()) };
        if old.connections > flow.connections {
            return Some(flow.clone());
        }
        let connections = flow.connections - old.connections;
        (connections > 0).then(|| Flow {
            key: flow.key.clone(),
            first_us: old.last_us.max(flow.first_us),
            last_us: flow.last_us,
            connections,
            unanswered: flow.unanswered.saturating_sub(old.unanswered).min(connections),
            packets_out: flow.packets_out.saturating_sub(old.packets_out),
            bytes_out: flow.bytes_out.saturating_sub(old.bytes_out),
            packets_in: flow.packets_in.saturating_sub(old.packets_in),
            bytes_in: flow.bytes_in.saturating_sub(old.bytes_in),
        })
    };
    after.iter().filter_map(fresh).collect()
}

/// The same for denials.
pub fn denied_since(before: &[Denial], after: &[Denial]) -> Vec<Denial> {
    let known: BTreeMap<_, _> = before.iter().map(|denial| (&denial.key, denial)).collect();
    let fresh = |denial: &Denial| -> Option<Denial> {
        let Some(old) = known.get(&denial.key) else { return Some(denial.clone()) };
        let logged = match denial.logged.checked_sub(old.logged) {
            Some(0) => return None,
            Some(more) => more,
            None => return Some(denial.clone()),
        };
        let first_us = old.last_us.max(denial.first_us);
        Some(Denial { logged, first_us, ..denial.clone() })
    };
    after.iter().filter_map(fresh).collect()
}
