//! Kernel layer: while rulesets are replaced under traffic, no allowed packet is lost and no denied one passes; what is
//! revoked stops at the next packet of an established flow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use netns::inside_of;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use seawall::compile::{Options, compile};
use seawall::metadata::WorkloadId;
use seawall::nft::netns::Entrance;
use seawall::nft::{KernelTable, Netns, plan};
use seawall::policy::{Action, Direction, Mode, Peer, Provenance, Statement, Traffic};
use veth::Wire;
use worlds::World;

const PEER: [&str; 2] = ["10.50.0.11", "fd50::11"];
const ALLOWED: u16 = 5432;
const DENIED: u16 = 22;

fn statement(action: Action, direction: Direction, peer: Peer, traffic: &[&str]) -> Statement {
    let traffic = traffic.iter().map(|ports| Traffic::Ports(ports.parse().unwrap())).collect();
    Statement { action, direction, peer, traffic, provenance: Provenance::Baseline }
}

fn peer0() -> Peer {
    Peer::Workloads { label: "peer".into(), members: [WorkloadId::new("peer0")].into() }
}

/// Peers and addresses of the generated worlds, with a policy of this test's own.
fn world() -> World {
    worlds::world().new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

fn commit(table: &mut KernelTable, world: &World, statements: Vec<Statement>) -> bool {
    let mut policy = world.policy(Mode::Enforce);
    policy.statements = statements;
    let wanted = compile(&[&policy], &world.inventory, &Options::default()).unwrap();
    let before = table.dump().unwrap();
    let transaction = plan(before.ruleset.as_ref(), Some(&wanted));
    table.commit(&transaction, Some(before.generation_id)).unwrap();
    transaction.revokes
}

fn open(wire: &Wire) -> KernelTable {
    Entrance::start().unwrap().open_table(&Netns::open(&wire.inside.path()).unwrap()).unwrap()
}

/// What both rulesets allow, and what makes them differ in sets, intervals, rules and generation.
fn rulesets() -> [Vec<Statement>; 2] {
    let always = || statement(Action::Allow, Direction::Egress, peer0(), &["5432/udp", "5432/tcp"]);
    let range = "172.16.0.0/12".parse().unwrap();
    let one = vec![
        always(),
        statement(Action::Allow, Direction::Egress, Peer::Cidr(range), &["1-1000/udp"]),
        statement(Action::Allow, Direction::Ingress, Peer::World, &["80/tcp"]),
    ];
    let other = vec![
        always(),
        statement(Action::Allow, Direction::Egress, Peer::Internet, &["443/tcp"]),
        statement(Action::Deny, Direction::Egress, Peer::Cidr(range), &["1-65535/udp"]),
        statement(Action::Allow, Direction::Egress, peer0(), &["9000/udp"]),
    ];
    [one, other]
}

/// Sends to an echo server until told to stop. Counts echoes, and packets without one.
fn chatter(to: SocketAddr, stop: &AtomicBool, echoed: &AtomicUsize, lost: &AtomicUsize) {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(to).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let answered = socket.send(b"hello").is_ok() && socket.recv(&mut [0; 16]).is_ok();
        if answered { echoed } else { lost }.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn replacing_rulesets_under_traffic_loses_and_leaks_nothing() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let world = world();
    let mut table = open(&wire);
    let [one, other] = rulesets();
    commit(&mut table, &world, one.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let counters: Arc<[AtomicUsize; 4]> = Arc::default();
    let threads: Vec<_> = PEER
        .iter()
        .flat_map(|peer| [(peer, ALLOWED, 0), (peer, DENIED, 2)])
        .map(|(peer, port, first)| {
            let to = SocketAddr::new(peer.parse().unwrap(), port);
            let (stop, counters) = (stop.clone(), counters.clone());
            let file = std::fs::File::open(wire.inside.path()).unwrap();
            std::thread::spawn(move || {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                chatter(to, &stop, &counters[first], &counters[first + 1]);
            })
        })
        .collect();
    let mut revocations = 0;
    for round in 0..200 {
        let statements = if round % 2 == 0 { &other } else { &one };
        revocations += usize::from(commit(&mut table, &world, statements.clone()));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let [echoed, lost, leaked, denied] = [0, 1, 2, 3].map(|n| counters[n].load(Ordering::Relaxed));
    println!(
        "200 replacements, {revocations} revocations: {echoed} echoed, {lost} lost; {denied} denied, {leaked} leaked"
    );
    assert!(echoed > 1000 && denied > 1000, "there was traffic");
    assert_eq!((lost, leaked), (0, 0), "of {echoed} and {denied}");
    assert_eq!(revocations, 200, "each takes something away that the other allows");
}

#[test]
fn a_revoked_flow_stops_at_its_next_packet_and_others_go_on() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let world = world();
    let mut table = open(&wire);
    let both = statement(Action::Allow, Direction::Egress, peer0(), &["9000/tcp", "9001/tcp"]);
    let kept = statement(Action::Allow, Direction::Egress, peer0(), &["9001/tcp"]);
    let deny = statement(Action::Deny, Direction::Egress, peer0(), &["9000/tcp"]);
    for (peer, revoked_by) in PEER
        .iter()
        .flat_map(|peer| [(peer, vec![kept.clone()]), (peer, vec![both.clone(), deny.clone()])])
    {
        commit(&mut table, &world, vec![both.clone()]);
        let peer: IpAddr = peer.parse().unwrap();
        let listeners = inside_of(&wire.outside, move || {
            [9000, 9001].map(|port| TcpListener::bind((peer, port)).unwrap())
        });
        let mut clients = inside_of(&wire.inside, move || {
            [9000, 9001].map(|port| TcpStream::connect((peer, port)).unwrap())
        });
        let mut servers = listeners.map(|listener| listener.accept().unwrap().0);
        let mut exchange = |number: usize| {
            let (client, server): (&mut TcpStream, &mut TcpStream) =
                (&mut clients[number], &mut servers[number]);
            for side in [&*client, &*server] {
                side.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            }
            let mut byte = [0];
            client.write_all(b"q").is_ok()
                && server.read_exact(&mut byte).is_ok()
                && server.write_all(b"a").is_ok()
                && client.read_exact(&mut byte).is_ok()
        };
        assert!(exchange(0) && exchange(1), "both flows work");
        assert!(commit(&mut table, &world, revoked_by), "it is a revocation");
        assert!(!exchange(0), "{peer}: the revoked flow still carries data");
        assert!(exchange(1), "{peer}: the other flow goes on");
    }
}
