//! `seawall events`: what happened, and what happens.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use super::observed::duration;
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::input::time::utc;
use crate::observe::{Event, EventKind};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall events                            what is on record
  seawall events --follow                   and what comes, until Ctrl-C
  seawall events shop --since 10m --kind denied --needed
  seawall events --follow --output json     one JSON object a line, for programs")]
pub(super) struct EventsArgs {
    /// Only about this: container name, project/service, or project.
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    /// Only what is younger: 90s, 10m, 2h, 3d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<std::time::Duration>,
    /// Only of these kinds.
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<Kind>,
    /// With each denial the statement that would allow it.
    #[arg(long)]
    needed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Packets that were denied.
    Denied,
    /// Packets that would have been, in enforce.
    WouldDeny,
    /// Rulesets that changed because what is wanted did.
    Changed,
    /// Tables that somebody changed and that were put right.
    Repaired,
    /// What others did and is only told of.
    Foreign,
    /// Modes that were set.
    Mode,
    /// Something of seawall itself.
    Daemon,
}

impl Kind {
    fn is(self, kind: EventKind) -> bool {
        let own = match self {
            Self::Denied => EventKind::Denied,
            Self::WouldDeny => EventKind::WouldDeny,
            Self::Changed => EventKind::Changed,
            Self::Repaired => EventKind::Repaired,
            Self::Foreign => EventKind::Foreign,
            Self::Mode => EventKind::Mode,
            Self::Daemon => EventKind::Daemon,
        };
        own == kind
    }
}

pub(super) async fn events(global: &Global, args: &EventsArgs) -> Result<Exit, CommandError> {
    let client = Client::new(&global.socket);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begin = args.since.map(|since| now.saturating_sub(since).as_micros());
    let is_meant = |event: &Event| {
        begin.is_none_or(|begin| u128::from(event.at_us) >= begin)
            && (args.kind.is_empty() || args.kind.iter().any(|kind| kind.is(event.kind)))
            && args.target.as_ref().is_none_or(|target| is_about(event, target))
    };
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let wait = args.follow && after > 0;
        let events = client.events(after, wait).await?;
        let is_end = events.is_empty();
        after = events.last().map_or(after, |last| last.sequence);
        for event in events.into_iter().filter(|event| is_meant(event)) {
            match (global.output, args.follow) {
                (Output::Human, _) => output::print(&line(&event, args.needed)),
                (Output::Json, true) => output::json_line(&event)?,
                (Output::Json, false) => all.push(event),
            }
        }
        if is_end && !args.follow {
            break;
        }
        if is_end && after == 0 {
            // Nothing yet: wait for the first.
            after = wait_for_first(&client).await?;
        }
    }
    if global.output == Output::Json {
        output::json(&all)?;
    }
    Ok(Exit::Done)
}

/// Waits for the first event there is; returns the number before it.
async fn wait_for_first(client: &Client) -> Result<u64, CommandError> {
    loop {
        if let Some(first) = client.events(0, true).await?.first() {
            return Ok(first.sequence.saturating_sub(1));
        }
    }
}

fn is_about(event: &Event, target: &str) -> bool {
    let names = event.denial.iter().flat_map(|denial| {
        let key = &denial.key;
        [&key.workload, &key.client, &key.server].map(ToString::to_string)
    });
    let own = event.workload.iter().map(ToString::to_string);
    own.chain(names).any(|name| {
        name == target || name.split_once('/').is_some_and(|(project, _)| project == target)
    })
}

fn line(event: &Event, needed: bool) -> String {
    let (word, colour) = match event.kind {
        EventKind::Denied => ("denied", Colour::Bad),
        EventKind::WouldDeny => ("would deny", Colour::Warning),
        EventKind::Changed => ("changed", Colour::Good),
        EventKind::Repaired => ("repaired", Colour::Warning),
        EventKind::Foreign => ("foreign", Colour::Warning),
        EventKind::Mode => ("mode", Colour::Bold),
        EventKind::Daemon => ("seawall", Colour::Bold),
    };
    let about = match (&event.denial, &event.workload) {
        (None, Some(workload)) => format!("{workload}: "),
        _ => String::new(),
    };
    let word = output::paint(colour, &format!("{word:<10}"));
    let mut line = format!("{} {word} {about}{}", utc(event.at_us / 1_000_000), event.message);
    if needed && let Some(statement) = &event.needed {
        for part in statement.lines() {
            line.push_str("\n    ");
            line.push_str(part);
        }
    }
    line
}
