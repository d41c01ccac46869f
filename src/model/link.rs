//! Owns putting drafts together: later files override, then every reference is followed.

use std::collections::{BTreeMap, BTreeSet};

use crate::input::toml_doc::nearest;
use crate::input::{Diagnostic, Diagnostics};
use crate::metadata::Ports;

use super::catalogue::{
    Audience, Catalogue, Category, Egress, Model, ModelName, Provided, Service, ServiceName,
};
use super::read::{
    Draft, DraftEgress, DraftModel, DraftProvided, DraftService, PortsOrService, Spot,
    refuse_unread,
};

/// The merged drafts; models with the number of the file they come from.
#[derive(Default)]
struct Merged<'a> {
    services: BTreeMap<ServiceName, DraftService<'a>>,
    models: BTreeMap<ModelName, (usize, DraftModel<'a>)>,
    categories: BTreeSet<Category>,
}

/// Links drafts, in the order of their files. What has problems is left out of the result.
pub(super) fn link(drafts: Vec<Draft<'_>>, problems: &mut Diagnostics) -> Catalogue {
    let mut merged = Merged::default();
    for (number, draft) in drafts.into_iter().enumerate() {
        merged.services.extend(draft.services);
        merged.models.extend(draft.models.into_iter().map(|(name, model)| (name, (number, model))));
    }
    merged.categories =
        merged.models.values().filter_map(|(_, model)| model.category.clone()).collect();
    settle_claims(&mut merged, problems);

    let models = merged
        .models
        .iter()
        .filter_map(|(name, (_, draft))| Some((name.clone(), merged.model(name, draft, problems)?)))
        .collect();
    let services = merged
        .services
        .iter()
        .map(|(name, draft)| {
            let place = draft.spot.place();
            (name.clone(), Service { ports: draft.ports.clone(), helper: draft.helper, place })
        })
        .collect();
    Catalogue { services, models }
}

/// Gives each repository and each distinctive name to one model: to that of the latest file.
/// Two claims within one file are a problem.
fn settle_claims(merged: &mut Merged<'_>, problems: &mut Diagnostics) {
    let mut images = Claims::default();
    let mut names = Claims::default();
    for (model, (file, draft)) in &merged.models {
        for (image, spot) in &draft.images {
            images.add(&image.repository, *file, spot, model);
        }
        for (name, spot) in &draft.distinctive {
            names.add(name, *file, spot, model);
        }
    }
    let lost_images = images.settle("catalogue/duplicate-image", "the image", problems);
    let lost_names = names.settle("catalogue/duplicate-distinctive", "the name", problems);
    for (model, (_, draft)) in &mut merged.models {
        let lost = |lost: &BTreeSet<(ModelName, String)>, what: &str| {
            lost.contains(&(model.clone(), what.to_owned()))
        };
        draft.images.retain(|image, _| !lost(&lost_images, &image.repository));
        draft.distinctive.retain(|name, _| !lost(&lost_names, name));
    }
}

/// Who claims what: file number, offset, place and model of each claim.
#[derive(Default)]
struct Claims<'a>(BTreeMap<String, Vec<(usize, usize, Spot<'a>, ModelName)>>);

impl<'a> Claims<'a> {
    fn add(&mut self, what: &str, file: usize, spot: &Spot<'a>, model: &ModelName) {
        let claim = (file, spot.offset(), spot.clone(), model.clone());
        self.0.entry(what.to_owned()).or_default().push(claim);
    }

    /// Reports two claims of one file and returns the claims that were lost to another model.
    fn settle(
        self,
        code: &'static str,
        what: &str,
        problems: &mut Diagnostics,
    ) -> BTreeSet<(ModelName, String)> {
        let mut lost = BTreeSet::new();
        for (claimed, mut claims) in self.0 {
            claims.sort_by_key(|(file, offset, ..)| (*file, *offset));
            let latest = claims.last().map_or(0, |(file, ..)| *file);
            let (current, older): (Vec<_>, Vec<_>) =
                claims.into_iter().partition(|(file, ..)| *file == latest);
            let Some((_, _, first_spot, first)) = current.first() else { continue };
            for (_, _, spot, model) in current.iter().filter(|(.., model)| model != first) {
                let message =
                    format!("{what} `{claimed}` is claimed by `{first}` and by `{model}`");
                let help = format!("`{first}` claims it at {}; keep one", first_spot.place());
                problems.push(spot.problem(code, message).with_help(help));
            }
            lost.extend(
                older
                    .into_iter()
                    .filter(|(.., model)| model != first)
                    .map(|(.., model)| (model, claimed.clone())),
            );
        }
        lost
    }
}

impl Merged<'_> {
    fn model(
        &self,
        name: &ModelName,
        draft: &DraftModel<'_>,
        problems: &mut Diagnostics,
    ) -> Option<Model> {
        let provides =
            draft.provides.iter().map(|provided| self.provided(provided, problems)).collect();
        for (service, spot) in &draft.uses {
            self.known_service(service, spot, problems);
        }
        let egress = draft.egress.iter().map(|egress| self.egress(egress, problems)).collect();
        Some(Model {
            name: name.clone(),
            title: draft.title.clone(),
            category: draft.category.clone()?,
            images: draft.images.keys().cloned().collect(),
            distinctive: draft.distinctive.keys().cloned().collect(),
            commands: draft.commands.clone(),
            env: draft.env.clone(),
            provides,
            uses: draft.uses.iter().map(|(service, _)| service.clone()).collect(),
            egress,
            base: draft.base,
            routes: draft.routes,
            source: draft.source.clone(),
            place: draft.spot.place(),
        })
    }

    fn provided(&self, draft: &DraftProvided<'_>, problems: &mut Diagnostics) -> Provided {
        let (service, spot) = &draft.service;
        if service.as_str() == Provided::EXPOSED {
            if draft.ports.is_some() {
                problems.push(
                    draft
                        .spot
                        .problem(
                            "catalogue/exposed-ports",
                            "`exposed` cannot have ports of its own",
                        )
                        .with_help("it stands for the ports the image declares; leave `ports` out"),
                );
            }
        } else if self.known_service(service, spot, problems)
            && draft.ports.is_none()
            && self.services.get(service).is_some_and(|known| known.ports.is_empty())
        {
            let message =
                format!("the service `{service}` has no usual ports, so this must say which");
            problems.push(
                draft
                    .spot
                    .problem("catalogue/empty", message)
                    .with_help("write `{ service = \"…\", ports = [\"9100/tcp\"] }`"),
            );
        }
        if let Some(helper) = self.services.get(service).and_then(|known| known.helper) {
            let own = draft.ports.iter();
            own.for_each(|ports| refuse_unread(helper, ports, &draft.spot, problems));
        }
        for (audience, spot) in &draft.to {
            self.check_audience(audience, spot, problems);
        }
        Provided {
            service: service.clone(),
            ports: draft.ports.clone().unwrap_or_default(),
            to: draft.to.iter().map(|(audience, _)| audience.clone()).collect(),
            place: draft.spot.place(),
        }
    }

    fn egress(&self, draft: &DraftEgress<'_>, problems: &mut Diagnostics) -> Egress {
        let mut ports: BTreeSet<Ports> = BTreeSet::new();
        for (item, spot) in &draft.ports {
            match item {
                PortsOrService::Ports(found) => {
                    ports.insert(*found);
                }
                PortsOrService::Service(name) if name.as_str() == Provided::EXPOSED => {
                    let message = "`exposed` is what this workload serves, not what it connects to";
                    problems.push(spot.problem("catalogue/unknown-service", message));
                }
                PortsOrService::Service(name) => {
                    if self.known_service(name, spot, problems)
                        && let Some(service) = self.services.get(name)
                    {
                        ports.extend(&service.ports);
                    }
                }
            }
        }
        Egress { to: draft.to, ports, place: draft.spot.place() }
    }

    fn known_service(
        &self,
        service: &ServiceName,
        spot: &Spot<'_>,
        problems: &mut Diagnostics,
    ) -> bool {
        let is_known = service.as_str() == Provided::EXPOSED || self.services.contains_key(service);
        if !is_known {
            let known = self.services.keys().map(ServiceName::as_str).chain([Provided::EXPOSED]);
            problems.push(unknown(
                spot.problem(
                    "catalogue/unknown-service",
                    format!("no service is called `{service}`"),
                ),
                nearest(service.as_str(), known),
                "declare it with `[services.NAME] ports = […]`",
            ));
        }
        is_known
    }

    fn check_audience(&self, audience: &Audience, spot: &Spot<'_>, problems: &mut Diagnostics) {
        match audience {
            Audience::Category(name) if !self.categories.contains(name) => problems.push(unknown(
                spot.problem(
                    "catalogue/unknown-category",
                    format!("no model is of category `{name}`"),
                ),
                nearest(name.as_str(), self.categories.iter().map(Category::as_str)),
                "a category exists when a model has it",
            )),
            Audience::Model(name) if !self.models.contains_key(name) => problems.push(unknown(
                spot.problem("catalogue/unknown-model", format!("no model is called `{name}`")),
                nearest(name.as_str(), self.models.keys().map(ModelName::as_str)),
                "declare it with `[models.NAME]`",
            )),
            _ => {}
        }
    }
}

fn unknown(problem: Diagnostic, near: Option<&str>, otherwise: &str) -> Diagnostic {
    match near {
        Some(near) => problem.with_help(format!("did you mean `{near}`?")),
        None => problem.with_help(otherwise),
    }
}
