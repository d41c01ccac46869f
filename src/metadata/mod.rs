//! Owns the facts: what Docker, containerd, a saved inspect or a compose file say about each workload.
//!
//! The types are pure; `docker`, `containerd`, `inspect` and `compose` are the sources that fill them.
//! The first two send observations, which `merge` folds into an inventory; the others give workloads at once.
//! Nothing here judges what a workload is or may do.

pub mod affiliation;
pub mod command;
pub mod compose;
pub mod container;
pub mod containerd;
pub mod docker;
pub mod image;
pub mod inspect;
pub mod inventory;
mod json;
pub mod merge;
pub mod observation;
pub mod port;
pub mod resolvers;
mod sequence;
pub mod wires;
pub mod workload;

pub use container::netns_inode;
pub use containerd::ContainerdSource;
pub use docker::{DockerSource, host_resolvers};
pub use image::{ImageFacts, ImageRef};
pub use inventory::Inventory;
pub use merge::InventoryBuilder;
pub use observation::{NetworkFacts, Observation, Source};
pub use port::{L4Proto, PortRange, Ports};
pub use workload::{
    Attachment, Capabilities, NetnsRef, NetworkKey, NetworkMode, Project, ProjectKind,
    PublishedPort, Runtime, State, Wire, WireVia, Workload, WorkloadId,
};
