//! Owns what is asked of the daemon, through its control socket.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::PATIENCE;
use super::check::Check;
use crate::api::Client;
use crate::api::client::ClientError;
use crate::input::Text;
use crate::reconcile::coverage::{HOST_NETWORK, OLDER_POLICY};
use crate::reconcile::{StatusReport, WorkloadStatus};

/// What the daemon has open for each container, about: a table's socket, two that tell of others' changes, two of what is
/// seen, two more where there are helpers, its process, and the queues of its links.
const EACH: u64 = 10;
/// What it opens besides: its own sockets, the database, sinks.
const BESIDES: u64 = 128;

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) socket: PathBuf,
    pub(super) report: Result<StatusReport, Refusal>,
    /// How many files it may have open (`RLIMIT_NOFILE`, the soft limit).
    pub(super) descriptors: Option<u64>,
}

/// Why the daemon says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotRunning,
    Forbidden,
    Other(String),
}

pub(super) async fn read(socket: &Path) -> Facts {
    let client = Client::new(socket);
    let report = match tokio::time::timeout(PATIENCE, client.status()).await {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(ClientError::NotRunning(_))) => Err(Refusal::NotRunning),
        Ok(Err(ClientError::Permission(_))) => Err(Refusal::Forbidden),
        Ok(Err(other)) => Err(Refusal::Other(Text::new(&other.to_string()).to_string())),
        Err(_) => {
            let socket = socket.display();
            Err(Refusal::Other(format!("the daemon on {socket} does not answer")))
        }
    };
    Facts { socket: socket.to_path_buf(), report, descriptors: descriptors(socket) }
}

/// The limit of the process that listens.
fn descriptors(socket: &Path) -> Option<u64> {
    let stream = UnixStream::connect(socket).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    limit(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// The soft limit of `Max open files` in `/proc/PID/limits`.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

const ASKED: [&str; 8] = [
    "daemon.version",
    "daemon.configuration",
    "daemon.sources",
    "daemon.mode",
    "daemon.coverage",
    "daemon.waited",
    "daemon.record",
    "daemon.descriptors",
];

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    const ID: &str = "daemon.running";
    const NEW: &str = "what is in force stays; new containers get no policy (with the runtime wrapper they start as \
                       runtime.fallback says), freed addresses stay in sets, and tables are nobody's own";
    let socket = facts.socket.display();
    let (running, report) = match &facts.report {
        Ok(report) => (Check::ok(ID, format!("it answers on {socket}")), report),
        Err(refusal) => {
            let running = match refusal {
                Refusal::NotRunning => Check::missing(
                    ID,
                    &[1, 3, 5],
                    format!("no daemon answers on {socket}"),
                    NEW,
                    "systemctl enable --now seawall",
                ),
                Refusal::Forbidden => {
                    Check::unknown(ID, format!("{socket} may not be used by this call"))
                }
                Refusal::Other(why) => Check::missing(
                    ID,
                    &[1, 3, 5],
                    why.clone(),
                    NEW,
                    "journalctl -u seawall; systemctl restart seawall",
                ),
            };
            let others = ASKED.map(|id| Check::skipped(id, "no daemon to ask"));
            return std::iter::once(running).chain(others).collect();
        }
    };
    vec![
        running,
        version(report),
        configuration(report),
        sources(report),
        mode(report),
        coverage(report),
        waited(report),
        record(report),
        files(facts, report),
    ]
}

fn version(report: &StatusReport) -> Check {
    const ID: &str = "daemon.version";
    let own = env!("CARGO_PKG_VERSION");
    if report.version == own {
        return Check::ok(ID, own);
    }
    Check::warning(
        ID,
        format!("the daemon is {}, this program {own}", Text::new(&report.version)),
        "what was mended in between is not in force",
        "systemctl restart seawall (no verdict changes)",
    )
}

fn configuration(report: &StatusReport) -> Check {
    const ID: &str = "daemon.configuration";
    let Some(error) = &report.configuration_error else {
        return Check::ok(ID, "what it read last is in force");
    };
    let first = error.lines().next().unwrap_or_default();
    Check::warning(
        ID,
        format!("refused: {}", Text::new(first)),
        "the last good configuration stays in force, and what was changed since is not",
        "seawall check, then: seawall reload",
    )
}

fn sources(report: &StatusReport) -> Check {
    const ID: &str = "daemon.sources";
    let down: Vec<String> = report
        .sources
        .iter()
        .filter(|source| !source.is_up)
        .map(|source| {
            let why = source.error.as_deref().unwrap_or("no answer");
            format!("{}: {}", source.name, Text::new(why))
        })
        .collect();
    let names: Vec<&str> = report.sources.iter().map(|source| source.name.as_str()).collect();
    match down.len() {
        0 => Check::ok(ID, names.join(", ")),
        count if count < names.len() => Check::warning(
            ID,
            down.join("; "),
            "containers are followed by the other one alone: changes may be told late",
            "see docker.reachable and containerd.reachable",
        ),
        _ => Check::missing(
            ID,
            &[1, 3],
            down.join("; "),
            "no container is followed; what is in force stays",
            "see docker.reachable and containerd.reachable",
        ),
    }
}

fn mode(report: &StatusReport) -> Check {
    const ID: &str = "daemon.mode";
    let enforced = report.workloads.iter().filter(|one| one.mode == "enforce").count();
    let all = report.workloads.len();
    let found = format!("mode {}; {enforced} of {all} containers enforce", report.mode);
    if report.mode == "enforce" || (all > 0 && enforced == all) {
        return Check::ok(ID, found);
    }
    Check::warning(
        ID,
        found,
        "what does not enforce denies nothing; it only tells what it would deny",
        "when `seawall events` tells nothing you need: mode = \"enforce\" in seawall.toml",
    )
}

/// Containers whose coverage is less than their mode promises.
fn coverage(report: &StatusReport) -> Check {
    const ID: &str = "daemon.coverage";
    let listed = |which: fn(&WorkloadStatus) -> bool| -> Vec<String> {
        let found = report.workloads.iter().filter(|one| which(one));
        found.map(|one| format!("{}: {}", Text::new(&one.name), Text::new(&one.coverage))).collect()
    };
    let (open, weak) = (listed(is_open), listed(is_weak));
    if !open.is_empty() {
        return Check::missing(
            ID,
            &[1, 2, 4],
            some_of(&open),
            "these containers are not filtered by their newest policy",
            "the reason stands beside each; `seawall status` shows all",
        );
    }
    if !weak.is_empty() {
        return Check::warning(
            ID,
            some_of(&weak),
            "these containers can get around their policy, or have none",
            "start them without that, or know it: the reason stands beside each",
        );
    }
    Check::ok(ID, format!("{} containers, each as its mode says", report.workloads.len()))
}

/// Nothing, or not the newest, is in force, and nobody wanted that.
fn is_open(workload: &WorkloadStatus) -> bool {
    let coverage = workload.coverage.as_str();
    let is_unprotected = coverage.starts_with("unprotected");
    let is_wanted = workload.mode == "off" || coverage.contains(HOST_NETWORK);
    (is_unprotected && !is_wanted) || coverage.contains(OLDER_POLICY)
}

/// By its own rights or its own network it gets around its policy.
fn is_weak(workload: &WorkloadStatus) -> bool {
    let coverage = workload.coverage.as_str();
    coverage.starts_with("degraded") || coverage.contains(HOST_NETWORK)
}

/// The first few of a list, and how many there are besides.
fn some_of(list: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = list.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match list.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}; and {more} more"),
    }
}

/// Whether the first instruction of what runs now met its policy.
fn waited(report: &StatusReport) -> Check {
    const ID: &str = "daemon.waited";
    let running = report.workloads.iter().filter(|one| one.pid.is_some() && one.mode != "off");
    let (late, others): (Vec<_>, Vec<_>) = running.partition(|one| one.has_waited == Some(false));
    if late.is_empty() {
        let waited = others.iter().filter(|one| one.has_waited == Some(true)).count();
        let earlier = others.len() - waited;
        let found = format!("{waited} waited, {earlier} ran before this daemon did");
        return Check::ok(ID, found);
    }
    let late: Vec<String> = late.iter().map(|one| Text::new(&one.name).to_string()).collect();
    Check::missing(
        ID,
        &[1],
        format!("these did not: {}", some_of(&late)),
        "they may have talked before their policy was in force",
        "install the runtime wrapper and create them anew; with it, see why the daemon was away when they started",
    )
}

fn record(report: &StatusReport) -> Check {
    const ID: &str = "daemon.record";
    if report.problems.is_empty() {
        return Check::ok(ID, "what is seen is kept, and sent where the configuration says");
    }
    let told: Vec<String> =
        report.problems.iter().map(|problem| Text::new(problem).to_string()).collect();
    Check::warning(
        ID,
        some_of(&told),
        "some of what is seen is not kept or not sent; no verdict changes",
        "see \"What is kept\" and \"Events\" in docs/operating.md",
    )
}

fn files(facts: &Facts, report: &StatusReport) -> Check {
    const ID: &str = "daemon.descriptors";
    let needed = EACH * report.workloads.len() as u64 + BESIDES;
    match facts.descriptors {
        None => Check::unknown(ID, "the process that listens cannot be looked at"),
        Some(limit) if limit >= needed => {
            let most = limit.saturating_sub(BESIDES) / EACH;
            Check::ok(ID, format!("room for {most} containers"))
        }
        Some(limit) => Check::missing(
            ID,
            &[1, 5],
            format!("it may open {limit} files, and needs about {needed}"),
            "containers beyond that get no policy",
            "LimitNOFILE=65536 in the unit (systemctl edit seawall)",
        ),
    }
}

#[cfg(test)]
mod tests;
