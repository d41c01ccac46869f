//! Owns what others ask of the loop, and when they are answered.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{Engine, NetnsState, urgent};
use crate::config::Loaded;
use crate::input::Text;
use crate::metadata::{Observation, WorkloadId};
use crate::reconcile::clear::{Cleared, Clearing};
use crate::reconcile::desired::{Decider, Rules};
use crate::reconcile::journal::Entry;
use crate::reconcile::start::{Progress, Start, StartAnswer};
use crate::reconcile::status::{self, StatusReport};

/// What others ask of the loop.
pub enum Request {
    /// The state of everything.
    Status(oneshot::Sender<StatusReport>),
    /// The last transactions.
    Journal(oneshot::Sender<Vec<Entry>>),
    /// A container's first process exists and shall run: answers when everything it needs is in force, and all that its
    /// addresses meant before is gone. No answer while that is not so; whoever asks decides how long to wait.
    Start {
        /// The container.
        id: WorkloadId,
        /// Its first process.
        pid: u32,
        /// Where the answer goes.
        reply: oneshot::Sender<StartAnswer>,
    },
    /// Answers as soon as the loop comes to it: whether it still goes round.
    Alive(oneshot::Sender<()>),
    /// Answers when everything known is programmed and heard, or was tried.
    Settled(oneshot::Sender<()>),
    /// Compares every netns with the kernel's own state now, and answers when that is done.
    Audit(oneshot::Sender<()>),
    /// Takes every table out, answers, and ends the loop.
    Clear(oneshot::Sender<Cleared>),
    /// New rules, or why they could not be read; then the last good ones stay in force.
    Reload(Result<Box<Loaded>, String>),
}

impl Engine {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            // Whoever asked may have left meanwhile; that is no error here.
            Request::Journal(reply) => drop(reply.send(self.journal.entries())),
            Request::Alive(reply) => drop(reply.send(())),
            Request::Settled(reply) => self.waiting.push(reply),
            Request::Audit(reply) => {
                self.audit();
                self.waiting.push(reply);
            }
            Request::Start { id, pid, reply } => self.start(id, pid, reply),
            Request::Clear(reply) => {
                tracing::warn!("asked to take every table out and end");
                self.clearing = Some(Clearing::new(reply));
                self.decide();
            }
            Request::Status(reply) => {
                let report = status::report(
                    &self.facts,
                    &self.expected,
                    &self.desired,
                    &self.netns,
                    &self.rules.options.settings,
                    self.rules_error.clone(),
                );
                let kernel = self.kernel.clone();
                tokio::task::spawn_blocking(move || {
                    drop(reply.send(status::with_counts(report, &kernel)));
                });
            }
            Request::Reload(Ok(loaded)) => {
                self.rules = Rules::from(loaded.as_ref());
                self.decider = Decider::default();
                self.rules_error = None;
                self.foreign = loaded.config.foreign;
                tracing::info!("configuration loaded");
                self.decide();
            }
            Request::Reload(Err(error)) => {
                tracing::error!(%error, "configuration refused; the last good one stays in force");
                // Line by line: a text of one line has no line breaks in it.
                let lines = error.lines().map(|line| Text::new(line).to_string());
                self.rules_error = Some(lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }

    /// Takes a container to the start gate. Its process is as good as told by containerd.
    fn start(&mut self, id: WorkloadId, pid: u32, reply: oneshot::Sender<StartAnswer>) {
        self.observe_first(Observation::TaskCreated { id: id.clone(), pid });
        self.decide();
        self.starts.push(Start { id, pid, reply, began: Instant::now(), is_asked: false });
    }

    /// Lets those start for whom everything is in force.
    pub(super) fn answer_starts(&mut self) {
        self.starts.retain(|start| !start.reply.is_closed());
        if self.starts.is_empty() || !self.has_heard_all() {
            return;
        }
        self.bury_the_dead();
        for mut start in std::mem::take(&mut self.starts) {
            let owner = self.facts.inventory().netns_owner(&start.id).clone();
            if !start.is_asked && self.netns.contains_key(&owner) {
                // Addresses are complete only now: Docker 28 attaches networks after containerd made the process.
                self.queue.add(owner.clone(), urgent(Instant::now()));
                start.is_asked = true;
            }
            let progress = Progress {
                inventory: self.facts.inventory(),
                netns: &self.netns,
                queue: &self.queue,
            };
            match progress.answer(&start) {
                None => self.starts.push(start),
                Some(answer) => {
                    if let Some(state) = self.netns.get_mut(&owner) {
                        state.has_waited = Some(true);
                    }
                    tracing::debug!(workload = %start.id, pid = start.pid, ?answer, "may start");
                    // Whoever asked may have stopped waiting.
                    drop(start.reply.send(answer));
                }
            }
        }
    }

    /// Docker gives an address away as soon as its holder's process is dead, which nobody may have told yet.
    fn bury_the_dead(&mut self) {
        let is_dead =
            |state: &&NetnsState| state.process.as_ref().is_some_and(|process| !process.is_alive());
        let dead: Vec<_> = self
            .netns
            .iter()
            .filter(|(_, state)| is_dead(state))
            .map(|(id, state)| (id.clone(), state.pid))
            .collect();
        if dead.is_empty() {
            return;
        }
        for (id, pid) in dead {
            self.observe(Observation::TaskExited { id, pid });
        }
        self.decide();
    }

    /// Whether every source has listed what it knows, or has said that it cannot be reached.
    fn has_heard_all(&self) -> bool {
        self.expected.iter().all(|source| self.facts.source(*source).is_some())
    }

    /// Whether everything was asked to be taken out, and was, or was tried to be.
    pub(super) fn is_cleared(&mut self) -> bool {
        if !self.queue.is_settled() {
            return false;
        }
        let Some(clearing) = self.clearing.take() else { return false };
        clearing.finish(self.netns.values().filter_map(|state| state.last.error.clone()).collect());
        true
    }

    pub(super) fn answer_waiting(&mut self) {
        if self.queue.is_settled() && self.has_heard_all() {
            self.has_caught_up = true;
            // What is denied from now on is listed: whoever waited may look for it.
            if !self.netns.values().any(|state| state.hearing.is_asked()) {
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(());
                }
            }
        }
    }
}
