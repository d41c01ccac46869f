//! `seawall plan`: the ruleset that would be applied, as nftables text; or a staged policy tried on what was seen.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::facts::{Facts, FactsArgs, gather_with};
use super::observed::{self, SeenArgs};
use super::{CommandError, Exit, Global, Output, output, read_files};
use crate::compile::Ruleset;
use crate::metadata::{NetworkMode, Workload};
use crate::model::Catalogue;
use crate::nft::render;
use crate::observe::learn::with_files;
use crate::policy::Mode;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall plan --from examples/shop/compose.yaml
  seawall plan shop/db                     the running container, as root
  seawall plan --policy staged.toml shop/db
  seawall plan --policy staged.toml --against-observed

Exit code: 0; with --against-observed 1 when something that was seen would be denied.")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// A policy file to try as if it lay in policy.d; one of the same name there is left out.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Tell which connections that were seen it would deny, instead of the ruleset.
    #[arg(long)]
    against_observed: bool,
    #[command(flatten)]
    seen: SeenArgs,
}

/// One workload's plan.
#[derive(Serialize)]
struct Plan<'a> {
    id: &'a str,
    workload: &'a str,
    mode: Mode,
    /// Why there is no ruleset, when there is none.
    skipped: Option<&'static str>,
    nft: Option<String>,
    ruleset: Option<Cow<'a, Ruleset>>,
    /// Its guard against raw sockets, where it has one and its links are known.
    guard: Option<Ruleset>,
}

pub(super) async fn plan(global: &Global, args: &PlanArgs) -> Result<Exit, CommandError> {
    let staged = observed::read_staged(&args.policy)?;
    let files = with_files(&read_files(global)?, &[], &staged);
    let facts = gather_with(files.load(Catalogue::with_files)?, &args.facts.from).await?;
    if args.against_observed {
        let seen = args.seen.flows(global).await?;
        return observed::against(global, &facts, &files, &args.policy, &seen);
    }
    let selected = args.facts.target.select(&facts.inventory)?;
    let plans: Vec<Plan<'_>> = selected.into_iter().map(|workload| one(&facts, workload)).collect();
    if global.output == Output::Json {
        output::json(&plans)?;
        return Ok(Exit::Done);
    }
    if plans.is_empty() {
        output::print("# no containers");
    }
    for plan in &plans {
        output::print(&text(plan, facts.has_placeholders));
    }
    Ok(Exit::Done)
}

fn one<'a>(facts: &'a Facts, workload: &'a Workload) -> Plan<'a> {
    let policy = facts.desired.policies.policies.get(&workload.id);
    let ruleset = facts.table(&workload.id);
    let guard = facts.guard(&workload.id);
    let skipped = match (&workload.network_mode, &ruleset) {
        (NetworkMode::Host, _) => Some("it uses the host's network, which is never filtered"),
        (NetworkMode::Container(_), _) => {
            Some("it lives in another container's network namespace; see there")
        }
        (_, None) => Some("its mode is off"),
        (_, Some(_)) => None,
    };
    Plan {
        id: workload.id.as_str(),
        workload: policy.map_or(workload.name.as_str(), |policy| policy.label.as_str()),
        mode: policy.map_or(Mode::Off, |policy| policy.mode),
        skipped,
        nft: ruleset
            .as_ref()
            .map(|ruleset| guard.iter().fold(render(ruleset), |text, one| text + &render(one))),
        ruleset,
        guard,
    }
}

fn text(plan: &Plan<'_>, has_placeholders: bool) -> String {
    let mut text = format!("# {}: {}\n", plan.workload, plan.mode);
    if let Some(reason) = plan.skipped {
        text.push_str(&format!("# no ruleset: {reason}\n"));
    } else if has_placeholders {
        text.push_str("# addresses are placeholders: a compose file has none\n");
    }
    text.push_str(plan.nft.as_deref().unwrap_or_default());
    text
}
