//! Pure layer: what a helper in a policy becomes in the ruleset, and that nothing of it is there without one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use seawall::compile::{Options, Ruleset, compile};
use seawall::input::Text;
use seawall::metadata::{Attachment, Inventory, NetworkKey, Runtime, Workload, WorkloadId};
use seawall::model::Helper;
use seawall::nft::{plan, render};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};

fn workload(id: &str, host: u8) -> Workload {
    let mut workload = Workload::new(WorkloadId::new(id), Text::new(id), Runtime::Docker);
    let addresses = [format!("10.9.0.{host}"), format!("fd09::{host:x}")];
    let attachment = Attachment {
        name: Text::new("net"),
        driver: None,
        is_default_bridge: false,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        gateways: BTreeSet::new(),
        aliases: BTreeSet::new(),
    };
    workload.networks = BTreeMap::from([(NetworkKey(Text::new("net")), attachment)]);
    workload
}

fn statement(action: Action, direction: Direction, peer: Peer, traffic: Traffic) -> Statement {
    let traffic = [traffic].into();
    Statement { action, direction, peer, traffic, provenance: Provenance::Baseline }
}

fn workloads(members: &[&str]) -> Peer {
    let members = members.iter().map(|id| WorkloadId::new(id)).collect();
    Peer::Workloads { label: Text::new("peers"), members }
}

fn control(ports: &str, helper: Helper) -> Traffic {
    Traffic::Control(ports.parse().unwrap(), helper)
}

fn compiled(statements: Vec<Statement>) -> Ruleset {
    let policy = Policy {
        workload: WorkloadId::new("own"),
        label: Text::new("own"),
        mode: Mode::Enforce,
        mode_from: Provenance::Setting { key: "mode" },
        statements,
        routes: false,
    };
    let all = [("own", 2), ("a", 3), ("b", 4)].map(|(id, host)| workload(id, host));
    let inventory: Inventory = all.into_iter().collect();
    compile(&[&policy], &inventory, &Options::default()).unwrap()
}

/// The helpers, their sets, and the judging chains.
fn shown(ruleset: &Ruleset) -> String {
    let text = render(ruleset);
    let blocks = text.split("\n\n");
    let is_shown = |block: &&str| {
        let head = block.lines().find(|line| line.ends_with('{') && !line.starts_with("table"));
        head.is_some_and(|head| {
            ["ct helper", "set ftp", "set sip", "_original", "_reply", "chain fast"]
                .iter()
                .any(|part| head.contains(part))
        })
    };
    blocks.filter(is_shown).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn a_helper_becomes_an_object_sets_and_rules_behind_the_denials() {
    let range = |text: &str| Peer::Cidr(text.parse().unwrap());
    let (allow, deny) = (Action::Allow, Action::Deny);
    let ruleset = compiled(vec![
        statement(allow, Direction::Ingress, workloads(&["a"]), control("21/tcp", Helper::Ftp)),
        statement(
            allow,
            Direction::Egress,
            range("192.0.2.0/24"),
            control("5060/udp", Helper::Sip),
        ),
        statement(
            deny,
            Direction::Egress,
            range("192.0.2.7/32"),
            Traffic::Ports("1-65535/udp".parse().unwrap()),
        ),
    ]);
    insta::assert_snapshot!("helpers", shown(&ruleset));
}

#[test]
fn without_a_helper_nothing_of_it_is_there() {
    let ports = Traffic::Ports("21/tcp".parse().unwrap());
    let plain = statement(Action::Allow, Direction::Ingress, workloads(&["a"]), ports);
    let helped = Statement { traffic: [control("21/tcp", Helper::Ftp)].into(), ..plain.clone() };
    let (plain, helped) = (compiled(vec![plain]), compiled(vec![helped]));
    let text = render(&plain);
    assert!(!text.contains("helper") && !text.contains("ftp"), "{text}");
    assert_eq!(helped.without_helpers(), plain);
}

#[test]
fn a_peer_that_comes_is_an_element_of_the_helpers_sets_too() {
    let with = |members: &[&str]| {
        let traffic = control("21/tcp", Helper::Ftp);
        compiled(vec![statement(Action::Allow, Direction::Ingress, workloads(members), traffic)])
    };
    for (before, after) in [(with(&[]), with(&["a"])), (with(&["a"]), with(&["a", "b"]))] {
        assert!(plan(Some(&before), Some(&after)).is_elements_only());
        assert!(!plan(Some(&before), Some(&after)).revokes);
        assert!(plan(Some(&after), Some(&before)).revokes);
    }
}
