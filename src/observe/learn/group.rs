//! Owns finding what the workloads of a group have in common and nobody else has, in words a selector can say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::known::Known;
use crate::input::Text;
use crate::metadata::{Workload, WorkloadId};
use crate::policy::Selector;

/// Labels that tools write for themselves: they tell containers apart, not groups.
const TOOLS: [&str; 6] = [
    "com.docker.",
    "desktop.docker.",
    "org.opencontainers.",
    "io.kubernetes.",
    "io.podman.",
    "seawall.",
];
/// How many selectors are offered.
const OFFERED: usize = 10;

/// What a group has in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The members, as people call them.
    pub members: Vec<Text>,
    /// Everything all members have, best first; others may have it too. What no selector can ask for is in words.
    pub shared: Vec<String>,
    /// Selectors that mean the members and nobody else, best first.
    pub selectors: Vec<String>,
    /// Without such a selector: one for each member, for a list.
    pub one_by_one: Vec<String>,
}

/// What the `members` have in common and no other workload has. One attribute where one is enough, else two.
///
/// Best is what stays true for longest: what a workload is, then where it belongs, then what somebody wrote on it.
pub fn suggest_group(members: &BTreeSet<WorkloadId>, known: &Known<'_>) -> Group {
    let workloads: Vec<&Workload> =
        members.iter().filter_map(|id| known.inventory.get(id)).collect();
    let members: BTreeSet<&WorkloadId> = workloads.iter().map(|one| &one.id).collect();
    let mut common: Option<BTreeSet<Attribute>> = None;
    for workload in &workloads {
        let own = attributes(workload, known);
        common = Some(match common {
            None => own,
            Some(common) => common.intersection(&own).cloned().collect(),
        });
    }
    let common = common.unwrap_or_default();
    let mut chosen: BTreeMap<&Attribute, BTreeSet<WorkloadId>> = BTreeMap::new();
    for attribute in &common {
        let Some(selector) = attribute.selector() else { continue };
        let found = known.choose(&selector);
        // A value that a selector cannot hold may mean somebody else.
        if members.iter().all(|id| found.contains(*id)) {
            chosen.insert(attribute, found);
        }
    }
    let is_exact = |found: &BTreeSet<WorkloadId>| found.len() == members.len();
    let single = |(attribute, found): (&&Attribute, &BTreeSet<WorkloadId>)| {
        is_exact(found).then(|| attribute.text.clone())
    };
    let mut selectors: Vec<String> = chosen.iter().filter_map(single).collect();
    if selectors.is_empty() {
        let all: Vec<_> = chosen.iter().collect();
        for (index, (first, left)) in all.iter().enumerate() {
            for (second, right) in &all[index + 1..] {
                let both = left.intersection(right).count();
                if both == members.len() {
                    selectors.push(format!("{} {}", first.text, second.text));
                }
            }
        }
    }
    selectors.truncate(OFFERED);
    let names: BTreeSet<Text> = workloads.iter().map(|one| one.display_name()).collect();
    let singly = workloads.iter().filter(|_| selectors.is_empty());
    let one_by_one: BTreeSet<String> = singly
        .map(|one| {
            let who = known.party(one);
            known.selector(&who).unwrap_or_else(|| format!("name:{}", one.name))
        })
        .collect();
    Group {
        members: names.into_iter().collect(),
        shared: common.into_iter().map(|attribute| attribute.text).collect(),
        selectors,
        one_by_one: one_by_one.into_iter().collect(),
    }
}

/// Something a workload has, ordered by how well it tells a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    rank: u8,
    text: String,
    is_term: bool,
}

impl Attribute {
    fn selector(&self) -> Option<Selector> {
        // Blanks would make two terms of it, and a star means anything.
        let is_plain = self.is_term && !self.text.contains(|c: char| c.is_whitespace() || c == '*');
        self.text.parse().ok().filter(|_| is_plain)
    }
}

fn attributes(workload: &Workload, known: &Known<'_>) -> BTreeSet<Attribute> {
    let mut found = BTreeSet::new();
    let mut note = |rank, text: String| {
        found.insert(Attribute { rank, text, is_term: true });
    };
    if let Some(model) = known.model(&workload.id) {
        note(0, format!("model:{model}"));
        if let Some(model) = known.rules.catalogue.models.get(model) {
            note(4, format!("category:{}", model.category));
        }
    }
    if let Some(image) = &workload.image.reference {
        let repository = &image.repository;
        note(
            1,
            match &image.registry {
                Some(registry) => format!("image:{registry}/{repository}"),
                None => format!("image:{repository}"),
            },
        );
    }
    if let Some(project) = &workload.project {
        note(2, format!("project:{}", project.name));
    }
    if let Some(service) = &workload.service {
        note(3, format!("service:{service}"));
    }
    for (key, value) in &workload.labels {
        let is_tools = TOOLS.iter().any(|tool| key.as_str().starts_with(tool));
        if !is_tools && workload.operator_label(key.as_str()).is_some() {
            note(5, format!("label:{key}={value}"));
        }
    }
    let owner = known.inventory.get(known.inventory.netns_owner(&workload.id));
    for network in owner.unwrap_or(workload).networks.values() {
        note(6, format!("network:{}", network.name));
    }
    for ports in &workload.image.exposed {
        let text = format!("declares {ports}");
        found.insert(Attribute { rank: 7, text, is_term: false });
    }
    found
}
