//! `seawall flows`: the connections that were made.

use std::collections::BTreeMap;

use clap::Args;

use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::input::time::utc;
use crate::observe::{Carried, End, Flow, Party, Said};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall flows                     all that is on record, most recent last
  seawall flows shop                those of a project
  seawall flows --would-deny        those that passed in observe and are denied in enforce
  seawall flows --output json > flows.json")]
pub(super) struct FlowsArgs {
    /// Only of this: container name, project/service, or project; at either end.
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Only those that passed in observe and are denied in enforce.
    #[arg(long)]
    would_deny: bool,
}

pub(super) async fn flows(global: &Global, args: &FlowsArgs) -> Result<Exit, CommandError> {
    let mut flows = Client::new(&global.socket).flows().await?;
    flows.retain(|flow| {
        let is_meant = |target: &String| {
            [&flow.key.client, &flow.key.server].iter().any(|one| is_named(one, target))
        };
        args.target.as_ref().is_none_or(is_meant)
            && (!args.would_deny || flow.key.said == Said::WouldDeny)
    });
    match global.output {
        Output::Json => output::json(&flows)?,
        Output::Human => output::print(&table(&flows)),
    }
    Ok(Exit::Done)
}

/// Whether a word names a party, or its project.
pub(super) fn is_named(party: &Party, word: &str) -> bool {
    match party {
        Party::Workload { name, .. } => {
            let project = name.as_str().split_once('/').map(|(project, _)| project);
            name.as_str() == word || project == Some(word)
        }
        Party::Host => word == "host",
        Party::Address { address, name } => {
            address.to_string() == word || name.as_ref().is_some_and(|name| name.as_str() == word)
        }
    }
}

/// Who, whom, on what, and whether by a data channel.
type Row<'a> = (&'a Party, &'a Party, Carried, bool);

fn table(flows: &[Flow]) -> String {
    if flows.is_empty() {
        return "no connection is on record".to_owned();
    }
    // Between two workloads a connection is seen at both ends: the client's counts, and the stricter word.
    let mut rows: BTreeMap<Row<'_>, Vec<&Flow>> = BTreeMap::new();
    for flow in flows {
        let key = &flow.key;
        let row = (&key.client, &key.server, key.carried, key.master.is_some());
        rows.entry(row).or_default().push(flow);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, seen)| seen.iter().map(|flow| flow.last_us).max());
    let rows: Vec<Vec<String>> = rows.iter().map(|(row, seen)| cells(row, seen)).collect();
    let header =
        ["CLIENT", "SERVER", "PORT", "POLICY", "CONNECTIONS", "UNANSWERED", "OUT", "IN", "LAST"];
    output::table(&header, &rows)
}

fn cells((client, server, carried, is_data): &Row<'_>, seen: &[&Flow]) -> Vec<String> {
    let has_client = seen.iter().any(|flow| flow.key.end == End::Client);
    let counted = || seen.iter().filter(|flow| !has_client || flow.key.end == End::Client);
    let sum = |of: fn(&Flow) -> u64| counted().map(|flow| of(flow)).sum::<u64>();
    let would_deny = seen.iter().any(|flow| flow.key.said == Said::WouldDeny);
    let last = seen.iter().map(|flow| flow.last_us).max().unwrap_or_default();
    let word = match would_deny {
        true => output::paint(Colour::Warning, "would deny"),
        false => "allowed".to_owned(),
    };
    let data = if *is_data { " (data)" } else { "" };
    vec![
        client.to_string(),
        server.to_string(),
        format!("{carried}{data}"),
        word,
        sum(|flow| flow.connections).to_string(),
        sum(|flow| flow.unanswered).to_string(),
        bytes(sum(|flow| flow.bytes_out)),
        bytes(sum(|flow| flow.bytes_in)),
        utc(last / 1_000_000),
    ]
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"KiB");
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_people_write_them() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected);
        }
    }
}
