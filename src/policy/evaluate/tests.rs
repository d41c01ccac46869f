//! Tests of the evaluator: by which addresses a party is recognised, and which statement decides.

use std::collections::BTreeSet;

use super::*;
use crate::metadata::NetworkMode;
use crate::policy::Provenance;
use crate::policy::fixture::{Make, World, make, world};

const SEEN: Provenance = Provenance::Baseline;

fn statement(action: Action, peer: Peer, traffic: &str) -> Statement {
    let traffic = match traffic {
        "ping" => Traffic::Ping,
        ports => Traffic::Ports(ports.parse().unwrap()),
    };
    Statement {
        action,
        direction: Direction::Ingress,
        peer,
        traffic: [traffic].into(),
        provenance: SEEN,
    }
}

fn members(ids: &[&str]) -> Peer {
    let members: BTreeSet<_> = ids.iter().map(|id| WorkloadId::new(id)).collect();
    Peer::Workloads { label: "peers".into(), members }
}

/// What `statements` of `me` say of a packet from `remote`.
fn judged(world: &World, statements: Vec<Statement>, remote: &str, packet: &str) -> Option<bool> {
    let policy = Policy { statements, ..world.policy("me").clone() };
    let decision = judge(
        &policy,
        &world.inventory,
        &world.settings,
        Direction::Ingress,
        remote.parse().unwrap(),
        packet.parse().unwrap(),
    );
    decision.statement.map(|_| decision.allowed)
}

fn networks() -> [Make; 3] {
    [
        make("me", "redis").on("front", 2).resolver("192.0.2.53"),
        make("near", "redis").on("front", 3).on("back", 3),
        make("far", "redis").on("back", 4),
    ]
}

fn address(world: &World, id: &str, network: &str, v6: bool) -> String {
    let workload = world.inventory.get(&WorkloadId::new(id)).unwrap();
    let (_, attachment) =
        workload.networks.iter().find(|(_, attachment)| attachment.name == network).unwrap();
    attachment.addresses.iter().find(|address| address.is_ipv6() == v6).unwrap().to_string()
}

#[test]
fn members_are_known_by_their_addresses_on_shared_networks_only() {
    let world = world(&networks());
    let allow = || vec![statement(Action::Allow, members(&["near", "far"]), "80/tcp")];
    for v6 in [false, true] {
        let at = |id, network| address(&world, id, network, v6);
        assert_eq!(judged(&world, allow(), &at("near", "front"), "80/tcp"), Some(true));
        assert_eq!(judged(&world, allow(), &at("near", "back"), "80/tcp"), None);
        assert_eq!(judged(&world, allow(), &at("far", "back"), "80/tcp"), None);
    }
    assert_eq!(judged(&world, allow(), &address(&world, "near", "front", false), "81/tcp"), None);
    assert_eq!(judged(&world, allow(), &address(&world, "near", "front", false), "80/udp"), None);
    assert_eq!(judged(&world, allow(), &address(&world, "near", "front", false), "ping"), None);
}

#[test]
fn a_member_in_anothers_netns_is_known_by_that_ones_addresses() {
    let mut mate = make("mate", "redis").mode(NetworkMode::Container(WorkloadId::new("near")));
    mate.workload.networks.clear();
    let world = world(&[networks().to_vec(), vec![mate]].concat());
    let allow = vec![statement(Action::Allow, members(&["mate"]), "80/tcp")];
    assert_eq!(
        judged(&world, allow, &address(&world, "near", "front", false), "80/tcp"),
        Some(true)
    );
}

#[test]
fn entities_are_known_by_their_addresses() {
    let world = world(&networks());
    let own = address(&world, "me", "front", false);
    let gateway = own.rsplit_once('.').map(|(net, _)| format!("{net}.1")).unwrap();
    for (peer, remote, wanted) in [
        (Peer::Host, gateway.as_str(), true),
        (Peer::Host, "203.0.113.1", false),
        (Peer::World, "10.0.0.1", true),
        (Peer::World, "fe80::1", true),
        (Peer::Internet, "1.1.1.1", true),
        (Peer::Internet, "10.0.0.1", false),
        (Peer::Internet, "fd00::1", false),
        (Peer::Dns, "192.0.2.53", true),
        (Peer::Dns, "192.0.2.54", false),
        (Peer::Cidr("10.0.0.0/8".parse().unwrap()), "10.255.0.1", true),
        (Peer::Cidr("10.0.0.0/8".parse().unwrap()), "11.0.0.1", false),
        (Peer::Cidr("0.0.0.0/0".parse().unwrap()), "2001:db8::1", false),
    ] {
        let shown = format!("{peer} {remote}");
        let found =
            judged(&world, vec![statement(Action::Allow, peer, "80/tcp")], remote, "80/tcp");
        assert_eq!(found, wanted.then_some(true), "{shown}");
    }
}

#[test]
fn any_deny_beats_every_allow() {
    let world = world(&networks());
    let near = address(&world, "near", "front", false);
    let statements = vec![
        statement(Action::Allow, Peer::World, "1-65535/tcp"),
        statement(Action::Deny, members(&["near"]), "80/tcp"),
    ];
    assert_eq!(judged(&world, statements.clone(), &near, "80/tcp"), Some(false));
    assert_eq!(judged(&world, statements.clone(), &near, "81/tcp"), Some(true));
    assert_eq!(judged(&world, statements, "10.0.0.1", "80/tcp"), Some(true));
}

#[test]
fn in_a_shared_netns_one_members_deny_beats_anothers_allow() {
    let world = world(&networks());
    let with = |statements| Policy { statements, ..world.policy("me").clone() };
    let allow = with(vec![statement(Action::Allow, Peer::World, "80/tcp")]);
    let deny = with(vec![statement(Action::Deny, Peer::Internet, "80/tcp")]);
    let judged = |policies: &[&Policy], remote: &str| {
        let (direction, remote) = (Direction::Ingress, remote.parse().unwrap());
        let packet = "80/tcp".parse().unwrap();
        judge_netns(policies, &world.inventory, &world.settings, direction, remote, packet).allowed
    };
    assert!(judged(&[&allow], "1.1.1.1"));
    assert!(!judged(&[&allow, &deny], "1.1.1.1"));
    assert!(judged(&[&deny, &allow], "10.0.0.1"));
    assert!(!judged(&[&deny], "10.0.0.1"));
    assert!(!judged(&[], "10.0.0.1"));
}

#[test]
fn packets_read_and_print_the_same() {
    for text in ["80/tcp", "53/udp", "ping"] {
        assert_eq!(text.parse::<Packet>().unwrap().to_string(), text);
    }
    for text in ["", "80-81/tcp", "0/tcp", "http", "80/icmp"] {
        assert!(text.parse::<Packet>().is_err(), "{text}");
    }
}

#[test]
fn a_data_connection_is_allowed_while_a_control_connection_with_the_same_remote_is() {
    let world = world(&networks());
    let ftp = |text: &str| Traffic::Control(text.parse().unwrap(), Helper::Ftp);
    let control = |peer| Statement {
        traffic: [ftp("20-21/tcp")].into(),
        ..statement(Action::Allow, peer, "ping")
    };
    let near = address(&world, "near", "front", true);
    let judged = |statements: &[Statement], helper, direction, remote: &str| {
        let statements = statements.to_vec();
        let policy = Policy { statements, ..world.policy("me").clone() };
        let flow = (direction, remote.parse().unwrap(), "40000/tcp".parse().unwrap());
        judge_expected(&[&policy], &world.inventory, &world.settings, helper, flow).allowed
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        let stated = [control(members(&["near"]))];
        assert!(judged(&stated, Helper::Ftp, direction, &near), "whichever of the two makes it");
        assert!(!judged(&stated, Helper::Sip, direction, &near), "by that helper only");
        assert!(!judged(&stated, Helper::Ftp, direction, "192.0.2.9"), "with that remote only");
    }
    let denying =
        |ports| [control(Peer::World), statement(Action::Deny, members(&["near"]), ports)];
    let ingress = |ports| judged(&denying(ports), Helper::Ftp, Direction::Ingress, &near);
    assert!(ingress("21/tcp"), "a control port is left");
    assert!(!ingress("1-100/tcp"), "no control connection, no data connection");
    assert!(!ingress("40000/tcp"), "deny beats what was agreed on");
}
