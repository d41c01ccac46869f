//! Figures: samples with their distribution, and what they stand beside.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// How many samples of one figure are written; of more, every so-manieth of the sorted ones.
const WRITTEN: usize = 200;

/// Samples of one quantity, sorted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) all: Vec<f64>,
}

impl Samples {
    pub(crate) fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        // Nearest rank.
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        let (min, p50, p90, p99, max) = (at(0), at(50), at(90), at(99), at(100));
        let count = all.len();
        let step = count.div_ceil(WRITTEN).max(1);
        Self { count, min, p50, p90, p99, max, all: all.into_iter().step_by(step).collect() }
    }

    pub(crate) fn of_durations(all: &[Duration]) -> Self {
        Self::new(all.iter().map(|one| one.as_secs_f64() * 1e3).collect())
    }
}

/// What a figure stands beside, measured in the same minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) samples: Samples,
    /// The figure's median by the reference's.
    pub(crate) ratio: f64,
}

/// One measured quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) samples: Samples,
    pub(crate) references: Vec<Reference>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &str, samples: Samples) -> Self {
        Self { name: name.into(), unit: unit.to_owned(), samples, references: Vec::new() }
    }

    /// Times, in milliseconds.
    pub(crate) fn times(name: impl Into<String>, times: &[Duration]) -> Self {
        Self::new(name, "ms", Samples::of_durations(times))
    }

    pub(crate) fn one(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self::new(name, unit, Samples::new(vec![value]))
    }

    pub(crate) fn beside(mut self, name: &str, samples: Samples) -> Self {
        let ratio = self.samples.p50 / samples.p50;
        self.references.push(Reference { name: name.to_owned(), samples, ratio });
        self
    }

    /// The same, where the ratio is known better than by the medians: sample by sample.
    pub(crate) fn beside_by(mut self, name: &str, samples: Samples, ratio: f64) -> Self {
        self.references.push(Reference { name: name.to_owned(), samples, ratio });
        self
    }

    pub(crate) fn ratio_to(&self, name: &str) -> Option<f64> {
        self.references.iter().find(|one| one.name == name).map(|one| one.ratio)
    }
}

/// All figures of one part, and the machine they were measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sheet {
    pub(crate) part: String,
    pub(crate) is_quick: bool,
    pub(crate) machine: Machine,
    pub(crate) figures: Vec<Figure>,
    /// What must be known to read them.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

impl Sheet {
    pub(crate) fn new(part: &str, is_quick: bool, figures: Vec<Figure>) -> Self {
        let (part, machine, notes) = (part.to_owned(), Machine::this(), Vec::new());
        Self { part, is_quick, machine, figures, notes }
    }

    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(format!("{}.json", self.part));
        std::fs::write(&path, serde_json::to_string_pretty(self).unwrap()).unwrap();
        eprintln!("wrote {}", path.display());
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }
}
