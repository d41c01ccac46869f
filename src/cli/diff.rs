//! `seawall diff`: how what the kernel holds differs from what is wanted.

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::facts::{TargetArgs, gather};
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::compile::{Generation, Ruleset};
use crate::nft::render;
use crate::reconcile::Kernel;
use crate::reconcile::desired::is_running;

#[derive(Serialize)]
struct Difference {
    id: String,
    workload: String,
    /// Lines: ` ` both, `-` in the kernel only, `+` wanted only.
    lines: Vec<String>,
    /// What `seawall apply` would do.
    changes: Vec<String>,
}

pub(super) async fn diff(global: &Global, args: &TargetArgs) -> Result<Exit, CommandError> {
    let facts = gather(global, &[]).await?;
    let kernel = Kernel::start()?;
    let mut differences = Vec::new();
    for workload in args.select(&facts.inventory)? {
        let Some(netns) = workload.netns.as_ref().filter(|_| is_running(workload)) else {
            continue;
        };
        if workload.network_mode != crate::metadata::NetworkMode::Own
            && workload.network_mode != crate::metadata::NetworkMode::None
        {
            continue;
        }
        let held = match kernel.read(netns.pid) {
            Ok((held, _)) => (held.ruleset, held.guard),
            Err(failure) if failure.is_gone() => continue,
            Err(failure) => return Err(CommandError::System(failure.into())),
        };
        let wanted = facts.table(&workload.id);
        let wanted = wanted.as_deref();
        let guard = facts.guard(&workload.id);
        let transaction = crate::nft::plan(held.0.as_ref(), wanted)
            .with(crate::nft::plan(held.1.as_ref(), guard.as_ref()));
        if transaction.is_empty() {
            continue;
        }
        let changes = transaction.described().collect();
        let label = facts.desired.policies.policies.get(&workload.id).map(|policy| &policy.label);
        differences.push(Difference {
            id: workload.id.to_string(),
            workload: label.unwrap_or(&workload.name).to_string(),
            lines: [lines(held.0.as_ref(), wanted), lines(held.1.as_ref(), guard.as_ref())]
                .concat(),
            changes,
        });
    }
    match global.output {
        Output::Json => output::json(&differences)?,
        Output::Human => differences.iter().for_each(print),
    }
    Ok(if differences.is_empty() { Exit::Done } else { Exit::Difference })
}

/// Three lines of context around every change. The generation is no difference: it counts revocations.
fn lines(held: Option<&Ruleset>, wanted: Option<&Ruleset>) -> Vec<String> {
    let text = |ruleset: Option<&Ruleset>| {
        ruleset
            .map(|ruleset| render(&ruleset.clone().at_generation(Generation::FIRST)))
            .map(|text| a_line_each(&text))
            .unwrap_or_default()
    };
    let (held, wanted) = (text(held), text(wanted));
    let diff = TextDiff::from_lines(&held, &wanted);
    let groups = diff.grouped_ops(3);
    let mut lines = Vec::new();
    for group in groups {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            lines.push(format!("{sign}{}", change.value().trim_end_matches('\n')));
        }
    }
    lines
}

/// Puts every element on a line of its own, with nothing but itself: one that comes or goes changes no other line.
fn a_line_each(text: &str) -> String {
    let mut lines = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        let first = line.strip_prefix("\t\telements = { ");
        if first.is_some() {
            lines.push("\t\telements = {".to_owned());
            is_within = true;
        }
        let element = first.unwrap_or(line).trim_start();
        match element.strip_suffix(" }").filter(|_| is_within) {
            _ if !is_within => lines.push(line.to_owned()),
            None => lines.push(format!("\t\t\t{}", element.trim_end_matches(','))),
            Some(last) => {
                lines.extend([format!("\t\t\t{last}"), "\t\t}".to_owned()]);
                is_within = false;
            }
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn print(difference: &Difference) {
    output::print(&output::paint(
        Colour::Bold,
        &format!("{} ({})", difference.workload, difference.id),
    ));
    output::print("--- in the kernel\n+++ wanted");
    for line in &difference.lines {
        output::print(&match line.chars().next() {
            Some('-') => output::paint(Colour::Bad, line),
            Some('+') => output::paint(Colour::Good, line),
            _ => line.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_a_line_of_its_own() {
        let text = "table {\n\t\tcounter\n\t\telements = { 1 . tcp comment \"a, }\",\n\t\t\t     2 }\n\t}\n\t\telements = { 3 }\n";
        let expected = "table {\n\t\tcounter\n\t\telements = {\n\t\t\t1 . tcp comment \"a, }\"\n\t\t\t2\n\t\t}\n\t}\n\
                        \t\telements = {\n\t\t\t3\n\t\t}\n";
        assert_eq!(a_line_each(text), expected);
    }
}
