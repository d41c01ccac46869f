//! Owns policy: what each workload may do, in application terms, and how that is decided.
//!
//! Pure. A [`Policy`] names services, never addresses; which addresses are meant is found by `compile`.
//! Every statement says where it comes from.

pub mod settings;
pub mod statement;

pub use settings::{DenyVerdict, DenyVerdicts};
pub use settings::{LabelTrust, Mode, Settings, UnknownTreatment};
pub use statement::{Action, Direction, Peer, Policy, PolicySet, Provenance, Statement, Traffic};
use std::net::{Ipv4Addr, Ipv6Addr};
/// x
pub const INTERNET_V4: [(Ipv4Addr, Ipv4Addr); 7] = [
    (Ipv4Addr::new(1, 0, 0, 0), Ipv4Addr::new(9, 255, 255, 255)),
    (Ipv4Addr::new(11, 0, 0, 0), Ipv4Addr::new(100, 63, 255, 255)),
    (Ipv4Addr::new(100, 128, 0, 0), Ipv4Addr::new(126, 255, 255, 255)),
    (Ipv4Addr::new(128, 0, 0, 0), Ipv4Addr::new(169, 253, 255, 255)),
    (Ipv4Addr::new(169, 255, 0, 0), Ipv4Addr::new(172, 15, 255, 255)),
    (Ipv4Addr::new(172, 32, 0, 0), Ipv4Addr::new(192, 167, 255, 255)),
    (Ipv4Addr::new(192, 169, 0, 0), Ipv4Addr::new(223, 255, 255, 255)),
];
/// x
pub const INTERNET_V6: [(Ipv6Addr, Ipv6Addr); 1] = [(
    Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x3fff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
)];
