//! Owns the metrics: numbers as Prometheus reads them, rendered from plain values.
//!
//! The text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>. `docs/operating.md`
//! describes every name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::record::EventKind;

/// What the text is, for HTTP's `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the metrics are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// seawall's version.
    pub version: String,
    /// Every workload.
    pub workloads: Vec<WorkloadMetrics>,
    /// Docker, containerd: whether they answer.
    pub sources: BTreeMap<String, bool>,
    /// How many transactions were committed.
    pub transactions: u64,
    /// How many of them put right what somebody had changed.
    pub repairs: u64,
    /// How many flows are known.
    pub flows: u64,
    /// How many denials are known.
    pub denials: u64,
    /// How many events there were of each kind; a kind that is missing had none.
    pub events: BTreeMap<EventKind, u64>,
    /// Whether something is wrong with the store.
    pub has_store_problem: bool,
    /// How many changes the store lost.
    pub store_lost: u64,
    /// How many events each sink lost.
    pub sinks_lost: BTreeMap<String, u64>,
    /// How many messages of the kernel's were lost before they were read.
    pub kernel_lost: u64,
}

/// One workload. Workloads of one name, which replicas are, are added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadMetrics {
    /// As people call it.
    pub name: String,
    /// Its model; none is unknown.
    pub model: Option<String>,
    /// off, observe or enforce.
    pub mode: String,
    /// enforced, observed, degraded, unprotected or stopped. A reason behind it is left out.
    pub coverage: String,
    /// Packets to it that no statement allows, since its table was made.
    pub denied_in: u64,
    /// Packets from it.
    pub denied_out: u64,
    /// Packets of raw sockets that were stopped at its links.
    pub denied_raw: u64,
}

/// Each metric: its name, its type, what it is.
const NAMES: [(&str, &str, &str); 13] = [
    ("seawall_build_info", "gauge", "1, with the version of the daemon."),
    ("seawall_source_up", "gauge", "Whether Docker or containerd answers."),
    ("seawall_workloads", "gauge", "Containers by name, model, mode and coverage."),
    ("seawall_workload_denied_packets_total", "counter", "Packets no statement allows."),
    ("seawall_transactions_total", "counter", "Transactions committed to nftables."),
    ("seawall_repairs_total", "counter", "Transactions that put right what others had changed."),
    ("seawall_flows", "gauge", "Flows that are known."),
    ("seawall_denials", "gauge", "Denials that are known."),
    ("seawall_events_total", "counter", "Events by kind."),
    ("seawall_store_problem", "gauge", "Whether something is wrong with the store."),
    ("seawall_store_lost_total", "counter", "Changes the store lost."),
    ("seawall_sink_lost_total", "counter", "Events a sink lost."),
    ("seawall_kernel_messages_lost_total", "counter", "Messages of the kernel's that were lost."),
];

/// Samples of one metric by their labels. What has the same labels is added up, because no series may be there twice.
type Samples = BTreeMap<String, u64>;

impl Metrics {
    /// The metrics as text. The same values give the same text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, kind, help) in NAMES {
            let samples = self.samples(name);
            if samples.is_empty() {
                continue;
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }

    fn samples(&self, name: &str) -> Samples {
        match name {
            "seawall_build_info" => one(&[("version", &self.version)], 1),
            "seawall_source_up" => all(self
                .sources
                .iter()
                .map(|(source, up)| (labels(&[("source", source)]), u64::from(*up)))),
            "seawall_workloads" => all(self.workloads.iter().map(|one| (one.labels(), 1))),
            "seawall_workload_denied_packets_total" => {
                all(self.workloads.iter().flat_map(WorkloadMetrics::denied))
            }
            "seawall_transactions_total" => one(&[], self.transactions),
            "seawall_repairs_total" => one(&[], self.repairs),
            "seawall_flows" => one(&[], self.flows),
            "seawall_denials" => one(&[], self.denials),
            "seawall_events_total" => all(EventKind::ALL.into_iter().map(|kind| {
                let count = self.events.get(&kind).copied().unwrap_or_default();
                (labels(&[("kind", kind.word())]), count)
            })),
            "seawall_store_problem" => one(&[], u64::from(self.has_store_problem)),
            "seawall_store_lost_total" => one(&[], self.store_lost),
            "seawall_sink_lost_total" => {
                all(self.sinks_lost.iter().map(|(sink, lost)| (labels(&[("sink", sink)]), *lost)))
            }
            "seawall_kernel_messages_lost_total" => one(&[], self.kernel_lost),
            _ => Samples::new(),
        }
    }
}

impl WorkloadMetrics {
    fn labels(&self) -> String {
        let state = self.coverage.split(|c: char| !c.is_ascii_alphabetic()).next();
        labels(&[
            ("workload", &self.name),
            ("model", self.model.as_deref().unwrap_or("unknown")),
            ("mode", &self.mode),
            ("coverage", state.unwrap_or_default()),
        ])
    }

    fn denied(&self) -> impl Iterator<Item = (String, u64)> {
        [("in", self.denied_in), ("out", self.denied_out), ("raw", self.denied_raw)]
            .map(|(at, count)| (labels(&[("workload", &self.name), ("at", at)]), count))
            .into_iter()
    }
}

fn one(named: &[(&str, &str)], value: u64) -> Samples {
    [(labels(named), value)].into()
}

fn all(samples: impl Iterator<Item = (String, u64)>) -> Samples {
    let mut all = Samples::new();
    for (labels, value) in samples {
        let sum = all.entry(labels).or_default();
        *sum = sum.saturating_add(value);
    }
    all
}

/// `{name="value",…}`, or nothing for none.
fn labels(named: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        named.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// The three characters that the format gives a meaning to in a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/operating.md");

    fn sample() -> Metrics {
        let workload = |name: &str, denied_in| WorkloadMetrics {
            name: name.to_owned(),
            model: (name != "odd").then(|| "nginx".to_owned()),
            mode: "enforce".to_owned(),
            coverage: "degraded: it holds NET_ADMIN".to_owned(),
            denied_in,
            denied_out: 2,
            denied_raw: 0,
        };
        Metrics {
            version: "0.1.0".to_owned(),
            workloads: vec![workload("shop/web", 1), workload("odd", 0), workload("shop/web", 4)],
            sources: [("Docker".to_owned(), true), ("containerd".to_owned(), false)].into(),
            transactions: 12,
            repairs: 1,
            flows: 7,
            denials: 3,
            events: [(EventKind::Denied, 9)].into(),
            has_store_problem: true,
            store_lost: 5,
            sinks_lost: [("webhook".to_owned(), 6)].into(),
            kernel_lost: 8,
        }
    }

    #[test]
    fn metrics_read_as_prometheus_wants_them_and_replicas_are_added_up() {
        insta::assert_snapshot!(sample().render(), @r#"
        # HELP seawall_build_info 1, with the version of the daemon.
        # TYPE seawall_build_info gauge
        seawall_build_info{version="0.1.0"} 1
        # HELP seawall_source_up Whether Docker or containerd answers.
        # TYPE seawall_source_up gauge
        seawall_source_up{source="Docker"} 1
        seawall_source_up{source="containerd"} 0
        # HELP seawall_workloads Containers by name, model, mode and coverage.
        # TYPE seawall_workloads gauge
        seawall_workloads{workload="odd",model="unknown",mode="enforce",coverage="degraded"} 1
        seawall_workloads{workload="shop/web",model="nginx",mode="enforce",coverage="degraded"} 2
        # HELP seawall_workload_denied_packets_total Packets no statement allows.
        # TYPE seawall_workload_denied_packets_total counter
        seawall_workload_denied_packets_total{workload="odd",at="in"} 0
        seawall_workload_denied_packets_total{workload="odd",at="out"} 2
        seawall_workload_denied_packets_total{workload="odd",at="raw"} 0
        seawall_workload_denied_packets_total{workload="shop/web",at="in"} 5
        seawall_workload_denied_packets_total{workload="shop/web",at="out"} 4
        seawall_workload_denied_packets_total{workload="shop/web",at="raw"} 0
        # HELP seawall_transactions_total Transactions committed to nftables.
        # TYPE seawall_transactions_total counter
        seawall_transactions_total 12
        # HELP seawall_repairs_total Transactions that put right what others had changed.
        # TYPE seawall_repairs_total counter
        seawall_repairs_total 1
        # HELP seawall_flows Flows that are known.
        # TYPE seawall_flows gauge
        seawall_flows 7
        # HELP seawall_denials Denials that are known.
        # TYPE seawall_denials gauge
        seawall_denials 3
        # HELP seawall_events_total Events by kind.
        # TYPE seawall_events_total counter
        seawall_events_total{kind="changed"} 0
        seawall_events_total{kind="daemon"} 0
        seawall_events_total{kind="denied"} 9
        seawall_events_total{kind="foreign"} 0
        seawall_events_total{kind="mode"} 0
        seawall_events_total{kind="repaired"} 0
        seawall_events_total{kind="would_deny"} 0
        # HELP seawall_store_problem Whether something is wrong with the store.
        # TYPE seawall_store_problem gauge
        seawall_store_problem 1
        # HELP seawall_store_lost_total Changes the store lost.
        # TYPE seawall_store_lost_total counter
        seawall_store_lost_total 5
        # HELP seawall_sink_lost_total Events a sink lost.
        # TYPE seawall_sink_lost_total counter
        seawall_sink_lost_total{sink="webhook"} 6
        # HELP seawall_kernel_messages_lost_total Messages of the kernel's that were lost.
        # TYPE seawall_kernel_messages_lost_total counter
        seawall_kernel_messages_lost_total 8
        "#);
    }

    #[test]
    fn every_metric_is_rendered_and_stands_in_the_manual_and_no_other_does() {
        let text = sample().render();
        for (name, kind, _) in NAMES {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is not rendered");
            assert!(
                PAGE.lines().any(|line| line.starts_with(&format!("| `{name}` | {kind} |"))),
                "{name} is not in docs/operating.md as a {kind}"
            );
        }
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `seawall_"));
        assert_eq!(rows.count(), NAMES.len(), "the manual has metrics that are not there");
    }

    #[test]
    fn a_hostile_name_stays_one_value_of_one_label() {
        let name = "a\"} 1\nseawall_flows 9\\".to_owned();
        let metrics = Metrics {
            workloads: vec![WorkloadMetrics { name, ..WorkloadMetrics::default() }],
            ..Metrics::default()
        };
        let text = metrics.render();
        let expected = r#"seawall_workloads{workload="a\"} 1\nseawall_flows 9\\",model="unknown",mode="",coverage=""} 1"#;
        assert!(text.lines().any(|line| line == expected), "{text}");
        assert!(!text.lines().any(|line| line == "seawall_flows 9"), "{text}");
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        for line in sample().render().lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("seawall_"), "{line}");
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
