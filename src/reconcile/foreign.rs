//! Owns what is done about chains of others in a netns: told of, and removed where they lead packets around the policy and
//! whoever made them is not trusted ([decision 12](../../docs/adr/0012-watch-and-repair.md)).

use super::apply::Failure;
use crate::nft::foreign::ForeignChain;
use crate::nft::{ApplyError, KernelTable};

/// A look at the chains of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether those that lead packets around the policy are removed.
    pub removes: bool,
}

/// A chain of somebody else's, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The chain.
    pub chain: ForeignChain,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a chain of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Left,
    /// It is gone.
    Removed,
    /// It should be gone, but is not.
    Refused(String),
}

impl Finding {
    /// Whether packets get around the policy by it now.
    pub fn is_leak(&self) -> bool {
        !self.chain.diverts.is_empty() && self.fate != Fate::Removed
    }
}

/// Looks at the chains of others, and removes what is to be removed: each by itself, for one may belong to a process.
pub(super) fn look(table: &mut KernelTable, look: Look) -> Result<Vec<Finding>, ApplyError> {
    let chains = table.foreign()?;
    let notable = chains.into_iter().filter(ForeignChain::is_notable);
    let settle = |chain: ForeignChain| {
        let fate = match look.removes && !chain.diverts.is_empty() {
            false => Fate::Left,
            true => match table.remove(&[&chain]) {
                Ok(()) => Fate::Removed,
                Err(error) => Fate::Refused(Failure::from(error).chain()),
            },
        };
        Finding { chain, fate }
    };
    Ok(notable.map(settle).collect())
}
