//! Owns the control socket: HTTP and JSON over a unix socket, for the command line and for scripts.
//!
//! Version 1: `GET /v1/status`, `GET /v1/journal`, `GET /v1/settled` (answers when everything known is programmed),
//! `GET /v1/flows`, `GET /v1/denials`, `GET /v1/events` (with `wait=true` it answers when there is one), `GET /v1/modes`,
//! `POST /v1/reload`; for root only `POST /v1/modes`, `POST /v1/starts` (answers when a container may run) and `POST /v1/clear` (takes every
//! table out, and the daemon ends). Every answer is JSON; an error is `{"error": "…"}`.

pub mod client;
mod limit;
mod seen;
pub mod server;
pub mod start;

pub use client::Client;
pub use server::{Asked, SettingsRequest, serve};
