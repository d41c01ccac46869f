//! `seawall explain`: why something was denied, and what would allow it.

use clap::Args;
use serde::Serialize;

use super::explain::{TestArgs, explained, test};
use super::facts::{Facts, gather};
use super::flows::is_named;
use super::{CommandError, Exit, Global, Output, output};
use crate::api::Client;
use crate::input::time::utc;
use crate::observe::{Denial, Party};
use crate::policy::{Endpoint, Verdict, test_connection};

/// How many denials are explained unless a target is named.
const MOST: usize = 20;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall explain                           the last denials, each with what decides it and what would allow it
  seawall explain shop/cache                those of one workload
  seawall explain shop/web shop/db:5432     one connection, whether it was tried or not (the same as `seawall test`)

Exit code: 0, or 1 when the one connection asked for is denied.")]
pub(super) struct ExplainArgs {
    /// Container name, project/service, or project; or the client of a connection.
    #[arg(value_name = "TARGET|FROM")]
    target: Option<String>,
    /// The server and port of a connection: NAME:PORT/PROTO, [IPv6]:PORT/PROTO, or NAME:ping.
    #[arg(value_name = "TO:PORT/PROTO", requires = "target")]
    server: Option<String>,
    /// With a connection: read facts from a file, as `seawall test` does.
    #[arg(long, value_name = "FILE", requires = "server")]
    from: Vec<std::path::PathBuf>,
}

/// A denial, and what is said of it now.
#[derive(Serialize)]
struct Explained {
    denial: Denial,
    /// Whether the policy in force now decides the same.
    is_denied_now: bool,
    verdict: Option<Verdict>,
}

pub(super) async fn explain(global: &Global, args: &ExplainArgs) -> Result<Exit, CommandError> {
    if let (Some(client), Some(server)) = (&args.target, &args.server) {
        let connection =
            TestArgs { client: client.clone(), server: server.clone(), from: args.from.clone() };
        return test(global, &connection).await;
    }
    let mut denials = Client::new(&global.socket).denials().await?;
    if let Some(target) = &args.target {
        let is_meant = |denial: &Denial| {
            let key = &denial.key;
            [&key.workload, &key.client, &key.server].into_iter().any(|one| is_named(one, target))
        };
        denials.retain(is_meant);
    } else if denials.len() > MOST {
        denials.drain(..denials.len() - MOST);
    }
    let facts = gather(global, &[]).await?;
    let explained: Vec<Explained> = denials.into_iter().map(|denial| of(&facts, denial)).collect();
    match global.output {
        Output::Json => output::json(&explained)?,
        Output::Human if explained.is_empty() => output::print("no denial is on record"),
        Output::Human => {
            let texts: Vec<String> = explained.iter().map(text).collect();
            output::print(&texts.join("\n\n"));
        }
    }
    Ok(Exit::Done)
}

fn of(facts: &Facts, denial: Denial) -> Explained {
    let ends = endpoint(facts, &denial.key.client).zip(endpoint(facts, &denial.key.server));
    let verdict = ends.zip(denial.key.carried.packet()).map(|((client, server), packet)| {
        test_connection(
            &facts.inventory,
            &facts.desired.policies,
            &facts.rules.options.settings,
            &client,
            &server,
            packet,
        )
    });
    let is_denied_now = verdict.as_ref().is_none_or(|verdict| {
        verdict.egress.iter().chain(&verdict.ingress).any(|end| end.would_deny)
    });
    Explained { denial, is_denied_now, verdict }
}

/// Who a party is now; none where nobody is called so any more.
fn endpoint(facts: &Facts, party: &Party) -> Option<Endpoint> {
    match party {
        Party::Host => Some(Endpoint::Host),
        Party::Address { address, .. } => Some(Endpoint::Address(*address)),
        Party::Workload { name, .. } => {
            let mut all = facts.inventory.iter();
            let found = all.find(|workload| workload.display_name() == *name)?;
            Some(Endpoint::Workload(found.id.clone()))
        }
    }
}

fn text(explained: &Explained) -> String {
    let Explained { denial, is_denied_now, verdict } = explained;
    let key = &denial.key;
    let verb = if key.enforced { "denied" } else { "would be denied" };
    let by = denial.process.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    let many = match denial.logged {
        1 => "once".to_owned(),
        more => format!("{more} times"),
    };
    let head = format!(
        "{} → {} on {}: {verb} at {}{by}; logged {many}, first {}, last {}",
        key.client,
        key.server,
        key.carried,
        key.workload,
        utc(denial.first_us / 1_000_000),
        utc(denial.last_us / 1_000_000)
    );
    let why = match verdict {
        Some(verdict) => explained_now(verdict, *is_denied_now),
        None if key.carried.packet().is_none() => {
            "  no statement can allow it: only TCP, UDP, SCTP and ping can be".to_owned()
        }
        None => "  one of the two is not there any more".to_owned(),
    };
    format!("{head}\n{why}")
}

fn explained_now(verdict: &Verdict, is_denied_now: bool) -> String {
    let lines = explained(None, verdict);
    if is_denied_now { lines } else { format!("  it is allowed by now:\n{lines}") }
}
