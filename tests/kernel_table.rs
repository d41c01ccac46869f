//! Kernel layer: what is written is what is read back, what `nft` loads is what seawall writes, and transactions are minimal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use netns::TestNetns;
use seawall::compile::ruleset::Ruleset;
use seawall::compile::{Options, compile};
use seawall::input::Text;
use seawall::metadata::{Attachment, Inventory, NetworkKey, Runtime, Workload, WorkloadId};
use seawall::nft::netns::Entrance;
use seawall::nft::socket::Dump;
use seawall::nft::{KernelTable, Netns, Op, plan, render};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};

fn workload(id: &str, host: u8) -> Workload {
    let mut workload = Workload::new(WorkloadId::new(id), Text::new(id), Runtime::Docker);
    let attachment = Attachment {
        name: Text::new("net"),
        driver: None,
        is_default_bridge: false,
        addresses: [format!("10.9.0.{host}"), format!("fd09::{host:x}")]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect(),
        gateways: ["10.9.0.1".parse().unwrap(), "fd09::1".parse().unwrap()].into(),
        aliases: BTreeSet::new(),
    };
    workload.networks = BTreeMap::from([(NetworkKey(Text::new("net")), attachment)]);
    workload.resolvers = ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()].into();
    workload
}

fn allow(direction: Direction, peer: Peer, traffic: &[&str]) -> Statement {
    let traffic = traffic
        .iter()
        .map(|text| match *text {
            "ping" => Traffic::Ping,
            text => match text.split_once(" with helper ") {
                Some((ports, helper)) => {
                    Traffic::Control(ports.parse().unwrap(), helper.parse().unwrap())
                }
                None => Traffic::Ports(text.parse().unwrap()),
            },
        })
        .collect();
    let provenance = Provenance::Builtin { rule: "dns" };
    Statement { action: Action::Allow, direction, peer, traffic, provenance }
}

fn peers(label: &str, members: &[&str]) -> Peer {
    Peer::Workloads {
        label: Text::new(label),
        members: members.iter().map(|m| WorkloadId::new(m)).collect(),
    }
}

fn policy(mode: Mode, statements: Vec<Statement>) -> Policy {
    Policy {
        workload: WorkloadId::new("db"),
        label: Text::new("shop/db (postgres)"),
        mode,
        mode_from: Provenance::Setting { key: "mode" },
        statements,
        routes: false,
    }
}

/// Everything a ruleset can hold.
fn everything(mode: Mode) -> Ruleset {
    let mut deny =
        allow(Direction::Ingress, peers("shop/old (\"x\")", &["old"]), &["5432/tcp", "ping"]);
    deny.action = Action::Deny;
    let mut deny_range =
        allow(Direction::Egress, Peer::Cidr("203.0.113.0/24".parse().unwrap()), &["1-65535/tcp"]);
    deny_range.action = Action::Deny;
    let statements = vec![
        allow(Direction::Ingress, peers("shop/api (node)", &["api"]), &["5432/tcp", "ping"]),
        allow(
            Direction::Egress,
            peers("shop/api (node)", &["api"]),
            &["8000-8003/udp", "9/sctp", "ping"],
        ),
        allow(Direction::Egress, Peer::Dns, &["53/tcp", "53/udp"]),
        allow(Direction::Ingress, Peer::Host, &["5432/tcp"]),
        allow(Direction::Ingress, Peer::World, &["80/tcp", "ping"]),
        allow(Direction::Egress, Peer::Internet, &["443/tcp", "1000-2000/udp"]),
        allow(Direction::Egress, Peer::Cidr("10.0.0.0/8".parse().unwrap()), &["1-65535/tcp"]),
        allow(Direction::Egress, Peer::Cidr("10.1.0.0/16".parse().unwrap()), &["80/tcp"]),
        allow(Direction::Egress, Peer::Cidr("fd00:1::/64".parse().unwrap()), &["80/tcp", "ping"]),
        allow(Direction::Ingress, peers("shop/api", &["api"]), &["21/tcp with helper ftp"]),
        allow(Direction::Egress, Peer::Host, &["69/udp with helper tftp"]),
        allow(
            Direction::Egress,
            Peer::Cidr("10.2.0.0/16".parse().unwrap()),
            &["5060/udp with helper sip", "5060/tcp with helper sip"],
        ),
        deny,
        deny_range,
    ];
    ruleset(mode, statements, &inventory(3))
}

fn inventory(api: u8) -> Inventory {
    [workload("db", 2), workload("api", api), workload("old", 9)].into_iter().collect()
}

fn ruleset(mode: Mode, statements: Vec<Statement>, inventory: &Inventory) -> Ruleset {
    compile(&[&policy(mode, statements)], inventory, &Options::default()).unwrap()
}

fn open(netns: &TestNetns) -> KernelTable {
    Entrance::start().unwrap().open_table(&Netns::open(&netns.path()).unwrap()).unwrap()
}

fn apply(table: &mut KernelTable, wanted: Option<&Ruleset>) -> (Vec<Op>, Dump) {
    let before = table.dump().unwrap();
    let transaction = plan(before.ruleset.as_ref(), wanted);
    table.commit(&transaction, Some(before.generation_id)).unwrap();
    let after = table.dump().unwrap();
    assert_eq!(after.ruleset, transaction.target, "what is read back is what was written");
    (transaction.ops, after)
}

fn nft_load(netns: &TestNetns, text: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    netns.run(&["nft", "-f", file.path().to_str().unwrap()]);
}

#[test]
fn what_is_written_is_read_back() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let netns = TestNetns::new();
        let wanted = everything(mode);
        let (_, dump) = apply(&mut open(&netns), Some(&wanted));
        assert_eq!(dump.ruleset, Some(wanted));
    }
}

#[test]
fn the_rendered_text_loads_with_nft_and_dumps_to_the_same_ruleset() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let netns = TestNetns::new();
        let wanted = everything(mode);
        nft_load(&netns, &render(&wanted));
        assert_eq!(open(&netns).dump().unwrap().ruleset, Some(wanted));
    }
}

#[test]
fn nft_lists_the_same_for_a_ruleset_of_ours_and_for_its_text() {
    let (ours, loaded) = (TestNetns::new(), TestNetns::new());
    let wanted = everything(Mode::Enforce);
    apply(&mut open(&ours), Some(&wanted));
    nft_load(&loaded, &render(&wanted));
    let list = |netns: &TestNetns| {
        let output = netns.run(&["nft", "list", "table", "inet", "seawall"]);
        let mut lines: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        // Elements of a hash set are listed in any order, and chains in the order they were made.
        lines.sort();
        lines
    };
    assert_eq!(list(&ours), list(&loaded));
}

#[test]
fn applying_twice_changes_nothing() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let wanted = everything(Mode::Enforce);
    let (first, _) = apply(&mut table, Some(&wanted));
    assert!(!first.is_empty());
    let (second, _) = apply(&mut table, Some(&wanted));
    assert!(second.is_empty(), "{second:?}");
}

#[test]
fn a_new_replica_is_an_element_and_no_revocation() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let statements = |members: &[&str]| {
        vec![allow(Direction::Ingress, peers("shop/api", members), &["5432/tcp"])]
    };
    let inventory = inventory(3);
    let (_, before) =
        apply(&mut table, Some(&ruleset(Mode::Enforce, statements(&["api"]), &inventory)));
    let (ops, after) =
        apply(&mut table, Some(&ruleset(Mode::Enforce, statements(&["api", "old"]), &inventory)));
    assert!(ops.iter().all(|op| matches!(op, Op::AddElements { .. })), "{ops:?}");
    assert_eq!(
        after.ruleset.unwrap().generation(),
        before.ruleset.unwrap().generation(),
        "adding needs no new generation"
    );
}

#[test]
fn an_address_that_changes_revokes_in_the_same_transaction() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let statements = || vec![allow(Direction::Ingress, peers("shop/api", &["api"]), &["5432/tcp"])];
    apply(&mut table, Some(&ruleset(Mode::Enforce, statements(), &inventory(3))));
    let (ops, after) =
        apply(&mut table, Some(&ruleset(Mode::Enforce, statements(), &inventory(4))));
    let words: Vec<String> = ops.iter().map(ToString::to_string).collect();
    assert!(
        words.iter().any(|op| op.starts_with("delete element in4 { 10.9.0.3 . tcp . 5432")),
        "{words:?}"
    );
    assert!(
        words.iter().any(|op| op.starts_with("add element in4 { 10.9.0.4 . tcp . 5432")),
        "{words:?}"
    );
    let generation = after.ruleset.unwrap().generation().unwrap();
    assert_eq!(generation.mark(), 0x0002_0000);
}

#[test]
fn helpers_come_before_the_rules_that_give_them_and_go_after() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let statements = |ports| vec![allow(Direction::Ingress, peers("shop/api", &["api"]), ports)];
    let plain = ruleset(Mode::Enforce, statements(&["21/tcp"]), &inventory(3));
    let helped = ruleset(Mode::Enforce, statements(&["21/tcp with helper ftp"]), &inventory(3));
    apply(&mut table, Some(&plain));
    let (ops, after) = apply(&mut table, Some(&helped));
    assert!(matches!(ops.first(), Some(Op::AddHelper { .. })), "{ops:?}");
    let generation = after.ruleset.unwrap().generation();
    let (ops, after) = apply(&mut table, Some(&plain));
    assert!(matches!(ops.last(), Some(Op::DeleteHelper { .. })), "{ops:?}");
    assert_ne!(
        after.ruleset.unwrap().generation(),
        generation,
        "what was agreed on is judged again"
    );
    assert_eq!(helped.without_helpers(), plain);
}

#[test]
fn a_helper_the_kernel_does_not_have_is_named_with_what_to_do() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let mut wanted = everything(Mode::Enforce);
    for helper in wanted.helpers.values_mut() {
        helper.kind = "nosuch".to_owned();
    }
    let error = table.commit(&plan(None, Some(&wanted)), None).unwrap_err();
    assert!(error.to_string().ends_with("load it: modprobe nf_conntrack_nosuch"), "{error}");
    assert_eq!(table.dump().unwrap().ruleset, None, "a refused transaction changes nothing");
}

#[test]
fn hand_made_changes_are_found_and_undone() {
    let changes = [
        "add rule inet seawall ingress accept",
        "insert rule inet seawall in_original accept",
        "insert rule inet seawall egress ip daddr 192.0.2.1 accept",
        "add chain inet seawall side { type filter hook input priority -5; policy accept; }",
        "add chain inet seawall side",
        "add set inet seawall mine { type ipv4_addr . inet_proto . inet_service; }",
        "flush chain inet seawall deny_ingress",
        "add ct helper inet seawall mine { type \"ftp\" protocol tcp; }",
        "insert rule inet seawall in_original ct helper set \"ftp_tcp\"",
        "flush set inet seawall in4",
        "add element inet seawall in4 { 10.9.0.77 . tcp . 22 }",
        "delete element inet seawall out4 { 192.0.2.53 . udp . 53 }",
        "chain inet seawall ingress { policy accept; }",
        "delete table inet seawall",
        "flush ruleset",
    ];
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let wanted = everything(Mode::Enforce);
    apply(&mut table, Some(&wanted));
    for change in changes {
        netns.run(&["nft", change]);
        let before = table.dump().unwrap();
        assert!(!plan(before.ruleset.as_ref(), Some(&wanted)).is_empty(), "{change} is not seen");
        apply(&mut table, Some(&wanted));
        let (left, _) = apply(&mut table, Some(&wanted));
        assert!(left.is_empty(), "{change} is not undone: {left:?}");
        // What a hand-made rule let in must not live on by the mark.
        let is_accepting = change.contains("ingress accept") || change.contains("egress ip daddr");
        let after = table.dump().unwrap().ruleset.unwrap().generation().unwrap();
        let generation = before.ruleset.and_then(|ruleset| ruleset.generation());
        assert!(!is_accepting || generation != Some(after), "{change} is a revocation");
    }
}

#[test]
fn clearing_leaves_nothing_and_other_tables_alone() {
    let netns = TestNetns::new();
    netns.run(&["nft", "add table inet other"]);
    let mut table = open(&netns);
    apply(&mut table, Some(&everything(Mode::Enforce)));
    apply(&mut table, None);
    let left = netns.run(&["nft", "list", "ruleset"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "table inet other {\n}");
}

#[test]
fn a_plan_made_for_an_older_ruleset_is_refused_as_stale() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let before = table.dump().unwrap();
    netns.run(&["nft", "add table inet other"]);
    let transaction = plan(None, Some(&everything(Mode::Enforce)));
    let error = table.commit(&transaction, Some(before.generation_id)).unwrap_err();
    assert!(matches!(error, seawall::nft::ApplyError::Stale), "{error}");
    assert_eq!(table.dump().unwrap().ruleset, None, "a refused transaction changes nothing");
}

#[test]
fn a_refused_object_is_named() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let wanted = everything(Mode::Enforce);
    let mut transaction = plan(None, Some(&wanted));
    transaction.ops.push(Op::DeleteSet { name: "nosuch".to_owned() });
    let error = table.commit(&transaction, None).unwrap_err();
    assert!(error.to_string().starts_with("the kernel refused to delete set nosuch: "), "{error}");
    assert_eq!(table.dump().unwrap().ruleset, None, "a refused transaction changes nothing");
}

#[test]
fn sixty_thousand_elements_are_one_transaction() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let mut wanted = everything(Mode::Enforce);
    let set = wanted.sets.get_mut("in4").unwrap();
    let (element, comment) = set.elements.iter().next().map(|(e, c)| (*e, c.clone())).unwrap();
    for number in 0..60_000u32 {
        let mut next = element;
        next.first.address = std::net::Ipv4Addr::from(0x0b00_0000 + number).into();
        next.last = next.first;
        Arc::make_mut(&mut set.elements).insert(next, comment.clone());
    }
    apply(&mut table, Some(&wanted));
}
