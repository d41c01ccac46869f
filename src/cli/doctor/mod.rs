//! `seawall doctor`: what this host has of what seawall needs, what each lack costs, and how to mend it.
//!
//! Each group of checks reads facts first and judges them then; judging is pure.

mod check;
mod daemon;
mod docker;
mod host;
mod kernel;
mod neighbours;
pub(super) mod trial;

use std::time::Duration;

use clap::Args;

use self::check::{ALL, Check, Outcome, PROMISES, place};
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output, read_files};
use crate::config::{Config, Files, Loaded, Ownership};
use crate::model::Catalogue;
use crate::policy::OperatorPolicy;

/// How long whoever is asked may take to answer: one that hangs is a finding.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo seawall doctor                what is missing, what it costs, and how to mend it
  sudo seawall doctor --json         the same for programs
  seawall doctor --list              every check there is

Exit codes: 0 the promises hold; 1 some do not; 3 this call may not look at everything.")]
pub(super) struct DoctorArgs {
    /// The same as --output json.
    #[arg(long)]
    json: bool,
    /// Print every check and the question it answers, and look at nothing.
    #[arg(long)]
    list: bool,
}

pub(super) async fn doctor(global: &Global, args: &DoctorArgs) -> Result<Exit, CommandError> {
    let is_json = args.json || global.output == Output::Json;
    if args.list {
        list(is_json)?;
        return Ok(Exit::Done);
    }
    let checks = examine(global).await?;
    if is_json {
        output::json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "promises_hold": verdict(&checks) == Verdict::Hold,
            "checks": checks,
        }))?;
    } else {
        output::print(&text(&checks));
    }
    match verdict(&checks) {
        Verdict::Hold => Ok(Exit::Done),
        Verdict::Broken => Ok(Exit::Difference),
        Verdict::Unseen => Err(CommandError::System(anyhow::anyhow!(
            "not everything could be looked at; run seawall doctor as root"
        ))),
    }
}

/// Looks at everything.
async fn examine(global: &Global) -> Result<Vec<Check>, CommandError> {
    output::progress("looking at the kernel, Docker, the daemon and its neighbours …");
    let files = read_files(global)?;
    let (loaded, problems) = match files.load(Catalogue::with_files) {
        Ok(loaded) => (loaded, None),
        Err(problems) => (readable(&files), Some(problems)),
    };
    let host = host::read(&global.config, &global.state_dir, &loaded, problems);
    let caller = host.caller;
    // The trial waits for the kernel.
    let kernel = tokio::task::spawn_blocking(move || kernel::read(&caller)).await;
    let kernel = kernel.map_err(|error| CommandError::System(error.into()))?;
    let docker = docker::read(&loaded).await;
    let daemon = daemon::read(&global.socket).await;
    let neighbours = neighbours::read();
    let wants_ownership = loaded.config.ownership == Ownership::Auto;
    let mut checks = host::judge(&host);
    checks.extend(kernel::judge(&kernel, &caller, wants_ownership));
    checks.extend(docker::judge(&docker));
    checks.extend(daemon::judge(&daemon));
    checks.extend(neighbours::judge(&neighbours));
    checks.sort_by_key(|check| place(check.id));
    Ok(checks)
}

/// What can be read of a configuration that has problems: where Docker and the daemon are may still stand there.
fn readable(files: &Files) -> Loaded {
    let config = files.config.as_ref().and_then(|file| Config::parse(file.as_file()).ok());
    let catalogue = Catalogue::default();
    Loaded { config: config.unwrap_or_default(), catalogue, operator: OperatorPolicy::default() }
}

/// What all checks together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every promise holds.
    Hold,
    /// Some do not.
    Broken,
    /// That cannot be said: not everything could be looked at.
    Unseen,
}

fn verdict(checks: &[Check]) -> Verdict {
    let has = |outcome| checks.iter().any(|check| check.result == outcome);
    match (has(Outcome::Unknown), has(Outcome::Missing)) {
        (true, _) => Verdict::Unseen,
        (false, true) => Verdict::Broken,
        (false, false) => Verdict::Hold,
    }
}

fn list(is_json: bool) -> Result<(), CommandError> {
    if is_json {
        let all = ALL.map(|(id, asks)| serde_json::json!({ "id": id, "asks": asks }));
        return output::json(&all.to_vec());
    }
    let rows = ALL.map(|(id, asks)| vec![id.to_owned(), format!("{asks}?")]);
    output::print(&output::table(&["CHECK", "ASKS"], &rows));
    Ok(())
}

fn text(checks: &[Check]) -> String {
    let width = ALL.iter().map(|(id, _)| id.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    // What was skipped has its reason beside another check.
    for check in checks.iter().filter(|check| check.result != Outcome::Skipped) {
        let colour = match check.result {
            Outcome::Ok => Colour::Good,
            Outcome::Warning | Outcome::Unknown | Outcome::Skipped => Colour::Warning,
            Outcome::Missing => Colour::Bad,
        };
        let word = output::paint(colour, &format!("{:<8}", check.result.word()));
        lines.push(format!("{word} {:<width$}  {}", check.id, check.found));
        let indent = " ".repeat(9 + width + 2);
        let promises: Vec<String> = check.promises.iter().map(ToString::to_string).collect();
        if let Some(costs) = check.costs {
            let which = match promises.len() {
                0 => String::new(),
                1 => format!(" (promise {})", promises.join(", ")),
                _ => format!(" (promises {})", promises.join(", ")),
            };
            lines.push(format!("{indent}costs: {costs}{which}"));
        }
        if let Some(remedy) = &check.remedy {
            lines.push(format!("{indent}mend:  {remedy}"));
        }
    }
    lines.push(String::new());
    lines.push(summary(checks));
    lines.join("\n")
}

fn summary(checks: &[Check]) -> String {
    let count = |outcome| checks.iter().filter(|check| check.result == outcome).count();
    let broken: std::collections::BTreeSet<u8> =
        checks.iter().flat_map(|check| check.promises.iter().copied()).collect();
    let warnings = match count(Outcome::Warning) {
        0 => String::new(),
        1 => "; 1 warning".to_owned(),
        many => format!("; {many} warnings"),
    };
    let skipped = match count(Outcome::Skipped) {
        0 => String::new(),
        many => format!("; skipped: {many}"),
    };
    let said = match verdict(checks) {
        Verdict::Hold => "the promises of the security model hold".to_owned(),
        Verdict::Broken => {
            let named = broken.iter().map(|number| {
                let title = PROMISES.get(usize::from(*number) - 1).copied().unwrap_or_default();
                format!("{number} ({title})")
            });
            let named = named.collect::<Vec<_>>().join(", ");
            format!("not kept of the security model's promises: {named}")
        }
        Verdict::Unseen => format!("{} checks could not be made", count(Outcome::Unknown)),
    };
    format!("{said}{warnings}{skipped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_never_better_than_what_was_seen() {
        let ok = Check::ok("host.permission", "root");
        let warning = Check::warning("kernel.nflog", "no", "costs", "mend");
        let missing = Check::missing("kernel.guard", &[4], "no", "costs", "mend");
        let unknown = Check::unknown("kernel.owner", "not root");
        let skipped = Check::skipped("daemon.mode", "no daemon");
        let of = |checks: &[&Check]| {
            verdict(&checks.iter().map(|one| (*one).clone()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[&ok, &warning]), Verdict::Hold);
        assert_eq!(of(&[&ok, &missing, &skipped]), Verdict::Broken);
        assert_eq!(of(&[&missing, &unknown]), Verdict::Unseen);
    }

    #[test]
    fn what_is_printed_says_what_it_costs_and_how_to_mend_it() {
        let checks = [
            Check::ok("kernel.version", "Linux 6.18.0"),
            Check::warning(
                "kernel.nflog",
                "the kernel told nothing",
                "denials are not listed",
                "modprobe x",
            ),
            Check::missing(
                "kernel.guard",
                &[4],
                "no egress hook",
                "packet sockets pass",
                "drop NET_RAW",
            ),
            Check::skipped("daemon.mode", "no daemon to ask"),
        ];
        insta::assert_snapshot!(text(&checks), @r"
        ok       kernel.version        Linux 6.18.0
        warning  kernel.nflog          the kernel told nothing
                                       costs: denials are not listed
                                       mend:  modprobe x
        missing  kernel.guard          no egress hook
                                       costs: packet sockets pass (promise 4)
                                       mend:  drop NET_RAW

        not kept of the security model's promises: 4 (no bypass from inside); 1 warning; skipped: 1
        ");
    }
}
