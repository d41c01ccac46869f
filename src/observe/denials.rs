//! Owns counting denials by who, whom and what, and which of them are news. Pure; its size is bounded.

use std::collections::{BTreeSet, HashMap};

use super::party::Party;
use super::record::{Denial, DenialKey, Where};
use super::share;

/// How many keys are kept. When there are more, whoever has most gives way, with what was not seen for the longest time.
const KEPT: usize = 10_000;
/// How many give way at once, so that it is done seldom.
const SURPLUS: usize = KEPT / 10;
/// What goes on is news again after this, in microseconds.
const AGAIN_US: u64 = 60_000_000;
/// So much news of one workload is told at once.
const BURST: u32 = 50;
/// And then one in this time, in microseconds.
const EACH_US: u64 = 10_000_000;
/// How many allowances are kept.
const ALLOWANCES: usize = 4096;

/// How much news of one workload may be told.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When the last one was added.
    at_us: u64,
    withheld: u32,
}

impl Allowance {
    /// Takes one. Returns how much was withheld before it, or none if this one is.
    fn take(&mut self, now_us: u64) -> Option<u32> {
        let more = now_us.saturating_sub(self.at_us) / EACH_US;
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(BURST)).min(BURST);
            self.at_us += more * EACH_US;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.withheld))
            }
            None => {
                self.withheld += 1;
                None
            }
        }
    }
}

/// What counting one denial gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing new; or the workload's news are too many, and this is withheld.
    None,
    /// The first of its key, or the first after a while. So many others of its workload were withheld since the last.
    Told(u32),
}

/// Denials by key.
#[derive(Debug, Default)]
pub struct Denials {
    denials: HashMap<DenialKey, (Denial, u64)>,
    changed: BTreeSet<DenialKey>,
    allowances: HashMap<Cause, Allowance>,
}

/// Who is the cause of a denial, and where: of a packet on its way in that is a workload's, that workload. So whoever tries all
/// ports of another takes nothing of what is told of the other's own doing, nor of third parties'.
type Cause = (Party, Where);

fn cause(key: &DenialKey) -> Cause {
    let is_anothers = key.at == Where::In && key.client.is_workload();
    (if is_anothers { &key.client } else { &key.workload }.clone(), key.at)
}

impl Denials {
    /// Denials that were kept before.
    pub fn restore(&mut self, kept: Vec<Denial>) {
        self.denials.extend(kept.into_iter().map(|denial| (denial.key.clone(), (denial, 0))));
    }

    /// Counts one. Returns whether it is news.
    pub fn count(&mut self, one: Denial) -> News {
        if !self.denials.contains_key(&one.key) && self.denials.len() >= KEPT {
            self.make_room();
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
        if !is_news {
            return News::None;
        }
        *told_us = at_us;
        self.allow(cause(&one.key), at_us).map_or(News::None, News::Told)
    }

    fn allow(&mut self, cause: Cause, now_us: u64) -> Option<u32> {
        if self.allowances.len() >= ALLOWANCES && !self.allowances.contains_key(&cause) {
            let is_full = |one: &Allowance| {
                now_us.saturating_sub(one.at_us) / EACH_US >= u64::from(BURST - one.left)
            };
            self.allowances.retain(|_, one| !is_full(one));
        }
        let full = || Allowance { left: BURST, at_us: now_us, withheld: 0 };
        self.allowances.entry(cause).or_insert_with(full).take(now_us)
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

    fn make_room(&mut self) {
        let entries = self.denials.values().map(|(one, _)| (cause(&one.key), one.last_us));
        let bounds = share::bounds(entries, SURPLUS);
        self.denials.retain(|key, (one, _)| {
            bounds.get(&cause(key)).is_none_or(|bound| one.last_us > *bound)
        });
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
    use crate::observe::{Carried, Party};

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
        assert_eq!(denials.count(denial(1, 1_000_000)), News::Told(0));
        for second in 2..60 {
            assert_eq!(denials.count(denial(1, second * 1_000_000)), News::None);
        }
        assert_eq!(denials.count(denial(1, 61_000_000)), News::Told(0));
        assert_eq!(denials.count(denial(2, 61_000_000)), News::Told(0), "another is news");
        let all = denials.list();
        assert_eq!((all[0].logged, all[0].first_us, all[0].last_us), (60, 1_000_000, 61_000_000));
    }

    /// Of workload `of`, on one of so many ports.
    fn scanned(of: u16, port: u16, at_us: u64) -> Denial {
        let mut one = denial(1, at_us);
        one.key.workload = Party::Workload {
            name: of.to_string().into(),
            model: None,
            selector: of.to_string().into(),
        };
        one.key.carried = Carried::Port { proto: crate::metadata::L4Proto::Tcp, port };
        one
    }

    #[test]
    fn a_scan_is_counted_whole_told_in_part_and_crowds_out_nobody() {
        let mut denials = Denials::default();
        assert_eq!(denials.count(scanned(1, 80, 1)), News::Told(0));
        let mut told = 0;
        for port in 1..=60_000u16 {
            told += u32::from(denials.count(scanned(2, port, 2)) != News::None);
            assert!(denials.len() <= KEPT);
        }
        assert_eq!(told, BURST);
        assert!(denials.get(&scanned(1, 80, 1).key).is_some(), "the other's is still there");
        assert!(denials.get(&scanned(2, 60_000, 2).key).is_some(), "and the scan's last");
        assert_eq!(denials.count(scanned(1, 81, 3)), News::Told(0), "the other's news is told");
        let later = denials.count(scanned(2, 60_001, 2 + EACH_US));
        assert_eq!(later, News::Told(60_000 - BURST), "with how much was withheld");
    }

    #[test]
    fn who_is_scanned_pays_nothing_for_it() {
        let mut denials = Denials::default();
        let victim = scanned(2, 80, 1).key.workload;
        let at_the_victim = |port: u16, client: u16| {
            let mut one = scanned(client, port, 2);
            one.key.at = Where::In;
            one.key.client = std::mem::replace(&mut one.key.workload, victim.clone());
            one
        };
        let own = scanned(2, 443, 1);
        denials.count(own.clone());
        for port in 1..=60_000 {
            denials.count(at_the_victim(port, 1));
        }
        assert!(denials.get(&own.key).is_some(), "its own is on record");
        assert_eq!(denials.count(scanned(2, 444, 2)), News::Told(0), "and told");
        assert_eq!(denials.count(at_the_victim(80, 3)), News::Told(0), "and so is a third's");
    }

    #[test]
    fn allowances_are_bounded() {
        let mut denials = Denials::default();
        for of in 0..60_000 {
            denials.count(scanned(of, 80, u64::from(of) * EACH_US));
            assert!(denials.allowances.len() <= ALLOWANCES);
        }
    }
}
