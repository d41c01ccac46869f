//! Kernel layer: what allowed traffic costs under seawall's whole ruleset and its guard, beside the plainest stateful
//! ruleset there is, in the same run and turn by turn. The ratios are printed; they are asserted only as far as a busy
//! machine can be trusted. `SEAWALL_ROUNDS=101` sets how often everything is measured (9 otherwise).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/guarded.rs"]
mod guarded;
#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/rate.rs"]
mod rate;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use guarded::{Guarded, OTHER4, OTHER6, PORT};
use netns::inside_of;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rate::{Rate, rate};

/// What everybody would write: connections are allowed by their first packet, and then by being there.
const PLAIN: &str = "table inet plain {
    chain out {
        type filter hook output priority filter; policy drop;
        ct state established accept
        tcp dport 4321 accept
        udp dport 4321 accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain in {
        type filter hook input priority filter; policy drop;
        ct state established accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
}
";
/// What a hook at the link costs by itself, whatever is asked there.
const HOOK: &str = "table netdev plain {
    chain link { type filter hook egress device eth0 priority filter; policy accept; }
}
";
/// Takes both away, whether they are there or not.
const NEITHER: &str = "table inet plain
delete table inet plain
table netdev plain
delete table netdev plain
";
const TIME: Duration = Duration::from_millis(20);
/// What a machine that does other things as well still shows.
const SANE: f64 = 0.5;
const CHUNK: usize = 64 << 10;

/// What the traffic meets.
#[derive(Clone, Copy)]
enum Under {
    Plain,
    PlainAndHook,
    Policy,
    PolicyAndGuard,
}

impl Under {
    const ALL: [Self; 4] = [Self::Plain, Self::PlainAndHook, Self::Policy, Self::PolicyAndGuard];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::PlainAndHook => "plain and an empty hook",
            Self::Policy => "policy",
            Self::PolicyAndGuard => "policy and guard",
        }
    }

    /// Brings it into force before it takes away what was, so that the kernel never stops following the connections.
    fn bring(self, world: &mut Guarded) {
        match self {
            Self::Plain => nft(world, &[NEITHER, PLAIN]),
            Self::PlainAndHook => nft(world, &[NEITHER, PLAIN, HOOK]),
            Self::Policy | Self::PolicyAndGuard => {
                world.doubt();
                match self {
                    Self::Policy => drop(world.apply_unguarded()),
                    _ => drop(world.apply()),
                }
                return nft(world, &[NEITHER]);
            }
        }
        world.clear();
    }
}

/// What is measured: one connection, or one socket, that stays the same under every ruleset.
enum Flow {
    /// Bytes over TCP.
    Bulk(TcpStream),
    /// Small datagrams.
    Small(UdpSocket),
}

impl Flow {
    fn bulk(world: &Guarded, to: IpAddr) -> Self {
        let to = SocketAddr::new(to, PORT);
        let connect = move || TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        Self::Bulk(inside_of(&world.inside, connect))
    }

    fn small(world: &Guarded, to: IpAddr) -> Self {
        let any: IpAddr = match to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let connect = move || {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect((to, PORT)).unwrap();
            socket
        };
        Self::Small(inside_of(&world.inside, connect))
    }

    fn rate(&mut self) -> Rate {
        match self {
            Self::Bulk(stream) => {
                let data = vec![0; CHUNK];
                rate(TIME, || stream.write_all(&data).map_or(0, |()| CHUNK))
            }
            Self::Small(socket) => {
                rate(TIME, || (0..100).filter(|_| socket.send(&[0; 64]).is_ok()).count())
            }
        }
    }
}

/// Keeps this thread on one processor, the same for both ends: what is measured is what all of it costs, and where the
/// scheduler would have put them makes no difference.
fn pin() {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let last = (0..CpuSet::count()).rev().find(|one| all.is_set(*one).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(last).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Takes what is sent to the port, over TCP and UDP, until the test ends.
fn serve(world: &Guarded) {
    let (listener, socket) = inside_of(&world.outside, || {
        let any = (Ipv6Addr::UNSPECIFIED, PORT);
        (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                pin();
                let mut taken = vec![0; 64 << 10];
                while stream.read(&mut taken).is_ok_and(|length| length > 0) {}
            });
        }
    });
    std::thread::spawn(move || {
        pin();
        while socket.recv(&mut [0; 2048]).is_ok() {}
    });
}

fn nft(world: &Guarded, commands: &[&str]) {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", &world.inside.name, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin.take().unwrap().write_all(commands.concat().as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// How often everything is measured.
fn rounds() -> usize {
    std::env::var("SEAWALL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9)
}

/// The median, and between what it is with 95 % certainty (by order statistics).
fn median(mut values: Vec<f64>) -> (f64, [f64; 2]) {
    values.sort_by(f64::total_cmp);
    let (count, half) = (values.len(), values.len() / 2);
    let off = (0.98 * (count as f64).sqrt()).ceil() as usize;
    (values[half], [values[half.saturating_sub(off)], values[(half + off).min(count - 1)]])
}

#[test]
fn allowed_traffic_is_about_as_fast_as_under_the_plainest_stateful_ruleset() {
    let mut world = Guarded::new();
    world.share();
    serve(&world);
    Under::Plain.bring(&mut world);
    let (to4, to6) = (OTHER4.into(), OTHER6.into());
    let mut flows = [
        ("bulk TCP, IPv4", "GB/s", Flow::bulk(&world, to4)),
        ("bulk TCP, IPv6", "GB/s", Flow::bulk(&world, to6)),
        ("small datagrams, IPv4", "10⁹/s", Flow::small(&world, to4)),
        ("small datagrams, IPv6", "10⁹/s", Flow::small(&world, to6)),
    ];
    pin();
    let mut figures = flows.each_ref().map(|_| Under::ALL.map(|_| Vec::new()));
    let rounds = rounds();
    for round in 0..rounds {
        // Turn by turn, and each round in another order, so that what else the machine does is everybody's.
        for turn in 0..Under::ALL.len() {
            let which = (turn + round) % Under::ALL.len();
            Under::ALL[which].bring(&mut world);
            // What was not sent yet is judged again, and the kernel is still busy with the former tables.
            for (.., flow) in &mut flows {
                flow.rate();
            }
            for (figures, (.., flow)) in figures.iter_mut().zip(&mut flows) {
                figures[which].push(flow.rate());
            }
        }
    }
    println!(
        "{rounds} rounds of {TIME:?}: the median of the rounds' ratios to plain, and between what it is (95 %); \
         by the clock, and by the sender's processor time"
    );
    for ((what, unit, _), figures) in flows.iter().zip(&figures) {
        let [plain, ..] = figures;
        let (rate, _) = median(plain.iter().map(|rate| rate.wall).collect());
        println!("{what}: plain {:.6} {unit}", rate / 1e9);
        for (under, of) in Under::ALL.iter().zip(figures).skip(1) {
            let ratios = |by: fn(&Rate) -> f64| {
                median(of.iter().zip(plain).map(|(own, plain)| by(own) / by(plain)).collect())
            };
            let (wall, [from, to]) = ratios(|rate| rate.wall);
            let (processor, [low, high]) = ratios(|rate| rate.processor);
            println!(
                "  {:24} {wall:.3} ({from:.3} to {to:.3}), {processor:.3} ({low:.3} to {high:.3})",
                under.name()
            );
            assert!(wall > SANE && processor > SANE, "{what}, {}", under.name());
        }
    }
}
