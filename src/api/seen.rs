//! Owns answering what was seen: flows, denials, and events for who follows.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::server::{self, Daemon, stopping};
use crate::observe::metrics::{CONTENT_TYPE, Metrics, WorkloadMetrics};
use crate::observe::{Denial, Event, EventKind, Flow, Query, Totals};
use crate::reconcile::Request;

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

pub(super) async fn totals(daemon: &Daemon) -> Result<Totals, Response> {
    ask(daemon, Query::Totals).await
}

/// Numbers as Prometheus reads them.
pub(super) async fn metrics(State(daemon): State<Daemon>) -> Result<Response, Response> {
    let status = server::ask(&daemon, Request::Status).await?;
    let totals = totals(&daemon).await?;
    let count = |kind| totals.events.iter().find(|(one, _)| *one == kind).map_or(0, |(_, n)| *n);
    let repairs = count(EventKind::Repaired);
    let workloads = status.workloads.into_iter().map(|one| WorkloadMetrics {
        name: one.display_name,
        model: one.model,
        mode: one.mode,
        coverage: one.coverage,
        denied_in: one.denied_in,
        denied_out: one.denied_out,
        denied_raw: one.denied_raw,
    });
    let metrics = Metrics {
        version: status.version,
        workloads: workloads.collect(),
        sources: status.sources.into_iter().map(|one| (one.name, one.is_up)).collect(),
        transactions: repairs + count(EventKind::Changed),
        repairs,
        flows: totals.flows as u64,
        denials: totals.denials as u64,
        has_store_problem: totals.has_store_problem,
        store_lost: totals.store_lost,
        sinks_lost: totals.sinks_lost.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        kernel_lost: totals.lost,
        events: totals.events.into_iter().collect(),
    };
    let text = metrics.render();
    Ok(([(axum::http::header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
