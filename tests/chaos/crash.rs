//! seawall killed where it stands, and started again.

use std::time::Duration;

use super::load::{Leaks, Load, Moments, assert_nothing_is_left};
use crate::chaos::ENFORCE;
use crate::harness::{Container, DockerHost, Lab, Seawall};

const ROUNDS: usize = 10;
const KILLS: usize = 100;
/// A daemon lives about this long in the middle case: some are killed before they have read anything, some long after.
const LIFE: Duration = Duration::from_millis(700);

#[test]
fn a_killed_seawall_breaks_no_allowed_connection_and_opens_nothing() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let mut seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "at first");
    let mut flows = lab.flows(&host);
    let before = [&lab.store, &lab.app, &lab.web, &lab.intruder].map(Container::table);
    let prober = lab.prober();

    for round in 0..ROUNDS {
        seawall.kill9();
        prober.look();
        flows.assert_alive(&format!("killed, round {round}"));
        seawall.run();
        prober.look();
        flows.assert_alive(&format!("started again, round {round}"));
        // Its journal begins anew with it: nothing was to do but to make the tables its own.
        for entry in seawall.journal() {
            let is_adoption = |change: &String| change.ends_with("adopt table");
            assert!(entry.changes.iter().all(is_adoption), "round {round}: {entry:?}");
        }
    }

    let (attempts, successes) = prober.finish();
    println!("killed {ROUNDS} times: {attempts} denied attempts, {successes} succeeded");
    assert_eq!(successes, 0);
    let after = [&lab.store, &lab.app, &lab.web, &lab.intruder].map(Container::table);
    assert_eq!(before, after);
    lab.assert_verdicts(&host, "at last");
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn killed_at_random_moments_while_containers_come_and_go_it_leaks_and_breaks_nothing() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let mut seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "at first");
    let mut flows = lab.flows(&host);
    let (prober, leaks) = (lab.prober(), Leaks::watch(&host, &lab));
    let (mut moments, load) = (Moments::new(), Load::start(&host));
    for kill in 0..KILLS {
        moments.pass(LIFE);
        seawall.kill9();
        if kill % 10 == 0 {
            flows.assert_alive(&format!("killed {kill} times"));
        }
        seawall.spawn();
    }
    seawall.kill9();
    let starts = load.finish();
    seawall.run();
    assert_nothing_is_left(&host, &seawall);
    flows.assert_alive("at last");
    lab.assert_verdicts(&host, "at last");
    let (attempts, successes) = prober.finish();
    let leaked = leaks.finish();
    println!(
        "killed {KILLS} times, {starts} containers meanwhile: {attempts} denied attempts, {successes} succeeded, \
         {leaked} packets leaked, 0 of 3 allowed connections broken"
    );
    assert_eq!((successes, leaked), (0, 0));
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}
