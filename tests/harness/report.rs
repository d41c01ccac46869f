//! Owns what the daemon tells of itself, as values: status, journal, log lines by level, and what the process holds.

use std::path::PathBuf;
use std::time::Duration;

use seawall::reconcile::status::SourceStatus;
use seawall::reconcile::{Entry, StatusReport, WorkloadStatus};

use super::deadline::eventually;
use super::seawall::Seawall;

/// Longer than anything takes that is not broken.
const LIMIT: Duration = Duration::from_secs(20);

impl Seawall {
    /// `seawall status`.
    #[track_caller]
    pub(crate) fn status(&self) -> StatusReport {
        self.read(&["status"])
    }

    /// `seawall status --changes`, oldest first.
    #[track_caller]
    pub(crate) fn journal(&self) -> Vec<Entry> {
        self.read(&["status", "--changes"])
    }

    /// The transactions of one workload, by its id.
    #[track_caller]
    pub(crate) fn journal_of(&self, id: &str) -> Vec<Entry> {
        self.read(&["status", "--changes", id])
    }

    /// One workload by container name, if the daemon knows it.
    #[track_caller]
    pub(crate) fn workload(&self, name: &str) -> Option<WorkloadStatus> {
        self.status().workloads.into_iter().find(|workload| workload.name == name)
    }

    /// Waits until the daemon says this of a workload.
    #[track_caller]
    pub(crate) fn await_workload(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&WorkloadStatus) -> bool,
    ) -> WorkloadStatus {
        eventually(&format!("{name} {what}"), LIMIT, || self.workload(name).filter(&is_so))
    }

    /// Waits until the daemon says this of a source: `Docker` or `containerd`.
    #[track_caller]
    pub(crate) fn await_source(&self, name: &str, is_up: bool) -> SourceStatus {
        let what = format!("{name} {}", if is_up { "connected" } else { "down" });
        eventually(&what, LIMIT, || {
            self.status()
                .sources
                .into_iter()
                .find(|source| source.name == name && source.is_up == is_up)
        })
    }

    /// Waits until everything the daemon knows is programmed, or was tried.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let output = self.cli(&["status", "--wait"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Lines of the log at `ERROR` or `WARN`.
    pub(crate) fn log_at(&self, level: &str) -> Vec<String> {
        let level = format!(" {level} ");
        self.log().lines().filter(|line| line.contains(&level)).map(str::to_owned).collect()
    }

    /// What its open descriptors are: the targets of `/proc/PID/fd`.
    pub(crate) fn descriptors(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("seawall runs");
        // One that was closed meanwhile is none.
        folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("seawall runs").count()
    }

    /// Processor time it has used so far (`proc(5)`, `stat`: utime and stime, in ticks of 10 ms).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // The second field is a name in parentheses that may hold anything.
        let (_, fields) = stat.rsplit_once(')').expect("proc(5)");
        let ticks = fields.split_whitespace().skip(11).take(2);
        Duration::from_millis(10 * ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    }

    #[track_caller]
    fn read<T: serde::de::DeserializeOwned>(&self, args: &[&str]) -> T {
        serde_json::from_value(self.json(args)).expect("what the library writes it also reads")
    }
}
