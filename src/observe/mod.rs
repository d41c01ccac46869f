//! Owns what is seen on the network: denials and flows, told by the kernel, in words people know.
//!
//! `reader` reads one netns, `seen` makes sense of what was told, `attribution` says whose it is (with `book`, who has an
//! address, and `names`, what addresses are called), `flows`, `denials` and `events` count and number (with `share`, who gives way
//! when it is too much), and `observer` is the task that owns them; `settling` has what was told wait until it is clear of whom.
//! `store` keeps them, `sinks` tells others, `metrics` renders numbers; `condition` is how these say what is wrong.
//! `party` and `record` are the values; `learn` proposes policy from them. Nothing here decides what is allowed.

pub mod attribution;
pub mod book;
mod condition;
pub mod denials;
mod events;
pub mod flows;
mod kind;
pub mod learn;
pub mod metrics;
pub mod names;
pub mod observer;
pub mod party;
pub mod process;
pub mod reader;
pub mod record;
#[cfg(test)]
mod sample;
pub mod seen;
mod settling;
mod share;
pub mod sinks;
pub mod store;

pub use metrics::{Metrics, WorkloadMetrics};
pub use observer::{Observer, Query, Totals};
pub use party::{Carried, Party};
pub use record::{Denial, DenialKey, End, Event, EventKind, Flow, FlowKey, Said, Where};
pub use sinks::Sinks;
pub use store::{Change, Limits, Restored, Store};
