//! Owns one look at everything: what all sources say now, for commands that run once.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use crate::metadata::{InventoryBuilder, Observation, Source};

/// Takes observations until every expected source has listed what it knows or has said that it cannot be reached.
/// Returns what they said; `InventoryBuilder::source` tells which of them answered.
pub async fn collect(
    mut observations: mpsc::Receiver<Observation>,
    expected: &[Source],
) -> InventoryBuilder {
    let mut missing: BTreeSet<Source> = expected.iter().copied().collect();
    let mut facts = InventoryBuilder::new();
    while !missing.is_empty() {
        let Some(observation) = observations.recv().await else { break };
        match &observation {
            Observation::Snapshot { source, .. } | Observation::Down { source, .. } => {
                missing.remove(source);
            }
            _ => {}
        }
        facts.apply(observation);
    }
    // What arrived together with the last snapshot belongs to it.
    while let Ok(observation) = observations.try_recv() {
        facts.apply(observation);
    }
    facts
}
