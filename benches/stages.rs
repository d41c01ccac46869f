//! The pure stages beside one another: resolve, generate, compile, diff, all of it, and all of it again after one change.
//!
//! `cargo bench --bench stages`; `scripts/bench` fits the exponents of growth to what it measures.

#[path = "synthetic.rs"]
mod synthetic;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use seawall::compile::{Ruleset, compile};
use seawall::metadata::{Inventory, WorkloadId};
use seawall::nft::plan;
use seawall::policy::generate;
use seawall::reconcile::desired::{Decider, resolve_one};
use seawall::reconcile::{Rules, desire};

/// How many workloads.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

fn stages(criterion: &mut Criterion) {
    let rules = synthetic::rules();
    for size in SIZES {
        let inventory = synthetic::host(size);
        let desired = desire(&inventory, &rules);
        let mut group = criterion.benchmark_group("stages");
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(BenchmarkId::new("resolve", size), |bencher| {
            bencher.iter(|| {
                inventory.iter().for_each(|one| drop(black_box(resolve_one(one, &rules))))
            });
        });
        group.bench_function(BenchmarkId::new("generate", size), |bencher| {
            let (catalogue, operator) = (&rules.catalogue, &rules.operator);
            let settings = &rules.options.settings;
            bencher
                .iter(|| generate(&inventory, &desired.resolutions, catalogue, operator, settings));
        });
        group.bench_function(BenchmarkId::new("compile", size), |bencher| {
            bencher.iter(|| {
                let policies = desired.policies.policies.values();
                policies.filter_map(|policy| compile(&[policy], &inventory, &rules.options)).count()
            });
        });
        let changed = without_last(&inventory, &rules);
        group.bench_function(BenchmarkId::new("diff", size), |bencher| {
            bencher.iter(|| plans(black_box(&changed), black_box(&desired.rulesets)));
        });
        group.bench_function(BenchmarkId::new("desire", size), |bencher| {
            bencher.iter(|| desire(&inventory, &rules));
        });
        let one = synthetic::workload(1);
        let moved = synthetic::moved(one.clone(), 1);
        group.bench_function(BenchmarkId::new("decide again", size), |bencher| {
            let (mut decider, mut inventory) = (Decider::default(), inventory.clone());
            decider.decide(&inventory, &rules);
            let mut turns = [&moved, &one].into_iter().cycle();
            bencher.iter(|| {
                turns.next().map(|next| inventory.upsert(next.clone()));
                decider.decide(&inventory, &rules)
            });
        });
        group.finish();
    }
}

type Rulesets = BTreeMap<WorkloadId, Arc<Ruleset>>;

/// The rulesets while the last workload was not there yet.
fn without_last(inventory: &Inventory, rules: &Rules) -> Rulesets {
    let last = inventory.iter().last().map(|one| one.id.clone());
    let others = inventory.iter().filter(|one| Some(&one.id) != last.as_ref()).cloned();
    desire(&others.collect(), rules).rulesets
}

/// Plans every netns' change from `before` to `after`; how many operations that are.
fn plans(before: &Rulesets, after: &Rulesets) -> usize {
    let plans =
        after.iter().map(|(id, wanted)| plan(before.get(id).map(AsRef::as_ref), Some(wanted)));
    plans.map(|transaction| transaction.operations().count()).sum()
}

criterion_group!(benches, stages);
criterion_main!(benches);
