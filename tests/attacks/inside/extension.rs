//! Owns attacks by what only IPv6 has: link-local addresses, and extension headers (RFC 8200).

use std::net::{IpAddr, Ipv6Addr};

use crate::packet::{ICMP6, SYN, TCP, UDP, icmp, ip6, tcp, udp};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all, send_ip, send_plain};
use crate::{Attack, Outcome, V6};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NOTHING: u8 = 59;
const OPTIONS: u8 = 60;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("UDP to link-local addresses of a peer and the host", V6, |attempt| {
        all(["peer_link", "gateway_link"].map(|who| Ok(send_plain(attempt, attempt.at(who), 9)?)))
    }),
    Attack::new("raw TCP and ICMP to link-local addresses", V6, |attempt| {
        let own = attempt.at("own_link");
        all(["peer_link", "gateway_link"].map(|who| {
            let ends = (own, attempt.at(who));
            let segment = tcp(ends, (attempt.port(), 443), SYN, &attempt.payload());
            let echo = icmp(ends, (128, 0), [0, 9, 0, 1], &attempt.payload());
            let send = |protocol, body: &[u8]| {
                send_ip(ends.1, &ip6(v6(ends.0), v6(ends.1), protocol, 64, body))
            };
            Ok(all([send(TCP, &segment), send(ICMP6, &echo)])?)
        }))
    }),
    Attack::new("from its link-local address to routed ones", V6, |attempt| {
        let own = attempt.at("own_link");
        Ok(all(attempt.away().map(|(to, _)| {
            let datagram = udp((own, to), (attempt.port(), 9), &attempt.payload());
            send_ip(to, &ip6(v6(own), v6(to), UDP, 64, &datagram))
        }))?)
    }),
    Attack::new("hop-by-hop options", V6, |attempt| chained(attempt, &[HOP_BY_HOP])),
    Attack::new("destination options", V6, |attempt| chained(attempt, &[OPTIONS])),
    Attack::new("routing header (types 0, 2 and 4)", V6, |attempt| {
        all([0, 2, 4].map(|kind| routed(attempt, kind)))
    }),
    Attack::new("fragment header of a packet that is whole", V6, |attempt| {
        chained(attempt, &[FRAGMENT])
    }),
    Attack::new("several extension headers, in and out of order", V6, |attempt| {
        all([
            chained(attempt, &[HOP_BY_HOP, OPTIONS, FRAGMENT, OPTIONS]),
            chained(attempt, &[OPTIONS, OPTIONS, OPTIONS, OPTIONS]),
            chained(attempt, &[FRAGMENT, HOP_BY_HOP]),
        ])
    }),
    Attack::new("a payload in options alone, and nothing behind (59)", V6, |attempt| {
        each(attempt, &|_| (OPTIONS, [options(NOTHING, attempt), attempt.payload()].concat()))
    }),
    Attack::new("an extension header nobody knows (253)", V6, |attempt| {
        each(attempt, &|_| (253, options(UDP, attempt)))
    }),
];

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("{address} is not IPv6"),
    }
}

/// Options with the mark in one that may be skipped (0x1e, RFC 4727): 24 bytes.
fn options(next: u8, attempt: &Attempt<'_>) -> Vec<u8> {
    let mut header = vec![next, 2, 0x1e, 12];
    header.extend(attempt.mark());
    header.extend([1, 6]);
    header.resize(24, 0);
    header
}

/// UDP behind these headers.
fn chained(attempt: &Attempt<'_>, kinds: &[u8]) -> Outcome {
    each(attempt, &|to| {
        let ends = (attempt.own(), to);
        let mut body = udp(ends, (attempt.port(), 9), &attempt.payload());
        let mut next = UDP;
        for kind in kinds.iter().rev() {
            let header = match *kind {
                FRAGMENT => vec![next, 0, 0, 0, 0, 0, 0, 7],
                _ => options(next, attempt),
            };
            body = [header, body].concat();
            next = *kind;
        }
        (next, body)
    })
}

/// UDP to somebody by way of somebody else: the first is where the routing header says it ends.
fn routed(attempt: &Attempt<'_>, kind: u8) -> Outcome {
    each(attempt, &|to| {
        let last = v6(attempt.at("friend"));
        let mut header = vec![UDP, 2, kind, 1, 0, 0, 0, 0];
        header.extend(last.octets());
        let datagram = udp((attempt.own(), to), (attempt.port(), 9), &attempt.payload());
        (ROUTING, [header, datagram].concat())
    })
}

/// Sends to everybody, by the IP layer and by a packet socket, what `body` makes: the first header's number and the rest.
fn each(attempt: &Attempt<'_>, body: &dyn Fn(IpAddr) -> (u8, Vec<u8>)) -> Outcome {
    let socket = PacketSocket::raw()?.bypassing()?;
    let own = v6(attempt.own());
    let send = |(to, mac): (IpAddr, Mac)| {
        let (next, body) = body(to);
        let packet = ip6(own, v6(to), next, 64, &body);
        all([send_ip(to, &packet), socket.send_ip(attempt, (to, mac), &packet)])
    };
    Ok(all(attempt.away().map(send))?)
}
