//! Owns bringing one netns to what is desired: open, read, plan, commit, and say what was done.
//!
//! Decides nothing but what `nft::plan` says. Blocking: run it on a thread that may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::identity;
use super::kept::Socket;
use crate::compile::Ruleset;
use crate::config::Ownership;
use crate::metadata::WorkloadId;
use crate::nft::decode::Counts;
use crate::nft::netns::{Entrance, Opened, Process};
use crate::nft::owner::holder;
use crate::nft::socket::Dump;
use crate::nft::{
    ApplyError, Claim, KernelTable, Netns, NetnsError, TableState, Transaction, plan, plan_as,
};

/// How often a plan is made anew when someone else changes the ruleset meanwhile.
const ATTEMPTS: usize = 5;

/// What one netns shall hold.
#[derive(Debug)]
pub struct Target {
    /// Whose netns.
    pub owner: WorkloadId,
    /// The owner's first process.
    pub pid: u32,
    /// That process, once it was taken hold of: a pid alone may by now be somebody else's (security model 3).
    pub process: Option<Arc<Process>>,
    /// What it shall hold; `None`: no table of ours.
    pub wanted: Option<Ruleset>,
    /// What it held after our last change, if nothing happened since that makes us doubt it.
    pub known: Option<Known>,
    /// The socket its table belongs to. Whoever keeps it keeps the table from everybody else, and the netns alive.
    pub socket: Option<Socket>,
}

/// What a netns held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The netns.
    pub inode: u64,
    /// Our table.
    pub ruleset: Option<Ruleset>,
    /// Whose it is.
    pub table: Option<TableState>,
    /// The generation of the netns' nftables configuration.
    pub generation_id: u32,
}

/// What was done.
#[derive(Debug)]
pub struct Applied {
    /// The transaction, empty when there was nothing to do.
    pub transaction: Transaction,
    /// What the netns holds now.
    pub known: Known,
    /// The netns' own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// From opening the netns to the commit.
    pub took: Duration,
    /// When it was committed.
    pub committed: SystemTime,
}

/// Why nothing was done. What was there before is still in force.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The netns could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel did not take the transaction.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Failure {
    /// The container ended meanwhile: nothing to report and nothing to try again.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Netns(NetnsError::Gone(_)))
    }

    /// The error with all its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The kernel, as reconciling uses it.
#[derive(Clone, Debug)]
pub struct Kernel {
    entrance: Entrance,
    /// Whether tables are made our own. Off for good once the kernel was seen not to know it.
    owns: Arc<AtomicBool>,
}

impl Kernel {
    /// Starts the thread that enters namespaces.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self { entrance: Entrance::start()?, owns: Arc::new(AtomicBool::new(true)) })
    }

    /// The same, making tables its own only where that is wanted.
    pub fn with_ownership(self, ownership: Ownership) -> Self {
        self.owns.store(ownership == Ownership::Auto, Ordering::Relaxed);
        self
    }

    /// Brings one netns to what is desired. The target gets the process and the socket it was done with, whatever the
    /// result.
    pub fn apply(&self, target: &mut Target) -> Result<Applied, Failure> {
        let began = Instant::now();
        let process = match &target.process {
            Some(process) => process,
            None => target.process.insert(Arc::new(identity::open(target.pid, &target.owner)?)),
        };
        let netns = Netns::of(process)?;
        let inode = netns.inode();
        // A process can move to another netns.
        let kept = target.socket.take().filter(|socket| socket.inode == inode);
        let mut known = target.known.take().filter(|known| known.inode == inode && kept.is_some());
        let (socket, addresses) = match kept {
            Some(socket) => (socket, self.entrance.addresses(&netns)?),
            None => {
                let Opened { table, addresses } = self.entrance.open(&netns)?;
                (Socket { inode, table }, addresses)
            }
        };
        // An open namespace cannot go away: hold no more of it than the socket.
        drop(netns);
        let table = &mut target.socket.insert(socket).table;
        for _ in 0..ATTEMPTS {
            let before = match known.take() {
                Some(known) => known,
                None => read(table, inode)?,
            };
            let is_owned = self.owns.load(Ordering::Relaxed);
            let claim = Claim::of(before.table, is_owned, table.port_id())
                .map_err(|other| self.owned(process, other))?;
            let transaction = plan_as(before.ruleset.as_ref(), target.wanted.as_ref(), claim);
            if transaction.is_empty() {
                let (took, committed) = (began.elapsed(), SystemTime::now());
                return Ok(Applied { transaction, known: before, addresses, took, committed });
            }
            match table.commit(&transaction, Some(before.generation_id)) {
                Ok(()) => {
                    let (took, committed) = (began.elapsed(), SystemTime::now());
                    let known = Known {
                        inode,
                        ruleset: transaction.target.clone(),
                        table: transaction.target.as_ref().map(|_| claim.state(table.port_id())),
                        generation_id: next_generation_id(before.generation_id),
                    };
                    return Ok(Applied { transaction, known, addresses, took, committed });
                }
                Err(ApplyError::Stale) => {}
                Err(error @ ApplyError::NoOwnership) => {
                    // Owned, but gone with the daemon, is no choice.
                    if self.owns.swap(false, Ordering::Relaxed) {
                        tracing::warn!(%error, "tables stay plain; changes by others are found and repaired");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApplyError::Stale.into())
    }

    /// That the table of a process's netns belongs to somebody else, and to whom.
    fn owned(&self, process: &Process, port_id: u32) -> ApplyError {
        let netns = Netns::of(process).ok();
        ApplyError::Owned(netns.and_then(|netns| holder(&self.entrance, &netns, port_id)))
    }

    /// Reads what one netns holds, and the counters of its denying chains.
    pub fn read(&self, pid: u32) -> Result<(Option<Ruleset>, BTreeMap<String, Counts>), Failure> {
        let mut table = self.entrance.open_table(&Netns::of_pid(pid)?)?;
        let dump = table.dump()?;
        Ok((dump.ruleset, dump.counts))
    }

    /// Removes our table from one netns. Returns whether there was one.
    pub fn clear(&self, netns: &Netns) -> Result<bool, Failure> {
        let mut table = self.entrance.open_table(netns)?;
        let dump = table.dump()?;
        if let Some(other) = dump.table.and_then(|state| state.owner) {
            return Err(ApplyError::Owned(holder(&self.entrance, netns, other)).into());
        }
        let transaction = plan(dump.ruleset.as_ref(), None);
        table.commit(&transaction, None)?;
        Ok(!transaction.is_empty())
    }
}

fn read(table: &mut KernelTable, inode: u64) -> Result<Known, ApplyError> {
    let Dump { ruleset, table, generation_id, .. } = table.dump()?;
    Ok(Known { inode, ruleset, table, generation_id })
}

/// Each commit raises the generation by one; zero is left out (`nf_tables_commit`).
fn next_generation_id(id: u32) -> u32 {
    id.checked_add(1).unwrap_or(1)
}
