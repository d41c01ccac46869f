//! Docker layer: the daemon at work: operators' files at run time, containers that come and go, and only observing.

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Flow, Probe, Seawall, Stage, until};
use nix::sys::signal::Signal;

const RESOLVERS: &str = "resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn operators_allow_and_deny_while_connections_stand() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let seawall = Seawall::start(host, &format!("mode = \"enforce\"\n{RESOLVERS}"));
    let (web, api) = (shop.service("web"), shop.service("api"));
    let _server = api.tcp_server(4000);
    let ips = api.ips_shared_with(&web);
    assert!(ips.iter().all(|ip| !web.tcp(*ip, 4000).is_reached()));

    let allow = "[[allow]]\nfrom = \"service:shop/web\"\nto = \"service:shop/api\"\nports = [\"4000/tcp\"]\n";
    seawall.write("policy.d/ours.toml", allow);
    seawall.cli_ok(&["reload"]);
    until("the operator's allow", Duration::from_secs(5), || {
        ips.iter().all(|ip| web.tcp(*ip, 4000).is_reached())
    });
    let open = |ip| web.netns().flow(SocketAddr::new(ip, 4000), LIMIT).unwrap();
    let mut flows: Vec<Flow> = ips.iter().copied().map(open).collect();
    let mut passes =
        |expected: fn(Probe) -> bool| flows.iter_mut().all(|flow| expected(flow.exchange(LIMIT)));
    assert!(passes(|probe| probe == Probe::Reached));

    // A broken file: named with its place, and nothing changes.
    seawall.write(
        "policy.d/ours.toml",
        "[[deny]]\nfrom = \"servce:shop/web\"\nto = \"any\"\nports = [\"0/tcp\"]\n",
    );
    seawall.signal(Signal::SIGHUP);
    let error = || seawall.settled()["configuration_error"].as_str().map(str::to_owned);
    until("the error in status", Duration::from_secs(5), || error().is_some());
    let told = error().unwrap();
    assert!(told.contains("ours.toml:2:8"), "{told}");
    assert!(told.contains("ours.toml:4:10"), "all problems at once: {told}");
    assert!(seawall.log().contains("ours.toml:2:8"), "{}", seawall.log());
    let human = seawall.cli_ok(&["status"]);
    assert!(human.contains("the last good one is in force") && human.contains("ours.toml:2:8"));
    let check = seawall.cli(&["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(passes(|probe| probe == Probe::Reached), "the last good one is in force");

    // Deny beats allow, and beats it on the very next packet.
    let deny = "[[deny]]\nfrom = \"service:shop/web\"\nto = \"service:shop/api\"\nports = [\"4000/tcp\"]\n";
    seawall.write("policy.d/ours.toml", &format!("{allow}{deny}"));
    let before = seawall.changes().len();
    seawall.signal(Signal::SIGHUP);
    until("the operator's deny", Duration::from_secs(5), || {
        seawall.changes()[before..].iter().any(|change| change["is_revoking"] == true)
    });
    seawall.settled();
    assert!(passes(|probe| probe != Probe::Reached), "established connections end");
    assert!(ips.iter().all(|ip| !web.tcp(*ip, 4000).is_reached()));
    assert_eq!(error(), None);
    shop.visit().unwrap();
    let statement = seawall.cli(&["test", "shop/web", "shop/api:4000/tcp"]);
    let text = String::from_utf8_lossy(&statement.stdout);
    assert!(text.contains("denied by") && text.contains("ours.toml"), "{text}");
}

#[test]
fn short_lived_containers_leave_nothing_behind() {
    let stage = Stage::take();
    let host = stage.host;
    let seawall = Seawall::start(host, "mode = \"enforce\"\nunknown = \"deny\"");
    // One first, so that everything that is made once is made.
    host.docker_ok(&["run", "--rm", "busybox:1", "true"]);
    until("it is forgotten", LIMIT * 10, || workloads(&seawall) == host.containers().len());
    let (fds, links, namespaces) = (open_files(&seawall), links(host), namespaces(host));
    let runs: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..10 {
                    host.docker_ok(&["run", "--rm", "busybox:1", "true"]);
                }
            })
        })
        .collect();
    for run in runs {
        run.join().expect("every container ran");
    }
    until("they are forgotten", LIMIT * 10, || workloads(&seawall) == host.containers().len());
    until("their interfaces are gone", LIMIT * 10, || self::links(host) <= links);
    until("their namespaces are gone", LIMIT * 10, || self::namespaces(host) <= namespaces);
    until("what was open is closed", LIMIT * 10, || open_files(&seawall) <= fds);
    let log = seawall.log();
    let noise: Vec<&str> =
        log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    assert!(noise.is_empty(), "{}", noise.join("\n"));
    let programmed = seawall.changes().len();
    println!(
        "30 containers: {programmed} transactions, {fds} open files before and {} after",
        open_files(&seawall)
    );
}

#[test]
fn observing_denies_nothing_and_counts_everything() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let intruder = host.guest(&["--network", "shop_backend", "busybox:1", "sleep", "900"]);
    let seawall =
        Seawall::start(host, &format!("mode = \"observe\"\nunknown = \"deny\"\n{RESOLVERS}"));
    let db = shop.service("db");
    let counters = || {
        let (from, to) = (seawall.status_of(&intruder.id), seawall.status_of(&db.id));
        assert_eq!((&from["coverage"], &to["coverage"]), (&"observed".into(), &"observed".into()));
        [from["denied_out"].as_u64().unwrap(), to["denied_in"].as_u64().unwrap()]
    };
    let before = counters();
    let _echo = db.udp_server(9999);
    for ip in db.ips_shared_with(&intruder) {
        assert_eq!(intruder.tcp(ip, 5432), Probe::Reached, "{ip}");
        assert_eq!(intruder.udp(ip, 9999), Probe::Reached, "{ip}");
        assert_eq!(intruder.ping(ip), Probe::Reached, "{ip}");
    }
    let after = counters();
    // TCP, UDP and ping, IPv4 and IPv6: at least a packet of each at each end.
    for (before, after) in before.iter().zip(after) {
        assert!(after >= before + 6, "{before} → {after}");
    }
    shop.visit().unwrap();
    shop.visit6().unwrap();
    let human = seawall.cli_ok(&["status"]);
    assert!(human.contains("DENIED IN") && human.contains("DENIED OUT"), "{human}");
    println!(
        "DENIED OUT of the intruder {} → {}, DENIED IN of the db {} → {}",
        before[0], after[0], before[1], after[1]
    );
}

fn workloads(seawall: &Seawall) -> usize {
    seawall.settled()["workloads"].as_array().map_or(0, Vec::len)
}

fn open_files(seawall: &Seawall) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", seawall.pid())).expect("it runs").count()
}

/// Interfaces of the host: a namespace that is kept alive keeps its end of a cable.
fn links(host: &harness::DockerHost) -> usize {
    host.netns()
        .run(|| std::fs::read_dir("/proc/thread-self/net/dev_snmp6").expect("it is there").count())
}

/// Named network namespaces: Docker's own are mounted.
fn namespaces(host: &harness::DockerHost) -> usize {
    let mounts = host.inside(&["cat", "/proc/self/mounts"]).output().expect("it can be run");
    let mounts = String::from_utf8_lossy(&mounts.stdout).into_owned();
    let is_own = |line: &&str| line.starts_with("nsfs ") && line.contains(host.name());
    mounts.lines().filter(is_own).count()
}
