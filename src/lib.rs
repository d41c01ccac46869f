//! seawall: a firewall for Docker and containerd hosts that writes its own rules.
//!
//! Data flows left to right through the modules, and a module imports only from modules to its left
//! (`tests/layering.rs` proves it):
//!
//! `input < metadata < model < policy < compile < nft < config < reconcile < observe < api < runtime < cli`
//!
//! `docs/ARCHITECTURE.md` walks one event and one packet through these files.

pub mod api;
pub mod cli;
pub mod compile;
pub mod config;
pub mod input;
pub mod metadata;
pub mod model;
pub mod nft;
pub mod observe;
pub mod policy;
pub mod reconcile;
pub mod runtime;
