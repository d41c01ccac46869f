//! Tests of folding observations, above all of orders that two unordered sources can produce.

use ipnetwork::IpNetwork;

use super::*;

fn id() -> WorkloadId {
    WorkloadId::new("c1")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(text: &str) -> NetworkKey {
    NetworkKey(Text::new(text))
}

fn docker(state: State, pid: Option<u32>, addresses: &[&str]) -> Workload {
    let mut workload = Workload::new(id(), "web".into(), Runtime::Docker);
    workload.state = state;
    workload.netns = pid.map(netns_of);
    attachment(&mut workload, key("n1")).addresses = addresses.iter().map(|a| ip(a)).collect();
    workload
}

fn upsert(state: State, pid: Option<u32>, addresses: &[&str]) -> Observation {
    Observation::Upsert(Box::new(docker(state, pid, addresses)))
}

fn snapshot(workloads: Vec<Workload>) -> Observation {
    Observation::Snapshot { source: Source::Docker, workloads }
}

fn created(pid: u32) -> Observation {
    Observation::TaskCreated { id: id(), pid }
}

fn exited(pid: u32) -> Observation {
    Observation::TaskExited { id: id(), pid }
}

fn stopped() -> Observation {
    Observation::Stopped(id())
}

fn down(source: Source) -> Observation {
    Observation::Down { source, error: "gone".into() }
}

fn tasks(pids: &[u32]) -> Observation {
    let running = pids.iter().map(|pid| (id(), *pid)).collect();
    Observation::Tasks { running, undecided: BTreeSet::new() }
}

/// `state pid addresses` after all of them.
fn after(observations: Vec<Observation>) -> String {
    let mut builder = InventoryBuilder::new();
    for observation in observations {
        builder.apply(observation);
    }
    match builder.inventory().get(&id()) {
        None => "gone".into(),
        Some(workload) => {
            let pid = workload.netns.as_ref().map_or(0, |netns| netns.pid);
            let addresses: Vec<_> = workload.addresses().map(|a| a.to_string()).collect();
            format!("{:?} {pid} {}", workload.state, addresses.join(",")).trim_end().into()
        }
    }
}

#[test]
fn observations_fold_whatever_their_order() {
    use State::{Created, Exited, Running};
    let a = &["172.20.0.2"][..];
    let cases: Vec<(&str, Vec<Observation>, &str)> = vec![
        ("created only", vec![upsert(Created, None, a)], "Created 0"),
        ("containerd first", vec![upsert(Created, None, &[]), created(7)], "Running 7"),
        ("task before anything else", vec![created(7), upsert(Created, None, &[])], "Running 7"),
        (
            "a late description keeps the pid",
            vec![upsert(Created, None, &[]), created(7), upsert(Created, None, &[])],
            "Running 7",
        ),
        (
            "a late description of before the restart",
            vec![upsert(Exited, None, &[]), created(7), upsert(Exited, None, &[])],
            "Running 7",
        ),
        ("Docker confirms", vec![created(7), upsert(Running, Some(7), a)], "Running 7 172.20.0.2"),
        (
            "an old pid does not win",
            vec![created(8), upsert(Running, Some(7), a)],
            "Running 8 172.20.0.2",
        ),
        ("stop clears", vec![upsert(Running, Some(7), a), stopped()], "Exited 0"),
        ("exit clears", vec![upsert(Running, Some(7), a), exited(7)], "Exited 0"),
        (
            "exit of another process does not",
            vec![upsert(Running, Some(7), a), exited(6)],
            "Running 7 172.20.0.2",
        ),
        (
            "both tell",
            vec![created(7), upsert(Running, Some(7), a), exited(7), stopped()],
            "Exited 0",
        ),
        (
            "both tell, Docker first",
            vec![created(7), upsert(Running, Some(7), a), stopped(), exited(7)],
            "Exited 0",
        ),
        (
            "Docker describes what it does not know to be dead",
            vec![created(7), upsert(Running, Some(7), a), exited(7), upsert(Running, None, a)],
            "Exited 0",
        ),
        (
            "the same, and then it starts again",
            vec![
                upsert(Running, Some(7), a),
                exited(7),
                upsert(Running, Some(7), a),
                exited(7),
                stopped(),
                upsert(Running, Some(8), a),
            ],
            "Running 8 172.20.0.2",
        ),
        (
            "restart, Docker's stop comes late",
            vec![created(7), upsert(Running, Some(7), a), exited(7), created(8), stopped()],
            "Running 8",
        ),
        (
            "restart, containerd's exit comes late",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                stopped(),
                upsert(Running, Some(8), a),
                exited(7),
                created(8),
            ],
            "Running 8 172.20.0.2",
        ),
        (
            "restart twice, stops late",
            vec![
                upsert(Running, Some(7), a),
                exited(7),
                created(8),
                exited(8),
                created(9),
                stopped(),
                stopped(),
            ],
            "Running 9",
        ),
        (
            "restart, then a true stop",
            vec![upsert(Running, Some(7), a), exited(7), created(8), stopped(), stopped()],
            "Exited 0",
        ),
        (
            "Docker told first, then a restart ends",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                stopped(),
                exited(7),
                created(8),
                stopped(),
            ],
            "Exited 0",
        ),
        (
            "removed",
            vec![created(7), upsert(Running, Some(7), a), Observation::Removed(id())],
            "gone",
        ),
        (
            "removed, then described anew",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                Observation::Removed(id()),
                upsert(Created, None, a),
            ],
            "Created 0",
        ),
        ("snapshot without it", vec![upsert(Running, Some(7), a), snapshot(vec![])], "gone"),
        (
            "snapshot keeps a pid Docker does not know yet",
            vec![created(7), snapshot(vec![docker(Created, None, &[])])],
            "Running 7",
        ),
        (
            "snapshot after a missed exit",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                snapshot(vec![docker(Exited, None, &[])]),
            ],
            "Exited 0",
        ),
        (
            "Docker down changes nothing",
            vec![upsert(Running, Some(7), a), down(Source::Docker)],
            "Running 7 172.20.0.2",
        ),
        (
            "containerd down changes nothing",
            vec![created(7), upsert(Running, Some(7), a), down(Source::Containerd)],
            "Running 7 172.20.0.2",
        ),
        (
            "while containerd is down Docker's pid wins",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                down(Source::Containerd),
                upsert(Running, Some(8), a),
            ],
            "Running 8 172.20.0.2",
        ),
        (
            "containerd returns without the task",
            vec![created(7), upsert(Running, Some(7), a), down(Source::Containerd), tasks(&[])],
            "Exited 0",
        ),
        (
            "containerd returns with another task",
            vec![created(7), upsert(Running, Some(7), a), down(Source::Containerd), tasks(&[9])],
            "Running 9",
        ),
        (
            "containerd returns and cannot tell",
            vec![
                created(7),
                upsert(Running, Some(7), a),
                down(Source::Containerd),
                Observation::Tasks { running: BTreeMap::new(), undecided: BTreeSet::from([id()]) },
            ],
            "Running 7 172.20.0.2",
        ),
        (
            "a containerd that never spoke ends nothing",
            vec![upsert(Running, Some(7), a), tasks(&[])],
            "Running 7 172.20.0.2",
        ),
        (
            "late start: tasks before Docker",
            vec![tasks(&[7]), snapshot(vec![docker(Running, Some(7), a)])],
            "Running 7 172.20.0.2",
        ),
        (
            "a second snapshot of containerd's leaves Docker's alone",
            vec![
                upsert(Running, Some(7), a),
                Observation::Snapshot { source: Source::Containerd, workloads: vec![] },
            ],
            "Running 7 172.20.0.2",
        ),
    ];
    for (name, observations, expected) in cases {
        assert_eq!(after(observations), expected, "{name}");
    }
}

fn facts(name: &str, subnets: &[&str]) -> NetworkFacts {
    NetworkFacts {
        key: key(name),
        name: Text::new(name),
        driver: Some("bridge".into()),
        is_default_bridge: false,
        subnets: subnets.iter().map(|s| s.parse::<IpNetwork>().unwrap()).collect(),
        gateways: BTreeSet::new(),
    }
}

fn shown(builder: &InventoryBuilder) -> Vec<String> {
    let workload = builder.inventory().get(&id()).unwrap();
    let shown = |(key, one): (&NetworkKey, &Attachment)| format!("{} {:?}", key.0, one.addresses);
    workload.networks.iter().map(shown).collect()
}

#[test]
fn addresses_read_from_the_netns_go_to_the_networks_they_are_of() {
    let mut builder = InventoryBuilder::new();
    builder.apply(Observation::Networks(vec![
        facts("n1", &["172.20.0.0/16", "fd00:20::/64"]),
        facts("n2", &["172.21.0.0/16"]),
    ]));
    builder.apply(upsert(State::Created, None, &[]));
    assert!(!builder.set_addresses(&id(), vec![ip("172.20.0.9")]), "it has no netns yet");
    builder.apply(created(7));
    let read = ["172.20.0.9", "fd00:20::9", "fe80::1", "127.0.0.1", "172.21.0.5", "10.9.9.9"];
    assert!(builder.set_addresses(&id(), read.iter().map(|a| ip(a)).collect()));
    let expected = [
        "n1 {172.20.0.9, fd00:20::9}",
        // n2 is a network, but not one of this workload's: the address may be its own invention.
        "netns:c1 {10.9.9.9, 172.21.0.5}",
    ];
    assert_eq!(shown(&builder), expected);
    assert!(!builder.set_addresses(&id(), read.iter().map(|a| ip(a)).collect()));

    // Docker's word, which has no addresses yet, does not take away what was read.
    builder.apply(upsert(State::Created, None, &[]));
    assert_eq!(shown(&builder), expected);
    // When Docker knows the address, it agrees or corrects, family by family.
    builder.apply(upsert(State::Running, Some(7), &["172.20.0.2"]));
    assert_eq!(shown(&builder)[0], "n1 {172.20.0.2, fd00:20::9}");
    // Another process has another netns.
    builder.apply(exited(7));
    builder.apply(created(8));
    assert_eq!(shown(&builder), ["n1 {}"]);
}

#[test]
fn a_snapshot_of_one_source_leaves_the_other_and_files_alone() {
    let mut builder = InventoryBuilder::new();
    let runtimes = [Runtime::Docker, Runtime::Containerd("k8s.io".into()), Runtime::File];
    for (name, runtime) in ["d", "c", "f"].into_iter().zip(runtimes) {
        let workload = Workload::new(WorkloadId::new(name), name.into(), runtime);
        builder.apply(Observation::Upsert(Box::new(workload)));
    }
    assert!(builder.apply(Observation::Snapshot { source: Source::Containerd, workloads: vec![] }));
    let left: Vec<_> =
        builder.inventory().iter().map(|workload| workload.name.to_string()).collect();
    assert_eq!(left, ["d", "f"]);
}

#[test]
fn sources_are_up_or_down_with_a_reason() {
    let mut builder = InventoryBuilder::new();
    assert_eq!(builder.source(Source::Docker), None);
    builder.apply(down(Source::Docker));
    assert_eq!(builder.source(Source::Docker), Some(Err(&Text::new("gone"))));
    builder.apply(snapshot(vec![]));
    assert_eq!(builder.source(Source::Docker), Some(Ok(())));
}

#[test]
fn the_same_observation_twice_changes_nothing() {
    let mut builder = InventoryBuilder::new();
    for observation in [
        Observation::Networks(vec![facts("n1", &["172.20.0.0/16"])]),
        upsert(State::Running, Some(7), &["172.20.0.2"]),
        created(7),
        tasks(&[7]),
        snapshot(vec![docker(State::Running, Some(7), &["172.20.0.2"])]),
    ] {
        builder.apply(observation.clone());
        assert!(!builder.apply(observation.clone()), "{observation:?}");
    }
}
