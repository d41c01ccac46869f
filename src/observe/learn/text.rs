//! Owns the text of proposals: TOML for policy.d and models.d, with the evidence as comments. The same proposal gives the same bytes.
//!
//! Names come from outside. Values are quoted; what stands in a comment is on one line, because it went through
//! [`Text`] (security model 7).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::confidence::Confidence;
use super::models::{CATEGORY, LearnedModel, LearnedService};
use super::seen::Evidence;
use super::statement::{Allow, Held};
use super::suspect::Why;
use super::{Proposal, Span};
use crate::input::Text;
use crate::input::time::utc;
use crate::model::Catalogue;

/// The key that names a helper; [`without_helpers`] looks for it.
const HELPER: &str = "helper = ";
/// How many statements stand below one heading.
const SHOWN: usize = 20;
/// How many peers a comment names.
const NAMED_PEERS: usize = 4;

/// The policy file. What is not proposed stands behind one more `#` a line, so that it can be taken away.
pub(super) fn policy(proposal: &Proposal) -> String {
    let mut text = heading(proposal);
    for allow in &proposal.allow {
        text.push('\n');
        text.push_str(&statement(allow));
    }
    let mut by_why: BTreeMap<&Why, Vec<&Held>> = BTreeMap::new();
    for held in &proposal.held {
        by_why.entry(&held.why).or_default().push(held);
    }
    for (why, all) in by_why {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n# Not proposed: {}.\n", comment(&why.to_string()));
        for held in all.iter().take(SHOWN) {
            text.push_str("#\n");
            if let Some(seen) = &held.seen {
                let _ = writeln!(text, "## {seen}");
            }
            for line in held
                .allow
                .iter()
                .flat_map(|allow| statement(allow).lines().map(str::to_owned).collect::<Vec<_>>())
            {
                let _ = writeln!(text, "#{line}");
            }
        }
        if all.len() > SHOWN {
            let _ = writeln!(text, "#\n# … and {} more.", all.len() - SHOWN);
        }
    }
    text
}

/// The models file; empty when there is no model.
pub(super) fn models(
    proposal: &Proposal,
    models: &BTreeMap<String, LearnedModel>,
    catalogue: &Catalogue,
) -> String {
    if models.is_empty() {
        return String::new();
    }
    let mut text = heading(proposal);
    for model in models.values() {
        text.push('\n');
        text.push_str(&one_model(model, proposal.seen, catalogue));
    }
    text
}

/// The models alone, for trying them.
pub(super) fn bare_models(
    models: &BTreeMap<String, LearnedModel>,
    catalogue: &Catalogue,
) -> String {
    models.values().map(|model| one_model(model, None, catalogue)).collect()
}

fn heading(proposal: &Proposal) -> String {
    let list = |names: &[Text]| {
        let shown: Vec<&str> = names.iter().take(SHOWN).map(Text::as_str).collect();
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", shown.join(", "))
    };
    let mut text = String::from("# Proposed by `seawall learn`");
    let _ = match proposal.seen {
        Some(Span { first_us, last_us }) => {
            writeln!(text, " from what was seen from {} to {}.", time(first_us), time(last_us))
        }
        None => writeln!(text, "; nothing was seen."),
    };
    let _ = writeln!(text, "# Seeds: {}.", list(&proposal.seeds));
    if !proposal.related.is_empty() {
        let _ = writeln!(text, "# Seen to talk with them: {}.", list(&proposal.related));
    }
    text.push_str("# Read it before you use it: what was seen is not always what was meant.\n");
    text
}

fn statement(allow: &Allow) -> String {
    let mut text = format!("# {} ({})\n", comment(&allow.title), allow.confidence);
    for (traffic, evidence) in &allow.evidence {
        let _ = writeln!(text, "# {traffic}: {}", told(evidence));
    }
    let _ = writeln!(text, "[[allow]]");
    let _ = writeln!(text, "from = {}", strings(&allow.from, true));
    let _ = writeln!(text, "to = {}", strings(&allow.to, true));
    let ports: Vec<String> = allow.ports.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "ports = {}", strings(&ports, false));
    if let Some(helper) = allow.helper {
        let _ = writeln!(text, "{HELPER}{}", quoted(helper));
    }
    text
}

fn one_model(model: &LearnedModel, seen: Option<Span>, catalogue: &Catalogue) -> String {
    let mut text = String::new();
    if !model.own_ports.is_empty() {
        let ports: Vec<String> = model.own_ports.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "[services.{}]", key(&model.own_service));
        let _ = writeln!(text, "ports = {}\n", strings(&ports, false));
    }
    let names: Vec<&str> = model.workloads.iter().map(String::as_str).collect();
    let images: Vec<String> = model.images.iter().cloned().collect();
    let _ = writeln!(text, "# Learned from {} ({})", comment(&names.join(", ")), model.confidence);
    let _ = writeln!(text, "[models.{}]", key(&model.name));
    let title = format!("{} (learned)", images.first().map_or("", String::as_str));
    let _ = writeln!(text, "title = {}", quoted(&title));
    let _ = writeln!(text, "category = {}", quoted(CATEGORY));
    let _ = writeln!(text, "images = {}", strings(&images, false));
    let provided = |service: &LearnedService| {
        let name = &service.service;
        let usual = catalogue.service(name).map(|known| &known.ports);
        let is_usual = match usual {
            Some(usual) => *usual == service.ports,
            None => *name == model.own_service && service.ports == model.own_ports,
        };
        let ports: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
        let ports = match is_usual {
            true => String::new(),
            false => format!(", ports = {}", strings(&ports, false)),
        };
        let to: Vec<String> = service.to.iter().map(|model| format!("model:{model}")).collect();
        let to = strings(&to, false);
        let line = format!("{{ service = {}{ports}, to = {to} }}", quoted(name));
        (told_surely(&service.evidence, false), line)
    };
    let used =
        |(name, evidence): (&String, &Evidence)| (told_surely(evidence, false), quoted(name));
    text.push_str(&list("provides", model.provides.iter().map(provided)));
    text.push_str(&list("uses", model.uses.iter().map(used)));
    text.push_str(&list(
        "egress",
        model.egress.iter().map(|(ports, evidence)| {
            let ports = strings(&[ports.to_string()], false);
            let line = format!("{{ to = \"internet\", ports = {ports} }}");
            (told_surely(evidence, true), line)
        }),
    ));
    let day = |us: u64| time(us).chars().take_while(|c| *c != 'T').collect::<String>();
    let source = match seen {
        Some(Span { first_us, last_us }) => {
            format!("learned from traffic, {} to {}", day(first_us), day(last_us))
        }
        None => "learned from traffic".to_owned(),
    };
    let _ = writeln!(text, "source = {}", quoted(&source));
    text
}

/// A list with a comment before each item.
fn list(name: &str, items: impl Iterator<Item = (String, String)>) -> String {
    let lines: Vec<String> =
        items.map(|(told, line)| format!("    # {told}\n    {line},\n")).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("{name} = [\n{}]\n", lines.concat()),
    }
}

fn told_surely(evidence: &Evidence, is_general: bool) -> String {
    format!("{}; {}", Confidence::of(evidence, is_general), told(evidence))
}

/// Evidence in one line.
fn told(evidence: &Evidence) -> String {
    let mut text = match evidence.connections {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
    if evidence.channels > 0 {
        let _ = write!(text, " with {} data channels", evidence.channels);
    }
    let _ = write!(text, " from {} to {}", time(evidence.first_us), time(evidence.last_us));
    if evidence.unanswered > 0 {
        let _ = write!(text, ", {} unanswered", evidence.unanswered);
    }
    let (out, back) = (bytes(evidence.bytes_out), bytes(evidence.bytes_in));
    let _ = write!(text, ", {out} out, {back} back");
    if !evidence.peers.is_empty() {
        let named: Vec<&str> = evidence.peers.iter().take(NAMED_PEERS).map(Text::as_str).collect();
        let _ = write!(text, "; {}", named.join(", "));
        if evidence.peers.len() > NAMED_PEERS {
            let _ = write!(text, " and {} more", evidence.peers.len() - NAMED_PEERS);
        }
    }
    text
}

/// A moment as UTC.
fn time(microseconds: u64) -> String {
    utc(microseconds / 1_000_000)
}

/// A size for people, in powers of 1000.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (count / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A text that ends no comment and starts nothing else.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A TOML basic string, on one line whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            other if other.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A TOML key. Names of models and services may hold dots.
fn key(name: &str) -> String {
    let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A TOML list of strings; one alone needs no brackets where `is_short`.
fn strings(list: &[String], is_short: bool) -> String {
    match list {
        [one] if is_short => quoted(one),
        all => format!("[{}]", all.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let shown = [0, 999, 1000, 1_234_567, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 MB", "18.4 EB"]);
    }

    #[test]
    fn values_read_back_as_they_were() {
        for text in ["a", "a\"b'c", "\\", "\u{1b}[2J", "line\nbreak", "'''", ""] {
            let document = format!("x = {}", quoted(text));
            assert_eq!(document.lines().count(), 1, "{document}");
            let read: toml::Table = document.parse().unwrap();
            assert_eq!(read["x"].as_str(), Some(text));
        }
    }
}
