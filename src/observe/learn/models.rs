//! Owns learned models: what an image nobody knows was seen to serve, to use, and to reach on the internet.
//!
//! A model is about an image, so it speaks for every workload of that image. It names clients by their models, never `any`, and
//! gives a port without a name a service of its own, so that nobody who uses another service gets in. What a model cannot
//! say (other projects, addresses, helpers) is left to statements.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::confidence::Confidence;
use super::known::Known;
use super::lane::Lane;
use super::seen::{Evidence, Who};
use crate::metadata::{Ports, Workload};
use crate::model::{Audience, ModelName, Provided};
use crate::policy::Traffic;

/// The category of what is learned.
pub(super) const CATEGORY: &str = "application";
/// The longest name made of an image's, so that there is room for a number.
const NAME_LENGTH: usize = 48;

/// A model for an image that no model fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LearnedModel {
    /// Its name, free in the catalogue.
    pub name: String,
    /// Repositories it is shipped as.
    pub images: BTreeSet<String>,
    /// The workloads it was learned from, as people call them.
    pub workloads: BTreeSet<String>,
    /// Ports it serves that no service of the catalogue has: they become a service called like the model.
    pub own_ports: BTreeSet<Ports>,
    /// What the service of these ports is called.
    pub own_service: String,
    /// What it serves, by service and ports.
    pub provides: Vec<LearnedService>,
    /// What it uses, by service.
    pub uses: BTreeMap<String, Evidence>,
    /// Where it goes on the internet, by ports.
    pub egress: BTreeMap<Ports, Evidence>,
    /// How sure the least sure part of it is.
    pub confidence: Confidence,
    /// All evidence together.
    pub evidence: Evidence,
}

/// A service that was seen to be served: ports that the same clients use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LearnedService {
    /// Which.
    pub service: String,
    /// On these ports.
    pub ports: BTreeSet<Ports>,
    /// To workloads of these models.
    pub to: BTreeSet<String>,
    /// How that was seen.
    pub evidence: Evidence,
}

/// By service and port: the models of its clients, and what was seen of them.
type Served = BTreeMap<(String, Ports), (BTreeSet<String>, Evidence)>;

/// What is learned of one repository.
struct Draft {
    name: String,
    own_service: String,
    images: BTreeSet<String>,
    parties: BTreeSet<Who>,
}

/// The models of these parties' images, by repository; `refused` repositories get none. `lanes` is everything that shall work.
pub(super) fn models(
    lanes: &[Lane],
    known: &Known<'_>,
    parties: &BTreeSet<Who>,
    refused: &BTreeSet<String>,
) -> BTreeMap<String, LearnedModel> {
    let mut drafts = drafts(known, parties, refused);
    // Where nothing is missing that a model could say, everything stays as it is.
    let missing: Vec<&Lane> =
        lanes.iter().filter(|lane| !lane.is_in_force() && is_of_models(known, lane)).collect();
    drafts.retain(|_, draft| {
        let touches =
            |lane: &&Lane| draft.parties.contains(&lane.from) || draft.parties.contains(&lane.to);
        missing.iter().any(touches)
    });
    name_all(known, &mut drafts);
    let mut learned: BTreeMap<String, LearnedModel> =
        drafts.iter().map(|(repository, draft)| (repository.clone(), draft.begin(known))).collect();
    let of = |who: &Who| {
        drafts.iter().find(|(_, draft)| draft.parties.contains(who)).map(|(name, _)| name.clone())
    };
    let mut served: BTreeMap<String, Served> = BTreeMap::new();
    for lane in lanes {
        let (client, server) = (of(&lane.from), of(&lane.to));
        let Some(ports) = plain(lane) else { continue };
        if lane.to == Who::Internet
            && let Some(model) = client.as_ref().and_then(|name| learned.get_mut(name))
        {
            model.egress.entry(ports).or_default().add(&lane.evidence);
            continue;
        }
        if !is_of_models(known, lane) {
            continue;
        }
        let client_model = match &client {
            Some(repository) => drafts.get(repository).map(|draft| draft.name.clone()),
            None => only_model(known, &lane.from).map(|name| name.to_string()),
        };
        let service = match &server {
            Some(repository) => {
                let Some(client_model) = client_model else { continue };
                let Some(model) = learned.get_mut(repository) else { continue };
                let named = client.is_none().then(|| service_of(known, lane, ports)).flatten();
                let service = named.unwrap_or_else(|| model.own_service.clone());
                if service == model.own_service {
                    model.own_ports.insert(ports);
                }
                let of_model = served.entry(repository.clone()).or_default();
                let (to, evidence) = of_model.entry((service.clone(), ports)).or_default();
                to.insert(client_model);
                evidence.add(&lane.evidence);
                Some(service)
            }
            None => provided_by(known, &lane.to, ports),
        };
        if let Some(model) = client.as_ref().and_then(|name| learned.get_mut(name))
            && let Some(service) = service
        {
            model.uses.entry(service).or_default().add(&lane.evidence);
        }
    }
    for (repository, served) in served {
        if let Some(model) = learned.get_mut(&repository) {
            model.provides = provided(served);
        }
    }
    learned.retain(|_, model| {
        !model.provides.is_empty() || !model.uses.is_empty() || !model.egress.is_empty()
    });
    learned.values_mut().for_each(LearnedModel::sum_up);
    learned
}

/// Ports of a service that serve the same clients, together. Who was seen on one port only is served on that one.
fn provided(served: Served) -> Vec<LearnedService> {
    let mut found: BTreeMap<(String, BTreeSet<String>), (BTreeSet<Ports>, Evidence)> =
        BTreeMap::new();
    for ((service, port), (to, seen)) in served {
        let (ports, evidence) = found.entry((service, to)).or_default();
        ports.insert(port);
        evidence.add(&seen);
    }
    let service =
        |((service, to), (ports, evidence))| LearnedService { service, ports, to, evidence };
    found.into_iter().map(service).collect()
}

/// The repositories of parties no model fits.
fn drafts(
    known: &Known<'_>,
    parties: &BTreeSet<Who>,
    refused: &BTreeSet<String>,
) -> BTreeMap<String, Draft> {
    let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
    for who in parties {
        let workloads: Vec<&Workload> = known.workloads(who).collect();
        let is_unknown = workloads.iter().all(|one| known.model(&one.id).is_none());
        let references: Option<Vec<_>> =
            workloads.iter().map(|one| one.image.reference.as_ref()).collect();
        let Some(references) = references.filter(|_| is_unknown) else { continue };
        let Some(first) = references.first() else { continue };
        let repository = &first.repository;
        let is_one = references.iter().all(|image| image.repository == *repository);
        if !is_one || refused.contains(repository) || is_claimed(known, repository) {
            continue;
        }
        let draft = drafts.entry(repository.clone()).or_insert_with(|| Draft {
            name: first.last_element().to_owned(),
            own_service: String::new(),
            images: BTreeSet::new(),
            parties: BTreeSet::new(),
        });
        draft.parties.insert(who.clone());
        draft.images.extend(references.iter().map(|image| match &image.registry {
            Some(registry) => format!("{registry}/{repository}"),
            None => repository.clone(),
        }));
    }
    drafts
}

/// Gives every draft a name that nothing in the catalogue has.
fn name_all(known: &Known<'_>, drafts: &mut BTreeMap<String, Draft>) {
    let catalogue = &known.rules.catalogue;
    let mut models: BTreeSet<String> = catalogue.models.keys().map(ToString::to_string).collect();
    let mut services: BTreeSet<String> =
        catalogue.services.keys().map(ToString::to_string).collect();
    services.insert(Provided::EXPOSED.to_owned());
    for draft in drafts.values_mut() {
        draft.name = free_name(&draft.name, &mut models);
        draft.own_service = free_name(&draft.name, &mut services);
    }
}

/// Whether the catalogue says what this repository is. A learned model would take it away from that.
fn is_claimed(known: &Known<'_>, repository: &str) -> bool {
    let mut models = known.rules.catalogue.models.values();
    models.any(|model| model.images.iter().any(|image| image.repository == repository))
}

/// A name like `wanted` that nothing has yet.
fn free_name(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let start = wanted.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let short: String = start.chars().take(NAME_LENGTH).collect();
    let base = if ModelName::new(&short).is_some() { short } else { CATEGORY.to_owned() };
    let numbered = (2..).map(|number| format!("learned-{base}-{number}"));
    let candidates = [base.clone(), format!("learned-{base}")].into_iter().chain(numbered);
    let free = candidates.into_iter().find(|name| !taken.contains(name)).unwrap_or(base);
    taken.insert(free.clone());
    free
}

/// Whether a model can speak of a lane: of single ports between related workloads, and of the internet.
fn is_of_models(known: &Known<'_>, lane: &Lane) -> bool {
    let is_related = lane.from != lane.to && lane.ports_seen == 1 && are_related(known, lane);
    plain(lane).is_some() && (lane.to == Who::Internet || is_related)
}

/// The port or ports of a lane that a model can speak of.
fn plain(lane: &Lane) -> Option<Ports> {
    match lane.traffic {
        Traffic::Ports(ports) if lane.helper.is_none() => Some(ports),
        _ => None,
    }
}

/// Models speak of related workloads only: those of one project, or of none and a common network.
fn are_related(known: &Known<'_>, lane: &Lane) -> bool {
    let project = |who: &Who| known.workloads(who).next().map(|one| one.project.clone());
    match (project(&lane.from), project(&lane.to)) {
        (Some(client), Some(server)) => client == server,
        _ => false,
    }
}

/// The model of a party, where all of it have the same.
fn only_model<'k>(known: &'k Known<'_>, who: &Who) -> Option<&'k ModelName> {
    let mut models = known.members(who).iter().map(|id| known.model(id));
    let first = models.next()??;
    models.all(|other| other == Some(first)).then_some(first)
}

/// What the catalogue calls a port that a learned model serves to a client of the catalogue, where that client's model uses it.
/// None: it gets a service of its own. A client that is learned as well always asks for that: by the catalogue's name for the
/// port it would get in wherever that service is, and nobody saw it there.
fn service_of(known: &Known<'_>, lane: &Lane, ports: Ports) -> Option<String> {
    let catalogue = &known.rules.catalogue;
    let named = catalogue.service_named_for_port(ports)?;
    let model = catalogue.models.get(only_model(known, &lane.from)?)?;
    model.uses.contains(named).then(|| named.to_string())
}

/// Whether applications of several kinds provide a service (`http`, `metrics`): who uses that would reach them all.
fn is_general(known: &Known<'_>, service: &str) -> bool {
    let models = known.rules.catalogue.models.values();
    let provides = |model: &&crate::model::Model| {
        model.provides.iter().any(|provided| provided.service.as_str() == service)
    };
    let categories: BTreeSet<_> = models.filter(provides).map(|model| &model.category).collect();
    categories.len() > 1 || service == Provided::EXPOSED
}

/// The service by which a workload of the catalogue serves applications on a port, where that tells who is meant.
fn provided_by(known: &Known<'_>, server: &Who, ports: Ports) -> Option<String> {
    let catalogue = &known.rules.catalogue;
    let model = catalogue.models.get(only_model(known, server)?)?;
    let exposed = &known.workloads(server).next()?.image.exposed;
    let admits = |provided: &&Provided| {
        provided.to.iter().any(|to| match to {
            Audience::Any => true,
            Audience::Category(category) => category.as_str() == CATEGORY,
            Audience::Model(_) => false,
        })
    };
    let serves = |provided: &&Provided| {
        !is_general(known, provided.service.as_str())
            && catalogue
                .ports_of(provided, exposed)
                .iter()
                .any(|known| known.contains(ports.proto, ports.range.first()))
    };
    let found = model.provides.iter().filter(admits).find(serves)?;
    Some(found.service.to_string())
}

impl Draft {
    fn begin(&self, known: &Known<'_>) -> LearnedModel {
        LearnedModel {
            name: self.name.clone(),
            images: self.images.clone(),
            workloads: self.parties.iter().map(|who| known.name(who)).collect(),
            own_ports: BTreeSet::new(),
            own_service: self.own_service.clone(),
            provides: Vec::new(),
            uses: BTreeMap::new(),
            egress: BTreeMap::new(),
            confidence: Confidence::of(&Evidence::default(), false),
            evidence: Evidence::default(),
        }
    }
}

impl LearnedModel {
    fn sum_up(&mut self) {
        let served = self.provides.iter().map(|service| (&service.evidence, false));
        let used = self.uses.values().map(|evidence| (evidence, false));
        let gone = self.egress.values().map(|evidence| (evidence, true));
        let parts: Vec<_> = served.chain(used).chain(gone).collect();
        let mut evidence = Evidence::default();
        parts.iter().for_each(|(part, _)| evidence.add(part));
        let least = parts.iter().map(|(part, is_general)| Confidence::of(part, *is_general)).min();
        self.confidence = least.unwrap_or(self.confidence);
        self.evidence = evidence;
    }
}
