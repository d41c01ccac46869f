//! Owns the verdict: which model a workload is, from the evidence, or that it is unknown.
//!
//! It never guesses. Everything an image says of itself is written by whoever made it (security model 7), so no single
//! claim but the repository it was pulled from is enough.

use crate::input::Text;
use crate::input::toml_doc::nearest;
use crate::metadata::Workload;

use super::catalogue::{Catalogue, ModelName};
use super::evidence::gather;
use super::program::{is_command, program};
use super::resolution::{Evidence, EvidenceKind, Resolution};

/// The score, in hundredths, that makes a candidate the answer.
const THRESHOLD: i32 = 60;
/// Two candidates nearer than this, in hundredths, are a tie.
const TIE: i32 = 5;
/// How far, in hundredths, a base must lead over everything more specific.
const BASE_LEAD: i32 = 31;

/// The container label that names a workload's model.
pub const MODEL_LABEL: &str = "seawall.model";

/// What is known of a workload's model besides its own facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The model an operator's file states, and where it does, in words. Conclusive.
    pub operator: Option<(ModelName, Text)>,
    /// Whether the container label `seawall.model` is believed. Where it is, it is conclusive.
    pub trust_labels: bool,
}

/// One model's evidence, added up.
struct Candidate<'a> {
    name: &'a ModelName,
    is_base: bool,
    /// Hundredths, 0 to 100.
    score: i32,
}

/// Tells which model a workload is. The same facts give the same answer, byte for byte.
pub fn resolve(workload: &Workload, catalogue: &Catalogue, overrides: &Overrides) -> Resolution {
    let program = program(&workload.image).map(|name| {
        let is_known = catalogue
            .models
            .values()
            .any(|model| model.commands.iter().any(|command| is_command(&name, command)));
        (name, is_known)
    });
    let mut evidence = Vec::new();
    let mut candidates = Vec::new();
    for (name, model) in &catalogue.models {
        let pieces = gather(workload, catalogue, model, program.as_ref());
        if pieces.is_empty() {
            continue;
        }
        let score = pieces.iter().map(|piece| piece.weight).sum::<i32>().clamp(0, 100);
        candidates.push(Candidate { name, is_base: model.base, score });
        evidence.extend(pieces.into_iter().map(|piece| Evidence {
            model: name.clone(),
            kind: piece.kind,
            found: piece.found,
            weight: hundredths(piece.weight),
        }));
    }

    let stated = match &overrides.operator {
        Some((model, why)) => Some((EvidenceKind::Operator, model.as_str(), why.clone())),
        None => {
            workload.operator_label(MODEL_LABEL).filter(|_| overrides.trust_labels).map(|value| {
                (EvidenceKind::Label, value.as_str(), format!("label {MODEL_LABEL}={value}").into())
            })
        }
    };
    let verdict = match stated {
        Some((kind, name, found)) => match catalogue.models.get_key_value(name) {
            Some((model, _)) => {
                evidence.push(Evidence { model: model.clone(), kind, found, weight: 1.0 });
                Ok(Candidate { name: model, is_base: false, score: 100 })
            }
            None => Err((0, no_such_model(&found, name, catalogue))),
        },
        None => judge(&candidates)
            .map_err(|(score, reason)| (score, reason.unwrap_or_else(|| nothing_known(workload)))),
    };

    evidence.sort_by(|a, b| {
        a.kind
            .cmp(&b.kind)
            .then(b.weight.total_cmp(&a.weight))
            .then_with(|| a.model.cmp(&b.model))
            .then_with(|| a.found.cmp(&b.found))
    });
    let (model, confidence, reason) = match verdict {
        Ok(best) => (Some(best.name.clone()), hundredths(best.score), None),
        Err((score, reason)) => (None, hundredths(score), Some(reason.as_str().into())),
    };
    Resolution { model, confidence, evidence, reason }
}

/// The answer among candidates, or the best score and why it is none (no reason: there are no candidates).
fn judge<'a>(candidates: &[Candidate<'a>]) -> Result<Candidate<'a>, (i32, Option<String>)> {
    let (specific, second) = best_two(candidates.iter().filter(|candidate| !candidate.is_base));
    let (base, second_base) = best_two(candidates.iter().filter(|candidate| candidate.is_base));
    // What an image is built on does not compete with what it is.
    let (best, rival) = match (specific, base) {
        (Some(specific), _) if specific.score >= THRESHOLD => (specific, second),
        (Some(specific), Some(base)) if base.score >= THRESHOLD => {
            if base.score < specific.score + BASE_LEAD {
                let reason = format!(
                    "it is built on {}, but may well be {}",
                    described(base),
                    described(specific)
                );
                return Err((base.score, Some(reason)));
            }
            (base, second_base)
        }
        (Some(specific), Some(base)) if base.score <= specific.score => (specific, second),
        (Some(specific), None) => (specific, second),
        (_, Some(base)) => (base, second_base),
        (None, None) => return Err((0, None)),
    };
    if best.score < THRESHOLD {
        let reason = format!(
            "too little evidence: the best candidate is {}; 0.60 is needed",
            described(best)
        );
        return Err((best.score, Some(reason)));
    }
    match rival {
        Some(rival) if best.score - rival.score < TIE => {
            let reason = format!("cannot tell {} from {}", described(best), described(rival));
            Err((best.score, Some(reason)))
        }
        _ => Ok(Candidate { ..*best }),
    }
}

/// The two highest scores; of equal ones, the first by name.
fn best_two<'c, 'a: 'c>(
    candidates: impl Iterator<Item = &'c Candidate<'a>>,
) -> (Option<&'c Candidate<'a>>, Option<&'c Candidate<'a>>) {
    let mut sorted: Vec<_> = candidates.collect();
    sorted.sort_by_key(|candidate| (-candidate.score, candidate.name));
    let mut sorted = sorted.into_iter();
    (sorted.next(), sorted.next())
}

fn described(candidate: &Candidate<'_>) -> String {
    format!("{} ({:.2})", candidate.name, hundredths(candidate.score))
}

fn no_such_model(found: &Text, name: &str, catalogue: &Catalogue) -> String {
    let hint = match nearest(name, catalogue.models.keys().map(ModelName::as_str)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    };
    format!("{found} names a model the catalogue does not have{hint}")
}

fn nothing_known(workload: &Workload) -> String {
    match &workload.image.reference {
        Some(image) => format!(
            "no model is shipped as `{}`, and nothing else tells what it is",
            image.repository
        ),
        None => "its image has no name, and nothing else tells what it is".to_owned(),
    }
}

fn hundredths(weight: i32) -> f64 {
    f64::from(weight) / 100.0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::input::diagnostic::SourceFile;
    use crate::metadata::{Runtime, WorkloadId};

    /// Facts in words: `image=… cmd=a,b entrypoint=… env=A,B expose=80/tcp label:KEY=VALUE imagelabel:KEY=VALUE`.
    fn workload(facts: &str) -> Workload {
        let mut workload = Workload::new(WorkloadId::new("w"), "w".into(), Runtime::File);
        for fact in facts.split_whitespace() {
            let (key, value) = fact.split_once('=').unwrap();
            let words = || value.split(',').map(|word| word.replace('+', " "));
            match key {
                "image" => workload.image.reference = Some(value.parse().unwrap()),
                "cmd" => workload.image.cmd = words().map(Text::from).collect(),
                "entrypoint" => workload.image.entrypoint = words().map(Text::from).collect(),
                "env" => workload.env_names = words().map(Text::from).collect(),
                "expose" => {
                    workload.image.exposed = words().map(|port| port.parse().unwrap()).collect();
                }
                _ => {
                    let (which, key) = key.split_once(':').unwrap();
                    let labels = match which {
                        "label" => &mut workload.labels,
                        _ => workload.image.labels.get_or_insert_default(),
                    };
                    labels.insert(key.into(), value.into());
                }
            }
        }
        workload
    }

    fn catalogue() -> &'static Catalogue {
        static BUILTIN: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
        BUILTIN.get_or_init(|| Catalogue::builtin().unwrap())
    }

    fn resolved(facts: &str, overrides: &Overrides) -> Resolution {
        resolve(&workload(facts), catalogue(), overrides)
    }

    fn check(cases: &[(&str, Option<&str>)]) {
        let wrong: Vec<_> = cases
            .iter()
            .filter_map(|(facts, wanted)| {
                let found = resolved(facts, &Overrides::default());
                let model = found.model.as_ref().map(ModelName::as_str);
                (model != *wanted).then(|| format!("{facts}: wanted {wanted:?}, found {found:#?}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn home_made_applications_are_what_they_are_built_on() {
        check(&[
            (
                "image=shop-api cmd=node,server.js env=NODE_VERSION,YARN_VERSION,REDIS_HOST,POSTGRES_PASSWORD",
                Some("node"),
            ),
            ("cmd=/bin/sh,-c,npm+start env=NODE_VERSION", Some("node")),
            ("image=team/api entrypoint=docker-entrypoint.sh cmd=node,dist/main.js", Some("node")),
            ("image=team/api cmd=./start.sh env=NODE_VERSION,YARN_VERSION", Some("node")),
            ("image=team/worker cmd=python,app.py env=PYTHON_VERSION", Some("python")),
            ("image=team/worker cmd=python3.12,-m,app", Some("python")),
            (
                "image=team/web cmd=gunicorn,app:app env=PYTHON_VERSION expose=8000/tcp",
                Some("python"),
            ),
            ("image=team/web entrypoint=tini,--,uvicorn cmd=main:app", Some("python")),
            (
                "image=team/svc entrypoint=java,-jar,/app.jar env=JAVA_HOME,JAVA_VERSION expose=8080/tcp",
                Some("java"),
            ),
            ("image=team/svc cmd=dotnet,App.dll env=DOTNET_VERSION", Some("dotnet")),
            ("image=team/site cmd=bundle,exec,puma env=RUBY_VERSION", Some("ruby")),
            (
                "image=team/site entrypoint=docker-php-entrypoint cmd=php-fpm env=PHP_VERSION,PHP_INI_DIR expose=9000/tcp",
                Some("php"),
            ),
            (
                "image=team/spa cmd=nginx,-g,daemon+off; env=NGINX_VERSION,NJS_VERSION expose=80/tcp",
                Some("nginx"),
            ),
            (
                "image=team/api cmd=/app/run imagelabel:org.opencontainers.image.base.name=docker.io/library/node:20 env=NODE_VERSION",
                Some("node"),
            ),
            (
                "image=team/api cmd=node,x.js imagelabel:org.opencontainers.image.base.name=debian",
                Some("node"),
            ),
            // Facts that tell nothing, or too little.
            ("image=team/api cmd=/app/server expose=8080/tcp", None),
            ("image=team/api cmd=/app/run env=NODE_VERSION", None),
            ("image=team/api env=JAVA_HOME", None),
        ]);
    }

    #[test]
    fn applications_built_on_a_language_stay_what_they_are() {
        check(&[
            (
                "image=apache/kafka cmd=java env=JAVA_HOME,JAVA_VERSION,KAFKA_BROKER_ID expose=9092/tcp",
                Some("kafka"),
            ),
            (
                "image=docker.elastic.co/elasticsearch/elasticsearch:8 env=JAVA_HOME,JAVA_VERSION cmd=eswrapper",
                Some("elasticsearch"),
            ),
            (
                "image=ghost:5 cmd=node,current/index.js env=NODE_VERSION,YARN_VERSION,GHOST_VERSION expose=2368/tcp",
                Some("ghost"),
            ),
            (
                "image=wordpress cmd=apache2-foreground env=PHP_VERSION,PHP_INI_DIR,WORDPRESS_DB_HOST expose=80/tcp",
                Some("wordpress"),
            ),
            (
                "image=tomcat cmd=catalina.sh,run env=JAVA_HOME,JAVA_VERSION,CATALINA_HOME expose=8080/tcp",
                Some("tomcat"),
            ),
            (
                "image=team/shop-war cmd=catalina.sh,run env=JAVA_HOME,JAVA_VERSION,CATALINA_HOME",
                Some("tomcat"),
            ),
            ("image=postgres:16 cmd=pg_dump env=POSTGRES_PASSWORD", Some("postgres")),
            // Too little for the one, too near to it for the other.
            ("image=team/kafka cmd=/run env=JAVA_HOME,JAVA_VERSION", None),
            ("image=team/thing cmd=nginx env=PYTHON_VERSION,PYTHON_SHA256", None),
        ]);
    }

    #[test]
    fn lookalikes_and_clients_are_not_what_they_talk_of() {
        check(&[
            ("image=evil/nginx", None),
            ("image=evil/nginx expose=80/tcp", None),
            ("image=evil/nginx cmd=nginx", Some("nginx")),
            ("image=evil/postgres-exporter env=DATA_SOURCE_NAME expose=9187/tcp", None),
            ("image=evil/postgres-exporter cmd=/bin/postgres_exporter", Some("postgres-exporter")),
            ("image=evil/x imagelabel:org.opencontainers.image.title=PostgreSQL", None),
            (
                "image=evil/x imagelabel:org.opencontainers.image.title=PostgreSQL imagelabel:org.opencontainers.image.source=https://github.com/docker-library/postgres expose=5432/tcp env=PGDATA",
                Some("postgres"),
            ),
            (
                "image=evil/x imagelabel:org.opencontainers.image.title=Redis imagelabel:org.opencontainers.image.source=https://github.com/docker-library/redis imagelabel:org.opencontainers.image.base.name=redis",
                None,
            ),
            ("image=team/app env=POSTGRES_PASSWORD,POSTGRES_DB,PGDATA,POSTGRES_HOST", None),
            ("image=team/app env=REDIS_HOST,REDIS_URL,REDIS_VERSION expose=6379/tcp", None),
            ("image=team/app expose=5432/tcp", None),
            ("image=team/mysql", Some("mysql")),
            ("image=team/mysql expose=8080/tcp", None),
            ("image=team/mysql cmd=node,server.js", None),
            ("image=team/redis cmd=node,server.js env=NODE_VERSION,YARN_VERSION", Some("node")),
            ("image=team/db cmd=postgres env=POSTGRES_PASSWORD", Some("postgres")),
            ("image=team/db cmd=postgres", None),
            ("cmd=redis-server,--save expose=6379/tcp", Some("redis")),
            ("image=keycloak/keycloak.evil/x", None),
            ("label:seawall.model=postgres image=evil/x", None),
        ]);
    }

    #[test]
    fn what_an_operator_states_is_conclusive() {
        let overrides = Overrides {
            operator: Some((ModelName::new("redis").unwrap(), "site.toml:3:1".into())),
            trust_labels: true,
        };
        let found = resolved("image=postgres label:seawall.model=mysql", &overrides);
        assert_eq!(found.model.unwrap().as_str(), "redis");
        assert_eq!(found.evidence[0].kind, EvidenceKind::Operator);
        assert!((found.confidence - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_label_is_believed_where_labels_are_trusted() {
        let trusting = Overrides { trust_labels: true, ..Overrides::default() };
        let facts = "image=postgres label:seawall.model=mysql";
        assert_eq!(resolved(facts, &trusting).model.unwrap().as_str(), "mysql");
        assert_eq!(resolved(facts, &Overrides::default()).model.unwrap().as_str(), "postgres");
    }

    #[test]
    fn a_statement_of_no_known_model_is_unknown_and_says_so() {
        let trusting = Overrides { trust_labels: true, ..Overrides::default() };
        let found = resolved("image=nginx label:seawall.model=postgress", &trusting);
        assert_eq!(found.model, None);
        assert_eq!(
            found.reason.unwrap(),
            "label seawall.model=postgress names a model the catalogue does not have; did you mean `postgres`?"
        );
        let long = format!("image=nginx label:seawall.model={}", "\u{1b}[2J".repeat(200));
        assert!(!resolved(&long, &trusting).reason.unwrap().as_str().contains('\u{1b}'));
    }

    #[test]
    fn a_tie_is_unknown() {
        let file = |name: &str| {
            format!(
                "[models.{name}]\ntitle = \"{name}\"\ncategory = \"application\"\n\
                 images = [\"x/{name}\"]\ncommands = [\"same\"]\nenv = [\"SAME\"]\nsource = \"https://x\"\n"
            )
        };
        let text = file("one") + &file("two");
        let catalogue =
            Catalogue::parse(&[SourceFile { name: Path::new("t.toml"), text: &text }]).unwrap();
        let tie = workload("cmd=same env=SAME");
        let found = resolve(&tie, &catalogue, &Overrides::default());
        assert_eq!(found.model, None);
        assert_eq!(found.reason.unwrap(), "cannot tell one (0.60) from two (0.60)");
        assert!((found.confidence - 0.6).abs() < f64::EPSILON);
        let settled = workload("image=x/two cmd=same env=SAME");
        let found = resolve(&settled, &catalogue, &Overrides::default());
        assert_eq!(found.model.unwrap().as_str(), "two");
    }

    #[test]
    fn evidence_is_ordered_strongest_first_and_always_the_same() {
        let facts = "image=bitnami/postgresql cmd=postgres expose=5432/tcp env=POSTGRES_PASSWORD,NODE_VERSION,MYSQL_DATABASE";
        let found = resolved(facts, &Overrides::default());
        insta::assert_json_snapshot!("evidence", found);
        assert_eq!(found, resolved(facts, &Overrides::default()));
    }

    #[test]
    fn nothing_known_at_all_says_so() {
        let overrides = Overrides::default();
        let reason = |facts: &str| resolved(facts, &overrides).reason.unwrap();
        assert_eq!(reason(""), "its image has no name, and nothing else tells what it is");
        assert_eq!(
            reason("image=team/app"),
            "no model is shipped as `team/app`, and nothing else tells what it is"
        );
        assert_eq!(
            reason("image=evil/nginx"),
            "too little evidence: the best candidate is nginx (0.30); 0.60 is needed"
        );
        assert_eq!(
            reason("image=team/kafka env=JAVA_HOME,JAVA_VERSION"),
            "it is built on java (0.60), but may well be kafka (0.30)"
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_facts_the_answer_is_sound(
            last in "[a-z]{1,4}|nginx|postgres|node|kafka",
            program in "[a-z/ ;&=-]{0,12}|node|postgres|sh",
            script in ".{0,40}",
            env in "[A-Z_]{1,6}|NODE_VERSION|PGDATA",
            title in ".{0,20}|PostgreSQL",
        ) {
            let mut workload = workload(&format!("image=x/{last}"));
            workload.image.cmd = vec![program.as_str().into(), "-c".into(), script.as_str().into()];
            workload.env_names.insert(env.as_str().into());
            workload
                .image
                .labels
                .get_or_insert_default()
                .insert("org.opencontainers.image.title".into(), title.as_str().into());
            let found = resolve(&workload, catalogue(), &Overrides::default());
            proptest::prop_assert!((0.0..=1.0).contains(&found.confidence));
            proptest::prop_assert_eq!(found.model.is_none(), found.reason.is_some());
            proptest::prop_assert!(found.model.is_none() || found.confidence >= 0.6);
            proptest::prop_assert!(found.evidence.iter().all(|piece| piece.weight.abs() <= 1.0));
        }
    }
}
