//! Owns the pipeline: resolve, generate and compile everything that is known, in one pure step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apply::Wanted;
use crate::compile::guard::Terms;
use crate::compile::{self, Made, Ruleset};
use crate::config::Loaded;
use crate::input::Text;
use crate::metadata::{Inventory, NetworkMode, State, Workload, WorkloadId};
use crate::model::{Catalogue, Overrides, Resolution, resolve};
use crate::policy::{LabelTrust, OperatorPolicy, Peer, Policy, PolicySet, generate};

/// What operators and the catalogue say; valid as a whole.
#[derive(Clone, Debug)]
pub struct Rules {
    /// All models.
    pub catalogue: Catalogue,
    /// Operators' statements.
    pub operator: OperatorPolicy,
    /// Settings, and what is done to denied packets.
    pub options: compile::Options,
}

impl From<&Loaded> for Rules {
    fn from(loaded: &Loaded) -> Self {
        Self {
            catalogue: loaded.catalogue.clone(),
            operator: loaded.operator.clone(),
            options: compile::Options {
                deny: loaded.config.deny,
                settings: loaded.config.settings.clone(),
            },
        }
    }
}

/// What shall be, for every workload known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// What each workload is.
    pub resolutions: BTreeMap<WorkloadId, Resolution>,
    /// What each may do.
    pub policies: PolicySet,
    /// The table of each netns that is to be filtered, by the workload whose netns it is. Empty: no table.
    pub rulesets: BTreeMap<WorkloadId, Arc<Ruleset>>,
    /// What the guard of each netns is made by.
    pub guards: BTreeMap<WorkloadId, Terms>,
}

impl Desired {
    /// What is wanted of the netns of this workload.
    pub fn wanted(&self, owner: &WorkloadId) -> Wanted {
        Wanted {
            table: self.rulesets.get(owner).cloned(),
            guard: self.guards.get(owner).cloned().unwrap_or_default(),
        }
    }
}

/// Decides everything. Pure: the same inventory and rules give the same answer.
pub fn desire(inventory: &Inventory, rules: &Rules) -> Desired {
    let desired = Decider::default().decide(inventory, rules);
    Arc::unwrap_or_clone(desired)
}

/// Decides again and again, and keeps what a change does not touch. It answers what [`desire`] would.
#[derive(Debug, Default)]
pub struct Decider {
    last: Option<Last>,
    made: Made,
}

/// An answer, and what it was given for.
#[derive(Debug)]
struct Last {
    inventory: Inventory,
    desired: Arc<Desired>,
    /// How many workloads each netns was compiled for.
    members: BTreeMap<WorkloadId, usize>,
}

impl Decider {
    /// Decides everything. The rules are those of every time before: for others there is another decider.
    pub fn decide(&mut self, inventory: &Inventory, rules: &Rules) -> Arc<Desired> {
        let last = self.last.take();
        let changes = Changes { last: last.as_ref(), inventory };
        let resolution = |workload: &Workload| {
            let known = changes.same(&workload.id)?.desired.resolutions.get(&workload.id);
            known.cloned()
        };
        let resolutions: BTreeMap<WorkloadId, Resolution> = inventory
            .iter()
            .map(|one| (one.id.clone(), resolution(one).unwrap_or_else(|| resolve_one(one, rules))))
            .collect();
        let settings = &rules.options.settings;
        let policies =
            generate(inventory, &resolutions, &rules.catalogue, &rules.operator, settings);
        let mut members: BTreeMap<&WorkloadId, Vec<&Policy>> = BTreeMap::new();
        let has_left = |policy: &&Policy| inventory.has_left(&policy.workload);
        for policy in policies.policies.values().filter(|policy| !has_left(policy)) {
            members.entry(inventory.netns_owner(&policy.workload)).or_default().push(policy);
        }
        let terms = members
            .iter()
            .map(|(owner, members)| ((*owner).clone(), Terms::of(members, inventory)));
        let guards = terms.collect();
        let counts = members.iter().map(|(owner, members)| ((*owner).clone(), members.len()));
        let counts = counts.collect();
        let touched = changes.touched();
        let made = &mut self.made;
        let rulesets = members
            .into_iter()
            .filter(|(owner, _)| inventory.get(owner).is_some_and(is_filterable))
            .filter_map(|(owner, mut members)| {
                if let Some(known) = changes.ruleset(owner, &members, touched.as_ref()) {
                    return Some((owner.clone(), known?));
                }
                // The owner first: it is the one whose netns is compiled for.
                members.sort_by_key(|policy| policy.workload != *owner);
                let compiled = compile::compile_as(&members, inventory, &rules.options, made)?;
                Some((owner.clone(), Arc::new(compiled)))
            })
            .collect();
        let desired = Arc::new(Desired { resolutions, policies, rulesets, guards });
        let inventory = inventory.clone();
        self.last = Some(Last { inventory, desired: Arc::clone(&desired), members: counts });
        desired
    }
}

impl Decider {
    /// Whether the last answer is what deciding from nothing gives; and lets go of what was made and nobody uses any more. It
    /// is asked now and then, for the case that what a change touches is not all told apart.
    pub fn is_right(&mut self, rules: &Rules) -> bool {
        self.made.let_go();
        self.last.as_ref().is_none_or(|last| *last.desired == desire(&last.inventory, rules))
    }
}

/// What became of the facts since the last answer.
struct Changes<'a> {
    last: Option<&'a Last>,
    inventory: &'a Inventory,
}

impl<'a> Changes<'a> {
    /// The last answer, if the same was known of a workload then.
    fn same(&self, id: &WorkloadId) -> Option<&'a Last> {
        self.last.filter(|last| last.inventory.agrees(self.inventory, id))
    }

    /// The workloads whose addresses, netns or life may be others than for the last answer; none: nobody can tell.
    fn touched(&self) -> Option<BTreeSet<&'a WorkloadId>> {
        let last = self.last?;
        let is_touched = |id: &WorkloadId| {
            let owner = self.inventory.netns_owner(id);
            self.same(id).is_none()
                || self.same(owner).is_none()
                || last.inventory.netns_owner(id) != owner
        };
        Some(self.inventory.iter().map(|one| &one.id).filter(|id| is_touched(id)).collect())
    }

    /// The last ruleset of a netns (or that it had none), if nothing it is compiled from has changed: who is in it, what
    /// their policies state, and whom these name.
    fn ruleset(
        &self,
        owner: &WorkloadId,
        members: &[&Policy],
        touched: Option<&BTreeSet<&WorkloadId>>,
    ) -> Option<Option<Arc<Ruleset>>> {
        let (last, touched) = self.last.zip(touched)?;
        let is_named = |policy: &Policy| {
            policy.statements.iter().any(|statement| match &statement.peer {
                Peer::Workloads { members, .. } => {
                    members.iter().any(|member| touched.contains(member))
                }
                _ => false,
            })
        };
        let is_new = |policy: &&Policy| {
            touched.contains(&policy.workload)
                || last.desired.policies.policies.get(&policy.workload) != Some(*policy)
                || !touched.is_empty() && is_named(policy)
        };
        let is_known = !touched.contains(owner)
            && last.members.get(owner) == Some(&members.len())
            && !members.iter().any(is_new);
        is_known.then(|| last.desired.rulesets.get(owner).cloned())
    }
}

/// What one workload is, given what operators say of it.
pub fn resolve_one(workload: &Workload, rules: &Rules) -> Resolution {
    let stated = rules.operator.model_override(workload);
    let overrides = Overrides {
        operator: stated.map(|(model, place)| (model, Text::new(&place.to_string()))),
        trust_labels: rules.options.settings.labels == LabelTrust::Trust,
    };
    resolve(workload, &rules.catalogue, &overrides)
}

/// The host's netns is never filtered (security model 9). One whose owner is gone or unknown is looked after through who is
/// left in it, once it is certain who that is.
fn is_filterable(owner: &Workload) -> bool {
    match owner.network_mode {
        NetworkMode::Own | NetworkMode::None => true,
        NetworkMode::Host => false,
        NetworkMode::Container(_) => {
            is_running(owner) && owner.netns.as_ref().is_some_and(|netns| netns.inode.is_some())
        }
    }
}

/// Whether a workload has a netns to look after now.
pub fn is_running(workload: &Workload) -> bool {
    workload.state == State::Running && workload.netns.is_some()
}

#[cfg(test)]
mod tests;
