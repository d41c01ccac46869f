//! Owns the thread of one sink: its queue, its batches, its patience with a receiver that is away.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::file::EventFile;
use super::journald::Journald;
use super::syslog::Syslog;
use super::webhook::Webhook;
use crate::observe::condition::Condition;
use crate::observe::record::Event;

/// How many events wait for one sink.
const QUEUE: usize = 4096;
/// How long a webhook's batch is gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The first and the longest wait for a receiver that is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A sink.
#[derive(Debug)]
pub(super) enum Outlet {
    Journald(Journald),
    File(EventFile),
    Syslog(Syslog),
    Webhook(Webhook),
}

/// Why events were not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    /// The receiver may take them later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

impl Outlet {
    fn name(&self) -> &'static str {
        match self {
            Self::Journald(_) => "journald",
            Self::File(_) => "file",
            Self::Syslog(_) => "syslog",
            Self::Webhook(_) => "webhook",
        }
    }

    /// How many events are delivered at once.
    fn batch(&self) -> usize {
        match self {
            Self::Webhook(_) => 100,
            _ => 1,
        }
    }

    /// Delivers all of them, or none.
    fn deliver(&mut self, events: &[Arc<Event>]) -> Result<(), Undelivered> {
        match self {
            Self::Webhook(webhook) => webhook.deliver(events),
            Self::Journald(journald) => each(events, |event| journald.deliver(event)),
            Self::File(file) => each(events, |event| file.deliver(event)),
            Self::Syslog(syslog) => each(events, |event| syslog.deliver(event)),
        }
    }
}

/// For sinks whose batches are of one.
fn each(
    events: &[Arc<Event>],
    deliver: impl FnMut(&Event) -> Result<(), Undelivered>,
) -> Result<(), Undelivered> {
    events.iter().map(Arc::as_ref).try_for_each(deliver)
}

/// A sink's thread, as others see it.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    events: SyncSender<Arc<Event>>,
    /// Dropped, it wakes a thread that waits for its receiver.
    stop: SyncSender<()>,
    ended: std::sync::Mutex<Receiver<()>>,
    condition: Arc<Condition>,
}

/// A thread that was told to end.
pub(super) struct Ending(Receiver<()>);

impl Ending {
    pub(super) fn wait(self, patience: Duration) {
        // Nothing is ever sent: it is over, or patience is.
        let _ = self.0.recv_timeout(patience);
    }
}

impl Worker {
    pub(super) fn start(outlet: Outlet) -> Self {
        let name = outlet.name();
        let condition = Arc::new(Condition::new(name, "events"));
        let (events, queue) = sync_channel(QUEUE);
        let (stop, stopped) = sync_channel(0);
        let (ends_with_thread, ended) = sync_channel(0);
        let line = Line { outlet, queue, stopped, condition: Arc::clone(&condition) };
        let started = thread::Builder::new().name(format!("sink-{name}")).spawn(move || {
            line.run();
            drop(ends_with_thread);
        });
        if let Err(error) = started {
            condition.trouble(format!("there can be no thread: {error}"));
        }
        Self { name, events, stop, ended: std::sync::Mutex::new(ended), condition }
    }

    pub(super) fn send(&self, event: &Arc<Event>) {
        if self.events.try_send(Arc::clone(event)).is_err() {
            self.condition.lose(1, "they came faster than they could be delivered");
        }
    }

    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        self.condition.line(now).map(|line| format!("{}: {line}", self.name))
    }

    pub(super) fn lost(&self) -> (&'static str, u64) {
        (self.name, self.condition.lost())
    }

    pub(super) fn stop(self) -> Ending {
        let Self { events, stop, ended, .. } = self;
        drop((events, stop));
        Ending(ended.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// What the thread has.
struct Line {
    outlet: Outlet,
    queue: Receiver<Arc<Event>>,
    stopped: Receiver<()>,
    condition: Arc<Condition>,
}

impl Line {
    fn run(mut self) {
        while let Ok(first) = self.queue.recv() {
            let batch = self.gather(first);
            if !self.deliver(&batch) {
                let rest = self.queue.iter().count();
                self.condition.lose(batch.len() + rest, "the end came before they were delivered");
                return;
            }
        }
    }

    /// What comes within a second of the first one, as much as is delivered at once.
    fn gather(&self, first: Arc<Event>) -> Vec<Arc<Event>> {
        let (most, end) = (self.outlet.batch(), Instant::now() + GATHER);
        let mut batch = vec![first];
        while batch.len() < most {
            match self.queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => batch.push(event),
                Err(_) => break,
            }
        }
        batch
    }

    /// Tries until it is delivered or never will be. Returns false when the end came first.
    fn deliver(&mut self, batch: &[Arc<Event>]) -> bool {
        let mut wait = RETRY.0;
        loop {
            match self.outlet.deliver(batch) {
                Ok(()) => {
                    self.condition.well();
                    return true;
                }
                Err(Undelivered::Never(why)) => {
                    self.condition.well();
                    self.condition.lose(batch.len(), &why);
                    return true;
                }
                Err(Undelivered::Later(why)) => self.condition.trouble(why),
            }
            if self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
            wait = (wait * 2).min(RETRY.1);
        }
    }
}
