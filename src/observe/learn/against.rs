//! Owns trying a staged policy on what was seen: what it would deny, and what in it nobody used.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::confidence::Confidence;
use super::known::{Judgement, Known};
use super::seen::{Conversation, Evidence, conversations};
use crate::input::{Place, Text};
use crate::observe::Flow;
use crate::policy::{PolicySet, Provenance};

/// What a staged policy would do to what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Against {
    /// How many different connections were judged.
    pub judged: usize,
    /// Those that would be denied.
    pub refused: Vec<Refused>,
    /// Those of which nothing can be said, and why.
    pub open: Vec<Text>,
    /// Statements of the staged files that none of them needed or met.
    pub unused: Vec<Place>,
}

/// Something that was seen and would be denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// What: `shop/api → shop/db: 5432/tcp`.
    pub what: Text,
    /// How often it was seen.
    pub evidence: Evidence,
    /// How sure it is that it is meant.
    pub confidence: Confidence,
    /// The deny that decides, where one does.
    pub denied_by: Option<String>,
    /// The statement that is missing, as TOML for a file in policy.d; none where no allow helps.
    pub missing: Option<String>,
}

/// Which of these connections `known`, which holds the staged files, would deny in enforce, and which statements of the files
/// named in `staged` nobody used. What passes without being asked is not judged.
pub fn against(flows: &[Flow], known: &Known<'_>, staged: &BTreeSet<PathBuf>) -> Against {
    let seen: Vec<Conversation> =
        conversations(flows, &[]).into_iter().filter(|one| !one.is_unasked).collect();
    let mut result =
        Against { judged: 0, refused: Vec::new(), open: Vec::new(), unused: Vec::new() };
    for one in &seen {
        // A data channel that was let pass has a helper, and no statement of its own.
        if one.master.is_some() && one.was_allowed {
            continue;
        }
        let (client, server) = (known.name(&one.client), known.name(&one.server));
        let what = Text::new(&format!("{client} → {server}: {}", one.carried));
        let denied_by = match known.judge(one) {
            Judgement::Open(reason) => {
                result.open.push(Text::new(&format!("{what}: {reason}")));
                continue;
            }
            Judgement::Allowed => {
                result.judged += 1;
                continue;
            }
            Judgement::Denied(place) => Some(place),
            Judgement::Missing => None,
        };
        result.judged += 1;
        let missing = match &denied_by {
            Some(_) => None,
            None => missing(one, known),
        };
        result.refused.push(Refused {
            what,
            confidence: Confidence::of(&one.evidence, false),
            evidence: one.evidence.clone(),
            denied_by,
            missing,
        });
    }
    let places = known.rules.operator.statements.iter().map(|stated| &stated.place);
    let of_staged = places.filter(|place| staged.contains(&place.file));
    result.unused = of_staged.filter(|place| !is_used(place, &seen, known)).cloned().collect();
    result
}

fn missing(one: &Conversation, known: &Known<'_>) -> Option<String> {
    let (from, to) = (known.selector(&one.client)?, known.selector(&one.server)?);
    let quoted = super::text::quoted;
    Some(format!(
        "[[allow]]\nfrom = {}\nto = {}\nports = {}\n",
        quoted(&from),
        quoted(&to),
        quoted(&one.carried.to_string())
    ))
}

/// Whether a statement speaks of anything that was seen, whatever else does.
fn is_used(place: &Place, seen: &[Conversation], known: &Known<'_>) -> bool {
    let is_it = |provenance: &Provenance| matches!(provenance, Provenance::Operator { place: own } if own == place);
    let mut policies = PolicySet::default();
    for (id, policy) in &known.policies.policies {
        let mut policy = policy.clone();
        policy.statements.retain(|statement| is_it(&statement.provenance));
        policies.policies.insert(id.clone(), policy);
    }
    let alone = Known { policies, ..known.clone() };
    seen.iter().any(|one| alone.is_spoken_of(one))
}
