//! Owns what operators' `[[allow]]` and `[[deny]]` become: statements at both ends, for workloads related or not.

use std::collections::BTreeSet;

use super::grant::{Drafts, Grant, Grants};
use super::operator::{OperatorPolicy, OperatorStatement};
use super::party::{PartyId, Roster, Standing};
use super::selector::Selector;
use super::statement::{Action, Direction, Peer, Provenance, Statement};

pub(super) fn state(
    roster: &Roster<'_>,
    operator: &OperatorPolicy,
    grants: &mut Grants,
    drafts: &mut Drafts,
) {
    for stated in &operator.statements {
        let grant = Grant {
            traffic: stated.traffic.clone(),
            provenance: Provenance::Operator { place: stated.place.clone() },
        };
        between_workloads(roster, stated, grants.id(grant.clone()), drafts);
        with_entities(roster, stated, &grant, drafts);
    }
}

fn between_workloads(
    roster: &Roster<'_>,
    stated: &OperatorStatement,
    grant: usize,
    drafts: &mut Drafts,
) {
    let (clients, servers) =
        (chosen(roster, stated.action, &stated.from), chosen(roster, stated.action, &stated.to));
    let mut connect = |client, server| drafts.connect(roster, stated.action, client, server, grant);
    for client in &clients {
        servers.iter().for_each(|server| connect(*client, *server));
    }
    let means_replicas = |list: &[Selector]| list.contains(&Selector::Replicas);
    if means_replicas(&stated.to) {
        for client in &clients {
            filtered(roster, roster.replicas(*client)).for_each(|server| connect(*client, server));
        }
    }
    if means_replicas(&stated.from) {
        for server in &servers {
            filtered(roster, roster.replicas(*server)).for_each(|client| connect(client, *server));
        }
    }
}

/// Entities are stated at the workload's end only: nobody filters the host or the world.
fn with_entities(
    roster: &Roster<'_>,
    stated: &OperatorStatement,
    grant: &Grant,
    drafts: &mut Drafts,
) {
    let ends = [
        (Direction::Egress, &stated.from, &stated.to),
        (Direction::Ingress, &stated.to, &stated.from),
    ];
    for (direction, own, others) in ends {
        let peers: Vec<Peer> = others.iter().filter_map(entity).collect();
        if peers.is_empty() {
            continue;
        }
        for id in chosen(roster, stated.action, own) {
            for peer in &peers {
                let statement = Statement {
                    action: stated.action,
                    direction,
                    peer: peer.clone(),
                    traffic: grant.traffic.clone(),
                    provenance: grant.provenance.clone(),
                };
                drafts.entity(id, statement);
            }
        }
    }
}

fn entity(selector: &Selector) -> Option<Peer> {
    match selector {
        Selector::Host => Some(Peer::Host),
        Selector::World => Some(Peer::World),
        Selector::Internet => Some(Peer::Internet),
        Selector::Dns => Some(Peer::Dns),
        Selector::Cidr(range) => Some(Peer::Cidr(*range)),
        Selector::Workloads(_) | Selector::Replicas => None,
    }
}

fn chosen(roster: &Roster<'_>, action: Action, selectors: &[Selector]) -> BTreeSet<PartyId> {
    let is_chosen = |id: &PartyId| {
        let subject = roster.parties[*id].subject();
        selectors.iter().any(|selector| match action {
            Action::Allow => selector.matches(&subject),
            Action::Deny => selector.may_match(&subject),
        })
    };
    filtered(roster, 0..roster.parties.len()).filter(is_chosen).collect()
}

/// Those that have a netns of their own to filter in.
fn filtered(
    roster: &Roster<'_>,
    ids: impl Iterator<Item = PartyId>,
) -> impl Iterator<Item = PartyId> {
    ids.filter(|id| roster.parties[*id].standing != Standing::HostNetwork)
}
