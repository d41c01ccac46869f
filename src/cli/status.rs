//! `seawall status`: what the running daemon knows, decided and has in force.

use clap::Args;

use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::input::time::utc;
use crate::reconcile::{Entry, StatusReport, WorkloadStatus};

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Only this one: container name, id, project/service, or project.
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Wait until everything the daemon knows of is programmed.
    #[arg(long)]
    wait: bool,
    /// Show the last changes of rulesets instead.
    #[arg(long)]
    changes: bool,
}

pub(super) async fn status(global: &Global, args: &StatusArgs) -> Result<Exit, CommandError> {
    let client = Client::new(&global.socket);
    if args.wait {
        client.settled().await?;
    }
    if args.changes {
        let mut entries = client.journal().await?;
        entries.retain(|entry| is_meant(args, &entry.id, &entry.workload, ""));
        match global.output {
            Output::Json => output::json(&entries)?,
            Output::Human => entries.iter().for_each(|entry| output::print(&change(entry))),
        }
        return Ok(Exit::Done);
    }
    let mut report = client.status().await?;
    report.workloads.retain(|one| is_meant(args, &one.id, &one.name, &one.display_name));
    if report.workloads.is_empty()
        && let Some(target) = &args.target
    {
        return Err(CommandError::Usage(anyhow::anyhow!(
            "the daemon knows no workload called `{target}`"
        )));
    }
    match global.output {
        Output::Json => output::json(&report)?,
        Output::Human => output::print(&text(&report)),
    }
    Ok(Exit::Done)
}

fn is_meant(args: &StatusArgs, id: &str, name: &str, display_name: &str) -> bool {
    let Some(target) = &args.target else { return true };
    let is_project = display_name.split_once('/').is_some_and(|(project, _)| project == target);
    id.starts_with(target.as_str()) || name == target || display_name == target || is_project
}

fn text(report: &StatusReport) -> String {
    let mut lines = vec![format!("seawall {}, mode {}", report.version, report.mode)];
    for source in &report.sources {
        lines.push(match &source.error {
            None => format!("{}: connected", source.name),
            Some(error) => output::paint(Colour::Warning, &format!("{}: {error}", source.name)),
        });
    }
    lines.push(first_packets(report));
    if let Some(error) = &report.configuration_error {
        let told =
            format!("configuration on disk refused, the last good one is in force:\n{error}");
        lines.push(output::paint(Colour::Bad, &told));
    }
    for problem in &report.problems {
        lines.push(output::paint(Colour::Warning, &format!("what was seen: {problem}")));
    }
    lines.push(String::new());
    if report.workloads.is_empty() {
        lines.push("no containers".to_owned());
    } else {
        let rows: Vec<Vec<String>> = report.workloads.iter().map(row).collect();
        let header = [
            "WORKLOAD",
            "CONTAINER",
            "MODEL",
            "MODE",
            "DENIED IN",
            "DENIED OUT",
            "RAW",
            "COVERAGE",
        ];
        lines.push(output::table(&header, &rows));
        let foreign = report.workloads.iter().flat_map(|one| {
            one.foreign.iter().map(|chain| format!("{}: another's {chain}", one.display_name))
        });
        lines.extend(foreign);
    }
    lines.join("\n")
}

/// Whether first packets met a policy. Every way to say it is told apart: a guarantee nobody checked is none.
fn first_packets(report: &StatusReport) -> String {
    let running: Vec<_> =
        report.workloads.iter().filter(|one| one.pid.is_some() && one.mode != "off").collect();
    let count = |wanted| running.iter().filter(|one| one.has_waited == wanted).count();
    let (waited, late, unknown) = (count(Some(true)), count(Some(false)), count(None));
    let mut parts =
        vec![format!("{waited} of {} containers waited for their policy", running.len())];
    if late > 0 {
        let late =
            format!("{late} did not, and may have talked before it (`seawall runtime status`)");
        parts.push(output::paint(Colour::Warning, &late));
    }
    if unknown > 0 {
        parts.push(format!("{unknown} ran before this daemon did"));
    }
    format!("first packets: {}", parts.join("; "))
}

fn row(workload: &WorkloadStatus) -> Vec<String> {
    let model = match &workload.model {
        Some(model) => format!("{model} {} %", workload.confidence_percent),
        None => "unknown".to_owned(),
    };
    vec![
        workload.display_name.clone(),
        workload.name.clone(),
        model,
        workload.mode.clone(),
        workload.denied_in.to_string(),
        workload.denied_out.to_string(),
        workload.denied_raw.to_string(),
        workload.coverage.clone(),
    ]
}

fn change(entry: &Entry) -> String {
    let kind = match (entry.is_repair, entry.is_elements_only) {
        _ if entry.operations == 0 => "by others",
        (true, _) => "repair",
        (false, true) => "elements only",
        (false, false) => "ruleset",
    };
    let revoking = if entry.is_revoking { ", revokes" } else { "" };
    let by = entry.by.as_ref().map(|by| format!(" after {by}")).unwrap_or_default();
    let times = if entry.times > 1 { format!(", {} times", entry.times) } else { String::new() };
    let mut lines = vec![format!(
        "{} {} ({}): {kind}{by}{times}{revoking}, {} operations, {} µs",
        utc(entry.committed_us / 1_000_000),
        entry.workload,
        entry.id.chars().take(12).collect::<String>(),
        entry.operations,
        entry.took_us
    )];
    lines.extend(entry.changes.iter().take(10).map(|operation| format!("    {operation}")));
    if entry.operations > 10 {
        lines.push(format!("    … and {} more", entry.operations - 10));
    }
    lines.join("\n")
}
