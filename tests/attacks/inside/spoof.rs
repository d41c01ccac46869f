//! Owns attacks that pretend to be somebody else, by IP or Ethernet address.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, sendto,
    setsockopt, socket, sockopt,
};

use crate::packet::{ACK, ICMP, SYN, TCP, UDP, ether_of, frame, icmp, icmp_of, ip, ip4, tcp, udp};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all, raw_socket, send_ip, send_over, set_option};
use crate::{Attack, BOTH, Outcome, V4, V6};

/// As long as it takes the kernel to ask a second time (one second; RFC 6298).
const RESENT: Duration = Duration::from_millis(1_200);

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("a peer's source address, raw", BOTH, |attempt| raw(attempt, attempt.at("friend"))),
    Attack::new("a random source address, raw", BOTH, |attempt| raw(attempt, random(attempt))),
    Attack::new("no source address, loopback, multicast or broadcast as source, raw", BOTH, odd),
    Attack::new("a peer's source address, IP_TRANSPARENT", BOTH, |attempt| {
        transparent(attempt, attempt.at("friend"))
    }),
    Attack::new("the host's source address, IP_TRANSPARENT", BOTH, |attempt| {
        transparent(attempt, attempt.at("gateway"))
    }),
    Attack::new(
        "a peer's source address, to an allowed service, again and again, raw",
        BOTH,
        |attempt| {
            let (from, to) = (attempt.at("peer"), attempt.at("friend"));
            // If the first leaves anything behind, the others are not the first of a connection.
            let parts = [SYN, ACK, SYN, ACK].map(|flags| {
                let segment = tcp((from, to), (attempt.port(), 5432), flags, &attempt.payload());
                send_ip(to, &ip(from, to, TCP, &segment))
            });
            Ok(all(parts)?)
        },
    ),
    Attack::new("a peer's source address, to an allowed service, IPV6_FREEBIND", V6, freely),
    Attack::new("a peer's source address, packet socket", BOTH, |attempt| {
        linked(attempt, attempt.at("friend"), attempt.targets.mac("own_mac"))
    }),
    Attack::new("a random source address, packet socket", BOTH, |attempt| {
        linked(attempt, random(attempt), attempt.targets.mac("own_mac"))
    }),
    Attack::new("a peer's IP and Ethernet source addresses, packet socket", BOTH, |attempt| {
        linked(attempt, attempt.at("friend"), attempt.targets.mac("friend_mac"))
    }),
    Attack::new("own IP and another's Ethernet source address, packet socket", BOTH, |attempt| {
        linked(attempt, attempt.own(), attempt.targets.mac("friend_mac"))
    }),
    Attack::new("a peer's source address, to a service that peer may use", BOTH, |attempt| {
        // The store may answer and be pinged: what it gets from the host's address is allowed there.
        let (from, to) = (attempt.at("gateway"), attempt.at("friend"));
        let segment = tcp((from, to), (attempt.port(), 5432), SYN, &attempt.payload());
        let packet = ip(from, to, TCP, &segment);
        let mac = attempt.targets.mac("friend_mac");
        let linked =
            PacketSocket::raw().and_then(|socket| socket.send_ip(attempt, (to, mac), &packet));
        Ok(all([send_ip(to, &packet), linked])?)
    }),
    Attack::new(
        "own source address, to an allowed service, of another's Ethernet address",
        BOTH,
        |attempt| {
            let (from, to) = (attempt.own(), attempt.at("friend"));
            let segment = tcp((from, to), (attempt.port(), 5432), SYN, &attempt.payload());
            let mac = attempt.targets.mac("peer_mac");
            Ok(PacketSocket::raw()?.send_ip(attempt, (to, mac), &ip(from, to, TCP, &segment))?)
        },
    ),
    Attack::new("a denied packet whose rejection goes to a third party", BOTH, |attempt| {
        // What denies it quotes it in an ICMP error, to the source the attacker wrote.
        let (from, to) = (attempt.at("peer"), attempt.at("outside"));
        let datagram = udp((from, to), (attempt.port(), 9), &attempt.payload());
        Ok(send_ip(to, &ip(from, to, UDP, &datagram))?)
    }),
    Attack::new("IPv4 options: source route, record route, router alert", V4, options),
];

fn random(attempt: &Attempt<'_>) -> IpAddr {
    let text = if attempt.own().is_ipv4() { "198.51.100.77" } else { "2001:db8:77::77" };
    text.parse().unwrap_or(attempt.own())
}

fn datagram(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    ip(ends.0, ends.1, UDP, &udp(ends, (attempt.port(), 9), &attempt.payload()))
}

fn raw(attempt: &Attempt<'_>, from: IpAddr) -> Outcome {
    let one = |to| send_ip(to, &datagram(attempt, (from, to)));
    let ping = |to| {
        let kind = if from.is_ipv4() { (8, 0) } else { (128, 0) };
        let echo = icmp((from, to), kind, [0, 9, 0, 1], &attempt.payload());
        send_ip(to, &ip(from, to, icmp_of(from), &echo))
    };
    Ok(all(attempt.away().into_iter().flat_map(|(to, _)| [one(to), ping(to)]))?)
}

fn odd(attempt: &Attempt<'_>) -> Outcome {
    let sources: &[&str] = if attempt.own().is_ipv4() {
        &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]
    } else {
        &["::", "::1", "ff02::1"]
    };
    all(sources.iter().map(|source| raw(attempt, source.parse()?)))
}

fn transparent(attempt: &Attempt<'_>, from: IpAddr) -> Outcome {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if from.is_ipv4() {
        setsockopt(&fd, sockopt::IpTransparent, &true)?;
    } else {
        set_option(&fd, nix::libc::SOL_IPV6, nix::libc::IPV6_TRANSPARENT, 1)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, attempt.port())))?;
    all(attempt.away().map(|(to, _)| {
        let to = SockaddrStorage::from(SocketAddr::new(to, 9));
        sendto(fd.as_raw_fd(), &attempt.payload(), &to, MsgFlags::empty())?;
        Ok(())
    }))
}

/// Needs no capability at all.
fn freely(attempt: &Attempt<'_>) -> Outcome {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Stream, flags, None)?;
    set_option(&fd, nix::libc::SOL_IPV6, nix::libc::IPV6_FREEBIND, 1)?;
    let end = |address, port| SockaddrStorage::from(SocketAddr::new(address, port));
    bind(fd.as_raw_fd(), &end(attempt.at("peer"), attempt.port()))?;
    match connect(fd.as_raw_fd(), &end(attempt.at("friend"), 5432)) {
        // Until it is asked again, and again.
        Err(Errno::EINPROGRESS) => std::thread::sleep(RESENT),
        result => result?,
    }
    Ok(())
}

fn linked(attempt: &Attempt<'_>, from: IpAddr, mac: Mac) -> Outcome {
    let socket = PacketSocket::raw()?;
    Ok(all(attempt.away().map(|(to, to_mac)| {
        let kind = ether_of(to);
        socket.send(to_mac, kind, &frame(to_mac, mac, kind, &datagram(attempt, (from, to))))
    }))?)
}

fn options(attempt: &Attempt<'_>) -> Outcome {
    let (IpAddr::V4(own), IpAddr::V4(friend)) = (attempt.own(), attempt.at("friend")) else {
        return Ok(());
    };
    all(attempt.away().map(|(to, _)| -> Outcome {
        let IpAddr::V4(to) = to else { return Ok(()) };
        let hop = friend.octets();
        // RFC 791: loose source route over the friend, record route, router alert (RFC 2113); padded with no-operations.
        let loose = [&[131, 7, 4][..], &hop, &[1]].concat();
        let choices = [loose, vec![7, 7, 4, 0, 0, 0, 0, 1], vec![148, 4, 0, 0]];
        let ends = (own.into(), to.into());
        let body = icmp(ends, (8, 0), [0, 9, 0, 1], &attempt.payload());
        let socket = raw_socket(to.into())?;
        Ok(all(choices.map(|choice| {
            send_over(&socket, to.into(), &ip4(own, to, ICMP, (9, 0), &choice, &body))
        }))?)
    }))
}
