//! Owns the way from catalogue files to a [`Catalogue`]: each file is read on its own, then all are linked.
//!
//! Later files add models and services and override those of the same name, whole. References are checked after
//! that, so a file may use what another one declares. All problems of all files are reported at once.

use crate::input::Diagnostics;
use crate::input::diagnostic::SourceFile;
use crate::input::toml_doc::Document;

use super::catalogue::Catalogue;
use super::{link, read};

impl Catalogue {
    /// Reads catalogue files, in order. `/etc/seawall/models.d/*.toml` come after the built-in one, by name.
    ///
    /// Errors: every problem of every file, with codes `file/…` (not the format) and `catalogue/…` (not the meaning).
    pub fn parse(files: &[SourceFile<'_>]) -> Result<Self, Diagnostics> {
        let mut problems = Diagnostics::new();
        let documents: Vec<_> =
            files.iter().map(|file| Document::parse(*file, &mut problems)).collect();
        let drafts: Vec<_> =
            documents.iter().map(|document| read::read(document, &mut problems)).collect();
        let catalogue = link::link(drafts, &mut problems);
        problems.into_result(catalogue)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{Audience, Helper, ModelName, Provided};

    fn source<'a>(name: &'a str, text: &'a str) -> SourceFile<'a> {
        SourceFile { name: Path::new(name), text }
    }

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/catalogue/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn problems_of(name: &str) -> String {
        let text = fixture(name);
        Catalogue::parse(&[source(name, &text)]).unwrap_err().to_string()
    }

    const SMALL: &str = r#"
[services.http]
ports = ["80/tcp"]
[services.metrics]
ports = []
[models.web]
title = "Web"
category = "proxy"
images = ["web", "quay.io/acme/web"]
distinctive = ["webd"]
provides = ["http", { service = "metrics", ports = ["9113/tcp"], to = ["model:web"] }]
uses = ["http", "exposed"]
egress = [{ to = "internet", ports = ["http", "8000-8010/udp"] }]
source = "https://example.org/web"
"#;

    #[test]
    fn a_good_file_says_what_it_says() {
        let catalogue = Catalogue::parse(&[source("a.toml", SMALL)]).unwrap();
        let web = &catalogue.models["web"];
        assert_eq!(web.title, "Web");
        assert_eq!(
            web.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["web", "quay.io/acme/web"]
        );
        assert_eq!(web.provides[0].to, [Audience::Any].into());
        assert_eq!(web.provides[1].place.to_string(), "a.toml:11:21");
        assert_eq!(web.provides[1].to, [Audience::Model(ModelName::new("web").unwrap())].into());
        assert_eq!(web.place.to_string(), "a.toml:6:9");
        let egress: Vec<_> = web.egress[0].ports.iter().map(ToString::to_string).collect();
        assert_eq!(egress, ["80/tcp", "8000-8010/udp"]);
        assert!(web.uses.contains(Provided::EXPOSED));
        assert!(!web.routes && !web.base);
    }

    #[test]
    fn a_service_may_have_a_helper_that_reads_its_ports() {
        let catalogue = Catalogue::builtin().unwrap();
        assert_eq!(catalogue.services["ftp"].helper, Some(Helper::Ftp));
        assert_eq!(catalogue.services["http"].helper, None);
        let text = r#"
[services.files]
ports  = ["21/tcp", "21/udp"]
helper = "ftp"
[services.chat]
ports  = ["6667/tcp"]
helper = "irc"
[services.calls]
ports  = ["5060/udp"]
helper = "sip"
[models.phone]
title    = "Phone"
category = "tool"
provides = [{ service = "calls", ports = ["5070/tcp", "5070/sctp"] }]
source   = "https://example.org/phone"
"#;
        let problems = Catalogue::parse(&[source("a.toml", text)]).unwrap_err().to_string();
        insta::assert_snapshot!(problems, @r"
        a.toml:4:10: error[catalogue/bad-helper]: the helper `ftp` does not read 21/udp
            help: ftp is spoken over tcp
        a.toml:7:10: error[catalogue/bad-helper]: `irc` is no connection tracking helper
            help: use ftp, tftp or sip
        a.toml:14:13: error[catalogue/bad-helper]: the helper `sip` does not read 5070/sctp
            help: sip is spoken over tcp or udp
        ");
    }

    #[test]
    fn no_file_is_an_empty_catalogue() {
        assert_eq!(Catalogue::parse(&[]).unwrap(), Catalogue::default());
    }

    #[test]
    fn every_problem_of_a_file_is_reported_at_once() {
        insta::assert_snapshot!("many_problems", problems_of("many-problems.toml"));
    }

    #[test]
    fn a_file_of_the_wrong_shape_is_told_so() {
        insta::assert_snapshot!("wrong_types", problems_of("wrong-types.toml"));
    }

    #[test]
    fn a_later_file_overrides_whole_models_and_adds_others() {
        let later = fixture("site.toml");
        let catalogue =
            Catalogue::parse(&[source("a.toml", SMALL), source("site.toml", &later)]).unwrap();
        let web = &catalogue.models["web"];
        assert_eq!(web.title, "Our web");
        assert!(web.images.is_empty(), "nothing of the overridden model is left");
        assert_eq!(web.place.file, Path::new("site.toml"));
        assert_eq!(catalogue.models["portal"].uses.len(), 1, "uses a service of the other file");
    }

    #[test]
    fn a_later_file_takes_over_a_claimed_image_and_a_distinctive_name() {
        let later = r#"
            [models.fork]
            title = "Fork"
            category = "proxy"
            images = ["web"]
            distinctive = ["webd"]
            source = "https://example.org/fork"
        "#;
        let catalogue =
            Catalogue::parse(&[source("a.toml", SMALL), source("b.toml", later)]).unwrap();
        let images = |model: &str| {
            catalogue.models[model].images.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(images("fork"), ["web"]);
        assert_eq!(images("web"), ["quay.io/acme/web"]);
        assert!(catalogue.models["web"].distinctive.is_empty());
    }

    #[test]
    fn a_later_service_of_the_same_name_replaces_the_ports() {
        let later = "[services.http]\nports = [\"8000/tcp\"]\n";
        let catalogue =
            Catalogue::parse(&[source("a.toml", SMALL), source("b.toml", later)]).unwrap();
        let ports: Vec<_> =
            catalogue.services["http"].ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["8000/tcp"]);
    }

    #[test]
    fn problems_of_several_files_come_together() {
        let problems = Catalogue::parse(&[
            source("a.toml", "[services.x]\nports = [\"0/tcp\"]\n"),
            source("b.toml", "[services.y\n"),
        ])
        .unwrap_err()
        .to_string();
        assert!(problems.contains("a.toml:2:10: error[catalogue/bad-port]"), "{problems}");
        assert!(problems.contains("b.toml:1:"), "{problems}");
    }

    proptest::proptest! {
        #[test]
        fn no_file_however_broken_is_a_panic(cut in 0usize..4096, junk in "[\\PC\\n\\x1b]{0,20}") {
            let good = fixture("many-problems.toml");
            let at = (0..=cut.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap();
            let text = format!("{}{junk}{}", &good[..at], &good[at..]);
            let problems = Catalogue::parse(&[source("x.toml", &text)]).unwrap_err();
            let is_harmless = !problems.to_string().contains('\u{1b}');
            proptest::prop_assert!(is_harmless);
        }
    }
}
