//! Owns the order of work: one entry per netns, bounded work in flight, retries with backoff.
//!
//! Pure: time is given to it. A key asked for twice is worked on once, at the earlier of both times; a key asked for
//! while it is being worked on is worked on again afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The first retry comes after this; each further one after twice the time before.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest time between retries.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Work by key.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Instant>,
    /// The same, soonest first.
    order: BTreeSet<(Instant, K)>,
    running: BTreeSet<K>,
    failures: BTreeMap<K, u32>,
    limit: usize,
}

impl<K: Ord + Clone> Queue<K> {
    /// A queue that lets at most `limit` keys be worked on at once.
    pub fn new(limit: usize) -> Self {
        Self {
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            running: BTreeSet::new(),
            failures: BTreeMap::new(),
            limit,
        }
    }

    /// Asks for a key to be worked on now.
    pub fn add(&mut self, key: K, now: Instant) {
        if self.due.get(&key).is_none_or(|due| now < *due) {
            self.cancel(&key);
            self.due.insert(key.clone(), now);
            self.order.insert((now, key));
        }
    }

    /// Takes back that a key was asked for.
    fn cancel(&mut self, key: &K) {
        if let Some(due) = self.due.remove(key) {
            self.order.remove(&(due, key.clone()));
        }
    }

    /// Forgets a key, its failures included.
    pub fn forget(&mut self, key: &K) {
        self.cancel(key);
        self.failures.remove(key);
    }

    /// The next key to work on, if one is due and there is room. It counts as worked on until `done`.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        if self.running.len() >= self.limit {
            return None;
        }
        let due = self.order.iter().take_while(|(due, _)| *due <= now);
        let key = due.map(|(_, key)| key).find(|key| !self.running.contains(*key))?.clone();
        self.cancel(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// A key has been worked on with success.
    pub fn done(&mut self, key: &K) {
        self.running.remove(key);
        self.failures.remove(key);
    }

    /// Work on a key failed: it becomes due again after a while. Returns after how long.
    pub fn failed(&mut self, key: K, now: Instant) -> Duration {
        self.running.remove(&key);
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = FIRST_RETRY.saturating_mul(1 << (*failures).min(16)).min(LONGEST_RETRY);
        *failures = failures.saturating_add(1);
        if !self.due.contains_key(&key) {
            self.add(key, now + wait);
        }
        wait
    }

    /// When the next key becomes due that could be worked on; `None`: nothing to wait for but running work.
    pub fn next_due(&self) -> Option<Instant> {
        if self.running.len() >= self.limit {
            return None;
        }
        self.order.iter().find(|(_, key)| !self.running.contains(key)).map(|(due, _)| *due)
    }

    /// Whether nothing is to be done on a key: it is neither worked on nor asked for.
    pub fn is_idle(&self, key: &K) -> bool {
        !self.running.contains(key) && !self.due.contains_key(key)
    }

    /// Whether everything asked for has been tried: nothing runs, and what waits has failed before.
    pub fn is_settled(&self) -> bool {
        self.running.is_empty() && self.due.keys().all(|key| self.failures.contains_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_worked_on_once_however_often_it_is_asked_for() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn a_key_asked_for_while_it_runs_runs_again_afterwards() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        queue.add("a", now);
        queue.take(now);
        queue.add("a", now);
        assert_eq!(queue.take(now), None, "never twice at once");
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
    }

    #[test]
    fn work_in_flight_is_bounded() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        for key in ["a", "b", "c"] {
            queue.add(key, now);
        }
        assert_eq!(
            (queue.take(now), queue.take(now), queue.take(now)),
            (Some("a"), Some("b"), None)
        );
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("c"));
    }

    #[test]
    fn one_broken_key_backs_off_and_never_stops_the_others() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        queue.add("broken", now);
        let mut waits = Vec::new();
        let mut at = now;
        for _ in 0..12 {
            assert_eq!(queue.take(at), Some("broken"));
            let wait = queue.failed("broken", at);
            queue.add("good", at);
            assert_eq!(queue.take(at), Some("good"));
            queue.done(&"good");
            waits.push(wait);
            at += wait;
        }
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST_RETRY);
    }

    #[test]
    fn one_broken_key_does_not_keep_the_queue_from_settling() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        queue.add("broken", now);
        assert!(!queue.is_settled(), "not tried yet");
        queue.take(now);
        assert!(!queue.is_settled(), "being tried");
        queue.failed("broken", now);
        assert!(queue.is_settled());
        queue.add("good", now);
        assert!(!queue.is_settled());
    }

    #[test]
    fn a_new_request_does_not_wait_for_the_retry() {
        let now = Instant::now();
        let mut queue = Queue::new(1);
        queue.add("a", now);
        queue.take(now);
        queue.failed("a", now);
        assert_eq!(queue.take(now), None);
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
    }
}
