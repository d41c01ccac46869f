//! Owns the control socket: HTTP and JSON over a unix socket, for the command line and for scripts.
//!
//! Version 1: `GET /v1/status`, `GET /v1/journal`, `GET /v1/settled` (answers when everything known is programmed),
//! `POST /v1/reload`, `POST /v1/starts` (answers when a container may run; root only). Every answer is JSON; an error is `{"error": "…"}`.

pub mod client;
pub mod server;
pub mod start;

pub use client::Client;
pub use server::serve;
