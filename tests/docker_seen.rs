//! Docker layer: what is denied and connected is told with names, explained with the line that allows it, and costs little
//! however much of it there is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::{BufRead, BufReader, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Container, OUTSIDE_NET6, Seawall, Stage, until};
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use serde_json::Value;

const RESOLVERS: &str = "resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const SOON: Duration = Duration::from_secs(10);

fn enforce() -> String {
    format!("mode = \"enforce\"\nunknown = \"deny\"\n{RESOLVERS}")
}

/// Denials as `client → server port`.
fn denials(seawall: &Seawall) -> Vec<(String, Value)> {
    let all = seawall.json(&["explain"]);
    let all = all.as_array().cloned().unwrap_or_default();
    all.into_iter()
        .map(|one| {
            let denial = &one["denial"];
            let name = |party: &Value| match party["kind"].as_str() {
                Some("workload") => party["name"].as_str().unwrap_or_default().to_owned(),
                Some("host") => "host".to_owned(),
                _ => match party["name"].as_str() {
                    Some(name) => name.to_owned(),
                    None => party["address"].as_str().unwrap_or_default().to_owned(),
                },
            };
            let (client, server) = (name(&denial["client"]), name(&denial["server"]));
            let carried = denial["carried"].as_str().unwrap_or_default();
            (format!("{client} → {server} {carried}"), one)
        })
        .collect()
}

fn await_denial(seawall: &Seawall, what: &str) -> Value {
    let mut told = Vec::new();
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        told = denials(seawall);
        if let Some((_, one)) = told.iter().find(|(line, _)| line == what) {
            return one.clone();
        }
    }
    let lines: Vec<&str> = told.iter().map(|(line, _)| line.as_str()).collect();
    panic!("`{what}` is not told, but {lines:#?}")
}

#[test]
fn a_denial_is_told_with_names_and_explained_with_the_line_that_allows_it() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let (cache, db, web) = (shop.service("cache"), shop.service("db"), shop.service("web"));
    let seawall = Seawall::start(host, &enforce());
    let mut following = follow(&seawall);

    let to = db.ips_shared_with(&cache)[0];
    assert!(!cache.tcp(to, 5432).is_reached());
    let one = await_denial(&seawall, "shop/cache → shop/db 5432/tcp");
    let denial = &one["denial"];
    assert_eq!(denial["at"], "out", "{one:#}");
    assert_eq!(denial["enforced"], true);
    assert_eq!(denial["uid"], 0, "the probe is root's");
    assert_eq!(one["is_denied_now"], true);

    // Followed as it happens, with the statement that would have been needed.
    let event = following.next_of("denied");
    assert_eq!(event["denial"]["carried"], "5432/tcp", "{event:#}");
    let needed = event["needed"].as_str().unwrap().to_owned();
    let explained = seawall.cli_ok(&["explain", "shop/cache"]);
    for line in needed.lines() {
        assert!(explained.contains(line), "{line} is not in {explained}");
    }
    assert!(
        explained.contains("shop/cache → shop/db on 5432/tcp: denied at shop/cache"),
        "{explained}"
    );

    // A name is told as the container resolved it (`getent hosts` asks for IPv6 first).
    assert!(host.resolves(&web, "outside.test", None));
    assert!(!web.tcp(OUTSIDE_NET6, 443).is_reached());
    await_denial(&seawall, "shop/web → outside.test 443/tcp");

    // The very line allows it.
    seawall.write("policy.d/needed.toml", &needed);
    seawall.cli_ok(&["reload"]);
    until("the statement counts", SOON, || cache.tcp(to, 5432).is_reached());
    let explained = seawall.cli_ok(&["explain", "shop/cache"]);
    assert!(explained.contains("it is allowed by now"), "{explained}");
    assert!(explained.contains("needed.toml:1:1"), "with its file and line: {explained}");

    // And what was connected is on record, with what the policy says of it.
    let has_flow = || {
        let flows = seawall.json(&["flows", "shop/cache"]);
        flows.as_array().is_some_and(|flows| {
            flows.iter().any(|flow| {
                flow["client"]["name"] == "shop/cache"
                    && flow["server"]["name"] == "shop/db"
                    && flow["carried"] == "5432/tcp"
                    && flow["said"] == "allowed"
                    && flow["connections"].as_u64() >= Some(1)
            })
        })
    };
    until("the flow is on record", SOON, has_flow);
    let text = seawall.cli_ok(&["flows", "shop"]);
    assert!(
        text.lines().any(|line| line.contains("shop/cache") && line.contains("5432/tcp")),
        "{text}"
    );
    assert!(text.lines().next().is_some_and(|head| head.starts_with("CLIENT")), "{text}");
}

/// A `seawall events --follow` that runs.
struct Following {
    process: std::process::Child,
    lines: std::sync::mpsc::Receiver<Value>,
}

fn follow(seawall: &Seawall) -> Following {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("--socket").arg(seawall.socket());
    command.args(["events", "--follow", "--output", "json"]).stdout(Stdio::piped());
    let mut process = command.spawn().expect("our own program runs");
    let output = BufReader::new(process.stdout.take().expect("it is piped"));
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::Null);
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    Following { process, lines }
}

impl Following {
    /// The next event of a kind.
    #[track_caller]
    fn next_of(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) if event["kind"] == kind => return event,
                Ok(_) => {}
                Err(error) => panic!("no event of kind {kind}: {error}"),
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What every service of the shop tries at every other.
fn try_everything(all: &[(&str, Container)]) -> Vec<String> {
    let mut tried = Vec::new();
    for (client, from) in all {
        for (server, to) in all {
            if client == server {
                continue;
            }
            for ip in to.ips_shared_with(from) {
                for port in [5432, 6379] {
                    if !from.tcp(ip, port).is_reached() {
                        tried.push(format!("shop/{client} → shop/{server} {port}/tcp"));
                    }
                }
            }
        }
    }
    tried.sort();
    tried.dedup();
    tried
}

#[test]
fn observe_tells_of_exactly_the_connections_that_enforce_denies() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let all = ["web", "api", "db", "cache"].map(|name| (name, shop.service(name)));
    // Somebody answers everywhere, so that in observe there is a connection to be told of.
    let _servers: Vec<_> = all
        .iter()
        .flat_map(|(name, container)| {
            let own = match *name {
                "db" => 5432,
                "cache" => 6379,
                _ => 0,
            };
            [5432, 6379]
                .into_iter()
                .filter(move |port| *port != own)
                .map(|port| container.tcp_server(port))
        })
        .collect();
    let lines = |seawall: &Seawall| {
        let mut lines: Vec<String> = denials(seawall)
            .into_iter()
            .filter(|(_, one)| {
                one["denial"]["carried"]
                    .as_str()
                    .is_some_and(|c| c == "5432/tcp" || c == "6379/tcp")
            })
            .map(|(line, _)| line)
            .collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let observing = Seawall::start(host, &format!("mode = \"observe\"\n{RESOLVERS}"));
    assert_eq!(try_everything(&all), Vec::<String>::new(), "in observe everything passes");
    let denied_out = |seawall: &Seawall, name: &str| {
        seawall.status_of(&all.iter().find(|(one, _)| *one == name).unwrap().1.id)["denied_out"]
            .as_u64()
            .unwrap()
    };
    // A connection is counted once, however much it carries: IPv4 and IPv6, to one peer with two ports and one with two.
    let once = denied_out(&observing, "db");
    drop(observing);
    stage.bare();

    let observing = Seawall::start(host, &format!("mode = \"observe\"\n{RESOLVERS}"));
    try_everything(&all);
    let mut told = Vec::new();
    until("all that would be denied is told", SOON, || {
        let now = lines(&observing);
        let is_still = now == told && !now.is_empty();
        told = now;
        is_still
    });
    assert_eq!(denied_out(&observing, "db"), once, "the same again is counted the same");
    assert!(denials(&observing).iter().all(|(_, one)| one["denial"]["enforced"] == false));
    let flows = observing.json(&["flows", "--would-deny"]);
    assert!(!flows.as_array().unwrap().is_empty(), "they are on record as connections too");
    drop(observing);
    stage.bare();

    let enforcing = Seawall::start(host, &enforce());
    let denied = try_everything(&all);
    let deadline = Instant::now() + SOON;
    while lines(&enforcing) != denied && Instant::now() < deadline {}
    assert_eq!(lines(&enforcing), denied, "all that was denied is told");
    assert_eq!(told, denied, "observe and enforce say the same");
    println!("{} kinds of connections: told in observe, denied in enforce, the same", denied.len());
}

#[test]
fn a_mode_set_at_run_time_counts_at_once_and_outlives_the_daemon() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let (cache, db) = (shop.service("cache"), shop.service("db"));
    let to = db.ips_shared_with(&cache)[0];
    let mut seawall = Seawall::start(host, &format!("mode = \"observe\"\n{RESOLVERS}"));
    assert!(cache.tcp(to, 5432).is_reached(), "observed");
    let told = seawall.cli_ok(&["mode", "shop/cache", "enforce"]);
    assert!(told.contains("shop/cache") && told.contains("observe → enforce"), "{told}");
    assert!(!cache.tcp(to, 5432).is_reached());
    assert_eq!(seawall.status_of(&db.id)["mode"], "observe", "nobody else's");
    let listed = seawall.cli_ok(&["mode"]);
    assert!(
        listed.contains("project:shop service:cache") && listed.contains("enforce"),
        "{listed}"
    );

    seawall.kill9();
    assert!(!cache.tcp(to, 5432).is_reached());
    seawall.run();
    let status = seawall.status_of(&cache.id);
    assert_eq!(status["mode"], "enforce");
    assert!(status["mode_from"].as_str().unwrap().contains("modes.toml"), "{status:#}");
    assert!(!cache.tcp(to, 5432).is_reached());

    seawall.cli_ok(&["mode", "shop/cache", "default"]);
    assert!(cache.tcp(to, 5432).is_reached(), "observed again");
    for wrong in [
        &["mode", "colour:red", "off"][..],
        &["mode", "shop", "off"],
        &["mode", "name:nobody-set", "default"],
    ] {
        let output = seawall.cli(wrong);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let kinds = seawall.json(&["events", "--kind", "mode"]);
    assert!(!kinds.as_array().unwrap().is_empty(), "it is on record who may do what");
}

/// A process's own figures.
struct Cost {
    /// Processor time, in clock ticks.
    ticks: u64,
    /// Resident memory, in KiB.
    resident: u64,
}

fn cost(pid: u32) -> Cost {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Cost { ticks, resident }
}

/// Sends as much as it can, many datagrams with each call. Returns how many.
fn flood(to: SocketAddr, began: Instant, time: Duration) -> u64 {
    const AT_ONCE: usize = 256;
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    let payload = *b"flood";
    let slices: Vec<[IoSlice<'_>; 1]> = vec![[IoSlice::new(&payload)]; AT_ONCE];
    let mut headers = MultiHeaders::<()>::preallocate(AT_ONCE, None);
    let addresses: Vec<Option<()>> = vec![None; AT_ONCE];
    let mut sent = 0;
    while began.elapsed() < time {
        let result =
            sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty());
        sent += result.map_or(0, |results| results.count() as u64);
    }
    sent
}

#[test]
fn a_flood_of_denials_costs_little_and_is_counted_to_the_packet() {
    const SECONDS: u64 = 5;
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let cache = shop.service("cache");
    let seawall = Seawall::start(host, &enforce());
    let pid = seawall.pid();
    shop.await_visit();
    let ip = cache.ips().into_iter().find(|ip| ip.is_ipv4()).unwrap();
    let to = SocketAddr::new(ip, 9);
    let received = || {
        cache.netns().run(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let line = text.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
            line.split_once(':')
                .unwrap()
                .1
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
    };
    let denied = || seawall.status_of(&cache.id)["denied_in"].as_u64().unwrap();
    let (log_before, denied_before, received_before) = (seawall.log().len(), denied(), received());
    let (before, began) = (cost(pid), Instant::now());
    let netns = host.netns();
    let mut visits = 0;
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| netns.run(|| flood(to, began, Duration::from_secs(SECONDS))));
        while began.elapsed() < Duration::from_secs(SECONDS) {
            shop.visit().expect("allowed traffic goes on");
            visits += 1;
        }
        flood.join().unwrap()
    });
    let took = began.elapsed();
    let after = cost(pid);
    let (counted, arrived) = (denied() - denied_before, received() - received_before);
    let cpu = (after.ticks - before.ticks) as f64 / 100.0 / took.as_secs_f64();
    let logged: u64 = denials(&seawall)
        .iter()
        .filter(|(line, _)| line == "host → shop/cache 9/udp")
        .map(|(_, one)| one["denial"]["logged"].as_u64().unwrap())
        .sum();
    println!(
        "{sent} packets sent in {took:.1?} ({} a second), {arrived} arrived at the link (with everything else), \
         {counted} counted as denied, {logged} logged; the daemon took {:.1} % of a processor and {} KiB ({} before); \
         {visits} visits to the shop meanwhile, all served",
        sent * 1000 / took.as_millis() as u64,
        cpu * 100.0,
        after.resident,
        before.resident
    );
    // Besides the flood only the shop's own traffic with its cache came through that link.
    assert!(counted <= arrived && counted <= sent, "{counted} of {arrived}");
    let others = arrived - counted;
    assert!(others <= 200 * visits + 1000, "{others} packets were not counted");
    assert!(logged > 0 && logged <= 20 + 10 * (took.as_secs() + 2), "within the limit: {logged}");
    assert!(visits > 0);
    let log = seawall.log();
    assert!(log.len() - log_before < 16 << 10, "{}", &log[log_before..]);
    let events = seawall.json(&["events", "--kind", "denied"]);
    let about = |one: &&Value| one["denial"]["carried"] == "9/udp";
    assert!(events.as_array().unwrap().iter().filter(about).count() <= 2, "{events:#}");
}

#[test]
fn what_was_seen_outlives_the_daemon_and_is_counted_for_prometheus() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let (cache, db) = (shop.service("cache"), shop.service("db"));
    let to = db.ips_shared_with(&cache)[0];
    let mut seawall = Seawall::start(host, &enforce());
    assert!(!cache.tcp(to, 5432).is_reached());
    await_denial(&seawall, "shop/cache → shop/db 5432/tcp");
    let before = seawall.json(&["events"]);
    let last = before.as_array().unwrap().last().unwrap()["sequence"].as_u64().unwrap();
    seawall.stop();
    seawall.run();
    await_denial(&seawall, "shop/cache → shop/db 5432/tcp");
    let after = seawall.json(&["events"]);
    let after = after.as_array().unwrap();
    let numbers: Vec<u64> = after.iter().map(|one| one["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.contains(&last), "{last} is not in {numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");

    let mut curl = Command::new("curl");
    curl.arg("-sf").arg("--unix-socket").arg(seawall.socket());
    let output = curl.arg("http://localhost/v1/metrics").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["seawall_store_problem 0", "seawall_source_up{source=\"Docker\"} 1"] {
        assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
    }
    assert!(text.contains("seawall_workload_denied_packets_total{"), "{text}");

    // A store that is broken is told, and changes nothing else.
    seawall.stop();
    seawall.write("state/observed.sqlite", "this is no database, and never was one");
    seawall.run();
    assert!(!cache.tcp(to, 5432).is_reached());
    await_denial(&seawall, "shop/cache → shop/db 5432/tcp");
    let problems = seawall.settled()["problems"].to_string();
    assert!(problems.contains("observed.sqlite"), "{problems}");
}
