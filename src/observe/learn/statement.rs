//! Owns proposed statements: lanes between the same parties as one `[[allow]]`, and addresses with the same ports as one list.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::confidence::Confidence;
use super::known::Known;
use super::lane::Lane;
use super::seen::{Evidence, Who};
use super::suspect::Why;
use crate::input::Text;
use crate::policy::Traffic;

/// As many addresses a statement names one by one.
const NAMED_ADDRESSES: usize = 16;

/// A proposed `[[allow]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allow {
    /// Who connects: selectors.
    pub from: Vec<String>,
    /// To whom: selectors.
    pub to: Vec<String>,
    /// What is carried.
    pub ports: BTreeSet<Traffic>,
    /// The connection tracking helper that its data channels need.
    pub helper: Option<&'static str>,
    /// How sure the least sure part of it is.
    pub confidence: Confidence,
    /// What was seen of each port.
    pub evidence: BTreeMap<Traffic, Evidence>,
    /// What people call the two ends.
    pub title: String,
}

/// Something that was seen and is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Why.
    pub why: Why,
    /// The statement that it would be.
    pub allow: Option<Allow>,
    /// What was seen, where no statement can say it.
    pub seen: Option<Text>,
}

/// What lanes with the same ports have in common; none at an end is addresses.
type Key = (Option<Who>, Option<Who>, Option<&'static str>, BTreeSet<Traffic>);

/// Everything of one key.
#[derive(Default)]
struct Sum {
    addresses: BTreeSet<Who>,
    evidence: BTreeMap<Traffic, (Evidence, bool)>,
}

/// The statements of these lanes, sorted; and those that cannot be written.
pub(super) fn statements(lanes: &[Lane], known: &Known<'_>) -> (Vec<Allow>, Vec<Held>) {
    let mut pairs: BTreeMap<(&Who, &Who, Option<&'static str>), Vec<&Lane>> = BTreeMap::new();
    for lane in lanes {
        pairs.entry((&lane.from, &lane.to, lane.helper)).or_default().push(lane);
    }
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    for ((from, to, helper), lanes) in pairs {
        let ports = lanes.iter().map(|lane| lane.traffic).collect();
        let general = |who: &Who| (!matches!(who, Who::Address(_))).then(|| who.clone());
        let sum = sums.entry((general(from), general(to), helper, ports)).or_default();
        sum.addresses.extend([from, to].into_iter().filter(|who| general(who).is_none()).cloned());
        for lane in lanes {
            let (evidence, is_general) = sum.evidence.entry(lane.traffic).or_default();
            evidence.add(&lane.evidence);
            *is_general |= lane.is_generalised();
        }
    }
    let (mut allows, mut held) = (Vec::new(), Vec::new());
    for (key, sum) in sums {
        let count = sum.addresses.len();
        match written(key, sum, known) {
            Ok(allow) if count > NAMED_ADDRESSES => {
                held.push(Held { why: Why::ManyAddresses(count), allow: Some(allow), seen: None });
            }
            Ok(allow) => allows.push(allow),
            Err((why, seen)) => held.push(Held { why, allow: None, seen: Some(seen) }),
        }
    }
    (allows, held)
}

fn written(
    (from, to, helper, ports): Key,
    sum: Sum,
    known: &Known<'_>,
) -> Result<Allow, (Why, Text)> {
    let addresses: Vec<Who> = sum.addresses.into_iter().collect();
    let ends = [from, to].map(|end| end.map_or_else(|| addresses.clone(), |who| vec![who]));
    let named = |who: &Who| known.name(who);
    let names = ends.each_ref().map(|end| {
        let more = end.len().saturating_sub(3);
        let mut shown: Vec<String> = end.iter().take(3).map(named).collect();
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        shown.join(", ")
    });
    let title = format!("{} → {}", names[0], names[1]);
    let mut selectors = [Vec::new(), Vec::new()];
    for (end, list) in ends.iter().zip(&mut selectors) {
        for who in end {
            let selector = known.selector(who).ok_or_else(|| {
                let listed: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let seen = Text::new(&format!("{title}: {}", listed.join(", ")));
                (Why::NoSelector(Text::new(&named(who)).to_string()), seen)
            })?;
            list.push(selector);
        }
    }
    let sure = |(evidence, is_general): &(Evidence, bool)| Confidence::of(evidence, *is_general);
    let confidence = sum.evidence.values().map(sure).min();
    let [from, to] = selectors;
    Ok(Allow {
        from,
        to,
        ports,
        helper,
        confidence: confidence.unwrap_or_else(|| Confidence::of(&Evidence::default(), false)),
        evidence: sum
            .evidence
            .into_iter()
            .map(|(traffic, (evidence, _))| (traffic, evidence))
            .collect(),
        title: Text::new(&title).to_string(),
    })
}
