//! Kernel layer: what `scripts/bench` runs still measures: a small run of each part that needs a kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the table is not printed here")]

#[path = "../benches/machine/effort.rs"]
mod effort;
#[path = "../benches/machine/figures.rs"]
mod figures;
#[path = "../benches/machine/host.rs"]
mod host;
#[path = "../benches/machine/loads.rs"]
mod loads;
#[path = "../benches/machine/machine.rs"]
mod machine;
#[path = "../benches/machine/program.rs"]
mod program;
#[path = "kernel/rate.rs"]
mod rate;
#[path = "../benches/machine/scale.rs"]
mod scale;
#[path = "../benches/machine/spaces.rs"]
mod spaces;
#[path = "../benches/synthetic.rs"]
mod synthetic;
#[path = "../benches/machine/traffic.rs"]
mod traffic;

use std::time::Duration;

use effort::Effort;
use figures::Sheet;

const SMALL: Effort = Effort {
    many: 2,
    few: 2,
    tuples: &[10],
    fleets: &[11],
    storm: 5,
    idle: Duration::from_millis(10),
    traffic: (1, Duration::from_millis(20)),
    most: (10, 10),
    ..Effort::QUICK
};

/// Every figure and every reference has at least one sample, and all of them are numbers.
fn assert_measured(sheet: &Sheet) {
    assert!(!sheet.figures.is_empty());
    for figure in &sheet.figures {
        let references = figure.references.iter().map(|one| &one.samples);
        for samples in [&figure.samples].into_iter().chain(references) {
            assert!(samples.count > 0 && samples.p50.is_finite(), "{}", figure.name);
        }
    }
}

#[test]
fn one_netns_is_programmed_beside_the_nft_command_and_a_bare_socket() {
    let sheet = program::measure(SMALL);
    assert_measured(&sheet);
    assert!(sheet.figures.iter().all(|figure| figure.references.len() == 2));
}

#[test]
fn a_fleet_is_started_changed_audited_and_left_and_only_who_is_affected_is_touched() {
    let sheet = scale::measure(SMALL);
    assert_measured(&sheet);
    let touched = |what: &str| {
        let name = format!("new address, {what}: touched, 11 netns");
        sheet.figures.iter().find(|figure| figure.name == name).unwrap().samples.max as usize
    };
    // Four of its own application, and the store, whom all may use.
    assert_eq!(touched("few dependents"), 5);
    assert_eq!(touched("all depend"), 10);
}

#[test]
fn traffic_flows_under_every_ruleset() {
    let sheet = traffic::measure(SMALL);
    assert_measured(&sheet);
    for figure in &sheet.figures {
        assert!(figure.samples.min > 0.0, "{}", figure.name);
    }
}
