//! Owns who gives way when too much is kept: whoever has most. What one workload does in a loop takes nothing away of what is
//! kept of the others. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Of each of these owners, entries up to this time give way, so that `surplus` do, or a few more of the same time. Each
/// owner keeps the same number of its newest entries, or all where it has fewer.
pub(super) fn bounds<O: Hash + Eq>(
    entries: impl Iterator<Item = (O, u64)>,
    surplus: usize,
) -> HashMap<O, u64> {
    let mut times: HashMap<O, Vec<u64>> = HashMap::new();
    for (owner, time) in entries {
        times.entry(owner).or_default().push(time);
    }
    let gone_at = |kept: usize| -> usize {
        times.values().map(|times| times.len().saturating_sub(kept)).sum()
    };
    // The most that each may keep so that enough gives way.
    let (mut kept, mut too_many) = (0, times.values().map(Vec::len).max().unwrap_or_default());
    while kept + 1 < too_many {
        let middle = usize::midpoint(kept, too_many);
        if gone_at(middle) >= surplus {
            kept = middle;
        } else {
            too_many = middle;
        }
    }
    let newest_to_go = |mut times: Vec<u64>| {
        (times.len() > kept).then(|| {
            times.sort_unstable_by(|a, b| b.cmp(a));
            times[kept]
        })
    };
    times.into_iter().filter_map(|(owner, times)| Some((owner, newest_to_go(times)?))).collect()
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

    proptest! {
        #[test]
        fn enough_gives_way_and_nobody_with_less_than_another_keeps(
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
            prop_assert!(entries.len() - total >= surplus);
            let most = (0..5).map(kept).max().unwrap_or_default();
            for owner in bounds.keys() {
                prop_assert!(kept(*owner) == most, "only who has most gives way");
            }
        }
    }
}
