//! Owns one run of everything: all attacks in all sets of capabilities, and what arrived of each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cell::{Attack, Attacker, Cell};
use super::mark::{is_allowed, mark};
use crate::harness::{Frame, Seawall, Tap};

/// Containers that are spoilt at once.
const AT_ONCE: usize = 3;
/// How long after an attack the daemon may still tell of it.
const TOLD_WITHIN: Duration = Duration::from_secs(3);
/// An end of marked packets this long before the attacker's own is a repair.
const CEASED: Duration = Duration::from_millis(600);

/// Number, capabilities, IP version.
pub(crate) type Key = (u16, &'static str, char);

/// What came of one attack.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrived {
    /// How many of its frames arrived on the host's side.
    pub(crate) frames: usize,
    /// What the attacker says: `done`, or the error it met.
    pub(crate) said: String,
    /// Whether the daemon told of it.
    pub(crate) told: bool,
    /// Whether frames stopped coming long before the attacker ended.
    pub(crate) ceased: bool,
}

/// What came of all.
pub(crate) struct Trial(BTreeMap<Key, Arrived>);

impl Trial {
    /// As the table calls them.
    pub(crate) const CAPABILITIES: [&'static str; 2] = ["default", "NET_ADMIN"];

    /// Runs every attack with every set of capabilities.
    #[track_caller]
    pub(crate) fn run(cell: &Cell<'_>, seawall: Option<&Seawall>, attacks: &[Attack]) -> Self {
        let mut all = BTreeMap::new();
        for capabilities in Self::CAPABILITIES {
            let options: &[&str] =
                if capabilities == "NET_ADMIN" { &["--cap-add", "NET_ADMIN"] } else { &[] };
            // Without NET_ADMIN nothing is spoilt.
            let (alone, together): (Vec<&Attack>, Vec<&Attack>) =
                attacks.iter().partition(|attack| attack.spoils && !options.is_empty());
            let of_all = |attacks: &[&Attack]| -> Vec<(u16, char)> {
                let each = attacks.iter();
                each.flat_map(|one| one.families.chars().map(|family| (one.number, family)))
                    .collect()
            };
            let name = format!("attacker-{}", capabilities.to_lowercase().replace('_', ""));
            let attacker = ready(cell, seawall, &name, options);
            all.extend(trial(cell, None, &attacker, capabilities, &of_all(&together)));
            drop(attacker);
            let (next, alone) = (AtomicUsize::new(0), of_all(&alone));
            let results = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| {
                        while let Some(one) = alone.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let name = format!("attacker-{}-{}", one.0, one.1);
                            let attacker = ready(cell, seawall, &name, options);
                            let got = trial(cell, seawall, &attacker, capabilities, &[*one]);
                            results.lock().expect("no attack panics").extend(got);
                            cell.host.docker(&["rm", "--force", &name]);
                        }
                    });
                }
            });
            all.extend(results.into_inner().expect("no attack panics"));
        }
        Self(all)
    }

    /// What came of one.
    #[track_caller]
    pub(crate) fn of(&self, key: &Key) -> &Arrived {
        self.0.get(key).unwrap_or_else(|| panic!("{key:?} was not tried"))
    }
}

/// A new attacker, programmed if there is a daemon.
#[track_caller]
fn ready<'c>(
    cell: &'c Cell<'_>,
    seawall: Option<&Seawall>,
    name: &str,
    options: &[&str],
) -> Attacker<'c> {
    let attacker = cell.attacker(name, options);
    if let Some(seawall) = seawall {
        seawall.await_programmed(&attacker.container.id);
        seawall.settle();
    }
    attacker
}

#[track_caller]
fn trial(
    cell: &Cell<'_>,
    seawall: Option<&Seawall>,
    attacker: &Attacker<'_>,
    capabilities: &'static str,
    chosen: &[(u16, char)],
) -> BTreeMap<Key, Arrived> {
    let told_before = seawall.map_or(0, |seawall| told(seawall, attacker));
    let tap = Tap::start(&cell.host.netns(), |frame| mark(frame).is_some());
    let said = attacker.run(chosen);
    let ended = Instant::now();
    let frames = tap.finish();
    let mut all = BTreeMap::new();
    for (number, family, said) in said {
        let own = |frame: &&Frame| {
            frame.device == attacker.device
                && mark(&frame.bytes) == Some((number, family))
                && !is_allowed(&frame.bytes, &attacker.own, &cell.friend)
        };
        let own: Vec<&Frame> = frames.iter().filter(own).collect();
        let ceased = own.last().is_none_or(|last| last.at + CEASED < ended);
        let arrived = Arrived { frames: own.len(), said, told: false, ceased };
        all.insert((number, capabilities, family), arrived);
    }
    if let Some(seawall) = seawall {
        let has_arrived = all.values().any(|arrived| arrived.frames > 0);
        let is_told = || told(seawall, attacker) > told_before;
        while has_arrived && !is_told() && ended.elapsed() < TOLD_WITHIN {
            std::thread::sleep(Duration::from_millis(100));
        }
        let is_told = is_told();
        all.values_mut().for_each(|arrived| arrived.told = is_told);
    }
    all
}

/// How often the daemon warned of this container, or repaired it.
fn told(seawall: &Seawall, attacker: &Attacker<'_>) -> usize {
    let name = &attacker.container.name;
    let is_of = |line: &&String| {
        line.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == name)
    };
    let warned = seawall.log_at("WARN").iter().filter(is_of).count();
    let journal = seawall.journal_of(&attacker.container.id);
    warned + journal.iter().filter(|entry| entry.is_repair).count()
}
