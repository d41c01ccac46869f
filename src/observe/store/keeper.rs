//! Owns the thread that keeps: it gathers changes, writes them about once a second, and tries again when it cannot.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::TransactionBehavior;
use serde::Serialize;

use super::database::{Database, Refusal, set_aside};
use super::{Change, Limits, Restored, rows};
use crate::observe::condition::Condition;
use crate::observe::record::{Denial, Event, Flow};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// How often what is old is deleted, and how long that may take.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_FOR: Duration = Duration::from_millis(100);
/// The first and the longest wait before it is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How soon a second database may be set aside: something breaks them, and those that were set aside must not be lost.
const SET_ASIDE_EVERY: Duration = Duration::from_secs(600);
/// How many events wait while nothing can be written.
const EVENTS: usize = 10_000;
const CANNOT_WRITE: &str = "they could not be written";

/// The thread's state.
pub(super) struct Keeper {
    dir: PathBuf,
    limits: Limits,
    condition: Arc<Condition>,
    waiting: Arc<AtomicUsize>,
    database: Option<Database>,
    pending: Pending,
    retry: Duration,
    /// When to write, or to try again where there is no database.
    write_at: Instant,
    prune_at: Instant,
    set_aside_at: Option<Instant>,
}

/// Changes that are not written yet. Of one key only the last one counts.
#[derive(Default)]
struct Pending {
    flows: BTreeMap<String, Flow>,
    denials: BTreeMap<String, Denial>,
    events: VecDeque<Event>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.denials.is_empty() && self.events.is_empty()
    }

    fn len(&self) -> usize {
        self.flows.len() + self.denials.len() + self.events.len()
    }

    /// Takes a change. Returns whether one was lost for it.
    fn take(&mut self, change: Change, most: usize) -> bool {
        match change {
            Change::Flow(flow) => insert(&mut self.flows, &flow.key.clone(), flow, most),
            Change::Denial(denial) => insert(&mut self.denials, &denial.key.clone(), denial, most),
            Change::Event(event) => {
                let is_full = self.events.len() >= EVENTS;
                if is_full {
                    self.events.pop_front();
                }
                self.events.push_back(event);
                is_full
            }
        }
    }
}

fn insert<T>(map: &mut BTreeMap<String, T>, key: &impl Serialize, value: T, most: usize) -> bool {
    let Ok(key) = serde_json::to_string(key) else { return true };
    let is_lost = map.len() >= most && !map.contains_key(&key);
    if !is_lost {
        map.insert(key, value);
    }
    is_lost
}

impl Keeper {
    pub(super) fn new(
        dir: &Path,
        limits: Limits,
        condition: Arc<Condition>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        let now = Instant::now();
        Self {
            dir: dir.to_owned(),
            limits,
            condition,
            waiting,
            database: None,
            pending: Pending::default(),
            retry: RETRY.0,
            write_at: now,
            prune_at: now,
            set_aside_at: None,
        }
    }

    /// Opens, tells what was kept, and keeps until nobody hands anything over any more.
    pub(super) fn run(mut self, changes: &Receiver<Vec<Change>>, restored: SyncSender<Restored>) {
        // Whoever asked may have lost patience.
        drop(restored.send(self.open().unwrap_or_default()));
        loop {
            match changes.recv_timeout(self.due().saturating_duration_since(Instant::now())) {
                Ok(changes) => self.take(changes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.work();
        }
        // A second time, should it be found broken only now.
        for _ in 0..2 {
            if self.database.is_none() && !self.pending.is_empty() {
                self.open();
            }
            self.write();
        }
        if !self.pending.is_empty() {
            self.condition.lose(self.pending.len(), CANNOT_WRITE);
        }
    }

    fn take(&mut self, changes: Vec<Change>) {
        self.waiting.fetch_sub(changes.len(), Ordering::Relaxed);
        if self.database.is_some() && self.pending.is_empty() {
            self.write_at = Instant::now() + GATHER;
        }
        let most = usize::try_from(self.limits.keep_rows).unwrap_or(usize::MAX);
        let lost = changes
            .into_iter()
            .filter_map(|one| self.pending.take(one, most).then_some(()))
            .count();
        if lost > 0 {
            self.condition.lose(lost, CANNOT_WRITE);
        }
    }

    /// When there is something to do, whether or not anything is handed over.
    fn due(&self) -> Instant {
        match &self.database {
            None => self.write_at,
            Some(_) if self.pending.is_empty() => self.prune_at,
            Some(_) => self.write_at.min(self.prune_at),
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        if self.database.is_none() && now >= self.write_at {
            self.open();
        }
        if now >= self.write_at {
            self.write();
        }
        if now >= self.prune_at {
            self.prune();
        }
    }

    /// Opens the database. What is broken is set aside once; then it is tried again later.
    fn open(&mut self) -> Option<Restored> {
        let (limits, mut is_again) = (self.limits, false);
        loop {
            let opened =
                Database::open(&self.dir, |connection| rows::restore(connection, limits, now_us()));
            match opened {
                Ok((database, restored)) => {
                    self.database = Some(database);
                    // Whoever waits for what was kept does not wait for that.
                    self.prune_at = Instant::now();
                    if restored.skipped > 0 {
                        let skipped = restored.skipped;
                        self.condition.notice(format!("{skipped} rows made no sense and are gone"));
                    }
                    // With changes waiting, it is well when they are written.
                    if self.pending.is_empty() {
                        self.retry = RETRY.0;
                        self.condition.well();
                    }
                    return Some(restored);
                }
                Err(refusal @ Refusal::Broken { .. }) if !is_again && self.may_set_aside() => {
                    is_again = true;
                    if !self.set_aside(&refusal) {
                        return None;
                    }
                }
                Err(refusal) => {
                    self.refuse(refusal.to_string());
                    return None;
                }
            }
        }
    }

    fn may_set_aside(&self) -> bool {
        self.set_aside_at.is_none_or(|at| at.elapsed() >= SET_ASIDE_EVERY)
    }

    /// Sets the database aside. Returns whether it could be.
    fn set_aside(&mut self, refusal: &Refusal) -> bool {
        match set_aside(&self.dir) {
            Ok(aside) => {
                self.set_aside_at = Some(Instant::now());
                let aside = aside.display();
                self.condition.notice(format!("{refusal}: it is now {aside}, a new one was begun"));
                true
            }
            Err(error) => {
                self.refuse(format!("{refusal}, and cannot be set aside: {error}"));
                false
            }
        }
    }

    /// Nothing can be kept now: says why, and tries again later, and later each time.
    fn refuse(&mut self, why: String) {
        self.database = None;
        self.write_at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        self.condition.trouble(why);
    }

    /// Writes what waits, all or nothing.
    fn write(&mut self) {
        let Some(database) = &mut self.database else { return };
        if self.pending.is_empty() {
            return;
        }
        if !database.is_in_place() {
            tracing::warn!("{} was taken away; a new one is begun", database.path().display());
            self.database = None;
            self.open();
            if self.database.is_some() {
                self.write();
            }
            return;
        }
        match write(database, &self.pending) {
            Ok(()) => {
                self.pending = Pending::default();
                self.retry = RETRY.0;
                self.condition.well();
            }
            Err(error) => self.fail(&error),
        }
    }

    fn prune(&mut self) {
        let Some(database) = &self.database else {
            self.prune_at = Instant::now() + PRUNE_EVERY;
            return;
        };
        match rows::prune(&database.connection, self.limits, now_us(), PRUNE_FOR) {
            Ok(is_done) => {
                self.prune_at = Instant::now() + if is_done { PRUNE_EVERY } else { GATHER };
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The database failed: it is opened anew later.
    fn fail(&mut self, error: &rusqlite::Error) {
        let Some(database) = self.database.take() else { return };
        let refusal = Refusal::of(database.path(), error, false);
        drop(database);
        self.refuse(refusal.to_string());
        // Opening looks less closely than writing does, and would not find it.
        if matches!(refusal, Refusal::Broken { .. }) && self.may_set_aside() {
            self.set_aside(&refusal);
        }
    }
}

fn write(database: &mut Database, pending: &Pending) -> rusqlite::Result<()> {
    let transaction =
        database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (key, flow) in &pending.flows {
        rows::put_flow(&transaction, key, flow)?;
    }
    for (key, denial) in &pending.denials {
        rows::put_denial(&transaction, key, denial)?;
    }
    for event in &pending.events {
        rows::put_event(&transaction, event)?;
    }
    transaction.commit()
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
