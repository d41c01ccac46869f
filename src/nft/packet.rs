//! Owns reading the headers of a logged packet. Pure, and whatever stands there is no panic.
//!
//! Sources: RFC 791, RFC 8200 (and its extension headers), RFC 9293, RFC 768, RFC 792, RFC 4443.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many extension headers are looked behind.
const EXTENSIONS: usize = 8;
const TCP: u8 = 6;

/// What headers say of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The transport protocol (IANA number).
    pub protocol: u8,
    /// Source and destination port, of protocols that have them, where they are there.
    pub ports: Option<(u16, u16)>,
    /// The type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
    /// Of TCP: whether it asks for a connection (SYN and no ACK).
    pub is_opening: bool,
    /// What follows the UDP header, or the transport header's place of other protocols.
    pub rest: &'a [u8],
}

/// Reads a packet that begins with its IP header.
pub fn packet(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes.first()? >> 4 {
        4 => v4(bytes),
        6 => v6(bytes),
        _ => None,
    }
}

fn v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.get(..20)?;
    let length = usize::from(header[0] & 0xf) * 4;
    let octets = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).unwrap_or_default();
    let (source, destination) = (Ipv4Addr::from(octets(12)), Ipv4Addr::from(octets(16)));
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let rest = bytes.get(length.max(20)..).unwrap_or(&[]);
    Some(transport((source.into(), destination.into()), header[9], is_first, rest))
}

fn v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.get(..40)?;
    let octets = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default();
    let addresses = (Ipv6Addr::from(octets(8)).into(), Ipv6Addr::from(octets(24)).into());
    let (mut next, mut rest, mut is_first) = (header[6], &bytes[40..], true);
    for _ in 0..EXTENSIONS {
        let units = usize::from(rest.get(1).copied().unwrap_or_default());
        let length = match next {
            // Hop-by-hop, routing, destination options: in units of 8 bytes after the first.
            0 | 43 | 60 => 8 + units * 8,
            44 => {
                let offset = rest.get(2..4).map_or(0, |at| u16::from_be_bytes([at[0], at[1]]) >> 3);
                is_first &= offset == 0;
                8
            }
            // Authentication header: in units of 4, two fewer.
            51 => 8 + units * 4,
            _ => break,
        };
        let Some((extension, behind)) = rest.split_at_checked(length) else { break };
        (next, rest) = (extension[0], behind);
    }
    Some(transport(addresses, next, is_first, rest))
}

fn transport(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    is_first: bool,
    rest: &[u8],
) -> Packet<'_> {
    let has_ports = matches!(protocol, TCP | 17 | 33 | 132 | 136) && is_first;
    let ports = rest
        .get(..4)
        .filter(|_| has_ports)
        .map(|at| (u16::from_be_bytes([at[0], at[1]]), u16::from_be_bytes([at[2], at[3]])));
    let is_icmp = is_first && protocol == if source.is_ipv4() { 1 } else { 58 };
    let flags = rest.get(13).filter(|_| protocol == TCP && is_first);
    Packet {
        source,
        destination,
        protocol,
        ports,
        icmp_type: rest.first().copied().filter(|_| is_icmp),
        is_opening: flags.is_some_and(|flags| flags & 0x12 == 0x02),
        rest: if protocol == 17 { rest.get(8..).unwrap_or(&[]) } else { rest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4_of(protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x45;
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(rest);
        bytes
    }

    fn v6_of(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[0] = 0x60;
        bytes[6] = next;
        bytes[23] = 1;
        bytes[39] = 2;
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn ports_flags_and_types_are_read() {
        let mut syn = vec![0x9c, 0x40, 0x15, 0x38];
        syn.resize(20, 0);
        syn[13] = 0x02;
        let bytes = v4_of(TCP, 0, &syn);
        let read = packet(&bytes).unwrap();
        assert_eq!((read.ports, read.is_opening), (Some((40000, 5432)), true));
        syn[13] = 0x12;
        assert!(!packet(&v4_of(TCP, 0, &syn)).unwrap().is_opening, "it answers");
        assert_eq!(packet(&v4_of(1, 0, &[8, 0])).unwrap().icmp_type, Some(8));
        assert_eq!(packet(&v6_of(58, &[128, 0])).unwrap().icmp_type, Some(128));
        assert_eq!(packet(&v6_of(1, &[8, 0])).unwrap().icmp_type, None, "ICMP is IPv4's");
    }

    #[test]
    fn later_fragments_have_no_ports() {
        assert_eq!(packet(&v4_of(17, 0, &[0, 1, 0, 2])).unwrap().ports, Some((1, 2)));
        assert_eq!(packet(&v4_of(17, 100, &[0, 1, 0, 2])).unwrap().ports, None);
        let later = [17, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 2];
        assert_eq!(packet(&v6_of(44, &later)).unwrap().ports, None);
    }

    #[test]
    fn extension_headers_are_looked_behind() {
        let hop = [60, 0, 0, 0, 0, 0, 0, 0];
        let destination = [17, 0, 0, 0, 0, 0, 0, 0];
        let udp = [0, 1, 0, 53, 0, 9, 0, 0, 7];
        let bytes = v6_of(0, &[&hop[..], &destination, &udp].concat());
        let read = packet(&bytes).unwrap();
        assert_eq!((read.protocol, read.ports, read.rest), (17, Some((1, 53)), &[7][..]));
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_it_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = packet(&bytes);
        }
    }
}
