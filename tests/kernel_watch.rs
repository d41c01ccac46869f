//! Kernel layer: what others do in a netns is told with who did it; their chains allow nothing that ours deny, and those that lead
//! packets around ours are recognised and can be removed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/traffic.rs"]
#[allow(dead_code, reason = "only its policies and addresses are used here")]
mod traffic;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use std::io::Write as _;
use std::os::fd::AsFd as _;

use netns::TestNetns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use seawall::metadata::L4Proto;
use seawall::nft::foreign::ForeignChain;
use seawall::nft::netns::Entrance;
use seawall::nft::watch::{Reader, Seen, Watch};
use seawall::nft::{KernelTable, Netns, plan};
use seawall::policy::Direction;
use seawall::policy::evaluate::Packet;
use traffic::{ALLOWED, DENIED, PEER, enforced};
use veth::Wire;

fn open(netns: &TestNetns) -> KernelTable {
    Entrance::start().unwrap().open_table(&Netns::open(&netns.path()).unwrap()).unwrap()
}

fn watch(netns: &TestNetns) -> Watch {
    let netns = Netns::open(&netns.path()).unwrap();
    Entrance::start().unwrap().look(&netns, true).unwrap().watch.unwrap().unwrap()
}

fn enforce(table: &mut KernelTable) {
    let before = table.dump().unwrap();
    table.commit(&plan(before.ruleset.as_ref(), Some(&enforced())), None).unwrap();
}

fn seen(watch: &Watch, own: u32) -> Seen {
    let mut reader = Reader::new(own);
    while !watch.read(&mut reader).unwrap() {}
    reader.take()
}

/// Whether the peer's ports are reached: what is allowed, and what is denied.
fn verdicts(wire: &Wire) -> [bool; 2] {
    let flow = |peer: &&str, port| {
        (Direction::Egress, peer.parse().unwrap(), Packet::Port { proto: L4Proto::Udp, port })
    };
    let of = |port| {
        let flows: Vec<_> = PEER.iter().map(|peer| flow(peer, port)).collect();
        let reached = wire.probe(&flows);
        assert!(reached.iter().all(|one| *one == reached[0]), "{port}: both families alike");
        reached[0]
    };
    [of(ALLOWED), of(DENIED)]
}

#[test]
fn who_changed_what_is_told() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let watch = watch(&netns);
    enforce(&mut table);
    assert!(seen(&watch, table.port_id()).is_nothing(), "our own doing is no news");

    netns.run(&["nft", "add table inet other"]);
    let told = seen(&watch, table.port_id());
    assert_eq!((told.commits, told.ours, told.links), (1, None, false));
    assert_eq!(told.others.unwrap().name, "nft");

    netns.run(&["nft", "flush ruleset"]);
    let told = seen(&watch, table.port_id());
    assert_eq!(told.commits, 1);
    assert_eq!(told.ours.unwrap().name, "nft");

    netns.ip(&["link", "add", "a0", "type", "veth", "peer", "name", "b0"]);
    assert!(seen(&watch, table.port_id()).links);
    netns.ip(&["addr", "add", "192.0.2.9/32", "dev", "a0"]);
    let told = seen(&watch, table.port_id());
    assert!(told.links && told.commits == 0 && !told.is_lost, "{told:?}");
}

/// Whether there is anything to read.
fn wakes(watch: &Watch) -> bool {
    poll(&mut [PollFd::new(watch.nftables.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap()
        > 0
}

#[test]
fn what_we_commit_wakes_nobody_once_it_is_left_out() {
    let netns = TestNetns::new();
    let (mut table, mut other) = (open(&netns), open(&netns));
    let watch = watch(&netns);
    watch.leave_out(table.port_id());
    enforce(&mut table);
    assert!(!wakes(&watch), "we know what we do");
    // Within what another does, too.
    netns.run(&["nft", "add table inet other"]);
    table.commit(&plan(Some(&enforced()), None), None).unwrap();
    let told = seen(&watch, table.port_id());
    assert_eq!((told.commits, told.ours, told.is_lost), (1, None, false));
    // Another socket is somebody else's, though it is of the same process; what is told is the thread.
    enforce(&mut other);
    assert!(wakes(&watch));
    let by = seen(&watch, table.port_id()).ours.unwrap();
    assert_eq!(by.pid, nix::unistd::gettid().as_raw() as u32);
}

#[test]
fn what_there_is_no_room_to_tell_is_told_to_be_lost() {
    let netns = TestNetns::new();
    let watch = watch(&netns);
    let elements: Vec<String> =
        (0..60_000).map(|n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "table inet other {{ set many {{ type ipv4_addr; elements = {{ {} }}; }}; }}",
        elements.join(", ")
    )
    .unwrap();
    netns.run(&["nft", "-f", file.path().to_str().unwrap()]);
    assert!(seen(&watch, 0).is_lost);
    netns.run(&["nft", "add table inet next"]);
    let told = seen(&watch, 0);
    assert!(!told.is_lost && told.commits == 1, "{told:?}");
}

#[test]
fn a_chain_that_accepts_earlier_allows_nothing_that_is_denied() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let mut table = open(&wire.inside);
    enforce(&mut table);
    assert_eq!(verdicts(&wire), [true, false]);
    for priority in [-400, -1, 1, 400] {
        for hook in ["output", "postrouting", "input", "prerouting"] {
            wire.inside.run(&[
                "nft",
                &format!(
                    "add table inet t; add chain inet t {hook} {{ type filter hook {hook} priority {priority}; policy accept; }}; \
                     add rule inet t {hook} accept"
                ),
            ]);
        }
        let found = table.foreign().unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|chain| chain.is_notable() && chain.diverts.is_empty()));
        assert_eq!(verdicts(&wire), [true, false], "priority {priority}");
        wire.inside.run(&["nft", "delete table inet t"]);
    }
}

/// What leads packets around a policy, as nft writes it, and what it is told as.
const DIVERTING: [(&str, &str); 8] = [
    (
        "table netdev t { chain c { type filter hook ingress device eth0 priority 0; fwd to eth0; }; }",
        "chain netdev t c (type filter, ingress, priority 0) leads packets around the policy: fwd",
    ),
    (
        "table netdev t { chain c { type filter hook egress device eth0 priority 0; dup to eth0; }; }",
        "chain netdev t c (type filter, egress, priority 0) leads packets around the policy: dup",
    ),
    (
        "table ip t { chain c { type filter hook output priority -300; notrack; }; }",
        "chain ip t c (type filter, output, priority -300) leads packets around the policy: notrack",
    ),
    (
        "table ip t { chain c { type filter hook prerouting priority 0; meta l4proto tcp tproxy to :80; }; }",
        "chain ip t c (type filter, prerouting, priority 0) leads packets around the policy: tproxy",
    ),
    (
        "table ip t { chain c { type filter hook postrouting priority 0; ip daddr set 192.0.2.1; }; }",
        "chain ip t c (type filter, postrouting, priority 0) leads packets around the policy: changed headers",
    ),
    (
        "table inet t { chain c { type filter hook output priority -300; ct mark set 0x10000; }; }",
        "chain inet t c (type filter, output, priority -300) leads packets around the policy: connection mark",
    ),
    (
        "table ip t { chain c { type nat hook output priority 100; dnat to 192.0.2.1; }; }",
        "chain ip t c (type nat, output, priority 100) leads packets around the policy: dnat",
    ),
    (
        "table ip t { chain far { ct mark set 1; }; chain near { goto far; }; chain c { type filter hook output priority 5; jump near; }; }",
        "chain ip t c (type filter, output, priority 5) leads packets around the policy: connection mark",
    ),
];

/// What leads nobody anywhere.
const HARMLESS: [&str; 5] = [
    "table ip nat { chain c { type nat hook output priority -100; meta l4proto udp dnat to 127.0.0.11:4242; }; }",
    "table ip nat { chain c { type nat hook postrouting priority 100; masquerade; }; }",
    "table inet t { chain c { type filter hook output priority -5; counter accept; }; }",
    "table inet t { chain c { type filter hook output priority -5; ct mark 1 drop; }; }",
    "table inet t { chain aside { notrack; }; }",
];

#[test]
fn what_leads_packets_around_a_policy_is_recognised_and_removed() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let mut table = open(&wire.inside);
    enforce(&mut table);
    for (text, told) in DIVERTING {
        wire.inside.run(&["nft", text]);
        let found = table.foreign().unwrap();
        let diverting: Vec<&ForeignChain> =
            found.iter().filter(|chain| !chain.diverts.is_empty()).collect();
        assert_eq!(diverting.len(), 1, "{text}: {found:?}");
        assert_eq!(diverting[0].to_string(), told);
        table.remove(&diverting).unwrap();
        assert_eq!(table.foreign().unwrap(), [], "{text}");
        wire.inside.run(&["nft", "delete table", text.split(' ').nth(1).unwrap(), "t"]);
    }
    for text in HARMLESS {
        wire.inside.run(&["nft", text]);
        let found = table.foreign().unwrap();
        assert!(found.iter().all(|chain| chain.diverts.is_empty()), "{text}: {found:?}");
        let family = text.split(' ').nth(1).unwrap();
        wire.inside.run(&["nft", "delete table", family, text.split(' ').nth(2).unwrap()]);
    }
    assert!(table.dump().unwrap().ruleset.is_some(), "ours is no foreign one");
}
