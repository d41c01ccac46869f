//! Tests of `attribution`.

use super::*;
use crate::metadata::{Attachment, Inventory, L4Proto, NetworkKey, Runtime, State, Workload};
use crate::nft::conntrack::Count;
use crate::reconcile::View;

const OWN: &str = "10.0.0.2";
const OTHER: &str = "192.0.2.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner() -> WorkloadId {
    WorkloadId::new("a")
}

/// A book in which `a` has these addresses.
fn book(addresses: &[&str]) -> Book {
    let mut workload = Workload::new(owner(), "a".into(), Runtime::Docker);
    workload.state = State::Running;
    let attachment = Attachment {
        name: "net".into(),
        driver: None,
        is_default_bridge: false,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        gateways: BTreeSet::new(),
        aliases: BTreeSet::new(),
    };
    workload.networks.insert(NetworkKey("net".into()), attachment);
    let mut inventory = Inventory::default();
    inventory.upsert(workload);
    let mut book = Book::default();
    book.renew(Arc::new(View { inventory, ..View::default() }), 0);
    book
}

fn place(book: &Book) -> Place {
    Place::new(owner(), 1, 7, book.workload(&owner()).unwrap(), BTreeSet::new())
}

fn tuple(from: (&str, u16), to: (&str, u16)) -> Tuple {
    Tuple {
        source: ip(from.0),
        destination: ip(to.0),
        protocol: 6,
        ports: (from.1, to.1),
        icmp_type: None,
    }
}

fn told(tuple: Tuple, change: Change) -> Told {
    Told { tuple, master: None, mark: 0, change }
}

fn ended() -> Change {
    Change::Ended { was_answered: true, out: Count::default(), back: Count::default() }
}

fn port(port: u16) -> Carried {
    Carried::Port { proto: L4Proto::Tcp, port }
}

#[test]
fn a_connection_on_ports_that_were_used_before_is_another() {
    let mut book = book(&[OWN]);
    let mut place = place(&book);
    let first = tuple((OWN, 40_000), (OTHER, 80));
    let named = place.connection(&mut book, &told(first, Change::New)).unwrap();
    assert_eq!((named.end, named.carried), (End::Client, port(80)));
    // The same again before its end is told: what is said of it now counts.
    place.names.learn([(ip(OTHER), "example.org".into())]);
    let again = place.connection(&mut book, &told(first, Change::New)).unwrap();
    assert_ne!(again.server, named.server);
    let end = place.connection(&mut book, &told(first, ended())).unwrap();
    assert_eq!(end, again, "an end belongs to the last that began");
}

#[test]
fn what_is_told_of_an_address_after_it_is_gone_is_still_its_own() {
    let mut before = book(&[OWN, "10.0.1.2"]);
    let mut place = place(&before);
    let connection = tuple((OTHER, 40_000), ("10.0.1.2", 443));
    let key = place.connection(&mut before, &told(connection, Change::New)).unwrap();
    assert_eq!(key.end, End::Server);
    let mut after = book(&[OWN]);
    let late = tuple((OTHER, 40_001), ("10.0.1.2", 443));
    let late = place.connection(&mut after, &told(late, ended())).unwrap();
    assert_eq!((late.end, late.carried), (End::Server, port(443)));
    // What is neither's is forwarded, and not its own.
    let passing = tuple((OTHER, 1), ("192.0.2.8", 2));
    assert_eq!(place.connection(&mut after, &told(passing, Change::New)), None);
}

#[test]
fn an_address_that_went_to_another_is_the_others() {
    let mut before = book(&[OWN]);
    let mut place = place(&before);
    let first = tuple((OWN, 1), (OTHER, 80));
    assert!(place.connection(&mut before, &told(first, Change::New)).is_some());
    // Another has it now, and it has another.
    let mut after = book(&["10.0.0.9"]);
    let to_the_other = tuple(("10.0.0.9", 2), (OWN, 80));
    let key = place.connection(&mut after, &told(to_the_other, Change::New)).unwrap();
    assert_eq!(key.end, End::Client);
}

#[test]
fn a_connection_that_is_made_again_and_again_is_remembered_as_its_last() {
    let mut book = book(&[OWN]);
    let mut place = place(&book);
    let same = tuple((OWN, 1), (OTHER, 80));
    place.connection(&mut book, &told(same, Change::New));
    place.connection(&mut book, &told(same, ended()));
    for source in 2..REMEMBERED as u16 {
        place.connection(&mut book, &told(tuple((OWN, source), (OTHER, 80)), Change::New));
    }
    place.connection(&mut book, &told(same, Change::New));
    place.connection(&mut book, &told(tuple((OWN, 9_999), (OTHER, 80)), Change::New));
    assert!(place.recent.get(&same).is_some(), "its first place in the order is not its last");
}

#[test]
fn answers_are_told_from_questions() {
    let mut book = book(&[OWN]);
    let mut place = place(&book);
    place.connection(&mut book, &told(tuple((OTHER, 50_000), (OWN, 9_000)), Change::New));
    let packet = |ports, is_opening| Denied {
        at: Where::Out,
        enforced: true,
        at_us: None,
        uid: None,
        addresses: Some((ip(OWN), ip(OTHER))),
        protocol: 6,
        ports,
        icmp_type: None,
        is_opening,
    };
    let answer = place.denied(&mut book, &packet((9_000, 50_000), false));
    assert!(answer.is_reply);
    assert_eq!(answer.key.carried, port(9_000), "the port asked for, not the one it came from");
    assert_eq!(answer.key.server, answer.key.workload);
    let question = place.denied(&mut book, &packet((9_000, 50_000), true));
    assert!(!question.is_reply, "whoever opens a connection asks");
    assert_eq!(question.key.carried, port(50_000));
}

#[test]
fn the_connections_of_a_netns_are_remembered_within_bounds() {
    let mut book = book(&[OWN]);
    let mut place = place(&book);
    for source in 0..5_000 {
        let one = tuple((OWN, source), (OTHER, 80));
        place.connection(&mut book, &told(one, Change::New));
        // Ended or not, what is remembered of its place is bounded too.
        if source % 2 == 0 {
            place.connection(&mut book, &told(one, ended()));
        }
    }
    assert!(place.recent.keys.len() <= REMEMBERED && place.recent.order.len() <= REMEMBERED);
}
