//! Owns which addresses are globally routed, in the one form that the evaluator and `compile` share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The globally routed IPv4 addresses as inclusive ranges: all but 0/8 (this network), 10/8, 172.16/12 and 192.168/16
/// (RFC 1918), 100.64/10 (RFC 6598), 127/8 (loopback), 169.254/16 (link-local) and 224/3 (multicast, reserved).
pub const INTERNET_V4: [(Ipv4Addr, Ipv4Addr); 7] = [
    (Ipv4Addr::new(1, 0, 0, 0), Ipv4Addr::new(9, 255, 255, 255)),
    (Ipv4Addr::new(11, 0, 0, 0), Ipv4Addr::new(100, 63, 255, 255)),
    (Ipv4Addr::new(100, 128, 0, 0), Ipv4Addr::new(126, 255, 255, 255)),
    (Ipv4Addr::new(128, 0, 0, 0), Ipv4Addr::new(169, 253, 255, 255)),
    (Ipv4Addr::new(169, 255, 0, 0), Ipv4Addr::new(172, 15, 255, 255)),
    (Ipv4Addr::new(172, 32, 0, 0), Ipv4Addr::new(192, 167, 255, 255)),
    (Ipv4Addr::new(192, 169, 0, 0), Ipv4Addr::new(223, 255, 255, 255)),
];

/// The globally routed IPv6 addresses, inclusive: 2000::/3, all that IANA has given out as global unicast.
pub const INTERNET_V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x3fff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
);

/// Whether an address is globally routed.
pub fn is_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => INTERNET_V4.iter().any(|(first, last)| (*first..=*last).contains(&v4)),
        IpAddr::V6(v6) => (INTERNET_V6.0..=INTERNET_V6.1).contains(&v6),
    }
}

/// Whether every address of a range is globally routed.
pub(super) fn is_internet_range(range: IpNetwork) -> bool {
    match range {
        IpNetwork::V4(v4) => INTERNET_V4
            .iter()
            .any(|(first, last)| *first <= v4.network() && v4.broadcast() <= *last),
        IpNetwork::V6(v6) => INTERNET_V6.0 <= v6.network() && v6.broadcast() <= INTERNET_V6.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_every_excluded_range_are_excluded() {
        let excluded: [ipnetwork::IpNetwork; 8] = [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/3",
        ]
        .map(|text| text.parse().unwrap());
        for network in excluded {
            let (IpAddr::V4(first), IpAddr::V4(last)) = (network.network(), network.broadcast())
            else {
                panic!("{network} is IPv4")
            };
            assert!(!is_internet(first.into()) && !is_internet(last.into()), "{network}");
            let inside = |number: u32| is_internet(Ipv4Addr::from(number).into());
            if let Some(before) = u32::from(first).checked_sub(1) {
                assert!(inside(before), "before {network}");
            }
            if let Some(after) = u32::from(last).checked_add(1) {
                assert!(inside(after), "after {network}");
            }
        }
    }

    #[test]
    fn only_global_unicast_ipv6_is_internet() {
        for (text, wanted) in [
            ("2000::", true),
            ("3fff:ffff::1", true),
            ("4000::", false),
            ("1fff::", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::1", false),
            ("::ffff:1.1.1.1", false),
        ] {
            assert_eq!(is_internet(text.parse().unwrap()), wanted, "{text}");
        }
    }
}
