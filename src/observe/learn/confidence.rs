//! Owns how sure a proposal is: from how many connections there were, for how long, whether they were answered, and how
//! many different parties made them.

use std::fmt;

use serde::Serialize;

use super::seen::Evidence;

/// How sure, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Confidence(u8);

impl Confidence {
    /// How sure this evidence makes. What says more than what was seen is less sure.
    ///
    /// Connections count for six tenths (3 of them half of that, 30 nine tenths), the time they cover for three (ten minutes
    /// half, a day all but), different parties for one. The whole is cut to the share that was answered.
    pub(super) fn of(evidence: &Evidence, is_generalised: bool) -> Self {
        let part = |value: u64, half: u64, of: u64| {
            let value = value.min(1 << 40);
            of * value / (value + half)
        };
        let lasted_s = evidence.last_us.saturating_sub(evidence.first_us) / 1_000_000;
        let parties = u64::try_from(evidence.peers.len().max(1)).unwrap_or(1);
        let connections = evidence.connections;
        let sum = part(connections, 3, 600) + part(lasted_s, 600, 300) + part(parties, 1, 100);
        let answered = connections.saturating_sub(evidence.unanswered);
        let share = u128::from(sum) * u128::from(answered) / u128::from(connections.max(1));
        let share = if is_generalised { share * 8 / 10 } else { share };
        Self(u8::try_from(share / 10).unwrap_or(100).min(100))
    }

    /// 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// In a word.
    pub fn word(self) -> &'static str {
        match self.0 {
            75.. => "well established",
            50..75 => "likely",
            25..50 => "weak",
            _ => "doubtful",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % sure, {}", self.0, self.word())
    }
}

impl Serialize for Confidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(connections: u64, unanswered: u64, minutes: u64) -> u8 {
        let last_us = minutes * 60_000_000;
        let evidence = Evidence { connections, unanswered, last_us, ..Evidence::default() };
        Confidence::of(&evidence, false).0
    }

    #[test]
    fn more_connections_over_more_time_are_surer() {
        assert!(
            of(1, 0, 0) < of(3, 0, 0)
                && of(3, 0, 0) < of(3, 0, 60)
                && of(3, 0, 60) < of(100, 0, 60)
        );
        assert!(of(10_000, 0, 60 * 24) >= 90);
        assert!(of(3, 0, 1) < 50);
    }

    #[test]
    fn what_nobody_answers_is_not_sure_at_all() {
        assert_eq!(of(1000, 1000, 600), 0);
        assert_eq!(of(0, 0, 0), 0);
        assert!(of(1000, 500, 600) <= of(1000, 0, 600) / 2 + 1);
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        let evidence = Evidence { connections: u64::MAX, last_us: u64::MAX, ..Evidence::default() };
        assert!(Confidence::of(&evidence, true).0 <= 80);
    }
}
