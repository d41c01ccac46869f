//! Owns listing the tables and chains of the netns a socket was opened in, whoever's they are; nothing is changed.

use std::collections::BTreeSet;

use super::decode::string;
use super::socket::{ApplyError, KernelTable};
use crate::input::Text;

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedChain {
    /// The table's family: `NFPROTO_*`.
    pub family: u8,
    /// The table it is in.
    pub table: Text,
    /// Its name.
    pub name: Text,
}

impl KernelTable {
    /// Every chain there is.
    pub fn chains(&mut self) -> Result<BTreeSet<NamedChain>, ApplyError> {
        let mut found = BTreeSet::new();
        let every = libc::NFPROTO_UNSPEC as u8;
        self.ask((libc::NFT_MSG_GETCHAIN, true), every, &[], |family, chain| {
            let text = |kind| string(chain, kind).map(|name| Text::new(&name));
            found.extend(text(1).zip(text(3)).map(|(table, name)| NamedChain {
                family,
                table,
                name,
            }));
        })?;
        Ok(found)
    }

    /// How many rules a chain has.
    pub fn rules_in(&mut self, chain: &NamedChain) -> Result<usize, ApplyError> {
        let mut count = 0;
        let names = [(1, chain.table.as_str()), (2, chain.name.as_str())];
        self.ask((libc::NFT_MSG_GETRULE, true), chain.family, &names, |_, _| count += 1)?;
        Ok(count)
    }
}
