//! Kernel layer: what allowed traffic costs under seawall's whole ruleset and its guard, beside the plainest stateful
//! ruleset there is, in the same run and turn by turn. The ratios are printed; they are asserted only as far as a busy
//! machine can be trusted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/guarded.rs"]
mod guarded;
#[path = "kernel/netns.rs"]
mod netns;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guarded::{Guarded, OTHER4, OTHER6, PORT};
use netns::inside_of;

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
const ROUNDS: usize = 11;
const TIME: Duration = Duration::from_millis(400);
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

/// Bytes a second over one TCP connection.
fn bulk(world: &Guarded, to: IpAddr) -> f64 {
    let mut stream = inside_of(&world.inside, move || {
        TcpStream::connect_timeout(&SocketAddr::new(to, PORT), Duration::from_secs(5)).unwrap()
    });
    let data = vec![0; 256 << 10];
    // Past the slow start.
    for _ in 0..64 {
        stream.write_all(&data).unwrap();
    }
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        stream.write_all(&data).unwrap();
        sent += data.len();
    }
    sent as f64 / began.elapsed().as_secs_f64()
}

/// Small datagrams a second over one socket.
fn small(world: &Guarded, to: IpAddr) -> f64 {
    let socket = inside_of(&world.inside, move || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let to = match to {
            IpAddr::V4(to) => to.to_ipv6_mapped(),
            IpAddr::V6(to) => to,
        };
        socket.connect((to, PORT)).unwrap();
        socket
    });
    let (began, mut sent) = (Instant::now(), 0u32);
    while began.elapsed() < TIME {
        for _ in 0..100 {
            sent += u32::from(socket.send(&[0; 64]).is_ok());
        }
    }
    f64::from(sent) / began.elapsed().as_secs_f64()
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn allowed_traffic_is_about_as_fast_as_under_the_plainest_stateful_ruleset() {
    let mut world = Guarded::new();
    world.share();
    serve(&world);
    type Measure = fn(&Guarded, IpAddr) -> f64;
    let measures: [(&str, Measure, IpAddr); 4] = [
        ("bulk TCP, IPv4 (GB/s)", bulk, OTHER4.into()),
        ("bulk TCP, IPv6 (GB/s)", bulk, OTHER6.into()),
        ("small UDP, IPv4 (10⁹/s)", small, OTHER4.into()),
        ("small UDP, IPv6 (10⁹/s)", small, OTHER6.into()),
    ];
    let mut figures = measures.map(|_| [Vec::new(), Vec::new(), Vec::new()]);
    for round in 0..ROUNDS {
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
    println!("medians of {ROUNDS} rounds, each of {TIME:?}; the ratio is to the plain ruleset");
    for ((what, _, _), figures) in measures.into_iter().zip(figures) {
        let [plain, policy, guarded] = figures.map(median);
        let (policy_ratio, guarded_ratio) = (policy / plain, guarded / plain);
        println!(
            "{what:24} plain {:.6}, policy {:.6} ({policy_ratio:.3}), policy and guard {:.6} ({guarded_ratio:.3})",
            plain / 1e9,
            policy / 1e9,
            guarded / 1e9,
        );
        assert!(policy_ratio > SANE && guarded_ratio > SANE, "{what}");
    }
}
