//! Owns attacks by TCP, UDP and ICMP packets that are what they say, from the container's own address.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, sendto, socket,
};
use std::os::fd::AsRawFd;

use crate::packet::{ACK, FIN, PSH, RST, SYN, TCP, UDP, URG, icmp, icmp_of, ip, tcp, udp};
use crate::target::{Attempt, Family};
use crate::wire::{all, send_ip, send_plain, set_option};
use crate::{Attack, BOTH, Outcome};

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("UDP by an ordinary socket", BOTH, ordinary_udp),
    Attack::new("TCP by an ordinary socket", BOTH, ordinary_tcp),
    Attack::new("TCP with data in the SYN (fast open)", BOTH, fast_open),
    Attack::new("raw UDP", BOTH, |attempt| {
        each(attempt, UDP, |attempt, ends| udp(ends, (attempt.port(), 9), &attempt.payload()))
    }),
    Attack::new("raw TCP: SYN", BOTH, |attempt| segment(attempt, &[SYN])),
    Attack::new("raw TCP: ACK and data of no connection", BOTH, |attempt| {
        segment(attempt, &[ACK, ACK | PSH, ACK | FIN])
    }),
    Attack::new("raw TCP: RST", BOTH, |attempt| segment(attempt, &[RST, RST | ACK])),
    Attack::new("raw TCP: SYN-ACK nobody asked for", BOTH, |attempt| {
        segment(attempt, &[SYN | ACK])
    }),
    Attack::new("raw TCP: simultaneous open (SYN, then SYN-ACK, then data)", BOTH, |attempt| {
        segment(attempt, &[SYN, SYN | ACK, ACK | PSH])
    }),
    Attack::new("raw TCP: no flags, all flags, FIN alone", BOTH, |attempt| {
        segment(attempt, &[0, FIN | SYN | RST | PSH | ACK | URG, FIN])
    }),
    Attack::new("ICMP echo request", BOTH, |attempt| message(attempt, [(8, 0), (128, 0)])),
    Attack::new("ICMP echo reply nobody asked for", BOTH, |attempt| {
        message(attempt, [(0, 0), (129, 0)])
    }),
    Attack::new("ICMP timestamp, or IPv6 node information", BOTH, |attempt| {
        message(attempt, [(13, 0), (139, 0)])
    }),
    Attack::new("ICMP timestamp reply, or unassigned ICMPv6 type", BOTH, |attempt| {
        message(attempt, [(14, 0), (200, 0)])
    }),
    Attack::new("ICMP errors about a packet that never was", BOTH, errors),
    Attack::new("ping of the system, with the payload as its pattern", BOTH, ping),
];

/// A raw packet to everybody, from the own address.
fn each(
    attempt: &Attempt<'_>,
    protocol: u8,
    body: impl Fn(&Attempt<'_>, (IpAddr, IpAddr)) -> Vec<u8>,
) -> Outcome {
    let own = attempt.own();
    let one = |to| send_ip(to, &ip(own, to, protocol, &body(attempt, (own, to))));
    Ok(all(attempt.away().map(|(to, _)| one(to)))?)
}

fn segment(attempt: &Attempt<'_>, flags: &[u8]) -> Outcome {
    all(flags.iter().map(|flags| {
        each(attempt, TCP, |attempt, ends| {
            tcp(ends, (attempt.port(), 443), *flags, &attempt.payload())
        })
    }))
}

fn message(attempt: &Attempt<'_>, kinds: [(u8, u8); 2]) -> Outcome {
    let kind = kinds[usize::from(attempt.family == Family::V6)];
    each(attempt, icmp_of(attempt.own()), |attempt, ends| {
        icmp(ends, kind, [0x52, 0, 0, 1], &attempt.payload())
    })
}

fn ordinary_udp(attempt: &Attempt<'_>) -> Outcome {
    Ok(all(attempt.away().map(|(to, _)| send_plain(attempt, to, 9)))?)
}

fn ordinary_tcp(attempt: &Attempt<'_>) -> Outcome {
    all(attempt.away().map(|(to, _)| -> Outcome {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let reuse = nix::libc::SO_REUSEADDR;
        set_option(&fd, nix::libc::SOL_SOCKET, reuse, 1)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(std::net::SocketAddr::new(attempt.own(), attempt.port())),
        )?;
        // The first SYN is enough; a connection would be told by a reset, or by nothing.
        TcpStream::from(fd.try_clone()?).set_nonblocking(true)?;
        let to = SockaddrStorage::from(std::net::SocketAddr::new(to, 443));
        match nix::sys::socket::connect(fd.as_raw_fd(), &to) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {
                std::thread::sleep(Duration::from_millis(20));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }))
}

fn fast_open(attempt: &Attempt<'_>) -> Outcome {
    all(attempt.away().map(|(to, _)| -> Outcome {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
        set_option(&fd, nix::libc::SOL_SOCKET, nix::libc::SO_REUSEADDR, 1)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(std::net::SocketAddr::new(attempt.own(), attempt.port())),
        )?;
        let to = SockaddrStorage::from(std::net::SocketAddr::new(to, 80));
        let flags = MsgFlags::from_bits_retain(nix::libc::MSG_FASTOPEN);
        match sendto(fd.as_raw_fd(), &attempt.payload(), &to, flags) {
            Ok(_) | Err(nix::errno::Errno::EINPROGRESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }))
}

/// Unreachable, too big, time exceeded, parameter problem, source quench; each quotes a packet with the payload in it.
fn errors(attempt: &Attempt<'_>) -> Outcome {
    let kinds: &[(u8, u8)] = match attempt.family {
        Family::V4 => &[(3, 1), (3, 4), (4, 0), (11, 0), (12, 0)],
        Family::V6 => &[(1, 0), (2, 0), (3, 0), (4, 0)],
    };
    let own = attempt.own();
    all(kinds.iter().map(|kind| {
        each(attempt, icmp_of(own), |attempt, ends| {
            let quoted = udp((ends.1, own), (9, attempt.port()), &attempt.payload());
            let quoted = ip(ends.1, own, UDP, &quoted);
            icmp(ends, *kind, [0, 0, 5, 0], &quoted)
        })
    }))
}

fn ping(attempt: &Attempt<'_>) -> Outcome {
    let pattern: String = attempt.mark().iter().map(|byte| format!("{byte:02x}")).collect();
    all(attempt.away().map(|(to, _)| -> Outcome {
        let to = to.to_string();
        let arguments = ["-n", "-c", "1", "-W", "0.1", "-s", "64", "-p", &pattern, &to];
        let output = std::process::Command::new("/usr/bin/ping").args(arguments).output()?;
        if output.status.code() == Some(2) {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(())
    }))
}
