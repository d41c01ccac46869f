//! `seawall apply`: one reconcile pass, then exit; with a proposal, see `proposal`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::facts::gather;
use super::{CommandError, Exit, Global, Output, output, proposal};
use crate::api::Client;
use crate::metadata::{NetworkMode, Workload};
use crate::reconcile::desired::is_running;
use crate::reconcile::{Kernel, Target};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall apply                      one pass over every container, without a daemon
  seawall learn --seed shop --write ./shop && seawall apply ./shop

Without PROPOSAL_DIR, as root and without a daemon. With it, its files are checked together with all others, copied to
policy.d/learned-NAME.toml and models.d/learned-NAME.toml, and a running daemon reads them.")]
pub(super) struct ApplyArgs {
    /// A folder that `seawall learn --write` made.
    #[arg(value_name = "PROPOSAL_DIR")]
    proposal: Option<PathBuf>,
}

#[derive(Serialize)]
struct Done {
    id: String,
    workload: String,
    changes: Vec<String>,
    took_us: u64,
    error: Option<String>,
}

pub(super) async fn apply(global: &Global, args: &ApplyArgs) -> Result<Exit, CommandError> {
    if let Some(folder) = &args.proposal {
        return proposal::apply(global, folder).await;
    }
    if Client::new(&global.socket).is_running().await {
        return Err(CommandError::System(anyhow::anyhow!(
            "the daemon on {} keeps every container up to date and owns their tables: nothing is to apply beside it. \
             Changed configuration it reads with `seawall reload`; `seawall diff` shows differences",
            global.socket.display()
        )));
    }
    let facts = gather(global, &[]).await?;
    let kernel = Kernel::start()?.with_ownership(facts.ownership);
    let mut results = Vec::new();
    for workload in facts.inventory.iter().filter(|workload| has_own_netns(workload)) {
        let Some(netns) = &workload.netns else { continue };
        let mut target = Target {
            owner: workload.id.clone(),
            pid: netns.pid,
            process: None,
            wanted: facts.desired.wanted(&workload.id),
            is_fresh: false,
            known: None,
            socket: None,
            watching: None,
        };
        let (changes, took, error) = match kernel.apply(&mut target) {
            Ok(applied) => {
                let changes = applied.transaction.described().collect();
                (changes, applied.took, None)
            }
            Err(failure) if failure.is_gone() => continue,
            Err(failure) => (Vec::new(), std::time::Duration::ZERO, Some(failure.chain())),
        };
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let workload_name = workload.display_name().to_string();
        results.push(Done {
            id: workload.id.to_string(),
            workload: workload_name,
            changes,
            took_us,
            error,
        });
    }
    match global.output {
        Output::Json => output::json(&results)?,
        Output::Human => print(&results),
    }
    match results.iter().find_map(|done| done.error.as_ref().map(|error| (&done.workload, error))) {
        None => Ok(Exit::Done),
        Some((workload, error)) => {
            Err(CommandError::System(anyhow::anyhow!("{workload} is not programmed: {error}")))
        }
    }
}

fn has_own_netns(workload: &Workload) -> bool {
    is_running(workload) && matches!(workload.network_mode, NetworkMode::Own | NetworkMode::None)
}

fn print(results: &[Done]) {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|done| {
            let what = match (&done.error, done.changes.len()) {
                (Some(error), _) => error.clone(),
                (None, 0) => "nothing to change".to_owned(),
                (None, 1) => "1 change".to_owned(),
                (None, count) => format!("{count} changes"),
            };
            let short = done.id.chars().take(12).collect();
            vec![done.workload.clone(), short, what, format!("{} µs", done.took_us)]
        })
        .collect();
    if rows.is_empty() {
        output::print("no running containers");
    } else {
        output::print(&output::table(&["WORKLOAD", "ID", "DONE", "TOOK"], &rows));
    }
}
