//! Docker layer: who reaches whom, by real packets, is what policy says, for every pair, port, protocol and family.

mod harness;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Container, DockerHost, Netns, Oracle, Probe, Seawall, Server, Stage};
use seawall::metadata::{L4Proto, WorkloadId};
use seawall::policy::{Endpoint, Packet};

const PORTS: [u16; 8] = [22, 80, 443, 5432, 6379, 8000, 8080, 40001];
const OUTSIDE: [&str; 2] = ["192.168.231.1", "fd5e:2310::1"];
const SETTINGS: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                        resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
/// Shorter than TCP's second SYN, so that one packet decides.
const LIMIT: Duration = Duration::from_millis(800);
/// Most probes only wait.
const AT_ONCE: usize = 48;

/// Somebody who calls and is called.
struct Party {
    name: &'static str,
    netns: Netns,
    container: Option<Container>,
}

/// One probe, and what policy says of it.
struct Case {
    client: usize,
    server: usize,
    to: IpAddr,
    packet: Packet,
    allowed: bool,
}

#[test]
fn whoever_reaches_whom_is_what_policy_says() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    // On the shop's own networks, as an attacker who got that far: one no model knows, and one that is known but no
    // part of the shop. And one on Docker's default network.
    let both = |image: &[&str]| {
        let mut guest = host.guest(&[&["--network", "shop_frontend"], image].concat());
        host.docker_ok(&["network", "connect", "shop_backend", &guest.id]);
        guest.look();
        guest
    };
    let intruder = both(&["busybox:1", "sleep", "900"]);
    let stranger = both(&["nginx:1.22"]);
    let bystander = host.guest(&["busybox:1", "sleep", "900"]);

    let container = |name, container: &Container| Party {
        name,
        netns: container.netns(),
        container: Some(container.clone()),
    };
    let parties = [
        container("web", &shop.service("web")),
        container("api", &shop.service("api")),
        container("db", &shop.service("db")),
        container("cache", &shop.service("cache")),
        container("intruder", &intruder),
        container("stranger", &stranger),
        container("bystander", &bystander),
        Party { name: "host", netns: host.netns(), container: None },
        Party { name: "outside", netns: host.outside(), container: None },
    ];
    let _servers: Vec<Server> = parties.iter().flat_map(servers).collect();

    let mut seawall = Seawall::prepare(host, SETTINGS);
    let oracle = Oracle::of(host, &seawall);
    let cases = cases(&parties, &oracle);
    let before = probe_all(&parties, &cases, |_| 1);
    seawall.run();
    // What should be reached is tried again when the machine is busy; what should not be is tried once.
    let after = probe_all(&parties, &cases, |case| if case.allowed { 5 } else { 1 });

    let wrong: Vec<String> = cases
        .iter()
        .zip(&after)
        .filter(|(case, probe)| probe.is_reached() != case.allowed)
        .map(|(case, probe)| {
            let word = if case.allowed { "allowed" } else { "denied" };
            format!("{}: {probe:?}, but policy says {word}", describe(&parties, case))
        })
        .collect();
    let reached = |probes: &[Probe]| probes.iter().filter(|probe| probe.is_reached()).count();
    println!(
        "{} probes over {} pairs: {} reached without seawall, {} with it, {} unlike policy",
        cases.len(),
        parties.len() * (parties.len() - 1),
        reached(&before),
        reached(&after),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Most of what is denied now was possible before: it is seawall that denies it.
    assert!(reached(&before) > 10 * reached(&after));
    agrees_with_the_command(&seawall, &parties, &cases);
    shows_the_shop(&parties, &cases, &after);
}

/// Listeners on all ports, so that a refusal is nobody's but a firewall's.
fn servers(party: &Party) -> Vec<Server> {
    let is_taken = |port: u16| {
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        party.netns.tcp(own, LIMIT).is_reached()
    };
    let tcp = PORTS.into_iter().filter(|port| !is_taken(*port));
    let mut servers: Vec<Server> = tcp.map(|port| party.netns.tcp_server(port)).collect();
    servers.extend(PORTS.map(|port| party.netns.udp_server(port)));
    servers
}

fn cases(parties: &[Party], oracle: &Oracle) -> Vec<Case> {
    let tcp_udp = [L4Proto::Tcp, L4Proto::Udp];
    let ports =
        PORTS.into_iter().flat_map(|port| tcp_udp.map(|proto| Packet::Port { proto, port }));
    let packets: Vec<Packet> = ports.chain([Packet::Ping]).collect();
    let mut cases = Vec::new();
    for client in 0..parties.len() {
        for server in (0..parties.len()).filter(|server| *server != client) {
            for (to, from_end, to_end) in paths(&parties[client], &parties[server], oracle) {
                for packet in packets.iter().copied() {
                    let allowed = oracle.verdict(&from_end, &to_end, packet).allowed;
                    cases.push(Case { client, server, to, packet, allowed });
                }
            }
        }
    }
    cases
}

/// Every address of the server that the client may try, with the question to policy that it is.
fn paths(client: &Party, server: &Party, oracle: &Oracle) -> Vec<(IpAddr, Endpoint, Endpoint)> {
    let outside = || OUTSIDE.map(|ip| ip.parse::<IpAddr>().expect("an address"));
    let workload = |container: &Container| Endpoint::Workload(WorkloadId::new(&container.id));
    match (&client.container, &server.container) {
        (Some(from), Some(to)) => {
            let shared = to.ips_shared_with(from);
            let path = |ip: IpAddr| {
                // An address on a network they do not share is no address of anybody's to the client.
                let end = if shared.contains(&ip) { Endpoint::Address(ip) } else { workload(to) };
                (ip, workload(from), end)
            };
            let own: Vec<IpAddr> = if shared.is_empty() { to.ips() } else { shared.clone() };
            own.into_iter().map(path).collect()
        }
        (Some(from), None) if server.name == "host" => {
            let mut own = oracle.gateways(from);
            own.extend([DockerHost::ADDR4, DockerHost::ADDR6]);
            own.into_iter().map(|ip| (ip, workload(from), Endpoint::Address(ip))).collect()
        }
        (Some(from), None) => {
            outside().map(|ip| (ip, workload(from), Endpoint::Address(ip))).into()
        }
        (None, Some(to)) if client.name == "host" => {
            to.ips().into_iter().map(|ip| (ip, Endpoint::Host, workload(to))).collect()
        }
        (None, Some(to)) => {
            let from = |ip: IpAddr| outside()[usize::from(ip.is_ipv6())];
            let path = |ip| (ip, Endpoint::Address(from(ip)), workload(to));
            to.ips().into_iter().map(path).collect()
        }
        (None, None) if server.name == "host" => [DockerHost::ADDR4, DockerHost::ADDR6]
            .map(|ip| (ip, Endpoint::Address(outside()[0]), Endpoint::Host))
            .into(),
        (None, None) => outside().map(|ip| (ip, Endpoint::Host, Endpoint::Address(ip))).into(),
    }
}

fn probe_all(
    parties: &[Party],
    cases: &[Case],
    tries: impl Fn(&Case) -> usize + Sync,
) -> Vec<Probe> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, case)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(number).map(|case| (number, case))
                } {
                    let mut probe = Probe::TimedOut;
                    for _ in 0..tries(case) {
                        probe = one(&parties[case.client].netns, case);
                        if probe.is_reached() {
                            break;
                        }
                    }
                    results.lock().expect("no probe panics").insert(number, probe);
                }
            });
        }
    });
    results.into_inner().expect("no probe panics").into_values().collect()
}

fn one(client: &Netns, case: &Case) -> Probe {
    match case.packet {
        Packet::Port { proto: L4Proto::Tcp, port } => {
            client.tcp(SocketAddr::new(case.to, port), LIMIT)
        }
        Packet::Port { port, .. } => client.udp(SocketAddr::new(case.to, port), LIMIT),
        Packet::Ping => client.ping(case.to, LIMIT),
    }
}

fn describe(parties: &[Party], case: &Case) -> String {
    let (client, server) = (parties[case.client].name, parties[case.server].name);
    format!("{client} → {server} ({}) {}", case.to, case.packet)
}

/// `seawall test` answers as the library does: both ends named, for every pair of containers and a few packets.
fn agrees_with_the_command(seawall: &Seawall, parties: &[Party], cases: &[Case]) {
    let mut asked = 0;
    let mut expected: BTreeMap<(usize, usize, Packet), bool> = BTreeMap::new();
    for case in cases {
        *expected.entry((case.client, case.server, case.packet)).or_default() |= case.allowed;
    }
    let tcp = |port| Packet::Port { proto: L4Proto::Tcp, port };
    for ((client, server, packet), allowed) in expected {
        let (client, server) = (&parties[client], &parties[server]);
        let (Some(from), Some(to)) = (&client.container, &server.container) else { continue };
        // Each call asks Docker and containerd: the ports that matter are enough.
        if ![tcp(5432), tcp(8000)].contains(&packet) {
            continue;
        }
        let output = seawall.cli(&[
            "test",
            &from.name,
            &format!("{}:{packet}", to.name),
            "--output",
            "json",
        ]);
        let verdict: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(verdict["allowed"], allowed, "{} → {}: {verdict:#}", client.name, server.name);
        assert_eq!(output.status.code(), Some(i32::from(!allowed)));
        asked += 1;
    }
    println!("{asked} answers of `seawall test` are the same");
}

/// That policy is followed says nothing if policy is wrong: the shop's own pairs, spelt out.
fn shows_the_shop(parties: &[Party], cases: &[Case], probes: &[Probe]) {
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    for (case, _) in cases.iter().zip(probes).filter(|(_, probe)| probe.is_reached()) {
        let (client, server) = (parties[case.client].name, parties[case.server].name);
        if ![client, server].iter().all(|name| ["host", "outside"].contains(name)) {
            *reached.entry(format!("{client} → {server} {}", case.packet)).or_default() += 1;
        }
    }
    let lines: Vec<&str> = reached.keys().map(String::as_str).collect();
    let expected = EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty());
    assert_eq!(lines, expected.collect::<Vec<_>>());
    assert!(reached.values().all(|count| count % 2 == 0), "IPv4 and IPv6 alike: {reached:?}");
}

/// Services by what each application is, ping inside the shop, the host to what is provided, the world to what is published.
const EXPECTED: &str = "
    api → cache 6379/tcp
    api → cache ping
    api → db 5432/tcp
    api → db ping
    api → web ping
    cache → api ping
    cache → db ping
    db → api ping
    db → cache ping
    host → api 8000/tcp
    host → api ping
    host → cache 6379/tcp
    host → cache ping
    host → db 5432/tcp
    host → db ping
    host → stranger 443/tcp
    host → stranger 443/udp
    host → stranger 80/tcp
    host → stranger 8080/tcp
    host → stranger ping
    host → web 443/tcp
    host → web 443/udp
    host → web 80/tcp
    host → web 8080/tcp
    host → web ping
    outside → web 80/tcp
    web → api 8000/tcp
    web → api ping
";
