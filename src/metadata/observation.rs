//! Owns [`Observation`]: what a source tells, one thing at a time, and [`NetworkFacts`].
//!
//! Sources send observations into a channel in the order in which they became true for that source;
//! two sources are not ordered against each other. `merge` folds them into an inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::workload::{NetworkKey, Workload, WorkloadId};
use crate::input::Text;

/// Who observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Docker's API.
    Docker,
    /// containerd's API.
    Containerd,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Docker => "Docker",
            Self::Containerd => "containerd",
        })
    }
}

/// One network of the runtime, independent of who is attached to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkFacts {
    /// Its identity, the same as in a workload's attachments.
    pub key: NetworkKey,
    /// Its name (`shop_default`).
    pub name: Text,
    /// Its driver (`bridge`, `macvlan`, `overlay`…), where known.
    pub driver: Option<Text>,
    /// Whether it is Docker's shared default bridge.
    pub is_default_bridge: bool,
    /// The ranges its addresses come from, IPv4 and IPv6.
    pub subnets: BTreeSet<IpNetwork>,
    /// Its gateways: the host's own addresses on a bridge network.
    pub gateways: BTreeSet<IpAddr>,
}

impl NetworkFacts {
    /// Whether an address belongs to one of its subnets.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }
}

/// One thing a source saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Everything the source knows: workloads of this source that are not among them are gone.
    /// Sent after each (re)connection.
    Snapshot {
        /// Who says so.
        source: Source,
        /// All of its workloads.
        workloads: Vec<Workload>,
    },
    /// A workload is new or its facts changed.
    Upsert(Box<Workload>),
    /// A workload does not exist any more.
    Removed(WorkloadId),
    /// A workload's process ended; the workload may start again.
    Stopped(WorkloadId),
    /// containerd made a workload's first process and its netns; nothing of the container runs yet.
    /// For a Docker container this arrives before Docker itself says that it runs.
    TaskCreated {
        /// The workload.
        id: WorkloadId,
        /// The first process, in seawall's pid namespace.
        pid: u32,
    },
    /// containerd saw a workload's first process end.
    TaskExited {
        /// The workload.
        id: WorkloadId,
        /// The process that ended, so that the end of a former one is not taken for that of its successor.
        pid: u32,
    },
    /// Every task containerd runs now, those of Docker's containers among them: what was missed while it was away
    /// is made up for. Sent before each of containerd's snapshots.
    Tasks {
        /// The first process of each.
        running: BTreeMap<WorkloadId, u32>,
        /// Those of which containerd cannot tell now, because they are being started or ended: what is known of them stays.
        undecided: BTreeSet<WorkloadId>,
    },
    /// Every network Docker has now.
    Networks(Vec<NetworkFacts>),
    /// The source cannot be reached. What it said before stays in force (security model 2: fail closed);
    /// the source goes on trying and sends a snapshot when it succeeds.
    Down {
        /// Which one.
        source: Source,
        /// Why, with all causes.
        error: Text,
    },
}
