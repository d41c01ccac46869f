//! A configuration that is broken when it is read again.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Probe, STORE, Seawall, eventually, until};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_broken_configuration_changes_nothing_and_is_told() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, ENFORCE);
    seawall.settle();
    let (before, journal) = (lab.store.table(), seawall.journal().len());
    let mut flows = lab.flows(&host);

    seawall.write(
        "policy.d/broken.toml",
        "[[allow]]\nfrom = \"service:lab/app\"\nports = [\"0/tcp\"]\n",
    );
    seawall.signal(Signal::SIGHUP);
    let error = eventually("the refusal", LIMIT, || seawall.status().configuration_error);
    assert!(error.contains("broken.toml:"), "{error}");
    seawall.settle();
    assert_eq!((lab.store.table(), seawall.journal().len()), (before, journal));
    lab.assert_verdicts(&host, "refused");
    flows.assert_alive("refused");
    assert!(seawall.log_at("ERROR").iter().any(|line| line.contains("configuration refused")));

    let good =
        "[[allow]]\nfrom = \"name:intruder\"\nto = \"service:lab/store\"\nports = [\"5432/tcp\"]\n";
    seawall.write("policy.d/broken.toml", good);
    assert!(seawall.cli(&["reload"]).status.success());
    until("the good one", LIMIT, || seawall.status().configuration_error.is_none());
    seawall.settle();
    for ip in lab.store_ips() {
        assert_eq!(lab.intruder.tcp(ip, STORE), Probe::Reached, "allowed by the operator: {ip}");
    }
    flows.assert_alive("reloaded");
}
