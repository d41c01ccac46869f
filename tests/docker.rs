//! Docker layer: seawall against a real Docker with real nginx, PostgreSQL and Redis.

mod harness;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use harness::{DockerHost, OUTSIDE_NET4, OUTSIDE_NET6, Probe, Shop};

#[test]
fn the_shop_serves_and_counts_its_visits() {
    let host = DockerHost::start();
    let shop = Shop::up(&host, "shop", 8080);
    let first = shop.visit().unwrap();
    let second = shop.visit6().unwrap();
    assert_eq!((second.sql, second.redis), (first.sql + 1, first.redis + 1));

    let query = ["psql", "-U", "shop", "-d", "shop", "-Atc", "SELECT count(*) FROM visits"];
    let rows = host.exec_in(&shop.service("db"), &query);
    assert_eq!(String::from_utf8_lossy(&rows.stdout).trim(), second.sql.to_string());
    let hits = host.exec_in(&shop.service("cache"), &["redis-cli", "GET", "hits"]);
    assert_eq!(String::from_utf8_lossy(&hits.stdout).trim(), second.redis.to_string());
}

#[test]
fn two_instances_of_one_compose_file_are_two_shops() {
    let host = DockerHost::start();
    let (a, b) = (Shop::up(&host, "a", 8080), Shop::up(&host, "b", 8081));
    let before = b.visit().unwrap();
    a.visit().unwrap();
    assert_eq!(b.visit().unwrap().sql, before.sql + 1);
    assert!(a.service("db").ips_shared_with(&b.service("api")).is_empty());
}

#[test]
fn a_scaled_service_has_that_many_containers() {
    let host = DockerHost::start();
    let shop = Shop::up(&host, "shop", 8080);
    shop.compose(&["up", "-d", "--scale", "api=3"]);
    assert_eq!(shop.replicas("api").len(), 3);
    shop.await_visit();
}

#[test]
fn probes_tell_what_becomes_of_packets() {
    let host = DockerHost::start();
    host.docker_ok(&["network", "create", "--ipv6", "lab"]);
    let client = host.run(&["--network", "lab", "--name", "client", "busybox:1", "sleep", "600"]);
    let server = host.run(&["--network", "lab", "--name", "server", "busybox:1", "sleep", "600"]);
    let echo_tcp = server.tcp_server(7);
    let _echo_udp = server.udp_server(7);

    let ips = server.ips_shared_with(&client);
    assert_eq!(ips.len(), 2, "an IPv4 and an IPv6 address: {ips:?}");
    for ip in ips.iter().copied() {
        assert_eq!(client.tcp(ip, 7), Probe::Reached, "{ip}");
        assert_eq!(client.udp(ip, 7), Probe::Reached, "{ip}");
        assert_eq!(client.ping(ip), Probe::Reached, "{ip}");
        assert_eq!(client.tcp(ip, 8), Probe::Refused, "{ip}");
        assert_eq!(client.udp(ip, 8), Probe::Refused, "{ip}");
    }
    let second = Duration::from_secs(1);
    let mut flow = client.netns().flow(SocketAddr::new(ips[0], 7), second).unwrap();
    assert_eq!(flow.exchange(second), Probe::Reached);

    nft(
        &server,
        "add table inet lab; add chain inet lab in { type filter hook input priority 0; }; \
         add rule inet lab in meta l4proto { tcp, udp } th dport 7 drop; \
         add rule inet lab in icmp type echo-request drop; \
         add rule inet lab in icmpv6 type echo-request drop",
    );
    for ip in ips.iter().copied() {
        assert_eq!(client.tcp(ip, 7), Probe::TimedOut, "{ip}");
        assert_eq!(client.udp(ip, 7), Probe::TimedOut, "{ip}");
        assert_eq!(client.ping(ip), Probe::TimedOut, "{ip}");
    }
    assert_eq!(flow.exchange(second), Probe::TimedOut);

    // Not prohibited for TCP: over IPv6, Linux goes on sending SYNs after that answer.
    nft(
        &server,
        "flush chain inet lab in; \
         add rule inet lab in meta l4proto tcp reject with tcp reset; \
         add rule inet lab in meta l4proto udp reject with icmpx admin-prohibited",
    );
    for ip in ips.iter().copied() {
        assert_eq!(client.tcp(ip, 7), Probe::Refused, "{ip}");
        assert_eq!(client.udp(ip, 7), Probe::Unreachable, "{ip}");
    }
    nft(&server, "flush chain inet lab in");
    drop(echo_tcp);
    assert_eq!(client.tcp(ips[0], 7), Probe::Refused, "a dropped server listens no more");
}

#[test]
fn containers_reach_the_outside_world_and_its_names() {
    let host = DockerHost::start();
    host.docker_ok(&["network", "create", "--ipv6", "lab"]);
    let on_default_bridge = host.run(&["busybox:1", "sleep", "600"]);
    let on_own_network = host.run(&["--network", "lab", "busybox:1", "sleep", "600"]);
    for container in [on_default_bridge, on_own_network] {
        for ip in [OUTSIDE_NET4, OUTSIDE_NET6] {
            assert_eq!(container.tcp(ip, 443), Probe::Reached, "{ip}");
            assert_eq!(container.udp(ip, 123), Probe::Reached, "{ip}");
            assert_eq!(container.ping(ip), Probe::Reached, "{ip}");
        }
        let lookup = host.exec_in(&container, &["nslookup", "outside.test"]);
        assert!(
            lookup.status.success() && String::from_utf8_lossy(&lookup.stdout).contains("9.9.9.9")
        );
    }
}

#[test]
fn containers_outlive_a_restart_of_dockerd_only_with_a_restart_policy() {
    let host = DockerHost::start();
    host.run(&["--name", "once", "--stop-timeout", "1", "busybox:1", "sleep", "600"]);
    let again = [
        "--name",
        "again",
        "--stop-timeout",
        "1",
        "--restart",
        "always",
        "busybox:1",
        "sleep",
        "600",
    ];
    let before = host.run(&again);
    host.stop_dockerd();
    host.start_dockerd();
    assert_eq!(host.docker_ok(&["ps", "--format", "{{.Names}}"]), "again");
    assert_ne!(host.container("again").pid, before.pid);
}

#[test]
fn nothing_is_left_of_a_dropped_host() {
    let host = DockerHost::start();
    let name = host.name().to_owned();
    let container = host.run(&["busybox:1", "sleep", "600"]);
    drop(host);
    assert!(!Path::new(&format!("/run/swall-{name}")).exists());
    assert!(!Path::new(&format!("/run/netns/swall-{name}")).exists());
    assert!(!Path::new(&format!("/proc/{}/exe", container.pid)).exists());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&name), "{mounts}");
}

/// Runs nft commands in a container's netns.
fn nft(container: &harness::Container, commands: &str) {
    let mut nft = std::process::Command::new("nsenter");
    nft.arg(format!("--net={}", container.netns().path().display())).args(["nft", commands]);
    assert!(nft.status().expect("nsenter can be run").success());
}
