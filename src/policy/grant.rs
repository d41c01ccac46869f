//! Owns the gathering of statements while a policy set is generated: peers are indices until the end, so that
//! large projects cost integers, not strings.

use std::collections::{BTreeMap, BTreeSet};

use super::party::{GroupId, PartyId, Roster};
use super::statement::{Action, Direction, Peer, Provenance, Statement, Traffic};

/// Some traffic, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) traffic: BTreeSet<Traffic>,
    pub(super) provenance: Provenance,
}

/// A grant's index.
pub(super) type GrantId = usize;

/// Every grant once.
#[derive(Default)]
pub(super) struct Grants {
    list: Vec<Grant>,
    ids: BTreeMap<Grant, GrantId>,
}

impl Grants {
    pub(super) fn id(&mut self, grant: Grant) -> GrantId {
        *self.ids.entry(grant).or_insert_with_key(|grant| {
            self.list.push(grant.clone());
            self.list.len() - 1
        })
    }

    pub(super) fn get(&self, id: GrantId) -> &Grant {
        &self.list[id]
    }
}

/// One statement about a group of workloads, members apart.
type Key = (Action, Direction, GroupId, GrantId);

/// The statements of every party so far.
pub(super) struct Drafts {
    groups: Vec<BTreeMap<Key, Vec<PartyId>>>,
    others: Vec<BTreeSet<Statement>>,
}

impl Drafts {
    pub(super) fn new(parties: usize) -> Self {
        Self { groups: vec![BTreeMap::new(); parties], others: vec![BTreeSet::new(); parties] }
    }

    /// States at both ends that `client` connects to `server`.
    pub(super) fn connect(
        &mut self,
        roster: &Roster<'_>,
        action: Action,
        client: PartyId,
        server: PartyId,
        grant: GrantId,
    ) {
        self.state(roster, (action, Direction::Egress), client, server, grant);
        self.state(roster, (action, Direction::Ingress), server, client, grant);
    }

    /// States at `of`'s end only. A service and itself is a statement without members, waiting for replicas.
    pub(super) fn state(
        &mut self,
        roster: &Roster<'_>,
        (action, direction): (Action, Direction),
        of: PartyId,
        peer: PartyId,
        grant: GrantId,
    ) {
        let (own, other) = (&roster.parties[of], &roster.parties[peer]);
        let is_self = of == peer;
        if is_self && !own.is_replicable || !is_self && own.is_mate_of(other) {
            return;
        }
        let members = self.groups[of].entry((action, direction, other.group, grant)).or_default();
        if !is_self {
            members.push(peer);
        }
    }

    /// States something of a party that is no workload.
    pub(super) fn entity(&mut self, of: PartyId, statement: Statement) {
        if !statement.traffic.is_empty() {
            self.others[of].insert(statement);
        }
    }

    /// One party's statements, sorted, each once.
    pub(super) fn finish(
        &mut self,
        roster: &Roster<'_>,
        grants: &Grants,
        of: PartyId,
    ) -> Vec<Statement> {
        let mut statements = std::mem::take(&mut self.others[of]);
        for ((action, direction, group, grant), members) in std::mem::take(&mut self.groups[of]) {
            let Grant { traffic, provenance } = grants.get(grant);
            let members =
                members.into_iter().map(|id| roster.parties[id].workload.id.clone()).collect();
            statements.insert(Statement {
                action,
                direction,
                peer: Peer::Workloads { label: roster.groups[group].clone(), members },
                traffic: traffic.clone(),
                provenance: provenance.clone(),
            });
        }
        statements.into_iter().collect()
    }
}
