//! What is aimed at, and whether it was reached.

use crate::figures::{Figure, Sheet};
use crate::program::{FLOOR, NFT, ORDINARY};

/// One aim.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) measured: String,
    pub(crate) is_met: Option<bool>,
}

/// Every aim, judged by what was measured.
pub(crate) fn all(sheets: &[Sheet]) -> Vec<Target> {
    let find = |part: &str, name: &str| -> Option<&Figure> {
        let sheet = sheets.iter().find(|sheet| sheet.part == part)?;
        sheet.figures.iter().find(|figure| figure.name == name)
    };
    let first = find("program", &format!("first policy, {ORDINARY} tuples"));
    let scale = |what: &str| find("scale", &format!("{what}, 1000 netns"));
    let p50 = |figure: Option<&Figure>| figure.map(|figure| figure.samples.p50);
    let p99 = |figure: Option<&Figure>| figure.map(|figure| figure.samples.p99);
    let ratio = |figure: Option<&Figure>, to: &str| figure.and_then(|one| one.ratio_to(to));
    let bulk = |rules: &str| find("traffic", &format!("TCP bulk: {rules}"));
    let small = |rules: &str| find("traffic", &format!("small datagrams: {rules}"));
    let trips = |rules: &str| find("traffic", &format!("UDP round trips: {rules}"));
    let most = "seawall, 100000 tuples";
    let exponents = ["resolve", "generate", "compile", "diff", "desire", "decide again"]
        .map(|stage| p50(find("stages", &format!("{stage}: exponent of growth"))));
    let worst = exponents.into_iter().flatten().reduce(f64::max);
    vec![
        below(
            "first policy of 50 tuples: within 3 × the bare socket",
            ratio(first, FLOOR),
            3.0,
            "×",
        ),
        above(
            "the same: 20 × faster than nft -f",
            ratio(first, NFT).map(|one| 1.0 / one),
            20.0,
            "×",
        ),
        below(
            "containerd's event → committed, p99",
            p99(find("docker", "event to commit")),
            5.0,
            "ms",
        ),
        below(
            "new address seen by 1,000: under 30 ms",
            p50(scale("new address, all depend")),
            30.0,
            "ms",
        ),
        below(
            "new address seen by few of 1,000: under 30 ms",
            p50(scale("new address, few dependents")),
            30.0,
            "ms",
        ),
        below(
            "1,000 netns cold: under 1 s",
            p50(scale("cold start to all enforced")),
            1000.0,
            "ms",
        ),
        below("audit of 1,000 netns: under 1 s", p50(scale("audit of all")), 1000.0, "ms"),
        below("memory at 1,000 netns: under 64 MiB", p50(scale("memory")), 64.0, "MiB"),
        below("idle processor time at 1,000 netns", p50(scale("idle processor time")), 0.2, "%"),
        above(
            "TCP at 100,000 tuples: within 5 % of 10",
            ratio(bulk(most), "seawall, 10 tuples"),
            0.95,
            "×",
        ),
        above("small datagrams, the same", ratio(small(most), "seawall, 10 tuples"), 0.95, "×"),
        above("UDP round trips, the same", ratio(trips(most), "seawall, 10 tuples"), 0.95, "×"),
        above(
            "TCP at 100,000 tuples: within 2 % of established",
            ratio(bulk(most), "established accept"),
            0.98,
            "×",
        ),
        above("small datagrams, the same", ratio(small(most), "established accept"), 0.98, "×"),
        above("UDP round trips, the same", ratio(trips(most), "established accept"), 0.98, "×"),
        above(
            "small datagrams: 10 × those of a linear chain of 10,000",
            ratio(small(most), "iptables-nft, 10000 rules"),
            10.0,
            "×",
        ),
        above(
            "UDP round trips, the same",
            ratio(trips(most), "iptables-nft, 10000 rules"),
            10.0,
            "×",
        ),
        below(
            "compile of 10,000 workloads: under 1 s",
            p50(find("stages", "compile, 10000 workloads")),
            1000.0,
            "ms",
        ),
        // n log n has 1.2 between 10 and 10,000.
        below("growth of the pure stages: n log n at worst, exponent", worst, 1.2, ""),
    ]
}

fn below(what: &'static str, measured: Option<f64>, limit: f64, unit: &str) -> Target {
    judged(what, measured, unit, |value| value <= limit)
}

fn above(what: &'static str, measured: Option<f64>, limit: f64, unit: &str) -> Target {
    judged(what, measured, unit, |value| value >= limit)
}

fn judged(
    what: &'static str,
    measured: Option<f64>,
    unit: &str,
    is_met: impl FnOnce(f64) -> bool,
) -> Target {
    let shown = measured.map_or_else(String::new, |value| format!("{value:.3} {unit}"));
    Target { what, measured: shown, is_met: measured.map(is_met) }
}
