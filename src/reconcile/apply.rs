//! Owns bringing one netns to what is desired: open, read, plan, commit, and say what was done.
//!
//! Decides nothing but what `nft::plan` says. Blocking: run it on a thread that may wait.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::identity;
use super::kept::Socket;
use crate::compile::guard::{Link, Terms, guard, guarded};
use crate::compile::{Generation, Ruleset, TableFamily};
use crate::config::Ownership;
use crate::metadata::WorkloadId;
use crate::nft::conntrack_entries::ControlWatch;
use crate::nft::listen::Listeners;
use crate::nft::netns::{Entrance, Found, Process};
use crate::nft::owner::holder;
use crate::nft::seats::Seats;
use crate::nft::socket::Dump;
use crate::nft::watch::Watch;
use crate::nft::{
    ApplyError, Claim, KernelTable, Netns, NetnsError, TableState, Transaction, plan, plan_anew,
    plan_as,
};

/// What is open where a link has no guard.
const PACKET_SOCKETS: &str = "packet sockets (AF_PACKET) pass the policy";
/// How often a plan is made anew when something speaks against it.
const ATTEMPTS: usize = 8;
/// How often because someone else changed the ruleset meanwhile, before it is made for any ruleset.
const STALE: usize = 3;

/// What is wanted of one netns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its policy; `None`: no table of ours.
    pub table: Option<Arc<Ruleset>>,
    /// What its guard is made by, from the links it has when it is made.
    pub guard: Terms,
}

/// What one netns shall hold.
#[derive(Debug)]
pub struct Target {
    /// Whose netns.
    pub owner: WorkloadId,
    /// The owner's first process.
    pub pid: u32,
    /// That process, once it was taken hold of: a pid alone may by now be somebody else's (security model 3).
    pub process: Option<Arc<Process>>,
    /// What it shall hold.
    pub wanted: Wanted,
    /// Whether nothing of the container has run yet: what its links hold is the runtime's word.
    pub is_fresh: bool,
    /// What it held after our last change, if nothing happened since that makes us doubt it.
    pub known: Option<Known>,
    /// The socket its table belongs to. Whoever keeps it keeps the table from everybody else, and the netns alive.
    pub socket: Option<Socket>,
    /// By what others' changes are told, where somebody wants to know.
    pub watching: Option<Watching>,
}

/// By what others' changes in a netns are told.
#[derive(Debug, Default)]
pub struct Watching {
    /// The netns where they are told already.
    pub inode: Option<u64>,
    /// What was opened because they were not, and in which netns.
    pub opened: Option<(u64, io::Result<Watch>)>,
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
    /// Our guard.
    pub guard: Option<Ruleset>,
    /// Whose it is.
    pub guard_table: Option<TableState>,
    /// Its links.
    pub links: Vec<Link>,
    /// The generation of the netns' nftables configuration, if it is known: who owns the tables needs none.
    pub generation_id: Option<u32>,
}

impl Known {
    /// Whether all that is there of ours was the socket's own.
    fn is_of(&self, socket: &KernelTable) -> bool {
        let is_own = |table: TableState| table.owner == Some(socket.port_id());
        self.table.is_some_and(is_own) && self.guard_table.is_none_or(is_own)
    }
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
    /// Why there is no guard although there should be one.
    pub unguarded: Option<String>,
    /// Why sockets that no table can stop may be open although they should not; to be tried again.
    pub unseated: Option<String>,
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

    /// The socket failed, and not what was asked of it.
    pub fn is_of_socket(&self) -> bool {
        matches!(self, Self::Apply(ApplyError::Io(_)))
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
    /// Why the kernel cannot guard links, once that was seen.
    unguarded: Arc<OnceLock<String>>,
    /// Whether it was said that the kernel lacks a helper.
    is_helperless: Arc<AtomicBool>,
}

impl Kernel {
    /// Starts the threads that enter namespaces.
    pub fn start() -> io::Result<Self> {
        let owns = Arc::new(AtomicBool::new(true));
        let entrance = Entrance::start()?;
        Ok(Self { entrance, owns, unguarded: Arc::default(), is_helperless: Arc::default() })
    }

    /// The same, making tables its own only where that is wanted.
    pub fn with_ownership(self, ownership: Ownership) -> Self {
        self.owns.store(ownership == Ownership::Auto, Ordering::Relaxed);
        self
    }

    /// Brings one netns to what is desired. The target gets the process and the socket it was done with, whatever the
    /// result.
    pub fn apply(&self, target: &mut Target) -> Result<Applied, Failure> {
        let applied = self.attempt(target);
        // Nobody knows what a socket that failed has still to say: the next try has another.
        if applied.as_ref().is_err_and(Failure::is_of_socket) {
            target.socket = None;
        }
        applied
    }

    fn attempt(&self, target: &mut Target) -> Result<Applied, Failure> {
        let began = Instant::now();
        let process = match &target.process {
            Some(process) => process,
            None => target.process.insert(Arc::new(identity::open(target.pid, &target.owner)?)),
        };
        let netns = Netns::of(process)?;
        let inode = netns.inode();
        // A process can move to another netns.
        let kept = target.socket.take().filter(|socket| socket.inode == inode);
        let is_told = target.watching.as_ref().is_none_or(|watching| watching.inode == Some(inode));
        // What was done there while nobody told of it makes all doubtful that is remembered.
        let is_sure = kept.is_some() && is_told;
        let mut known = target.known.take().filter(|known| known.inode == inode && is_sure);
        // Before a container runs nobody tells that its links are complete.
        let remembered = known.as_mut().filter(|_| target.watching.is_some() && !target.is_fresh);
        // A link that went may not have been told yet.
        let mut may_be_old = remembered.is_some() && kept.is_some();
        let (socket, Found { mut links, watch }) = match (kept, remembered) {
            (Some(socket), Some(known)) => {
                (socket, Found { links: std::mem::take(&mut known.links), watch: None })
            }
            (Some(socket), None) => (socket, self.entrance.look(&netns, !is_told)?),
            (None, _) => {
                let (terms, has_table) =
                    (target.wanted.guard.clone(), target.wanted.table.is_some());
                let seated = move |links: &[Link]| match has_table {
                    true => guarded(&terms, links),
                    false => Vec::new(),
                };
                let (table, found, seats) = self.entrance.open(&netns, !is_told, seated)?;
                (Socket { inode, table, seats }, found)
            }
        };
        if let Some(watching) = &mut target.watching {
            watching.opened = watch.map(|watch| (inode, watch));
        }
        // An open namespace cannot go away: hold no more of it than the socket.
        drop(netns);
        let Socket { table, seats, .. } = target.socket.insert(socket);
        let mut unguarded = self.unguarded.get().cloned();
        let (mut generation, mut stale) = (None, 0);
        // What is wanted, but for helpers this kernel does not have.
        let mut unhelped: Option<Ruleset> = None;
        for _ in 0..ATTEMPTS {
            let is_good = |known: &Known| known.is_of(table) || known.generation_id.is_some();
            let remembered = known.take().filter(is_good);
            let is_remembered = remembered.is_some();
            let before = match remembered {
                Some(known) => Some(known),
                None if stale < STALE => read(table, inode)?,
                None => None,
            };
            if before.is_none() && stale < STALE {
                stale += 1;
                continue;
            }
            let ruleset = before.as_ref().and_then(|before| before.ruleset.as_ref());
            generation = ruleset.and_then(Ruleset::generation).or(generation);
            // Once something of ours is there the container may have run, and given itself addresses.
            let is_first = before.is_some() && ruleset.is_none();
            let own = target.wanted.guard.own(&links, target.is_fresh || is_first);
            let wanted = unhelped.as_ref().or(target.wanted.table.as_deref());
            let wanted = wanted.map(|wanted| match ruleset {
                Some(_) => wanted.sending_from(&own),
                None => Cow::Owned(
                    wanted.sending_from(&own).into_owned().at_generation(any_generation()),
                ),
            });
            let wanted = wanted.as_deref();
            let guard = match (&unguarded, wanted) {
                (None, Some(wanted)) => guard(&target.wanted.guard, &links, &own, wanted),
                _ => None,
            };
            let is_owned = self.owns.load(Ordering::Relaxed);
            let claim = |state| {
                Claim::of(state, is_owned, table.port_id())
                    .map_err(|other| self.owned(process, Some(other)))
            };
            let of = |state: fn(&Known) -> Option<TableState>| before.as_ref().and_then(state);
            let (claimed, guard_claimed) =
                (claim(of(|known| known.table))?, claim(of(|known| known.guard_table))?);
            let transaction = match &before {
                Some(before) => plan_as(ruleset, wanted, claimed).with(plan_as(
                    before.guard.as_ref(),
                    guard.as_ref(),
                    guard_claimed,
                )),
                // Somebody changes something all the time; that shall not keep us from it.
                None => {
                    let anew = |family, wanted| plan_anew(family, wanted, generation, claimed);
                    let policy = anew(TableFamily::Inet, wanted);
                    match unguarded {
                        Some(_) => policy,
                        None => policy.with(anew(TableFamily::Netdev, guard.as_ref())),
                    }
                }
            };
            let is_done = transaction.is_empty();
            // Nobody but us changes what is ours: whatever others changed since, the plan is good.
            let planned_for = before.as_ref().and_then(|known| {
                let is_ours = known.is_of(table) && (guard.is_none() || known.guard.is_some());
                known.generation_id.filter(|_| !is_ours)
            });
            match table.commit(&transaction, planned_for) {
                Ok(()) => {
                    let state = |claim: Claim| claim.state(table.port_id());
                    let known = match before {
                        // The same as what was read, and shared with what is wanted.
                        Some(before) if is_done => {
                            let ruleset = transaction.target.clone();
                            Known { ruleset, links: links.clone(), ..before }
                        }
                        _ => Known {
                            inode,
                            table: wanted.map(|_| state(claimed)),
                            guard_table: guard.as_ref().map(|_| state(guard_claimed)),
                            ruleset: transaction.target.clone(),
                            guard,
                            links: links.clone(),
                            generation_id: planned_for.map(next_generation_id),
                        },
                    };
                    let (took, committed) = (began.elapsed(), SystemTime::now());
                    let links = match wanted {
                        Some(_) => guarded(&target.wanted.guard, &links),
                        None => Vec::new(),
                    };
                    let unseated = self.seat(process, &links, seats)?;
                    return Ok(Applied {
                        transaction,
                        known,
                        addresses: own,
                        unguarded: unguarded.filter(|_| target.wanted.guard.guards),
                        unseated,
                        took,
                        committed,
                    });
                }
                Err(ApplyError::Stale) => stale += 1,
                Err(ApplyError::Owned(_)) => return Err(self.owned(process, None).into()),
                Err(error @ ApplyError::NoOwnership) => {
                    // Owned, but gone with the daemon, is no choice.
                    if self.owns.swap(false, Ordering::Relaxed) {
                        tracing::warn!(%error, "tables stay plain; changes by others are found and repaired");
                    }
                }
                // Who agrees on data connections gets none: nothing else of the policy depends on it.
                Err(error @ ApplyError::NoHelper(_)) => {
                    if !self.is_helperless.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "data connections stay closed");
                    }
                    unhelped =
                        target.wanted.table.as_deref().cloned().map(Ruleset::without_helpers);
                }
                // A link may have gone, and its chain with it.
                Err(ApplyError::Refused { .. }) if is_remembered || may_be_old => {
                    if std::mem::take(&mut may_be_old) {
                        links = self.entrance.look(&Netns::of(process)?, false)?.links;
                    }
                }
                // The policy is not left out because there can be no guard.
                Err(ApplyError::Refused {
                    family: Some(TableFamily::Netdev),
                    errno,
                    reason,
                    ..
                }) => {
                    if is_unknown(errno) {
                        tracing::warn!(
                            reason,
                            "this kernel cannot guard links against raw sockets"
                        );
                        // Another thread may have seen it first.
                        let _ = self.unguarded.set(format!("{PACKET_SOCKETS}; {reason}"));
                    }
                    unguarded = Some(format!("{PACKET_SOCKETS}; {reason}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApplyError::Stale.into())
    }

    /// Keeps the queues of links from sockets that no table can stop. Returns what is open, and why.
    fn seat(
        &self,
        process: &Process,
        links: &[u32],
        seats: &mut Seats,
    ) -> Result<Option<String>, Failure> {
        seats.retain(links);
        if seats.hold(links) {
            return Ok(None);
        }
        let netns = Netns::of(process)?;
        let (taken, result) = self.entrance.take_seats(&netns, links, std::mem::take(seats))?;
        *seats = taken;
        Ok(result.err().map(|error| format!("AF_XDP sockets pass the policy; {error}")))
    }

    /// That the table of a process's netns belongs to somebody else, and to whom.
    fn owned(&self, process: &Process, port_id: Option<u32>) -> ApplyError {
        let netns = Netns::of(process).ok().zip(port_id);
        ApplyError::Owned(
            netns.and_then(|(netns, port_id)| holder(&self.entrance, &netns, port_id)),
        )
    }

    /// Has denials and connections of a netns be told from now on.
    pub fn listen(&self, netns: &Netns, former: Option<&Listeners>) -> Result<Listeners, Failure> {
        Ok(self.entrance.listen(netns, former)?)
    }

    /// Has the ends of control connections in a netns be told from now on.
    pub fn follow_control(&self, netns: &Netns) -> Result<ControlWatch, Failure> {
        Ok(self.entrance.follow_control(netns)?)
    }

    /// Reads what one netns holds, and its links.
    pub fn read(&self, pid: u32) -> Result<(Dump, Vec<Link>), Failure> {
        let netns = Netns::of_pid(pid)?;
        let mut table = self.entrance.open_table(&netns)?;
        Ok((table.dump()?, self.entrance.look(&netns, false)?.links))
    }

    /// Removes our tables from one netns. Returns whether there was one.
    pub fn clear(&self, netns: &Netns) -> Result<bool, Failure> {
        let mut table = self.entrance.open_table(netns)?;
        let dump = table.dump()?;
        let states = [dump.table, dump.guard_table];
        if let Some(other) = states.into_iter().flatten().find_map(|state| state.owner) {
            return Err(ApplyError::Owned(holder(&self.entrance, netns, other)).into());
        }
        let transaction = plan(dump.ruleset.as_ref(), None).with(plan(dump.guard.as_ref(), None));
        table.commit(&transaction, None)?;
        Ok(!transaction.is_empty())
    }
}

/// What is there; nothing where it changes faster than it can be read.
fn read(table: &mut KernelTable, inode: u64) -> Result<Option<Known>, ApplyError> {
    match table.dump() {
        Ok(Dump { ruleset, table, guard, guard_table, generation_id, .. }) => {
            let generation_id = Some(generation_id);
            let links = Vec::new();
            Ok(Some(Known { inode, ruleset, table, guard, guard_table, links, generation_id }))
        }
        Err(ApplyError::Stale) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the kernel does not know what it was asked for: hooks at links that packets leave by
/// (Linux 5.16), the family, or the expression that asks for a route (`CONFIG_IP_ROUTE_CLASSID`).
fn is_unknown(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
}

/// What a table begins with. Connections may be older than it, and carry the mark of one that was there before.
fn any_generation() -> Generation {
    let random = RandomState::new().hash_one(()) as u32;
    Generation::from_mark(random & Generation::MASK).unwrap_or(Generation::FIRST)
}

/// Each commit raises the generation by one; zero is left out (`nf_tables_commit`).
fn next_generation_id(id: u32) -> u32 {
    id.checked_add(1).unwrap_or(1)
}
