//! Owns attacks by fragments (RFC 791, RFC 8200, RFC 3128).

use std::net::IpAddr;

use crate::packet::{SYN, TCP, UDP, ip4, ip6, tcp, udp};
use crate::target::{Attempt, Mac};
use crate::wire::{PacketSocket, all, raw_socket, send_over, set_option};
use crate::{Attack, BOTH, Outcome};

const MORE: u16 = 1;
/// IP_NODEFRAG (`linux/in.h`): fragments go out as they are, unseen by conntrack.
const IP_NODEFRAG: i32 = 22;

/// A piece: where it begins (in bytes, a multiple of eight), its bytes, whether more follow.
type Piece = (usize, Vec<u8>, bool);

/// How a packet between two ends is cut.
type Cut = fn(&Attempt<'_>, (IpAddr, IpAddr)) -> Vec<Piece>;

pub(crate) const ATTACKS: &[Attack] = &[
    Attack::new("fragments, raw: first and later", BOTH, |attempt| raw(attempt, whole)),
    Attack::new("fragments, raw: a later one alone", BOTH, |attempt| raw(attempt, later)),
    Attack::new("fragments, raw: overlapping", BOTH, |attempt| raw(attempt, overlapping)),
    Attack::new("fragments, raw: a first one of eight bytes", BOTH, |attempt| raw(attempt, tiny)),
    Attack::new("fragments, packet socket: first and later", BOTH, |attempt| {
        linked(attempt, whole)
    }),
    Attack::new("fragments, packet socket: a later one alone", BOTH, |attempt| {
        linked(attempt, later)
    }),
    Attack::new("fragments, packet socket: overlapping", BOTH, |attempt| {
        linked(attempt, overlapping)
    }),
    Attack::new("fragments, packet socket: a first one of eight bytes", BOTH, |attempt| {
        linked(attempt, tiny)
    }),
    Attack::new("later fragments to an allowed peer's address, from another's", BOTH, |attempt| {
        let (from, to) = (attempt.at("gateway"), attempt.at("friend"));
        let mac = attempt.targets.mac("friend_mac");
        pieces(attempt, (from, to), later).into_iter().try_for_each(|(_, packet)| {
            let socket = PacketSocket::raw()?;
            Ok(socket.send_ip(attempt, (to, mac), &packet)?)
        })
    }),
];

fn datagram(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    let payload = [attempt.payload(), attempt.payload()].concat();
    udp(ends, (attempt.port(), 9), &payload)
}

fn whole(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<Piece> {
    let all = datagram(attempt, ends);
    vec![(0, all[..32].to_vec(), true), (32, all[32..].to_vec(), false)]
}

fn later(attempt: &Attempt<'_>, _: (IpAddr, IpAddr)) -> Vec<Piece> {
    vec![(64, attempt.payload(), false)]
}

fn overlapping(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<Piece> {
    let all = datagram(attempt, ends);
    // The second begins within the first and would replace its ports.
    vec![
        (0, all[..40].to_vec(), true),
        (0, all[..24].to_vec(), true),
        (24, all[24..].to_vec(), false),
    ]
}

fn tiny(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr)) -> Vec<Piece> {
    let all = tcp(ends, (attempt.port(), 443), SYN, &attempt.payload());
    vec![(0, all[..8].to_vec(), true), (8, all[8..].to_vec(), false)]
}

/// Packets, each with where it goes; each family's own way of saying that it is a part.
fn pieces(attempt: &Attempt<'_>, ends: (IpAddr, IpAddr), cut: Cut) -> Vec<(IpAddr, Vec<u8>)> {
    let protocol =
        if cut(attempt, ends).first().is_some_and(|piece| piece.1.len() == 8) { TCP } else { UDP };
    let packet = |(start, bytes, has_more): Piece| match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let place = (start / 8) as u16 | if has_more { MORE << 13 } else { 0 };
            ip4(from, to, protocol, (0x5a5a, place), &[], &bytes)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let place = start as u16 | u16::from(has_more);
            let header = [&[protocol, 0][..], &place.to_be_bytes(), &0x5a5a_u32.to_be_bytes()];
            ip6(from, to, 44, 64, &[&header.concat()[..], &bytes].concat())
        }
        _ => panic!("{ends:?} are of different families"),
    };
    cut(attempt, ends).into_iter().map(|piece| (ends.1, packet(piece))).collect()
}

fn raw(attempt: &Attempt<'_>, cut: Cut) -> Outcome {
    let sockets = |to: IpAddr| -> std::io::Result<_> {
        let plain = raw_socket(to)?;
        let whole = raw_socket(to)?;
        if to.is_ipv4() {
            set_option(&whole, nix::libc::SOL_IP, IP_NODEFRAG, 1)?;
        }
        Ok([plain, whole])
    };
    all(attempt.away().map(|(to, _)| -> Outcome {
        let sockets = sockets(to)?;
        let packets = pieces(attempt, (attempt.own(), to), cut);
        let each = sockets.iter().flat_map(|socket| packets.iter().map(move |one| (socket, one)));
        Ok(all(each.map(|(socket, (to, packet))| send_over(socket, *to, packet)))?)
    }))
}

fn linked(attempt: &Attempt<'_>, cut: Cut) -> Outcome {
    let socket = PacketSocket::raw()?;
    all(attempt.away().map(|(to, mac): (IpAddr, Mac)| -> Outcome {
        let packets = pieces(attempt, (attempt.own(), to), cut);
        Ok(all(packets
            .into_iter()
            .map(|(to, packet)| socket.send_ip(attempt, (to, mac), &packet)))?)
    }))
}
