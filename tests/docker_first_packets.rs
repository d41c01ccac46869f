//! Docker layer: containers that talk at their first instruction, with the runtime wrapper and without it.
//!
//! Counted on the host's side of their cables: packets outside their policy; and by the containers themselves: whether what
//! the policy allows works at once. How long `docker start` takes is measured beside plain runc in the same run and printed;
//! no time is asserted. `SEAWALL_STARTS=500` sets how many starts of each kind there are (40 otherwise); for figures to quote:
//! `cargo test --release --test docker_first_packets -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Capture, DockerHost, FIRST_WORD, OUTSIDE_NET4, OUTSIDE_NET6, Seawall, Shop};

/// The port of everything that is not allowed.
const DENIED: u16 = 47_474;

/// A policy that enforces, for everybody.
const SETTINGS: &str = "mode = \"enforce\"\nunknown = \"deny\"";

fn starts() -> usize {
    std::env::var("SEAWALL_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// What a kind of runtime was seen to do.
#[derive(Default)]
struct Tally {
    starts: usize,
    leaking_starts: usize,
    leaked_frames: usize,
    denied_reached: usize,
    allowed: usize,
    allowed_refused: usize,
    allowed_silent: usize,
    times: Vec<Duration>,
}

impl Tally {
    fn line(&self, name: &str) -> String {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        format!(
            "{name:<10} {:>6} {:>14} {:>13} {:>15} {:>15} {:>10.1} {:>10.1}",
            self.starts,
            self.leaking_starts,
            self.leaked_frames,
            self.denied_reached,
            format!("{} + {}", self.allowed_refused, self.allowed_silent),
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3,
        )
    }
}

#[test]
fn a_container_that_talks_at_its_first_instruction_keeps_to_its_policy() {
    let host = DockerHost::start();
    host.import_first_word();
    let shop = Shop::up(&host, "shop", 8080);
    let seawall = Seawall::start(&host, SETTINGS);
    seawall.install_runtime(&host);
    seawall.settle();
    let db = shop.service("db");
    let web = shop.service("web");
    // Somebody listens wherever nothing is allowed: on a neighbour, on the host, outside.
    let _servers = [
        db.tcp_server(DENIED),
        db.udp_server(DENIED),
        host.netns().tcp_server(DENIED),
        host.netns().udp_server(DENIED),
        host.outside().tcp_server(DENIED),
    ];
    let denied: Vec<IpAddr> = [db.ips(), web.ips(), vec![OUTSIDE_NET4, OUTSIDE_NET6]].concat();
    let allowed: Vec<SocketAddr> =
        db.ips().into_iter().map(|ip| SocketAddr::new(ip, 5432)).collect();

    let mut tallies = [("seawall", Tally::default()), ("runc", Tally::default())];
    for round in 0..starts() {
        for (runtime, tally) in &mut tallies {
            let name = format!("first-{runtime}-{round}");
            one_start(&host, &name, runtime, &allowed, &denied, tally);
        }
    }
    println!(
        "{:<10} {:>6} {:>14} {:>13} {:>15} {:>15} {:>10} {:>10}",
        "runtime",
        "starts",
        "leaking starts",
        "leaked frames",
        "denied reached",
        "refused+silent",
        "p50 ms",
        "p99 ms"
    );
    for (runtime, tally) in &tallies {
        println!("{}", tally.line(runtime));
    }
    let [(_, with), _] = &tallies;
    assert_eq!(with.leaked_frames, 0, "packets outside their policy");
    assert_eq!(with.denied_reached, 0, "connections outside their policy");
    // How many allowed connections did not work at once is printed. A busy machine can be too slow for one now and then.
    let failed = with.allowed_refused + with.allowed_silent;
    assert!(failed * 20 <= with.allowed, "{failed} of {} allowed connections failed", with.allowed);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    assert_eq!(seawall.log_at("WARN"), Vec::<String>::new());
}

/// Starts one container of the shop, and counts what left it.
fn one_start(
    host: &DockerHost,
    name: &str,
    runtime: &str,
    allowed: &[SocketAddr],
    denied: &[IpAddr],
    tally: &mut Tally,
) {
    let mut create: Vec<String> = [
        "create",
        "--name",
        name,
        "--runtime",
        runtime,
        "--network",
        "shop_backend",
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=job",
        "--label",
        "seawall.model=python",
        "--env",
        "DATABASE_URL=postgresql://db:5432/shop",
        FIRST_WORD,
    ]
    .map(str::to_owned)
    .to_vec();
    // What is denied first: its datagrams are the very first packets.
    create.extend(denied.iter().map(|ip| SocketAddr::new(*ip, DENIED).to_string()));
    create.extend(allowed.iter().map(ToString::to_string));
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    host.docker_ok(&create);
    let capture = Capture::of_port(&host.netns(), DENIED);
    let began = Instant::now();
    host.docker_ok(&["start", name]);
    tally.times.push(began.elapsed());
    host.docker_ok(&["wait", name]);
    let seen = capture.end();
    let said = host.docker_ok(&["logs", name]);
    host.docker_ok(&["rm", name]);

    tally.starts += 1;
    tally.leaked_frames += seen.len();
    tally.leaking_starts += usize::from(!seen.is_empty());
    let has_said = |address: &SocketAddr, word: &str| {
        said.lines().any(|line| line == format!("{address} {word}"))
    };
    let count = |word| allowed.iter().filter(|address| has_said(address, word)).count();
    tally.allowed += allowed.len();
    tally.allowed_refused += count("refused");
    tally.allowed_silent += count("silent");
    let denied = denied.iter().map(|ip| SocketAddr::new(*ip, DENIED));
    tally.denied_reached += denied.filter(|address| has_said(address, "reached")).count();
}
