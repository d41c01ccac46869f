//! The measurements that need a kernel, each beside a reference of the same minute. `scripts/bench` runs it; by hand:
//! `cargo bench --bench machine -- PART… [--quick]` as root. Figures go to `target/bench/PART.json`.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

mod effort;
mod figures;
mod host;
mod loads;
mod machine;
mod program;
#[path = "../../tests/kernel/rate.rs"]
mod rate;
mod report;
mod scale;
mod spaces;
#[path = "../synthetic.rs"]
mod synthetic;
mod targets;
mod traffic;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use effort::Effort;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bringing one netns to what is wanted, beside the nft command and beside a bare socket.
    Program,
    /// The whole loop with many network namespaces.
    Scale,
    /// Allowed traffic, beside other rulesets.
    Traffic,
    /// No measurement: prints the table of all that was measured.
    Report,
}

/// Measures, and writes figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(required = true)]
    parts: Vec<Part>,
    /// Less of everything.
    #[arg(long)]
    quick: bool,
    /// Where figures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    out: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    machine::open_many_files();
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    for part in arguments.parts {
        let sheet = match part {
            Part::Program => program::measure(effort),
            Part::Scale => scale::measure(effort),
            Part::Traffic => traffic::measure(effort),
            Part::Report => {
                report::print(&arguments.out);
                continue;
            }
        };
        sheet.write(&arguments.out);
    }
}
