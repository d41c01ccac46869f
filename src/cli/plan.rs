//! `seawall plan`: the ruleset that would be applied, as nftables text.

use serde::Serialize;

use super::facts::{Facts, FactsArgs};
use super::{CommandError, Exit, Global, Output, output};
use crate::compile::Ruleset;
use crate::metadata::{NetworkMode, Workload};
use crate::nft::render;
use crate::policy::Mode;

/// One workload's plan.
#[derive(Serialize)]
struct Plan<'a> {
    id: &'a str,
    workload: &'a str,
    mode: Mode,
    /// Why there is no ruleset, when there is none.
    skipped: Option<&'static str>,
    nft: Option<String>,
    ruleset: Option<&'a Ruleset>,
    /// Its guard against raw sockets, where it has one and its links are known.
    guard: Option<Ruleset>,
}

pub(super) async fn plan(global: &Global, args: &FactsArgs) -> Result<Exit, CommandError> {
    let facts = args.gather(global).await?;
    let selected = args.target.select(&facts.inventory)?;
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
    let ruleset = facts.desired.rulesets.get(&workload.id);
    let guard = facts.guard(&workload.id);
    let skipped = match (&workload.network_mode, ruleset) {
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
