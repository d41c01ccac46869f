//! Owns learning: policy proposed from what was seen, groups that workloads have in common, and staged policies tried on what was seen.
//!
//! Pure: flows, denials, facts and the texts of configuration files come in; values and texts come out. Nothing is applied here.
//!
//! [`propose`] goes through what was seen in this order: `seen` counts connections once, `channels` puts data channels to
//! their control connections, `suspect` keeps back scans and what nobody answered, `lane` makes ranges of ports and addresses,
//! `models` learns what unknown images are, and `statement` says the rest.

mod against;
mod channels;
mod confidence;
mod group;
mod known;
mod lane;
mod models;
mod seen;
mod statement;
mod suspect;
mod text;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use against::{Against, Refused, against};
pub use confidence::Confidence;
pub use group::{Group, suggest_group};
pub use known::{Known, with_files};
pub use models::{LearnedModel, LearnedService};
pub use seen::{Evidence, denied_since, since};
pub use statement::{Allow, Held};
pub use suspect::Why;

use crate::config::Files;
use crate::input::{Diagnostics, Text};
use crate::metadata::{Inventory, Workload, WorkloadId};
use crate::observe::{Denial, Flow};
use crate::policy::Policy;
use known::{Judgement, source};
use lane::{Lane, lanes};
use seen::{Conversation, Who, conversations};
use suspect::{related, scanners};

/// What a proposal's files are called while they are tried.
const TRIED_MODELS: &str = "models.d/learned.toml";
const TRIED_POLICY: &str = "policy.d/learned.toml";

/// What is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// As many connections make something worth a statement.
    pub min_connections: u64,
    /// Whether what was only denied is proposed like the rest.
    pub include_denied: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_connections: 3, include_denied: false }
    }
}

/// The time that evidence covers, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first connection's begin.
    pub first_us: u64,
    /// The last one's begin or end.
    pub last_us: u64,
}

/// What is missing so that what was seen works in enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// The time the evidence covers; none when nothing was seen.
    pub seen: Option<Span>,
    /// Where it was started.
    pub seeds: Vec<Text>,
    /// Further workloads that were seen to talk with these.
    pub related: Vec<Text>,
    /// Models for unknown images.
    pub models: Vec<LearnedModel>,
    /// Statements for the rest.
    pub allow: Vec<Allow>,
    /// What was seen and is not proposed.
    pub held: Vec<Held>,
    /// What would still be denied with all of it; what a shared network namespace or a label takes away.
    pub unmet: Vec<Text>,
    /// The file for policy.d; empty when there is nothing to say.
    pub policy_toml: String,
    /// The file for models.d; empty when there is no model.
    pub models_toml: String,
    /// The policies it changes, as they are in force.
    pub before: String,
    /// The same with the proposal.
    pub after: String,
}

impl Proposal {
    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty() && self.allow.is_empty()
    }
}

/// Proposes what is missing for what was seen of the `seeds` and all that was seen to be related to them.
///
/// `files` are the configuration in force; what it allows is not proposed again. Errors: the problems of `files`.
pub fn propose(
    seen: &[Flow],
    denials: &[Denial],
    seeds: &BTreeSet<WorkloadId>,
    inventory: &Inventory,
    files: &Files,
    options: &Options,
) -> Result<Proposal, Diagnostics> {
    let known = Known::new(inventory, files)?;
    let asked = conversations(seen, denials).into_iter().filter(|one| !one.is_unasked).collect();
    let all = channels::fold(asked, |one| known.judge(one) == Judgement::Missing);
    let scanners = scanners(&all);
    let parties = |ids: &BTreeSet<WorkloadId>| -> BTreeSet<Who> {
        ids.iter().filter_map(|id| inventory.get(id)).map(|one| known.party(one)).collect()
    };
    let seeds = parties(seeds);
    let parties = related(&seeds, &all, &scanners);
    let touching = all
        .into_iter()
        .filter(|one| parties.contains(&one.client) || parties.contains(&one.server))
        .collect();
    let sorted = sort(touching, &known, &scanners, options);
    let believed = parties.iter().filter(|who| !scanners.contains_key(who)).cloned().collect();

    let learned = learn_models(&sorted.lanes, &known, &believed, files)?;
    let names = |of: &BTreeSet<Who>| -> Vec<Text> {
        of.iter().map(|who| Text::new(&known.name(who))).collect()
    };
    let mut proposal = Proposal {
        seen: sorted.span,
        seeds: names(&seeds),
        related: names(&parties.difference(&seeds).cloned().collect()),
        models: learned.models.values().cloned().collect(),
        allow: Vec::new(),
        held: sorted.held,
        unmet: Vec::new(),
        policy_toml: String::new(),
        models_toml: String::new(),
        before: String::new(),
        after: String::new(),
    };
    proposal.models_toml = text::models(&proposal, &learned.models, &known.rules.catalogue);
    let with_models = learned.files(files, &proposal.models_toml);
    let modelled = Known::new(inventory, &with_models)?;
    let is_needed = |lane: &&Lane| {
        let mut seen = lane.conversations.iter();
        seen.any(|one| one.helper.is_some() || modelled.judge(one) == Judgement::Missing)
    };
    let needed: Vec<Lane> = sorted.lanes.iter().filter(is_needed).cloned().collect();
    let (allow, held) = statement::statements(&needed, &modelled);
    proposal.allow = allow;
    proposal.held.extend(held);
    proposal.held.sort_by(|a, b| a.why.cmp(&b.why));
    proposal.policy_toml = match proposal.allow.is_empty() && proposal.held.is_empty() {
        true => String::new(),
        false => text::policy(&proposal),
    };
    let tried = source(TRIED_POLICY, &proposal.policy_toml);
    let applied = Known::new(inventory, &with_files(&with_models, &[], &[tried]))?;
    proposal.unmet = unmet(&sorted.lanes, &proposal.held, &applied);
    (proposal.before, proposal.after) = changed(&known, &applied);
    Ok(proposal)
}

/// What was seen, sorted by whether it is believed.
struct Sorted {
    lanes: Vec<Lane>,
    held: Vec<Held>,
    span: Option<Span>,
}

fn sort(
    conversations: Vec<Conversation>,
    known: &Known<'_>,
    scanners: &BTreeMap<Who, Why>,
    options: &Options,
) -> Sorted {
    let mut span: Option<Span> = None;
    let mut believed = Vec::new();
    let mut kept_back: BTreeMap<Why, Vec<Conversation>> = BTreeMap::new();
    let mut held = Vec::new();
    for mut one in conversations {
        let Evidence { first_us, last_us, .. } = one.evidence;
        span = Some(span.map_or(Span { first_us, last_us }, |span| Span {
            first_us: span.first_us.min(first_us),
            last_us: span.last_us.max(last_us),
        }));
        let judgement = known.judge(&one);
        one.was_allowed = judgement == Judgement::Allowed && one.helper.is_none();
        let scan = scanners.get(&one.client).cloned();
        let why = match judgement {
            Judgement::Allowed if one.helper.is_none() => None,
            Judgement::Open(reason) => {
                held.push(unsayable(&one, Why::Open(Text::new(&reason).to_string()), known));
                continue;
            }
            Judgement::Denied(place) => Some(Why::DenyDecides(place)),
            _ if scan.is_some() => scan,
            _ if one.is_denied => (!options.include_denied).then_some(Why::Denied),
            _ => one.is_unanswered().then_some(Why::Unanswered),
        };
        match why {
            Some(why) => kept_back.entry(why).or_default().push(one),
            None => believed.push(one),
        }
    }
    let (lanes, rare): (Vec<Lane>, Vec<Lane>) = lanes(believed).into_iter().partition(|lane| {
        lane.is_in_force() || lane.evidence.connections >= options.min_connections
    });
    let kept_back = kept_back.into_iter().map(|(why, seen)| (why, lane::lanes(seen)));
    let rare = (Why::Rare { wanted: options.min_connections }, rare);
    for (why, lanes) in kept_back.chain([rare]) {
        let (allow, unwritten) = statement::statements(&lanes, known);
        held.extend(unwritten);
        held.extend(allow.into_iter().map(|allow| Held {
            why: why.clone(),
            allow: Some(allow),
            seen: None,
        }));
    }
    Sorted { lanes, held, span }
}

fn unsayable(one: &Conversation, why: Why, known: &Known<'_>) -> Held {
    let (client, server) = (known.name(&one.client), known.name(&one.server));
    let seen = Text::new(&format!("{client} → {server}: {}", one.carried));
    Held { why, allow: None, seen: Some(seen) }
}

/// Learned models, and how they are tried.
struct Learned {
    models: BTreeMap<String, LearnedModel>,
}

impl Learned {
    fn files(&self, files: &Files, text: &str) -> Files {
        match self.models.is_empty() {
            true => files.clone(),
            false => with_files(files, &[source(TRIED_MODELS, text)], &[]),
        }
    }
}

/// The models for unknown images. One that the images would not be recognised by is left out, and statements take its place.
fn learn_models(
    lanes: &[Lane],
    known: &Known<'_>,
    parties: &BTreeSet<Who>,
    files: &Files,
) -> Result<Learned, Diagnostics> {
    let mut refused = BTreeSet::new();
    loop {
        let learned = Learned { models: models::models(lanes, known, parties, &refused) };
        if learned.models.is_empty() {
            return Ok(learned);
        }
        let tried = text::bare_models(&learned.models, &known.rules.catalogue);
        let modelled = Known::new(known.inventory, &learned.files(files, &tried))?;
        let is_other = |who: &Who, model: &LearnedModel| {
            let mut members = known.members(who).iter();
            model.workloads.contains(&known.name(who))
                && members.any(|id| modelled.model(id).is_none_or(|is| is.as_str() != model.name))
        };
        let failing: Vec<String> = learned
            .models
            .iter()
            .filter(|(repository, model)| {
                let of_image = |who: &&Who| {
                    known.workloads(who).any(|one| {
                        let image = one.image.reference.as_ref();
                        image.is_some_and(|image| image.repository == **repository)
                    })
                };
                parties.iter().filter(of_image).any(|who| is_other(who, model))
            })
            .map(|(repository, _)| repository.clone())
            .collect();
        if failing.is_empty() {
            return Ok(learned);
        }
        refused.extend(failing);
    }
}

/// What was believed and would be denied all the same.
fn unmet(lanes: &[Lane], held: &[Held], applied: &Known<'_>) -> Vec<Text> {
    let is_held = |lane: &&Lane| {
        held.iter().filter_map(|held| held.allow.as_ref()).any(|allow| {
            let means = |ends: &[String], who: &Who| {
                applied.selector(who).is_some_and(|selector| ends.contains(&selector))
            };
            means(&allow.from, &lane.from) && means(&allow.to, &lane.to)
        })
    };
    let is_missing = |lane: &&Lane| {
        lane.conversations.iter().any(|one| applied.judge(one) != Judgement::Allowed)
    };
    let told = |lane: &Lane| {
        let (from, to) = (applied.name(&lane.from), applied.name(&lane.to));
        Text::new(&format!("{from} → {to}: {}", lane.traffic))
    };
    lanes.iter().filter(is_missing).filter(|lane| !is_held(lane)).map(told).collect()
}

/// The texts of the policies that differ.
fn changed(before: &Known<'_>, after: &Known<'_>) -> (String, String) {
    let differs = |workload: &&Workload| {
        let of = |known: &Known<'_>| {
            known
                .policies
                .policies
                .get(&workload.id)
                .map(|policy| crate::policy::text::render([policy]))
        };
        of(before) != of(after)
    };
    let ids: BTreeSet<&WorkloadId> =
        before.inventory.iter().filter(differs).map(|workload| &workload.id).collect();
    let text = |known: &Known<'_>| {
        let chosen: Vec<&Policy> = known
            .policies
            .policies
            .values()
            .filter(|policy| ids.contains(&policy.workload))
            .collect();
        crate::policy::text::render(chosen)
    };
    (text(before), text(after))
}
