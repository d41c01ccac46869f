//! Owns the bytes of packets: IP (RFC 791, RFC 8200), TCP, UDP, ICMP, ARP (RFC 826) and Ethernet, well formed unless said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::target::Mac;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

const HOPS: u8 = 255;

/// An IP packet with nothing unusual about its header.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ip4(from, to, protocol, (7, 0), &[], body),
        (IpAddr::V6(from), IpAddr::V6(to)) => ip6(from, to, protocol, HOPS, body),
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// An IPv4 packet: identification and the 16 bits of flags and fragment offset, options padded to 4 bytes.
pub(crate) fn ip4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    (identification, fragment): (u16, u16),
    options: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = (header + body.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([HOPS, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(options);
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(body);
    packet
}

/// An IPv6 packet; `next` is the protocol or the first extension header.
pub(crate) fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

/// A UDP datagram, with its checksum.
pub(crate) fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(ports.0.to_be_bytes());
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    with_sum(datagram, ends, UDP, 6)
}

/// A TCP segment, with its checksum. Data in a SYN is allowed by RFC 9293.
pub(crate) fn tcp(ends: (IpAddr, IpAddr), ports: (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(1000u32.to_be_bytes());
    segment.extend(if flags & ACK == 0 { 0u32 } else { 2000 }.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    with_sum(segment, ends, TCP, 16)
}

/// An ICMP or ICMPv6 message: type and code, the four bytes after the checksum, and what follows.
pub(crate) fn icmp(ends: (IpAddr, IpAddr), kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend(rest);
    message.extend(body);
    if ends.0.is_ipv6() {
        return with_sum(message, ends, ICMP6, 2);
    }
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// The protocol number of ICMP in the family of an address.
pub(crate) fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { ICMP } else { ICMP6 }
}

/// An Ethernet frame.
pub(crate) fn frame(to: Mac, from: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

/// The EtherType of IP in the family of an address.
pub(crate) fn ether_of(address: IpAddr) -> u16 {
    if address.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// An ARP message: 1 asks, 2 answers. What stands behind its 28 bytes is nobody's business.
pub(crate) fn arp(kind: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(kind.to_be_bytes());
    for (mac, address) in [sender, target] {
        message.extend(mac);
        message.extend(address.octets());
    }
    message
}

fn with_sum(mut body: Vec<u8>, ends: (IpAddr, IpAddr), protocol: u8, place: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for end in [ends.0, ends.1] {
        match end {
            IpAddr::V4(address) => all.extend(address.octets()),
            IpAddr::V6(address) => all.extend(address.octets()),
        }
    }
    all.extend([0, protocol]);
    all.extend((body.len() as u16).to_be_bytes());
    all.extend(&body);
    let sum = match checksum(&all) {
        0 => 0xffff,
        sum => sum,
    };
    body[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    body
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
