//! Owns what is seen on the network: denials and flows, told by the kernel, in words people know.
//!
//! `party` and `record` are the values; `learn` proposes policy from them. Nothing here decides what is allowed.

pub mod learn;
pub mod party;
pub mod record;

pub use party::{Carried, Party};
pub use record::{Denial, DenialKey, End, Event, EventKind, Flow, FlowKey, Said, Where};
