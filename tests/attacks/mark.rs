//! Owns recognising the attacker's packets: by the mark in their payload, or by their source port.

use std::net::IpAddr;

const MARK: &[u8] = b"swall/";
/// The source port of attack 0.
const PORTS: u16 = 61_000;
const MOST: u16 = 999;

/// Which attack a frame is of, and over which IP version (`4` or `6`).
pub(crate) fn mark(frame: &[u8]) -> Option<(u16, char)> {
    by_payload(frame).or_else(|| by_port(frame))
}

fn by_payload(frame: &[u8]) -> Option<(u16, char)> {
    let place = frame.windows(MARK.len()).position(|window| window == MARK)?;
    let rest = frame.get(place + MARK.len()..)?;
    let number = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
    match rest.get(3..6)? {
        [b'/', family @ (b'4' | b'6'), b'/'] => Some((number, char::from(*family))),
        _ => None,
    }
}

fn by_port(frame: &[u8]) -> Option<(u16, char)> {
    let (family, ports) = match frame.get(12..14)? {
        [0x08, 0x00] if is_transport(*frame.get(23)?) => {
            ('4', 14 + usize::from(frame.get(14)? & 15) * 4)
        }
        [0x86, 0xdd] if is_transport(*frame.get(20)?) => ('6', 54),
        _ => return None,
    };
    let port = u16::from_be_bytes(frame.get(ports..ports + 2)?.try_into().ok()?);
    let number = port.checked_sub(PORTS).filter(|number| *number <= MOST)?;
    Some((number, family))
}

/// TCP or UDP.
fn is_transport(protocol: u8) -> bool {
    [6, 17].contains(&protocol)
}

/// Whether a frame is what the policy allows the attacker: TCP from its own addresses to the friend's store.
pub(crate) fn is_allowed(frame: &[u8], own: &Ends, friend: &Ends) -> bool {
    let (addresses, ports, protocol) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (26..34, 34..38, 23),
        Some([0x86, 0xdd]) => (22..54, 54..58, 20),
        _ => return false,
    };
    let is_between = [own, friend].map(|end| {
        end.addresses.iter().map(|ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        })
    });
    let [from, to] = is_between.map(Iterator::collect::<Vec<_>>);
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| [&from[..], to].concat()));
    frame.get(..12) == Some(&[friend.mac, own.mac].concat()[..])
        && frame.get(protocol) == Some(&6)
        && frame.get(addresses).is_some_and(|both| pairs.into_iter().any(|pair| pair == both))
        && frame.get(ports).is_some_and(|ports| ports[2..] == 5432_u16.to_be_bytes())
}

/// Where somebody is on the network.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpAddr>,
}
