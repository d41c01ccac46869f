//! Docker layer: containers that are containerd's alone, beside Docker's on the same containerd.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use harness::{DockerHost, Lab, Plain, Probe, Seawall, until};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(20);
/// Where Redis serves, as its model says.
const REDIS: u16 = 6379;

#[test]
fn containerds_own_containers_are_workloads_and_dockers_are_not_doubled() {
    let host = DockerHost::start();
    Plain::import_image(&host);
    let lab = Lab::up(&host);
    // One is there before seawall, one comes after.
    let early = Plain::run(&host, "early");
    early.connect();
    let _served = early.tcp_server(REDIS);
    let target = SocketAddr::new(Plain::ADDRESS, REDIS);
    assert_eq!(host.netns().tcp(target, SECOND), Probe::Reached, "before seawall");

    let mut seawall = Seawall::prepare(&host, "mode = \"enforce\"");
    let model = "[[model]]\nselect = [\"name:early\", \"name:late\"]\nmodel = \"redis\"\n";
    seawall.write("policy.d/plain.toml", model);
    seawall.run();
    let ids = ["early", "late"].map(|id| format!("{}/{id}", host.name()));
    let shown = seawall.workload("early").unwrap();
    assert_eq!((shown.id.as_str(), shown.pid), (ids[0].as_str(), Some(early.pid)));
    assert_eq!((shown.model.as_deref(), shown.mode.as_str()), (Some("redis"), "enforce"));
    assert_eq!(shown.addresses, [Plain::ADDRESS.to_string()]);
    assert_eq!(host.netns().tcp(target, SECOND), Probe::TimedOut, "nothing allows it");
    assert!(seawall.workload("early").unwrap().denied_in > 0);

    let late = Plain::run(&host, "late");
    let is_programmed = |w: &seawall::reconcile::WorkloadStatus| {
        w.pid == Some(late.pid) && !w.coverage.starts_with("unprotected")
    };
    seawall.await_workload("late", "programmed", is_programmed);

    // One workload for each container, whoever tells of it.
    let status = seawall.status();
    let known: BTreeSet<&str> = status.workloads.iter().map(|one| one.id.as_str()).collect();
    let docker = [&lab.store, &lab.app, &lab.web, &lab.intruder].map(|one| one.id.as_str());
    let all: BTreeSet<&str> = docker.into_iter().chain(ids.iter().map(String::as_str)).collect();
    assert_eq!(known, all);
    assert_eq!(status.workloads.len(), all.len());
    lab.assert_verdicts(&host, "beside containerd's own");

    for (plain, id) in [(early, "early"), (late, "late")] {
        plain.remove();
        until(&format!("the end of {id}"), LIMIT, || seawall.workload(id).is_none());
    }
    assert_eq!(seawall.status().workloads.len(), docker.len());
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}
