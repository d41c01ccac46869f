//! Tests of judging what the daemon says.

use super::super::check::Outcome;
use super::*;
use crate::reconcile::status::SourceStatus;

fn source(name: &str, error: Option<&str>) -> SourceStatus {
    let (name, error) = (name.to_owned(), error.map(str::to_owned));
    SourceStatus { name, is_up: error.is_none(), error }
}

fn workload(mode: &str, coverage: &str) -> WorkloadStatus {
    let (name, mode, coverage) = ("web".to_owned(), mode.to_owned(), coverage.to_owned());
    WorkloadStatus { name, mode, coverage, ..WorkloadStatus::default() }
}

fn report() -> StatusReport {
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: "enforce".to_owned(),
        sources: vec![source("Docker", None), source("containerd", None)],
        workloads: vec![workload("enforce", "enforced")],
        ..StatusReport::default()
    }
}

fn judged(report: Result<StatusReport, Refusal>, descriptors: Option<u64>) -> Vec<Check> {
    judge(&Facts { socket: "/run/seawall/seawall.sock".into(), report, descriptors })
}

fn results(change: impl Fn(&mut StatusReport)) -> Vec<(&'static str, Outcome)> {
    let mut report = report();
    change(&mut report);
    let checks = judged(Ok(report), Some(1024));
    assert_eq!(checks.len(), ASKED.len() + 1);
    let bad = checks.iter().filter(|check| check.result != Outcome::Ok);
    bad.map(|check| (check.id, check.result)).collect()
}

#[test]
fn a_daemon_that_is_well_has_nothing_to_be_told_of() {
    assert_eq!(results(|_| ()), []);
}

#[test]
fn each_complaint_of_the_daemon_has_its_own_check() {
    let warning = Outcome::Warning;
    assert_eq!(results(|told| told.version = "0.0.1".into()), [("daemon.version", warning)]);
    assert_eq!(
        results(|told| told.configuration_error = Some("a\nb".into())),
        [("daemon.configuration", warning)]
    );
    assert_eq!(results(|told| told.problems = vec!["full".into()]), [("daemon.record", warning)]);
    assert_eq!(
        results(|told| told.sources[0] = source("Docker", Some("down"))),
        [("daemon.sources", warning)]
    );
    let both = |told: &mut StatusReport| {
        told.sources = vec![source("Docker", Some("down")), source("containerd", Some("down"))];
    };
    assert_eq!(results(both), [("daemon.sources", Outcome::Missing)]);
}

#[test]
fn what_is_only_observed_is_told() {
    let observe = |told: &mut StatusReport| {
        told.mode = "observe".into();
        told.workloads.push(workload("observe", "observed"));
    };
    assert_eq!(results(observe), [("daemon.mode", Outcome::Warning)]);
    assert_eq!(results(|told| told.mode = "observe".into()), [], "all there are enforce");
}

#[test]
fn coverage_is_judged_by_whether_anybody_wanted_it() {
    let cases = [
        ("off", "unprotected (its mode is off)", Outcome::Ok),
        ("off", "unprotected (it uses the host's network)", Outcome::Warning),
        ("enforce", "stopped", Outcome::Ok),
        ("enforce", "unprotected (not programmed yet)", Outcome::Missing),
        ("enforce", "degraded (an older policy is in force: no)", Outcome::Missing),
        (
            "enforce",
            "degraded (it holds NET_ADMIN and can change its own firewall)",
            Outcome::Warning,
        ),
    ];
    for (mode, coverage, expected) in cases {
        let mut report = report();
        report.workloads.push(workload(mode, coverage));
        let checks = judged(Ok(report), Some(1024));
        let found = checks.iter().find(|check| check.id == "daemon.coverage").unwrap();
        assert_eq!(found.result, expected, "{coverage}");
    }
}

#[test]
fn containers_that_did_not_wait_are_named() {
    let with = |has_waited, mode: &str| {
        let pid = Some(7);
        let late = WorkloadStatus { has_waited, pid, ..workload(mode, "enforced") };
        results(|told| told.workloads.push(late.clone()))
    };
    assert_eq!(with(Some(false), "enforce"), [("daemon.waited", Outcome::Missing)]);
    for fine in [Some(true), None] {
        assert_eq!(with(fine, "enforce"), []);
    }
    assert_eq!(with(Some(false), "off"), [], "it is not to be filtered");
}

#[test]
fn a_daemon_that_is_not_there_is_one_fault() {
    let checks = judged(Err(Refusal::NotRunning), None);
    let missing: Vec<_> = checks.iter().filter(|one| one.result == Outcome::Missing).collect();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].promises, [1, 3, 5]);
    assert_eq!(checks.len(), ASKED.len() + 1);
    assert_eq!(judged(Err(Refusal::Forbidden), None)[0].result, Outcome::Unknown);
}

#[test]
fn a_limit_that_is_too_low_for_the_containers_there_are_is_told() {
    let report = StatusReport { workloads: vec![workload("enforce", "enforced"); 200], ..report() };
    let of = |limit| judged(Ok(report.clone()), limit).pop().unwrap();
    assert_eq!(of(Some(1024)).result, Outcome::Missing);
    assert_eq!(of(Some(65_536)).result, Outcome::Ok);
    assert_eq!(of(None).result, Outcome::Unknown);
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 524288               files     \n";
    assert_eq!(limit(limits), Some(1024));
    assert_eq!(limit("Max open files unlimited unlimited files"), Some(u64::MAX));
    assert_eq!(limit(""), None);
}

#[test]
fn a_long_list_is_cut_and_counted() {
    let list: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
    assert_eq!(some_of(&list), "1; 2; 3; 4; 5; and 2 more");
    assert_eq!(some_of(&list[..2]), "1; 2");
}
