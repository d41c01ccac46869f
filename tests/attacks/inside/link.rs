//! Owns attacks by packet sockets, which the hooks of IP never see.

use std::io;
use std::net::IpAddr;

use crate::packet::{ACK, PSH, SYN, TCP, UDP, ether_of, frame, icmp, icmp_of, ip, tcp, udp};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all};
use crate::{Attack, BOTH, Outcome, V4};

const BROADCAST: Mac = [0xff; 6];

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("packet socket: UDP", BOTH, |attempt| {
        each(attempt, &PacketSocket::raw()?, datagram)
    }),
    Attack::new("packet socket: UDP, QDISC_BYPASS", BOTH, |attempt| {
        each(attempt, &PacketSocket::raw()?.bypassing()?, datagram)
    }),
    Attack::new("packet socket: UDP, SOCK_DGRAM", BOTH, |attempt| {
        each(attempt, &PacketSocket::cooked()?, datagram)
    }),
    Attack::new("packet socket: UDP, SOCK_DGRAM and QDISC_BYPASS", BOTH, |attempt| {
        each(attempt, &PacketSocket::cooked()?.bypassing()?, datagram)
    }),
    Attack::new("packet socket: UDP, TX_RING", BOTH, |attempt| {
        all(attempt.away().map(|to| {
            let kind = ether_of(to.0);
            let packet = datagram(attempt, (attempt.own(), to.0));
            let frame = frame(to.1, attempt.targets.mac("own_mac"), kind, &packet);
            Ok(PacketSocket::raw()?.send_by_ring(to.1, kind, &frame)?)
        }))
    }),
    Attack::new("packet socket: TCP SYN", BOTH, |attempt| {
        each(attempt, &PacketSocket::raw()?, |attempt, ends| segment(attempt, ends, SYN))
    }),
    Attack::new("packet socket: TCP ACK and data of no connection", BOTH, |attempt| {
        each(attempt, &PacketSocket::raw()?, |attempt, ends| segment(attempt, ends, ACK | PSH))
    }),
    Attack::new("packet socket: from the port it publishes, of no connection", BOTH, |attempt| {
        each(attempt, &PacketSocket::raw()?, |attempt, ends| {
            let published = tcp(ends, (8000, 40_000), ACK | PSH, &attempt.payload());
            ip(ends.0, ends.1, TCP, &published)
        })
    }),
    Attack::new("packet socket: ICMP echo", BOTH, |attempt| {
        let kind = if attempt.own().is_ipv4() { (8, 0) } else { (128, 0) };
        each(attempt, &PacketSocket::raw()?, |attempt, ends| {
            ip(ends.0, ends.1, icmp_of(ends.0), &icmp(ends, kind, [0, 1, 0, 1], &attempt.payload()))
        })
    }),
    Attack::new("packet socket: ICMP error with a payload", BOTH, |attempt| {
        let kind = if attempt.own().is_ipv4() { (3, 4) } else { (2, 0) };
        each(attempt, &PacketSocket::raw()?, |attempt, ends| {
            let quoted =
                ip(ends.1, ends.0, UDP, &udp((ends.1, ends.0), (9, 9), &attempt.payload()));
            ip(ends.0, ends.1, icmp_of(ends.0), &icmp(ends, kind, [0, 0, 5, 0], &quoted))
        })
    }),
    Attack::new("packet socket: protocols 47, 132, 253", BOTH, |attempt| {
        all([47, 132, 253].map(|protocol| {
            each(attempt, &PacketSocket::raw()?, |attempt, ends| {
                ip(ends.0, ends.1, protocol, &[&[0; 8], &attempt.payload()[..]].concat())
            })
        }))
    }),
    Attack::new("packet socket: UDP, said to be ARP, loopback or nothing", BOTH, mislabelled),
    Attack::new("packet socket: UDP in VLAN tags (802.1Q, 802.1ad, both)", BOTH, tagged),
    Attack::new("packet socket: UDP to the broadcast address of Ethernet", BOTH, |attempt| {
        let socket = PacketSocket::raw()?;
        Ok(all(attempt.away().map(|(to, _)| {
            socket.send_ip(attempt, (to, BROADCAST), &datagram(attempt, (attempt.own(), to)))
        }))?)
    }),
    Attack::new(
        "packet socket: other EtherTypes (LLDP, EAPOL, MPLS, PPPoE, experimental)",
        V4,
        |attempt| {
            let kinds = [0x88cc, 0x888e, 0x8847, 0x8863, 0x88b5, 0x9000];
            all(kinds.map(|kind| bare(attempt, kind, &attempt.payload())))
        },
    ),
    Attack::new("packet socket: 802.3 frames (a length, no EtherType)", V4, |attempt| {
        let body = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &attempt.payload()].concat();
        bare(attempt, body.len() as u16, &body)
    }),
    Attack::new("packet socket: an IP header of the other version, or none", BOTH, |attempt| {
        let (socket, own) = (PacketSocket::raw()?, attempt.targets.mac("own_mac"));
        Ok(all(attempt.away().map(|(to, mac)| {
            let wrong = if to.is_ipv4() { 0x86dd } else { 0x0800 };
            let packet = datagram(attempt, (attempt.own(), to));
            socket.send(mac, wrong, &frame(mac, own, wrong, &packet))?;
            socket.send(mac, ether_of(to), &frame(mac, own, ether_of(to), &attempt.payload()))
        }))?)
    }),
];

fn datagram(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    ip(ends.0, ends.1, UDP, &udp(ends, (attempt.port(), 9), &attempt.payload()))
}

fn segment(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr), flags: u8) -> Vec<u8> {
    ip(ends.0, ends.1, TCP, &tcp(ends, (attempt.port(), 443), flags, &attempt.payload()))
}

fn each(
    attempt: &Attempt<'_>,
    socket: &PacketSocket,
    packet: impl Fn(&Attempt<'_>, (IpAddr, IpAddr)) -> Vec<u8>,
) -> Outcome {
    let own = attempt.own();
    let one = |to: (IpAddr, Mac)| socket.send_ip(attempt, to, &packet(attempt, (own, to.0)));
    Ok(all(attempt.away().map(one))?)
}

/// What is sent is IP; what the socket says of it is not.
fn mislabelled(attempt: &Attempt<'_>) -> Outcome {
    let (socket, own) = (PacketSocket::raw()?, attempt.targets.mac("own_mac"));
    let send = |(to, mac): (IpAddr, Mac), kind| {
        let packet = datagram(attempt, (attempt.own(), to));
        socket.send(mac, kind, &frame(mac, own, ether_of(to), &packet))
    };
    let each = attempt.away().into_iter().flat_map(|to| [0x0806, 0x0060, 0].map(|kind| (to, kind)));
    Ok(all(each.map(|(to, kind)| send(to, kind)))?)
}

fn tagged(attempt: &Attempt<'_>) -> Outcome {
    let (socket, own) = (PacketSocket::raw()?, attempt.targets.mac("own_mac"));
    // Priority tags (VLAN 0) are of the network itself; a bridge without VLANs passes any.
    let tags: [&[u16]; 4] = [&[0x8100, 0], &[0x8100, 5], &[0x88a8, 5], &[0x88a8, 5, 0x8100, 7]];
    let send = |(to, mac): (IpAddr, Mac), tags: &[u16]| -> io::Result<()> {
        let more = tags[1..].iter().copied().chain([ether_of(to)]).flat_map(u16::to_be_bytes);
        let body: Vec<u8> = more.chain(datagram(attempt, (attempt.own(), to))).collect();
        socket.send(mac, tags[0], &frame(mac, own, tags[0], &body))
    };
    let each = attempt.away().into_iter().flat_map(|to| tags.map(|tags| (to, tags)));
    Ok(all(each.map(|(to, tags)| send(to, tags)))?)
}

/// A frame without IP, to a neighbour, to the host and to all.
fn bare(attempt: &Attempt<'_>, kind: u16, body: &[u8]) -> Outcome {
    let (socket, own) = (PacketSocket::raw()?, attempt.targets.mac("own_mac"));
    let to = [attempt.targets.mac("peer_mac"), attempt.targets.mac("gateway_mac"), BROADCAST];
    Ok(all(to.map(|to| socket.send(to, kind, &frame(to, own, kind, body))))?)
}
