//! Owns [`Known`]: the workloads, what each is and may do, and what that says of a conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::seen::{Conversation, Who};
use crate::config::{Files, Source};
use crate::input::{Diagnostics, Text};
use crate::metadata::{Inventory, NetworkMode, Workload, WorkloadId};
use crate::model::{Catalogue, ModelName, Resolution};
use crate::policy::selector::selector_for;
use crate::policy::{
    Action, Endpoint, Note, Packet, PolicySet, Selector, choose, generate, test_connection,
};
use crate::reconcile::Rules;
use crate::reconcile::desired::resolve_one;

/// How many replicas are asked about: they have one policy.
const REPLICAS: usize = 4;

/// The workloads of a host, and what configuration files say of them.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Every workload.
    pub inventory: &'a Inventory,
    /// What operators and the catalogue say.
    pub rules: Rules,
    /// What each workload is.
    pub resolutions: BTreeMap<WorkloadId, Resolution>,
    /// What each may do.
    pub policies: PolicySet,
    pub(super) parties: BTreeMap<Text, Vec<WorkloadId>>,
}

/// What policies say of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Both ends allow it.
    Allowed,
    /// A statement is missing.
    Missing,
    /// A deny decides, and no allow helps against it: where it comes from.
    Denied(String),
    /// Why nothing can be said.
    Open(String),
}

impl<'a> Known<'a> {
    /// What these files say of these workloads. Errors: every problem of every file.
    pub fn new(inventory: &'a Inventory, files: &Files) -> Result<Self, Diagnostics> {
        let loaded = files.load(Catalogue::with_files)?;
        let rules = Rules::from(&loaded);
        let resolve = |workload: &Workload| (workload.id.clone(), resolve_one(workload, &rules));
        let resolutions: BTreeMap<_, _> = inventory.iter().map(resolve).collect();
        let settings = &rules.options.settings;
        let policies =
            generate(inventory, &resolutions, &rules.catalogue, &rules.operator, settings);
        let mut parties: BTreeMap<Text, Vec<WorkloadId>> = BTreeMap::new();
        for workload in inventory.iter() {
            let selector = Text::new(&selector_for(workload));
            parties.entry(selector).or_default().push(workload.id.clone());
        }
        Ok(Self { inventory, rules, resolutions, policies, parties })
    }

    /// The workloads a selector names.
    pub fn choose(&self, selector: &Selector) -> BTreeSet<WorkloadId> {
        let settings = &self.rules.options.settings;
        choose(selector, self.inventory, &self.resolutions, &self.rules.catalogue, settings)
    }

    /// The workloads of a party; none when it is not known any more.
    pub(super) fn members(&self, who: &Who) -> &[WorkloadId] {
        match who {
            Who::Workloads(selector) => self.parties.get(selector).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The workloads of a party, as facts.
    pub(super) fn workloads(&self, who: &Who) -> impl Iterator<Item = &'a Workload> + use<'a> {
        let inventory = self.inventory;
        self.members(who).to_vec().into_iter().filter_map(move |id| inventory.get(&id))
    }

    /// The party that a workload belongs to.
    pub(super) fn party(&self, workload: &Workload) -> Who {
        Who::Workloads(Text::new(&selector_for(workload)))
    }

    /// What a workload is; none is unknown.
    pub(super) fn model(&self, workload: &WorkloadId) -> Option<&ModelName> {
        self.resolutions.get(workload)?.model.as_ref()
    }

    /// What people call a party.
    pub(super) fn name(&self, who: &Who) -> String {
        match who {
            Who::Workloads(selector) => self
                .workloads(who)
                .next()
                .map_or_else(|| selector.to_string(), |one| one.display_name().to_string()),
            Who::Host => "host".to_owned(),
            Who::Internet => "internet".to_owned(),
            Who::Address(address) => address.to_string(),
        }
    }

    /// The selector that means a party and nobody else; none when there is no such selector.
    pub(super) fn selector(&self, who: &Who) -> Option<String> {
        match who {
            Who::Workloads(text) => {
                let members = self.members(who);
                let shares_host = |id: &WorkloadId| {
                    let owner = self.inventory.get(self.inventory.netns_owner(id));
                    owner.is_some_and(|owner| owner.network_mode == NetworkMode::Host)
                };
                if members.iter().any(shares_host) {
                    return Some("host".to_owned());
                }
                let selector: Selector = text.as_str().parse().ok()?;
                let chosen = self.choose(&selector);
                let is_exact = !members.is_empty() && chosen == members.iter().cloned().collect();
                is_exact.then(|| text.to_string())
            }
            Who::Host => Some("host".to_owned()),
            Who::Internet => Some("internet".to_owned()),
            Who::Address(address) => Some(format!("cidr:{address}")),
        }
    }

    /// What the policies say of a conversation, whatever the modes are.
    pub(super) fn judge(&self, conversation: &Conversation) -> Judgement {
        let Some(packet) = conversation.carried.packet() else {
            return Judgement::Open("no statement can speak of it".to_owned());
        };
        self.judge_packet(&conversation.client, &conversation.server, packet)
    }

    /// The same of one packet.
    pub(super) fn judge_packet(&self, client: &Who, server: &Who, packet: Packet) -> Judgement {
        for who in [client, server] {
            if let Some(reason) = self.is_out_of_date(who) {
                return Judgement::Open(reason);
            }
        }
        let (mut is_judged, mut is_missing) = (false, false);
        for from in self.endpoints(client) {
            for to in self.endpoints(server).into_iter().filter(|to| *to != from) {
                let settings = &self.rules.options.settings;
                let verdict =
                    test_connection(self.inventory, &self.policies, settings, &from, &to, packet);
                if matches!(verdict.note, Some(Note::NoSharedNetwork | Note::UnknownWorkload(_))) {
                    continue;
                }
                is_judged = true;
                for end in
                    verdict.egress.iter().chain(&verdict.ingress).filter(|end| end.would_deny)
                {
                    match &end.statement {
                        Some(deny) if deny.action == Action::Deny => {
                            return Judgement::Denied(deny.provenance.to_string());
                        }
                        _ => is_missing = true,
                    }
                }
            }
        }
        match (is_judged, is_missing) {
            (true, true) => Judgement::Missing,
            (true, false) => Judgement::Allowed,
            (false, _) if client == server => {
                Judgement::Open("only one of the replicas that talked is known now".to_owned())
            }
            (false, _) => Judgement::Open("they share no network now".to_owned()),
        }
    }

    /// Whether any statement speaks of a conversation, for or against it, at either end.
    pub(super) fn is_spoken_of(&self, conversation: &Conversation) -> bool {
        let Some(packet) = conversation.carried.packet() else { return false };
        let settings = &self.rules.options.settings;
        let servers = self.endpoints(&conversation.server);
        self.endpoints(&conversation.client).iter().any(|from| {
            servers.iter().any(|to| {
                let (inventory, policies) = (self.inventory, &self.policies);
                let verdict = test_connection(inventory, policies, settings, from, to, packet);
                verdict.egress.iter().chain(&verdict.ingress).any(|end| end.statement.is_some())
            })
        })
    }

    fn endpoints(&self, who: &Who) -> Vec<Endpoint> {
        match who {
            Who::Workloads(_) => {
                self.members(who).iter().take(REPLICAS).cloned().map(Endpoint::Workload).collect()
            }
            Who::Host => vec![Endpoint::Host],
            Who::Address(address) => vec![Endpoint::Address(*address)],
            Who::Internet => Vec::new(),
        }
    }

    /// Why a record of this party says nothing of now.
    fn is_out_of_date(&self, who: &Who) -> Option<String> {
        match who {
            Who::Workloads(_) if self.members(who).is_empty() => {
                Some(format!("{} is not known any more", self.name(who)))
            }
            Who::Address(address) => {
                let has = |one: &&Workload| one.addresses().any(|own| own == *address);
                let owner = self.inventory.iter().find(has)?;
                Some(format!("{address} belongs to {} now", owner.display_name()))
            }
            _ => None,
        }
    }
}

/// The files with further ones over them; one of the same name takes the other's place.
pub fn with_files(files: &Files, models: &[Source], policies: &[Source]) -> Files {
    let mut all = files.clone();
    for (known, more) in [(&mut all.models, models), (&mut all.policies, policies)] {
        for source in more {
            known.retain(|other| other.path.file_name() != source.path.file_name());
            known.push(source.clone());
        }
        known.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
    }
    all
}

/// A file that is not written yet.
pub(super) fn source(name: &str, text: &str) -> Source {
    Source { path: Path::new(name).to_path_buf(), text: text.to_owned() }
}
