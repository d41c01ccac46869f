//! Owns the text of a policy: one block per service, replicas merged, statements in columns, with where each comes from.
//!
//! No address and no container id is in it (but ranges that operators wrote), so two hosts that run the same applications print
//! the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::statement::{Action, Direction, Peer, Policy, Provenance, Statement};
use super::traffic::everything;
use crate::model::Provided;

/// The text of some policies, ordered by what people call them. Policies that read the same are printed once.
pub fn render<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> String {
    let blocks: BTreeSet<(&str, String)> =
        policies.into_iter().map(|policy| (policy.label.as_str(), block(policy))).collect();
    blocks.into_iter().map(|(_, block)| block).collect::<Vec<_>>().join("\n")
}

/// One statement as a line of text, without its provenance: `allow in from shop/web (nginx) on 3000/tcp`.
pub fn line(statement: &Statement) -> String {
    let row = Row::of(statement);
    format!("{} {} {} {}", row.what, row.preposition, row.peer, row.traffic)
}

fn block(policy: &Policy) -> String {
    let mut text = format!("{}  {}  # {}\n", policy.label, policy.mode, policy.mode_from);
    if policy.routes {
        text.push_str("  forwards packets for others\n");
    }
    // Statements that differ only in members (which are not printed) are one line, and so is ping, which is the same for all.
    let (pings, others): (Vec<_>, Vec<_>) =
        policy.statements.iter().partition(|statement| is_ping_of_related(statement));
    let mut rows: BTreeMap<_, _> = others
        .into_iter()
        .map(|statement| {
            let row = Row::of(statement);
            let is_allow = statement.action == Action::Allow;
            let (peer, traffic) = (row.peer.clone(), row.traffic.clone());
            ((is_allow, Some(statement.direction), peer, traffic, row.from.clone()), row)
        })
        .collect();
    if let Some(ping) = pings.first() {
        let mut row = Row::of(ping);
        (row.what, row.preposition) = ("allow both".to_owned(), "with");
        row.peer = "related workloads".to_owned();
        // Sorted first among the allows: it is the same line in every block.
        rows.insert((true, None, row.peer.clone(), row.traffic.clone(), row.from.clone()), row);
    }
    if rows.is_empty() {
        text.push_str("  nothing is allowed\n");
    }
    let width =
        |of: fn(&Row) -> &str| rows.values().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (peers, traffics) = (width(|row| &row.peer), width(|row| &row.traffic));
    for row in rows.values() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:<10}  {:<4} {:<peers$}  {:<traffics$}  # {}",
            row.what, row.preposition, row.peer, row.traffic, row.from
        );
    }
    text
}

/// Ping between related workloads is stated both ways for each of them.
fn is_ping_of_related(statement: &Statement) -> bool {
    matches!(statement.peer, Peer::Workloads { .. })
        && statement.provenance == Provenance::Builtin { rule: "ping" }
}

struct Row {
    what: String,
    preposition: &'static str,
    peer: String,
    traffic: String,
    from: String,
}

impl Row {
    fn of(statement: &Statement) -> Self {
        let action = match statement.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        let (direction, preposition) = match statement.direction {
            Direction::Ingress => ("in", "from"),
            Direction::Egress => ("out", "to"),
        };
        Self {
            what: format!("{action} {direction}"),
            preposition,
            peer: statement.peer.to_string(),
            traffic: format!("on {}", traffic(statement)),
            from: statement.provenance.to_string(),
        }
    }
}

fn traffic(statement: &Statement) -> String {
    if statement.traffic == everything() {
        return "every port and ping".to_owned();
    }
    let listed = statement.traffic.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &statement.provenance {
        Provenance::Model { service: Some(service), .. }
            if service.as_str() != Provided::EXPOSED =>
        {
            format!("{listed} ({service})")
        }
        _ => listed,
    }
}

#[cfg(test)]
mod tests;
