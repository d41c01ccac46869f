//! Networks of other kinds, and networks joined and left while a container runs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::awkward::ENFORCE;
use crate::harness::{
    Container, DockerHost, Guest, OUTSIDE_NET4, OUTSIDE_NET6, Probe, Seawall, Stage, until,
};

const LIMIT: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_secs(1);
const URL: &str = "DATABASE_URL=postgresql://u:p@store/x";

/// An application that is wired to a store, both of them asleep.
fn pair<'h>(host: &'h DockerHost, of: &str, network: &str) -> (Guest<'h>, Guest<'h>) {
    let names = [format!("{of}-app"), "store".to_owned()];
    let run = |name: &str, more: &[&str], image: &str| {
        let options = ["--network", network, "--name", name, "--stop-timeout", "0"];
        host.guest(&[&options[..], more, &[image, "sleep", "900"]].concat())
    };
    (run(&names[0], &["-e", URL], "python:3.11"), run(&names[1], &[], "postgres:15"))
}

fn is_open(from: &Container, ips: &[IpAddr]) -> bool {
    ips.iter().all(|ip| from.tcp(*ip, 5432).is_reached())
}

fn is_closed(from: &Container, ips: &[IpAddr]) -> bool {
    !ips.iter().any(|ip| from.tcp(*ip, 5432).is_reached())
}

#[test]
fn macvlan_neighbours_are_judged_like_others() {
    let stage = Stage::take();
    let host = stage.host;
    let subnets = ["--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd77::/64"];
    let driver = ["network", "create", "--driver", "macvlan", "-o", "parent=uplink0"];
    host.docker_ok(&[&driver[..], &subnets, &["mv"]].concat());
    let (app, store) = pair(host, "mv", "mv");
    let other = host.guest(&["--network", "mv", "nginx:1.22", "sleep", "900"]);
    let _server = store.tcp_server(5432);
    let ips = store.ips();
    assert_eq!(ips.len(), 2);
    assert!(is_open(&other, &ips), "without seawall");
    let seawall = Seawall::start(host, ENFORCE);
    assert!(is_open(&app, &ips));
    assert!(is_closed(&other, &ips));
    let coverage = seawall.status_of(&store.id)["coverage"].as_str().unwrap().to_owned();
    assert!(coverage == "enforced" || coverage.contains("NET_RAW"), "{coverage}");
    // The gateway of a macvlan network is somebody else's router, which is not the host.
    let gateway: IpAddr = "10.77.0.1".parse().unwrap();
    let router = host.docker_ok(&["network", "inspect", "mv"]);
    assert!(router.contains("macvlan"), "{router}");
    assert!(!app.tcp(gateway, 80).is_reached());
    drop((app, store, other));
    host.docker_ok(&["network", "rm", "mv"]);
}

#[test]
fn one_without_a_network_has_a_table_all_the_same() {
    let stage = Stage::take();
    let host = stage.host;
    let seawall = Seawall::start(host, ENFORCE);
    let none = host.guest(&["--network", "none", "nginx:1.22", "sleep", "900"]);
    seawall.await_programmed(&none.id);
    assert!(none.table().is_some());
    // Whoever brings an interface into it finds it closed.
    host.docker_ok(&["network", "create", "--ipv6", "late"]);
    let refused = host.docker(&["network", "connect", "late", &none.id]);
    assert!(!refused.status.success(), "Docker joins nobody who has no network");
    host.docker_ok(&["network", "rm", "late"]);
}

#[test]
fn networks_joined_and_left_change_what_peers_allow_in_both_families() {
    let stage = Stage::take();
    let host = stage.host;
    for name in ["first", "second"] {
        host.docker_ok(&["network", "create", "--ipv6", name]);
    }
    let seawall = Seawall::start(host, ENFORCE);
    let (app, mut store) = pair(host, "live", "first");
    let _server = store.tcp_server(5432);
    let first = store.ips();
    until("they meet on the first network", LIMIT, || is_open(&app, &first));

    // The second network, joined by one end only: nobody to meet there.
    host.docker_ok(&["network", "connect", "second", &store.id]);
    store.look();
    let (v4, v6) = store.addresses["second"];
    let second: Vec<IpAddr> = vec![v4.unwrap().into(), v6.unwrap().into()];
    seawall.settled();
    assert!(is_closed(&app, &second));
    host.docker_ok(&["network", "connect", "second", &app.id]);
    until("they meet on the second too", LIMIT, || is_open(&app, &second));
    assert!(is_open(&app, &first));

    let mut flows: Vec<_> = second
        .iter()
        .map(|ip| app.netns().flow(SocketAddr::new(*ip, 5432), MOMENT).unwrap())
        .collect();
    host.docker_ok(&["network", "disconnect", "first", &app.id]);
    let left = || app.table().unwrap();
    until("the first is forgotten", LIMIT, || !mentions(&left(), &first));
    assert!(is_open(&app, &second), "the second stays");
    assert!(flows.iter_mut().all(|flow| flow.exchange(MOMENT) == Probe::Reached));

    host.docker_ok(&["network", "disconnect", "second", &store.id]);
    until("nothing is left to meet at", LIMIT, || !mentions(&left(), &second));
    assert!(flows.iter_mut().all(|flow| flow.exchange(MOMENT) != Probe::Reached));
    // Back, at an address that may be another.
    host.docker_ok(&["network", "connect", "second", &store.id]);
    store.look();
    let (v4, v6) = store.addresses["second"];
    let again: Vec<IpAddr> = vec![v4.unwrap().into(), v6.unwrap().into()];
    until("they meet again", LIMIT, || is_open(&app, &again));
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    drop((app, store));
    host.docker_ok(&["network", "rm", "first", "second"]);
}

/// Its own addresses stand in its table, and only the runtime can give it any: nobody has tampered when these change.
#[test]
fn addresses_that_come_and_go_are_followed_and_no_repair_where_nothing_is_guarded() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "more"]);
    let seawall = Seawall::start(host, ENFORCE);
    let mut quiet = host.guest(&["--cap-drop", "NET_RAW", "nginx:1.22", "sleep", "900"]);
    seawall.await_programmed(&quiet.id);
    host.docker_ok(&["network", "connect", "more", &quiet.id]);
    quiet.look();
    let (v4, v6) = quiet.addresses["more"];
    let came: Vec<IpAddr> = vec![v4.unwrap().into(), v6.unwrap().into()];
    let own = || {
        let table = quiet.table().unwrap();
        let sets = ["own4", "own6"].map(|name| table.sets[name].elements.clone());
        let held = |ip: &IpAddr| {
            sets.iter().flat_map(|set| set.keys()).any(|element| element.first.address == *ip)
        };
        came.iter().filter(|ip| held(ip)).count()
    };
    until("both are its own", LIMIT, || own() == 2);
    host.docker_ok(&["network", "disconnect", "more", &quiet.id]);
    until("neither is", LIMIT, || own() == 0);
    seawall.settled();
    let repairs = seawall.journal_of(&quiet.id).into_iter().filter(|entry| entry.is_repair);
    assert_eq!(repairs.map(|entry| entry.changes).collect::<Vec<_>>(), Vec::<Vec<String>>::new());
    drop(quiet);
    host.docker_ok(&["network", "rm", "more"]);
}

/// Whether any of the addresses is in a set of the table.
fn mentions(table: &seawall::compile::Ruleset, ips: &[IpAddr]) -> bool {
    let mut elements = table.sets.values().flat_map(|set| set.elements.keys());
    elements.any(|element| ips.contains(&element.first.address))
}

#[test]
fn a_new_name_changes_what_is_said_of_the_name_and_nothing_else() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "names"]);
    let mut seawall = Seawall::prepare(host, ENFORCE);
    let rule = "[[allow]]\nfrom = \"name:chosen\"\nto = \"internet\"\nports = [\"443/tcp\"]\n";
    seawall.write("policy.d/names.toml", rule);
    seawall.run();
    let (app, store) = pair(host, "named", "names");
    let _server = store.tcp_server(5432);
    let ips = store.ips();
    until("they meet", LIMIT, || is_open(&app, &ips));
    let mut flow = app.netns().flow(SocketAddr::new(ips[0], 5432), MOMENT).unwrap();
    let reaches = || [OUTSIDE_NET4, OUTSIDE_NET6].map(|ip| app.tcp(ip, 443).is_reached());
    assert_eq!(reaches(), [false, false]);

    host.docker_ok(&["rename", &app.id, "chosen"]);
    until("the new name is allowed what it may", LIMIT, || reaches() == [true, true]);
    assert_eq!(seawall.status_of(&app.id)["name"], "chosen");
    let policy = seawall.cli_ok(&["policy", "chosen"]);
    assert!(policy.contains("chosen") && !policy.contains("named-app"), "{policy}");
    assert_eq!(flow.exchange(MOMENT), Probe::Reached, "what was allowed goes on");
    assert!(is_open(&app, &ips));
    host.docker_ok(&["rename", &app.id, "other"]);
    until("and no other name", LIMIT, || reaches() == [false, false]);
    assert_eq!(flow.exchange(MOMENT), Probe::Reached);
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    drop((app, store));
    host.docker_ok(&["network", "rm", "names"]);
}
