//! dockerd and its containerd stopped or killed under a running seawall.

use std::path::Path;

use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Seawall};

/// Waits until seawall has seen both daemons go, and says so.
fn assert_down(seawall: &Seawall) {
    for name in ["Docker", "containerd"] {
        let source = seawall.await_source(name, false);
        assert!(source.error.is_some_and(|error| !error.is_empty()), "{name} without a reason");
    }
    let shown = seawall.cli(&["status"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("Docker: ") && !text.contains("Docker: connected"), "{text}");
}

fn assert_up(seawall: &Seawall) {
    for name in ["Docker", "containerd"] {
        assert_eq!(seawall.await_source(name, true).error, None);
    }
}

/// Containers that died with dockerd, started again.
fn start_again(host: &DockerHost, seawall: &Seawall) -> Lab {
    host.docker_ok(&["start", "store", "app", "web", "intruder"]);
    let lab = Lab::of(host);
    for container in [&lab.store, &lab.app, &lab.web, &lab.intruder] {
        let is_programmed = |pid| {
            move |w: &seawall::reconcile::WorkloadStatus| {
                w.pid == Some(pid) && !w.coverage.starts_with("unprotected")
            }
        };
        seawall.await_workload(&container.name, "programmed", is_programmed(container.pid));
    }
    // Peers' addresses come once their netns has been read.
    seawall.settle();
    lab
}

#[test]
fn a_stopped_dockerd_comes_back_and_its_containers_are_programmed_again() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "at first");
    host.stop_dockerd();
    assert_down(&seawall);
    host.start_dockerd();
    assert_up(&seawall);
    drop(lab);
    let lab = start_again(&host, &seawall);
    lab.assert_verdicts(&host, "started again");
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn a_killed_dockerd_leaves_every_verdict_in_force() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    let mut flows = lab.flows(&host);
    let prober = lab.prober();
    host.kill_dockerd();
    assert_down(&seawall);
    // The containers run on, and so does what is in force.
    flows.assert_alive("dockerd killed");
    lab.assert_verdicts(&host, "dockerd killed");
    let shown = seawall.workload("store").expect("still known");
    assert_eq!(shown.pid, Some(lab.store.pid), "{shown:?}");
    let (attempts, successes) = prober.finish();
    assert!(attempts > 0 && successes == 0, "{successes} of {attempts}");
    // Without live-restore, the new dockerd ends what the old one left. An open socket would keep the old netns, and with
    // it the addresses, alive.
    drop((flows, lab));
    host.start_dockerd();
    assert_up(&seawall);
    let lab = start_again(&host, &seawall);
    lab.assert_verdicts(&host, "started again");
}

#[test]
fn containers_that_live_through_a_restart_of_dockerd_notice_nothing() {
    let host = DockerHost::start();
    host.stop_dockerd();
    let file = Path::new("/run").join(format!("swall-{}", host.name())).join("daemon.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replacen('{', "{ \"live-restore\": true,", 1);
    std::fs::write(&file, text).unwrap();
    host.start_dockerd();

    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "at first");
    let mut flows = lab.flows(&host);
    seawall.settle();
    let (journal, before) = (seawall.journal(), lab.store.table());
    let prober = lab.prober();
    for how in ["stopped", "killed"] {
        if how == "stopped" {
            host.stop_dockerd()
        } else {
            host.kill_dockerd()
        }
        assert_down(&seawall);
        flows.assert_alive(how);
        lab.assert_verdicts(&host, how);
        host.start_dockerd();
        assert_up(&seawall);
        flows.assert_alive(&format!("started after it was {how}"));
    }
    seawall.settle();
    lab.assert_verdicts(&host, "at last");
    let (attempts, successes) = prober.finish();
    println!(
        "dockerd restarted twice, live-restore: {attempts} denied attempts, {successes} succeeded"
    );
    assert_eq!(successes, 0);
    assert_eq!(lab.store.table(), before);
    assert_eq!(seawall.journal(), journal, "nothing was to do, and something was done");
}
