//! Kernel layer: while rulesets are replaced under traffic, no allowed packet is lost and no denied one passes; what is
//! revoked stops at the next packet of an established flow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/traffic.rs"]
mod traffic;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use netns::inside_of;
use seawall::compile::{Options, compile};
use seawall::nft::netns::Entrance;
use seawall::nft::{KernelTable, Netns, plan};
use seawall::policy::{Action, Direction, Mode, Statement};
use traffic::{Counts, PEER, Traffic, peer0, rulesets, statement, world};
use veth::Wire;
use worlds::World;

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

#[test]
fn replacing_rulesets_under_traffic_loses_and_leaks_nothing() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let world = world();
    let mut table = open(&wire);
    let [one, other] = rulesets();
    commit(&mut table, &world, one.clone());
    let traffic = Traffic::start(&wire);
    let mut revocations = 0;
    for round in 0..200 {
        let statements = if round % 2 == 0 { &other } else { &one };
        revocations += usize::from(commit(&mut table, &world, statements.clone()));
    }
    let Counts { echoed, lost, leaked, denied } = traffic.finish();
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
