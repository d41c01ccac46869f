//! The table people read, from the figures that were written: each beside its references, the exponents of growth, and the
//! targets, met or not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::figures::{Figure, Samples, Sheet};
use crate::targets;

/// Parts in the order they are printed.
const PARTS: [&str; 6] = ["stages", "program", "scale", "traffic", "docker", "peers"];
const STAGES: [&str; 6] = ["resolve", "generate", "compile", "diff", "desire", "decide again"];

pub(crate) fn print(folder: &Path) {
    let is_quick = PARTS.iter().filter_map(|part| read(folder, part)).any(|sheet| sheet.is_quick);
    if let Some(sheet) = stages(folder, is_quick) {
        sheet.write(folder);
    }
    if let Some(sheet) = docker(folder, is_quick) {
        sheet.write(folder);
    }
    let sheets: Vec<Sheet> = PARTS.iter().filter_map(|part| read(folder, part)).collect();
    for sheet in &sheets {
        let machine = &sheet.machine;
        println!(
            "\n{} ({} × {}, Linux {}, {}, load {}{})",
            sheet.part,
            machine.processors,
            machine.processor,
            machine.kernel,
            machine.nft,
            machine.load,
            if sheet.is_quick { ", quick" } else { "" }
        );
        println!("{:54} {:>11} {:>11} {:6} beside (ratio of medians)", "", "p50", "p99", "");
        sheet.figures.iter().for_each(line);
        sheet.notes.iter().for_each(|note| println!("{note}"));
    }
    println!("\ntargets");
    for target in targets::all(&sheets) {
        let word = match target.is_met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        println!("{:72} {:>24}  {word}", target.what, target.measured);
    }
}

fn read(folder: &Path, part: &str) -> Option<Sheet> {
    Sheet::read(&folder.join(format!("{part}.json")))
}

fn line(figure: &Figure) {
    let Samples { p50, p99, .. } = figure.samples;
    print!("{:54} {:>11} {:>11} {:6}", figure.name, shown(p50), shown(p99), figure.unit);
    for one in &figure.references {
        print!(" | {} {} ({:.2})", one.name, shown(one.samples.p50), one.ratio);
    }
    println!();
}

fn shown(value: f64) -> String {
    match value.abs() {
        great if great >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// What criterion keeps of its last run: how often it ran the stage, and how long that took, in nanoseconds.
#[derive(Deserialize)]
struct Sampled {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// The times of the pure stages, and the exponents by which they grow.
fn stages(folder: &Path, is_quick: bool) -> Option<Sheet> {
    let criterion = folder.parent()?.join("criterion/stages");
    let mut figures = Vec::new();
    for stage in STAGES {
        let mut medians: BTreeMap<u32, f64> = BTreeMap::new();
        for entry in std::fs::read_dir(criterion.join(stage)).ok()?.flatten() {
            let size = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let text = std::fs::read_to_string(entry.path().join("new/sample.json")).ok();
            let (Some(size), Some(text)) = (size, text) else { continue };
            let Sampled { iters, times } = serde_json::from_str(&text).ok()?;
            let each = times.iter().zip(&iters).map(|(time, iters)| time / iters / 1e6);
            let samples = Samples::new(each.collect());
            medians.insert(size, samples.p50);
            figures.push((size, Figure::new(format!("{stage}, {size} workloads"), "ms", samples)));
        }
        if let Some(exponent) = exponent(&medians) {
            let name = format!("{stage}: exponent of growth");
            figures.push((u32::MAX, Figure::one(name, "", exponent)));
        }
    }
    figures.sort_by_key(|(size, _)| *size);
    let figures: Vec<Figure> = figures.into_iter().map(|(_, figure)| figure).collect();
    (!figures.is_empty()).then(|| Sheet::new("stages", is_quick, figures))
}

/// What `tests/docker_latency.rs` writes.
#[derive(Deserialize)]
struct Latency {
    spans: BTreeMap<String, Span>,
}

/// Times in microseconds.
#[derive(Deserialize)]
struct Span {
    all_us: Vec<f64>,
}

/// The times on a real Docker.
fn docker(folder: &Path, is_quick: bool) -> Option<Sheet> {
    let text = std::fs::read_to_string(folder.join("latency.json")).ok()?;
    let latency: Latency = serde_json::from_str(&text).ok()?;
    let of = |name: &str| {
        let span = latency.spans.get(name)?;
        Some(Samples::new(span.all_us.iter().map(|us| us / 1e3).collect()))
    };
    let figures = DOCKER.into_iter().filter_map(|(name, beside)| {
        let figure = Figure::new(name, "ms", of(name)?);
        Some(match of(beside) {
            Some(samples) => figure.beside(beside, samples),
            None => figure,
        })
    });
    let figures: Vec<Figure> = figures.collect();
    (!figures.is_empty()).then(|| Sheet::new("docker", is_quick, figures))
}

/// Its spans, and what each stands beside.
const DOCKER: [(&str, &str); 5] = [
    ("event to commit", "event to nft -f"),
    ("event to any", ""),
    ("open to commit", "nft -f"),
    ("docker run, wrapper", "docker run, seawall off"),
    ("docker run, no wrapper", "docker run, seawall off"),
];

/// The slope of the straight line through the logarithms of sizes and times (least squares): 1 is linear.
fn exponent(times: &BTreeMap<u32, f64>) -> Option<f64> {
    let points: Vec<(f64, f64)> =
        times.iter().map(|(size, time)| (f64::from(*size).ln(), time.ln())).collect();
    if points.len() < 2 {
        return None;
    }
    let many = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / many;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    Some(above / below)
}
