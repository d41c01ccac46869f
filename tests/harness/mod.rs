//! Owns what tests need around seawall: a Docker host of their own, an outside world, and probes that send real packets.
//!
//! Needs root and a machine that can run Docker; where either is missing a test fails, it never skips.
//! Everything a test makes goes away with it, also when it panics or is killed (`scripts/private-docker --owner`).

// Every test crate has its own copy of this module and uses a part of it.
#![allow(dead_code, unused_imports)]

mod capture;
mod container;
mod deadline;
mod docker_host;
mod lab;
mod names;
mod netns;
mod oracle;
mod plain;
mod probe;
mod report;
mod runtime;
mod seawall;
mod shop;
mod stage;
mod tables;
mod tap;

pub(crate) use capture::{Capture, Seen};
pub(crate) use container::Container;
pub(crate) use deadline::{eventually, until};
pub(crate) use docker_host::{DockerHost, Engine, Guest, OUTSIDE_NET4, OUTSIDE_NET6};
pub(crate) use lab::{Flows, IDLE, Lab, Prober, STORE};
pub(crate) use netns::Netns;
pub(crate) use oracle::Oracle;
pub(crate) use plain::Plain;
pub(crate) use probe::{Flow, Probe, Server};
pub(crate) use runtime::FIRST_WORD;
pub(crate) use seawall::Seawall;
pub(crate) use shop::Shop;
pub(crate) use stage::Stage;
pub(crate) use tables::{EmptyNetns, held, nft, nft_fails};
pub(crate) use tap::{Frame, Tap};
