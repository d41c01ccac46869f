//! Owns the status report: what is known, decided and in force, as a stable form for people and programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apply::Kernel;
use super::coverage::{LastTry, shared_coverage};
use super::desired::{Desired, is_running};
use super::engine::NetnsState;
use crate::compile::guard::DENY;
use crate::compile::sender::SENDER;
use crate::metadata::{InventoryBuilder, Source, Workload, WorkloadId};
use crate::nft::decode::Counts;
use crate::nft::socket::Dump;
use crate::policy::{Mode, Settings, netns_mode};

/// The daemon's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// seawall's version.
    pub version: String,
    /// The mode of workloads nothing else speaks of.
    pub mode: String,
    /// Docker, containerd: reached, or why not.
    pub sources: Vec<SourceStatus>,
    /// Why the configuration on disk is not the one in force.
    pub configuration_error: Option<String>,
    /// What is wrong with keeping what was seen, and sending it elsewhere.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Workloads by name.
    pub workloads: Vec<WorkloadStatus>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `Docker` or `containerd`.
    pub name: String,
    /// Whether it answers.
    pub is_up: bool,
    /// Why it does not.
    pub error: Option<String>,
}

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// The runtime's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// `project/service`.
    pub display_name: String,
    /// The image as it was named.
    pub image: Option<String>,
    /// Its model; none is unknown.
    pub model: Option<String>,
    /// How sure, 0 to 100.
    pub confidence_percent: u8,
    /// off, observe or enforce.
    pub mode: String,
    /// Who says so.
    pub mode_from: String,
    /// enforced, observed, degraded, unprotected or stopped, with the reason.
    pub coverage: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Packets to it that no statement allows, since the table was made.
    pub denied_in: u64,
    /// Packets from it that no statement allows.
    pub denied_out: u64,
    /// Packets that were stopped because of whom they say they are from, or at its links because raw sockets sent them.
    #[serde(default)]
    pub denied_raw: u64,
    /// Its first process, while it runs.
    pub pid: Option<u32>,
    /// Whether its first instruction waited for its policy (`seawall runtime`); none where it ran before the daemon did, or
    /// is not filtered.
    pub has_waited: Option<bool>,
    /// Chains of others in its netns, but for those that only translate addresses.
    #[serde(default)]
    pub foreign: Vec<String>,
}

pub(super) fn report(
    facts: &InventoryBuilder,
    expected: &[Source],
    desired: &Desired,
    netns: &BTreeMap<WorkloadId, NetnsState>,
    settings: &Settings,
    configuration_error: Option<String>,
) -> StatusReport {
    let inventory = facts.inventory();
    let sources = expected.iter().map(|source| SourceStatus {
        name: source.to_string(),
        is_up: matches!(facts.source(*source), Some(Ok(()))),
        error: match facts.source(*source) {
            Some(Err(error)) => Some(error.to_string()),
            Some(Ok(())) => None,
            None => Some("not answered yet".to_owned()),
        },
    });
    let mut living: BTreeMap<&WorkloadId, Vec<&Workload>> = BTreeMap::new();
    for workload in inventory.iter().filter(|workload| is_running(workload)) {
        living.entry(inventory.netns_owner(&workload.id)).or_default().push(workload);
    }
    let mut workloads: Vec<WorkloadStatus> = inventory
        .iter()
        .map(|workload| {
            let owner = inventory.netns_owner(&workload.id);
            let state = netns.get(owner);
            let last = state.map(|state| state.last.clone()).unwrap_or_default();
            let mates = living.get(owner).map(Vec::as_slice).unwrap_or_default();
            let has_waited = state.and_then(|state| state.has_waited);
            let chains = state.map(|state| state.foreign.iter().map(|one| one.chain.to_string()));
            let foreign = chains.map(Iterator::collect).unwrap_or_default();
            WorkloadStatus { has_waited, foreign, ..one(workload, mates, desired, &last) }
        })
        .collect();
    workloads.sort_by(|a, b| (&a.display_name, &a.name).cmp(&(&b.display_name, &b.name)));
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: settings.mode.to_string(),
        sources: sources.collect(),
        configuration_error,
        problems: Vec::new(),
        workloads,
    }
}

fn one(
    workload: &Workload,
    living: &[&Workload],
    desired: &Desired,
    last: &LastTry,
) -> WorkloadStatus {
    let mates: Vec<_> = living.iter().copied().filter(|one| one.id != workload.id).collect();
    let policies = mates.iter().chain([&workload]);
    let policies: Vec<_> =
        policies.filter_map(|one| desired.policies.policies.get(&one.id)).collect();
    // The one table they have is in the strictest of their modes.
    let in_force = netns_mode(&policies);
    let policy = desired.policies.policies.get(&workload.id);
    let resolution = desired.resolutions.get(&workload.id);
    let mode = policy.map_or(Mode::Off, |policy| policy.mode);
    let percent = resolution.map_or(0.0, |resolution| resolution.confidence * 100.0).round();
    WorkloadStatus {
        id: workload.id.to_string(),
        name: workload.name.to_string(),
        display_name: workload.display_name().to_string(),
        image: workload.image.reference.as_ref().map(ToString::to_string),
        model: resolution.and_then(|found| found.model.as_ref()).map(ToString::to_string),
        confidence_percent: percent.clamp(0.0, 100.0) as u8,
        mode: mode.to_string(),
        mode_from: policy.map(|policy| policy.mode_from.to_string()).unwrap_or_default(),
        coverage: shared_coverage(workload, &mates, in_force, is_running(workload), last)
            .to_string(),
        addresses: workload.addresses().map(|address| address.to_string()).collect(),
        denied_in: 0,
        denied_out: 0,
        denied_raw: 0,
        pid: workload.netns.as_ref().map(|netns| netns.pid),
        has_waited: None,
        foreign: Vec::new(),
    }
}

/// Adds what the kernel counted. Blocking.
pub(super) fn with_counts(mut report: StatusReport, kernel: &Kernel) -> StatusReport {
    for workload in &mut report.workloads {
        // One that ended meanwhile has no counters; its line says what was known.
        let Some(Ok((Dump { counts, .. }, _))) = workload.pid.map(|pid| kernel.read(pid)) else {
            continue;
        };
        let packets = |chain: &str| counts.get(chain).map_or(0, |counts: &Counts| counts.packets);
        workload.denied_in = packets("deny_ingress");
        workload.denied_out = packets("deny_egress");
        workload.denied_raw = packets(DENY) + packets(SENDER);
    }
    report
}
