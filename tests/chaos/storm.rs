//! Many containers starting and dying at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::{Leaks, assert_nothing_is_left, foreign, processes, unix_sockets};
use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, IDLE, Lab, Seawall, until};

const CONTAINERS: usize = 40;
const AT_ONCE: usize = 8;
const LIMIT: Duration = Duration::from_secs(30);

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
    let (descriptors, threads) = (seawall.descriptors().len(), seawall.threads());
    let held_before = processes(&seawall.descriptors()) + foreign(&seawall).len();
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

    assert_nothing_is_left(&host, &seawall);
    lab.assert_verdicts(&host, "after the storm");
    let (attempts, successes) = prober.finish();
    assert!(attempts > 0 && successes == 0, "{successes} of {attempts}");
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
    assert_eq!(seawall.log_at("WARN"), Vec::<String>::new());

    until("as few threads as before", LIMIT, || seawall.threads() <= threads);
    let now = seawall.descriptors();
    println!(
        "{CONTAINERS} starts: {} transactions, descriptors {descriptors} before and {} after, threads {threads} and {}",
        seawall.journal().len(),
        now.len(),
        seawall.threads()
    );
    // Docker's API is spoken to over as many connections as there were questions at once; they are kept for a while.
    // And of each running container the process is held, which pins nothing of it, and the sockets of its netns.
    let held = processes(&now) + foreign(&seawall).len();
    let (before, extra) = (descriptors, unix_sockets(&seawall, &now) + held - held_before);
    assert!(now.len() <= before + extra, "{now:?}");
}

/// So many are there at the same time.
const CROWD: usize = 200;
/// So many of Docker's clients start and stop them.
const CLIENTS: usize = 4;

#[test]
fn two_hundred_at_once_are_all_programmed_and_all_forgotten() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    let mut flows = lab.flows(&host);
    let (prober, leaks) = (lab.prober(), Leaks::watch(&host, &lab));
    let names: Vec<String> = (0..CROWD).map(|number| format!("crowd{number}")).collect();
    let all_at_once = |action: &(dyn Fn(&[String]) + Sync)| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for own in names.chunks(CROWD / CLIENTS) {
                scope.spawn(move || action(own));
            }
        });
        began.elapsed()
    };
    all_at_once(&|own| {
        for (number, name) in own.iter().enumerate() {
            // Half of them may ping one another, so that each changes the tables of all of those; half are alone.
            let network = if number % 2 == 0 { "lab" } else { "bridge" };
            let create = ["create", "--name", name, "--network", network];
            host.docker_ok(&[&create[..], &IDLE].concat());
        }
    });
    let words = |first: &[&'static str], own: &[String]| -> Vec<String> {
        first.iter().map(|word| (*word).to_owned()).chain(own.iter().cloned()).collect()
    };
    let docker = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        host.docker_ok(&words);
    };
    let starting = all_at_once(&|own| docker(words(&["start"], own)));
    let began = Instant::now();
    assert_nothing_is_left(&host, &seawall);
    println!(
        "{CROWD} started in {starting:?}, all programmed and compared {:?} later",
        began.elapsed()
    );
    let known = seawall.status().workloads.into_iter().filter(|one| one.pid.is_some()).count();
    assert_eq!(known, CROWD + 4);
    flows.assert_alive("with all of them");
    lab.assert_verdicts(&host, "with all of them");

    let ending = all_at_once(&|own| docker(words(&["rm", "--force"], own)));
    let began = Instant::now();
    assert_nothing_is_left(&host, &seawall);
    println!("{CROWD} ended in {ending:?}, all forgotten {:?} later", began.elapsed());
    flows.assert_alive("without them");
    lab.assert_verdicts(&host, "without them");
    let (attempts, successes) = prober.finish();
    let leaked = leaks.finish();
    println!(
        "{attempts} denied attempts, {successes} succeeded, {leaked} packets leaked, 0 of 3 allowed connections broken"
    );
    assert_eq!((successes, leaked), (0, 0));
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}
