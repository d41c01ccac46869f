//! Owns generation: from facts, models, operators' statements and settings to one policy per workload.
//!
//! Pure and deterministic. It names workloads and services, never addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::grant::{Drafts, Grant, GrantId, Grants};
use super::labels::{self, EgressItem, EgressTo};
use super::mode;
use super::operator::OperatorPolicy;
use super::party::{Offer, OfferKind, Party, Roster, Standing, cut};
use super::relate::{Relations, Wiring, wiring};
use super::settings::{LabelTrust, Settings};
use super::stated;
use super::statement::{
    Action, Direction, Peer, Policy, PolicySet, Provenance, Statement, Traffic,
};
use super::traffic::{common, merged, of_ports};
use crate::metadata::{Inventory, L4Proto, PortRange, Ports, Workload, WorkloadId};
use crate::model::catalogue::EgressTarget;
use crate::model::{Audience, Catalogue, Provided, Resolution};

/// The policy of every workload of `inventory`. A workload without a resolution, or of a model the catalogue does not have, is
/// unknown. `operator` must have been parsed with the same catalogue.
pub fn generate(
    inventory: &Inventory,
    resolutions: &BTreeMap<WorkloadId, Resolution>,
    catalogue: &Catalogue,
    operator: &OperatorPolicy,
    settings: &Settings,
) -> PolicySet {
    let mut problems = Vec::new();
    let mut grants = Grants::default();
    let roster =
        Roster::new(inventory, resolutions, catalogue, settings, &mut grants, &mut problems);
    let mut drafts = Drafts::new(roster.parties.len());
    between_related(&roster, &mut grants, &mut drafts);
    for (id, party) in roster.parties.iter().enumerate().filter(|(_, party)| party.is_full()) {
        for statement in with_entities(party, inventory, settings) {
            drafts.entity(id, statement);
        }
    }
    stated::state(&roster, operator, &mut grants, &mut drafts);
    let policies = roster.parties.iter().enumerate().map(|(id, party)| {
        let (mode, mode_from) = mode::decide(party, operator, settings);
        let policy = Policy {
            workload: party.workload.id.clone(),
            label: party.label.clone(),
            mode,
            mode_from,
            statements: drafts.finish(&roster, &grants, id),
            routes: party.standing == Standing::Full
                && party.model.is_some_and(|model| model.routes),
        };
        (policy.workload.clone(), policy)
    });
    PolicySet { policies: policies.collect(), problems }
}

/// The resolvers a workload's DNS queries go to: the settings', else its own, else those of whose netns it lives in.
pub fn resolvers<'a>(
    workload: &'a Workload,
    inventory: &'a Inventory,
    settings: &'a Settings,
) -> &'a BTreeSet<IpAddr> {
    let own = settings.resolvers.as_ref().unwrap_or(&workload.resolvers);
    if settings.resolvers.is_some() || !own.is_empty() {
        return own;
    }
    inventory.get(inventory.netns_owner(&workload.id)).map_or(own, |owner| &owner.resolvers)
}

/// Services and ping between related workloads.
fn between_related(roster: &Roster<'_>, grants: &mut Grants, drafts: &mut Drafts) {
    let relations = Relations::new(roster);
    let ping = grants.id(Grant {
        traffic: [Traffic::Ping].into(),
        provenance: Provenance::Builtin { rule: "ping" },
    });
    let full = roster.parties.iter().enumerate().filter(|(_, party)| party.is_full());
    for (client, party) in full {
        let related = relations.of(party);
        let wired = wiring(roster, client, &related);
        let unwired = Wiring::default();
        for server in related {
            let peer = &roster.parties[server];
            if party.shares_network_with(peer) {
                drafts.connect(roster, Action::Allow, client, server, ping);
            }
            let wiring = wired.get(&server).unwrap_or(&unwired);
            for offer in &peer.offers {
                let use_ = use_of(party, peer, offer, wiring, grants);
                match (use_, offer.kind) {
                    (Some(grant), _) => {
                        drafts.connect(roster, Action::Allow, client, server, grant);
                    }
                    // The baseline opens an unknown server's ports to all related; whether a client may go there is
                    // for the client's own policy to say.
                    (None, OfferKind::Baseline) if !offer.traffic.is_empty() => {
                        let end = (Action::Allow, Direction::Ingress);
                        drafts.state(roster, end, server, client, offer.grant);
                    }
                    (None, _) => {}
                }
            }
        }
    }
}

/// What a client may use of an offer, if anything.
fn use_of(
    client: &Party<'_>,
    server: &Party<'_>,
    offer: &Offer<'_>,
    wiring: &Wiring,
    grants: &mut Grants,
) -> Option<GrantId> {
    let is_listed = |uses: &labels::Uses| uses.services.contains(offer.service);
    let is_kept = client.labels.kept_uses().is_none_or(|uses| wiring.is_kept || is_listed(uses));
    if !is_kept || !admits(offer, client, server) {
        return None;
    }
    let by_model = client.model.is_some_and(|model| model.uses.contains(offer.service));
    let by_label = wiring.by_label || client.labels.added_uses().is_some_and(is_listed);
    if !by_model && !wiring.by_fact && !by_label {
        return None;
    }
    let written = written_ports(server, offer, wiring);
    let traffic = || merged(offer.traffic.iter().chain(&written).copied());
    if offer.traffic.is_empty() && written.is_empty() {
        return None;
    }
    if !by_model && !wiring.by_fact && offer.kind != OfferKind::Label {
        let provenance = Provenance::Label {
            key: labels::USES.into(),
            workload: client.workload.display_name(),
        };
        return Some(grants.id(Grant { traffic: traffic(), provenance }));
    }
    if written.is_empty() {
        return Some(offer.grant);
    }
    let provenance = grants.get(offer.grant).provenance.clone();
    Some(grants.id(Grant { traffic: traffic(), provenance }))
}

/// Whether the offer is made to the client. Replicas of one service are no clients of each other unless the model names
/// itself: a cluster does, a web server does not.
fn admits(offer: &Offer<'_>, client: &Party<'_>, server: &Party<'_>) -> bool {
    let is_replica = client.workload.service.is_some()
        && client.workload.project.is_some()
        && (&client.workload.project, &client.workload.service)
            == (&server.workload.project, &server.workload.service);
    offer.to.map_or(!is_replica, |audiences| {
        audiences.iter().any(|audience| match audience {
            Audience::Any => !is_replica,
            Audience::Category(category) => {
                !is_replica && client.model.is_some_and(|model| model.category == *category)
            }
            Audience::Model(name) => client.model.is_some_and(|model| model.name == *name),
        })
    })
}

/// The ports a client writes with the server's name (`API_URL=http://api:3000`). They are believed of applications, whose images
/// often declare no port; a known server's ports are known.
fn written_ports(server: &Party<'_>, offer: &Offer<'_>, wiring: &Wiring) -> BTreeSet<Traffic> {
    let is_application = server.model.is_some_and(|model| model.category.as_str() == "application");
    if !is_application || offer.service != Provided::EXPOSED || offer.kind != OfferKind::Model {
        return BTreeSet::new();
    }
    let port = |port: &u16| {
        let range = PortRange::single(*port).ok()?;
        Some(Traffic::Ports(Ports { proto: L4Proto::Tcp, range }))
    };
    let ports = wiring.ports.iter().filter_map(port).collect();
    cut(offer.service, ports, server.labels.kept_provides())
}

/// What a workload may do with others than workloads.
fn with_entities(party: &Party<'_>, inventory: &Inventory, settings: &Settings) -> Vec<Statement> {
    let mut statements = published(party);
    if settings.host {
        let provided = party.offers.iter().flat_map(|offer| offer.traffic.iter().copied());
        statements.push(Statement {
            action: Action::Allow,
            direction: Direction::Ingress,
            peer: Peer::Host,
            traffic: merged(provided.chain([Traffic::Ping])),
            provenance: Provenance::Builtin { rule: "host" },
        });
    }
    if !resolvers(party.workload, inventory, settings).is_empty() {
        let port = |proto| PortRange::single(53).ok().map(|range| Ports { proto, range });
        let ports = [L4Proto::Udp, L4Proto::Tcp].into_iter().filter_map(port).collect();
        let provenance = Provenance::Builtin { rule: "dns" };
        statements.push(egress(Peer::Dns, of_ports(&ports), provenance));
    }
    statements.extend(model_egress(party));
    if party.labels.trust == LabelTrust::Trust {
        statements.extend(label_egress(party));
    }
    statements
}

fn egress(peer: Peer, traffic: BTreeSet<Traffic>, provenance: Provenance) -> Statement {
    Statement { action: Action::Allow, direction: Direction::Egress, peer, traffic, provenance }
}

/// A published port is open to whom it is published to. Labels do not change that: publishing is the operator's own word.
fn published(party: &Party<'_>) -> Vec<Statement> {
    let open = |published: &crate::metadata::PublishedPort| {
        let is_local =
            published.host_ip.is_some_and(|address| address.to_canonical().is_loopback());
        Statement {
            action: Action::Allow,
            direction: Direction::Ingress,
            peer: if is_local { Peer::Host } else { Peer::World },
            traffic: [Traffic::Ports(published.container)].into(),
            provenance: Provenance::Published { port: published.container },
        }
    };
    party.workload.published.iter().map(open).collect()
}

fn model_egress(party: &Party<'_>) -> Vec<Statement> {
    let Some(model) = party.model else { return Vec::new() };
    let kept = party.labels.egress.as_ref().filter(|_| party.labels.trust == LabelTrust::Narrow);
    let mut statements = Vec::new();
    for known in &model.egress {
        let provenance = Provenance::Model {
            model: model.name.clone(),
            service: None,
            place: known.place.clone(),
        };
        let traffic = of_ports(&known.ports);
        match kept {
            None => {
                let to = match known.to {
                    EgressTarget::Internet => Peer::Internet,
                    EgressTarget::World => Peer::World,
                };
                statements.push(egress(to, traffic, provenance));
            }
            Some(items) => {
                let narrowed = items.iter().filter_map(|item| {
                    let peer = narrower(known.to, item)?;
                    let traffic = common(&traffic, &[item.traffic].into());
                    Some(egress(peer, traffic, provenance.clone()))
                });
                statements.extend(narrowed);
            }
        }
    }
    statements
}

/// Where both the model and a narrowing label let a workload go.
fn narrower(known: EgressTarget, item: &EgressItem) -> Option<Peer> {
    match (known, item.to) {
        (EgressTarget::World, to) => Some(to.into()),
        (EgressTarget::Internet, EgressTo::Internet | EgressTo::World) => Some(Peer::Internet),
        (EgressTarget::Internet, EgressTo::Cidr(range)) => {
            super::internet::is_internet_range(range).then_some(Peer::Cidr(range))
        }
    }
}

fn label_egress(party: &Party<'_>) -> impl Iterator<Item = Statement> {
    let mut by_target: BTreeMap<Peer, BTreeSet<Traffic>> = BTreeMap::new();
    for item in party.labels.egress.iter().flatten() {
        by_target.entry(item.to.into()).or_default().insert(item.traffic);
    }
    let workload = party.workload.display_name();
    by_target.into_iter().map(move |(peer, traffic)| {
        let provenance =
            Provenance::Label { key: labels::EGRESS.into(), workload: workload.clone() };
        egress(peer, merged(traffic), provenance)
    })
}
