//! Owns [`Inventory`]: every workload known now, each once.

use std::collections::BTreeMap;

use serde::Serialize;

use super::workload::{NetworkMode, Workload, WorkloadId};

/// Every workload known now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Inventory {
    workloads: BTreeMap<WorkloadId, Workload>,
}

impl Inventory {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a workload or replaces what was known of it. Returns whether anything changed.
    pub fn upsert(&mut self, workload: Workload) -> bool {
        match self.workloads.get(&workload.id) {
            Some(known) if *known == workload => false,
            _ => {
                self.workloads.insert(workload.id.clone(), workload);
                true
            }
        }
    }

    /// Forgets a workload. Returns what was known of it.
    pub fn remove(&mut self, id: &WorkloadId) -> Option<Workload> {
        self.workloads.remove(id)
    }

    /// One workload.
    pub fn get(&self, id: &WorkloadId) -> Option<&Workload> {
        self.workloads.get(id)
    }

    /// One workload, to change a fact of it.
    pub fn get_mut(&mut self, id: &WorkloadId) -> Option<&mut Workload> {
        self.workloads.get_mut(id)
    }

    /// All workloads, ordered by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values()
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
    pub fn netns_owner<'a>(&'a self, id: &'a WorkloadId) -> &'a WorkloadId {
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
        self.iter().filter(move |workload| self.netns_owner(&workload.id) == owner)
    }
}

impl FromIterator<Workload> for Inventory {
    fn from_iter<I: IntoIterator<Item = Workload>>(workloads: I) -> Self {
        Self {
            workloads: workloads
                .into_iter()
                .map(|workload| (workload.id.clone(), workload))
                .collect(),
        }
    }
}
