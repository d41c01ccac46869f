//! Owns where events go besides the store: systemd's journal, a file, a syslog, a webhook.
//!
//! Each sink has a thread and a queue of its own, so that a slow one holds up nobody. What does not fit is lost and told.

mod file;
mod journald;
mod outlet;
mod syslog;
mod webhook;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::Event;
use crate::config::SinkSettings;
use file::EventFile;
use journald::Journald;
use outlet::{Outlet, Worker};
use syslog::Syslog;
use webhook::Webhook;

pub use journald::message_id;

/// The sinks that run.
#[derive(Debug)]
pub struct Sinks {
    workers: Vec<Worker>,
}

impl Sinks {
    /// Starts a sink for each that is set, and one for the journal where it is there. It never fails: a sink that cannot
    /// work says so in [`Sinks::problems`], and tries again.
    pub fn start(settings: &SinkSettings) -> Self {
        let mut outlets = Vec::new();
        // Without a word in the configuration, a host without systemd is no problem.
        let is_there = || settings.journald_socket.exists();
        if settings.journald.unwrap_or_else(is_there) {
            outlets.push(Outlet::Journald(Journald::new(&settings.journald_socket)));
        }
        if let Some(path) = &settings.file {
            let bytes = u64::from(settings.file_mib) << 20;
            outlets.push(Outlet::File(EventFile::new(path, bytes)));
        }
        if let Some(target) = &settings.syslog {
            outlets.push(Outlet::Syslog(Syslog::new(target.clone())));
        }
        if let Some(url) = &settings.webhook {
            outlets.push(Outlet::Webhook(Webhook::new(url.clone(), webhook::system_roots())));
        }
        Self { workers: outlets.into_iter().map(Worker::start).collect() }
    }

    /// Hands an event to every sink. Never blocks: a sink whose queue is full loses it.
    pub fn send(&self, event: &Event) {
        if self.workers.is_empty() {
            return;
        }
        let event = Arc::new(event.clone());
        for worker in &self.workers {
            worker.send(&event);
        }
    }

    /// What is wrong now, one line for each sink. Losses are told for an hour.
    pub fn problems(&self) -> Vec<String> {
        let now = Instant::now();
        self.workers.iter().filter_map(|worker| worker.problem(now)).collect()
    }

    /// How many events each sink lost since it was started.
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        self.workers.iter().map(Worker::lost).collect()
    }

    /// Lets each sink send what it has, with one try each. Blocks for `patience` at most; the rest is lost.
    pub fn close(self, patience: Duration) {
        let end = Instant::now() + patience;
        let endings: Vec<_> = self.workers.into_iter().map(Worker::stop).collect();
        for ending in endings {
            ending.wait(end.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;
