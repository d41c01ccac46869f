//! Owns the start gate: which containers wait to be started, and when what they wait for is in force.
//!
//! The OCI runtime wrapper asks before a container's first instruction runs. The answer is given when the container's own
//! netns holds its policy and no other netns still has the old word on its addresses: neither lacks what it shall allow
//! the newcomer, nor allows what the former holder of an address was allowed (security model 1 and 3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::engine::NetnsState;
use super::queue::Queue;
use crate::compile::Ruleset;
use crate::compile::ruleset::Element;
use crate::metadata::{Inventory, NetworkMode, WorkloadId};

/// What the wrapper is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAnswer {
    /// Everything is in force; how long that took.
    Ready(Duration),
    /// The container is in the host's netns: there is nothing to wait for.
    NotFiltered,
}

/// A container whose start waits.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) id: WorkloadId,
    pub(super) pid: u32,
    pub(super) reply: oneshot::Sender<StartAnswer>,
    pub(super) began: Instant,
    /// Whether its netns was asked to be looked at since the question: what was read before may be older than its networks.
    pub(super) is_asked: bool,
}

/// What waiting is decided by.
pub(super) struct Progress<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) netns: &'a BTreeMap<WorkloadId, NetnsState>,
    pub(super) queue: &'a Queue<WorkloadId>,
}

impl Progress<'_> {
    /// The answer to a start, when there is one by now.
    pub(super) fn answer(&self, start: &Start) -> Option<StartAnswer> {
        let workload = self.inventory.get(&start.id)?;
        let owner = self.inventory.netns_owner(&start.id);
        let is_host =
            |id| self.inventory.get(id).is_some_and(|one| one.network_mode == NetworkMode::Host);
        if is_host(owner) || workload.network_mode == NetworkMode::Host {
            return Some(StartAnswer::NotFiltered);
        }
        let own = self.netns.get(owner)?;
        let is_done = start.is_asked && self.queue.is_idle(owner) && own.is_reached();
        if !is_done {
            return None;
        }
        let addresses: BTreeSet<IpAddr> =
            self.inventory.get(owner).into_iter().flat_map(|one| one.addresses()).collect();
        let is_behind = self.netns.iter().any(|(id, state)| {
            id != owner && !self.queue.is_idle(id) && state.differs_about(&addresses)
        });
        (!is_behind).then(|| StartAnswer::Ready(start.began.elapsed()))
    }
}

impl NetnsState {
    /// Whether the last try brought what is wanted now.
    fn is_reached(&self) -> bool {
        self.reached.as_ref() == Some(&self.wanted)
    }

    /// Whether what was last brought to this netns says something else of these addresses than what is wanted now.
    ///
    /// A netns nothing was ever brought to counts while its first try is under way. After a failed one it does not: it
    /// holds nothing of ours, so nothing stale.
    fn differs_about(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let about = |ruleset: &Option<Ruleset>| elements_about(ruleset.as_ref(), addresses);
        match &self.reached {
            Some(reached) => about(reached) != about(&self.wanted),
            None => self.last.error.is_none() && !about(&self.wanted).is_empty(),
        }
    }
}

/// What a ruleset's exact sets say of these addresses. Interval sets are ranges that operators wrote: they are of nobody.
fn elements_about(
    ruleset: Option<&Ruleset>,
    addresses: &BTreeSet<IpAddr>,
) -> BTreeSet<(String, Element)> {
    let sets = ruleset.into_iter().flat_map(|ruleset| &ruleset.sets);
    sets.filter(|(_, set)| !set.interval)
        .flat_map(|(name, set)| {
            let meant = set.elements.keys().filter(|one| addresses.contains(&one.first.address));
            meant.map(|element| (name.clone(), *element))
        })
        .collect()
}
