//! Owns where commands get what was seen: the daemon, now or over some time, or a saved file; and a staged policy tried on it.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::facts::{Facts, read_bytes};
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::config::{Files, Source};
use crate::observe::learn::{Against, Known, against as try_on, denied_since, since};
use crate::observe::{Denial, Flow};

/// How often it is told how long it still takes.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Saved records instead of the daemon's.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SeenArgs {
    /// Read connections from a file instead of asking the daemon: what `seawall flows --output json` printed.
    #[arg(long, value_name = "FILE")]
    pub(super) flows: Option<PathBuf>,
}

/// What was seen.
pub(super) struct Seen {
    pub(super) flows: Vec<Flow>,
    pub(super) denials: Vec<Denial>,
}

impl SeenArgs {
    /// The connections on record.
    pub(super) async fn flows(&self, global: &Global) -> Result<Vec<Flow>, CommandError> {
        match &self.flows {
            Some(path) => records(path),
            None => Ok(Client::new(&global.socket).flows().await?),
        }
    }
}

/// Records of a file: a JSON list.
pub(super) fn records<T: serde::de::DeserializeOwned>(
    path: &std::path::Path,
) -> Result<Vec<T>, CommandError> {
    let bytes = read_bytes(path).map_err(CommandError::Usage)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} holds no such records as JSON", path.display()))
        .map_err(CommandError::Usage)
}

/// Everything the daemon has on record.
pub(super) async fn on_record(global: &Global) -> Result<Seen, CommandError> {
    let client = Client::new(&global.socket);
    Ok(Seen { flows: client.flows().await?, denials: client.denials().await? })
}

/// What the daemon sees in the time to come. Ctrl-C ends it early.
pub(super) async fn from_now(global: &Global, lasts: Duration) -> Result<Seen, CommandError> {
    let before = on_record(global).await?;
    let end = Instant::now() + lasts;
    let mut ticks = tokio::time::interval(TOLD_EVERY);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let is_watched = std::io::stderr().is_terminal();
    loop {
        // All arms are cancel-safe.
        tokio::select! {
            () = tokio::time::sleep_until(end.into()) => break,
            _ = &mut interrupted => break,
            _ = ticks.tick() => {
                let left = end.saturating_duration_since(Instant::now()).as_secs();
                if is_watched {
                    eprint!("\r\u{1b}[Kwatching what is said, {left} s to go; Ctrl-C ends it now");
                    let _ = std::io::stderr().flush();
                } else {
                    eprintln!("watching what is said, {left} s to go");
                }
            }
        }
    }
    if is_watched {
        eprintln!();
    }
    let after = on_record(global).await?;
    Ok(Seen {
        flows: since(&before.flows, &after.flows),
        denials: denied_since(&before.denials, &after.denials),
    })
}

/// A time such as `90s`, `10m` or `2h`; more than nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is no time; write it as 90s, 10m or 2h");
    let unit = text.chars().next_back().ok_or_else(error)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(error()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_number).ok_or_else(error)?;
    match count.checked_mul(factor) {
        Some(0) | None => Err(error()),
        Some(seconds) if seconds > 366 * 86_400 => Err(format!("`{text}` is more than a year")),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// Policy files that are tried.
pub(super) fn read_staged(paths: &[PathBuf]) -> Result<Vec<Source>, CommandError> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .map_err(CommandError::Usage)?;
        Ok(Source { path: path.clone(), text })
    };
    paths.iter().map(read).collect()
}

/// `seawall plan --against-observed`.
pub(super) fn against(
    global: &Global,
    facts: &Facts,
    files: &Files,
    staged: &[PathBuf],
    flows: &[Flow],
) -> Result<Exit, CommandError> {
    if flows.is_empty() {
        return Err(CommandError::Usage(anyhow!(
            "no connection is on record, so nothing can be tried; let the daemon watch for a while"
        )));
    }
    let known = Known::new(&facts.inventory, files)?;
    let staged: BTreeSet<PathBuf> = staged.iter().cloned().collect();
    let result = try_on(flows, &known, &staged);
    match global.output {
        Output::Json => output::json(&result)?,
        Output::Human => output::print(&told(&result)),
    }
    Ok(if result.refused.is_empty() { Exit::Done } else { Exit::Difference })
}

fn told(result: &Against) -> String {
    let mut lines = Vec::new();
    for refused in &result.refused {
        let seen = &refused.evidence;
        let times = match seen.connections {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let unanswered = match seen.unanswered {
            0 => "",
            some if some == seen.connections => ", never answered",
            _ => ", not always answered",
        };
        let word = output::paint(Colour::Bad, "denied");
        lines.push(format!("{word}  {}  (seen {times}{unanswered})", refused.what));
        if let Some(by) = &refused.denied_by {
            lines.push(format!("  by: {by}"));
        }
        let missing = refused.missing.iter().flat_map(|missing| missing.lines());
        lines.extend(missing.map(|line| format!("    {line}")));
    }
    for open in &result.open {
        lines.push(format!("{}  {open}", output::paint(Colour::Warning, "open")));
    }
    for place in &result.unused {
        let word = output::paint(Colour::Warning, "unused");
        lines.push(format!("{word}  {place}: nothing that was seen needs this statement"));
    }
    lines.push(format!(
        "{} kinds of connections seen; {} would be denied in enforce",
        result.judged,
        result.refused.len()
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_their_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "10 m",
            "10ß",
            "999999999999999999h",
            "400d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
