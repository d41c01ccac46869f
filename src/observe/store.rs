//! Owns keeping what was seen: flows, denials and events, in `observed.sqlite` in the state directory.
//!
//! One thread owns the database; changes are handed to it and nobody waits for it. `database` opens the file and sets
//! aside what cannot be used, `schema` is its form, `rows` writes and reads it, `keeper` is the thread.

mod database;
mod keeper;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::condition::Condition;
use super::record::{Denial, Event, Flow};
use crate::config::EventSettings;
use keeper::Keeper;

/// The database's name in the state directory.
pub const FILE: &str = "observed.sqlite";
/// How many calls of [`Store::put`] may wait for the disk.
const CALLS: usize = 1024;
/// How many changes may wait for the disk.
const WAITING: usize = 100_000;
/// How long a start waits for what was kept.
const PATIENCE: Duration = Duration::from_secs(10);
/// Why changes are lost when too many wait.
const TOO_SLOW: &str = "the disk is too slow for them";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For how many days.
    pub keep_days: u32,
    /// How many rows of each table.
    pub keep_rows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&EventSettings::default())
    }
}

impl From<&EventSettings> for Limits {
    fn from(settings: &EventSettings) -> Self {
        Self { keep_days: settings.keep_days, keep_rows: settings.keep_rows }
    }
}

/// What was kept, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The flows, by when they were last seen.
    pub flows: Vec<Flow>,
    /// The denials, by when they were last seen.
    pub denials: Vec<Denial>,
    /// The newest 10,000 events, in the order they were put.
    pub events: Vec<Event>,
    /// How many rows made no sense. They are gone.
    pub skipped: usize,
}

/// What is to be kept. Flows and denials have all their values, not what is new: they replace what is kept by their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A flow.
    Flow(Flow),
    /// A denial.
    Denial(Denial),
    /// An event.
    Event(Event),
}

/// What keeps. Dropped without [`Store::close`], it still writes what was handed over, if the process lives so long.
#[derive(Debug)]
pub struct Store {
    changes: SyncSender<Vec<Change>>,
    waiting: Arc<AtomicUsize>,
    condition: Arc<Condition>,
    ended: Mutex<Receiver<()>>,
}

impl Store {
    /// Opens the database in `dir`, or begins one, and reads what it keeps. Waits 10 seconds for that at most.
    ///
    /// It never fails. What cannot be used is set aside (`observed.sqlite.broken-1`, `-2`; the older one goes) and a new
    /// one is begun. Where even that fails nothing is kept, [`Store::problem`] says why, and it is tried again every
    /// 30 seconds at most.
    pub fn open(dir: &Path, limits: Limits) -> (Self, Restored) {
        let condition = Arc::new(Condition::new("store", "changes"));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (changes, handed_over) = sync_channel(CALLS);
        let (restored_to, restored) = sync_channel(1);
        // Nothing is sent: the end of the thread closes it.
        let (ends_with_thread, ended) = sync_channel(0);
        let keeper = Keeper::new(dir, limits, Arc::clone(&condition), Arc::clone(&waiting));
        let started = thread::Builder::new().name("store".to_owned()).spawn(move || {
            keeper.run(&handed_over, restored_to);
            drop(ends_with_thread);
        });
        let store = Self { changes, waiting, condition, ended: Mutex::new(ended) };
        let restored = match started {
            Ok(_) => restored.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                let path = dir.join(FILE);
                store.condition.notice(format!("{} could not be read in time", path.display()));
                Restored::default()
            }),
            Err(error) => {
                store
                    .condition
                    .trouble(format!("nothing is kept, there can be no thread: {error}"));
                Restored::default()
            }
        };
        (store, restored)
    }

    /// Hands changes over to be written within about a second. Never blocks: when too many wait they are lost, which
    /// [`Store::problem`] says.
    pub fn put(&self, changes: Vec<Change>) {
        let count = changes.len();
        if count == 0 {
            return;
        }
        let is_too_much = self.waiting.fetch_add(count, Ordering::Relaxed) + count > WAITING;
        if is_too_much || self.changes.try_send(changes).is_err() {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            self.condition.lose(count, TOO_SLOW);
        }
    }

    /// What is wrong now, in one line an operator can act on; none when all is well. Losses are told for an hour.
    pub fn problem(&self) -> Option<String> {
        self.condition.line(Instant::now())
    }

    /// How many changes were lost since the start.
    pub fn lost(&self) -> u64 {
        self.condition.lost()
    }

    /// Writes what was handed over and closes the database. Blocks for `patience` at most; what is not written by then
    /// is written after, or lost with the process. Returns whether all of it was written.
    pub fn close(self, patience: Duration) -> bool {
        let Self { changes, ended, condition, .. } = self;
        let lost = condition.lost();
        drop(changes);
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The thread's end is what disconnects it; the other error is that patience is over.
        let has_ended =
            ended.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        has_ended && condition.lost() == lost
    }
}
