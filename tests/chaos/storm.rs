//! Many containers starting and dying at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Seawall, until};

const CONTAINERS: usize = 40;
const AT_ONCE: usize = 8;
const LIMIT: Duration = Duration::from_secs(30);
/// How many sockets the daemon keeps in the netns of each running container: to change its tables, and to be told of others.
const SOCKETS: usize = 3;

/// Starts container `number`; what becomes of it depends on the number.
fn live(host: &DockerHost, number: usize) {
    let name = format!("storm{number}");
    let command: &[&str] = match number % 4 {
        // Gone before or while it is programmed.
        0 => &["true"],
        1 => &["sleep", "0.05"],
        _ => &["sleep", "600"],
    };
    let args = ["run", "--detach", "--name", &name, "--network", "lab", "busybox:1"];
    host.docker_ok(&[&args[..], command].concat());
    match number % 4 {
        2 => drop(host.docker_ok(&["rm", "--force", &name])),
        1 if number.is_multiple_of(3) => drop(host.docker_ok(&["restart", "--time", "0", &name])),
        _ => {}
    }
}

#[test]
fn a_storm_of_starts_and_deaths_leaves_nothing_behind() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    let mut flows = lab.flows(&host);
    // Threads that once answered end after ten idle seconds; so far there were only these few.
    let threads = seawall.threads();
    // Of each running container the process is held, which pins nothing of it, and sockets in its netns.
    let running = || seawall.status().workloads.iter().filter(|one| one.pid.is_some()).count();
    until("a watch over every netns", LIMIT, || foreign(&seawall).len() >= SOCKETS * running());
    // The links of those that are in enforce are guarded by more.
    let guards = foreign(&seawall).len() - SOCKETS * running();
    let descriptors = seawall.descriptors().len();
    let held_before = processes(&seawall.descriptors()) * (1 + SOCKETS);
    let prober = lab.prober();

    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let number @ 0..CONTAINERS = next.fetch_add(1, Ordering::Relaxed) {
                    live(&host, number);
                }
            });
        }
    });
    flows.assert_alive("after the storm");

    until("status and docker ps agreeing", LIMIT, || {
        let running = host.docker_ok(&["ps", "--no-trunc", "--quiet"]);
        let running: BTreeSet<String> = running.lines().map(str::to_owned).collect();
        let status = seawall.status();
        let known = status.workloads.iter().filter(|workload| workload.pid.is_some());
        known.map(|workload| workload.id.clone()).collect::<BTreeSet<_>>() == running
    });
    seawall.settle();
    for workload in seawall.status().workloads.iter().filter(|workload| workload.pid.is_some()) {
        assert!(!workload.coverage.starts_with("unprotected"), "{workload:?}");
    }
    let diff = seawall.cli(&["diff"]);
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    lab.assert_verdicts(&host, "after the storm");
    let (attempts, successes) = prober.finish();
    assert!(attempts > 0 && successes == 0, "{successes} of {attempts}");
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    assert_eq!(seawall.log_at("WARN"), Vec::<String>::new());

    until("no socket in the netns of a container that ended", LIMIT, || {
        foreign(&seawall).len() <= running() * SOCKETS + guards
    });
    until("as few threads as before", LIMIT, || seawall.threads() <= threads);
    let now = seawall.descriptors();
    println!(
        "{CONTAINERS} starts: {} transactions, descriptors {descriptors} before and {} after, threads {threads} and {}",
        seawall.journal().len(),
        now.len(),
        seawall.threads()
    );
    // Docker's API is spoken to over as many connections as there were questions at once; they are kept for a while.
    let held = processes(&now);
    assert_eq!(held, running(), "{now:?}");
    let held = held * (1 + SOCKETS);
    let (before, extra) = (descriptors, unix_sockets(&seawall, &now) + held - held_before);
    assert!(now.len() <= before + extra, "{now:?}");
}

/// Descriptors that pin something of a container: a netns that is not the daemon's own, or a socket in one.
/// All of the daemon's own sockets are unix ones, and those of its netns are listed in `/proc/PID/net/unix`.
fn foreign(seawall: &Seawall) -> Vec<String> {
    let own = std::fs::read_link(format!("/proc/{}/ns/net", seawall.pid())).unwrap();
    let unix = unix_inodes(seawall);
    let is_foreign = |target: &String| match target.strip_prefix("socket:[") {
        Some(inode) => !unix.contains(inode.trim_end_matches(']')),
        None => target.starts_with("net:[") && own.to_str() != Some(target),
    };
    let targets = seawall.descriptors().into_iter();
    targets.map(|target| target.display().to_string()).filter(is_foreign).collect()
}

fn unix_inodes(seawall: &Seawall) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/unix", seawall.pid())).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().nth(6)).map(str::to_owned).collect()
}

fn processes(descriptors: &[std::path::PathBuf]) -> usize {
    descriptors.iter().filter(|target| target.ends_with("anon_inode:[pidfd]")).count()
}

fn unix_sockets(seawall: &Seawall, descriptors: &[std::path::PathBuf]) -> usize {
    let unix = unix_inodes(seawall);
    let targets = descriptors.iter().map(|target| target.display().to_string());
    let inodes =
        targets.filter_map(|t| Some(t.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()));
    inodes.filter(|inode| unix.contains(inode)).count()
}
