//! Owns who gives way when too much is kept: whoever has most. What one workload does in a loop takes nothing away of what is
//! kept of the others. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Of each of these owners, entries up to this time give way, so that `surplus` do, or a few more of the very same time.
/// Whoever has most gives way first, and of those who have as much, whoever's last entry is oldest.
pub(super) fn bounds<O: Hash + Eq + Clone>(
    entries: impl Iterator<Item = (O, u64)>,
    surplus: usize,
) -> HashMap<O, u64> {
    let mut times: HashMap<O, Vec<u64>> = HashMap::new();
    for (owner, time) in entries {
        times.entry(owner).or_default().push(time);
    }
    for times in times.values_mut() {
        times.sort_unstable_by(|a, b| b.cmp(a));
    }
    let beyond = |kept: usize| -> usize {
        times.values().map(|times| times.len().saturating_sub(kept)).sum()
    };
    // The least that each may keep without more than the surplus going.
    let (mut too_few, mut kept) = (0, times.values().map(Vec::len).max().unwrap_or_default());
    while too_few < kept {
        let middle = usize::midpoint(too_few, kept);
        if beyond(middle) > surplus {
            too_few = middle + 1;
        } else {
            kept = middle;
        }
    }
    let rest = surplus - beyond(kept).min(surplus);
    // Of the last that each keeps, the oldest go as well.
    let mut last: Vec<(u64, &O)> = match kept.checked_sub(1) {
        Some(last) => {
            times.iter().filter_map(|(owner, times)| Some((*times.get(last)?, owner))).collect()
        }
        None => Vec::new(),
    };
    last.sort_unstable_by_key(|(time, _)| *time);
    let mut bounds: HashMap<O, u64> = times
        .iter()
        .filter_map(|(owner, times)| Some((owner.clone(), *times.get(kept)?)))
        .collect();
    bounds.extend(last.into_iter().take(rest).map(|(time, owner)| (owner.clone(), time)));
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_has_most_gives_way() {
        let loud = (0..90).map(|time| ("loud", time));
        let quiet = (0..10).map(|time| ("quiet", time));
        assert_eq!(bounds(loud.chain(quiet), 10), HashMap::from([("loud", 9)]));
    }

    #[test]
    fn where_all_have_as_much_only_the_surplus_goes() {
        let bounds = bounds((0..10_000u64).map(|owner| (owner, owner)), 1000);
        assert_eq!(bounds.len(), 1000);
        assert!(bounds.iter().all(|(owner, time)| owner == time && *owner < 1000));
    }

    proptest! {
        #[test]
        fn the_surplus_gives_way_and_of_nobody_who_has_less_than_another_keeps(
            owners in proptest::collection::vec(0u8..5, 1..200),
            part in 0usize..100,
        ) {
            let entries: Vec<(u8, u64)> =
                owners.iter().enumerate().map(|(time, owner)| (*owner, time as u64)).collect();
            let surplus = entries.len() * part / 100;
            let bounds = bounds(entries.iter().copied(), surplus);
            let kept = |owner: u8| {
                let own = entries.iter().filter(|(other, _)| *other == owner);
                own.filter(|(_, time)| bounds.get(&owner).is_none_or(|bound| time > bound)).count()
            };
            let total: usize = (0..5).map(kept).sum();
            prop_assert_eq!(entries.len() - total, surplus, "no time is there twice");
            let most = (0..5).map(kept).max().unwrap_or_default();
            for owner in bounds.keys() {
                prop_assert!(kept(*owner) + 1 >= most, "only who has most gives way");
            }
        }
    }
}
