//! `seawall suggest-group`: what some workloads have in common and no others have, as selectors.

use std::path::PathBuf;

use clap::Args;

use super::choose::choose;
use super::facts::gather_with;
use super::{CommandError, Exit, Global, Output, output, read_files};
use crate::model::Catalogue;
use crate::observe::learn::{Group, Known, suggest_group};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall suggest-group shop/api shop/worker
  seawall suggest-group 'label:team=data' --from examples/shop/inspect.json

Exit code: 0 when a selector means these and no others, 1 when there is none.")]
pub(super) struct SuggestArgs {
    /// The members: selectors such as `project:shop service:api`, container names, ids, project/service or projects.
    #[arg(value_name = "SELECTOR", required = true)]
    members: Vec<String>,
    /// Read facts from a file: saved `docker inspect` output, a compose file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
}

pub(super) async fn suggest(global: &Global, args: &SuggestArgs) -> Result<Exit, CommandError> {
    let files = read_files(global)?;
    let facts = gather_with(files.load(Catalogue::with_files)?, &args.from).await?;
    let known = Known::new(&facts.inventory, &files)?;
    let members = choose(&args.members, &known)?;
    let group = suggest_group(&members, &known);
    match global.output {
        Output::Json => output::json(&group)?,
        Output::Human => output::print(&told(&group)),
    }
    Ok(if group.selectors.is_empty() { Exit::Difference } else { Exit::Done })
}

fn told(group: &Group) -> String {
    let names: Vec<&str> = group.members.iter().map(crate::input::Text::as_str).collect();
    let mut lines = vec![format!("members: {}", names.join(", "))];
    match group.selectors.is_empty() {
        true => {
            lines.push("no selector means these and no others; name them in a list:".to_owned());
            lines.extend(group.one_by_one.iter().map(|selector| format!("  {selector}")));
        }
        false => {
            lines.push("selectors that mean these and no others, best first:".to_owned());
            lines.extend(group.selectors.iter().map(|selector| format!("  {selector}")));
        }
    }
    if !group.shared.is_empty() {
        lines.push("what all of them have:".to_owned());
        lines.extend(group.shared.iter().map(|attribute| format!("  {attribute}")));
    }
    lines.join("\n")
}
