//! Owns policy: what each workload may do, in application terms, and how that is decided.
//!
//! Pure. A [`Policy`] names services, never addresses; which addresses are meant is found by `compile`.
//! Every statement says where it comes from. [`fn@generate`] makes the policies, [`text`] prints them, and
//! [`evaluate`] is the naive reading of them that everything compiled is held against.

mod choose;
pub mod evaluate;
pub mod generate;
mod grant;
mod helped;
pub mod internet;
mod labels;
pub mod mode;
pub mod operator;
mod party;
mod relate;
pub mod selector;
pub mod settings;
mod stated;
pub mod statement;
pub mod text;
pub mod traffic;
pub mod verdict;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod generate_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod trust_tests;

pub use choose::choose;
pub use evaluate::{Decision, Packet, judge, judge_netns};
pub use generate::{generate, resolvers};
pub use internet::{INTERNET_V4, INTERNET_V6, is_internet};
pub use mode::netns_mode;
pub use operator::OperatorPolicy;
pub use selector::{Selector, Subject};
pub use settings::{DenyVerdict, DenyVerdicts, LabelTrust, Mode, Settings, UnknownTreatment};
pub use statement::{
    Action, Direction, LabelProblem, Peer, Policy, PolicySet, Provenance, Statement, Traffic,
};
pub use verdict::{End, Endpoint, Note, Verdict, test_connection};
