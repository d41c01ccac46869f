//! Containers that stand still, that crash over and over, and that outlive their dockerd.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use crate::awkward::ENFORCE;
use crate::harness::{DockerHost, Engine, Probe, Seawall, Shop, Stage, until};

const LIMIT: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn a_paused_container_keeps_its_table_and_its_place_with_peers() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let mut seawall = Seawall::start(host, ENFORCE);
    let (api, db) = (shop.service("api"), shop.service("db"));
    let server = db.tcp_server(4000);
    let ips = db.ips_shared_with(&api);
    let before = (api.table(), db.table());
    host.docker_ok(&["pause", &db.id]);
    // A daemon that starts meanwhile sees it running too.
    seawall.stop();
    seawall.run();
    let status = seawall.status_of(&db.id);
    assert!(!status["coverage"].as_str().unwrap().starts_with("stopped"), "{status:#}");
    assert_eq!((api.table(), db.table()), before);
    assert!(ips.iter().all(|ip| !api.tcp(*ip, 4000).is_reached()), "denied as before");
    host.docker_ok(&["unpause", &db.id]);
    shop.await_visit();
    assert_eq!((api.table(), db.table()), before);
    drop(server);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn a_crash_loop_is_programmed_at_every_start_and_leaves_nothing() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "loop"]);
    let seawall = Seawall::start(host, ENFORCE);
    let options = ["--network", "loop", "--stop-timeout", "0"];
    let store =
        host.guest(&[&options[..], &["--name", "store", "postgres:15", "sleep", "900"]].concat());
    let files = open_files(&seawall);
    let url = "DATABASE_URL=postgresql://u:p@store/x";
    let run = ["run", "-d", "--restart", "always", "-e", url];
    let crash = ["python:3.11", "sh", "-c", "sleep 0.5; exit 1"];
    let id = host.docker_ok(&[&run[..], &options, &crash].concat());
    let starts = || host.docker_ok(&["inspect", "--format", "{{.RestartCount}}", &id]);
    // Docker waits twice as long before each: 0.1 s, 0.2 s, and so on.
    until("it has crashed six times", LIMIT, || starts().parse::<u32>().unwrap() >= 6);
    host.docker_ok(&["update", "--restart", "no", &id]);
    let state = || host.docker_ok(&["inspect", "--format", "{{.State.Status}}", &id]);
    until("it has crashed for the last time", LIMIT, || state() == "exited");
    seawall.settled();
    let changes = seawall.changes();
    let is_first = |change: &&serde_json::Value| {
        let first = change["changes"][0].as_str().unwrap_or_default();
        change["id"] == id.as_str() && first.starts_with("add table")
    };
    let programmed = changes.iter().filter(is_first).count();
    let restarts: usize = starts().parse().unwrap();
    println!("{restarts} restarts, {programmed} netns programmed");
    assert_eq!(programmed, restarts + 1);
    let table = store.table().unwrap();
    let peers = |name: &str| table.sets[name].elements.len();
    assert_eq!(
        (peers("in4"), peers("in6")),
        (host_only(&store.ips(), false), host_only(&store.ips(), true))
    );
    until("what was open is closed", LIMIT, || open_files(&seawall) <= files);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    host.docker_ok(&["rm", &id]);
    drop(store);
    host.docker_ok(&["network", "rm", "loop"]);
}

/// The host's own address on the network is all that stays in the store's set of clients.
fn host_only(ips: &[IpAddr], is_ipv6: bool) -> usize {
    ips.iter().filter(|ip| ip.is_ipv6() == is_ipv6).count()
}

fn open_files(seawall: &Seawall) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", seawall.pid())).unwrap().count()
}

#[test]
fn containers_that_outlive_their_dockerd_are_followed_as_before() {
    let host = DockerHost::start_configured(Engine::Sid, &json!({"live-restore": true}));
    let seawall = Seawall::start(&host, ENFORCE);
    let shop = Shop::up(&host, "shop", 8090);
    let (api, db) = (shop.service("api"), shop.service("db"));
    let ips = db.ips_shared_with(&api);
    let mut flows: Vec<_> = ips
        .iter()
        .map(|ip| api.netns().flow(SocketAddr::new(*ip, 5432), MOMENT).unwrap())
        .collect();
    let before = (api.table(), db.table());
    host.stop_dockerd();
    seawall.await_source("Docker", false);
    assert_eq!((api.table(), db.table()), before);
    host.start_dockerd();
    seawall.await_source("Docker", true);
    seawall.settled();
    assert_eq!(shop.service("db").pid, db.pid, "it lived on");
    assert_eq!((api.table(), db.table()), before);
    // PostgreSQL says nothing to a byte that is no greeting; that the connection stands is enough.
    assert!(flows.iter_mut().all(|flow| flow.exchange(MOMENT) != Probe::Unreachable));
    shop.await_visit();
    // And it is followed again: a restart, a denial.
    host.docker_ok(&["restart", &db.id]);
    shop.await_visit();
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}
