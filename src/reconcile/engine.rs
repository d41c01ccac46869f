//! Owns the daemon's loop: takes observations, decides anew, and has every netns brought to what is desired.
//!
//! One task owns all state. Work on a netns runs on blocking threads, at most [`WORKERS`] at once, and comes back as
//! a message; the loop itself never waits for the kernel or for Docker.

mod finish;
mod listening;
mod requests;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::apply::{Applied, Failure, Kernel, Known, Target, Wanted, Watching};
use super::clear::Clearing;
use super::control::Follower;
use super::coverage::LastTry;
use super::desired::{Decider, Desired, Rules, is_running};
use super::feed::{self, Outlet, View};
use super::foreign::{self, Finding};
use super::hearing::Hearing;
use super::journal::Journal;
use super::kept::Kept;
use super::queue::Queue;
use super::start::Start;

use super::watch::{LogLimit, Watcher};
use crate::compile::Ruleset;
use crate::config::Foreign;
use crate::metadata::{
    InventoryBuilder, NetworkMode, Observation, Source, WorkloadId, netns_inode,
};
use crate::nft::netns::Process;
use crate::nft::watch::Committer;
use listening::Unheard;

pub use requests::Request;

/// How many netns are worked on at once.
pub const WORKERS: usize = 4;
/// How often every netns is compared with the kernel's own state, unless said otherwise.
pub const RESYNC: Duration = Duration::from_secs(60);

/// What is known of one netns.
#[derive(Debug, Default)]
pub(super) struct NetnsState {
    pid: u32,
    /// Held since the first change: nobody else who gets this pid is taken for it.
    process: Option<Arc<Process>>,
    pub(super) wanted: Wanted,
    known: Option<Known>,
    /// The socket its table belongs to; with a try that is under way while there is one.
    socket: Kept,
    /// Whether the next try reads the kernel's own state, whatever is known.
    is_doubted: bool,
    /// What was wanted when the last try succeeded.
    pub(super) reached: Option<Wanted>,
    /// The guard that was made then, and the addresses that were its own.
    made: Option<(Option<Ruleset>, BTreeSet<IpAddr>)>,
    /// The addresses that were its own when it was programmed first.
    first: Option<BTreeSet<IpAddr>>,
    pub(super) last: LastTry,
    /// The port id of the socket.
    port_id: Option<u32>,
    /// Tells what others do there.
    watcher: Option<Watcher>,
    /// Follows its control connections, where its ruleset has helpers.
    control: Option<Follower>,
    /// Who changed our table last, until it is repaired.
    by: Option<Committer>,
    /// Whether a process of the container was seen to change nftables.
    is_inside: bool,
    /// Whether the next try looks at the chains of others, who changed them last, and not before when.
    wants_look: bool,
    looked_for: Option<Committer>,
    next_look: Option<Instant>,
    /// Their chains.
    pub(super) foreign: Vec<Finding>,
    log: LogLimit,
    /// Where its denials and connections are heard.
    hearing: Hearing,
    /// Whether its container waited for this before its first instruction; none where it ran before the daemon did.
    pub(super) has_waited: Option<bool>,
}

struct Done {
    target: Target,
    /// What a look at the chains of others found, and how long it took.
    found: Option<(Vec<Finding>, Duration)>,
    result: Result<Applied, Failure>,
}

/// The daemon's state.
pub struct Engine {
    kernel: Kernel,
    facts: InventoryBuilder,
    expected: Vec<Source>,
    resync: Duration,
    rules: Rules,
    rules_error: Option<String>,
    decider: Decider,
    desired: Arc<Desired>,
    outlet: Option<Outlet>,
    queue: Queue<WorkloadId>,
    netns: BTreeMap<WorkloadId, NetnsState>,
    journal: Journal,
    waiting: Vec<oneshot::Sender<()>>,
    starts: Vec<Start>,
    /// Whether everything that ran when the daemon started has been programmed, or tried.
    has_caught_up: bool,
    clearing: Option<Clearing>,
    foreign: Foreign,
    /// What is held of netns that another workload stands for from now on, by inode.
    left: BTreeMap<u64, Left>,
    /// Whose netns nothing was tried in yet. Whatever is not needed for a first policy waits for them.
    untried: BTreeSet<WorkloadId>,
    /// Who got a first policy while others waited, and since when they are to be watched.
    unwatched: VecDeque<(WorkloadId, Instant)>,
    /// Whose denials and connections are to be heard, in the order it was asked for.
    unheard: VecDeque<Unheard>,
    /// How many of them are being opened.
    opening: usize,
}

/// What is held of a netns whose workload has gone.
#[derive(Debug, Default)]
struct Left {
    socket: Kept,
    hearing: Hearing,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to. What is in the kernel stays there.
    Stopped,
    /// Everything was taken out.
    Cleared,
}

impl Engine {
    /// An engine that knows nothing yet and expects `sources` to tell.
    pub fn new(kernel: Kernel, rules: Rules, sources: Vec<Source>) -> Self {
        Self {
            kernel,
            facts: InventoryBuilder::new(),
            expected: sources,
            resync: RESYNC,
            rules,
            rules_error: None,
            decider: Decider::default(),
            desired: Arc::default(),
            outlet: None,
            queue: Queue::new(WORKERS),
            netns: BTreeMap::new(),
            journal: Journal::default(),
            waiting: Vec::new(),
            starts: Vec::new(),
            has_caught_up: false,
            clearing: None,
            foreign: Foreign::default(),
            left: BTreeMap::new(),
            untried: BTreeSet::new(),
            unwatched: VecDeque::new(),
            unheard: VecDeque::new(),
            opening: 0,
        }
    }

    /// Hands on who is who, where to listen, and what was done.
    pub fn set_outlet(&mut self, outlet: Outlet) {
        self.outlet = Some(outlet);
    }

    /// Does this about chains of others that lead packets around the policy.
    pub fn set_foreign(&mut self, foreign: Foreign) {
        self.foreign = foreign;
    }

    /// Compares every netns with the kernel's own state this often, instead of every [`RESYNC`]. Zero is taken for a second.
    pub fn set_resync(&mut self, every: Duration) {
        self.resync = every.max(Duration::from_secs(1));
    }

    /// Runs until `stop` answers. What is in the kernel then stays there (security model 2).
    pub async fn run(
        mut self,
        mut observations: mpsc::Receiver<Observation>,
        mut requests: mpsc::Receiver<Request>,
        stop: impl Future<Output = ()>,
    ) -> End {
        let (finished, mut results) = mpsc::unbounded_channel();
        let (sender, mut news) = mpsc::unbounded_channel();
        let begin = tokio::time::Instant::now() + self.resync;
        let mut resync = tokio::time::interval_at(begin, self.resync);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            self.answer_starts();
            self.dispatch(&finished);
            self.dispatch_later(&sender);
            self.answer_waiting();
            if self.is_cleared() {
                return End::Cleared;
            }
            self.hand_on();
            let next = self.queue.next_due();
            let later_due = self.later_due();
            let view_due = self.outlet.as_ref().and_then(Outlet::due);
            // Every arm is cancel-safe: receiving, a tick and sleeping lose nothing when another arm wins.
            tokio::select! {
                // Observations before results: an address that left must leave before others are confirmed.
                biased;
                () = &mut stop => return End::Stopped,
                Some(observation) = observations.recv() => {
                    self.observe_first(observation);
                    self.dispatch(&finished);
                    while let Ok(observation) = observations.try_recv() {
                        self.observe(observation);
                    }
                    self.decide();
                }
                Some(news) = news.recv() => self.hear(news),
                Some(done) = results.recv() => self.finish(done, &sender),
                Some(request) = requests.recv() => self.answer(request),
                _ = resync.tick() => self.audit(),
                () = sleep_until(next), if next.is_some() => {}
                () = sleep_until(view_due), if view_due.is_some() => {}
                () = sleep_until(later_due), if later_due.is_some() => {}
            }
        }
    }

    fn observe(&mut self, observation: Observation) {
        match &observation {
            Observation::Down { source, error } => {
                tracing::warn!(%source, %error, "cannot be reached; what is in force stays");
            }
            Observation::Snapshot { source, workloads } => {
                tracing::info!(%source, workloads = workloads.len(), "listed");
            }
            _ => {}
        }
        let task = match &observation {
            Observation::TaskCreated { id, pid } => Some((id.clone(), *pid)),
            _ => None,
        };
        self.facts.apply(observation);
        if let Some((id, pid)) = task {
            self.facts.set_inode(&id, pid, netns_inode(pid));
        }
    }

    /// Decides everything anew and asks for work where the answer changed.
    fn decide(&mut self) {
        self.desired = self.decider.decide(self.facts.inventory(), &self.rules);
        if self.clearing.is_some() {
            Arc::make_mut(&mut self.desired).rulesets.clear();
        }
        if let Some(outlet) = &mut self.outlet {
            outlet.outdate();
        }
        let inventory = self.facts.inventory();
        let stands_for = |owner: &WorkloadId, pid: u32| {
            let workload = inventory.get(owner).filter(|one| is_running(one));
            let netns = workload.and_then(|workload| workload.netns.as_ref());
            netns.is_some_and(|netns| netns.pid == pid) && inventory.netns_owner(owner) == owner
        };
        self.netns.retain(|owner, state| {
            let keep = stands_for(owner, state.pid);
            if !keep {
                self.queue.forget(owner);
                self.untried.remove(owner);
                let (socket, hearing) =
                    (std::mem::take(&mut state.socket), std::mem::take(&mut state.hearing));
                let inode = socket.get().map(|socket| socket.inode).or(hearing.inode());
                self.left.extend(inode.map(|inode| (inode, Left { socket, hearing })));
            }
            keep
        });
        let running: Vec<_> =
            inventory.iter().filter(|one| is_running(one)).map(|one| one.id.clone()).collect();
        for id in running {
            self.look_after(&id);
        }
        self.left.clear();
    }

    /// Hands on what others may look at.
    fn hand_on(&mut self) {
        let Some(outlet) = &mut self.outlet else { return };
        for entry in self.journal.news() {
            outlet.tell(feed::News::Entry(Box::new(entry)));
        }
        let (facts, desired, rules) = (&self.facts, &self.desired, &self.rules);
        outlet.publish(|| View {
            inventory: facts.inventory().clone(),
            desired: Arc::clone(desired),
            settings: rules.options.settings.clone(),
        });
    }

    /// Takes an observation when everything before it is decided.
    ///
    /// A container that is being started cannot wait until everything is decided anew: it gets at once what was decided for
    /// it when it was created. Nothing in that is stale, for nothing was observed since.
    fn observe_first(&mut self, observation: Observation) {
        let started = match &observation {
            Observation::TaskCreated { id, .. } => Some(id.clone()),
            _ => None,
        };
        self.observe(observation);
        if let Some(id) = started
            && self.desired.rulesets.contains_key(&id)
            && self.facts.inventory().get(&id).is_some_and(is_running)
        {
            self.look_after(&id);
        }
    }

    /// Asks for work on the netns of a running workload where it is new, or what is decided for it is.
    fn look_after(&mut self, id: &WorkloadId) {
        let inventory = self.facts.inventory();
        let Some(workload) = inventory.get(id) else { return };
        if workload.network_mode == NetworkMode::Host || inventory.netns_owner(id) != id {
            return;
        }
        let Some(netns) = &workload.netns else { return };
        let now = Instant::now();
        let mut wanted = self.desired.wanted(id);
        let state = self.netns.entry(id.clone()).or_default();
        if state.pid != netns.pid {
            // Who is left in a netns takes over the socket its table belongs to, and those it is heard by.
            let left = netns.inode.and_then(|inode| self.left.remove(&inode)).unwrap_or_default();
            *state = NetnsState {
                pid: netns.pid,
                socket: left.socket,
                hearing: left.hearing.handed_over(),
                wanted,
                has_waited: self.has_caught_up.then_some(false),
                ..NetnsState::default()
            };
            self.untried.insert(id.clone());
            // What has nothing in force yet comes before what only changes.
            self.queue.add(id.clone(), urgent(now));
            return;
        }
        if wanted.guard.is_admin {
            wanted.guard.named.extend(state.first.iter().flatten());
        }
        if state.wanted != wanted {
            state.wanted = wanted;
            self.queue.add(id.clone(), now);
        }
    }

    /// Compares every netns with the kernel's own state, and what is decided with what would be decided from nothing.
    fn audit(&mut self) {
        if !self.decider.is_right(&self.rules) {
            tracing::error!("something was decided from what is no longer so; it is decided anew");
            self.decider = Decider::default();
            self.decide();
        }
        let now = Instant::now();
        for (owner, state) in &mut self.netns {
            // A try under way may bring back what it knows: doubt outlives it.
            state.is_doubted = true;
            state.wants_look = true;
            state.hearing.retry();
            self.queue.add(owner.clone(), now);
        }
        self.tell_rest();
    }

    fn dispatch(&mut self, finished: &mpsc::UnboundedSender<Done>) {
        while let Some(owner) = self.queue.take(Instant::now()) {
            let look = self.next_look(&owner);
            let Some(state) = self.netns.get_mut(&owner) else {
                self.queue.done(&owner);
                continue;
            };
            let is_doubted = std::mem::take(&mut state.is_doubted);
            let inode = state.watcher.as_ref().and_then(Watcher::followed);
            let (is_watched, watching) = (inode.is_some(), Watching { inode, opened: None });
            // Every change anywhere is told to all who watch any netns: there are fewer of them if they begin later.
            let is_first_of_many = self.untried.contains(&owner) && self.untried.len() > 1;
            let is_held = self.starts.iter().any(|start| start.id == owner);
            let mut target = Target {
                owner: owner.clone(),
                pid: state.pid,
                process: state.process.clone(),
                wanted: state.wanted.clone(),
                is_fresh: is_held || state.first.as_ref().is_some_and(BTreeSet::is_empty),
                known: state.known.take().filter(|_| !is_doubted),
                socket: state.socket.take(),
                watching: (is_watched || !is_first_of_many).then_some(watching),
            };
            let (kernel, finished) = (self.kernel.clone(), finished.clone());
            tokio::task::spawn_blocking(move || {
                let result = kernel.apply(&mut target);
                let began = Instant::now();
                let found = look
                    .zip(target.socket.as_mut())
                    .map(|(look, socket)| foreign::look(&mut socket.table, look));
                if found.as_ref().is_some_and(Result::is_err) {
                    target.socket = None;
                }
                let found = found.and_then(Result::ok).map(|found| (found, began.elapsed()));
                // Nobody listens any more only when the daemon stops.
                let _ = finished.send(Done { target, found, result });
            });
        }
    }
}

/// What is urgent is asked for as if it had been long ago: before all that is asked for now.
fn urgent(now: Instant) -> Instant {
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
