//! Owns [`Inventory`]: every workload known now, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;

use super::workload::{NetnsRef, NetworkMode, Runtime, State, Workload, WorkloadId};

/// Every workload known now. Copies share what they know of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Inventory {
    workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    /// Those that live in another's netns.
    #[serde(skip)]
    guests: BTreeSet<WorkloadId>,
}

impl Inventory {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a workload or replaces what was known of it. Returns whether anything changed.
    pub fn upsert(&mut self, workload: Workload) -> bool {
        match self.workloads.get(&workload.id) {
            Some(known) if **known == workload => false,
            _ => {
                self.insert(workload);
                true
            }
        }
    }

    fn insert(&mut self, workload: Workload) {
        match workload.network_mode {
            NetworkMode::Container(_) => self.guests.insert(workload.id.clone()),
            _ => self.guests.remove(&workload.id),
        };
        self.workloads.insert(workload.id.clone(), Arc::new(workload));
    }

    /// Forgets a workload. Returns what was known of it.
    pub fn remove(&mut self, id: &WorkloadId) -> Option<Arc<Workload>> {
        self.guests.remove(id);
        self.workloads.remove(id)
    }

    /// Whether the same is known here and there of a workload, or nothing.
    pub fn agrees(&self, other: &Self, id: &WorkloadId) -> bool {
        self.workloads.get(id) == other.workloads.get(id)
    }

    /// One workload.
    pub fn get(&self, id: &WorkloadId) -> Option<&Workload> {
        self.workloads.get(id).map(Arc::as_ref)
    }

    /// Notes which netns a running workload's process is in, where it is known.
    pub fn set_inode(&mut self, id: &WorkloadId, pid: u32, inode: Option<u64>) {
        let known = self.get(id).and_then(|workload| workload.netns.as_ref());
        let is_news = |known: &&NetnsRef| known.pid == pid && known.inode != inode;
        if inode.is_none() || known.filter(is_news).is_none() {
            return;
        }
        let workload = self.workloads.get_mut(id).map(Arc::make_mut);
        if let Some(netns) = workload.and_then(|workload| workload.netns.as_mut()) {
            netns.inode = inode;
        }
    }

    /// All workloads, ordered by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.workloads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }

    /// The workload whose netns `id` lives in: itself, or the end of its `container:x` chain.
    /// A chain that leads nowhere or in a circle ends at its last known member.
    ///
    /// A netns outlives the workload it was made for while others live in it: when that has ended, or runs in another by
    /// now, the first of those who are left, by identity, stands for it. Which netns a process is in is told by its inode;
    /// where that is not known, the chain is believed.
    pub fn netns_owner<'a>(&'a self, id: &'a WorkloadId) -> &'a WorkloadId {
        let end = self.end_of_chain(id);
        let Some(inode) = self.inode(id) else { return end };
        let is_left = match self.workloads.get(end) {
            Some(_) if self.guests.contains(end) => true,
            Some(workload) if end == id || workload.network_mode == NetworkMode::Host => false,
            Some(workload) => {
                let other = self.inode(end).is_some_and(|other| other != inode);
                workload.state != State::Running || other
            }
            None => false,
        };
        if !is_left {
            return end;
        }
        self.guests.iter().find(|guest| self.inode(guest) == Some(inode)).unwrap_or(id)
    }

    /// Whether a workload that lived in another's netns has ended: what it might do there, nobody may any more.
    pub fn has_left(&self, id: &WorkloadId) -> bool {
        self.workloads.get(id).is_some_and(|workload| {
            matches!(workload.network_mode, NetworkMode::Container(_))
                && workload.state == State::Exited
                && workload.runtime != Runtime::File
        })
    }

    /// The inode of a running workload's netns, where it is known.
    fn inode(&self, id: &WorkloadId) -> Option<u64> {
        let workload = self.workloads.get(id).filter(|one| one.state == State::Running)?;
        workload.netns.as_ref()?.inode
    }

    fn end_of_chain<'a>(&'a self, id: &'a WorkloadId) -> &'a WorkloadId {
        let mut owner = id;
        for _ in 0..self.workloads.len() {
            match self.workloads.get(owner).map(|workload| &workload.network_mode) {
                Some(NetworkMode::Container(next)) if self.workloads.contains_key(next) => {
                    owner = next;
                }
                _ => break,
            }
        }
        owner
    }

    /// All workloads whose netns is that of `owner`, itself included.
    pub fn netns_members<'a>(
        &'a self,
        owner: &'a WorkloadId,
    ) -> impl Iterator<Item = &'a Workload> {
        // Nobody else can be in it.
        let before = self.guests.range(..owner);
        let after = self.guests.range((Bound::Excluded(owner), Bound::Unbounded));
        let all = before.chain([owner]).chain(after).filter_map(|id| self.get(id));
        all.filter(move |workload| self.netns_owner(&workload.id) == owner)
    }
}

impl FromIterator<Workload> for Inventory {
    fn from_iter<I: IntoIterator<Item = Workload>>(workloads: I) -> Self {
        let mut inventory = Self::new();
        workloads.into_iter().for_each(|workload| inventory.insert(workload));
        inventory
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::netns_of;
    use super::*;

    /// A running container in the netns with this inode; `of` is whose it was made for.
    fn running(name: &str, of: Option<&str>, inode: Option<u64>) -> Workload {
        let mut workload = Workload::new(WorkloadId::new(name), name.into(), Runtime::Docker);
        workload.state = State::Running;
        workload.netns = Some(netns_of(7));
        if let Some(netns) = &mut workload.netns {
            netns.inode = inode;
        }
        workload.network_mode = match of {
            Some(of) => NetworkMode::Container(WorkloadId::new(of)),
            None => NetworkMode::Own,
        };
        workload
    }

    fn owners(workloads: &[Workload]) -> String {
        let inventory: Inventory = workloads.iter().cloned().collect();
        let owner = |one: &Workload| format!("{}:{}", one.id, inventory.netns_owner(&one.id));
        inventory.iter().map(owner).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_netns_is_of_whom_it_was_made_for_while_that_is_in_it() {
        let pod = |inodes: [Option<u64>; 3]| {
            owners(&[
                running("own", None, inodes[0]),
                running("m1", Some("own"), inodes[1]),
                running("m2", Some("m1"), inodes[2]),
            ])
        };
        assert_eq!(pod([Some(1), Some(1), Some(1)]), "m1:own m2:own own:own");
        assert_eq!(pod([None, Some(1), None]), "m1:own m2:own own:own", "unknown: believed");
        assert_eq!(pod([Some(2), Some(1), Some(1)]), "m1:m1 m2:m1 own:own", "started again");
        assert_eq!(pod([Some(2), Some(1), Some(2)]), "m1:m1 m2:own own:own", "m2 too");
    }

    #[test]
    fn who_is_left_of_a_netns_stands_for_it() {
        let left = [running("m1", Some("own"), Some(1)), running("m2", Some("own"), Some(1))];
        assert_eq!(owners(&left), "m1:m1 m2:m1", "the owner was removed");
        let mut ended = running("own", None, None);
        (ended.state, ended.netns) = (State::Exited, None);
        let [m1, m2] = left;
        assert_eq!(owners(&[ended.clone(), m1.clone(), m2.clone()]), "m1:m1 m2:m1 own:own");
        let mut last = m1.clone();
        (last.state, last.netns) = (State::Exited, None);
        assert_eq!(owners(&[ended, last.clone(), m2]), "m1:own m2:m2 own:own");
        let inventory: Inventory = [last, m1].into_iter().collect();
        assert!(!inventory.has_left(&WorkloadId::new("m1")), "it runs again");
    }

    #[test]
    fn who_shares_the_hosts_netns_does_so_whatever_ended() {
        let mut host = running("host", None, None);
        host.network_mode = NetworkMode::Host;
        host.state = State::Exited;
        assert_eq!(owners(&[host, running("m", Some("host"), Some(1))]), "host:host m:host");
    }
}
