//! Owns the answer of `seawall test`: whether a connection would be made, judged at both ends, and what decides it.

use std::net::IpAddr;

use serde::Serialize;

use super::evaluate::{Packet, Remote, judge_remote};
use super::mode::netns_mode;
use super::selector::selector_for;
use super::settings::{Mode, Settings};
use super::statement::{Action, Direction, Policy, PolicySet, Statement};
use crate::input::Text;
use crate::metadata::{Attachment, Inventory, NetworkMode, Workload, WorkloadId};

/// One end of a connection, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// A workload.
    Workload(WorkloadId),
    /// The host the workloads run on.
    Host,
    /// An address. One that a workload or the host has on the other end's networks means that one.
    Address(IpAddr),
}

/// Whether a connection would be made, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether neither end stops it.
    pub allowed: bool,
    /// What there is to say beyond the two ends.
    pub note: Option<Note>,
    /// The addresses it was judged by, client first, where they are known.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The client's end, where that is a workload.
    pub egress: Option<End>,
    /// The server's end, where that is a workload.
    pub ingress: Option<End>,
}

/// Why a verdict does not come from statements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Both ends live in one netns and talk over its loopback, which is not filtered.
    Loopback,
    /// The ends share no network, so no packet gets from one to the other.
    NoSharedNetwork,
    /// Neither end is a workload whose packets seawall judges.
    NotFiltered,
    /// No such workload is known.
    UnknownWorkload(WorkloadId),
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// Whose end.
    pub workload: WorkloadId,
    /// What people call it.
    pub label: Text,
    /// The mode of its netns.
    pub mode: Mode,
    /// Whether its policy does not allow the connection.
    pub would_deny: bool,
    /// Whether it stops the connection: it would deny, and the mode is enforce.
    pub blocks: bool,
    /// The statement that decides; without one the connection is denied by default.
    pub statement: Option<Statement>,
    /// The operator statement (TOML) that would allow the connection, where one is missing.
    pub missing: Option<String>,
}

/// An end after looking it up.
#[derive(Clone, Copy)]
enum Side<'a> {
    Workload { id: &'a WorkloadId, owner: &'a Workload, pinned: Option<IpAddr> },
    Host { pinned: Option<IpAddr> },
    Address(IpAddr),
}

/// The addresses of one attempt; `None` where they are not known.
type Attempt = (Option<IpAddr>, Option<IpAddr>);

/// Judges a connection at both ends, by every pair of addresses the two have on shared networks, and answers with the pair that
/// fares best: a client tries them all.
pub fn test_connection(
    inventory: &Inventory,
    policies: &PolicySet,
    settings: &Settings,
    from: &Endpoint,
    to: &Endpoint,
    packet: Packet,
) -> Verdict {
    let found = look_up(inventory, from, to).and_then(|client| {
        let server = look_up(inventory, to, from)?;
        Ok((client, server, attempts(client, server)?))
    });
    let (client, server, attempts) = match found {
        Ok(found) => found,
        Err(note) => return Verdict::from_note(note),
    };
    let case = Case { inventory, policies, settings, client, server, packet };
    let verdicts = attempts.into_iter().map(|attempt| case.verdict(attempt));
    // The first of the best.
    let merit = |verdict: &Verdict| {
        let ends = || verdict.egress.iter().chain(&verdict.ingress);
        (verdict.allowed, !ends().any(|end| end.would_deny))
    };
    verdicts
        .reduce(|best, next| if merit(&next) > merit(&best) { next } else { best })
        .unwrap_or_else(|| Verdict::from_note(Note::NoSharedNetwork))
}

impl Verdict {
    fn from_note(note: Note) -> Self {
        let allowed = matches!(note, Note::Loopback | Note::NotFiltered);
        Self { allowed, note: Some(note), addresses: None, egress: None, ingress: None }
    }
}

fn look_up<'a>(
    inventory: &'a Inventory,
    endpoint: &'a Endpoint,
    other: &Endpoint,
) -> Result<Side<'a>, Note> {
    let owner = |id: &'a WorkloadId| inventory.get(inventory.netns_owner(id));
    match endpoint {
        Endpoint::Host => Ok(Side::Host { pinned: None }),
        Endpoint::Workload(id) => match owner(id) {
            None => Err(Note::UnknownWorkload(id.clone())),
            Some(owner) if owner.network_mode == NetworkMode::Host => {
                Ok(Side::Host { pinned: None })
            }
            Some(owner) => Ok(Side::Workload { id, owner, pinned: None }),
        },
        Endpoint::Address(address) => {
            let other = match other {
                Endpoint::Workload(id) => inventory.get(inventory.netns_owner(id)),
                _ => None,
            };
            Ok(other
                .and_then(|other| whose(inventory, other, *address))
                .unwrap_or(Side::Address(*address)))
        }
    }
}

/// Who has an address on one of `other`'s networks.
fn whose<'a>(inventory: &'a Inventory, other: &Workload, address: IpAddr) -> Option<Side<'a>> {
    let pinned = Some(address);
    if other.networks.values().any(|network| network.host_addresses().any(|own| own == address)) {
        return Some(Side::Host { pinned });
    }
    let has = |workload: &&Workload| {
        workload.networks.iter().any(|(key, network)| {
            other.networks.contains_key(key) && network.addresses.contains(&address)
        })
    };
    let owner = inventory.iter().find(has)?;
    Some(Side::Workload { id: &owner.id, owner, pinned })
}

fn attempts(client: Side<'_>, server: Side<'_>) -> Result<Vec<Attempt>, Note> {
    match (client, server) {
        (
            Side::Workload { owner: client, pinned: source, .. },
            Side::Workload { owner: server, pinned: target, .. },
        ) => {
            if client.id == server.id {
                return Err(Note::Loopback);
            }
            between(client, source, server, target)
        }
        (Side::Workload { owner, .. }, Side::Host { pinned }) => {
            Ok(of_host(owner, pinned)?.into_iter().map(|host| (None, host)).collect())
        }
        (Side::Host { pinned }, Side::Workload { owner, .. }) => {
            Ok(of_host(owner, pinned)?.into_iter().map(|host| (host, None)).collect())
        }
        (Side::Workload { owner, .. }, Side::Address(address)) if !owner.networks.is_empty() => {
            Ok(vec![(None, Some(address))])
        }
        (Side::Address(address), Side::Workload { owner, .. }) if !owner.networks.is_empty() => {
            Ok(vec![(Some(address), None)])
        }
        (Side::Workload { .. }, _) | (_, Side::Workload { .. }) => Err(Note::NoSharedNetwork),
        _ => Err(Note::NotFiltered),
    }
}

fn between(
    client: &Workload,
    source: Option<IpAddr>,
    server: &Workload,
    target: Option<IpAddr>,
) -> Result<Vec<Attempt>, Note> {
    let is_meant = |pinned: Option<IpAddr>| {
        move |address: &IpAddr| pinned.is_none_or(|pinned| pinned == *address)
    };
    let mut attempts = Vec::new();
    let mut shares = false;
    for (key, network) in &client.networks {
        let Some(other) = server.networks.get(key) else { continue };
        shares = true;
        for from in network.addresses.iter().filter(|address| is_meant(source)(address)) {
            let targets = other.addresses.iter().filter(|address| is_meant(target)(address));
            let same_family = targets.filter(|to| to.is_ipv4() == from.is_ipv4());
            attempts.extend(same_family.map(|to| (Some(*from), Some(*to))));
        }
        if network.addresses.is_empty() || other.addresses.is_empty() {
            attempts.push((source, target)); // one of them does not run: judged by who they are
        }
    }
    if shares { Ok(attempts) } else { Err(Note::NoSharedNetwork) }
}

/// The host's addresses towards a workload; one unknown address where none is known.
fn of_host(workload: &Workload, pinned: Option<IpAddr>) -> Result<Vec<Option<IpAddr>>, Note> {
    if workload.networks.is_empty() {
        return Err(Note::NoSharedNetwork);
    }
    if pinned.is_some() {
        return Ok(vec![pinned]);
    }
    let gateways = workload.networks.values().flat_map(Attachment::host_addresses);
    let known: Vec<_> = gateways.map(Some).collect();
    Ok(if known.is_empty() { vec![None] } else { known })
}

/// One question, looked up.
struct Case<'a> {
    inventory: &'a Inventory,
    policies: &'a PolicySet,
    settings: &'a Settings,
    client: Side<'a>,
    server: Side<'a>,
    packet: Packet,
}

impl Case<'_> {
    fn verdict(&self, (source, target): Attempt) -> Verdict {
        let egress = self.end(Direction::Egress, self.client, self.server, target);
        let ingress = self.end(Direction::Ingress, self.server, self.client, source);
        let allowed = !egress.iter().chain(&ingress).any(|end| end.blocks);
        Verdict { allowed, note: None, addresses: source.zip(target), egress, ingress }
    }

    fn end(
        &self,
        direction: Direction,
        own: Side<'_>,
        other: Side<'_>,
        address: Option<IpAddr>,
    ) -> Option<End> {
        let Side::Workload { id, owner, .. } = own else { return None };
        let remote = match (address, other) {
            (Some(address), _) | (None, Side::Address(address)) => Remote::Address(address),
            (None, Side::Workload { id, .. }) => Remote::Workload(id),
            (None, Side::Host { .. }) => Remote::Host,
        };
        let is_there =
            |member: &&Workload| member.id == *id || !self.inventory.has_left(&member.id);
        let members = self.inventory.netns_members(&owner.id).filter(is_there);
        let policies: Vec<&Policy> =
            members.filter_map(|member| self.policies.policies.get(&member.id)).collect();
        let decision =
            judge_remote(&policies, self.inventory, self.settings, direction, remote, self.packet);
        let mode = netns_mode(&policies);
        let is_denied = |statement: &Statement| statement.action == Action::Deny;
        let is_missing = !decision.allowed && !decision.statement.is_some_and(is_denied);
        Some(End {
            workload: id.clone(),
            label: self
                .policies
                .policies
                .get(id)
                .map(|policy| policy.label.clone())
                .unwrap_or_default(),
            mode,
            would_deny: !decision.allowed,
            blocks: !decision.allowed && mode == Mode::Enforce,
            statement: decision.statement.cloned(),
            missing: is_missing.then(|| self.missing()),
        })
    }

    /// The operator statement that would allow the connection at both ends.
    fn missing(&self) -> String {
        let selector = |side: Side<'_>| match side {
            Side::Workload { id, .. } => {
                self.inventory.get(id).map(selector_for).unwrap_or_else(|| "any".to_owned())
            }
            Side::Host { .. } => "host".to_owned(),
            Side::Address(address) => format!("cidr:{address}"),
        };
        format!(
            "[[allow]]\nfrom = {}\nto = {}\nports = {}\n",
            quoted(&selector(self.client)),
            quoted(&selector(self.server)),
            quoted(&self.packet.to_string()),
        )
    }
}

/// A TOML basic string. Control characters never get here ([`Text`]), but escaping them costs nothing.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            other if other.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
