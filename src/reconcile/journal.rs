//! Owns the journal: the last transactions, in words, for people and tests.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::nft::Transaction;

/// How many entries are kept.
const KEPT: usize = 1000;
/// How many operations of one transaction are kept in words.
const KEPT_OPERATIONS: usize = 20;
/// How much of one operation's words is kept, in bytes: it may be about thousands of elements.
const KEPT_LENGTH: usize = 1000;

/// One transaction that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was committed, in microseconds since 1970.
    pub committed_us: u64,
    /// From opening the netns to the commit, in microseconds.
    pub took_us: u64,
    /// Whose netns: the workload's id.
    pub id: String,
    /// Its name.
    pub workload: String,
    /// Whether the kernel held something else than seawall had left there.
    pub is_repair: bool,
    /// Whether only elements of sets changed.
    pub is_elements_only: bool,
    /// Whether something that was allowed no longer is.
    pub is_revoking: bool,
    /// How many operations it was.
    pub operations: usize,
    /// The first of them, in words.
    pub changes: Vec<String>,
    /// Who made it necessary, where somebody did: a process's name and pid.
    #[serde(default)]
    pub by: Option<String>,
    /// How often the same was done in a row, when it was done in a loop.
    #[serde(default)]
    pub times: u32,
}

/// The last transactions, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    /// Those that were not handed on yet.
    untold: Vec<Entry>,
}

impl Journal {
    /// Notes a transaction. Returns its entry.
    pub fn note(
        &mut self,
        (id, workload): (&str, &str),
        transaction: &Transaction,
        is_repair: bool,
        took: Duration,
        committed: SystemTime,
        (by, is_loop): (Option<String>, bool),
    ) -> &Entry {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let changes = transaction.described_within(KEPT_LENGTH).take(KEPT_OPERATIONS);
        // They are kept for long: no room that was only for growing.
        let changes = changes.map(|words| words.into_boxed_str().into_string());
        self.push(
            Entry {
                committed_us: micros(committed.duration_since(UNIX_EPOCH).unwrap_or_default()),
                took_us: micros(took),
                id: id.to_owned(),
                workload: workload.to_owned(),
                is_repair,
                is_elements_only: transaction.is_elements_only(),
                is_revoking: transaction.revokes,
                operations: transaction.operations().count(),
                changes: changes.collect(),
                by,
                times: 1,
            },
            is_loop,
        )
    }

    /// Notes what somebody did and nothing was committed against.
    pub fn remark(
        &mut self,
        (id, workload): (&str, &str),
        what: &str,
        by: Option<String>,
        is_loop: bool,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Entry {
            committed_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            took_us: 0,
            id: id.to_owned(),
            workload: workload.to_owned(),
            is_repair: false,
            is_elements_only: false,
            is_revoking: false,
            operations: 0,
            changes: vec![what.to_owned()],
            by,
            times: 1,
        };
        self.push(entry, is_loop);
    }

    /// Adds an entry. What is done in a loop adds to its last one, so that it does not push all others out.
    fn push(&mut self, entry: Entry, is_loop: bool) -> &Entry {
        let mut at = self.entries.len();
        let is_last = |last: &Entry| last.id == entry.id;
        let last = is_loop.then(|| self.entries.iter().rposition(is_last)).flatten();
        match last {
            Some(last) => {
                at = last;
                let times = self.entries[last].times.saturating_add(1);
                self.entries[last] = Entry { times, ..entry };
            }
            None => {
                if self.untold.len() < KEPT {
                    self.untold.push(entry.clone());
                }
                if at == KEPT {
                    self.entries.pop_front();
                    at -= 1;
                }
                self.entries.push_back(entry);
            }
        }
        &self.entries[at]
    }

    /// The entries since this was last asked. What is done in a loop is in here once.
    pub(super) fn news(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.untold)
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }
}
