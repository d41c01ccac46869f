//! Programming one netns: its first policy, a peer more or less, and everything replaced; beside the nft command and
//! beside the bare socket that sends the same bytes.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seawall::compile::Ruleset;
use seawall::compile::guard::Terms;
use seawall::metadata::WorkloadId;
use seawall::nft::Transaction;
use seawall::reconcile::{Applied, Kernel, Target, Wanted};

use crate::effort::Effort;
use crate::figures::{Figure, Samples, Sheet};
use crate::loads::{Bare, bytes, removal, ruleset, script};
use crate::spaces::{Hub, Space};

/// What the bare socket is called in figures.
pub(crate) const FLOOR: &str = "bare socket";
pub(crate) const NFT: &str = "nft -f";
/// What the first policy of an ordinary container holds.
pub(crate) const ORDINARY: usize = 50;

pub(crate) fn measure(effort: Effort) -> Sheet {
    let hub = Hub::new("p");
    let space = hub.space(0, &["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()]);
    hub.connect(0..1);
    let cell = Cell { space, kernel: Kernel::start().unwrap() };
    let mut figures = Vec::new();
    for size in effort.tuples {
        let rounds = if *size < 10_000 { effort.many } else { effort.few };
        eprintln!("program: {size} tuples");
        figures.extend(cell.figures(*size, rounds));
    }
    Sheet::new("program", effort.is_quick, figures)
}

struct Cell {
    space: Space,
    kernel: Kernel,
}

/// Times of the same work done by seawall, by the bare socket and by the nft command.
#[derive(Default)]
struct Times([Vec<Duration>; 3]);

impl Times {
    fn figure(&self, name: String) -> Figure {
        let [own, floor, nft] = &self.0;
        Figure::times(name, own)
            .beside(FLOOR, Samples::of_durations(floor))
            .beside(NFT, Samples::of_durations(nft))
    }
}

impl Cell {
    fn figures(&self, size: usize, rounds: usize) -> Vec<Figure> {
        let (own, other) = (ruleset(size, 0, None), ruleset(size, 1, None));
        let more = ruleset(size + 1, 0, None);
        let first = self.first(&own, rounds);
        let [plus, minus] = self.changes(&own, [&more, &own], rounds);
        let [there, back] = self.changes(&own, [&other, &own], rounds.div_ceil(2));
        let replaced = Times(std::array::from_fn(|who| [&there.0[who][..], &back.0[who]].concat()));
        vec![
            first.figure(format!("first policy, {size} tuples")),
            plus.figure(format!("one peer more, {size} tuples")),
            minus.figure(format!("one peer less, {size} tuples")),
            replaced.figure(format!("replace all, {size} tuples")),
        ]
    }

    /// A netns that nothing is known of and that holds nothing gets the whole policy and its guard.
    fn first(&self, wanted: &Ruleset, rounds: usize) -> Times {
        let mut times = Times::default();
        for _ in 0..rounds {
            let mut target = self.target();
            let (applied, took) = self.bring(&mut target, Some(wanted));
            times.0[0].push(took);
            self.clear(target, applied.known);
            let transaction = &applied.transaction;
            let (bytes, removal) = (bytes(transaction), removal(transaction));
            times.0[1].push(self.space.inside(move || {
                let began = Instant::now();
                let bare = Bare::open();
                bare.send(&bytes);
                let took = began.elapsed();
                bare.send(&removal);
                took
            }));
            times.0[2].push(self.nft(&[script(transaction)])[0]);
        }
        times
    }

    /// Goes to one ruleset and to the other by turns, beginning from `base`; the times of each way.
    fn changes(&self, base: &Ruleset, steps: [&Ruleset; 2], rounds: usize) -> [Times; 2] {
        let mut ways = [Times::default(), Times::default()];
        let mut target = self.target();
        let (began_with, _) = self.bring(&mut target, Some(base));
        let mut known = began_with.known;
        let mut made: Vec<Transaction> = Vec::new();
        for round in 0..2 * rounds {
            target.known = Some(known);
            let (applied, took) = self.bring(&mut target, Some(steps[round % 2]));
            ways[round % 2].0[0].push(took);
            known = applied.known;
            made.push(applied.transaction);
        }
        self.clear(target, known);
        let base = &began_with.transaction;
        let (first, removal) = (bytes(base), removal(base));
        let batches: Vec<Vec<u8>> = made.iter().map(bytes).collect();
        let floor = self.space.inside(move || {
            let bare = Bare::open();
            bare.send(&first);
            let timed = |batch: &Vec<u8>| {
                let began = Instant::now();
                bare.send(batch);
                began.elapsed()
            };
            let took: Vec<Duration> = batches.iter().map(timed).collect();
            bare.send(&removal);
            took
        });
        let scripts = std::iter::once(script(base)).chain(made.iter().map(script));
        let nft = self.nft(&scripts.collect::<Vec<_>>());
        for (round, (floor, nft)) in floor.into_iter().zip(&nft[1..]).enumerate() {
            ways[round % 2].0[1].push(floor);
            ways[round % 2].0[2].push(*nft);
        }
        ways
    }

    /// Has the nft command load these one after the other, then takes all away; how long it took from starting the command to
    /// its end.
    fn nft(&self, scripts: &[String]) -> Vec<Duration> {
        let files: Vec<_> = scripts
            .iter()
            .map(|text| {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                file.write_all(text.as_bytes()).unwrap();
                file
            })
            .collect();
        self.space.inside(move || {
            let load = |file: &tempfile::NamedTempFile| {
                let began = Instant::now();
                let status = Command::new("nft").arg("-f").arg(file.path()).status().unwrap();
                assert!(status.success());
                began.elapsed()
            };
            let took = files.iter().map(load).collect();
            assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
            took
        })
    }

    fn target(&self) -> Target {
        Target {
            owner: WorkloadId::new("w"),
            pid: self.space.pid(),
            process: None,
            wanted: Wanted::default(),
            is_fresh: true,
            known: None,
            socket: None,
            watching: None,
        }
    }

    fn bring(&self, target: &mut Target, wanted: Option<&Ruleset>) -> (Applied, Duration) {
        let guard = Terms { guards: true, denies: true, ..Terms::default() };
        target.wanted = Wanted { table: wanted.cloned().map(Arc::new), guard };
        let began = Instant::now();
        let applied = self.kernel.apply(target).unwrap();
        (applied, began.elapsed())
    }

    /// Takes everything out, by the socket it belongs to.
    fn clear(&self, mut target: Target, known: seawall::reconcile::apply::Known) {
        target.known = Some(known);
        target.wanted = Wanted::default();
        self.kernel.apply(&mut target).unwrap();
    }
}
