//! A configuration that is broken, gone, or not to be had without a restart when it is read again.

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

/// That a reload is refused, and that nothing whatsoever is different afterwards.
#[track_caller]
fn assert_refused(seawall: &Seawall, host: &DockerHost, lab: &Lab, why: &str) {
    let (before, journal) = (lab.store.table(), seawall.journal().len());
    let reload = seawall.cli(&["reload"]);
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert_eq!(reload.status.code(), Some(2), "{said}");
    assert!(said.contains("the last good one stays in force") && said.contains(why), "{said}");
    let error = seawall.status().configuration_error;
    assert!(error.is_some_and(|error| error.contains(why)), "{said}");
    seawall.settle();
    assert_eq!((lab.store.table(), seawall.journal().len()), (before, journal));
    lab.assert_verdicts(host, "refused");
}

#[test]
fn a_file_is_obeyed_whole_or_refused_whole() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let mut seawall = Seawall::start(&host, ENFORCE);
    seawall.settle();
    let mut flows = lab.flows(&host);
    let good = std::fs::read_to_string(seawall.config()).unwrap();

    // What is read at start only takes everything beside it along, in every file.
    seawall.write(
        "seawall.toml",
        &format!("ownership = \"off\"\n{good}").replace("enforce", "observe"),
    );
    let allow =
        "[[allow]]\nfrom = \"name:intruder\"\nto = \"service:lab/store\"\nports = [\"5432/tcp\"]\n";
    seawall.write("policy.d/allow.toml", allow);
    assert_refused(&seawall, &host, &lab, "`ownership` changed");
    // A mode that cannot be obeyed with it is not kept either.
    let mode = seawall.cli(&["mode", "service:lab/store", "observe"]);
    assert!(!mode.status.success());
    assert!(String::from_utf8_lossy(&mode.stderr).contains("`ownership` changed"));
    let modes = seawall.json(&["mode"]);
    assert_eq!(modes.as_array().map(Vec::len), Some(0), "{modes:#}");
    lab.assert_verdicts(&host, "no mode");

    // A file that is away for a moment is none that says nothing.
    std::fs::remove_file(seawall.config()).unwrap();
    seawall.signal(Signal::SIGHUP);
    until("the refusal", LIMIT, || {
        seawall.status().configuration_error.is_some_and(|error| error.contains("is gone"))
    });
    lab.assert_verdicts(&host, "gone");
    flows.assert_alive("refused");

    // Put back it is obeyed, with what else was written meanwhile.
    seawall.write("seawall.toml", &good);
    seawall.cli_ok(&["reload"]);
    assert_eq!(seawall.status().configuration_error, None);
    seawall.settle();
    for ip in lab.store_ips() {
        assert_eq!(lab.intruder.tcp(ip, STORE), Probe::Reached, "allowed by the operator: {ip}");
    }
    // A restart takes what a reload does not.
    seawall.write("seawall.toml", &format!("ownership = \"off\"\n{good}"));
    seawall.stop();
    seawall.run();
    assert_eq!(seawall.status().configuration_error, None);
    seawall.cli_ok(&["reload"]);
    flows.assert_alive("restarted");
}
