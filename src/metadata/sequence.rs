//! Owns the order of answers that arrive in any order: which reading of a workload is the newest, and when to try again.
//!
//! Pure. Every event about a workload begins a new generation; what was asked in an older one is stale when it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::workload::{State, Workload};

/// How much an answer knows. A fuller one is not replaced by a poorer one of the same generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// From a list: never blocks, lacks environment, capabilities and more.
    Summary,
    /// Everything.
    Full,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    generation: u64,
    /// Its process ended, and no other is known to have started.
    has_ended: bool,
    latest: Option<(u64, Depth, Workload)>,
}

/// What is known of each workload of one source, and which answers are still wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    entries: BTreeMap<String, Entry>,
    last: u64,
    /// Workloads something happened to since listing began.
    touched: BTreeSet<String>,
}

impl Sequence {
    /// Something happened to a workload: answers asked for before this are stale from now on.
    pub(crate) fn begin(&mut self, id: &str) -> u64 {
        self.last += 1;
        self.touched.insert(id.to_owned());
        self.entries.entry(id.to_owned()).or_default().generation = self.last;
        self.last
    }

    /// The workload is gone: no answer about it is wanted any more.
    pub(crate) fn remove(&mut self, id: &str) {
        self.touched.insert(id.to_owned());
        self.entries.remove(id);
    }

    /// Whether the workload exists, as far as events have told.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    /// A workload's process ended. Docker goes on listing it as running, with addresses that are free by then, until it has
    /// tidied up; an inspection waits for that. So from now on no summary is believed that says it runs.
    pub(crate) fn ended(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.has_ended = true;
            if let Some((_, _, workload)) = &mut entry.latest {
                stop(workload);
            }
        }
    }

    /// A workload has a process again.
    pub(crate) fn started(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.has_ended = false;
        }
    }

    /// Takes an answer. Returns the workload to tell of, or none when the answer is stale or poorer than what is known.
    ///
    /// A summary of a newer generation updates what a full answer of an older one said.
    pub(crate) fn accept(
        &mut self,
        id: &str,
        generation: u64,
        depth: Depth,
        mut answer: Workload,
    ) -> Option<Workload> {
        let entry = self.entries.get_mut(id).filter(|entry| entry.generation == generation)?;
        match (depth, answer.state) {
            (Depth::Full, State::Running) => entry.has_ended = false,
            (Depth::Summary, State::Running) if entry.has_ended => stop(&mut answer),
            _ => {}
        }
        let (depth, workload) = match entry.latest.take() {
            Some((of, known_depth, known)) if of == generation && known_depth > depth => {
                entry.latest = Some((of, known_depth, known));
                return None;
            }
            Some((_, Depth::Full, known)) if depth == Depth::Summary => {
                (Depth::Full, updated(known, answer))
            }
            _ => (depth, answer),
        };
        entry.latest = Some((generation, depth, workload.clone()));
        Some(workload)
    }

    /// Listing begins.
    pub(crate) fn begin_listing(&mut self) {
        self.touched.clear();
    }

    /// Listing ended. Returns the list as it is now: what happened meanwhile is newer than the list.
    pub(crate) fn finish_listing(&mut self, listed: Vec<(String, Workload)>) -> Vec<Workload> {
        let present: BTreeSet<String> = listed.iter().map(|(id, _)| id.clone()).collect();
        let touched = std::mem::take(&mut self.touched);
        self.entries.retain(|id, _| present.contains(id) || touched.contains(id));
        for (id, workload) in listed {
            match self.entries.get_mut(&id) {
                Some(entry) if touched.contains(&id) => {
                    let generation = entry.generation;
                    entry.latest.get_or_insert((generation.wrapping_sub(1), Depth::Full, workload));
                }
                Some(entry) => entry.latest = Some((entry.generation, Depth::Full, workload)),
                None if touched.contains(&id) => {} // removed meanwhile
                None => {
                    self.last += 1;
                    let entry = Entry {
                        has_ended: false,
                        generation: self.last,
                        latest: Some((self.last, Depth::Full, workload)),
                    };
                    self.entries.insert(id, entry);
                }
            }
        }
        let latest = self.entries.values().filter_map(|entry| entry.latest.as_ref());
        latest.map(|(_, _, workload)| workload.clone()).collect()
    }
}

/// Takes away what only a running container has.
fn stop(workload: &mut Workload) {
    workload.state = State::Exited;
    workload.netns = None;
    for attachment in workload.networks.values_mut() {
        attachment.addresses.clear();
    }
}

/// A full description with what a later summary knows better.
fn updated(full: Workload, summary: Workload) -> Workload {
    let netns = match (&full.netns, summary.state == full.state) {
        (Some(netns), true) => Some(netns.clone()),
        _ => None,
    };
    Workload {
        name: summary.name,
        networks: summary.networks,
        network_mode: summary.network_mode,
        state: summary.state,
        published: if summary.published.is_empty() { full.published } else { summary.published },
        netns,
        ..full
    }
}

/// The waiting times between attempts to reconnect: 100 ms, doubled each time up to 5 s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(5);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// The time to wait now.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Self::LAST);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::{NetnsRef, Runtime, WorkloadId};
    use super::*;

    fn named(name: &str) -> Workload {
        Workload::new(WorkloadId::new("c"), name.into(), Runtime::Docker)
    }

    fn name(workload: Option<Workload>) -> Option<String> {
        workload.map(|workload| workload.name.to_string())
    }

    #[test]
    fn a_stale_answer_is_dropped() {
        let mut sequence = Sequence::default();
        let first = sequence.begin("c");
        let second = sequence.begin("c");
        assert_eq!(sequence.accept("c", first, Depth::Full, named("old")), None);
        assert_eq!(
            name(sequence.accept("c", second, Depth::Full, named("new"))),
            Some("new".into())
        );
        sequence.remove("c");
        assert_eq!(sequence.accept("c", second, Depth::Full, named("ghost")), None);
    }

    #[test]
    fn a_summary_never_replaces_a_full_answer_of_its_time() {
        let mut sequence = Sequence::default();
        let now = sequence.begin("c");
        assert!(sequence.accept("c", now, Depth::Summary, named("summary")).is_some());
        assert!(sequence.accept("c", now, Depth::Full, named("full")).is_some());
        assert_eq!(sequence.accept("c", now, Depth::Summary, named("late")), None);
    }

    #[test]
    fn a_newer_summary_updates_a_full_answer() {
        let mut sequence = Sequence::default();
        let first = sequence.begin("c");
        let mut full = named("web");
        full.env_names.insert("A".into());
        full.state = State::Running;
        full.netns = Some(NetnsRef { pid: 7, path: "/x".into(), inode: None });
        sequence.accept("c", first, Depth::Full, full);
        let second = sequence.begin("c");
        let mut summary = named("renamed");
        summary.state = State::Running;
        let told = sequence.accept("c", second, Depth::Summary, summary).unwrap();
        assert_eq!(told.name, "renamed");
        assert!(told.env_names.contains("A") && told.netns.is_some());
        assert!(sequence.accept("c", second, Depth::Full, named("full")).is_some());
    }

    #[test]
    fn a_summary_does_not_bring_back_what_has_ended() {
        let mut sequence = Sequence::default();
        let running = || Workload { state: State::Running, ..named("web") };
        let state = |told: Option<Workload>| told.map(|workload| workload.state);
        let first = sequence.begin("c");
        sequence.accept("c", first, Depth::Full, running());
        let die = sequence.begin("c");
        sequence.ended("c");
        let told = sequence.accept("c", die, Depth::Summary, running());
        assert_eq!(state(told), Some(State::Exited), "Docker has not tidied up yet");
        let disconnect = sequence.begin("c");
        let told = sequence.accept("c", disconnect, Depth::Summary, running());
        assert_eq!(state(told), Some(State::Exited));
        let told = sequence.accept("c", disconnect, Depth::Full, running());
        assert_eq!(state(told), Some(State::Running), "an inspection waits: it runs again");
        sequence.ended("c");
        let start = sequence.begin("c");
        sequence.started("c");
        let told = sequence.accept("c", start, Depth::Summary, running());
        assert_eq!(state(told), Some(State::Running));
    }

    #[test]
    fn what_happens_while_listing_is_newer_than_the_list() {
        let mut sequence = Sequence::default();
        sequence.begin("before");
        sequence.begin_listing();
        let generation = sequence.begin("changed");
        sequence.accept("changed", generation, Depth::Summary, named("changed, new"));
        sequence.begin("pending");
        sequence.remove("removed");
        let listed = ["changed", "pending", "removed", "quiet"];
        let listed = listed.map(|id| (id.to_owned(), named(&format!("{id}, listed"))));
        let names: Vec<_> =
            sequence.finish_listing(listed.into()).into_iter().map(|w| w.name).collect();
        assert_eq!(names, ["changed, new", "pending, listed", "quiet, listed"]);
    }

    #[test]
    fn waiting_doubles_up_to_five_seconds() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..8).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
