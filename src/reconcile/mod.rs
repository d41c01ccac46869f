//! Owns keeping it true: events and the kernel's state in, the smallest transactions out.
//!
//! `desired` (pure) is the pipeline from facts to rulesets; `apply` brings one netns to what is desired; `queue`
//! orders the work; `start` is the gate containers wait at; `kept` is what is held of a running container, `hearing` where it is heard; `engine` is the
//! daemon's loop; `feed` hands on what others may look at. Level-triggered: why something woke up is logged, never decided on.

pub mod apply;
pub mod clear;
pub mod collect;
mod control;
pub mod coverage;
pub mod desired;
pub mod engine;
pub mod feed;
pub mod foreign;
mod hearing;
pub mod identity;
pub mod journal;
pub mod kept;
pub mod queue;
pub mod start;
pub mod status;
pub mod watch;

pub use apply::{Applied, Failure, Kernel, Target, Wanted, Watching};
pub use clear::Cleared;
pub use coverage::Coverage;
pub use desired::{Desired, Rules, desire};
pub use engine::{End, Engine, Request};
pub use feed::{Inlet, Outlet, View, feed};
pub use journal::{Entry, Journal};
pub use start::StartAnswer;
pub use status::{StatusReport, WorkloadStatus};
