//! How much is measured.

use std::time::Duration;

/// How often, of what sizes, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) is_quick: bool,
    /// Rounds of what is small.
    pub(crate) many: usize,
    /// Rounds of what is large.
    pub(crate) few: usize,
    /// How many tuples a netns has.
    pub(crate) tuples: &'static [usize],
    /// How many namespaces there are.
    pub(crate) fleets: &'static [usize],
    /// How many are started and stopped at once.
    pub(crate) storm: usize,
    /// How long an idle loop is watched.
    pub(crate) idle: Duration,
    /// Rounds of traffic, and how long each kind of it flows.
    pub(crate) traffic: (usize, Duration),
    /// The most tuples and the most linear rules traffic meets.
    pub(crate) most: (usize, usize),
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        is_quick: false,
        many: 201,
        few: 31,
        tuples: &[10, 50, 100, 1_000, 10_000],
        fleets: &[10, 100, 1_000],
        storm: 200,
        idle: Duration::from_secs(60),
        traffic: (15, Duration::from_millis(150)),
        most: (100_000, 10_000),
    };

    pub(crate) const QUICK: Self = Self {
        is_quick: true,
        many: 21,
        few: 3,
        fleets: &[10, 1_000],
        idle: Duration::from_secs(5),
        traffic: (3, Duration::from_millis(60)),
        ..Self::FULL
    };
}
