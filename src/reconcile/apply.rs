//! Owns bringing one netns to what is desired: open, read, plan, commit, and say what was done.
//!
//! Decides nothing but what `nft::plan` says. Blocking: run it on a thread that may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::compile::Ruleset;
use crate::metadata::WorkloadId;
use crate::nft::decode::Counts;
use crate::nft::netns::{Entrance, Opened, Process};
use crate::nft::{ApplyError, KernelTable, Netns, NetnsError, Transaction, plan};

/// How often a plan is made anew when someone else changes the ruleset meanwhile.
const ATTEMPTS: usize = 5;

/// What one netns shall hold.
#[derive(Clone, Debug)]
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
}

/// What a netns held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The netns.
    pub inode: u64,
    /// Our table.
    pub ruleset: Option<Ruleset>,
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
    /// The process whose netns it is.
    pub process: Arc<Process>,
    /// The netns' own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// From opening the netns to the commit.
    pub took: Duration,
    /// When it was committed.
    pub committed: SystemTime,
    /// The socket it was done with. Close it once the result is told: after something was removed, closing waits for
    /// the kernel to have freed it (some 10 ms).
    pub socket: Option<KernelTable>,
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
}

impl Kernel {
    /// Starts the thread that enters namespaces.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self { entrance: Entrance::start()? })
    }

    /// Brings one netns to what is desired.
    pub fn apply(&self, target: &Target) -> Result<Applied, Failure> {
        let began = Instant::now();
        let process = match &target.process {
            Some(process) => Arc::clone(process),
            None => Arc::new(Process::open(target.pid)?),
        };
        let netns = Netns::of(&process)?;
        let Opened { mut table, addresses } = self.entrance.open(&netns)?;
        let inode = netns.inode();
        // An open namespace cannot go away: hold no more of it than the socket.
        drop(netns);
        let mut known = target.known.clone().filter(|known| known.inode == inode);
        for _ in 0..ATTEMPTS {
            let before = match known.take() {
                Some(known) => known,
                None => read(&mut table, inode)?,
            };
            let transaction = plan(before.ruleset.as_ref(), target.wanted.as_ref());
            if transaction.is_empty() {
                let (took, committed) = (began.elapsed(), SystemTime::now());
                return Ok(Applied {
                    transaction,
                    known: before,
                    process,
                    addresses,
                    took,
                    committed,
                    socket: Some(table),
                });
            }
            match table.commit(&transaction, Some(before.generation_id)) {
                Ok(()) => {
                    let (took, committed) = (began.elapsed(), SystemTime::now());
                    let known = Known {
                        inode,
                        ruleset: transaction.target.clone(),
                        generation_id: next_generation_id(before.generation_id),
                    };
                    let socket = Some(table);
                    return Ok(Applied {
                        transaction,
                        known,
                        process,
                        addresses,
                        took,
                        committed,
                        socket,
                    });
                }
                Err(ApplyError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApplyError::Stale.into())
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
        let transaction = plan(dump.ruleset.as_ref(), None);
        table.commit(&transaction, None)?;
        Ok(!transaction.is_empty())
    }
}

fn read(table: &mut KernelTable, inode: u64) -> Result<Known, ApplyError> {
    let dump = table.dump()?;
    Ok(Known { inode, ruleset: dump.ruleset, generation_id: dump.generation_id })
}

/// Each commit raises the generation by one; zero is left out (`nf_tables_commit`).
fn next_generation_id(id: u32) -> u32 {
    id.checked_add(1).unwrap_or(1)
}
