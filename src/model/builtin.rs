//! Owns the built-in catalogue: `models.toml`, embedded in the binary.

use std::path::Path;

use crate::input::Diagnostics;
use crate::input::diagnostic::SourceFile;

use super::catalogue::Catalogue;

/// What the built-in catalogue's file is called in output.
pub const BUILTIN_FILE: &str = "models.toml";

const TEXT: &str = include_str!("../../models.toml");

impl Catalogue {
    /// The built-in catalogue's file, to be parsed before any other.
    pub fn builtin_source() -> SourceFile<'static> {
        SourceFile { name: Path::new(BUILTIN_FILE), text: TEXT }
    }

    /// The built-in catalogue alone. That it has no problems is tested.
    pub fn builtin() -> Result<Self, Diagnostics> {
        Self::parse(&[Self::builtin_source()])
    }

    /// The built-in catalogue with further files over it, in order.
    pub fn with_files(files: &[SourceFile<'_>]) -> Result<Self, Diagnostics> {
        let all: Vec<_> =
            std::iter::once(Self::builtin_source()).chain(files.iter().copied()).collect();
        Self::parse(&all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metadata::ImageRef;
    use crate::model::{Audience, Category, Model, Provided};

    fn builtin() -> Catalogue {
        Catalogue::builtin().unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn every(catalogue: &Catalogue, holds: impl Fn(&Model) -> bool) {
        let failing: Vec<_> = catalogue
            .models
            .values()
            .filter(|model| !holds(model))
            .map(|model| model.name.as_str())
            .collect();
        assert!(failing.is_empty(), "{failing:?}");
    }

    #[test]
    fn it_has_no_problems_and_knows_many_applications() {
        let catalogue = builtin();
        assert!(catalogue.models.len() >= 100, "{}", catalogue.models.len());
        let images: usize = catalogue.models.values().map(|model| model.images.len()).sum();
        assert!(images >= 250, "{images}");
    }

    #[test]
    fn every_model_names_its_source_and_an_image() {
        let catalogue = builtin();
        every(&catalogue, |model| model.source.as_str().starts_with("https://"));
        every(&catalogue, |model| !model.images.is_empty());
        every(&catalogue, |model| model.place.file == Path::new(BUILTIN_FILE));
    }

    #[test]
    fn no_repository_is_claimed_twice() {
        let mut seen = BTreeSet::new();
        for model in builtin().models.values() {
            let repositories: BTreeSet<_> =
                model.images.iter().map(|image| image.repository.clone()).collect();
            for repository in repositories {
                assert!(seen.insert(repository.clone()), "{repository} in {}", model.name);
            }
        }
    }

    #[test]
    fn distinctive_names_are_names_nobody_gives_to_something_else() {
        const COMMON: [&str; 30] = [
            "agent", "api", "app", "auth", "backend", "base", "broker", "cache", "connect",
            "console", "database", "db", "frontend", "gateway", "hub", "kafka", "mail", "nginx",
            "node", "proxy", "python", "registry", "runner", "search", "server", "sftp", "ui",
            "vault", "web", "worker",
        ];
        for model in builtin().models.values() {
            for name in &model.distinctive {
                assert!(!COMMON.contains(&name.as_str()), "{name} in {}", model.name);
                assert!(name.len() >= 3, "{name} in {}", model.name);
            }
            assert!(!model.base || model.distinctive.iter().all(|name| name == "php-fpm"));
        }
    }

    #[test]
    fn variables_and_commands_belong_to_one_application_or_to_bases() {
        let catalogue = builtin();
        let (mut variables, mut commands) = (BTreeSet::new(), BTreeSet::new());
        for model in catalogue.models.values() {
            for name in &model.env {
                // Bitnami's databases share a few.
                let is_shared =
                    ["ALLOW_EMPTY_PASSWORD", "ALLOW_NONE_AUTHENTICATION"].contains(&name.as_str());
                assert!(is_shared || variables.insert(name.clone()), "{name} in {}", model.name);
                for common in [
                    "PATH",
                    "HOME",
                    "LANG",
                    "TZ",
                    "PORT",
                    "DATABASE_URL",
                    "PGHOST",
                    "REDIS_HOST",
                    "REDIS_URL",
                ] {
                    assert_ne!(name, common, "{}", model.name);
                }
            }
            for command in &model.commands {
                assert!(commands.insert(command.clone()), "{command} in {}", model.name);
                for common in
                    ["sh", "bash", "run.sh", "start.sh", "entrypoint.sh", "server", "app", "init"]
                {
                    assert_ne!(command, common, "{}", model.name);
                }
            }
        }
    }

    #[test]
    fn every_category_is_documented_in_the_header() {
        let header: String =
            TEXT.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let categories: BTreeSet<Category> =
            builtin().models.into_values().map(|model| model.category).collect();
        for category in &categories {
            assert!(header.contains(&format!("\n#   {category} ")), "{category}");
        }
        assert_eq!(categories.len(), 14);
    }

    #[test]
    fn every_service_is_provided_by_some_model() {
        let catalogue = builtin();
        let provided: BTreeSet<_> = catalogue
            .models
            .values()
            .flat_map(|model| &model.provides)
            .map(|provided| provided.service.as_str())
            .collect();
        let unused: Vec<_> = catalogue
            .services
            .keys()
            .map(|name| name.as_str())
            .filter(|name| !provided.contains(name))
            .collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn whoever_uses_a_service_is_served_by_some_model() {
        let catalogue = builtin();
        let mut refused = Vec::new();
        for client in catalogue.models.values() {
            let admits = |audience: &Audience| match audience {
                Audience::Any => true,
                Audience::Category(category) => *category == client.category,
                Audience::Model(name) => *name == client.name,
            };
            for service in client.uses.iter().filter(|name| name.as_str() != Provided::EXPOSED) {
                let mut offers = catalogue.models.values().flat_map(|model| &model.provides);
                if !offers.any(|offer| offer.service == *service && offer.to.iter().any(admits)) {
                    refused.push(format!("{} uses {service}", client.name));
                }
            }
        }
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }

    #[test]
    fn databases_are_never_open_to_everybody() {
        let catalogue = builtin();
        every(&catalogue, |model| {
            !["database", "cache", "broker", "search", "coordination"]
                .contains(&model.category.as_str())
                || model.provides.iter().all(|provided| !provided.to.contains(&Audience::Any))
        });
    }

    #[test]
    fn bases_provide_what_they_declare_and_use_what_they_are_wired_to() {
        let catalogue = builtin();
        every(&catalogue, |model| {
            !model.base
                || (model.category.as_str() == "application"
                    && model
                        .provides
                        .iter()
                        .any(|provided| provided.service.as_str() == Provided::EXPOSED)
                    && model.uses.is_empty()
                    && model.egress.is_empty())
        });
    }

    #[test]
    fn operating_systems_are_no_models() {
        let catalogue = builtin();
        for image in [
            "debian",
            "alpine",
            "ubuntu",
            "busybox",
            "fedora",
            "scratch",
            "almalinux",
            "buildpack-deps",
        ] {
            let image: ImageRef = image.parse().unwrap();
            assert!(catalogue.models_for_image(&image).is_empty(), "{image}");
        }
    }

    #[test]
    fn a_sites_file_goes_over_it() {
        let text =
            "[models.nginx]\ntitle = \"Ours\"\ncategory = \"proxy\"\nsource = \"https://x\"\n";
        let file = SourceFile { name: Path::new("site.toml"), text };
        let catalogue = Catalogue::with_files(&[file]).unwrap();
        assert_eq!(catalogue.models["nginx"].title, "Ours");
        assert!(catalogue.models.contains_key("postgres"));
    }
}
