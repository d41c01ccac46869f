//! Owns who is related to whom, and which workload a host name means.
//!
//! Related are workloads of the same project, and workloads without a project that share a user-defined network. Nobody is
//! related through Docker's default bridge, and a project is never related to what is outside it, whatever networks they share.

use std::collections::{BTreeMap, BTreeSet};

use super::party::{Party, PartyId, Roster};
use crate::input::Text;
use crate::metadata::{Attachment, NetworkKey, Project};

/// An index of related parties; those that take no part (host network, no network, unknown and denied) are not in it.
pub(super) struct Relations<'a> {
    projects: BTreeMap<&'a Project, Vec<PartyId>>,
    networks: BTreeMap<&'a NetworkKey, Vec<PartyId>>,
}

/// How a client says that it talks to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wiring {
    /// By a fact: depends_on, a link, an environment variable.
    pub(super) by_fact: bool,
    /// By its label `seawall.uses`, where that adds.
    pub(super) by_label: bool,
    /// Whether its label `seawall.uses`, where that takes away, keeps the server.
    pub(super) is_kept: bool,
    /// The ports written with the server's name.
    pub(super) ports: BTreeSet<u16>,
}

impl<'a> Relations<'a> {
    pub(super) fn new(roster: &Roster<'a>) -> Self {
        let mut relations = Self { projects: BTreeMap::new(), networks: BTreeMap::new() };
        for (id, party) in roster.parties.iter().enumerate().filter(|(_, party)| party.is_full()) {
            match &party.workload.project {
                Some(project) => relations.projects.entry(project).or_default().push(id),
                None => {
                    let relating =
                        party.owner.networks.iter().filter(|(_, network)| relates(network));
                    for (key, _) in relating {
                        relations.networks.entry(key).or_default().push(id);
                    }
                }
            }
        }
        relations
    }

    /// Everyone related to a party, itself included (a service is related to its replicas, also to those still to come).
    pub(super) fn of(&self, party: &Party<'_>) -> BTreeSet<PartyId> {
        match &party.workload.project {
            Some(project) => self.projects.get(project).into_iter().flatten().copied().collect(),
            None => party
                .owner
                .networks
                .keys()
                .filter_map(|key| self.networks.get(key))
                .flatten()
                .copied()
                .collect(),
        }
    }
}

/// Whether sharing this network makes workloads without a project related. Swarm's routing mesh, like the default bridge, is
/// everybody's.
fn relates(network: &Attachment) -> bool {
    let is_mesh = network.name == "ingress"
        && network.driver.as_ref().is_some_and(|driver| driver == "overlay");
    !network.is_default_bridge && !is_mesh
}

/// To which of the related parties a client is wired.
pub(super) fn wiring(
    roster: &Roster<'_>,
    client: PartyId,
    related: &BTreeSet<PartyId>,
) -> BTreeMap<PartyId, Wiring> {
    let party = &roster.parties[client];
    let mut wired: BTreeMap<PartyId, Wiring> = BTreeMap::new();
    for wire in &party.workload.wires {
        for server in named(roster, party, related, wire.host.as_str()) {
            let wiring = wired.entry(server).or_default();
            wiring.by_fact = true;
            wiring.ports.extend(wire.port);
        }
    }
    for peer in party.labels.added_uses().iter().flat_map(|uses| &uses.peers) {
        for server in named(roster, party, related, peer) {
            wired.entry(server).or_default().by_label = true;
        }
    }
    for peer in party.labels.kept_uses().iter().flat_map(|uses| &uses.peers) {
        for server in named(roster, party, related, peer) {
            wired.entry(server).or_default().is_kept = true;
        }
    }
    wired
}

/// The related parties that `host` names. A service name beats a container name, which beats a network alias: whoever
/// merely takes an alias (or a container name) like another's service gets nothing that is meant for that service.
fn named(
    roster: &Roster<'_>,
    client: &Party<'_>,
    related: &BTreeSet<PartyId>,
    host: &str,
) -> Vec<PartyId> {
    let is_host = |name: &Text| name.as_str().eq_ignore_ascii_case(host);
    let is_service = |party: &Party<'_>| {
        party.workload.service.as_ref().is_some_and(is_host)
            || party.owner.service.as_ref().is_some_and(is_host)
                && party.owner.project == party.workload.project
    };
    // Whoever lives in another's netns is reached by that one's name.
    let is_name = |party: &Party<'_>| is_host(&party.workload.name) || is_host(&party.owner.name);
    let is_alias = |party: &Party<'_>| {
        party
            .owner
            .networks
            .iter()
            .filter(|(key, _)| client.owner.networks.contains_key(*key))
            .any(|(_, network)| network.aliases.iter().any(is_host))
    };
    let those = |is_meant: &dyn Fn(&Party<'_>) -> bool| -> Vec<PartyId> {
        related.iter().copied().filter(|id| is_meant(&roster.parties[*id])).collect()
    };
    let mut found = those(&is_service);
    if found.is_empty() {
        found = those(&is_name);
    }
    if found.is_empty() {
        found = those(&is_alias);
    }
    found
}
