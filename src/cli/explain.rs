//! `seawall test`: whether a connection is allowed, and the statement that decides it at each end.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;

use super::facts::{Facts, find, gather};
use super::output::Colour;
use super::{CommandError, Exit, Global, Output, output};
use crate::policy::evaluate::Packet;
use crate::policy::verdict::{End, Endpoint, Note, Verdict, test_connection};
use crate::policy::{Action, text};

/// Stands for any address out there (TEST-NET-3, RFC 5737: nobody's, and in no private range).
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall test shop/web shop/api:8000/tcp
  seawall test shop/api 9.9.9.9:53/udp
  seawall test host shop/db:5432 --from examples/shop/inspect.json
  seawall test intruder shop/db:ping

Exit code: 0 allowed, 1 denied.")]
pub(super) struct TestArgs {
    /// The client: container name, id, project/service, an IP address, `host`, `world`
    /// or `internet` (any address out there).
    #[arg(value_name = "FROM")]
    pub(super) client: String,
    /// The server and port: NAME:PORT/PROTO, [IPv6]:PORT/PROTO, or NAME:ping. Without a protocol it is tcp.
    #[arg(value_name = "TO:PORT/PROTO")]
    pub(super) server: String,
    /// Read facts from a file: saved `docker inspect` output, a compose file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) from: Vec<std::path::PathBuf>,
}

pub(super) async fn test(global: &Global, args: &TestArgs) -> Result<Exit, CommandError> {
    let usage = |message: String| CommandError::Usage(anyhow::anyhow!(message));
    let (server, packet) = args.server.rsplit_once(':').ok_or_else(|| {
        usage(format!("`{}` names no port; write it as NAME:PORT/PROTO or NAME:ping", args.server))
    })?;
    let packet: Packet = packet
        .parse()
        .map_err(|error: crate::policy::evaluate::PacketError| usage(error.to_string()))?;
    let facts = gather(global, &args.from).await?;
    let client = endpoint(&facts, &args.client)?;
    let server = endpoint(&facts, server)?;
    let settings = &facts.rules.options.settings;
    let verdict = test_connection(
        &facts.inventory,
        &facts.desired.policies,
        settings,
        &client,
        &server,
        packet,
    );
    match global.output {
        Output::Json => output::json(&verdict)?,
        Output::Human => output::print(&explained(Some(args), &verdict)),
    }
    Ok(if verdict.allowed { Exit::Done } else { Exit::Difference })
}

fn endpoint(facts: &Facts, word: &str) -> Result<Endpoint, CommandError> {
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    if word == "host" {
        Ok(Endpoint::Host)
    } else if is_anywhere(word) {
        Ok(Endpoint::Address(SOMEWHERE))
    } else if let Ok(address) = bare.parse() {
        Ok(Endpoint::Address(address))
    } else {
        find(&facts.inventory, word).map(|workload| Endpoint::Workload(workload.id.clone()))
    }
}

fn is_anywhere(word: &str) -> bool {
    matches!(word, "world" | "internet")
}

/// What decides a connection, in lines. `asked`: as it was asked for, which the answer begins with.
pub(super) fn explained(asked: Option<&TestArgs>, verdict: &Verdict) -> String {
    let word = if verdict.allowed {
        output::paint(Colour::Good, "allowed")
    } else {
        output::paint(Colour::Bad, "denied")
    };
    let head = asked.map(|args| format!("{} → {}: {word}", args.client, args.server));
    let mut lines: Vec<String> = head.into_iter().collect();
    lines.extend(verdict.note.as_ref().map(note));
    lines.extend(verdict.egress.as_ref().map(|end| said("client", end)));
    lines.extend(verdict.ingress.as_ref().map(|end| said("server", end)));
    let ends = || verdict.egress.iter().chain(&verdict.ingress);
    if let Some(missing) = ends().find_map(|end| end.missing.as_ref()) {
        // Asked by name, answered by name.
        let words = asked.into_iter().flat_map(|args| {
            [args.client.as_str(), args.server.split(':').next().unwrap_or_default()]
        });
        let word = words.into_iter().find(|word| is_anywhere(word)).unwrap_or("internet");
        let missing = missing.replace(&format!("cidr:{SOMEWHERE}"), word);
        let indented: Vec<String> = missing.lines().map(|line| format!("    {line}")).collect();
        lines.push(format!("  to allow it, add to a file in policy.d/:\n{}", indented.join("\n")));
    }
    lines.join("\n")
}

fn note(note: &Note) -> String {
    match note {
        Note::Loopback => {
            "  both live in one network namespace and talk over its loopback".to_owned()
        }
        Note::NoSharedNetwork => {
            "  they share no network: no packet gets from one to the other".to_owned()
        }
        Note::NotFiltered => "  neither end is a workload whose packets seawall judges".to_owned(),
        Note::UnknownWorkload(id) => format!("  no workload {id} is known"),
    }
}

fn said(role: &str, end: &End) -> String {
    let decision = match &end.statement {
        Some(statement) => {
            let verb = if statement.action == Action::Deny { "denied by" } else { "allowed by" };
            format!("{verb}: {}  # {}", text::line(statement), statement.provenance)
        }
        None => "no statement allows it".to_owned(),
    };
    let mode = match (end.would_deny, end.blocks) {
        (true, false) => format!(" (mode {}: not stopped here)", end.mode),
        _ => String::new(),
    };
    format!("  {role} {}: {decision}{mode}", end.label)
}
