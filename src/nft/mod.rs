//! Owns the kernel's side: rendering, encoding, applying, dumping and diffing rulesets.
//!
//! `render`, `expr` and `diff` are pure; `message` writes and `decode` reads netlink messages; `socket` sends one
//! transaction and tells what failed; `netlink` opens sockets and takes what the kernel says, and nobody else, into a `buffer`; `owner` says whose a table is; `netns` opens sockets in other network
//! namespaces; `listen` opens what denials and connections are heard by, `log`, `packet` and `conntrack` read it; `links` reads their interfaces and addresses, and `seats` keeps their queues from `AF_XDP` sockets;
//! `chains` lists what others have, and `scratch` furnishes a netns in which the kernel is tried.
//! What a ruleset should be is never decided here.

pub(crate) mod buffer;
pub mod chains;
pub mod conntrack;
pub mod conntrack_entries;
pub mod decode;
pub mod diff;
pub mod expr;
pub mod foreign;
pub(crate) mod links;
pub mod listen;
pub mod log;
pub mod message;
mod netlink;
pub mod netns;
pub mod owner;
pub mod packet;
pub mod render;
pub mod scratch;
pub mod seats;
pub mod socket;
pub mod watch;
mod wire;

pub use diff::{Op, Transaction, plan, plan_anew, plan_as};
pub use netns::{Netns, NetnsError};
pub use owner::{Claim, TableState};
pub use render::render;
pub use socket::{ApplyError, KernelTable};
