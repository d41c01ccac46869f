//! Owns the start gate: which containers wait to be started, and when what they wait for is in force.
//!
//! The OCI runtime wrapper asks before a container's first instruction runs. The answer is given when the container's own
//! netns holds its policy and no other netns still has the old word on its addresses: neither lacks what it shall allow
//! the newcomer, nor allows what the former holder of an address was allowed (security model 1 and 3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::apply::Wanted;
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
    /// One that cannot be programmed now counts only with what it still allows and should not: that it lacks what it
    /// should allow must not keep others from starting, or a container that breaks its own table could.
    fn differs_about(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let about = |wanted: &Wanted| elements_about(wanted.table.as_deref(), addresses);
        let (wanted, held) = (about(&self.wanted), self.reached.as_ref().map(about));
        let held = held.unwrap_or_default();
        match self.last.error {
            None => held != wanted,
            Some(_) => !held.is_subset(&wanted),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::closed;
    use std::sync::Arc;

    use crate::compile::ruleset::{Comment, Family, Key, KeyKind, Set};
    use crate::reconcile::coverage::LastTry;

    /// A ruleset whose set of clients holds these addresses.
    fn admitting(addresses: &[&str]) -> Option<Ruleset> {
        let element = |text: &&str| {
            let address = text.parse().unwrap();
            (Element::exact(Key { address, selector: 6, port: 80 }), Comment::default())
        };
        let set = Set {
            family: Family::V4,
            kind: KeyKind::Tuple,
            interval: false,
            comment: Comment::default(),
            elements: Arc::new(addresses.iter().map(element).collect()),
        };
        let mut ruleset = closed(crate::policy::DenyVerdicts::default());
        ruleset.sets.insert("in4".to_owned(), set);
        Some(ruleset)
    }

    fn differs(
        reached: Option<Option<Ruleset>>,
        wanted: Option<Ruleset>,
        error: Option<&str>,
    ) -> bool {
        let last = LastTry { error: error.map(str::to_owned), ..LastTry::default() };
        let mut state = NetnsState::default();
        let wanting =
            |table: Option<Ruleset>| Wanted { table: table.map(Arc::new), ..Wanted::default() };
        (state.reached, state.wanted, state.last) = (reached.map(wanting), wanting(wanted), last);
        state.differs_about(&BTreeSet::from(["10.0.0.7".parse().unwrap()]))
    }

    #[test]
    fn a_peer_is_waited_for_while_it_says_something_else_of_the_newcomer() {
        let (old, new) = (admitting(&["10.0.0.5"]), admitting(&["10.0.0.5", "10.0.0.7"]));
        assert!(differs(Some(old.clone()), new.clone(), None), "it lacks the newcomer");
        assert!(
            differs(Some(new.clone()), old.clone(), None),
            "it knows the address's former holder"
        );
        assert!(differs(None, new.clone(), None), "nothing was brought to it yet");
        assert!(!differs(Some(new.clone()), new, None));
        assert!(
            !differs(Some(old), admitting(&[]), None),
            "it changes, but not about the newcomer"
        );
        assert!(!differs(None, None, None));
    }

    #[test]
    fn a_peer_that_cannot_be_programmed_holds_nobody_up_unless_it_allows_too_much() {
        let (old, new) = (admitting(&[]), admitting(&["10.0.0.7"]));
        assert!(!differs(Some(old.clone()), new.clone(), Some("refused")));
        assert!(!differs(None, new.clone(), Some("refused")));
        assert!(differs(Some(new), old, Some("refused")), "the former holder's permission stands");
    }
}
