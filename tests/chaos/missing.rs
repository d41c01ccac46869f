//! Docker or containerd not there, or not yet.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Plain, Seawall, until};

/// A socket file nobody listens on, like the one a dead daemon leaves. (Where there is none at all, seawall looks for
/// the system's own, which is no business of a test.)
struct Dead {
    folder: TempDir,
}

impl Dead {
    fn new() -> Self {
        let dead = Self { folder: tempfile::tempdir().unwrap() };
        drop(UnixListener::bind(dead.path()).unwrap());
        dead
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// From now on it leads to `living`.
    fn become_alive(&self, living: &Path) {
        let link = self.folder.path().join("link");
        symlink(living, &link).unwrap();
        std::fs::rename(link, self.path()).unwrap();
    }
}

fn is_programmed(workload: &seawall::reconcile::WorkloadStatus) -> bool {
    workload.pid.is_some() && !workload.coverage.starts_with("unprotected")
}

#[test]
fn without_containerd_dockers_word_of_the_start_is_enough() {
    let host = DockerHost::start();
    let dead = Dead::new();
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.configure(ENFORCE, &host.socket(), &dead.path());
    seawall.run();
    assert!(seawall.await_source("containerd", false).error.is_some());
    let lab = Lab::up(&host);
    for name in ["store", "app", "web", "intruder"] {
        seawall.await_workload(name, "programmed", is_programmed);
    }
    seawall.settle();
    lab.assert_verdicts(&host, "without containerd");
    drop(lab);
    // A new process, a new netns: Docker tells of the end too.
    host.docker_ok(&["restart", "--time", "0", "store", "app"]);
    let lab = Lab::of(&host);
    for one in [&lab.store, &lab.app] {
        seawall.await_workload(&one.name, "programmed again", |workload| {
            workload.pid == Some(one.pid) && is_programmed(workload)
        });
    }
    seawall.settle();
    lab.assert_verdicts(&host, "restarted without containerd");

    dead.become_alive(&host.containerd_socket());
    seawall.await_source("containerd", true);
    seawall.settle();
    lab.assert_verdicts(&host, "with containerd again");
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn without_docker_containerds_own_containers_are_programmed_and_dockers_as_soon_as_it_is_there() {
    let host = DockerHost::start();
    Plain::import_image(&host);
    let lab = Lab::up(&host);
    let dead = Dead::new();
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.configure(ENFORCE, &dead.path(), &host.containerd_socket());
    seawall.run();
    assert!(seawall.await_source("Docker", false).error.is_some());
    let early = Plain::run(&host, "early");
    seawall.await_workload("early", "programmed", is_programmed);

    dead.become_alive(&host.socket());
    seawall.await_source("Docker", true);
    for name in ["store", "app", "web", "intruder"] {
        seawall.await_workload(name, "programmed", is_programmed);
    }
    seawall.settle();
    lab.assert_verdicts(&host, "with Docker");
    assert_eq!(seawall.status().workloads.len(), 5);
    early.remove();
    until("the end of early", Duration::from_secs(10), || seawall.workload("early").is_none());
}

#[test]
fn without_either_it_waits_idly_and_works_when_they_appear() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let (docker, containerd) = (Dead::new(), Dead::new());
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.configure(ENFORCE, &docker.path(), &containerd.path());
    seawall.run();
    let (began, before) = (Instant::now(), seawall.cpu_time());
    // Not a wait for something to happen: this is the time over which idleness is measured.
    std::thread::sleep(Duration::from_secs(3));
    let (used, over) = (seawall.cpu_time() - before, began.elapsed());
    println!("used {used:?} of processor time in {over:?} without Docker and containerd");
    assert!(used < Duration::from_millis(200), "a busy loop: {used:?} in {over:?}");
    // Said once each, not at every attempt.
    assert_eq!(seawall.log_at("WARN").len(), 2, "{:?}", seawall.log_at("WARN"));

    docker.become_alive(&host.socket());
    containerd.become_alive(&host.containerd_socket());
    seawall.await_source("Docker", true);
    seawall.await_source("containerd", true);
    seawall.settle();
    lab.assert_verdicts(&host, "when both appeared");
}
