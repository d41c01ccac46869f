//! Owns attacks by other protocols over IP than TCP, UDP and ICMP.

use std::net::IpAddr;

use crate::packet::{UDP, ip, udp};
use crate::target::{Attempt, Family};
use crate::wire::{all, send_ip};
use crate::{Attack, BOTH, Outcome, V4};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("SCTP INIT", BOTH, |attempt| {
        // Ports, no verification tag, no checksum, an INIT chunk that is not whole (RFC 9260).
        let head =
            [&attempt.port().to_be_bytes()[..], &[0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 40]];
        carry(attempt, 132, &head.concat())
    }),
    Attack::new("GRE", BOTH, |attempt| {
        // No options, IPv4 inside (RFC 2784).
        let inside = [&[0, 0, 8, 0][..], &inner(attempt)].concat();
        carry(attempt, 47, &inside)
    }),
    Attack::new("IP in IP", BOTH, |attempt| {
        let protocol = if attempt.family == Family::V4 { 4 } else { 41 };
        carry(attempt, protocol, &inner(attempt))
    }),
    Attack::new("the other IP version in IP", BOTH, |attempt| {
        carry(attempt, if attempt.family == Family::V4 { 41 } else { 4 }, &[])
    }),
    Attack::new("UDP-Lite", BOTH, |attempt| {
        let head = [&attempt.port().to_be_bytes()[..], &[0, 9, 0, 8, 0, 0]].concat();
        carry(attempt, 136, &head)
    }),
    Attack::new("ESP and AH", BOTH, |attempt| {
        all([
            carry(attempt, 50, &[0, 0, 1, 0, 0, 0, 0, 1]),
            carry(attempt, 51, &[59, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
        ])
    }),
    Attack::new("DCCP, OSPF, PIM, L2TP, VRRP, 253 and 255", BOTH, |attempt| {
        all([33, 89, 103, 115, 112, 253, 255].map(|protocol| carry(attempt, protocol, &[0; 8])))
    }),
    Attack::new("IGMP with a payload", V4, |attempt| {
        carry(attempt, 2, &[0x16, 0, 0, 0, 224, 0, 0, 251])
    }),
];

fn carry(attempt: &Attempt<'_>, protocol: u8, head: &[u8]) -> Outcome {
    let body = [head, &attempt.payload()].concat();
    let one = |to: IpAddr| send_ip(to, &ip(attempt.own(), to, protocol, &body));
    Ok(all(attempt.away().map(|(to, _)| one(to)))?)
}

/// A packet to be carried inside another.
fn inner(attempt: &Attempt<'_>) -> Vec<u8> {
    let ends = (attempt.own(), attempt.at("peer"));
    ip(ends.0, ends.1, UDP, &udp(ends, (attempt.port(), 9), &attempt.payload()))
}
