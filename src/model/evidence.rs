//! Owns weighing: every fact of a workload that speaks for or against a model.
//!
//! Weights are hundredths, so that they add up without rounding.

use crate::input::Text;
use crate::metadata::{ImageRef, Ports, Workload};

use super::catalogue::{Catalogue, Model, Provided};
use super::lookup::RepositoryMatch;
use super::program::is_command;
use super::resolution::EvidenceKind;

/// One fact, weighed.
pub(super) struct Piece {
    pub(super) kind: EvidenceKind,
    pub(super) found: Text,
    /// Hundredths; negative speaks against.
    pub(super) weight: i32,
}

impl Piece {
    fn new(kind: EvidenceKind, weight: i32, found: &str) -> Self {
        Self { kind, found: found.into(), weight }
    }
}

/// What the name of an image is worth.
const fn repository_weight(how: RepositoryMatch) -> i32 {
    match how {
        RepositoryMatch::Exact => 90,
        RepositoryMatch::Elsewhere => 85,
        RepositoryMatch::Mirrored => 80,
        RepositoryMatch::Distinctive => 60,
        RepositoryMatch::LastElement => 30,
    }
}

/// Labels are inherited by whatever is built on an image, and anybody may write them: even all of them together
/// stay below the threshold.
const TITLE: i32 = 20;
const SOURCE: i32 = 25;
const BASE_NAME: i32 = 50;
const LABELS_AT_MOST: i32 = 55;

const COMMAND: i32 = 50;
/// Running an interpreter is being what it interprets.
const COMMAND_OF_BASE: i32 = 60;
const OTHER_COMMAND: i32 = -30;

const PORTS: i32 = 10;
const OTHER_PORTS: i32 = -20;

/// Clients of a database have its variables as well, so these say little.
const FIRST_VARIABLE: i32 = 10;
const FURTHER_VARIABLE: i32 = 5;
const VARIABLES_AT_MOST: i32 = 20;
/// Variables of a language's base image (`PYTHON_VERSION`) are set by that image and by nothing else.
const VARIABLE_OF_BASE: i32 = 30;
const VARIABLES_OF_BASE_AT_MOST: i32 = 60;

/// All pieces about one model. `program` is what the workload runs and whether any model at all has that program.
pub(super) fn gather(
    workload: &Workload,
    catalogue: &Catalogue,
    model: &Model,
    program: Option<&(String, bool)>,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let how = workload.image.reference.as_ref().and_then(|image| model.recognises(image));
    if let (Some(how), Some(image)) = (how, &workload.image.reference) {
        pieces.push(repository(image, model, how));
    }
    labels(workload, model, &mut pieces);
    let own_command =
        program.filter(|(name, _)| model.commands.iter().any(|command| is_command(name, command)));
    if let Some((name, _)) = own_command {
        let weight = if model.base { COMMAND_OF_BASE } else { COMMAND };
        pieces.push(Piece::new(EvidenceKind::Command, weight, &format!("runs `{name}`")));
    }
    variables(workload, model, &mut pieces);
    if pieces.is_empty() {
        return pieces;
    }
    // What follows only supports or contradicts: alone it tells nothing.
    if let Some((name, true)) = program
        && own_command.is_none()
        && !how.is_some_and(RepositoryMatch::is_strong)
    {
        let found = format!("runs `{name}`, which is another application's program");
        pieces.push(Piece::new(EvidenceKind::Command, OTHER_COMMAND, &found));
    }
    exposed_ports(workload, catalogue, model, &mut pieces);
    pieces
}

fn repository(image: &ImageRef, model: &Model, how: RepositoryMatch) -> Piece {
    let repository = &image.repository;
    let last = image.last_element();
    let found = match how {
        RepositoryMatch::Exact => format!("image `{repository}` is shipped as {}", model.title),
        RepositoryMatch::Elsewhere => {
            format!("image path `{repository}` is {}'s, from another registry", model.title)
        }
        RepositoryMatch::Mirrored => {
            format!("image path `{repository}` ends like {}'s, from another registry", model.title)
        }
        RepositoryMatch::Distinctive => {
            format!("last path element `{last}` means {} anywhere", model.title)
        }
        RepositoryMatch::LastElement => {
            format!("last path element is `{last}`, which anybody may call an image")
        }
    };
    Piece::new(EvidenceKind::Repository, repository_weight(how), &found)
}

fn labels(workload: &Workload, model: &Model, pieces: &mut Vec<Piece>) {
    let labels = workload.image.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(Text::as_str);
    let mut left = LABELS_AT_MOST;
    let mut push = |weight: i32, found: String| {
        let weight = weight.min(left);
        left -= weight;
        if weight > 0 {
            pieces.push(Piece::new(EvidenceKind::ImageLabel, weight, &found));
        }
    };
    if let Some(name) = label("org.opencontainers.image.base.name")
        && let Ok(base) = name.parse::<ImageRef>()
        && model.recognises(&base).is_some_and(RepositoryMatch::is_strong)
    {
        push(BASE_NAME, format!("image label says it is built on `{name}`"));
    }
    if let Some(source) = label("org.opencontainers.image.source")
        && is_source_of(source, model)
    {
        push(SOURCE, format!("image label names the source `{source}`"));
    }
    if let Some(title) = label("org.opencontainers.image.title")
        && (title.eq_ignore_ascii_case(model.title.as_str())
            || title.eq_ignore_ascii_case(model.name.as_str()))
    {
        push(TITLE, format!("image label names the title `{title}`"));
    }
}

/// Whether a source URL ends in the repository of one of the model's images:
/// `https://github.com/grafana/grafana`, `https://github.com/docker-library/postgres.git#…`.
fn is_source_of(url: &str, model: &Model) -> bool {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['#', '?']).next().unwrap_or(path).trim_end_matches('/');
    let mut elements = path.trim_end_matches(".git").split('/').skip(1);
    let (Some(owner), Some(repository)) = (elements.next(), elements.next()) else { return false };
    let path = format!("{owner}/{repository}").to_ascii_lowercase();
    model.images.iter().any(|image| {
        let claimed = &image.repository;
        *claimed == path
            || path == format!("docker-library/{claimed}")
            || path == format!("{claimed}/{claimed}")
    })
}

fn variables(workload: &Workload, model: &Model, pieces: &mut Vec<Piece>) {
    let mut left = if model.base { VARIABLES_OF_BASE_AT_MOST } else { VARIABLES_AT_MOST };
    let mut is_first = true;
    for name in &model.env {
        if !workload.env_names.contains(name.as_str()) {
            continue;
        }
        let weight = match (model.base, is_first) {
            (true, _) => VARIABLE_OF_BASE,
            (false, true) => FIRST_VARIABLE,
            (false, false) => FURTHER_VARIABLE,
        }
        .min(left);
        is_first = false;
        left -= weight;
        if weight > 0 {
            let found = format!("environment variable `{name}`");
            pieces.push(Piece::new(EvidenceKind::Environment, weight, &found));
        }
    }
}

fn exposed_ports(
    workload: &Workload,
    catalogue: &Catalogue,
    model: &Model,
    pieces: &mut Vec<Piece>,
) {
    let exposed = &workload.image.exposed;
    let (declared, fixed): (Vec<_>, Vec<_>) =
        model.provides.iter().partition(|provided| provided.service.as_str() == Provided::EXPOSED);
    let known: Vec<Ports> =
        fixed.iter().flat_map(|provided| catalogue.ports_of(provided, exposed)).collect();
    if exposed.is_empty() || known.is_empty() {
        return;
    }
    let covers = |wide: &Ports, narrow: &Ports| {
        wide.contains(narrow.proto, narrow.range.first())
            && wide.contains(narrow.proto, narrow.range.last())
    };
    let all_known = exposed.iter().all(|port| known.iter().any(|known| covers(known, port)));
    let all_exposed = known.iter().all(|known| exposed.iter().any(|port| covers(port, known)));
    let any_known = exposed
        .iter()
        .any(|port| known.iter().any(|known| covers(known, port) || covers(port, known)));
    let list = exposed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all_known || all_exposed {
        let found = format!("declares the ports it is known for: {list}");
        pieces.push(Piece::new(EvidenceKind::ExposedPorts, PORTS, &found));
    } else if !any_known && declared.is_empty() {
        let found = format!("declares only other ports: {list}");
        pieces.push(Piece::new(EvidenceKind::ExposedPorts, OTHER_PORTS, &found));
    }
}
