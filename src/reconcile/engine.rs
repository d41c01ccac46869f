//! Owns the daemon's loop: takes observations, decides anew, and has every netns brought to what is desired.
//!
//! One task owns all state. Work on a netns runs on blocking threads, at most [`WORKERS`] at once, and comes back as
//! a message; the loop itself never waits for the kernel or for Docker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::apply::{Applied, Failure, Kernel, Known, Target};
use super::coverage::LastTry;
use super::desired::{Desired, Rules, desire, is_running};
use super::journal::{Entry, Journal};
use super::queue::Queue;
use super::start::{Progress, Start, StartAnswer};
use super::status::{self, StatusReport};
use crate::compile::Ruleset;
use crate::config::Loaded;
use crate::input::Text;
use crate::metadata::{InventoryBuilder, NetworkMode, Observation, Source, WorkloadId};
use crate::nft::netns::Process;

/// How many netns are worked on at once.
pub const WORKERS: usize = 4;
/// How often every netns is compared with the kernel's own state, unless said otherwise.
pub const RESYNC: Duration = Duration::from_secs(60);

/// What others ask of the loop.
pub enum Request {
    /// The state of everything.
    Status(oneshot::Sender<StatusReport>),
    /// The last transactions.
    Journal(oneshot::Sender<Vec<Entry>>),
    /// A container's first process exists and shall run: answers when everything it needs is in force, and all that its
    /// addresses meant before is gone. No answer while that is not so; whoever asks decides how long to wait.
    Start {
        /// The container.
        id: WorkloadId,
        /// Its first process.
        pid: u32,
        /// Where the answer goes.
        reply: oneshot::Sender<StartAnswer>,
    },
    /// Answers when everything known is programmed, or was tried.
    Settled(oneshot::Sender<()>),
    /// New rules, or why they could not be read; then the last good ones stay in force.
    Reload(Result<Box<Loaded>, String>),
}

/// What is known of one netns.
#[derive(Debug, Default)]
pub(super) struct NetnsState {
    pid: u32,
    /// Held since the first change: nobody else who gets this pid is taken for it.
    process: Option<Arc<Process>>,
    pub(super) wanted: Option<Ruleset>,
    known: Option<Known>,
    /// Whether the next try reads the kernel's own state, whatever is known.
    is_doubted: bool,
    /// What was wanted when the last try succeeded.
    pub(super) reached: Option<Option<Ruleset>>,
    pub(super) last: LastTry,
    /// Whether its container waited for this before its first instruction; none where it ran before the daemon did.
    pub(super) has_waited: Option<bool>,
}

struct Done {
    owner: WorkloadId,
    pid: u32,
    wanted: Option<Ruleset>,
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
    desired: Desired,
    queue: Queue<WorkloadId>,
    netns: BTreeMap<WorkloadId, NetnsState>,
    journal: Journal,
    waiting: Vec<oneshot::Sender<()>>,
    starts: Vec<Start>,
    /// Whether everything that ran when the daemon started has been programmed, or tried.
    has_caught_up: bool,
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
            desired: Desired::default(),
            queue: Queue::new(WORKERS),
            netns: BTreeMap::new(),
            journal: Journal::default(),
            waiting: Vec::new(),
            starts: Vec::new(),
            has_caught_up: false,
        }
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
    ) {
        let (finished, mut results) = mpsc::unbounded_channel();
        let begin = tokio::time::Instant::now() + self.resync;
        let mut resync = tokio::time::interval_at(begin, self.resync);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            self.answer_starts();
            self.dispatch(&finished);
            self.answer_waiting();
            let next = self.queue.next_due();
            // Every arm is cancel-safe: receiving, a tick and sleeping lose nothing when another arm wins.
            tokio::select! {
                // Observations before results: an address that left must leave before others are confirmed.
                biased;
                () = &mut stop => break,
                Some(observation) = observations.recv() => {
                    self.observe_first(observation);
                    self.dispatch(&finished);
                    while let Ok(observation) = observations.try_recv() {
                        self.observe(observation);
                    }
                    self.decide();
                }
                Some(done) = results.recv() => self.finish(done),
                Some(request) = requests.recv() => self.answer(request),
                _ = resync.tick() => self.audit(),
                () = sleep_until(next), if next.is_some() => {}
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
        self.facts.apply(observation);
    }

    /// Decides everything anew and asks for work where the answer changed.
    fn decide(&mut self) {
        self.desired = desire(self.facts.inventory(), &self.rules);
        let inventory = self.facts.inventory();
        let has_netns = |id: &WorkloadId| inventory.get(id).is_some_and(is_running);
        self.netns.retain(|owner, _| {
            let keep = has_netns(owner);
            if !keep {
                self.queue.forget(owner);
            }
            keep
        });
        let running: Vec<_> =
            inventory.iter().filter(|one| is_running(one)).map(|one| one.id.clone()).collect();
        for id in running {
            self.look_after(&id);
        }
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
        let wanted = self.desired.rulesets.get(id);
        let state = self.netns.entry(id.clone()).or_default();
        if state.pid != netns.pid {
            *state = NetnsState {
                pid: netns.pid,
                wanted: wanted.cloned(),
                has_waited: self.has_caught_up.then_some(false),
                ..NetnsState::default()
            };
            // What has nothing in force yet comes before what only changes.
            self.queue.add(id.clone(), urgent(now));
        } else if state.wanted.as_ref() != wanted {
            state.wanted = wanted.cloned();
            self.queue.add(id.clone(), now);
        }
    }

    /// Compares every netns with the kernel's own state.
    fn audit(&mut self) {
        let now = Instant::now();
        for (owner, state) in &mut self.netns {
            // A try under way may bring back what it knows: doubt outlives it.
            state.is_doubted = true;
            self.queue.add(owner.clone(), now);
        }
    }

    fn dispatch(&mut self, finished: &mpsc::UnboundedSender<Done>) {
        while let Some(owner) = self.queue.take(Instant::now()) {
            let Some(state) = self.netns.get_mut(&owner) else {
                self.queue.done(&owner);
                continue;
            };
            let is_doubted = std::mem::take(&mut state.is_doubted);
            let target = Target {
                owner: owner.clone(),
                pid: state.pid,
                process: state.process.clone(),
                wanted: state.wanted.clone(),
                known: state.known.take().filter(|_| !is_doubted),
            };
            let (kernel, finished) = (self.kernel.clone(), finished.clone());
            tokio::task::spawn_blocking(move || {
                let mut result = kernel.apply(&target);
                let socket = result.as_mut().ok().and_then(|applied| applied.socket.take());
                let Target { owner, pid, wanted, .. } = target;
                // Nobody listens any more only when the daemon stops.
                let _ = finished.send(Done { owner, pid, wanted, result });
                drop(socket);
            });
        }
    }

    fn finish(&mut self, done: Done) {
        let Done { owner, pid, wanted, result } = done;
        let Some(state) = self.netns.get_mut(&owner).filter(|state| state.pid == pid) else {
            // It ended, or started again, meanwhile.
            self.queue.done(&owner);
            return;
        };
        let inventory = self.facts.inventory();
        let name = inventory.get(&owner).map(|workload| workload.name.clone()).unwrap_or_default();
        match result {
            Ok(applied) => {
                self.queue.done(&owner);
                let is_repair = state.reached.as_ref() == Some(&wanted);
                state.last = LastTry { is_in_force: applied.known.ruleset.is_some(), error: None };
                state.known = Some(applied.known);
                state.process = Some(applied.process);
                state.reached = Some(wanted);
                if !applied.transaction.is_empty() {
                    let entry = self.journal.note(
                        (owner.as_str(), name.as_str()),
                        &applied.transaction,
                        is_repair,
                        applied.took,
                        applied.committed,
                    );
                    report(entry);
                }
                if self.facts.set_addresses(&owner, applied.addresses.into_iter().collect()) {
                    self.decide();
                }
            }
            Err(failure) if failure.is_gone() => {
                tracing::debug!(workload = %name, "ended while it was being programmed");
                self.queue.done(&owner);
            }
            Err(failure) => {
                let error = failure.chain();
                let wait = self.queue.failed(owner, Instant::now());
                tracing::error!(workload = %name, %error, retry_ms = wait.as_millis(), "not programmed");
                state.last.error = Some(error);
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            // Whoever asked may have left meanwhile; that is no error here.
            Request::Journal(reply) => drop(reply.send(self.journal.entries())),
            Request::Settled(reply) => self.waiting.push(reply),
            Request::Start { id, pid, reply } => self.start(id, pid, reply),
            Request::Status(reply) => {
                let report = status::report(
                    &self.facts,
                    &self.expected,
                    &self.desired,
                    &self.netns,
                    &self.rules.options.settings,
                    self.rules_error.clone(),
                );
                let kernel = self.kernel.clone();
                tokio::task::spawn_blocking(move || {
                    drop(reply.send(status::with_counts(report, &kernel)));
                });
            }
            Request::Reload(Ok(loaded)) => {
                self.rules = Rules::from(loaded.as_ref());
                self.rules_error = None;
                tracing::info!("configuration loaded");
                self.decide();
            }
            Request::Reload(Err(error)) => {
                tracing::error!(%error, "configuration refused; the last good one stays in force");
                // Line by line: a text of one line has no line breaks in it.
                let lines = error.lines().map(|line| Text::new(line).to_string());
                self.rules_error = Some(lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }

    /// Takes a container to the start gate. Its process is as good as told by containerd.
    fn start(&mut self, id: WorkloadId, pid: u32, reply: oneshot::Sender<StartAnswer>) {
        self.observe_first(Observation::TaskCreated { id: id.clone(), pid });
        self.decide();
        self.starts.push(Start { id, pid, reply, began: Instant::now(), is_asked: false });
    }

    /// Lets those start for whom everything is in force.
    fn answer_starts(&mut self) {
        self.starts.retain(|start| !start.reply.is_closed());
        if self.starts.is_empty() || !self.has_heard_all() {
            return;
        }
        self.bury_the_dead();
        for mut start in std::mem::take(&mut self.starts) {
            let owner = self.facts.inventory().netns_owner(&start.id).clone();
            if !start.is_asked && self.netns.contains_key(&owner) {
                // Addresses are complete only now: Docker 28 attaches networks after containerd made the process.
                self.queue.add(owner.clone(), urgent(Instant::now()));
                start.is_asked = true;
            }
            let progress = Progress {
                inventory: self.facts.inventory(),
                netns: &self.netns,
                queue: &self.queue,
            };
            match progress.answer(&start) {
                None => self.starts.push(start),
                Some(answer) => {
                    if let Some(state) = self.netns.get_mut(&owner) {
                        state.has_waited = Some(true);
                    }
                    tracing::debug!(workload = %start.id, pid = start.pid, ?answer, "may start");
                    // Whoever asked may have stopped waiting.
                    drop(start.reply.send(answer));
                }
            }
        }
    }

    /// Docker gives an address away as soon as its holder's process is dead, which nobody may have told yet.
    fn bury_the_dead(&mut self) {
        let is_dead =
            |state: &&NetnsState| state.process.as_ref().is_some_and(|process| !process.is_alive());
        let dead: Vec<_> = self
            .netns
            .iter()
            .filter(|(_, state)| is_dead(state))
            .map(|(id, state)| (id.clone(), state.pid))
            .collect();
        if dead.is_empty() {
            return;
        }
        for (id, pid) in dead {
            self.observe(Observation::TaskExited { id, pid });
        }
        self.decide();
    }

    /// Whether every source has listed what it knows, or has said that it cannot be reached.
    fn has_heard_all(&self) -> bool {
        self.expected.iter().all(|source| self.facts.source(*source).is_some())
    }

    fn answer_waiting(&mut self) {
        if self.queue.is_settled() && self.has_heard_all() {
            self.has_caught_up = true;
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }
}

/// What is urgent is asked for as if it had been long ago: before all that is asked for now.
fn urgent(now: Instant) -> Instant {
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
}

fn report(entry: &Entry) {
    let first = entry.changes.first().map(String::as_str).unwrap_or_default();
    if entry.is_repair {
        tracing::warn!(
            workload = entry.workload,
            operations = entry.operations,
            first,
            "somebody changed the table; repaired"
        );
    } else {
        tracing::info!(
            workload = entry.workload,
            operations = entry.operations,
            elements_only = entry.is_elements_only,
            revokes = entry.is_revoking,
            took_us = entry.took_us,
            first,
            "programmed"
        );
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
