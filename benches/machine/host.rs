//! The daemon's loop on synthetic facts: the engine and what looks at the network, without Docker and without a socket.

use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seawall::config::EventSettings;
use seawall::metadata::{Observation, Source};
use seawall::observe::Observer;
use seawall::reconcile::feed::News;
use seawall::reconcile::{Engine, Entry, Inlet, Kernel, Request, feed};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::synthetic;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running engine.
pub(crate) struct Host {
    observations: mpsc::Sender<Observation>,
    requests: mpsc::Sender<Request>,
    entries: std_mpsc::Receiver<Entry>,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

/// One transaction of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Microseconds since 1970.
    pub(crate) at: u64,
    pub(crate) id: String,
    pub(crate) took: Duration,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    micros: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self { micros: u64::try_from(now.as_micros()).unwrap() }
    }

    pub(crate) fn micros(self) -> u64 {
        self.micros
    }

    pub(crate) fn until(self, micros: u64) -> Duration {
        Duration::from_micros(micros.saturating_sub(self.micros))
    }
}

impl Host {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (observations, received) = mpsc::channel(1024);
        let (requests, asked) = mpsc::channel(16);
        let (told, entries) = std_mpsc::channel();
        let folder = tempfile::tempdir().unwrap();
        let guard = runtime.enter();
        let mut engine =
            Engine::new(Kernel::start().unwrap(), synthetic::rules(), vec![Source::Docker]);
        // Only when it is asked for.
        engine.set_resync(Duration::from_secs(86_400));
        let (outlet, inlet) = feed();
        engine.set_outlet(outlet);
        let (news, passed) = mpsc::unbounded_channel();
        let Inlet { news: mut heard, view } = inlet;
        runtime.spawn(async move {
            while let Some(one) = heard.recv().await {
                if let News::Entry(entry) = &one {
                    let _ = told.send((**entry).clone());
                }
                let _ = news.send(one);
            }
        });
        // Nobody asks; the sender is gone, which the observer does not mind.
        let (_, queried) = mpsc::channel(1);
        let mut settings = EventSettings::default();
        settings.sinks.journald = Some(false);
        runtime.spawn(Observer::default().run(
            folder.path().to_path_buf(),
            settings,
            Inlet { news: passed, view },
            queried,
            std::future::pending(),
        ));
        runtime.spawn(engine.run(received, asked, std::future::pending()));
        drop(guard);
        Self { observations, requests, entries, runtime: Some(runtime), _folder: folder }
    }

    /// Tells the engine.
    pub(crate) fn tell(&self, observation: Observation) {
        self.observations.blocking_send(observation).unwrap();
    }

    /// Waits until so many further transactions were made, and returns them.
    pub(crate) fn commits(&self, many: usize) -> Vec<Commit> {
        let deadline = Instant::now() + PATIENCE;
        let mut commits = Vec::new();
        while commits.len() < many {
            let left = deadline.saturating_duration_since(Instant::now());
            let entry = self.entries.recv_timeout(left);
            commits.push(Commit::from(
                entry.unwrap_or_else(|_| panic!("{} of {many} transactions", commits.len())),
            ));
        }
        commits
    }

    /// Takes the transactions that were made and not taken yet.
    pub(crate) fn made(&self) -> Vec<Commit> {
        self.entries.try_iter().map(Commit::from).collect()
    }

    /// Waits until nothing is left to do.
    pub(crate) fn settle(&self) {
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(Request::Settled(reply)).unwrap();
        answer.blocking_recv().unwrap();
    }

    /// Has every netns compared with the kernel's own state, and waits until that is done.
    pub(crate) fn audit(&self) {
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(Request::Audit(reply)).unwrap();
        answer.blocking_recv().unwrap();
    }

    /// Takes everything out of every netns.
    pub(crate) fn clear(&self) {
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(Request::Clear(reply)).unwrap();
        let cleared = answer.blocking_recv().unwrap();
        assert!(cleared.errors.is_empty(), "{:?}", cleared.errors);
    }
}

impl From<Entry> for Commit {
    fn from(entry: Entry) -> Self {
        Self { at: entry.committed_us, id: entry.id, took: Duration::from_micros(entry.took_us) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}
