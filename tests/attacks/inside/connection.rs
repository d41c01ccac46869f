//! Owns attacks on what is remembered of connections: entries made to look as if somebody else had begun, identifiers of
//! allowed ones used for others, marks.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, sendto, setsockopt, socket,
    sockopt,
};

use crate::packet::{ACK, PSH, TCP, UDP, ether_of, frame, icmp, icmp_of, ip, tcp, udp};
use crate::target::Attempt;
use crate::wire::{PacketSocket, all, send_ip, set_option};
use crate::{Attack, BOTH, Outcome};

/// What the attacker's container publishes to the world, over UDP.
pub(crate) const PUBLISHED: u16 = 8001;
/// Of a ping that policy allows.
const PING: [u8; 2] = [0x77, 0x01];

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("an entry forged over lo by IP_TRANSPARENT, then replies", BOTH, |attempt| {
        forged(attempt, |attempt, from| {
            let fd = bound(from)?;
            let to = SockaddrStorage::from(SocketAddr::new(attempt.own(), PUBLISHED));
            sendto(fd.as_raw_fd(), b"hello", &to, MsgFlags::empty())?;
            Ok(())
        })
    }),
    Attack::new("an entry forged over lo by a raw socket, then replies", BOTH, |attempt| {
        forged(attempt, |attempt, from| Ok(send_ip(attempt.own(), &hello(attempt, from))?))
    }),
    Attack::new("an entry forged on lo by a packet socket, then replies", BOTH, |attempt| {
        forged(attempt, |attempt, from| {
            let kind = ether_of(from.ip());
            let frame = frame([0; 6], [0; 6], kind, &hello(attempt, from));
            Ok(PacketSocket::raw_on("lo")?.send([0; 6], kind, &frame)?)
        })
    }),
    Attack::new(
        "an entry forged on lo as a TCP connection in midstream, then data",
        BOTH,
        |attempt| {
            all(attempt.away().map(|(to, _)| -> Outcome {
                let own = attempt.own();
                let kind = ether_of(to);
                let begin = tcp((to, own), (9, 8000), ACK | PSH, b"hello");
                let frame = frame([0; 6], [0; 6], kind, &ip(to, own, TCP, &begin));
                PacketSocket::raw_on("lo")?.send([0; 6], kind, &frame)?;
                std::thread::sleep(SOON);
                let data = tcp((own, to), (8000, 9), ACK | PSH, &attempt.payload());
                Ok(send_ip(to, &ip(own, to, TCP, &data))?)
            }))
        },
    ),
    Attack::new(
        "an entry forged from outside: a frame that the peer's switch sends back",
        BOTH,
        reflected,
    ),
    Attack::new("identifier of an allowed ping, to others", BOTH, |attempt| {
        allowed_ping(attempt)?;
        let kinds = if attempt.own().is_ipv4() { [(8, 0), (0, 0)] } else { [(128, 0), (129, 0)] };
        let own = attempt.own();
        let each = attempt.away().into_iter().flat_map(|(to, _)| kinds.map(|kind| (to, kind)));
        Ok(all(each.map(|(to, kind)| {
            let echo = icmp((own, to), kind, [PING[0], PING[1], 0, 2], &attempt.payload());
            send_ip(to, &ip(own, to, icmp_of(own), &echo))
        }))?)
    }),
    Attack::new("identifier of an allowed ping, from a peer's source address", BOTH, |attempt| {
        allowed_ping(attempt)?;
        let (own, friend) = (attempt.own(), attempt.at("friend"));
        let kind = if own.is_ipv4() { (0, 0) } else { (129, 0) };
        Ok(all(attempt.away().map(|(to, _)| {
            let echo = icmp((friend, to), kind, [PING[0], PING[1], 0, 1], &attempt.payload());
            send_ip(to, &ip(friend, to, icmp_of(own), &echo))
        }))?)
    }),
    Attack::new("ICMP error about an allowed connection, to others", BOTH, related),
    Attack::new("packet mark set to the generation (SO_MARK)", BOTH, |attempt| {
        let own = attempt.own();
        let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        all(generations().map(|mark| -> Outcome {
            let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            set_option(&fd, nix::libc::SOL_SOCKET, nix::libc::SO_REUSEADDR, 1)?;
            set_option(&fd, nix::libc::SOL_SOCKET, nix::libc::SO_MARK, mark)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, attempt.port())))?;
            all(attempt.away().map(|(to, _)| {
                let to = SockaddrStorage::from(SocketAddr::new(to, 9));
                sendto(fd.as_raw_fd(), &attempt.payload(), &to, MsgFlags::empty())?;
                Ok(())
            }))
        }))
    }),
    Attack::new("the port of an allowed connection, to others", BOTH, |attempt| {
        let connected = connect_friend(attempt)?;
        let port = connected.local_addr()?.port();
        let own = attempt.own();
        Ok(all(attempt.away().map(|(to, _)| {
            let data = tcp((own, to), (port, 5432), ACK | PSH, &attempt.payload());
            send_ip(to, &ip(own, to, TCP, &data))
        }))?)
    }),
];

/// An entry needs a moment to be there: it is made by the packet's way through lo.
const SOON: Duration = Duration::from_millis(20);

/// Marks a daemon may count generations with: small numbers, in the upper bits.
fn generations() -> impl Iterator<Item = i32> {
    [8, 16, 24].into_iter().flat_map(|shift| (1..9).map(move |number| number << shift))
}

/// A datagram from somebody else to the own published port.
pub(crate) fn hello(attempt: &Attempt<'_>, from: SocketAddr) -> Vec<u8> {
    let ends = (from.ip(), attempt.own());
    ip(ends.0, ends.1, UDP, &udp(ends, (from.port(), PUBLISHED), b"hello"))
}

/// A socket that has somebody else's address.
fn bound(address: SocketAddr) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv4() {
        setsockopt(&fd, sockopt::IpTransparent, &true)?;
    } else {
        set_option(&fd, nix::libc::SOL_IPV6, nix::libc::IPV6_TRANSPARENT, 1)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Makes it look as if each of those who are away had spoken first; then answers.
fn forged(attempt: &Attempt<'_>, begin: impl Fn(&Attempt<'_>, SocketAddr) -> Outcome) -> Outcome {
    let socket = UdpSocket::bind((attempt.own(), PUBLISHED))?;
    all(attempt.away().map(|(to, _)| -> Outcome {
        let theirs = SocketAddr::new(to, attempt.port());
        begin(attempt, theirs)?;
        std::thread::sleep(SOON);
        for _ in 0..3 {
            socket.send_to(&attempt.payload(), theirs)?;
        }
        Ok(())
    }))
}

/// Sends the own published port a packet by way of the bridge, as if from somebody else; then answers.
fn reflected(attempt: &Attempt<'_>) -> Outcome {
    forged(attempt, |attempt, from| {
        let kind = ether_of(from.ip());
        let own = attempt.targets.mac("own_mac");
        let gateway = attempt.targets.mac("gateway_mac");
        // The host routes what is sent to its Ethernet address; the destination is the container itself.
        let frame = frame(gateway, own, kind, &hello(attempt, from));
        Ok(PacketSocket::raw()?.bypassing()?.send(gateway, kind, &frame)?)
    })
}

/// Pings the friend, which policy allows: not marked.
fn allowed_ping(attempt: &Attempt<'_>) -> io::Result<()> {
    let ends = (attempt.own(), attempt.at("friend"));
    let kind = if ends.0.is_ipv4() { (8, 0) } else { (128, 0) };
    let echo = icmp(ends, kind, [PING[0], PING[1], 0, 1], b"allowed");
    send_ip(ends.1, &ip(ends.0, ends.1, icmp_of(ends.0), &echo))?;
    std::thread::sleep(SOON);
    Ok(())
}

/// Connects to what the policy allows.
fn connect_friend(attempt: &Attempt<'_>) -> io::Result<TcpStream> {
    let to = SocketAddr::new(attempt.at("friend"), 5432);
    TcpStream::connect_timeout(&to, Duration::from_secs(2))
}

/// Errors that quote an allowed connection, sent to those who have no part in it.
fn related(attempt: &Attempt<'_>) -> Outcome {
    let connected = connect_friend(attempt)?;
    let port = connected.local_addr()?.port();
    let (own, friend) = (attempt.own(), attempt.at("friend"));
    let kind = if own.is_ipv4() { (3, 4) } else { (2, 0) };
    let answer = tcp((friend, own), (5432, port), ACK, &attempt.payload());
    let request = tcp((own, friend), (port, 5432), ACK, &attempt.payload());
    let quotes = [ip(friend, own, TCP, &answer), ip(own, friend, TCP, &request)];
    let each =
        attempt.away().into_iter().flat_map(|(to, _)| quotes.iter().map(move |one| (to, one)));
    Ok(all(each.map(|(to, quoted)| {
        let error = icmp((own, to), kind, [0, 0, 5, 0], quoted);
        send_ip(to, &ip(own, to, icmp_of(own), &error))
    }))?)
}
