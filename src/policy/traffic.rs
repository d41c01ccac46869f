//! Owns sets of traffic: every port there is, merging what overlaps, and cutting down to what is listed.

use std::collections::BTreeSet;

use super::statement::Traffic;
use crate::metadata::{L4Proto, PortRange, Ports};
use crate::model::Helper;

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
        let both = match (merged.last_mut(), next) {
            (Some(Traffic::Ports(last)), Traffic::Ports(ports)) => Some((last, ports)),
            (Some(Traffic::Control(last, helper)), Traffic::Control(ports, other))
                if *helper == other =>
            {
                Some((last, ports))
            }
            _ => None,
        };
        if let Some((last, ports)) = both
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

/// What is in both. A control connection that is cut to some of its ports keeps its helper.
pub(super) fn common(left: &BTreeSet<Traffic>, right: &BTreeSet<Traffic>) -> BTreeSet<Traffic> {
    let cut = |a: &Ports, b: &Ports| {
        let first = a.range.first().max(b.range.first());
        let last = a.range.last().min(b.range.last());
        let range = PortRange::new(first, last).ok().filter(|_| a.proto == b.proto)?;
        Some(Ports { proto: a.proto, range })
    };
    let both = |a: &Traffic, b: &Traffic| match (a, b) {
        (Traffic::Ping, Traffic::Ping) => Some(Traffic::Ping),
        (Traffic::Ports(a), Traffic::Ports(b)) => cut(a, b).map(Traffic::Ports),
        (Traffic::Control(a, helper), Traffic::Ports(b))
        | (Traffic::Ports(a), Traffic::Control(b, helper)) => {
            cut(a, b).map(|ports| Traffic::Control(ports, *helper))
        }
        (Traffic::Control(a, one), Traffic::Control(b, other)) if one == other => {
            cut(a, b).map(|ports| Traffic::Control(ports, *one))
        }
        _ => None,
    };
    merged(left.iter().flat_map(|a| right.iter().filter_map(move |b| both(a, b))))
}

/// Ports as traffic.
pub(super) fn of_ports(ports: &BTreeSet<Ports>) -> BTreeSet<Traffic> {
    merged(ports.iter().copied().map(Traffic::Ports))
}

/// A service's ports as traffic, with its helper where that reads them.
pub(super) fn of_service(ports: &BTreeSet<Ports>, helper: Option<Helper>) -> BTreeSet<Traffic> {
    merged(ports.iter().map(|ports| match helper.filter(|helper| helper.reads(ports.proto)) {
        Some(helper) => Traffic::Control(*ports, helper),
        None => Traffic::Ports(*ports),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<Traffic> {
        let one = |text: &&str| match *text {
            "ping" => Traffic::Ping,
            text => match text.split_once(" with helper ") {
                Some((ports, helper)) => {
                    Traffic::Control(ports.parse().unwrap(), helper.parse().unwrap())
                }
                None => Traffic::Ports(text.parse().unwrap()),
            },
        };
        texts.iter().map(one).collect()
    }

    #[test]
    fn ranges_that_overlap_become_one() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["80/tcp", "80/udp", "ping"], &["80/tcp", "80/udp", "ping"]),
            (&["8000-8100/tcp", "8050-8200/tcp", "8100/tcp"], &["8000-8200/tcp"]),
            (&["80/tcp", "81/tcp"], &["80/tcp", "81/tcp"]),
            (&["1-65535/tcp", "65535/tcp", "1/tcp"], &["1-65535/tcp"]),
            (
                &["20-21/tcp with helper ftp", "21-22/tcp with helper ftp", "21/tcp"],
                &["21/tcp", "20-22/tcp with helper ftp"],
            ),
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
        let helped = set(&["20-21/tcp with helper ftp"]);
        assert_eq!(common(&helped, &everything()), helped);
        assert_eq!(common(&set(&["21/tcp", "21/udp"]), &helped), set(&["21/tcp with helper ftp"]));
    }
}
