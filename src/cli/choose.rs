//! Owns which workloads a word of the command line chooses: a policy's selector, or anything TARGET takes.

use std::collections::BTreeSet;

use anyhow::anyhow;

use super::CommandError;
use super::facts::{is_named, unknown};
use crate::metadata::WorkloadId;
use crate::observe::learn::Known;
use crate::policy::Selector;

/// The workloads that any of these words chooses; never none.
pub(super) fn choose(
    words: &[String],
    known: &Known<'_>,
) -> Result<BTreeSet<WorkloadId>, CommandError> {
    let mut chosen = BTreeSet::new();
    for word in words {
        chosen.extend(one(word, known)?);
    }
    Ok(chosen)
}

fn one(word: &str, known: &Known<'_>) -> Result<BTreeSet<WorkloadId>, CommandError> {
    let named = known.inventory.iter().filter(|workload| is_named(workload, word));
    let named: BTreeSet<WorkloadId> = named.map(|workload| workload.id.clone()).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    match word.parse::<Selector>() {
        Ok(selector @ Selector::Workloads(_)) => {
            let found = known.choose(&selector);
            if found.is_empty() { Err(unknown(word, known.inventory)) } else { Ok(found) }
        }
        Ok(_) => Err(CommandError::Usage(anyhow!("`{word}` is no workload"))),
        // Without a colon it was meant as a name.
        Err(error) if word.contains(':') => {
            let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
            Err(CommandError::Usage(anyhow!("{error}{help}")))
        }
        Err(_) => Err(unknown(word, known.inventory)),
    }
}
