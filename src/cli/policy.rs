//! `seawall policy`: the declarative policy, in application terms.

use super::facts::FactsArgs;
use super::{CommandError, Exit, Global, Output, output};
use crate::policy::{Policy, text};

pub(super) async fn policy(global: &Global, args: &FactsArgs) -> Result<Exit, CommandError> {
    let facts = args.gather(global).await?;
    let selected = args.target.select(&facts.inventory)?;
    let policies: Vec<&Policy> = selected
        .into_iter()
        .filter_map(|workload| facts.desired.policies.policies.get(&workload.id))
        .collect();
    match global.output {
        Output::Json => output::json(&policies)?,
        Output::Human if policies.is_empty() => output::print("no containers"),
        Output::Human => output::print(&text::render(policies)),
    }
    Ok(Exit::Done)
}
