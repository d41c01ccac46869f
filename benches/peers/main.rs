//! What users would pick instead of seawall, doing the comparable part of the work: one application that may use its
//! database and nothing else. `scripts/bench --peers` runs it; by hand: `cargo bench --bench peers -- [--quick]
//! [--dfw PROGRAM]` as root, after `scripts/images`. Figures go to `target/bench/peers.json`.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

mod contender;
#[allow(dead_code, reason = "other parts use the rest")]
#[path = "../machine/figures.rs"]
mod figures;
#[path = "../../tests/harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "other parts use the rest")]
#[path = "../machine/machine.rs"]
mod machine;
mod stand;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use contender::Contender;
use figures::{Figure, Samples, Sheet};
use stand::{Stand, Start};

/// Measures, and writes figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Less of everything.
    #[arg(long)]
    quick: bool,
    /// dfw's program; without it dfw is left out.
    #[arg(long)]
    dfw: Option<PathBuf>,
    /// What must be known to read the figures.
    #[arg(long)]
    note: Vec<String>,
    /// Where figures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    out: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was seen of one contender.
#[derive(Default)]
struct Tally {
    starts: Vec<Start>,
    moves: Vec<Duration>,
    processor: Option<Duration>,
}

fn main() {
    let arguments = Arguments::parse();
    let rounds = if arguments.quick { 5 } else { 20 };
    let mut contenders = vec![Contender::Nothing, Contender::Script];
    contenders.extend(arguments.dfw.map(Contender::Dfw));
    contenders.extend([Contender::Seawall, Contender::Wrapper]);
    // Longer than any of them needs.
    let length = Duration::from_secs(2);
    let mut stands: Vec<(Stand, Tally)> = contenders
        .into_iter()
        .map(|contender| (Stand::new(contender, length), Tally::default()))
        .collect();
    for round in 0..rounds {
        eprintln!("peers: round {} of {rounds}", round + 1);
        for (stand, tally) in &mut stands {
            let before = stand.processor_time();
            tally.starts.push(stand.start());
            tally.moves.push(stand.move_database());
            stand.remove();
            // What it does about the application's end after this, while others have their turn, is not counted.
            let took = before.zip(stand.processor_time()).map(|(before, now)| now - before);
            tally.processor = took.map(|took| took + tally.processor.unwrap_or_default());
        }
    }
    let tallies: Vec<(&str, Tally)> =
        stands.into_iter().map(|(stand, tally)| (stand.contender.name(), tally)).collect();
    let mut sheet = Sheet::new("peers", arguments.quick, figures(&tallies));
    sheet.notes = arguments.note;
    sheet.write(&arguments.out);
}

fn figures(tallies: &[(&str, Tally)]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, tally) in tallies {
        let leaking = tally.starts.iter().filter(|start| start.leaked > 0).count();
        let name = format!("starts that leaked, of {}: {name}", tally.starts.len());
        figures.push(Figure::one(name, "", leaking as f64));
    }
    let leaked = |tally: &Tally| {
        Samples::new(tally.starts.iter().map(|start| start.leaked as f64).collect())
    };
    figures.extend(all(tallies, "datagrams that got out", "", leaked));
    figures.extend(times(tallies, "first instruction to the last that got out", |start| {
        start.enforced
    }));
    figures
        .extend(times(tallies, "first instruction to allowed connection", |start| start.allowed));
    figures.extend(times(tallies, "docker start", |start| start.took));
    let moves = |tally: &Tally| Samples::of_durations(&tally.moves);
    figures.extend(all(tallies, "peer's new address serves to connection", "ms", moves));
    let worked: Vec<_> = tallies.iter().filter(|(_, tally)| tally.processor.is_some()).collect();
    for (name, tally) in worked {
        let each = tally.processor.unwrap_or_default() / u32::try_from(tally.starts.len()).unwrap();
        let name = format!("processor time of a round: {name}");
        figures.push(Figure::one(name, "ms", each.as_secs_f64() * 1e3));
    }
    figures
}

/// The same times of every start.
fn times(tallies: &[(&str, Tally)], what: &str, of: fn(&Start) -> Duration) -> Vec<Figure> {
    all(tallies, what, "ms", |tally| {
        Samples::of_durations(&tally.starts.iter().map(of).collect::<Vec<_>>())
    })
}

/// The same of every contender, beside nothing and beside seawall with its wrapper, where these are not zero.
fn all(
    tallies: &[(&str, Tally)],
    what: &str,
    unit: &str,
    samples: impl Fn(&Tally) -> Samples,
) -> Vec<Figure> {
    let ends = [Contender::Nothing.name(), Contender::Wrapper.name()];
    let beside = |figure: Figure, own: &str| {
        let references = tallies.iter().filter(|(name, _)| ends.contains(name) && *name != own);
        references.fold(figure, |figure, (name, tally)| {
            let reference = samples(tally);
            if reference.p50 > 0.0 { figure.beside(name, reference) } else { figure }
        })
    };
    tallies
        .iter()
        .map(|(name, tally)| {
            beside(Figure::new(format!("{what}: {name}"), unit, samples(tally)), name)
        })
        .collect()
}
