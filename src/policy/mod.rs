//! Owns policy: what each workload may do, in application terms, and how that is decided.
//!
//! Pure. A [`Policy`] names services, never addresses; which addresses are meant is found by `compile`.
//! Every statement says where it comes from.

pub mod settings;
pub mod statement;

pub use settings::{LabelTrust, Mode, Settings, UnknownTreatment};
pub use statement::{Action, Direction, Peer, Policy, PolicySet, Provenance, Statement, Traffic};
