//! Owns what the loop does with a try that is over: what is in force is noted and told, what failed is tried again.

use std::time::Instant;

use tokio::sync::mpsc;

use super::{Done, Engine, watching};
use crate::reconcile::apply::Target;
use crate::reconcile::control::Follower;
use crate::reconcile::coverage::LastTry;
use crate::reconcile::journal::Entry;
use crate::reconcile::kept::{Kept, SlowToClose, await_end};
use crate::reconcile::watch::News;

impl Engine {
    pub(super) fn finish(&mut self, done: Done, sender: &mpsc::UnboundedSender<News>) {
        let Done { target, found, result } = done;
        let Target { owner, pid, process, wanted, is_fresh, socket, watching, .. } = target;
        let is_watched = watching.is_some();
        let mut opened = SlowToClose::from(watching.and_then(|watching| watching.opened));
        let socket = Kept::from(socket);
        let Some(state) = self.netns.get_mut(&owner).filter(|state| state.pid == pid) else {
            // It ended, or started again, meanwhile.
            self.queue.done(&owner);
            return;
        };
        self.untried.remove(&owner);
        let inventory = self.facts.inventory();
        let name = inventory.get(&owner).map(|workload| workload.name.clone()).unwrap_or_default();
        if let (None, Some(process)) = (&state.process, &process) {
            await_end(owner.clone(), process, sender.clone());
        }
        // Who follows the netns leaves out what the former socket commits, whoever has its port id by now.
        let is_another = state.port_id.is_some() && state.port_id != socket.port_id();
        if is_another {
            state.watcher = None;
        }
        state.port_id = socket.port_id();
        (state.process, state.socket) = (process, socket);
        match result {
            Ok(applied) => {
                match &applied.unseated {
                    None => self.queue.done(&owner),
                    Some(why) => {
                        let wait = self.queue.failed(owner.clone(), Instant::now());
                        tracing::warn!(workload = %name, why, retry_ms = wait.as_millis(), "not all is stopped");
                    }
                }
                if let Some(clearing) = &mut self.clearing {
                    clearing.note(&applied.transaction);
                }
                // What follows links that only the runtime can change is no repair.
                let made = (applied.known.guard.clone(), applied.addresses.clone());
                let follows = !wanted.guard.is_admin && state.made.as_ref() != Some(&made);
                let is_repair = state.reached.as_ref() == Some(&wanted) && !follows;
                state.made = Some(made);
                state.last = LastTry {
                    is_in_force: applied.known.ruleset.is_some(),
                    is_guarded: wanted.guard.guards
                        && wanted.guard.denies
                        && applied.unguarded.is_none()
                        && applied.unseated.is_none(),
                    unguarded: applied.unguarded.or(applied.unseated),
                    error: None,
                    diverted: state.last.diverted.take(),
                };
                if is_fresh || state.first.is_none() {
                    state.first = Some(applied.addresses.clone());
                }
                state.known = Some(applied.known);
                state.reached = Some(wanted);
                Follower::keep(&mut state.control, &self.kernel, &state.process, &state.known);
                let by = state.by.take().filter(|_| is_repair);
                if !applied.transaction.is_empty() {
                    // What we are made to do in a loop is limited; what we decide is told.
                    let allowed = if is_repair { state.log.allow(Instant::now()) } else { Some(0) };
                    let entry = self.journal.note(
                        (owner.as_str(), name.as_str()),
                        &applied.transaction,
                        is_repair,
                        applied.took,
                        applied.committed,
                        (by.map(|by| by.to_string()), allowed.is_none()),
                    );
                    if let Some(suppressed) = allowed {
                        report(entry, suppressed);
                    }
                }
                self.ask_to_listen(&owner);
                if self.facts.set_addresses(&owner, applied.addresses.into_iter().collect()) {
                    self.decide();
                }
            }
            Err(failure) if failure.is_gone() => {
                tracing::debug!(workload = %name, "ended while it was being programmed");
                self.queue.done(&owner);
            }
            Err(failure) => {
                let error = failure.chain();
                let wait = self.queue.failed(owner.clone(), Instant::now());
                if let Some(suppressed) = state.log.allow(Instant::now()) {
                    let retry_ms = wait.as_millis();
                    tracing::error!(workload = %name, %error, retry_ms, suppressed, "not programmed");
                }
                state.last.error = Some(error);
            }
        }
        match opened.take() {
            Some(opened) => self.watch(&owner, opened, sender),
            None if !is_watched || is_another => {
                self.unwatched.push_back((owner.clone(), Instant::now()))
            }
            None => {}
        }
        if let Some((findings, took)) = found {
            self.take_findings(&owner, findings, took);
        }
    }
}

fn report(entry: &Entry, suppressed: u32) {
    let first = entry.changes.first().map(String::as_str).unwrap_or_default();
    if entry.is_repair {
        tracing::warn!(
            workload = entry.workload,
            by = entry.by.clone().unwrap_or_else(watching::unknown),
            operations = entry.operations,
            first,
            suppressed,
            "somebody changed the table; repaired"
        );
    } else {
        tracing::info!(
            workload = entry.workload,
            operations = entry.operations,
            elements_only = entry.is_elements_only,
            revokes = entry.is_revoking,
            took_us = entry.took_us,
            first,
            "programmed"
        );
    }
}
