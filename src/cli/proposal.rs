//! `seawall apply PROPOSAL_DIR`: what `learn --write` wrote, checked together with everything else, put beside the configuration, and
//! read by the daemon.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::learn::{MODELS, POLICY};
use super::{CommandError, Exit, Global, Output, output, read_files};
use crate::api::Client;
use crate::api::client::ClientError;
use crate::config::Source;
use crate::input::Text;
use crate::model::Catalogue;
use crate::observe::learn::with_files;
use crate::reconcile::Entry;

/// The longest name of an installed file, without `learned-` and its ending.
const NAME_LENGTH: usize = 100;

/// What was done.
#[derive(Serialize)]
struct Done {
    /// The files that are in place.
    files: Vec<Installed>,
    /// Whether a daemon runs and has read them.
    reloaded: bool,
    /// The transactions that followed.
    changes: Vec<Entry>,
}

#[derive(Serialize)]
struct Installed {
    path: PathBuf,
    /// Whether it is new; else it was there with the same text.
    is_new: bool,
}

pub(super) async fn apply(global: &Global, folder: &Path) -> Result<Exit, CommandError> {
    let beside = global.config.parent().unwrap_or(Path::new(""));
    let name = format!("learned-{}.toml", name_of(folder)?);
    let models = source(&folder.join(MODELS), beside.join("models.d").join(&name))?;
    let policy = source(&folder.join(POLICY), beside.join("policy.d").join(&name))?;
    let all: Vec<&Source> = models.iter().chain(&policy).collect();
    if all.is_empty() {
        return Err(CommandError::Usage(anyhow!(
            "{} holds neither {POLICY} nor {MODELS}; `seawall learn --write` makes such a folder",
            folder.display()
        )));
    }
    for source in &all {
        refuse_other(source)?;
    }
    let models: Vec<Source> = models.clone().into_iter().collect();
    let policy: Vec<Source> = policy.clone().into_iter().collect();
    with_files(&read_files(global)?, &models, &policy).load(Catalogue::with_files)?;
    let files = install(&all)?;
    let client = Client::new(&global.socket);
    let reloaded = client.is_running().await;
    let changes = if reloaded { reload(&client).await? } else { Vec::new() };
    let done = Done { files, reloaded, changes };
    match global.output {
        Output::Json => output::json(&done)?,
        Output::Human => output::print(&told(&done)),
    }
    Ok(Exit::Done)
}

/// The folder's name, as part of a file's.
fn name_of(folder: &Path) -> Result<String, CommandError> {
    let absolute = std::fs::canonicalize(folder)
        .with_context(|| format!("cannot read {}", folder.display()))
        .map_err(CommandError::Usage)?;
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.unwrap_or_default().chars().map(plain).take(NAME_LENGTH).collect();
    if name.is_empty() {
        return Err(CommandError::Usage(anyhow!(
            "{} has no name to call files by",
            folder.display()
        )));
    }
    Ok(name)
}

/// A file of the proposal, as it will lie beside the configuration; none when there is no such file.
fn source(path: &Path, target: PathBuf) -> Result<Option<Source>, CommandError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Source { path: target, text })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let context = format!("cannot read {}", path.display());
            Err(CommandError::Usage(anyhow::Error::new(error).context(context)))
        }
    }
}

/// A file of the same name with other content is not touched.
fn refuse_other(source: &Source) -> Result<(), CommandError> {
    match std::fs::read(&source.path) {
        Ok(old) if old != source.text.as_bytes() => Err(CommandError::Usage(anyhow!(
            "{} is there already and says something else, and is left as it is; \
             remove it if this proposal shall take its place, or give the proposal's folder another name",
            source.path.display()
        ))),
        _ => Ok(()),
    }
}

/// Puts files in place, each at once; none of them when one cannot be.
fn install(sources: &[&Source]) -> Result<Vec<Installed>, CommandError> {
    let mut done: Vec<Installed> = Vec::new();
    for source in sources {
        match put(source) {
            Ok(is_new) => done.push(Installed { path: source.path.clone(), is_new }),
            Err(error) => {
                for installed in done.iter().filter(|installed| installed.is_new) {
                    // What cannot be removed either is named in the error.
                    let _ = std::fs::remove_file(&installed.path);
                }
                return Err(CommandError::System(error));
            }
        }
    }
    Ok(done)
}

/// Puts one file in place, if it is not there. A link to a finished file is made at once or not at all, and never over another.
fn put(source: &Source) -> anyhow::Result<bool> {
    let path = &source.path;
    if path.exists() {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let file_name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    // Hidden files are not read as configuration.
    let unfinished = folder.join(format!(".{file_name}.{}", std::process::id()));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::File::create_new(&unfinished)?;
        file.write_all(source.text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&unfinished, path)
    };
    let written = write();
    // It may not have been made at all.
    let _ = std::fs::remove_file(&unfinished);
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// Has the daemon read its configuration, waits until it is in force, and tells what that changed.
async fn reload(client: &Client) -> Result<Vec<Entry>, CommandError> {
    let before = client.journal().await?;
    // When it answers, what it read is with the reconcile loop.
    match client.reload().await {
        Err(ClientError::Refused(error)) => {
            return Err(CommandError::System(anyhow!(
                "the files are in place, but the daemon refused the configuration: {error}"
            )));
        }
        answer => answer?,
    }
    client.settled().await?;
    let mut after = client.journal().await?;
    after.retain(|entry| !before.contains(entry));
    Ok(after)
}

fn told(done: &Done) -> String {
    let mut lines = Vec::new();
    for file in &done.files {
        let what = if file.is_new { "put in place" } else { "was there already" };
        lines.push(format!("{}: {what}", file.path.display()));
    }
    if !done.reloaded {
        lines.push(
            "no daemon runs here: one reads them when it starts, or `seawall apply` without a folder puts them into force"
                .to_owned(),
        );
        return lines.join("\n");
    }
    lines.push(match done.changes.len() {
        0 => "the daemon has read them; no table had to change".to_owned(),
        1 => "the daemon has read them; 1 table changed:".to_owned(),
        count => format!("the daemon has read them; {count} transactions:"),
    });
    for entry in &done.changes {
        lines.push(format!("  {}: {} operations", Text::new(&entry.workload), entry.operations));
        lines.extend(entry.changes.iter().map(|change| format!("    {}", Text::new(change))));
    }
    lines.join("\n")
}
