//! Owns choosing workloads by a selector, the way statements choose them.

use std::collections::{BTreeMap, BTreeSet};

use super::grant::Grants;
use super::party::Roster;
use super::selector::Selector;
use super::settings::Settings;
use crate::metadata::{Inventory, WorkloadId};
use crate::model::{Catalogue, Resolution};

/// The workloads that a selector of an `[[allow]]` names; none for an entity and for `self`.
pub fn choose(
    selector: &Selector,
    inventory: &Inventory,
    resolutions: &BTreeMap<WorkloadId, Resolution>,
    catalogue: &Catalogue,
    settings: &Settings,
) -> BTreeSet<WorkloadId> {
    let (mut grants, mut problems) = (Grants::default(), Vec::new());
    let roster =
        Roster::new(inventory, resolutions, catalogue, settings, &mut grants, &mut problems);
    let chosen = roster.parties.iter().filter(|party| selector.matches(&party.subject()));
    chosen.map(|party| party.workload.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixture::{catalogue, compose, enforce, make, resolutions};

    #[test]
    fn a_selector_chooses_workloads_and_an_entity_none() {
        let makes = [
            compose("shop/api", "node", 3).label("seawall.tag", "edge"),
            compose("blog/api", "node", 4),
            make("lone", "redis").on("net", 5),
        ];
        let resolutions = resolutions(&makes);
        let inventory: Inventory = makes.iter().map(|make| make.clone().build()).collect();
        let chosen = |text: &str| -> Vec<String> {
            let selector = text.parse().unwrap();
            let found = choose(&selector, &inventory, &resolutions, &catalogue(), &enforce());
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(chosen("service:api"), ["blog-api-1", "shop-api-1"]);
        assert_eq!(chosen("project:shop service:api"), ["shop-api-1"]);
        assert_eq!(chosen("tag:edge"), ["shop-api-1"]);
        assert_eq!(chosen("category:cache"), ["lone"]);
        assert_eq!(chosen("any").len(), 3);
        for entity in ["host", "internet", "cidr:10.0.0.0/8"] {
            assert!(chosen(entity).is_empty(), "{entity}");
        }
    }
}
