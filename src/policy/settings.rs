//! Owns the settings that generation obeys.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

/// What is done to a workload's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not touched.
    Off,
    /// Nothing is dropped; all that would be is counted and logged.
    #[default]
    Observe,
    /// What is not allowed is denied.
    Enforce,
}

/// What `seawall.*` labels on containers may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelTrust {
    /// They say what a workload is, provides and uses, and its mode.
    #[default]
    Trust,
    /// They may only take away: a stricter mode, fewer services.
    Narrow,
    /// They are not read.
    Ignore,
}

/// How workloads are treated that no model fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTreatment {
    /// The baseline policy, in observe whatever the default mode is.
    #[default]
    Observe,
    /// Exposed ports inside the project, and DNS.
    Baseline,
    /// Nothing but what operators state.
    Deny,
}

/// The settings that generation obeys; the defaults are those of a host with no configuration at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The mode of workloads nothing else speaks of.
    pub mode: Mode,
    /// Treatment of unknown workloads.
    pub unknown: UnknownTreatment,
    /// Trust in labels.
    pub labels: LabelTrust,
    /// Whether the host may reach provided ports.
    pub host: bool,
    /// Resolvers for every workload, instead of those found out from Docker and the host.
    pub resolvers: Option<BTreeSet<IpAddr>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            unknown: UnknownTreatment::default(),
            labels: LabelTrust::default(),
            host: true,
            resolvers: None,
        }
    }
}

/// What happens to a packet that is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyVerdict {
    /// Nothing is answered.
    Drop,
    /// The sender is told at once: a TCP reset, or an ICMP error for all else.
    Reject,
}

/// What happens to denied packets in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DenyVerdicts {
    /// Packets to the workload.
    pub ingress: DenyVerdict,
    /// Packets from the workload.
    pub egress: DenyVerdict,
}

impl Default for DenyVerdicts {
    /// Strangers learn nothing; the workload's own application fails fast.
    fn default() -> Self {
        Self { ingress: DenyVerdict::Drop, egress: DenyVerdict::Reject }
    }
}
