//! Owns the parties of generation: each workload with its model, its labels, its group, and what it offers.

use std::collections::{BTreeMap, BTreeSet};

use super::grant::{Grant, GrantId, Grants};
use super::labels::{self, Labels, Provides};
use super::selector::Subject;
use super::settings::{Settings, UnknownTreatment};
use super::statement::{LabelProblem, Provenance, Traffic};
use super::traffic::{common, of_ports, of_service};
use crate::input::Text;
use crate::metadata::{Inventory, NetworkMode, Ports, Project, ProjectKind, Workload, WorkloadId};
use crate::model::{Audience, Catalogue, Model, ModelName, Provided, Resolution};

/// A workload's index among the parties, in the order of workload ids.
pub(super) type PartyId = usize;
/// A group's index.
pub(super) type GroupId = usize;

/// One workload, with all that generation asks of it.
pub(super) struct Party<'a> {
    pub(super) workload: &'a Workload,
    /// Whose netns it lives in: mostly itself.
    pub(super) owner: &'a Workload,
    pub(super) model: Option<&'a Model>,
    pub(super) labels: Labels,
    /// What it and its replicas are called.
    pub(super) label: Text,
    pub(super) group: GroupId,
    /// Whether it can have replicas (which scaling may add at any time).
    pub(super) is_replicable: bool,
    pub(super) standing: Standing,
    pub(super) offers: Vec<Offer<'a>>,
}

/// What generation does with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It shares the host's netns: nothing is stated, nothing filtered.
    HostNetwork,
    /// It has no network, or no model and the setting `unknown = "deny"`: only operators' statements.
    OperatorsOnly,
    /// Everything.
    Full,
}

/// A service offered to related workloads.
pub(super) struct Offer<'a> {
    /// The service's name.
    pub(super) service: &'a str,
    /// Who is served; `None` is everybody related.
    pub(super) to: Option<&'a BTreeSet<Audience>>,
    pub(super) traffic: BTreeSet<Traffic>,
    pub(super) grant: GrantId,
    pub(super) kind: OfferKind,
}

/// Who says that a service is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfferKind {
    Model,
    Label,
    Baseline,
}

/// All parties and their groups.
pub(super) struct Roster<'a> {
    pub(super) parties: Vec<Party<'a>>,
    /// The groups' labels.
    pub(super) groups: Vec<Text>,
}

/// What replicas have in common; without a project and a service everyone stands alone.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey<'a> {
    Service(&'a Project, &'a Text, Option<&'a ModelName>),
    One(&'a WorkloadId),
}

impl<'a> Roster<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        resolutions: &BTreeMap<WorkloadId, Resolution>,
        catalogue: &'a Catalogue,
        settings: &Settings,
        grants: &mut Grants,
        problems: &mut Vec<LabelProblem>,
    ) -> Self {
        let mut keys: BTreeMap<GroupKey<'a>, GroupId> = BTreeMap::new();
        let mut roster = Self { parties: Vec::with_capacity(inventory.len()), groups: Vec::new() };
        for workload in inventory.iter() {
            let owner = inventory.get(inventory.netns_owner(&workload.id)).unwrap_or(workload);
            let model = resolutions
                .get(&workload.id)
                .and_then(|resolution| resolution.model.as_ref())
                .and_then(|name| catalogue.models.get(name));
            let label = label(workload, model);
            let key = match (&workload.project, &workload.service) {
                (Some(project), Some(service)) => {
                    GroupKey::Service(project, service, model.map(|model| &model.name))
                }
                _ => GroupKey::One(&workload.id),
            };
            let is_service = matches!(key, GroupKey::Service(..));
            let group = *keys.entry(key).or_insert_with(|| {
                roster.groups.push(label.clone());
                roster.groups.len() - 1
            });
            let labels = labels::read(workload, &label, catalogue, settings.labels, problems);
            let standing = match owner.network_mode {
                NetworkMode::Host => Standing::HostNetwork,
                NetworkMode::None => Standing::OperatorsOnly,
                _ if model.is_none() && settings.unknown == UnknownTreatment::Deny => {
                    Standing::OperatorsOnly
                }
                _ => Standing::Full,
            };
            let offers = offers(workload, model, &labels, catalogue, grants);
            roster.parties.push(Party {
                is_replicable: is_service && may_be_scaled(workload),
                workload,
                owner,
                model,
                labels,
                label,
                group,
                standing,
                offers,
            });
        }
        roster
    }

    /// The other workloads of the same project and service, whatever their model.
    pub(super) fn replicas(&self, of: PartyId) -> impl Iterator<Item = PartyId> + '_ {
        let workload = self.parties[of].workload;
        let is_replica = move |other: &Workload| {
            workload.service.is_some()
                && workload.project.is_some()
                && other.service == workload.service
                && other.project == workload.project
        };
        (0..self.parties.len()).filter(move |id| is_replica(self.parties[*id].workload))
    }
}

impl Party<'_> {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            workload: self.workload,
            networks: &self.owner.networks,
            model: self.model,
            tags: &self.labels.tags,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.standing == Standing::Full
    }

    /// Whether both live in one netns: they talk over its loopback, which is not filtered.
    pub(super) fn is_mate_of(&self, other: &Self) -> bool {
        self.owner.id == other.owner.id
    }

    pub(super) fn shares_network_with(&self, other: &Self) -> bool {
        self.owner.networks.keys().any(|key| other.owner.networks.contains_key(key))
    }
}

/// What people call a workload and its replicas: `shop/api (node)`.
fn label(workload: &Workload, model: Option<&Model>) -> Text {
    let model = model.map_or("unknown", |model| model.name.as_str());
    Text::new(&format!("{} ({model})", workload.display_name()))
}

fn may_be_scaled(workload: &Workload) -> bool {
    let kind = workload.project.as_ref().map(|project| project.kind);
    workload.network_mode == NetworkMode::Own
        && matches!(kind, Some(ProjectKind::Compose | ProjectKind::Swarm))
}

fn offers<'a>(
    workload: &'a Workload,
    model: Option<&'a Model>,
    labels: &Labels,
    catalogue: &'a Catalogue,
    grants: &mut Grants,
) -> Vec<Offer<'a>> {
    let mut offers = Vec::new();
    let mut offer = |service, to, ports: BTreeSet<Ports>, kind, provenance| {
        let helper = catalogue.services.get(service).and_then(|known| known.helper);
        let traffic = cut(service, of_service(&ports, helper), labels.kept_provides());
        let grant = grants.id(Grant { traffic: traffic.clone(), provenance });
        offers.push(Offer { service, to, traffic, grant, kind });
    };
    let exposed = &workload.image.exposed;
    match model {
        Some(model) => {
            for provided in &model.provides {
                let provenance = Provenance::Model {
                    model: model.name.clone(),
                    service: Some(provided.service.clone()),
                    place: provided.place.clone(),
                };
                let service = provided.service.as_str();
                let ports = catalogue.ports_of(provided, exposed);
                offer(service, Some(&provided.to), ports, OfferKind::Model, provenance);
            }
        }
        None => {
            let kind = OfferKind::Baseline;
            offer(Provided::EXPOSED, None, exposed.clone(), kind, Provenance::Baseline);
        }
    }
    if let Some(added) = labels.added_provides() {
        let provenance = || Provenance::Label {
            key: labels::PROVIDES.into(),
            workload: workload.display_name(),
        };
        // Names were checked against the catalogue when the label was read.
        for name in &added.services {
            if let Some((known, service)) = catalogue.services.get_key_value(name.as_str()) {
                let ports = service.ports.clone();
                offer(known.as_str(), None, ports, OfferKind::Label, provenance());
            }
        }
        let mut ports = added.ports.clone();
        if added.services.contains(Provided::EXPOSED) {
            ports.extend(exposed);
        }
        if !ports.is_empty() {
            offer(Provided::EXPOSED, None, ports, OfferKind::Label, provenance());
        }
    }
    offers
}

/// What a narrowing `seawall.provides` leaves of a service's traffic.
pub(super) fn cut(
    service: &str,
    traffic: BTreeSet<Traffic>,
    kept: Option<&Provides>,
) -> BTreeSet<Traffic> {
    match kept {
        Some(kept) if !kept.services.contains(service) => common(&traffic, &of_ports(&kept.ports)),
        _ => traffic,
    }
}
