//! Owns what the attacker knows: its own addresses, those of whom it wants to reach, and the mark of an attempt.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// `4` or `6`.
    pub(crate) fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// What it was told: `own4=…`, `peer6=…`, `gateway_mac=…`.
pub(crate) struct Targets(BTreeMap<String, String>);

impl Targets {
    /// From `KEY=VALUE` arguments.
    pub(crate) fn parse(arguments: &[String]) -> Self {
        let pairs = arguments.iter().filter_map(|argument| argument.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// What it was told of `key`.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// An Ethernet address.
    pub(crate) fn mac(&self, key: &str) -> Mac {
        let mut bytes = self.text(key).split(':').map(|byte| u8::from_str_radix(byte, 16));
        std::array::from_fn(|_| {
            bytes
                .next()
                .and_then(Result::ok)
                .unwrap_or_else(|| panic!("{key} is an Ethernet address"))
        })
    }
}

/// One run of one attack over one family.
pub(crate) struct Attempt<'t> {
    /// What the attacker knows.
    pub(crate) targets: &'t Targets,
    /// Over which IP version.
    pub(crate) family: Family,
    number: u16,
    mark: String,
}

impl<'t> Attempt<'t> {
    pub(crate) fn new(targets: &'t Targets, family: Family, number: u16) -> Self {
        let mark = format!("swall/{number:03}/{}/", family.digit());
        Self { targets, family, number, mark }
    }

    /// What every payload carries: twelve bytes.
    pub(crate) fn mark(&self) -> &[u8] {
        self.mark.as_bytes()
    }

    /// A payload, a little longer than the mark.
    pub(crate) fn payload(&self) -> Vec<u8> {
        [self.mark(), b"the secret".as_slice()].concat()
    }

    /// The source port that marks packets without a payload; no port the kernel chooses by itself (32768 to 60999).
    pub(crate) fn port(&self) -> u16 {
        61_000 + self.number
    }

    /// An address it was told, of this family: `own`, `peer`, `gateway`, `outside`, `friend`, …
    pub(crate) fn at(&self, who: &str) -> IpAddr {
        let key = format!("{who}{}", self.family.digit());
        let text = self.targets.text(&key);
        text.parse().unwrap_or_else(|_| panic!("{key} is an address, not '{text}'"))
    }

    /// Its own address.
    pub(crate) fn own(&self) -> IpAddr {
        self.at("own")
    }

    /// Whom no policy lets it reach, and the Ethernet address that leads there: a peer on its network, the host, the
    /// world.
    pub(crate) fn away(&self) -> [(IpAddr, Mac); 3] {
        let gateway = self.targets.mac("gateway_mac");
        [
            (self.at("peer"), self.targets.mac("peer_mac")),
            (self.at("gateway"), gateway),
            (self.at("outside"), gateway),
        ]
    }
}
