//! `seawall status`: what the running daemon knows, decided and has in force.

use clap::Args;

use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
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
    lines.push(
        "first packets: not guaranteed. Containers are programmed when they are created, which may be after their first packets"
            .to_owned(),
    );
    if let Some(error) = &report.configuration_error {
        let told =
            format!("configuration on disk refused, the last good one is in force:\n{error}");
        lines.push(output::paint(Colour::Bad, &told));
    }
    lines.push(String::new());
    if report.workloads.is_empty() {
        lines.push("no containers".to_owned());
    } else {
        let rows: Vec<Vec<String>> = report.workloads.iter().map(row).collect();
        let header =
            ["WORKLOAD", "CONTAINER", "MODEL", "MODE", "DENIED IN", "DENIED OUT", "COVERAGE"];
        lines.push(output::table(&header, &rows));
    }
    lines.join("\n")
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
        workload.coverage.clone(),
    ]
}

fn change(entry: &Entry) -> String {
    let kind = match (entry.is_repair, entry.is_elements_only) {
        (true, _) => "repair",
        (false, true) => "elements only",
        (false, false) => "ruleset",
    };
    let revoking = if entry.is_revoking { ", revokes" } else { "" };
    let mut lines = vec![format!(
        "{} {} ({}): {kind}{revoking}, {} operations, {} µs",
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

/// Seconds since 1970 as UTC (days to civil date as in RFC 3339, proleptic Gregorian calendar).
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time % 3600 / 60, time % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
