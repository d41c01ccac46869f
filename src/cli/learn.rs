//! `seawall learn`: policy proposed from what was seen. It changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use similar::TextDiff;

use super::choose::choose;
use super::facts::gather_with;
use super::observed::{self, Seen, SeenArgs, duration, records};
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output, read_files};
use crate::model::Catalogue;
use crate::observe::learn::{Known, Options, Proposal, propose};

/// The files of a proposal.
pub(super) const POLICY: &str = "policy.toml";
pub(super) const MODELS: &str = "models.toml";

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall learn --seed project:shop                     from everything on record
  seawall learn --seed shop/api --for 10m               from what is said in the next ten minutes
  seawall learn --seed shop --write ./shop              and keep the proposal for `seawall apply ./shop`
  seawall flows --output json > flows.json
  seawall learn --seed shop --flows flows.json --from examples/shop/inspect.json

Nothing is applied. Statements under `Not proposed` stand as comments: scans, what nobody answered, what was seen once.")]
pub(super) struct LearnArgs {
    /// Where to start: a selector such as `project:shop service:api`, a container name, id, project/service or project.
    #[arg(long, value_name = "SELECTOR", required = true)]
    seed: Vec<String>,
    /// Watch for this long (90s, 10m, 2h) and use what is seen in that time. Ctrl-C ends it early.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with_all = ["flows", "denials"])]
    watched: Option<Duration>,
    /// As many connections make something worth a statement.
    #[arg(long, value_name = "N", default_value_t = 3)]
    min_connections: u64,
    /// Propose what was denied, and so never took place, as well.
    #[arg(long)]
    include_denied: bool,
    /// Write policy.toml and models.toml, as far as there is something in them, to this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    seen: SeenArgs,
    /// Read denials from a file: a JSON list, as the daemon answers GET /v1/denials.
    #[arg(long, value_name = "FILE")]
    denials: Option<PathBuf>,
    /// Read facts from a file: saved `docker inspect` output, a compose file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
}

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    proposal: &'a Proposal,
    diff: String,
    written: &'a [PathBuf],
}

pub(super) async fn learn(global: &Global, args: &LearnArgs) -> Result<Exit, CommandError> {
    let files = read_files(global)?;
    let loaded = files.load(Catalogue::with_files)?;
    let seen = args.seen(global).await?;
    // Asked after watching: who was started meanwhile is known then.
    let facts = gather_with(loaded, &args.from).await?;
    let known = Known::new(&facts.inventory, &files)?;
    let seeds = choose(&args.seed, &known)?;
    let options =
        Options { min_connections: args.min_connections, include_denied: args.include_denied };
    let proposal = propose(&seen.flows, &seen.denials, &seeds, &facts.inventory, &files, &options)?;
    let written = match &args.write {
        Some(folder) => write(folder, &proposal)?,
        None => Vec::new(),
    };
    let diff = TextDiff::from_lines(proposal.before.as_str(), proposal.after.as_str())
        .unified_diff()
        .header("in force", "with the proposal")
        .to_string();
    match global.output {
        Output::Json => output::json(&Answer { proposal: &proposal, diff, written: &written })?,
        Output::Human => output::print(&told(&proposal, &diff, &written)),
    }
    Ok(Exit::Done)
}

impl LearnArgs {
    async fn seen(&self, global: &Global) -> Result<Seen, CommandError> {
        match (&self.seen.flows, &self.denials, self.watched) {
            (None, None, Some(lasts)) => observed::from_now(global, lasts).await,
            (None, None, None) => observed::on_record(global).await,
            (flows, denials, _) => Ok(Seen {
                flows: flows.as_deref().map(records).transpose()?.unwrap_or_default(),
                denials: denials.as_deref().map(records).transpose()?.unwrap_or_default(),
            }),
        }
    }
}

fn told(proposal: &Proposal, diff: &str, written: &[PathBuf]) -> String {
    let mut parts = Vec::new();
    if proposal.seen.is_none() {
        parts.push("nothing was seen of these workloads".to_owned());
    } else if proposal.is_empty() {
        parts.push(
            "nothing is missing: what was seen is allowed already, or not believed".to_owned(),
        );
    }
    for (name, text) in [(MODELS, &proposal.models_toml), (POLICY, &proposal.policy_toml)] {
        if !text.is_empty() {
            let title = output::paint(Colour::Bold, &format!("# ---- {name}"));
            parts.push(format!("{title}\n{}", text.trim_end()));
        }
    }
    if !proposal.unmet.is_empty() {
        let lines: Vec<String> = proposal.unmet.iter().map(|what| format!("#   {what}")).collect();
        parts.push(format!("# Denied all the same:\n{}", lines.join("\n")));
    }
    if !diff.is_empty() {
        let coloured: Vec<String> = diff.lines().map(painted).collect();
        let title = output::paint(Colour::Bold, "# ---- what it changes");
        parts.push(format!("{title}\n{}", coloured.join("\n")));
    }
    for path in written {
        parts.push(format!("written: {}", path.display()));
    }
    parts.join("\n\n")
}

fn painted(line: &str) -> String {
    match line.chars().next() {
        Some('+') => output::paint(Colour::Good, line),
        Some('-') => output::paint(Colour::Bad, line),
        _ => line.to_owned(),
    }
}

/// Writes the files that have something to say. Returns which; one that has nothing to say and is there is an error, because
/// it would be applied with the others.
fn write(folder: &Path, proposal: &Proposal) -> Result<Vec<PathBuf>, CommandError> {
    let files = [(MODELS, &proposal.models_toml), (POLICY, &proposal.policy_toml)];
    for (name, text) in files {
        let path = folder.join(name);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        if path.exists() && old != *text {
            return Err(CommandError::Usage(anyhow!(
                "{} is there already and says something else; remove it or name another folder",
                path.display()
            )));
        }
    }
    let mut written = Vec::new();
    for (name, text) in files.into_iter().filter(|(_, text)| !text.is_empty()) {
        let path = folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))
            .map_err(CommandError::System)?;
        written.push(path);
    }
    Ok(written)
}
