//! Kernel layer: for generated policies, the verdict of every flow equals the naive evaluator's: by the dump of what the
//! kernel holds for all cases, and by real packets over veth for a sample.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use netns::TestNetns;
use seawall::compile::ruleset::{CtDirection, CtState, Generation, Hook, Ruleset};
use seawall::compile::{Options, Packet as Seen, compile, interpret};
use seawall::metadata::L4Proto;
use seawall::model::Helper;
use seawall::nft::netns::Entrance;
use seawall::nft::{Netns, plan};
use seawall::policy::evaluate::{Packet, judge, judge_expected};
use seawall::policy::{Direction, Mode, Policy};
use veth::Wire;
use worlds::World;

/// How many generated policies are compared by dump.
const CASES: usize = 600;
/// How many of them are compared by real packets.
const PACKET_CASES: usize = 12;

/// The same cases in every run: a failure can be repeated.
fn cases(count: usize) -> Vec<World> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = worlds::world();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// What the rules see of the first packet of a connection.
fn first_packet(
    world: &World,
    direction: Direction,
    remote: std::net::IpAddr,
    packet: Packet,
) -> Seen {
    let own = world.own_address(remote.is_ipv4());
    let (hook, addresses) = match direction {
        Direction::Ingress => (Hook::Input, (remote, own)),
        Direction::Egress => (Hook::Output, (own, remote)),
    };
    let (protocol, port, icmp_type) = match packet {
        Packet::Port { proto, port } => (proto.number(), port, 0),
        Packet::Ping if remote.is_ipv4() => (1, 0, 8),
        Packet::Ping => (58, 0, 128),
    };
    Seen {
        hook,
        loopback: false,
        state: None,
        direction: CtDirection::Original,
        helper: None,
        generation: None,
        addresses,
        protocol,
        ports: (40_000, port),
        icmp_type,
        hop_limit: 64,
    }
}

/// The same connection's answer, judged again after a revocation.
fn answer(mut seen: Seen) -> Seen {
    seen.hook = if seen.hook == Hook::Input { Hook::Output } else { Hook::Input };
    seen.direction = CtDirection::Reply;
    seen.addresses = (seen.addresses.1, seen.addresses.0);
    seen.ports = (seen.ports.1, seen.ports.0);
    seen.icmp_type = match seen.icmp_type {
        8 => 0,
        128 => 129,
        other => other,
    };
    seen
}

fn compare(world: &World, policy: &Policy, ruleset: &Ruleset) -> usize {
    let options = Options::default();
    let mut compared = 0;
    for (direction, remote, packet) in world.probes() {
        let wanted =
            judge(policy, &world.inventory, &options.settings, direction, remote, packet).allowed;
        let seen = first_packet(world, direction, remote, packet);
        let got = interpret(ruleset, &seen);
        let context = || format!("{direction:?} {remote} {packet}\n{policy:#?}");
        assert_eq!(got.is_accept(), wanted, "first packet: {}", context());
        let reply = interpret(ruleset, &answer(seen.clone()));
        assert_eq!(reply.is_accept(), wanted, "answer judged again: {}", context());
        let fast = Seen { generation: ruleset.generation(), ..seen.clone() };
        assert!(interpret(ruleset, &fast).is_accept(), "a judged connection takes the fast path");
        let stale = Seen { generation: ruleset.generation().map(Generation::next), ..seen.clone() };
        assert_eq!(interpret(ruleset, &stale).is_accept(), wanted, "another generation is judged");
        // It inherits the mark of the connection that expects it.
        let generation = ruleset.generation();
        let related = Seen { state: Some(CtState::Related), generation, ..seen.clone() };
        if packet != Packet::Ping {
            let got = interpret(ruleset, &related).is_accept();
            assert_eq!(got, wanted, "expected by nobody with a helper: {}", context());
        }
        if matches!(packet, Packet::Port { proto: L4Proto::Tcp, .. }) {
            let (all, settings) = (&world.inventory, &options.settings);
            let flow = (direction, remote, packet);
            let wanted = judge_expected(&[policy], all, settings, Helper::Ftp, flow).allowed;
            let expected = Seen { helper: Some("ftp"), ..related };
            let got = interpret(ruleset, &expected).is_accept();
            assert_eq!(got, wanted, "expected by a helper: {}", context());
            let later = Seen { state: None, generation: None, ..answer(expected) };
            let got = interpret(ruleset, &later).is_accept();
            assert_eq!(got, wanted, "expected, and judged again: {}", context());
        }
        let invalid = Seen { state: Some(CtState::Invalid), ..seen };
        assert!(!interpret(ruleset, &invalid).is_accept(), "packets of no connection are dropped");
        compared += 1;
    }
    compared
}

#[test]
fn the_verdict_matrix_of_every_dump_equals_the_naive_evaluators() {
    let netns = TestNetns::new();
    let entrance = Entrance::start().unwrap();
    let mut table = entrance.open_table(&Netns::open(&netns.path()).unwrap()).unwrap();
    let (mut compared, mut allowed_statements) = (0, 0);
    for world in cases(CASES) {
        let policy = world.policy(Mode::Enforce);
        let wanted = compile(&[&policy], &world.inventory, &Options::default()).unwrap();
        // Each case starts from what the case before left: the transaction in between must be right as well.
        let before = table.dump().unwrap();
        let transaction = plan(before.ruleset.as_ref(), Some(&wanted));
        table.commit(&transaction, Some(before.generation_id)).unwrap();
        let held = table.dump().unwrap().ruleset.unwrap();
        assert_eq!(held.clone().at_generation(Generation::FIRST), wanted);
        compared += compare(&world, &policy, &held);
        allowed_statements += policy.statements.len();
    }
    assert!(compared > CASES * 100, "{compared} flows are too few to say anything");
    println!(
        "{CASES} policies with {allowed_statements} statements: {compared} flows compared by dump"
    );
}

#[test]
fn observing_denies_nothing_at_all() {
    for world in cases(40) {
        let policy = world.policy(Mode::Observe);
        let ruleset = compile(&[&policy], &world.inventory, &Options::default()).unwrap();
        for (direction, remote, packet) in world.probes() {
            assert!(
                interpret(&ruleset, &first_packet(&world, direction, remote, packet)).is_accept()
            );
        }
    }
}

#[test]
fn real_packets_meet_the_same_verdicts() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let entrance = Entrance::start().unwrap();
    let (mut compared, mut allowed) = (0, 0);
    for world in cases(PACKET_CASES) {
        let policy = world.policy(Mode::Enforce);
        let wanted = compile(&[&policy], &world.inventory, &Options::default()).unwrap();
        let mut table = entrance.open_table(&Netns::open(&wire.inside.path()).unwrap()).unwrap();
        let before = table.dump().unwrap();
        let transaction = plan(before.ruleset.as_ref(), Some(&wanted));
        table.commit(&transaction, Some(before.generation_id)).unwrap();
        let flows: Vec<_> = world
            .probes()
            .into_iter()
            .filter(|(_, _, packet)| !matches!(packet, Packet::Port { proto: L4Proto::Sctp, .. }))
            .collect();
        let got = wire.probe(&flows);
        let settings = Options::default().settings;
        for ((direction, remote, packet), reached) in flows.iter().zip(got) {
            let decision =
                judge(&policy, &world.inventory, &settings, *direction, *remote, *packet);
            assert_eq!(
                reached, decision.allowed,
                "{direction:?} {remote} {packet}: reached {reached}\n{policy:#?}"
            );
            compared += 1;
            allowed += usize::from(reached);
        }
    }
    assert!(allowed > 50 && compared - allowed > 50, "{allowed} of {compared} allowed");
    println!(
        "{PACKET_CASES} policies: {compared} flows compared by real packets, {allowed} of them allowed"
    );
}
