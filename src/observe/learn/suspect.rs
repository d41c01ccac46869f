//! Owns what does not become policy by itself: scans, connections nobody answered, and those made once or twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::seen::{Conversation, Who};
use crate::observe::Carried;

/// As many ports and hosts a client may try in vain without being called a scanner.
const TARGETS: usize = 8;

/// Why something that was seen is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Why {
    /// The client tried many ports or hosts, and most never answered.
    Scan {
        /// How many it tried.
        tried: usize,
        /// How many of them never answered.
        silent: usize,
    },
    /// Nobody ever answered.
    Unanswered,
    /// There were fewer connections than asked for.
    Rare {
        /// How many are asked for.
        wanted: u64,
    },
    /// It was denied, and so never took place.
    Denied,
    /// A deny decides, and no allow helps against that.
    DenyDecides(String),
    /// No selector means just this workload.
    NoSelector(String),
    /// More addresses than a statement should name one by one.
    ManyAddresses(usize),
    /// Nothing can be said of it.
    Open(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan { tried, silent } => write!(
                f,
                "a scan: the client tried {tried} ports of others, and {silent} of them never answered"
            ),
            Self::Unanswered => f.write_str(
                "nobody answered (of some protocols over UDP, such as syslog, that is as it should be)",
            ),
            Self::Rare { wanted } => write!(f, "seen fewer than {wanted} times"),
            Self::Denied => f.write_str(
                "it was denied and never took place (`--include-denied` proposes it)",
            ),
            Self::DenyDecides(place) => {
                write!(f, "a deny decides, and no allow helps against it ({place})")
            }
            Self::NoSelector(name) => write!(f, "no selector means {name} and nobody else"),
            Self::ManyAddresses(count) => {
                write!(f, "{count} addresses: name the range they lie in yourself")
            }
            Self::Open(reason) => f.write_str(reason),
        }
    }
}

/// The clients that look like scanners.
pub(super) fn scanners(conversations: &[Conversation]) -> BTreeMap<Who, Why> {
    let mut tried: BTreeMap<&Who, BTreeMap<(&Who, Carried), bool>> = BTreeMap::new();
    for one in conversations.iter().filter(|one| one.master.is_none() && !one.is_unasked) {
        let targets = tried.entry(&one.client).or_default();
        let answered = targets.entry((&one.server, one.carried)).or_default();
        *answered |= !one.is_unanswered();
    }
    let is_scan = |(client, targets): (&Who, BTreeMap<(&Who, Carried), bool>)| {
        let silent = targets.values().filter(|answered| !**answered).count();
        let why = Why::Scan { tried: targets.len(), silent };
        (targets.len() >= TARGETS && silent * 2 > targets.len()).then(|| (client.clone(), why))
    };
    tried.into_iter().filter_map(is_scan).collect()
}

/// The seeds and every workload that was seen to talk with one of them, with one of those, and so on.
pub(super) fn related(
    seeds: &BTreeSet<Who>,
    conversations: &[Conversation],
    scanners: &BTreeMap<Who, Why>,
) -> BTreeSet<Who> {
    let is_workload = |who: &Who| matches!(who, Who::Workloads(_));
    let is_tie = |one: &&Conversation| {
        is_workload(&one.client)
            && is_workload(&one.server)
            && !one.is_denied
            && !one.is_unanswered()
            && !scanners.contains_key(&one.client)
    };
    let mut ties: BTreeMap<&Who, BTreeSet<&Who>> = BTreeMap::new();
    for one in conversations.iter().filter(is_tie) {
        ties.entry(&one.client).or_default().insert(&one.server);
        ties.entry(&one.server).or_default().insert(&one.client);
    }
    let mut found = seeds.clone();
    let mut open: Vec<&Who> = seeds.iter().collect();
    while let Some(who) = open.pop() {
        for other in ties.get(who).into_iter().flatten() {
            if found.insert((*other).clone()) {
                open.push(other);
            }
        }
    }
    found
}
