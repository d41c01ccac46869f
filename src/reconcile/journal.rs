//! Owns the journal: the last transactions, in words, for people and tests.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::nft::Transaction;

/// How many entries are kept.
const KEPT: usize = 1000;
/// How many operations of one transaction are kept in words.
const KEPT_OPERATIONS: usize = 50;

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
}

/// The last transactions, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
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
    ) -> &Entry {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let changes = transaction.described().take(KEPT_OPERATIONS);
        self.entries.push_back(Entry {
            committed_us: micros(committed.duration_since(UNIX_EPOCH).unwrap_or_default()),
            took_us: micros(took),
            id: id.to_owned(),
            workload: workload.to_owned(),
            is_repair,
            is_elements_only: transaction.is_elements_only(),
            is_revoking: transaction.revokes,
            operations: transaction.operations().count(),
            changes: changes.collect(),
        });
        &self.entries[self.entries.len() - 1]
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }
}
