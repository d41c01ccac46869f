//! Owns traffic that never pauses while a ruleset is worked on: echoes that are allowed, and packets that are denied.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use seawall::compile::{Options, Ruleset, compile};
use seawall::metadata::WorkloadId;
use seawall::policy::{self, Action, Direction, Mode, Peer, Provenance, Statement};

use crate::veth::Wire;
use crate::worlds::{self, World};

pub(crate) const PEER: [&str; 2] = ["10.50.0.11", "fd50::11"];
pub(crate) const ALLOWED: u16 = 5432;
pub(crate) const DENIED: u16 = 22;

pub(crate) fn statement(
    action: Action,
    direction: Direction,
    peer: Peer,
    traffic: &[&str],
) -> Statement {
    let traffic =
        traffic.iter().map(|ports| policy::Traffic::Ports(ports.parse().unwrap())).collect();
    Statement { action, direction, peer, traffic, provenance: Provenance::Baseline }
}

pub(crate) fn peer0() -> Peer {
    Peer::Workloads { label: "peer".into(), members: [WorkloadId::new("peer0")].into() }
}

/// Peers and addresses of the generated worlds, with a policy of this test's own.
pub(crate) fn world() -> World {
    worlds::world().new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

/// What both rulesets allow, and what makes them differ in sets, intervals, rules and generation.
pub(crate) fn rulesets() -> [Vec<Statement>; 2] {
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

/// A policy, enforced, that allows a connection to one port of the peer and no other.
#[allow(dead_code, reason = "not every test has one ruleset")]
pub(crate) fn enforced() -> Ruleset {
    let world = world();
    let [statements, _] = rulesets();
    let mut policy = world.policy(Mode::Enforce);
    policy.statements = statements;
    compile(&[&policy], &world.inventory, &Options::default()).unwrap()
}

/// What takes longer is lost: longer than any machine is busy with something else.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends to an echo server until told to stop. Counts echoes, and packets without one.
fn chatter(to: SocketAddr, stop: &AtomicBool, echoed: &AtomicUsize, lost: &AtomicUsize) {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let answer = socket.send(b"hello").and_then(|_| socket.recv(&mut [0; 16]));
        let count = match answer {
            Ok(_) => echoed,
            Err(error) => {
                // Denied ones are refused by the hundred thousand.
                if to.port() == ALLOWED {
                    eprintln!("no answer from {to}: {error}");
                }
                lost
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of the packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) echoed: usize,
    pub(crate) lost: usize,
    pub(crate) leaked: usize,
    pub(crate) denied: usize,
}

/// Threads that send without a pause, one of each kind over each family.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    counters: Arc<[AtomicUsize; 4]>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(wire: &Wire) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counters: Arc<[AtomicUsize; 4]> = Arc::default();
        let threads = PEER
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
        Self { stop, counters, threads }
    }

    pub(crate) fn finish(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let [echoed, lost, leaked, denied] =
            [0, 1, 2, 3].map(|n| self.counters[n].load(Ordering::Relaxed));
        Counts { echoed, lost, leaked, denied }
    }
}
