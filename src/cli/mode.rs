//! `seawall mode`: what is done to workloads, set at run time.

use clap::{Args, ValueEnum};

use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::config::modes::{ModeChange, ModeSetting};
use crate::reconcile::StatusReport;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall mode                              what was set
  seawall mode project:shop enforce         deny what is not allowed, in the whole project
  seawall mode shop/api observe             one service of it: deny nothing, tell what would be
  seawall mode project:shop default         back to what the files say

A mode set here counts after those of policy.d, and stays when the daemon or the machine restarts.")]
pub(super) struct ModeArgs {
    /// Which workloads: a selector as in policy files, or project/service.
    #[arg(value_name = "SELECTOR", requires = "mode")]
    selector: Option<String>,
    /// What is done to them.
    #[arg(value_enum)]
    mode: Option<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// Nothing is denied; what would be is told.
    Observe,
    /// What is not allowed is denied.
    Enforce,
    /// Not touched at all.
    Off,
    /// What the files say.
    Default,
}

impl Word {
    fn mode(self) -> Option<String> {
        match self {
            Self::Observe => Some("observe".to_owned()),
            Self::Enforce => Some("enforce".to_owned()),
            Self::Off => Some("off".to_owned()),
            Self::Default => None,
        }
    }
}

pub(super) async fn mode(global: &Global, args: &ModeArgs) -> Result<Exit, CommandError> {
    let client = Client::new(&global.socket);
    let (Some(selector), Some(word)) = (&args.selector, args.mode) else {
        let modes = client.modes().await?;
        match global.output {
            Output::Json => output::json(&modes)?,
            Output::Human => output::print(&list(&modes)),
        }
        return Ok(Exit::Done);
    };
    let select = selector_of(selector)?;
    let before = client.status().await?;
    let change = ModeChange { select, mode: word.mode() };
    let modes = client.set_mode(&change).await.map_err(refused)?;
    client.settled().await?;
    let after = client.status().await?;
    match global.output {
        Output::Json => output::json(&modes)?,
        Output::Human => output::print(&told(&change, &before, &after)),
    }
    Ok(Exit::Done)
}

/// A refusal is about what was asked for.
fn refused(error: crate::api::client::ClientError) -> CommandError {
    match error {
        crate::api::client::ClientError::Refused(_) => CommandError::Usage(error.into()),
        other => other.into(),
    }
}

/// The selector a word means: `project/service` is short for one.
pub(super) fn selector_of(word: &str) -> Result<String, CommandError> {
    if word.contains(':') || word == "any" {
        return Ok(word.to_owned());
    }
    match word.split_once('/') {
        Some((project, service)) => Ok(format!("project:{project} service:{service}")),
        None => Err(CommandError::Usage(anyhow::anyhow!(
            "`{word}` is no selector; write name:{word} for a container, project:{word} for a project, or any"
        ))),
    }
}

fn list(modes: &[ModeSetting]) -> String {
    if modes.is_empty() {
        return "no mode was set at run time; the configuration says what is done".to_owned();
    }
    let rows: Vec<Vec<String>> =
        modes.iter().map(|one| vec![one.select.clone(), one.mode.clone()]).collect();
    output::table(&["SELECTOR", "MODE"], &rows)
}

fn told(change: &ModeChange, before: &StatusReport, after: &StatusReport) -> String {
    let mode = change.mode.as_deref().unwrap_or("what the files say");
    let mut lines = vec![format!("the mode of `{}` is {mode}", change.select)];
    for workload in &after.workloads {
        let former = before.workloads.iter().find(|one| one.id == workload.id);
        let Some(former) = former.filter(|former| former.mode != workload.mode) else { continue };
        lines.push(format!(
            "  {} ({}): {} → {}",
            workload.display_name, workload.name, former.mode, workload.mode
        ));
    }
    if lines.len() == 1 {
        lines.push("  no container changed its mode by that".to_owned());
    }
    lines.join("\n")
}
