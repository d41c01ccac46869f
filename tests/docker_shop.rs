//! Docker layer: a shop of nginx, Python, PostgreSQL and Redis goes on working under enforcement, whatever becomes of its containers.

mod harness;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Container, DockerHost, Guest, Probe, Seawall, Shop, Stage, eventually, until};
use serde_json::Value;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const LIMIT: Duration = Duration::from_millis(800);

#[test]
fn visitors_from_outside_are_served_by_real_queries() {
    let stage = Stage::take();
    let shop = stage.shop();
    let seawall = Seawall::start(stage.host, ENFORCE);
    let first = shop.visit().unwrap();
    let second = shop.visit6().unwrap();
    assert_eq!((second.sql, second.redis), (first.sql + 1, first.redis + 1));
    let third = shop.visit().unwrap();
    assert_eq!((third.sql, third.redis), (first.sql + 2, first.redis + 2));
    println!("visit {third:?}, all of {}", in_force(&seawall, shop));
}

#[test]
fn the_application_speaks_with_its_stores_in_their_own_protocols() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let _seawall = Seawall::start(host, ENFORCE);
    let api = shop.service("api");
    let query = "import os, psycopg2\n\
                 c = psycopg2.connect(os.environ['DATABASE_URL'], connect_timeout=3).cursor()\n\
                 c.execute('SELECT 6 * 7')\n\
                 print(c.fetchone()[0])";
    assert_eq!(said(host, &api, &["python3", "-c", query]), "42");
    let command = "import os, redis\n\
                   r = redis.Redis.from_url(os.environ['REDIS_URL'], socket_connect_timeout=3)\n\
                   r.set('answer', 42)\n\
                   print(r.get('answer').decode())";
    assert_eq!(said(host, &api, &["python3", "-c", command]), "42");
    // The same from the proxy: it has no business there, whatever it knows of passwords.
    let web = shop.service("web");
    let db = shop.service("db");
    for ip in db.ips() {
        assert!(!web.tcp(ip, 5432).is_reached(), "{ip}");
    }
}

#[test]
fn a_published_port_is_open_to_whom_it_is_published_to() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "ports"]);
    let _network = Removed(host, &["network", "rm", "ports"]);
    let _world = host.guest(&["--network", "ports", "-p", "9001:80", "nginx:1.22"]);
    let local = host.guest(&["--network", "ports", "-p", "127.0.0.1:9002:80", "nginx:1.22"]);
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let (outside, own) = (host.outside(), host.netns());
    until("both serve", Duration::from_secs(20), || {
        [(localhost, 9001), (localhost, 9002)]
            .iter()
            .all(|(ip, port)| own.http(SocketAddr::new(*ip, *port), "/", LIMIT).is_ok())
    });
    // Docker forwards packets for the container's own address to whatever port is published, even on 127.0.0.1 only.
    let direct = SocketAddr::new(local.ips()[0], 80);
    assert!(
        outside.tcp(direct, LIMIT).is_reached(),
        "Docker stops this itself: prove it otherwise"
    );

    let _seawall = Seawall::start(host, ENFORCE);
    for ip in [DockerHost::ADDR4, DockerHost::ADDR6] {
        let (status, _) = outside.http(SocketAddr::new(ip, 9001), "/", LIMIT * 3).unwrap();
        assert_eq!(status, 200, "{ip}");
        assert!(!outside.tcp(SocketAddr::new(ip, 9002), LIMIT).is_reached(), "{ip}");
    }
    let (status, _) = own.http(SocketAddr::new(localhost, 9002), "/", LIMIT * 3).unwrap();
    assert_eq!(status, 200);
    assert_eq!(outside.tcp(direct, LIMIT), Probe::TimedOut, "{direct}");
}

#[test]
fn scaling_changes_the_elements_of_others_and_nothing_else() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let _one = Scaled(shop);
    let seawall = Seawall::start(host, ENFORCE);
    let before: BTreeSet<String> = ids(host);
    let start = seawall.changes().len();

    shop.compose(&["up", "-d", "--no-recreate", "--scale", "api=3"]);
    let replicas = shop.replicas("api");
    assert_eq!(replicas.len(), 3);
    let (db, cache) = (shop.service("db"), shop.service("cache"));
    until("all three reach the stores", Duration::from_secs(10), || {
        replicas.iter().all(|api| reaches(api, &db, 5432) && reaches(api, &cache, 6379))
    });
    shop.await_visit();
    seawall.settled();
    let grown = of_others(&seawall.changes()[start..], &before);
    assert!(grown.len() >= 3, "web, db and cache must learn of the replicas: {grown:#?}");
    for change in &grown {
        assert_eq!(change["is_elements_only"], true, "{change:#}");
        assert_eq!(change["is_revoking"], false, "{change:#}");
    }
    let names = ["web", "db", "cache"].map(|service| shop.service(service).id);
    for id in &names {
        assert!(grown.iter().any(|change| change["id"] == id.as_str()));
    }

    let middle = seawall.changes().len();
    shop.compose(&["up", "-d", "--no-recreate", "--scale", "api=1"]);
    assert_eq!(shop.replicas("api").len(), 1);
    let shrunk = eventually("the others forget the replicas", Duration::from_secs(10), || {
        let shrunk = of_others(&seawall.changes()[middle..], &before);
        let forgot = |id: &String| shrunk.iter().any(|change| change["id"] == id.as_str());
        names.iter().all(forgot).then_some(shrunk)
    });
    for change in &shrunk {
        assert_eq!(
            change["is_elements_only"], false,
            "a revocation raises the generation: {change:#}"
        );
        assert_eq!(change["is_revoking"], true, "{change:#}");
    }
    shop.await_visit();
    println!(
        "scale 1 → 3: {} transactions of others, elements only, none revokes; 3 → 1: {}, each revokes",
        grown.len(),
        shrunk.len()
    );
}

#[test]
fn whoever_gets_the_address_of_a_stopped_container_gets_nothing_with_it() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let seawall = Seawall::start(host, ENFORCE);
    let _all = Scaled(shop);
    let before = shop.await_visit();
    for (service, network) in [("db", "shop_backend"), ("api", "shop_backend")] {
        let (db, api) = (shop.service("db"), shop.service("api"));
        let stopped = shop.service(service);
        let old = stopped.addresses[network];
        host.docker_ok(&["stop", "--time", "2", &stopped.id]);
        // Nothing of the newcomer's own policy protects anybody: its mode is off.
        let newcomer = squatter(host, network, old);
        let _server = newcomer.tcp_server(5432);
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut tries = 0;
        while Instant::now() < deadline {
            for ip in newcomer.ips() {
                match service {
                    "db" => assert!(!api.tcp(ip, 5432).is_reached(), "{ip}"),
                    _ => {
                        for ip in db.ips() {
                            let limit = Duration::from_millis(200);
                            let probe = newcomer.netns().tcp(SocketAddr::new(ip, 5432), limit);
                            assert!(!probe.is_reached(), "{ip}");
                        }
                    }
                }
                tries += 1;
            }
        }
        host.docker_ok(&["start", &stopped.id]);
        let now = shop.service(service).addresses[network];
        assert_ne!(now, old, "the newcomer holds the old address");
        shop.await_visit();
        println!(
            "{service} moved from {old:?} to {now:?}; {tries} rounds of the newcomer's in vain"
        );
        drop(newcomer);
        seawall.settled();
    }
    assert!(shop.visit().unwrap().sql > before.sql);
    assert!(!seawall.log().contains("ERROR"), "{}", seawall.log());
}

/// A container that seawall does not filter, and that has at least the IPv4 address of another on a network.
fn squatter(
    host: &'static DockerHost,
    network: &str,
    wanted: (Option<Ipv4Addr>, Option<std::net::Ipv6Addr>),
) -> Guest<'static> {
    // Docker gives the lowest free address; others may be free below it.
    let mut held: Vec<Guest<'static>> = Vec::new();
    for _ in 0..8 {
        let guest = host.guest(&[
            "--network",
            network,
            "--label",
            "seawall.mode=off",
            "busybox:1",
            "sleep",
            "900",
        ]);
        if guest.addresses[network].0 == wanted.0 {
            return guest;
        }
        held.push(guest);
    }
    panic!("none of {} containers got {wanted:?}", held.len());
}

fn in_force(seawall: &Seawall, shop: &Shop<'_>) -> String {
    let count = ["web", "api", "db", "cache"].map(|service| {
        let status = seawall.status_of(&shop.service(service).id);
        assert_eq!(status["mode"], "enforce", "{status:#}");
        let coverage = status["coverage"].as_str().unwrap_or_default().to_owned();
        assert!(!coverage.starts_with("unprotected"), "{status:#}");
        coverage
    });
    format!("{count:?}")
}

fn ids(host: &DockerHost) -> BTreeSet<String> {
    host.containers().into_iter().map(|container| container.id).collect()
}

fn of_others(changes: &[Value], ids: &BTreeSet<String>) -> Vec<Value> {
    let is_other = |change: &&Value| change["id"].as_str().is_some_and(|id| ids.contains(id));
    changes.iter().filter(is_other).cloned().collect()
}

fn reaches(from: &Container, to: &Container, port: u16) -> bool {
    to.ips_shared_with(from).iter().all(|ip| from.tcp(*ip, port).is_reached())
}

fn said(host: &DockerHost, container: &Container, argv: &[&str]) -> String {
    let output = host.exec_in(container, argv);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Brings the shop back to one container of each service, all running.
struct Scaled(&'static Shop<'static>);

impl Drop for Scaled {
    fn drop(&mut self) {
        self.0.compose(&["up", "-d", "--no-recreate", "--scale", "api=1"]);
    }
}

/// Runs a Docker command when dropped.
struct Removed(&'static DockerHost, &'static [&'static str]);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.docker(self.1);
    }
}
