//! Owns counting denials by who, whom and what, and which of them are news. Pure; its size is bounded.

use std::collections::{BTreeSet, HashMap};

use super::record::{Denial, DenialKey};

/// How many keys are kept. When there are more, those go first that were not seen for the longest time.
const KEPT: usize = 10_000;
/// What goes on is news again after this, in microseconds.
const AGAIN_US: u64 = 60_000_000;

/// Denials by key.
#[derive(Debug, Default)]
pub struct Denials {
    denials: HashMap<DenialKey, (Denial, u64)>,
    changed: BTreeSet<DenialKey>,
}

impl Denials {
    /// Denials that were kept before.
    pub fn restore(&mut self, kept: Vec<Denial>) {
        self.denials.extend(kept.into_iter().map(|denial| (denial.key.clone(), (denial, 0))));
    }

    /// Counts one. Returns whether it is news: the first of its key, or the first after a while.
    pub fn count(&mut self, one: Denial) -> bool {
        if !self.denials.contains_key(&one.key) && self.denials.len() >= KEPT {
            self.forget_oldest();
        }
        self.changed.insert(one.key.clone());
        let at_us = one.last_us;
        let (denial, told_us) = self
            .denials
            .entry(one.key.clone())
            .or_insert_with(|| (Denial { logged: 0, ..one.clone() }, 0));
        denial.logged += one.logged;
        denial.last_us = denial.last_us.max(at_us);
        denial.uid = one.uid.or(denial.uid);
        denial.is_reply = one.is_reply;
        let is_news = *told_us == 0 || at_us.saturating_sub(*told_us) >= AGAIN_US;
        if is_news {
            *told_us = at_us;
        }
        is_news
    }

    /// Says which process it was.
    pub fn set_process(&mut self, key: &DenialKey, process: crate::input::Text) {
        if let Some((denial, _)) = self.denials.get_mut(key) {
            denial.process = Some(process);
            self.changed.insert(key.clone());
        }
    }

    /// One of them.
    pub fn get(&self, key: &DenialKey) -> Option<&Denial> {
        self.denials.get(key).map(|(denial, _)| denial)
    }

    fn forget_oldest(&mut self) {
        let mut times: Vec<u64> = self.denials.values().map(|(one, _)| one.last_us).collect();
        let tenth = times.len() / 10;
        let (_, bound, _) = times.select_nth_unstable(tenth);
        let bound = *bound;
        self.denials.retain(|_, (one, _)| one.last_us > bound);
        let denials = &self.denials;
        self.changed.retain(|key| denials.contains_key(key));
    }

    /// What changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Denial> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|key| self.get(key).cloned()).collect()
    }

    /// All, most recent last.
    pub fn list(&self) -> Vec<Denial> {
        let mut all: Vec<Denial> = self.denials.values().map(|(one, _)| one.clone()).collect();
        all.sort_by(|a, b| (a.last_us, &a.key).cmp(&(b.last_us, &b.key)));
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.denials.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.denials.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Carried, Party, Where};

    fn denial(number: u8, at_us: u64) -> Denial {
        Denial {
            key: DenialKey {
                workload: Party::Host,
                at: Where::Out,
                enforced: true,
                client: Party::Host,
                server: Party::Host,
                carried: Carried::Protocol(number),
            },
            first_us: at_us,
            last_us: at_us,
            logged: 1,
            is_reply: false,
            uid: None,
            process: None,
        }
    }

    #[test]
    fn what_goes_on_is_told_at_its_beginning_and_then_now_and_then() {
        let mut denials = Denials::default();
        assert!(denials.count(denial(1, 1_000_000)));
        for second in 2..60 {
            assert!(!denials.count(denial(1, second * 1_000_000)));
        }
        assert!(denials.count(denial(1, 61_000_000)));
        assert!(denials.count(denial(2, 61_000_000)), "another is news");
        let all = denials.list();
        assert_eq!((all[0].logged, all[0].first_us, all[0].last_us), (60, 1_000_000, 61_000_000));
    }
}
