//! Owns whom a netns speaks for: the sets of its own addresses, and the rules that ask them before a connection is judged.
//!
//! Pure. Not only raw sockets write other addresses: over IPv6 any process may send from any (`IPV6_FREEBIND` needs no
//! capability). A packet that passes because its connection was judged has that connection's addresses, so each
//! connection is asked once, by its first packet.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use super::chains::{denying_connection, rule};
use super::ruleset::{
    Comment, Element, Family, Key, KeyKind, LookupKey, LookupRest, Rule, Ruleset, Set, Side, Stmt,
    Verdict,
};
use crate::policy::DenyVerdict;

/// The chain that asks.
pub const SENDER: &str = "sender";
/// The set of own IPv4 addresses.
pub(super) const OWN4: &str = "own4";
/// The set of own IPv6 addresses.
pub(super) const OWN6: &str = "own6";
const OWN: [(Family, &str); 2] = [(Family::V4, OWN4), (Family::V6, OWN6)];

/// Both sets.
pub(super) fn sets(own: &BTreeSet<IpAddr>) -> impl Iterator<Item = (String, Set)> {
    OWN.into_iter().map(|(family, name)| (name.to_owned(), addresses(family, own)))
}

/// What all netns have alike, once.
static COMMENT: LazyLock<Comment> =
    LazyLock::new(|| Comment::new("addresses this container may send from"));
static NONE_YET: LazyLock<Comment> = LazyLock::new(|| Comment::new("none yet"));
static NOBODY: LazyLock<[Set; 2]> =
    LazyLock::new(|| OWN.map(|(family, _)| made(family, BTreeMap::new())));

/// Own addresses, and the unspecified one: who asks whether an address is taken has none yet, and nobody is it.
pub(super) fn addresses(family: Family, own: &BTreeSet<IpAddr>) -> Set {
    let of_family = own.iter().filter(|address| Family::of(**address) == family);
    let elements: BTreeMap<Element, Comment> =
        of_family.map(|address| (element(*address), Comment::default())).collect();
    let [nobody4, nobody6] = &*NOBODY;
    match (elements.is_empty(), family) {
        (true, Family::V4) => nobody4.clone(),
        (true, Family::V6) => nobody6.clone(),
        (false, _) => made(family, elements),
    }
}

fn made(family: Family, mut elements: BTreeMap<Element, Comment>) -> Set {
    let none: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    elements.insert(element(none), NONE_YET.clone());
    let comment = COMMENT.clone();
    Set { family, kind: KeyKind::Address, interval: false, comment, elements: elements.into() }
}

fn element(address: IpAddr) -> Element {
    Element::exact(Key { address, selector: 0, port: 0 })
}

/// Comes back for what is from an own address, and ends what is not; `None` observes.
pub(super) fn rules(verdict: Option<DenyVerdict>) -> Vec<Rule> {
    let own = OWN.into_iter().map(|(family, set)| {
        let key = LookupKey { family, address: Side::Source, rest: LookupRest::Alone };
        let from = Stmt::Lookup { key, set: set.to_owned() };
        rule(vec![from, Stmt::Verdict(Verdict::Return)], "")
    });
    own.chain(denying_connection("raw", verdict)).collect()
}

impl Ruleset {
    /// The same, for a netns whose own addresses are these.
    pub fn sending_from(&self, own: &BTreeSet<IpAddr>) -> Cow<'_, Self> {
        let mut sent = Cow::Borrowed(self);
        for (name, set) in sets(own) {
            if self.sets.get(&name).is_some_and(|stated| *stated != set) {
                sent.to_mut().sets.insert(name, set);
            }
        }
        sent
    }
}

/// Whether an address that connections were judged with is no longer an own one.
pub fn gives_up(actual: &Ruleset, wanted: &Ruleset) -> bool {
    let own = |ruleset: &Ruleset| -> BTreeSet<Element> {
        let sets = OWN.iter().filter_map(|(_, name)| ruleset.sets.get(*name));
        sets.flat_map(|set| set.elements.keys().copied()).collect()
    };
    !own(actual).is_subset(&own(wanted))
}
