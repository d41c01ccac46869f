//! Owns answering what was seen: flows, denials, and events for who follows.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query as Parameters, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::server::{Daemon, stopping};
use crate::observe::{Denial, Event, Flow, Query};

/// How long an answer waits at most for an event to come.
const PATIENCE: Duration = Duration::from_secs(25);

/// `GET /v1/events?after=NUMBER&wait=true`: events after that number, oldest first.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct After {
    /// The number of the last event that is known already; 0 for all.
    after: u64,
    /// Whether to wait until there is one.
    wait: bool,
}

async fn ask<T>(
    daemon: &Daemon,
    query: impl FnOnce(oneshot::Sender<T>) -> Query,
) -> Result<T, Response> {
    let (reply, answer) = oneshot::channel();
    daemon.asked.queries.send(query(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

pub(super) async fn flows(State(daemon): State<Daemon>) -> Result<Json<Vec<Flow>>, Response> {
    ask(&daemon, Query::Flows).await.map(Json)
}

pub(super) async fn denials(State(daemon): State<Daemon>) -> Result<Json<Vec<Denial>>, Response> {
    ask(&daemon, Query::Denials).await.map(Json)
}

pub(super) async fn events(
    State(daemon): State<Daemon>,
    Parameters(After { after, wait }): Parameters<After>,
) -> Result<Json<Vec<Event>>, Response> {
    let mut sequence = daemon.asked.sequence.clone();
    if wait {
        let is_later = sequence.wait_for(|last| *last > after);
        match tokio::time::timeout(PATIENCE, is_later).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Ok(Json(Vec::new())),
        }
    }
    ask(&daemon, |reply| Query::Events(after, reply)).await.map(Json)
}
