//! Owns the pipeline: resolve, generate and compile everything that is known, in one pure step.

use std::collections::BTreeMap;

use super::apply::Wanted;
use crate::compile::guard::Terms;
use crate::compile::{self, Ruleset};
use crate::config::Loaded;
use crate::input::Text;
use crate::metadata::{Inventory, NetworkMode, State, Workload, WorkloadId};
use crate::model::{Catalogue, Overrides, Resolution, resolve};
use crate::policy::{LabelTrust, OperatorPolicy, Policy, PolicySet, generate};

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
    pub rulesets: BTreeMap<WorkloadId, Ruleset>,
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
    let resolutions: BTreeMap<WorkloadId, Resolution> = inventory
        .iter()
        .map(|workload| (workload.id.clone(), resolve_one(workload, rules)))
        .collect();
    let settings = &rules.options.settings;
    let policies = generate(inventory, &resolutions, &rules.catalogue, &rules.operator, settings);
    let mut members: BTreeMap<&WorkloadId, Vec<&Policy>> = BTreeMap::new();
    let has_left = |policy: &&Policy| inventory.has_left(&policy.workload);
    for policy in policies.policies.values().filter(|policy| !has_left(policy)) {
        members.entry(inventory.netns_owner(&policy.workload)).or_default().push(policy);
    }
    let guards =
        members.iter().map(|(owner, members)| ((*owner).clone(), Terms::of(members, inventory)));
    let guards = guards.collect();
    let rulesets = members
        .into_iter()
        .filter(|(owner, _)| inventory.get(owner).is_some_and(is_filterable))
        .filter_map(|(owner, mut members)| {
            // The owner first: it is the one whose netns is compiled for.
            members.sort_by_key(|policy| policy.workload != *owner);
            Some((owner.clone(), compile::compile(&members, inventory, &rules.options)?))
        })
        .collect();
    Desired { resolutions, policies, rulesets, guards }
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
