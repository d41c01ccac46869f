//! Owns making overlapping address-and-port ranges disjoint, as the kernel's interval sets require
//! (an element that overlaps another one is refused with `EEXIST`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ruleset::{Comment, Element, Key};

/// A range of addresses of one family, with one protocol (or ICMP type) and a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuboid {
    /// First and last address.
    pub addresses: (IpAddr, IpAddr),
    /// IANA protocol number, or ICMP type.
    pub selector: u8,
    /// First and last port.
    pub ports: (u16, u16),
}

/// An inclusive range of addresses as numbers, with what it stands for.
type Span = (u128, u128, Comment);

/// The same keys as `boxes` cover, as elements of which no two overlap; the same for any order of `boxes`.
///
/// All boxes are of one family. Ports are cut into slabs at every box's ends; within a slab the address ranges are
/// merged; neighbouring slabs with the same addresses become one again.
pub fn disjoint(boxes: Vec<(Cuboid, Comment)>) -> BTreeMap<Element, Comment> {
    let mut by_selector: BTreeMap<u8, Vec<(Cuboid, Comment)>> = BTreeMap::new();
    for (cell, comment) in boxes {
        by_selector.entry(cell.selector).or_default().push((cell, comment));
    }
    let mut elements = BTreeMap::new();
    for (selector, boxes) in by_selector {
        let is_v4 = boxes.first().is_some_and(|(cell, _)| cell.addresses.0.is_ipv4());
        for (ports, spans) in slabs(&boxes) {
            for (first, last, comment) in spans {
                let key =
                    |address, port| Key { address: address_of(address, is_v4), selector, port };
                let element = Element { first: key(first, ports.0), last: key(last, ports.1) };
                elements.insert(element, comment);
            }
        }
    }
    elements
}

/// Disjoint port ranges in order, each with its merged address ranges.
fn slabs(boxes: &[(Cuboid, Comment)]) -> Vec<((u16, u16), Vec<Span>)> {
    let starts = boxes.iter().map(|(cell, _)| u32::from(cell.ports.0));
    let ends = boxes.iter().map(|(cell, _)| u32::from(cell.ports.1) + 1);
    let cuts: Vec<u32> = starts.chain(ends).collect::<BTreeSet<_>>().into_iter().collect();
    let mut slabs: Vec<((u16, u16), Vec<Span>)> = Vec::new();
    for pair in cuts.windows(2) {
        let (Ok(first), Ok(last)) = (u16::try_from(pair[0]), u16::try_from(pair[1] - 1)) else {
            continue;
        };
        let within = boxes.iter().filter(|(cell, _)| cell.ports.0 <= first && last <= cell.ports.1);
        let spans = merged(within.map(|(cell, comment)| {
            (number(cell.addresses.0), number(cell.addresses.1), comment.clone())
        }));
        if spans.is_empty() {
            continue;
        }
        match slabs.last_mut() {
            Some((ports, same)) if ports.1.checked_add(1) == Some(first) && *same == spans => {
                ports.1 = last;
            }
            _ => slabs.push(((first, last), spans)),
        }
    }
    slabs
}

/// Overlapping and adjacent ranges become one, which stands for all of them.
fn merged(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.collect();
    sorted.sort();
    let mut merged: Vec<(u128, u128, BTreeSet<Comment>)> = Vec::new();
    for (first, last, comment) in sorted {
        match merged.last_mut() {
            Some((_, end, comments)) if first <= end.saturating_add(1) => {
                *end = (*end).max(last);
                comments.insert(comment);
            }
            _ => merged.push((first, last, BTreeSet::from([comment]))),
        }
    }
    let joined = |comments: BTreeSet<Comment>| {
        let all: Vec<&str> = comments.iter().map(Comment::as_str).collect();
        Comment::new(&all.join(", "))
    };
    merged.into_iter().map(|(first, last, comments)| (first, last, joined(comments))).collect()
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

pub(super) fn address_of(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_v4 => IpAddr::V4(Ipv4Addr::from(number)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell(first: u8, last: u8, selector: u8, ports: (u16, u16)) -> (Cuboid, Comment) {
        let address = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let cell = Cuboid { addresses: (address(first), address(last)), selector, ports };
        (cell, Comment::new("x"))
    }

    #[test]
    fn nested_ranges_become_one() {
        let elements = disjoint(vec![cell(0, 255, 6, (80, 80)), cell(3, 9, 6, (80, 80))]);
        assert_eq!(elements.len(), 1);
    }

    #[test]
    fn crossing_ranges_become_slabs() {
        let elements = disjoint(vec![cell(0, 255, 6, (80, 80)), cell(3, 9, 6, (1, 100))]);
        let ports: Vec<_> = elements.keys().map(|e| (e.first.port, e.last.port)).collect();
        assert_eq!(ports, [(80, 80), (1, 79), (81, 100)]);
    }

    proptest! {
        #[test]
        fn the_same_keys_are_covered_and_no_two_elements_overlap(
            cells in prop::collection::vec(
                (0u8..20, 0u8..6, prop::sample::select(vec![6u8, 17]), 1u16..20, 0u16..6), 0..12)
        ) {
            let boxes: Vec<_> = cells.iter()
                .map(|(a, n, s, p, m)| cell(*a, a + n, *s, (*p, p + m)))
                .collect();
            let elements = disjoint(boxes.clone());
            for address in 0..30u8 {
                for port in 1..30u16 {
                    for selector in [6u8, 17] {
                        let key = Key { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, address)), selector, port };
                        let wanted = boxes.iter().any(|(b, _)| b.selector == selector
                            && (b.addresses.0..=b.addresses.1).contains(&key.address)
                            && (b.ports.0..=b.ports.1).contains(&port));
                        let covering = elements.keys().filter(|e| e.contains(&key)).count();
                        prop_assert_eq!(covering, usize::from(wanted));
                    }
                }
            }
            let mut reversed = boxes;
            reversed.reverse();
            prop_assert_eq!(disjoint(reversed), elements);
        }
    }
}
