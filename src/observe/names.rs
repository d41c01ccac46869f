//! Owns the names of addresses: what resolvers answered a container. Only for people; nothing is decided by them.
//!
//! Answers come from outside (security model 7): they are read within bounds, and every name is made harmless.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::Packet;
use simple_dns::rdata::RData;

use crate::input::Text;

/// How many addresses' names are kept for one netns; the oldest go first.
const KEPT: usize = 512;
/// How many addresses of one answer are taken.
const TAKEN: usize = 32;

/// Names by address.
#[derive(Debug, Default)]
pub struct Names {
    names: HashMap<IpAddr, Text>,
    order: VecDeque<IpAddr>,
}

impl Names {
    /// Takes what was answered. A later answer counts more.
    pub fn learn(&mut self, answered: impl IntoIterator<Item = (IpAddr, Text)>) {
        for (address, name) in answered {
            if self.names.insert(address, name).is_none() {
                self.order.push_back(address);
            }
            if self.order.len() > KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.names.remove(&oldest);
            }
        }
    }

    /// The name that was last seen to be resolved to an address.
    pub fn of(&self, address: IpAddr) -> Option<&Text> {
        self.names.get(&address)
    }
}

/// The addresses an answer names, each with the name that was asked for. Nothing for what is no answer.
pub fn answered(message: &[u8]) -> Vec<(IpAddr, Text)> {
    let Ok(packet) = Packet::parse(message) else { return Vec::new() };
    let Some(question) = packet.questions.first() else { return Vec::new() };
    // A label may hold anything; in one line with other words only what host names hold is told from them (RFC 1123, 2.1).
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' };
    let name = Text::new(&question.qname.to_string().chars().map(plain).collect::<String>());
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
        RData::AAAA(aaaa) => Some(IpAddr::from(Ipv6Addr::from(aaaa.address))),
        _ => None,
    });
    addresses.take(TAKEN).map(|address| (address, name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer: `name` is an alias of `real`, which has the address.
    fn answer(name: &[&[u8]], address: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        for label in name {
            bytes.push(label.len() as u8);
            bytes.extend(*label);
        }
        bytes.extend([0, 0, 1, 0, 1]);
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 6]);
        bytes.extend(*b"\x04real\x00");
        bytes.extend(*b"\x04real\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
        bytes.extend(address);
        bytes
    }

    #[test]
    fn an_address_gets_the_name_that_was_asked_for() {
        let bytes = answer(&[b"api", b"example", b"com"], [192, 0, 2, 7]);
        assert_eq!(answered(&bytes), [([192, 0, 2, 7].into(), "api.example.com".into())]);
    }

    #[test]
    fn a_hostile_name_comes_out_harmless() {
        let found = answered(&answer(&[b"a\x1b[2J\n", b"example"], [192, 0, 2, 7]));
        let text = found.first().map(|(_, name)| name.to_string()).unwrap_or_default();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }

    #[test]
    fn names_are_bounded_and_the_latest_counts() {
        let mut names = Names::default();
        let address = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        names.learn((0..KEPT + 10).map(|n| (address(n), "x".into())));
        names.learn([(address(KEPT), "y".into())]);
        assert_eq!(names.of(address(0)), None);
        assert_eq!(names.of(address(KEPT)), Some(&"y".into()));
        assert_eq!((names.names.len(), names.order.len()), (KEPT, KEPT));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answered(&bytes);
        }

        #[test]
        fn a_good_answer_cut_or_changed_anywhere_is_no_panic(at in 0usize..70, byte: u8) {
            let mut bytes = answer(&[b"api", b"example"], [192, 0, 2, 7]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = answered(&bytes);
            let _ = answered(&bytes[..at.min(bytes.len())]);
        }
    }
}
