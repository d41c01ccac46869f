//! Owns making sense of what the kernel told of one netns: bytes in, denials, connections and names out. Pure.

use std::net::IpAddr;

use super::names::answered;
use super::party::Carried;
use super::record::Where;
use crate::input::Text;
use crate::metadata::L4Proto;
use crate::nft::conntrack::Told;
use crate::nft::log::Logged;
use crate::nft::packet;

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A packet was denied, or would have been.
    Denied(Denied),
    /// A connection began or ended.
    Connection(Told),
    /// A resolver answered: from this address, these names.
    Named(IpAddr, Vec<(IpAddr, Text)>),
}

/// A denied packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Where.
    pub at: Where,
    /// Whether it was dropped; in observe it passed.
    pub enforced: bool,
    /// When, in microseconds since 1970, where the kernel told.
    pub at_us: Option<u64>,
    /// The user whose socket sent it.
    pub uid: Option<u32>,
    /// Its addresses; none for what is not IP.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The transport protocol (IANA number), or the EtherType of what is not IP.
    pub protocol: u16,
    /// Source and destination port; 0 where there are none.
    pub ports: (u16, u16),
    /// The type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
    /// Of TCP: whether it asks for a connection.
    pub is_opening: bool,
}

/// Makes sense of a logged packet.
pub fn logged(logged: &Logged<'_>) -> Option<Seen> {
    let mut words = logged.prefix.split_ascii_whitespace();
    if words.next() != Some("seawall") {
        return None;
    }
    let enforced = match words.next()? {
        "deny" => true,
        "observe" => false,
        "dns" => {
            let packet = packet::packet(logged.payload)?;
            let names = answered(packet.rest);
            return (!names.is_empty()).then_some(Seen::Named(packet.source, names));
        }
        _ => return None,
    };
    let at = match words.next()? {
        "in" => Where::In,
        "out" => Where::Out,
        "transit" => Where::Transit,
        "raw" => Where::Raw,
        _ => return None,
    };
    let read = packet::packet(logged.payload).filter(|_| is_ip(logged.ethertype));
    let (at_us, uid) = (logged.at_us, logged.uid);
    Some(Seen::Denied(match read {
        Some(read) => Denied {
            at,
            enforced,
            at_us,
            uid,
            addresses: Some((read.source, read.destination)),
            protocol: read.protocol.into(),
            ports: read.ports.unwrap_or_default(),
            icmp_type: read.icmp_type,
            is_opening: read.is_opening,
        },
        None => Denied {
            at,
            enforced,
            at_us,
            uid,
            addresses: None,
            protocol: logged.ethertype,
            ports: (0, 0),
            icmp_type: None,
            is_opening: false,
        },
    }))
}

fn is_ip(ethertype: u16) -> bool {
    // The hooks of `inet` name no EtherType where a packet was made here.
    matches!(ethertype, 0 | 0x0800 | 0x86dd)
}

/// What is carried, by protocol (IANA number), the server's port and the ICMP type.
pub fn carried(protocol: u16, port: u16, icmp_type: Option<u8>) -> Carried {
    let proto = L4Proto::ALL.into_iter().find(|proto| u16::from(proto.number()) == protocol);
    match (proto, icmp_type, u8::try_from(protocol)) {
        (Some(proto), ..) if port > 0 => Carried::Port { proto, port },
        (_, Some(8 | 0), Ok(1)) | (_, Some(128 | 129), Ok(58)) => Carried::Ping,
        (_, Some(number), _) => Carried::Icmp(number),
        (.., Ok(number)) => Carried::Protocol(number),
        (.., Err(_)) => Carried::Frame(protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(prefix: &str, payload: &[u8]) -> Option<Seen> {
        let prefix = prefix.to_owned();
        logged(&Logged { prefix, ethertype: 0x0800, payload, uid: None, at_us: None })
    }

    #[test]
    fn only_prefixes_of_seawalls_own_are_denials() {
        let packet = [&[0x45; 1][..], &[0; 19]].concat();
        for (prefix, expected) in [
            ("seawall deny in ", Some((Where::In, true))),
            ("seawall observe out ", Some((Where::Out, false))),
            ("seawall deny raw ", Some((Where::Raw, true))),
            ("seawall observe transit ", Some((Where::Transit, false))),
            ("seawall deny sideways ", None),
            ("seawall", None),
            ("other deny in ", None),
            ("", None),
        ] {
            let found = log(prefix, &packet).map(|seen| match seen {
                Seen::Denied(denied) => (denied.at, denied.enforced),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{prefix:?}");
        }
    }

    #[test]
    fn what_is_carried_is_told_by_protocol() {
        let port = |proto, port| Carried::Port { proto, port };
        assert_eq!(carried(6, 80, None), port(L4Proto::Tcp, 80));
        assert_eq!(carried(17, 0, None), Carried::Protocol(17), "a later fragment");
        assert_eq!(carried(1, 0, Some(8)), Carried::Ping);
        assert_eq!(carried(58, 0, Some(128)), Carried::Ping);
        assert_eq!(carried(1, 0, Some(13)), Carried::Icmp(13));
        assert_eq!(carried(47, 0, None), Carried::Protocol(47));
        assert_eq!(carried(0x88cc, 0, None), Carried::Frame(0x88cc));
    }
}
