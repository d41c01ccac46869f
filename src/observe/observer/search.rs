//! Owns looking for the process that sent a denied packet: one search at a time, seldom, and never for long. What a container
//! can make it find must not take the threads that others need.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::input::Text;
use crate::observe::process::{self, Local};
use crate::observe::record::DenialKey;

/// Processes are looked for at most so often.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it takes at most until a process is found, or is not.
const PATIENCE: Duration = Duration::from_millis(500);

/// A denial whose process was looked for.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) key: DenialKey,
    /// The process, where it was found.
    pub(super) process: Option<Text>,
    /// The statement that would have been needed.
    pub(super) needed: Option<String>,
}

/// Whoever looks.
#[derive(Debug, Default)]
pub(super) struct Search {
    began: Option<Instant>,
    under_way: Option<JoinHandle<()>>,
    answers: Option<mpsc::UnboundedSender<Looked>>,
}

impl Search {
    /// Where answers come. Those of an earlier call get none any more.
    pub(super) fn answers(&mut self) -> mpsc::UnboundedReceiver<Looked> {
        let (sender, answers) = mpsc::unbounded_channel();
        self.answers = Some(sender);
        answers
    }

    /// Looks for a process now and answers later; or gives back what was to be looked for, if it does not.
    pub(super) fn begin(&mut self, local: Option<Local>, looked: Looked) -> Option<Looked> {
        let is_resting = self.began.is_some_and(|began| began.elapsed() < PAUSE);
        let is_busy = self.under_way.as_ref().is_some_and(|search| !search.is_finished());
        let (Some(local), Some(answers), false) =
            (local, self.answers.clone(), is_resting || is_busy)
        else {
            return Some(looked);
        };
        self.began = Some(Instant::now());
        self.under_way = Some(tokio::task::spawn_blocking(move || {
            let process = process::find(&local, Instant::now() + PATIENCE);
            // Nobody waits for it any more only when the daemon stops.
            let _ = answers.send(Looked { process, ..looked });
        }));
        None
    }
}
