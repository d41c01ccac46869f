//! Owns ports: a range that cannot be empty, reversed or zero, with its transport protocol.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A transport protocol with ports (IANA protocol numbers 6, 17, 132).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum L4Proto {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
    /// SCTP, protocol 132.
    Sctp,
}

impl L4Proto {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for L4Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is no port, range of ports or protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Port 0 cannot be connected to.
    #[error("port 0 does not exist; ports go from 1 to 65535")]
    Zero,
    /// First port above the last.
    #[error("the range {first}-{last} is reversed; write {last}-{first}")]
    Reversed {
        /// The first port as written.
        first: u16,
        /// The last port as written.
        last: u16,
    },
    /// Not a number from 1 to 65535.
    #[error("`{0}` is not a port; ports go from 1 to 65535")]
    NotANumber(crate::input::Text),
    /// Not tcp, udp or sctp.
    #[error("`{0}` is not a protocol with ports; use tcp, udp or sctp")]
    Protocol(crate::input::Text),
}

/// Ports from first to last, both included; never 0, never reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 1, last: u16::MAX };

    /// A range; port 0 and reversed ranges are errors.
    pub fn new(first: u16, last: u16) -> Result<Self, PortError> {
        if first == 0 || last == 0 {
            Err(PortError::Zero)
        } else if first > last {
            Err(PortError::Reversed { first, last })
        } else {
            Ok(Self { first, last })
        }
    }

    /// A range of one.
    pub fn single(port: u16) -> Result<Self, PortError> {
        Self::new(port, port)
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether it is one port only.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether `port` lies within.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A range of ports of one protocol, written `5432/tcp` or `8000-8100/udp`; without a protocol it is TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The protocol.
    pub proto: L4Proto,
    /// The ports.
    pub range: PortRange,
}

impl Ports {
    /// Whether this protocol and port are meant.
    pub fn contains(self, proto: L4Proto, port: u16) -> bool {
        self.proto == proto && self.range.contains(port)
    }
}

/// How many separate port ranges a workload may declare. Docker writes a range in `EXPOSE` as single ports.
const MAX_DECLARED: usize = 64;

/// Ports that whoever built an image declared, at most [`MAX_DECLARED`] ranges of them: where there are more, neighbours
/// become one, and of what is left the lowest count. Each range becomes elements in the tables of every peer, so
/// without a limit an image could keep everybody else from being programmed (security model 7).
pub(crate) fn declared(ports: BTreeSet<Ports>) -> BTreeSet<Ports> {
    if ports.len() <= MAX_DECLARED {
        return ports;
    }
    let mut ranges: Vec<Ports> = Vec::new();
    // Sorted by protocol and first port.
    for next in ports {
        match ranges.last_mut() {
            Some(last)
                if last.proto == next.proto
                    && next.range.first <= last.range.last.saturating_add(1) =>
            {
                last.range.last = last.range.last.max(next.range.last);
            }
            _ => ranges.push(next),
        }
    }
    ranges.truncate(MAX_DECLARED);
    ranges.into_iter().collect()
}

impl FromStr for L4Proto {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        Self::ALL
            .into_iter()
            .find(|proto| proto.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| PortError::Protocol(text.into()))
    }
}

impl FromStr for Ports {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (range, proto) = match text.split_once('/') {
            Some((range, proto)) => (range, proto.parse()?),
            None => (text, L4Proto::Tcp),
        };
        let number = |text: &str| match text.parse::<u16>() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(PortError::NotANumber(text.into())),
        };
        let range = match range.split_once('-') {
            Some((first, last)) => PortRange::new(number(first)?, number(last)?)?,
            None => PortRange::single(number(range)?)?,
        };
        Ok(Self { proto, range })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.range, self.proto)
    }
}

impl Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_and_print_the_same() {
        for text in ["5432/tcp", "8000-8100/udp", "9/sctp", "1-65535/tcp"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!("80".parse::<Ports>().unwrap().to_string(), "80/tcp");
    }

    #[test]
    fn impossible_ports_are_named_errors() {
        assert_eq!("0/tcp".parse::<Ports>(), Err(PortError::Zero));
        assert_eq!("0-5".parse::<Ports>(), Err(PortError::Zero));
        assert_eq!("9-3/udp".parse::<Ports>(), Err(PortError::Reversed { first: 9, last: 3 }));
        for text in ["", "65536", "+80", "80 ", "a-b", "-1", "80/", "80/gre"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_image_cannot_declare_more_ports_than_a_person_would() {
        let single =
            |port: u16| Ports { proto: L4Proto::Tcp, range: PortRange::single(port).unwrap() };
        let few: BTreeSet<_> = [80, 81].map(single).into();
        assert_eq!(declared(few.clone()), few);
        let passive = declared((30_000..=65_535).map(single).collect());
        assert_eq!(passive, BTreeSet::from(["30000-65535/tcp".parse().unwrap()]));
        let odd = declared((1..=65_535).step_by(2).map(single).collect());
        assert_eq!(odd.len(), MAX_DECLARED);
        assert!(odd.contains(&single(1)));
    }
}
