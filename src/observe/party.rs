//! Owns who talked to whom about what, in words that outlive containers and addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::input::Text;
use crate::metadata::{L4Proto, Ports};
use crate::policy::evaluate::Packet;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Party {
    /// A workload. Replicas of a service are one party, and so is a container before and after a restart.
    Workload {
        /// `shop/api`, or the container's name.
        name: Text,
        /// Its model's name; none is unknown.
        model: Option<Text>,
        /// The narrowest selector that means it: `project:shop service:api`.
        selector: Text,
    },
    /// The host.
    Host,
    /// Anything else.
    Address {
        /// Its address.
        address: IpAddr,
        /// The name a container resolved to that address, where it was seen to.
        name: Option<Text>,
    },
}

impl Party {
    /// What an operator's statement calls it: a selector.
    pub fn selector(&self) -> String {
        match self {
            Self::Workload { selector, .. } => selector.to_string(),
            Self::Host => "host".to_owned(),
            Self::Address { address, .. } => format!("cidr:{address}"),
        }
    }

    /// Whether it is a workload.
    pub fn is_workload(&self) -> bool {
        matches!(self, Self::Workload { .. })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { name, .. } => f.pad(name.as_str()),
            Self::Host => f.pad("host"),
            Self::Address { address, name: None } => f.pad(&address.to_string()),
            Self::Address { address, name: Some(name) } => f.pad(&format!("{name} ({address})")),
        }
    }
}

/// What was carried: the server's port, or what there is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carried {
    /// A port of the server's.
    Port {
        /// The transport protocol.
        proto: L4Proto,
        /// The port.
        port: u16,
    },
    /// An ICMP or ICMPv6 echo request.
    Ping,
    /// Another ICMP or ICMPv6 message, by its type.
    Icmp(u8),
    /// Another protocol, by its IANA number.
    Protocol(u8),
    /// No IP: an Ethernet frame, by its EtherType.
    Frame(u16),
}

impl Carried {
    /// What policies can speak of; none for what no statement can allow.
    pub fn packet(self) -> Option<Packet> {
        match self {
            Self::Port { proto, port } => Some(Packet::Port { proto, port }),
            Self::Ping => Some(Packet::Ping),
            Self::Icmp(_) | Self::Protocol(_) | Self::Frame(_) => None,
        }
    }
}

impl From<Packet> for Carried {
    fn from(packet: Packet) -> Self {
        match packet {
            Packet::Port { proto, port } => Self::Port { proto, port },
            Packet::Ping => Self::Ping,
        }
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { proto, port } => f.pad(&format!("{port}/{proto}")),
            Self::Ping => f.pad("ping"),
            Self::Icmp(number) => f.pad(&format!("icmp type {number}")),
            Self::Protocol(number) => f.pad(&format!("protocol {number}")),
            Self::Frame(number) => f.pad(&format!("EtherType {number}")),
        }
    }
}

/// A text that is nothing that can be carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no port, no `ping`, no `icmp type N`, no `protocol N` and no `EtherType N`")]
pub struct CarriedError(Text);

impl FromStr for Carried {
    type Err = CarriedError;

    fn from_str(text: &str) -> Result<Self, CarriedError> {
        let error = || CarriedError(Text::new(text));
        if text == "ping" {
            Ok(Self::Ping)
        } else if let Some(number) = text.strip_prefix("icmp type ") {
            number.parse().map(Self::Icmp).map_err(|_| error())
        } else if let Some(number) = text.strip_prefix("protocol ") {
            number.parse().map(Self::Protocol).map_err(|_| error())
        } else if let Some(number) = text.strip_prefix("EtherType ") {
            number.parse().map(Self::Frame).map_err(|_| error())
        } else {
            match text.parse::<Ports>() {
                Ok(Ports { proto, range }) if range.is_single() => {
                    Ok(Self::Port { proto, port: range.first() })
                }
                _ => Err(error()),
            }
        }
    }
}

impl Serialize for Carried {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Carried {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_reads_back_as_it_was_written() {
        let port = Carried::Port { proto: L4Proto::Udp, port: 53 };
        for carried in
            [port, Carried::Ping, Carried::Icmp(13), Carried::Protocol(47), Carried::Frame(0x88cc)]
        {
            assert_eq!(carried.to_string().parse(), Ok(carried));
        }
        for wrong in ["", "0/tcp", "1-2/tcp", "icmp type 300", "protocol x"] {
            assert!(wrong.parse::<Carried>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_from_dns_come_out_harmless() {
        let party = Party::Address {
            address: IpAddr::from([192, 0, 2, 1]),
            name: Some(Text::new("evil\u{1b}[2J.example")),
        };
        assert!(!party.to_string().contains('\u{1b}'));
    }
}
