//! Owns the naive evaluator: what a policy says of one packet, read straight from its statements and the inventory.
//!
//! It is the oracle that everything compiled is held against, so it is deliberately simple and shares nothing with `compile`
//! but the definition of the internet.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use super::generate::resolvers;
use super::internet::is_internet;
use super::settings::Settings;
use super::statement::{Action, Direction, Peer, Policy, Statement, Traffic};
use crate::input::Text;
use crate::metadata::{Inventory, L4Proto, Ports, WorkloadId};
use crate::model::Helper;

/// The first packet of a connection, or an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packet {
    /// To this port.
    Port {
        /// The protocol.
        proto: L4Proto,
        /// The connection's destination port.
        port: u16,
    },
    /// An ICMP or ICMPv6 echo request.
    Ping,
}

/// A text that is neither one port nor `ping`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one port such as 5432/tcp, nor `ping`")]
pub struct PacketError(Text);

impl FromStr for Packet {
    type Err = PacketError;

    fn from_str(text: &str) -> Result<Self, PacketError> {
        if text == "ping" {
            return Ok(Self::Ping);
        }
        match text.parse::<Ports>() {
            Ok(Ports { proto, range }) if range.is_single() => {
                Ok(Self::Port { proto, port: range.first() })
            }
            _ => Err(PacketError(Text::new(text))),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { proto, port } => write!(f, "{port}/{proto}"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

/// What a policy says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether it may pass.
    pub allowed: bool,
    /// The statement that decides; without one it is denied by default.
    pub statement: Option<&'a Statement>,
}

/// The other party of a connection, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote<'a> {
    Address(IpAddr),
    /// A workload whose addresses are not known (it does not run).
    Workload(&'a WorkloadId),
    /// The host, where no gateway is known.
    Host,
}

/// What one policy says of a packet from (`Ingress`) or to (`Egress`) the address `remote`. The mode plays no part.
pub fn judge<'a>(
    policy: &'a Policy,
    inventory: &Inventory,
    settings: &Settings,
    direction: Direction,
    remote: IpAddr,
    packet: Packet,
) -> Decision<'a> {
    judge_netns(&[policy], inventory, settings, direction, remote, packet)
}

/// What the policies of all workloads in one netns say together: a deny of any of them denies, else an allow of any allows.
pub fn judge_netns<'a>(
    policies: &[&'a Policy],
    inventory: &Inventory,
    settings: &Settings,
    direction: Direction,
    remote: IpAddr,
    packet: Packet,
) -> Decision<'a> {
    judge_remote(policies, inventory, settings, direction, Remote::Address(remote), packet)
}

pub(super) fn judge_remote<'a>(
    policies: &[&'a Policy],
    inventory: &Inventory,
    settings: &Settings,
    direction: Direction,
    remote: Remote<'_>,
    packet: Packet,
) -> Decision<'a> {
    for action in [Action::Deny, Action::Allow] {
        for policy in policies {
            for statement in &policy.statements {
                if statement.action == action
                    && statement.direction == direction
                    && statement.traffic.iter().any(|traffic| carries(*traffic, packet))
                    && is_peer(&statement.peer, policy, inventory, settings, remote)
                {
                    return Decision {
                        allowed: action == Action::Allow,
                        statement: Some(statement),
                    };
                }
            }
        }
    }
    Decision { allowed: false, statement: None }
}

/// What the policies of one netns say of a data connection that a helper expects, from (`Ingress`) or to (`Egress`) the address
/// `remote`: it is allowed while a control connection with the same remote is, made by either of the two.
pub fn judge_expected<'a>(
    policies: &[&'a Policy],
    inventory: &Inventory,
    settings: &Settings,
    helper: Helper,
    (direction, remote, packet): (Direction, IpAddr, Packet),
) -> Decision<'a> {
    let own = judge_netns(policies, inventory, settings, direction, remote, packet);
    if own.statement.is_some() {
        return own;
    }
    for policy in policies {
        for statement in policy.statements.iter().filter(|one| one.action == Action::Allow) {
            let is_open = |ports: &Ports| {
                (ports.range.first()..=ports.range.last()).any(|port| {
                    let control = Packet::Port { proto: ports.proto, port };
                    let end = statement.direction;
                    judge_netns(policies, inventory, settings, end, remote, control).allowed
                })
            };
            let holds = |traffic: &Traffic| matches!(traffic, Traffic::Control(ports, own) if *own == helper && is_open(ports));
            if is_peer(&statement.peer, policy, inventory, settings, Remote::Address(remote))
                && statement.traffic.iter().any(holds)
            {
                return Decision { allowed: true, statement: Some(statement) };
            }
        }
    }
    own
}

fn carries(traffic: Traffic, packet: Packet) -> bool {
    match (traffic, packet) {
        (Traffic::Ports(ports) | Traffic::Control(ports, _), Packet::Port { proto, port }) => {
            ports.contains(proto, port)
        }
        (Traffic::Ping, Packet::Ping) => true,
        _ => false,
    }
}

fn is_peer(
    peer: &Peer,
    policy: &Policy,
    inventory: &Inventory,
    settings: &Settings,
    remote: Remote<'_>,
) -> bool {
    let Some(workload) = inventory.get(&policy.workload) else { return false };
    let Some(local) = inventory.get(inventory.netns_owner(&workload.id)) else { return false };
    match (peer, remote) {
        (Peer::World, _) | (Peer::Host, Remote::Host) => true,
        (Peer::Workloads { members, .. }, Remote::Address(address)) => members.iter().any(|id| {
            // Somebody who lived in another's netns and ended is at nobody's address.
            if inventory.has_left(id) {
                return false;
            }
            let member = inventory.get(inventory.netns_owner(id));
            member.is_some_and(|member| {
                member.networks.iter().any(|(key, network)| {
                    local.networks.contains_key(key) && network.addresses.contains(&address)
                })
            })
        }),
        (Peer::Workloads { members, .. }, Remote::Workload(remote)) => {
            let owner = inventory.netns_owner(remote);
            let shares = inventory.get(owner).is_some_and(|owner| {
                owner.networks.keys().any(|key| local.networks.contains_key(key))
            });
            shares && members.iter().any(|id| inventory.netns_owner(id) == owner)
        }
        (Peer::Host, Remote::Address(address)) => local
            .networks
            .values()
            .any(|network| network.host_addresses().any(|own| own == address)),
        (Peer::Internet, Remote::Address(address)) => is_internet(address),
        (Peer::Dns, Remote::Address(address)) => {
            resolvers(workload, inventory, settings).contains(&address)
        }
        (Peer::Cidr(range), Remote::Address(address)) => range.contains(address),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
