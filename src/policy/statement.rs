//! Owns the declarative form: policies made of allow and deny statements between named parties.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::settings::Mode;
use crate::input::{Place, Text};
use crate::metadata::{Ports, WorkloadId};
use crate::model::{Helper, ModelName, ServiceName};

/// Allow or deny. Deny beats allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Connections that match may be made.
    Allow,
    /// Connections that match may not be made, whatever allows them.
    Deny,
}

/// Whose connections: those made to the workload or by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Connections to the workload: the peer is the client.
    Ingress,
    /// Connections by the workload: the peer is the server.
    Egress,
}

/// The other party.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Other workloads: all replicas of a service, or one container.
    ///
    /// Meant are the addresses of each member's netns owner ([`crate::metadata::Inventory::netns_owner`]) on
    /// networks that the netns owner of the policy's own workload is attached to as well.
    Workloads {
        /// What people call it: `shop/api (node)`.
        label: Text,
        /// The workloads themselves (not their netns owners). Never the policy's own workload nor one in the same
        /// netns. Empty where a service may reach its own replicas and there is one only: scaling fills it.
        members: BTreeSet<WorkloadId>,
    },
    /// The host the workload runs on: the gateways of its networks.
    Host,
    /// Any address.
    World,
    /// Any globally routed address: not private, link-local, loopback, multicast or reserved.
    Internet,
    /// The workload's DNS resolvers ([`crate::metadata::Workload::resolvers`], or the settings').
    Dns,
    /// A range of addresses an operator named.
    Cidr(IpNetwork),
}

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Ports of the connection's destination.
    Ports(Ports),
    /// ICMP and ICMPv6 echo requests.
    Ping,
    /// Ports of a control connection's destination, and the data connections between the same two that the helper finds
    /// agreed on there, whichever of the two makes them.
    Control(Ports, Helper),
}

/// Where a statement comes from. Explaining a verdict is looking this up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Provenance {
    /// A model says so.
    Model {
        /// Which model: the server's, for a service between workloads.
        model: ModelName,
        /// The service, if one is meant.
        service: Option<ServiceName>,
        /// Where the model says it.
        place: Place,
    },
    /// A container label says so.
    Label {
        /// The label's name.
        key: Text,
        /// On which workload (display name).
        workload: Text,
    },
    /// An operator's policy file says so.
    Operator {
        /// Where.
        place: Place,
    },
    /// The workload publishes the port.
    Published {
        /// The port as published, without host addresses: `80/tcp`.
        port: Ports,
    },
    /// The baseline for workloads no model fits.
    Baseline,
    /// One of seawall's own rules: DNS, host access, ping between related workloads, and leaving the host's netns alone.
    Builtin {
        /// Which: `dns`, `host`, `ping`, `host-network`.
        rule: &'static str,
    },
    /// The configuration file's setting of this name.
    Setting {
        /// `mode`, `unknown`…
        key: &'static str,
    },
}

/// One allow or deny.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Statement {
    /// Allow or deny.
    pub action: Action,
    /// Direction, seen from the policy's workload.
    pub direction: Direction,
    /// The other party.
    pub peer: Peer,
    /// What is carried; never empty.
    pub traffic: BTreeSet<Traffic>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// What one workload may do. What no statement allows is denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Whose policy.
    pub workload: WorkloadId,
    /// What people call it: `shop/web (nginx)`.
    pub label: Text,
    /// What is done to its packets.
    pub mode: Mode,
    /// Who says so.
    pub mode_from: Provenance,
    /// Statements, sorted, each once.
    pub statements: Vec<Statement>,
    /// Whether its model forwards packets for others.
    pub routes: bool,
}

/// Every workload's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicySet {
    /// By workload.
    pub policies: BTreeMap<WorkloadId, Policy>,
    /// Container labels that could not be honoured, in the workloads' order.
    pub problems: Vec<LabelProblem>,
}

/// A `seawall.*` label that was not honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LabelProblem {
    /// On which workload.
    pub workload: WorkloadId,
    /// What people call the workload.
    pub label: Text,
    /// The label's name.
    pub key: Text,
    /// A stable code: `label/malformed`, `label/unknown`, `label/from-image`.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub message: Text,
}

impl fmt::Display for LabelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: label {}: warning[{}]: {}", self.label, self.key, self.code, self.message)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(ports) => ports.fmt(f),
            Self::Ping => f.write_str("ping"),
            Self::Control(ports, helper) => write!(f, "{ports} with helper {helper}"),
        }
    }
}

impl Serialize for Traffic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads { label, .. } => label.fmt(f),
            Self::Host => f.write_str("host"),
            Self::World => f.write_str("world"),
            Self::Internet => f.write_str("internet"),
            Self::Dns => f.write_str("dns"),
            Self::Cidr(network) => write!(f, "cidr:{network}"),
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model { model, place, .. } => write!(f, "model {model}, {place}"),
            Self::Label { key, workload } => write!(f, "label {key} on {workload}"),
            Self::Operator { place } => write!(f, "operator, {place}"),
            Self::Published { port } => write!(f, "published port {port}"),
            Self::Baseline => f.write_str("baseline for unknown images"),
            Self::Builtin { rule } => write!(f, "built-in rule `{rule}`"),
            Self::Setting { key } => write!(f, "setting `{key}`"),
        }
    }
}
