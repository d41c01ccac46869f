//! seawall killed where it stands, and started again.

use crate::chaos::ENFORCE;
use crate::harness::{Container, DockerHost, Lab, Seawall};

const ROUNDS: usize = 10;

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
