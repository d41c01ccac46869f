//! Owns what is seen on the network: denials and flows, told by the kernel, in words people know.
//!
//! `party` and `record` are the values. Nothing here decides what is allowed.

pub mod book;
pub mod names;
pub mod party;
pub mod record;
pub mod seen;

pub use party::{Carried, Party};
pub use record::{Denial, DenialKey, End, Event, EventKind, Flow, FlowKey, Said, Where};
