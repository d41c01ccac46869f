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
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use guarded::{Guarded, OTHER4, OTHER6, PORT};
use netns::inside_of;
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
}";
const TIME: Duration = Duration::from_millis(100);
/// What a machine that does other things as well still shows.
const SANE: f64 = 0.5;

/// Takes what is sent to the port, over TCP and UDP, until the test ends.
fn serve(world: &Guarded) {
    let (listener, socket) = inside_of(&world.outside, || {
        let any = (Ipv6Addr::UNSPECIFIED, PORT);
        (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut taken = vec![0; 1 << 20];
                while stream.read(&mut taken).is_ok_and(|length| length > 0) {}
            });
        }
    });
    std::thread::spawn(move || while socket.recv(&mut [0; 2048]).is_ok() {});
}

/// Bytes over one TCP connection.
fn bulk(world: &Guarded, to: IpAddr) -> Rate {
    let mut stream = inside_of(&world.inside, move || {
        TcpStream::connect_timeout(&SocketAddr::new(to, PORT), Duration::from_secs(5)).unwrap()
    });
    let data = vec![0; 256 << 10];
    // Past the slow start.
    for _ in 0..64 {
        stream.write_all(&data).unwrap();
    }
    rate(TIME, || stream.write_all(&data).map_or(0, |()| data.len()))
}

/// Small datagrams over one socket.
fn small(world: &Guarded, to: IpAddr) -> Rate {
    let socket = inside_of(&world.inside, move || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let to = match to {
            IpAddr::V4(to) => to.to_ipv6_mapped(),
            IpAddr::V6(to) => to,
        };
        socket.connect((to, PORT)).unwrap();
        socket
    });
    rate(TIME, || (0..100).filter(|_| socket.send(&[0; 64]).is_ok()).count())
}

fn nft(world: &Guarded, commands: &str) {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", &world.inside.name, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// How often everything is measured.
fn rounds() -> usize {
    std::env::var("SEAWALL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn allowed_traffic_is_about_as_fast_as_under_the_plainest_stateful_ruleset() {
    let mut world = Guarded::new();
    world.share();
    serve(&world);
    type Measure = fn(&Guarded, IpAddr) -> Rate;
    let measures: [(&str, Measure, IpAddr); 4] = [
        ("bulk TCP, IPv4 (GB/s)", bulk, OTHER4.into()),
        ("bulk TCP, IPv6 (GB/s)", bulk, OTHER6.into()),
        ("small UDP, IPv4 (10⁹/s)", small, OTHER4.into()),
        ("small UDP, IPv6 (10⁹/s)", small, OTHER6.into()),
    ];
    let mut figures = measures.map(|_| [Vec::new(), Vec::new(), Vec::new()]);
    let rounds = rounds();
    for round in 0..rounds {
        // Turn by turn, and each round in another order, so that what else the machine does is everybody's.
        for turn in 0..3 {
            let which = (turn + round) % 3;
            world.clear();
            world.doubt();
            match which {
                0 => nft(&world, PLAIN),
                1 => drop(world.apply_unguarded()),
                _ => drop(world.apply()),
            }
            for (figures, (_, measure, to)) in figures.iter_mut().zip(measures) {
                figures[which].push(measure(&world, to));
            }
            if which == 0 {
                nft(&world, "delete table inet plain");
            }
        }
    }
    println!(
        "medians of {rounds} rounds of {TIME:?}; of each round the ratio to the plain ruleset, and the median of those: \
         by the clock, and by the sender's processor time"
    );
    for ((what, _, _), [plain, policy, guarded]) in measures.into_iter().zip(figures) {
        let plain_rate = median(plain.iter().map(|rate| rate.wall).collect());
        print!("{what:24} plain {:.6}", plain_rate / 1e9);
        for (name, of) in [("policy", policy), ("policy and guard", guarded)] {
            let ratio = |by: fn(&Rate) -> f64| {
                median(of.iter().zip(&plain).map(|(own, plain)| by(own) / by(plain)).collect())
            };
            let (wall, processor) = (ratio(|rate| rate.wall), ratio(|rate| rate.processor));
            print!(", {name} {wall:.3} and {processor:.3}");
            assert!(wall > SANE && processor > SANE, "{what}, {name}");
        }
        println!();
    }
}
