//! Owns sets of traffic: every port there is, merging what overlaps, and cutting down to what is listed.

use std::collections::BTreeSet;

use super::statement::Traffic;
use crate::metadata::{L4Proto, PortRange, Ports};

/// Every port of every protocol that has ports, and ping.
pub fn everything() -> BTreeSet<Traffic> {
    L4Proto::ALL
        .into_iter()
        .map(|proto| Traffic::Ports(Ports { proto, range: PortRange::ALL }))
        .chain([Traffic::Ping])
        .collect()
}

/// The same traffic with overlapping port ranges merged, so that no port is in a set twice.
/// Ranges that only touch stay apart: `80/tcp` and `81/tcp` read better as they were declared.
pub fn merged(traffic: impl IntoIterator<Item = Traffic>) -> BTreeSet<Traffic> {
    let mut merged: Vec<Traffic> = Vec::new();
    // Sorted by protocol and first port, so only the range before can overlap.
    for next in traffic.into_iter().collect::<BTreeSet<_>>() {
        if let (Some(Traffic::Ports(last)), Traffic::Ports(ports)) = (merged.last_mut(), next)
            && last.proto == ports.proto
            && ports.range.first() <= last.range.last()
        {
            let end = last.range.last().max(ports.range.last());
            last.range = PortRange::new(last.range.first(), end).unwrap_or(last.range);
            continue;
        }
        merged.push(next);
    }
    merged.into_iter().collect()
}

/// What is in both.
pub(super) fn common(left: &BTreeSet<Traffic>, right: &BTreeSet<Traffic>) -> BTreeSet<Traffic> {
    let both = |a: &Traffic, b: &Traffic| match (a, b) {
        (Traffic::Ping, Traffic::Ping) => Some(Traffic::Ping),
        (Traffic::Ports(a), Traffic::Ports(b)) if a.proto == b.proto => {
            let first = a.range.first().max(b.range.first());
            let last = a.range.last().min(b.range.last());
            let range = PortRange::new(first, last).ok()?;
            Some(Traffic::Ports(Ports { proto: a.proto, range }))
        }
        _ => None,
    };
    merged(left.iter().flat_map(|a| right.iter().filter_map(move |b| both(a, b))))
}

/// Ports as traffic.
pub(super) fn of_ports(ports: &BTreeSet<Ports>) -> BTreeSet<Traffic> {
    merged(ports.iter().copied().map(Traffic::Ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<Traffic> {
        let one = |text: &&str| match *text {
            "ping" => Traffic::Ping,
            ports => Traffic::Ports(ports.parse().unwrap()),
        };
        texts.iter().map(one).collect()
    }

    #[test]
    fn ranges_that_overlap_become_one() {
        let cases: [(&[&str], &[&str]); 4] = [
            (&["80/tcp", "80/udp", "ping"], &["80/tcp", "80/udp", "ping"]),
            (&["8000-8100/tcp", "8050-8200/tcp", "8100/tcp"], &["8000-8200/tcp"]),
            (&["80/tcp", "81/tcp"], &["80/tcp", "81/tcp"]),
            (&["1-65535/tcp", "65535/tcp", "1/tcp"], &["1-65535/tcp"]),
        ];
        for (given, wanted) in cases {
            assert_eq!(merged(set(given)), set(wanted), "{given:?}");
        }
    }

    #[test]
    fn what_is_common_is_cut_to_the_port() {
        let left = set(&["8000-8100/tcp", "53/udp", "ping"]);
        let right = set(&["8050-9000/tcp", "53/tcp", "ping"]);
        assert_eq!(common(&left, &right), set(&["8050-8100/tcp", "ping"]));
        assert_eq!(common(&left, &everything()), left);
    }
}
