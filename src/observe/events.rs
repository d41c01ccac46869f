//! Owns events: their numbers, the latest of them, and sending them on. What one workload is the cause of does not push out
//! what the others' events tell.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::party::Party;
use super::record::{Event, EventKind};
use super::share;
use super::sinks::Sinks;
use crate::config::SinkSettings;
use crate::input::Text;
use crate::reconcile::Entry;

/// How many events can be asked for.
const KEPT: usize = 10_000;
/// How many give way at once, so that it is done seldom.
const SURPLUS: usize = KEPT / 10;
/// How many events one answer has.
const ANSWERED: usize = 1000;

/// Events.
#[derive(Default)]
pub(super) struct Events {
    latest: VecDeque<Event>,
    totals: HashMap<EventKind, u64>,
    sequence: watch::Sender<u64>,
    /// Events that the store was not given yet.
    untold: Vec<Event>,
    sinks: Option<Sinks>,
}

impl Events {
    /// Events that were kept before, oldest first. Numbers go on after theirs.
    pub(super) fn restore(&mut self, kept: Vec<Event>) {
        let last = kept.iter().map(|event| event.sequence).max();
        self.sequence.send_replace(last.unwrap_or_default());
        self.latest = kept.into();
    }

    /// Sends events where these settings say from now on. What the former ones still have to send is left to whoever
    /// closes them, which can take a while.
    pub(super) fn send_to(&mut self, settings: &SinkSettings) -> Option<Sinks> {
        self.sinks.replace(Sinks::start(settings))
    }

    /// Where events are sent.
    pub(super) fn sinks(&self) -> Option<&Sinks> {
        self.sinks.as_ref()
    }

    /// Sends what is left. Blocking, for as long as `patience`.
    pub(super) fn close(self, patience: Duration) {
        if let Some(sinks) = self.sinks {
            sinks.close(patience);
        }
    }

    /// The number of the last one, for who follows.
    pub(super) fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }

    /// A new event with the next number; it is not one until it is pushed.
    pub(super) fn event(
        &self,
        kind: EventKind,
        at_us: u64,
        party: Option<&Party>,
        message: Text,
    ) -> Event {
        Event {
            sequence: *self.sequence.borrow() + 1,
            at_us,
            kind,
            workload: party.map(|party| Text::new(&party.to_string())),
            message,
            denial: None,
            needed: None,
        }
    }

    /// Takes an event that has the next number.
    pub(super) fn push(&mut self, event: Event) {
        *self.totals.entry(event.kind).or_default() += 1;
        if self.latest.len() >= KEPT {
            self.make_room();
        }
        let sequence = event.sequence;
        if let Some(sinks) = &self.sinks {
            sinks.send(&event);
        }
        if self.untold.len() < KEPT {
            self.untold.push(event.clone());
        }
        self.latest.push_back(event);
        self.sequence.send_replace(sequence);
    }

    fn make_room(&mut self) {
        let entries = self.latest.iter().map(|one| (one.workload.clone(), one.sequence));
        let bounds = share::bounds(entries, SURPLUS);
        self.latest.retain(|one| bounds.get(&one.workload).is_none_or(|to| one.sequence > *to));
    }

    /// Takes what was done to a netns.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let kind = match (entry.operations, entry.is_repair) {
            (0, _) => EventKind::Foreign,
            (_, true) => EventKind::Repaired,
            (_, false) => EventKind::Changed,
        };
        let by = entry.by.as_ref().map(|by| format!(" after {by}")).unwrap_or_default();
        let first = entry.changes.first().map(String::as_str).unwrap_or_default();
        let message = match entry.operations {
            0 | 1 => format!("{first}{by}"),
            more => format!("{first}{by}, and {} more", more - 1),
        };
        let event = self.event(kind, entry.committed_us, None, Text::new(&message));
        self.push(Event { workload: Some(Text::new(&entry.workload)), ..event });
    }

    /// Events after a number, oldest first, so many as one answer has.
    pub(super) fn after(&self, sequence: u64) -> Vec<Event> {
        let events = self.latest.iter().filter(|event| event.sequence > sequence);
        events.take(ANSWERED).cloned().collect()
    }

    /// What the store was not given yet.
    pub(super) fn take_untold(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.untold)
    }

    /// How many there were of each kind since the daemon began.
    pub(super) fn totals(&self) -> Vec<(EventKind, u64)> {
        let mut totals: Vec<_> = self.totals.iter().map(|(kind, many)| (*kind, *many)).collect();
        totals.sort();
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_is_denied_in_a_loop_pushes_nobody_elses_events_out() {
        let mut events = Events::default();
        let mut push = |workload: &str, message: &str| {
            let event = events.event(EventKind::Denied, 1, None, Text::new(message));
            events.push(Event { workload: Some(Text::new(workload)), ..event });
        };
        push("quiet", "the only one");
        for number in 0..3 * KEPT {
            push("loud", &number.to_string());
        }
        assert!(events.latest.len() <= KEPT);
        assert_eq!(events.after(0).first().map(|one| one.message.as_str()), Some("the only one"));
        let newest = events.latest.back().map(|one| one.message.to_string());
        assert_eq!(newest, Some((3 * KEPT - 1).to_string()));
    }
}
