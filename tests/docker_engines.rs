//! Docker layer: the shop, its neighbours and its ports, on each Docker that Debian ships: 20.10, 26.1 and 28.5.

mod harness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Container, DockerHost, Engine, OUTSIDE_NET4, OUTSIDE_NET6, Seawall, Shop, until};

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn docker_20_10_of_debian_12_is_served() {
    serves(Engine::Bookworm, "");
}

#[test]
fn docker_26_1_of_debian_13_is_served() {
    serves(Engine::Trixie, "26.1");
}

#[test]
fn docker_28_5_of_debian_sid_is_served() {
    serves(Engine::Sid, "28.5");
}

#[test]
fn what_docker_28_announces_of_a_containers_addresses_is_never_refused() {
    let host = DockerHost::start_engine(Engine::Sid);
    let seawall = Seawall::start(&host, ENFORCE);
    for name in ["first", "second"] {
        host.docker_ok(&["network", "create", "--ipv6", name]);
    }
    // Docker gives a container up when it cannot announce an address; it does so while the netns is being programmed.
    for _ in 0..20 {
        let run = ["--network", "first", "--stop-timeout", "0", "busybox:1", "sleep", "900"];
        let guest = host.guest(&run);
        host.docker_ok(&["network", "connect", "second", &guest.id]);
        host.docker_ok(&["network", "disconnect", "first", &guest.id]);
    }
    let log = seawall.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

/// All that follows, in one life of one daemon.
fn serves(engine: Engine, version: &str) {
    let start = Instant::now();
    let host = DockerHost::start_engine(engine);
    let found = host.docker_ok(&["version", "--format", "{{.Server.Version}}"]);
    assert!(found.starts_with(version), "{engine:?} has Docker {found}");
    let seawall = Seawall::start(&host, ENFORCE);
    // Everything is started while the daemon looks on.
    let shop = Shop::up(&host, "shop", 8090);
    shop.visit6().expect("IPv6 serves too");
    everybody_is_programmed(&seawall, &shop);
    pairs_are_judged(&shop);
    names_resolve(&host, &shop);
    ports_are_open_to_whom_they_are_published_to(&host);
    a_stopped_store_comes_back(&host, &shop);
    a_network_is_joined_and_left(&host, &seawall, &shop);
    everybody_is_programmed(&seawall, &shop);
    let log = seawall.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    println!("Docker {found}: {} s", start.elapsed().as_secs());
}

fn everybody_is_programmed(seawall: &Seawall, shop: &Shop<'_>) {
    for service in ["web", "api", "db", "cache"] {
        let container = shop.service(service);
        let status = seawall.status_of(&container.id);
        assert_eq!(status["mode"], "enforce", "{status:#}");
        let coverage = status["coverage"].as_str().unwrap_or_default();
        assert!(coverage == "enforced" || coverage.contains("NET_RAW"), "{status:#}");
        assert!(container.table().is_some(), "{service}");
    }
}

fn pairs_are_judged(shop: &Shop<'_>) {
    let [web, api, db, cache] = ["web", "api", "db", "cache"].map(|name| shop.service(name));
    for (from, to, port) in [(&web, &api, 8000), (&api, &db, 5432), (&api, &cache, 6379)] {
        for ip in to.ips_shared_with(from) {
            assert!(from.tcp(ip, port).is_reached(), "{} → {ip}", from.name);
        }
    }
    for (from, to, port) in
        [(&web, &db, 5432), (&web, &cache, 6379), (&cache, &db, 5432), (&db, &api, 8000)]
    {
        for ip in to.ips() {
            assert!(!from.tcp(ip, port).is_reached(), "{} → {ip}", from.name);
        }
    }
    for from in [&web, &api, &db, &cache] {
        for ip in [OUTSIDE_NET4, OUTSIDE_NET6] {
            assert!(!from.tcp(ip, 443).is_reached(), "{} → {ip}", from.name);
        }
    }
}

fn names_resolve(host: &DockerHost, shop: &Shop<'_>) {
    let api = shop.service("api");
    for (name, resolver, is_answered) in [
        ("db", None, true),
        ("outside.test", None, true),
        ("outside.test", Some("203.0.113.53"), true),
        ("outside.test", Some("2001:db8:53::53"), true),
        ("outside.test", Some("9.9.9.9"), false),
        ("outside.test", Some("2620:fe::9"), false),
    ] {
        assert_eq!(host.resolves(&api, name, resolver), is_answered, "{name} of {resolver:?}");
    }
}

fn ports_are_open_to_whom_they_are_published_to(host: &DockerHost) {
    let world = host.guest(&["-p", "9001:80", "nginx:1.22"]);
    let local = host.guest(&["-p", "127.0.0.1:9002:80", "nginx:1.22"]);
    let own = host.netns();
    for port in [9001, 9002] {
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let serves = || own.http(to, "/", LIMIT).is_ok_and(|(status, _)| status == 200);
        until("nginx serves", Duration::from_secs(20), serves);
    }
    let outside = host.outside();
    for ip in [DockerHost::ADDR4, DockerHost::ADDR6] {
        let (status, _) = outside.http(SocketAddr::new(ip, 9001), "/", LIMIT).expect("it serves");
        assert_eq!(status, 200, "{ip}");
        assert!(!outside.tcp(SocketAddr::new(ip, 9002), LIMIT).is_reached(), "{ip}");
    }
    // Docker until 27 forwards what comes for a container's own address, published to whom it may be.
    assert!(!outside.tcp(SocketAddr::new(local.ips()[0], 80), LIMIT).is_reached());
    drop(world);
}

fn a_stopped_store_comes_back(host: &DockerHost, shop: &Shop<'_>) {
    let before = shop.await_visit();
    for verbs in [&["stop", "start"][..], &["restart"], &["kill", "start"]] {
        let (db, cache) = (shop.service("db"), shop.service("cache"));
        for verb in verbs {
            host.docker_ok(&[*verb, &db.id, &cache.id]);
        }
        shop.await_visit();
        assert_ne!(shop.service("db").pid, db.pid);
    }
    assert!(shop.await_visit().sql > before.sql);
}

fn a_network_is_joined_and_left(host: &DockerHost, seawall: &Seawall, shop: &Shop<'_>) {
    let subnets = ["--subnet", "172.29.9.0/24", "--subnet", "fd5e:d0c:0:99::/64"];
    host.docker_ok(&[&["network", "create", "--ipv6"], &subnets[..], &["side"]].concat());
    let api = shop.service("api");
    let reaches = |api: &Container, ip: IpAddr| api.tcp(ip, 5432).is_reached();
    host.docker_ok(&["network", "connect", "side", &shop.service("db").id]);
    host.docker_ok(&["network", "connect", "side", &api.id]);
    let db = shop.service("db");
    let (v4, v6) = db.addresses["side"];
    let (v4, v6) = (v4.expect("it has IPv4"), v6.expect("it has IPv6"));
    let ips: [IpAddr; 2] = [v4.into(), v6.into()];
    for ip in ips {
        until("the application reaches its store there too", Duration::from_secs(5), || {
            reaches(&api, ip)
        });
    }
    host.docker_ok(&["network", "disconnect", "side", &db.id]);
    let squatter = host.guest(&[
        "--network",
        "side",
        "--ip",
        &ips[0].to_string(),
        "--ip6",
        &ips[1].to_string(),
        "--label",
        "seawall.mode=off",
        "busybox:1",
        "sleep",
        "900",
    ]);
    let _server = squatter.tcp_server(5432);
    seawall.settled();
    for ip in ips {
        assert!(!reaches(&api, ip), "{ip}");
    }
    host.docker_ok(&["network", "disconnect", "side", &api.id]);
}
