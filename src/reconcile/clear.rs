//! Owns the daemon's last work: taking every table out again. Only who owns a table can remove it (security model 9).

use tokio::sync::oneshot;

use crate::nft::{Op, Transaction};

/// What was taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cleared {
    /// From how many netns.
    pub removed: usize,
    /// Why it could not be taken out of others.
    pub errors: Vec<String>,
}

/// Clearing that is under way. From its beginning on no netns shall hold a table.
#[derive(Debug)]
pub(super) struct Clearing {
    reply: oneshot::Sender<Cleared>,
    removed: usize,
}

impl Clearing {
    pub(super) fn new(reply: oneshot::Sender<Cleared>) -> Self {
        Self { reply, removed: 0 }
    }

    pub(super) fn note(&mut self, transaction: &Transaction) {
        self.removed += usize::from(transaction.operations().any(|(_, op)| *op == Op::DeleteTable));
    }

    /// Answers. Whoever asked may have left meanwhile.
    pub(super) fn finish(self, errors: Vec<String>) {
        drop(self.reply.send(Cleared { removed: self.removed, errors }));
    }
}
