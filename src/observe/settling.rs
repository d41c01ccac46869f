//! Owns waiting until it is clear who is who: what the kernel tells of a netns comes sooner than what is decided about it.
//!
//! Nobody waits because of what is told of another netns. Pure but for the time, which is given to it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::reader::Report;

/// What is told waits so long, for who is who is told a moment later than it is decided.
const SETTLING: Duration = Duration::from_millis(120);
/// So long after it was first listened to a netns nobody has spoken of may yet be spoken of.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much may wait, in things told: then no more is read, and the kernel counts what is lost.
const WAITING: usize = 50_000;

/// Reports that wait.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// When each was told, in order.
    reports: VecDeque<(Instant, Report)>,
    things: usize,
    /// When each netns was first listened to, by its number.
    began: HashMap<u64, Instant>,
}

impl Settling {
    /// A netns is listened to from now on.
    pub(super) fn begin(&mut self, place: u64, now: Instant) {
        self.began.insert(place, now);
    }

    /// Nothing more is told of a netns.
    pub(super) fn end(&mut self, place: u64) {
        self.began.remove(&place);
    }

    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.things < WAITING
    }

    /// Takes what was told now.
    pub(super) fn push(&mut self, report: Report, now: Instant) {
        self.things += weight(&report);
        self.reports.push_back((now, report));
    }

    /// When the next of them has waited long enough. `is_known` says whether it is known who stands for a netns.
    pub(super) fn next(&self, is_known: impl Fn(u64) -> bool) -> Option<Instant> {
        self.reports.iter().map(|(told, report)| self.due(*told, report.place, &is_known)).min()
    }

    /// Those that have waited long enough, in the order they were told.
    pub(super) fn settled(&mut self, now: Instant, is_known: impl Fn(u64) -> bool) -> Vec<Report> {
        let mut settled = Vec::new();
        for (told, report) in std::mem::take(&mut self.reports) {
            if self.due(told, report.place, &is_known) <= now {
                self.things -= weight(&report);
                settled.push(report);
            } else {
                self.reports.push_back((told, report));
            }
        }
        settled
    }

    fn due(&self, told: Instant, place: u64, is_known: impl Fn(u64) -> bool) -> Instant {
        let settled = told + SETTLING;
        match self.began.get(&place) {
            Some(began) if !is_known(place) => settled.max(*began + PATIENCE),
            _ => settled,
        }
    }
}

fn weight(report: &Report) -> usize {
    report.seen.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(place: u64, lost: u64) -> Report {
        Report { place, seen: Vec::new(), lost, is_last: false }
    }

    #[test]
    fn one_netns_nobody_has_spoken_of_holds_up_no_other() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.begin(1, start);
        settling.begin(2, start);
        settling.push(report(1, 1), start);
        settling.push(report(2, 2), start);
        settling.push(report(1, 3), start + SETTLING);
        let is_known = |place| place == 2;
        assert_eq!(settling.next(is_known), Some(start + SETTLING));
        let told = |settled: Vec<Report>| settled.iter().map(|one| one.lost).collect::<Vec<_>>();
        assert_eq!(told(settling.settled(start + SETTLING, is_known)), [2]);
        assert_eq!(settling.next(is_known), Some(start + PATIENCE));
        // Nobody spoke of it: what is told of it does not wait for ever, and in order.
        assert_eq!(told(settling.settled(start + PATIENCE, is_known)), [1, 3]);
        let later = start + 2 * PATIENCE;
        settling.push(report(1, 4), later);
        assert_eq!(settling.next(is_known), Some(later + SETTLING));
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        for _ in 0..WAITING {
            assert!(settling.has_room());
            settling.push(report(1, 0), start);
        }
        assert!(!settling.has_room());
        settling.settled(start + SETTLING, |_| true);
        assert!(settling.has_room());
    }
}
