//! Somebody with nft in a container's netns.

use std::time::Duration;

use super::load::Leaks;
use crate::chaos::{ENFORCE, PLAIN};
use crate::harness::{Container, DockerHost, Lab, Seawall, eventually, nft};

#[test]
fn what_somebody_changes_in_a_plain_table_is_repaired_and_reported() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, &format!("{ENFORCE}\n{PLAIN}"));
    lab.assert_verdicts(&host, "at first");
    let mut repairs = 0;
    let element = format!("{{ {} . tcp . 5432 }}", lab.app.ips_shared_with(&lab.store)[0]);
    let tampering = [
        ("flushed", "flush table inet seawall".to_owned()),
        ("deleted", "delete table inet seawall".to_owned()),
        ("opened", "insert rule inet seawall ingress accept".to_owned()),
        ("closed", format!("delete element inet seawall in4 {element}")),
        ("emptied", "flush set inet seawall in4".to_owned()),
    ];
    for (what, command) in tampering {
        nft(&lab.store.netns(), &command);
        let entry = eventually(&format!("the repair of a table {what}"), LIMIT, || {
            let entries = seawall.journal_of(&lab.store.id);
            let repaired: Vec<_> = entries.into_iter().filter(|entry| entry.is_repair).collect();
            (repaired.len() > repairs).then(|| repaired[repairs].clone())
        });
        repairs += 1;
        println!("{what}: repaired with {} operations", entry.operations);
        lab.assert_verdicts(&host, what);
        let warnings = seawall.log_at("WARN");
        let told = warnings.iter().filter(|line| {
            line.contains("somebody changed the table; repaired") && line.contains("store")
        });
        assert_eq!(told.count(), repairs, "{what}: {warnings:?}");
        let diff = seawall.cli(&["diff"]);
        assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    }
    // Nobody else's table was touched, and none twice.
    let all = seawall.journal().into_iter().filter(|entry| entry.is_repair).count();
    assert_eq!(all, repairs);
}

const LIMIT: Duration = Duration::from_secs(10);

const FLUSHES: usize = 100;

#[test]
fn a_hundred_flushes_of_every_ruleset_change_nothing_that_is_owned() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    lab.assert_verdicts(&host, "at first");
    let mut flows = lab.flows(&host);
    seawall.settle();
    let all = [&lab.store, &lab.app, &lab.web, &lab.intruder];
    let (before, journal) = (all.map(Container::table), seawall.journal());
    let (prober, leaks) = (lab.prober(), Leaks::watch(&host, &lab));
    for round in 0..FLUSHES {
        for container in all {
            nft(&container.netns(), "flush ruleset");
        }
        if round % 20 == 0 {
            flows.assert_alive(&format!("flushed, round {round}"));
        }
    }
    prober.look();
    flows.assert_alive("at last");
    lab.assert_verdicts(&host, "at last");
    let (attempts, successes) = prober.finish();
    let leaked = leaks.finish();
    println!(
        "flushed {FLUSHES} times in each of 4 network namespaces: {attempts} denied attempts, {successes} succeeded, \
         {leaked} packets leaked, 0 of 3 allowed connections broken"
    );
    assert_eq!((successes, leaked), (0, 0));
    assert_eq!(all.map(Container::table), before);
    // That Docker's own rules are gone is told, once for each; and nothing was to do.
    let done: Vec<_> = seawall.journal().into_iter().filter(|entry| entry.operations > 0).collect();
    assert_eq!(done, journal);
}
