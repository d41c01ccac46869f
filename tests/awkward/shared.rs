//! Containers in one netns, coming and going in any order.

use std::net::IpAddr;
use std::time::Duration;

use crate::awkward::ENFORCE;
use crate::harness::{Container, DockerHost, Guest, Seawall, Server, Stage, until};

const LIMIT: Duration = Duration::from_secs(10);
const PORTS: [u16; 3] = [80, 5432, 6379];
const SLEEP: [&str; 2] = ["sleep", "900"];

/// One that sleeps: what it may serve follows from its image, and who listens is the test.
fn sleeper<'h>(host: &'h DockerHost, options: &[&str], image: &str) -> Guest<'h> {
    host.guest(&[options, &["--stop-timeout", "0", image], &SLEEP[..]].concat())
}

/// Listeners on all ports of a netns.
fn servers(container: &Container) -> Vec<Server> {
    PORTS.iter().map(|port| container.tcp_server(*port)).collect()
}

/// Waits until the host reaches these ports and no others, over both families.
#[track_caller]
fn opens(host: &DockerHost, ips: &[IpAddr], expected: &[u16]) {
    let own = host.netns();
    let is_right = |port: u16| {
        let reach = |ip: &IpAddr| own.tcp((*ip, port).into(), Duration::from_millis(400));
        ips.iter().all(|ip| reach(ip).is_reached() == expected.contains(&port))
    };
    let are_right = || PORTS.into_iter().all(is_right);
    until(&format!("{expected:?} open, and no others"), LIMIT, are_right);
}

#[test]
fn one_table_follows_who_is_in_the_netns() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "pod"]);
    let seawall = Seawall::start(host, ENFORCE);
    let pause = sleeper(host, &["--network", "pod"], "nginx:1.22");
    let ips = pause.ips();
    assert_eq!(ips.len(), 2);
    let listening = servers(&pause);
    opens(host, &ips, &[80]);
    let sharing = format!("container:{}", pause.id);
    let redis = sleeper(host, &["--network", &sharing], "redis:7");
    opens(host, &ips, &[80, 6379]);
    let postgres = sleeper(host, &["--network", &sharing], "postgres:15");
    opens(host, &ips, &PORTS);
    assert_eq!(redis.table(), postgres.table());
    host.docker_ok(&["stop", &redis.id]);
    opens(host, &ips, &[80, 5432]);
    host.docker_ok(&["start", &redis.id]);
    opens(host, &ips, &PORTS);
    let members = [redis.id.clone(), postgres.id.clone()];
    drop(postgres);
    opens(host, &ips, &[80, 6379]);
    host.docker_ok(&["pause", &redis.id]);
    opens(host, &ips, &[80, 6379]);
    host.docker_ok(&["unpause", &redis.id]);
    let is_members = |id: &str| members.iter().any(|member| member == id);
    let changes = seawall.changes();
    assert!(!changes.iter().any(|change| change["id"].as_str().is_some_and(is_members)));
    drop((redis, listening, pause));
    host.docker_ok(&["network", "rm", "pod"]);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn who_is_left_when_the_owner_ends_stays_closed() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "pod"]);
    let mut seawall = Seawall::start(host, ENFORCE);
    let mut owner = sleeper(host, &["--network", "pod"], "nginx:1.22");
    let sharing = format!("container:{}", owner.id);
    let redis = sleeper(host, &["--network", &sharing], "redis:7");
    let postgres = sleeper(host, &["--network", &sharing], "postgres:15");
    let first = servers(&owner);
    opens(host, &owner.ips(), &PORTS);

    host.docker_ok(&["kill", &owner.id]);
    // The netns lives on with those in it, and so does its table, which is looked after as before.
    for container in [&*redis, &*postgres] {
        let coverage = seawall.status_of(&container.id)["coverage"].clone();
        assert!(!coverage.as_str().unwrap().starts_with("unprotected"), "{coverage}");
        assert!(container.table().is_some());
    }
    // Who stands for the netns now hears what the owner heard: nobody is in the way of it.
    assert_eq!(seawall.log_at("WARN"), Vec::<String>::new());
    // Started again it has another netns, in which they are not.
    host.docker_ok(&["start", &owner.id]);
    owner.look();
    let second = servers(&owner);
    opens(host, &owner.ips(), &[80]);
    assert_ne!(owner.table(), redis.table());
    // A daemon that saw nothing of it comes to the same.
    seawall.stop();
    seawall.run();
    seawall.settled();
    opens(host, &owner.ips(), &[80]);
    assert!(redis.table().is_some() && redis.table() == postgres.table());
    assert_ne!(owner.table(), redis.table());
    host.docker_ok(&["restart", &redis.id]);
    opens(host, &owner.ips(), &[80, 6379]);
    // Its name is gone, its netns is not.
    drop(second);
    let sharing = postgres.pid;
    drop(owner);
    seawall.settled();
    assert_eq!(host.container(&postgres.id).pid, sharing);
    for id in [&redis.id, &postgres.id] {
        let container = host.container(id);
        assert!(container.table().is_some(), "{}", container.name);
    }
    drop((first, redis, postgres));
    host.docker_ok(&["network", "rm", "pod"]);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn a_member_that_may_change_the_table_weakens_all_of_them() {
    let stage = Stage::take();
    let host = stage.host;
    let owner = sleeper(host, &["--cap-drop", "ALL"], "nginx:1.22");
    let sharing = format!("container:{}", owner.id);
    let seawall = Seawall::start(host, ENFORCE);
    assert_eq!(seawall.status_of(&owner.id)["coverage"], "enforced");
    let side = sleeper(host, &["--network", &sharing, "--cap-add", "NET_ADMIN"], "redis:7");
    let coverage = || seawall.status_of(&owner.id)["coverage"].as_str().unwrap().to_owned();
    let expected = format!("degraded ({} shares its network: it holds NET_ADMIN", side.name);
    until("it is shown", LIMIT, || coverage().starts_with(&expected));
    drop(side);
    until("it is shown no more", LIMIT, || coverage() == "enforced");
    // One that is off does not open the netns of the others.
    let off = sleeper(host, &["--network", &sharing, "--label", "seawall.mode=off"], "redis:7");
    let coverage = seawall.status_of(&off.id)["coverage"].as_str().unwrap().to_owned();
    assert!(coverage == "enforced" || coverage.contains("NET_RAW"), "{coverage}");
}
