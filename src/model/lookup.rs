//! Owns finding things in a catalogue: models by image, services by name and by port.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::metadata::{ImageRef, Ports};

use super::catalogue::{Catalogue, Model, Provided, Service, ServiceName};

/// How well an image's repository fits one a model is shipped as, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryMatch {
    /// The very repository, in the registry it is at home in.
    Exact,
    /// The very path of two or more elements, in another registry: `registry:5000/bitnami/postgresql`.
    Elsewhere,
    /// The path's end, in another registry, below a mirror's own prefix: `harbor/hub/library/redis`.
    Mirrored,
    /// The last element is a name that means this application anywhere: `registry:5000/team/mysql`.
    Distinctive,
    /// Only the last element is the same: `somebody/nginx`. Anybody may call an image that.
    LastElement,
}

impl RepositoryMatch {
    /// Whether whoever could push there is whoever ships the application, or a copy of theirs.
    pub fn is_strong(self) -> bool {
        self <= Self::Mirrored
    }
}

impl Model {
    /// How `image` fits this model by its name alone, if it does.
    pub fn recognises(&self, image: &ImageRef) -> Option<RepositoryMatch> {
        let by_claim = self.images.iter().filter_map(|claimed| fit(claimed, image)).min();
        let last = image.last_element();
        let by_name = if self.distinctive.contains(last) {
            Some(RepositoryMatch::Distinctive)
        } else if self.name.as_str() == last {
            Some(RepositoryMatch::LastElement)
        } else {
            None
        };
        by_claim.into_iter().chain(by_name).min()
    }
}

/// Whether the image's registry gives paths to whoever registers, so that no path there is a mirror's prefix.
fn is_shared(image: &ImageRef) -> bool {
    const SHARED: [&str; 5] =
        ["ghcr.io", "quay.io", "registry.gitlab.com", "codeberg.org", "docker.pkg.github.com"];
    image.registry.as_deref().is_some_and(|registry| SHARED.contains(&registry))
}

/// How `image` fits one claimed repository.
fn fit(claimed: &ImageRef, image: &ImageRef) -> Option<RepositoryMatch> {
    let is_at_home = claimed.registry == image.registry;
    let is_path = claimed.repository.contains('/');
    let same = claimed.repository == image.repository;
    if same && is_at_home {
        return Some(RepositoryMatch::Exact);
    }
    // On Docker Hub the first element is an account, so a path that is at home elsewhere is somebody else's there.
    if image.registry.is_some() {
        if same && is_path {
            return Some(RepositoryMatch::Elsewhere);
        }
        let official = format!("library/{}", claimed.repository);
        let tail = if is_path { claimed.repository.as_str() } else { official.as_str() };
        let prefix = image.repository.strip_suffix(tail).filter(|_| !is_shared(image));
        if prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/')) {
            return Some(RepositoryMatch::Mirrored);
        }
    }
    let is_last = if is_path { same } else { claimed.repository == image.last_element() };
    is_last.then_some(RepositoryMatch::LastElement)
}

impl Catalogue {
    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// The service of this name; `exposed` is none.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// Every model that an image's name speaks for, best first, then by name.
    pub fn models_for_image(&self, image: &ImageRef) -> Vec<(&Model, RepositoryMatch)> {
        let mut found: Vec<_> = self
            .models
            .values()
            .filter_map(|model| Some((model, model.recognises(image)?)))
            .collect();
        found.sort_by_key(|(_, how)| *how);
        found
    }

    /// The models of which `name` is a distinctive last path element; at most one in a parsed catalogue.
    pub fn models_named_distinctively(&self, name: &str) -> impl Iterator<Item = &Model> {
        self.models.values().filter(move |model| model.distinctive.contains(name))
    }

    /// The ports a service is provided on, by a workload whose image or container declares `exposed`.
    pub fn ports_of(&self, provided: &Provided, exposed: &BTreeSet<Ports>) -> BTreeSet<Ports> {
        if provided.service.as_str() == Provided::EXPOSED {
            exposed.clone()
        } else if !provided.ports.is_empty() {
            provided.ports.clone()
        } else {
            self.services
                .get(&provided.service)
                .map(|known| known.ports.clone())
                .unwrap_or_default()
        }
    }

    /// What people call these ports: the service that has just these among its usual ones, else the one whose
    /// range they lie in. `None` when there is no such service, or several.
    pub fn service_named_for_port(&self, ports: Ports) -> Option<&ServiceName> {
        let only = |fits: &dyn Fn(&Ports) -> bool| {
            let mut names = self
                .services
                .iter()
                .filter(|(_, service)| service.ports.iter().any(fits))
                .map(|(name, _)| name);
            let first = names.next();
            (first, names.next().is_some())
        };
        match only(&|known| *known == ports) {
            (Some(name), is_shared) => (!is_shared).then_some(name),
            (None, _) => match only(&|known| {
                known.contains(ports.proto, ports.range.first())
                    && known.contains(ports.proto, ports.range.last())
            }) {
                (name, false) => name,
                (_, true) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(model: &str, image: &str) -> Option<RepositoryMatch> {
        let catalogue = Catalogue::builtin().unwrap();
        catalogue.models[model].recognises(&image.parse().unwrap())
    }

    #[test]
    fn repositories_fit_from_exact_to_last_element() {
        use RepositoryMatch::*;
        let cases = [
            ("postgres", "postgres:16", Some(Exact)),
            ("postgres", "docker.io/library/postgres@sha256:ab", Some(Exact)),
            ("postgres", "registry:5000/bitnami/postgresql", Some(Elsewhere)),
            ("postgres", "harbor.lan/hub/bitnami/postgresql", Some(Mirrored)),
            ("redis", "public.ecr.aws/docker/library/redis", Some(Mirrored)),
            ("redis", "mirror.gcr.io/library/redis:7", Some(Mirrored)),
            ("redis", "ghcr.io/evil/library/redis", Some(Distinctive)),
            ("nginx", "ghcr.io/evil/library/nginx", Some(LastElement)),
            ("certbot", "quay.io/evil/certbot/certbot", Some(Distinctive)),
            ("mysql", "registry:5000/team/mysql:8", Some(Distinctive)),
            ("nginx", "evil/nginx", Some(LastElement)),
            ("nginx", "registry:5000/nginx", Some(LastElement)),
            ("keycloak", "quay.io/keycloak/keycloak", Some(Exact)),
            ("dotnet", "mcr.microsoft.com/dotnet/aspnet:8.0", Some(Exact)),
            ("dotnet", "dotnet/aspnet:8.0", Some(LastElement)),
            ("postgres", "evil/xbitnami/postgresql-ha-proxy", None),
            ("nginx", "evil/nginx-tools", None),
        ];
        for (model, image, wanted) in cases {
            assert_eq!(how(model, image), wanted, "{image}");
        }
    }

    #[test]
    fn ports_are_named_for_people_only_when_one_service_has_them() {
        let catalogue = Catalogue::builtin().unwrap();
        let name = |ports: &str| {
            catalogue.service_named_for_port(ports.parse().unwrap()).map(ServiceName::as_str)
        };
        assert_eq!(name("5432/tcp"), Some("postgresql"));
        assert_eq!(name("443/udp"), Some("https"));
        assert_eq!(name("5432/udp"), None);
        assert_eq!(name("1-65535/tcp"), None);
    }

    #[test]
    fn provided_ports_come_from_the_image_the_model_or_the_service() {
        let catalogue = Catalogue::builtin().unwrap();
        let exposed: BTreeSet<Ports> = ["3000/tcp".parse().unwrap()].into();
        let ports = |model: &str, service: &str| {
            let provides = &catalogue.models[model].provides;
            let provided = provides.iter().find(|p| p.service.as_str() == service).unwrap();
            let ports = catalogue.ports_of(provided, &exposed);
            ports.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ports("node", "exposed"), ["3000/tcp"]);
        assert_eq!(ports("prometheus", "http"), ["9090/tcp"]);
        assert_eq!(ports("postgres", "postgresql"), ["5432/tcp"]);
    }
}
