//! Owns what was seen, in one task: takes what is read of each netns, counts it, and says what is news.
//!
//! Nothing that is enforced depends on it: when it is slow or fails, less is told and nothing else changes.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};

use super::attribution::{Attributed, Place};
use super::book::{Book, Found};
use super::denials::Denials;
use super::flows::Flows;
use super::party::Party;
use super::process::{self, Local};
use super::reader::{self, Report};
use super::record::{Denial, DenialKey, Event, EventKind, Flow, Where};
use super::seen::{Denied, Seen};
use super::sinks::Sinks;
use super::store::{self, Limits, Store};
use crate::config::{EventSettings, SinkSettings};
use crate::input::Text;
use crate::nft::conntrack::Change;
use crate::policy::{Endpoint, resolvers, test_connection};
use crate::reconcile::feed::{Listening, News};
use crate::reconcile::{Entry, Inlet};

/// How many events can be asked for.
const KEPT_EVENTS: usize = 10_000;
/// How many events one answer has.
const ANSWERED_EVENTS: usize = 1000;
/// What changed is handed to the store so often.
const KEEPING: Duration = Duration::from_secs(1);
/// How long the end may take for what is not on disk yet, and not sent.
const LAST_WRITES: Duration = Duration::from_millis(1500);
/// What is told waits so long, for who is who is told a moment later than it is decided.
const SETTLING: Duration = Duration::from_millis(120);
/// The same, where nobody has said yet whose netns it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many reports wait at most.
const WAITING: usize = 256;
/// Processes are looked for at most so often.
const LOOK_UPS: Duration = Duration::from_millis(200);
/// How long it takes at most until a process is found, or is not.
const LOOKING: Duration = Duration::from_millis(500);

/// What others ask.
pub enum Query {
    /// All flows, most recent last.
    Flows(oneshot::Sender<Vec<Flow>>),
    /// All denials, most recent last.
    Denials(oneshot::Sender<Vec<Denial>>),
    /// Events after this number, oldest first.
    Events(u64, oneshot::Sender<Vec<Event>>),
    /// How much there is.
    Totals(oneshot::Sender<Totals>),
    /// Sends events elsewhere from now on.
    Sinks(SinkSettings),
    /// Tells everybody who follows.
    Note(EventKind, Option<Text>, Text),
}

/// How much was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys of flows.
    pub flows: usize,
    /// Keys of denials.
    pub denials: usize,
    /// Events by kind, since the daemon began.
    pub events: Vec<(EventKind, u64)>,
    /// How often the kernel had more to tell than there was room for.
    pub lost: u64,
    /// What is wrong with keeping and sending, one line each.
    pub problems: Vec<String>,
    /// Whether something is wrong with the store.
    pub has_store_problem: bool,
    /// How many changes the store lost.
    pub store_lost: u64,
    /// How many events each sink lost.
    pub sinks_lost: Vec<(&'static str, u64)>,
}

/// A process that was found, or not.
struct Looked {
    key: DenialKey,
    process: Option<Text>,
    needed: Option<String>,
}

/// What was seen.
pub struct Observer {
    book: Book,
    places: HashMap<u64, Place>,
    last_place: u64,
    flows: Flows,
    denials: Denials,
    events: VecDeque<Event>,
    totals: HashMap<EventKind, u64>,
    sequence: watch::Sender<u64>,
    lost: u64,
    kept: Option<Store>,
    /// Events that the store was not given yet.
    untold: Vec<Event>,
    sinks: Option<Sinks>,
    /// What was told, and when, until it is clear of whom.
    waiting: VecDeque<(Instant, Report)>,
    looked: Option<Instant>,
    is_looking: Arc<AtomicBool>,
    looking: mpsc::UnboundedSender<Looked>,
    found: Option<mpsc::UnboundedReceiver<Looked>>,
}

impl Default for Observer {
    fn default() -> Self {
        let (looking, found) = mpsc::unbounded_channel();
        Self {
            book: Book::default(),
            places: HashMap::new(),
            last_place: 0,
            flows: Flows::default(),
            denials: Denials::default(),
            events: VecDeque::new(),
            totals: HashMap::new(),
            sequence: watch::Sender::new(0),
            lost: 0,
            kept: None,
            untold: Vec::new(),
            sinks: None,
            waiting: VecDeque::new(),
            looked: None,
            is_looking: Arc::default(),
            looking,
            found: Some(found),
        }
    }
}

impl Observer {
    /// The number of the last event, for who follows.
    pub fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }

    /// Keeps what is seen in this folder, and sends events where these settings say. Blocking: it waits for the disk.
    fn keep(&mut self, folder: &Path, settings: &EventSettings) {
        let (store, restored) = Store::open(folder, Limits::from(settings));
        self.flows.restore(restored.flows);
        self.denials.restore(restored.denials);
        let last = restored.events.iter().map(|event| event.sequence).max();
        self.sequence.send_replace(last.unwrap_or_default());
        self.events = restored.events.into();
        self.kept = Some(store);
        self.sinks = Some(Sinks::start(&settings.sinks));
    }

    /// Hands to the store what changed.
    fn write(&mut self) {
        let Some(kept) = &self.kept else { return };
        let mut changes: Vec<store::Change> =
            self.flows.take_changed().into_iter().map(store::Change::Flow).collect();
        changes.extend(self.denials.take_changed().into_iter().map(store::Change::Denial));
        changes.extend(self.untold.drain(..).map(store::Change::Event));
        kept.put(changes);
    }

    /// Writes and sends what is left. Blocking, for a moment.
    fn close(mut self) {
        self.write();
        if let Some(store) = self.kept.take() {
            store.close(LAST_WRITES);
        }
        if let Some(sinks) = self.sinks.take() {
            sinks.close(LAST_WRITES);
        }
    }

    /// Runs until `stop` answers. `folder` is where it keeps what is seen.
    pub async fn run(
        mut self,
        folder: PathBuf,
        settings: EventSettings,
        mut inlet: Inlet,
        mut queries: mpsc::Receiver<Query>,
        stop: impl Future<Output = ()>,
    ) {
        let (reports, mut read) = mpsc::channel(64);
        let Some(mut found) = self.found.take() else { return };
        let opened = tokio::task::spawn_blocking(move || {
            self.keep(&folder, &settings);
            self
        });
        let Ok(mut this) = opened.await else { return };
        let mut keeping = tokio::time::interval(KEEPING);
        keeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            this.take_settled();
            let next = this.next_settled();
            // Every arm is cancel-safe: receiving loses nothing when another arm wins.
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = keeping.tick() => this.write(),
                Ok(()) = inlet.view.changed() => {
                    let view = Arc::clone(&inlet.view.borrow_and_update());
                    this.book.renew(view, now_us());
                }
                Some(news) = inlet.news.recv() => match news {
                    News::Netns(listening) => this.listen(*listening, &reports),
                    News::Entry(entry) => this.entry(&entry),
                },
                Some(query) = queries.recv() => this.answer(query),
                Some(looked) = found.recv() => this.looked(looked),
                Some(report) = read.recv(), if this.waiting.len() < WAITING => {
                    this.waiting.push_back((Instant::now(), report));
                }
                () = sleep_until(next), if next.is_some() => {}
            }
        }
        // Nothing is lost for want of a moment.
        let _ = tokio::task::spawn_blocking(move || this.close()).await;
    }

    /// When the first of what waits has waited long enough.
    fn next_settled(&self) -> Option<Instant> {
        let (since, report) = self.waiting.front()?;
        let place = self.places.get(&report.place);
        let is_known = place.is_none_or(|place| self.book.workload(&place.owner).is_some());
        Some(*since + if is_known { SETTLING } else { PATIENCE })
    }

    fn take_settled(&mut self) {
        while self.next_settled().is_some_and(|at| at <= Instant::now()) {
            if let Some((_, report)) = self.waiting.pop_front() {
                self.take(report);
            }
        }
    }

    fn listen(&mut self, listening: Listening, reports: &mpsc::Sender<Report>) {
        let Listening { owner, pid, inode, addresses, listeners, .. } = &listening;
        let nobody = || Found {
            party: Party::Workload {
                name: Text::new(owner.as_str()),
                model: None,
                selector: Text::new(&format!("name:{owner}")),
            },
            endpoint: Endpoint::Workload(owner.clone()),
        };
        let own = self.book.workload(owner).unwrap_or_else(nobody);
        if let Err(error) = &listeners.log {
            let message = format!("its denials are counted, but not listed: {error}");
            tracing::warn!(workload = %own.party, "{message}");
            self.note(EventKind::Daemon, Some(&own.party), message);
        }
        let place = Place::new(owner.clone(), *pid, *inode, own, addresses.clone());
        self.last_place += 1;
        self.places.insert(self.last_place, place);
        tokio::spawn(reader::read(self.last_place, listening, reports.clone()));
    }

    fn take(&mut self, report: Report) {
        if report.lost > 0 {
            self.lost += report.lost;
        }
        for seen in report.seen {
            match seen {
                Seen::Named(from, names) => self.named(report.place, from, names),
                Seen::Connection(told) => {
                    let Some(place) = self.places.get_mut(&report.place) else { continue };
                    place.now_us = now_us();
                    let Some(key) = place.connection(&mut self.book, &told) else { continue };
                    match told.change {
                        Change::New => self.flows.began(&key, now_us()),
                        Change::Ended { was_answered, out, back } => {
                            self.flows.ended(&key, now_us(), was_answered, out, back);
                        }
                    }
                }
                Seen::Denied(denied) => self.denied(report.place, &denied),
            }
        }
        if report.is_last {
            self.places.remove(&report.place);
        }
    }

    /// Only resolvers are believed: of those others, anybody could say anything.
    fn named(&mut self, number: u64, from: std::net::IpAddr, names: Vec<(std::net::IpAddr, Text)>) {
        let Some(place) = self.places.get_mut(&number) else { return };
        let view = self.book.view();
        let is_resolver =
            |workload| resolvers(workload, &view.inventory, &view.settings).contains(&from);
        let workload = view.inventory.get(&place.owner);
        if from.is_loopback() || workload.is_some_and(is_resolver) {
            place.names.learn(names);
        }
    }

    fn denied(&mut self, number: u64, denied: &Denied) {
        let Some(place) = self.places.get_mut(&number) else { return };
        place.now_us = now_us();
        let attributed = place.denied(&mut self.book, denied);
        let (pid, inode) = (place.pid, place.inode);
        let at_us = denied.at_us.unwrap_or_else(now_us);
        let denial = Denial {
            key: attributed.key.clone(),
            first_us: at_us,
            last_us: at_us,
            logged: 1,
            is_reply: attributed.is_reply,
            uid: denied.uid,
            process: None,
        };
        if !self.denials.count(denial) {
            return;
        }
        let needed = self.needed(&attributed);
        let key = attributed.key.clone();
        let local = attributed.local.filter(|_| matches!(denied.at, Where::Out | Where::Raw));
        let may_look = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_UPS);
        // One search at a time: what a container can make it find must not take the threads that others need.
        let begins = |_: &_| may_look && !self.is_looking.swap(true, Ordering::AcqRel);
        match local.filter(begins) {
            None => self.looked(Looked { key, process: None, needed }),
            Some((address, port)) => {
                self.looked = Some(Instant::now());
                let (uid, protocol) = (denied.uid, denied.protocol);
                let local = Local { pid, inode, uid, protocol, port, address };
                let (looking, is_looking) = (self.looking.clone(), Arc::clone(&self.is_looking));
                tokio::task::spawn_blocking(move || {
                    let process = process::find(&local, Instant::now() + LOOKING);
                    is_looking.store(false, Ordering::Release);
                    // Nobody waits for it any more only when the daemon stops.
                    let _ = looking.send(Looked { key, process, needed });
                });
            }
        }
    }

    /// The statement that would have been needed.
    fn needed(&self, attributed: &Attributed) -> Option<String> {
        let packet = attributed.key.carried.packet()?;
        // What went on in a connection nobody remembers is a guess, and of frames and packets for others no statement speaks.
        if attributed.is_reply || matches!(attributed.key.at, Where::Transit | Where::Raw) {
            return None;
        }
        let view = self.book.view();
        let verdict = test_connection(
            &view.inventory,
            &view.desired.policies,
            &view.settings,
            &attributed.client.endpoint,
            &attributed.server.endpoint,
            packet,
        );
        let mut ends = verdict.egress.iter().chain(&verdict.ingress);
        ends.find_map(|end| end.missing.clone())
    }

    /// Tells a denial that is news.
    fn looked(&mut self, looked: Looked) {
        let Looked { key, process, needed } = looked;
        if let Some(process) = process {
            self.denials.set_process(&key, process);
        }
        let Some(denial) = self.denials.get(&key).cloned() else { return };
        let kind = if key.enforced { EventKind::Denied } else { EventKind::WouldDeny };
        let message = Text::new(&said(&denial));
        let event = self.event(kind, Some(&key.workload), message);
        self.push(Event { denial: Some(denial), needed, ..event });
    }

    fn entry(&mut self, entry: &Entry) {
        let kind = match (entry.operations, entry.is_repair) {
            (0, _) => EventKind::Foreign,
            (_, true) => EventKind::Repaired,
            (_, false) => EventKind::Changed,
        };
        let by = entry.by.as_ref().map(|by| format!(" after {by}")).unwrap_or_default();
        let first = entry.changes.first().map(String::as_str).unwrap_or_default();
        let message = match entry.operations {
            0 => format!("{first}{by}"),
            1 => format!("{first}{by}"),
            more => format!("{first}{by}, and {} more", more - 1),
        };
        let workload = Text::new(&entry.workload);
        let event = self.event(kind, None, Text::new(&message));
        self.push(Event { workload: Some(workload), at_us: entry.committed_us, ..event });
    }

    fn note(&mut self, kind: EventKind, party: Option<&Party>, message: String) {
        let event = self.event(kind, party, Text::new(&message));
        self.push(event);
    }

    fn event(&self, kind: EventKind, party: Option<&Party>, message: Text) -> Event {
        Event {
            sequence: *self.sequence.borrow() + 1,
            at_us: now_us(),
            kind,
            workload: party.map(|party| Text::new(&party.to_string())),
            message,
            denial: None,
            needed: None,
        }
    }

    fn push(&mut self, event: Event) {
        *self.totals.entry(event.kind).or_default() += 1;
        if self.events.len() >= KEPT_EVENTS {
            self.events.pop_front();
        }
        let sequence = event.sequence;
        if let Some(sinks) = &self.sinks {
            sinks.send(&event);
        }
        if self.untold.len() < KEPT_EVENTS {
            self.untold.push(event.clone());
        }
        self.events.push_back(event);
        self.sequence.send_replace(sequence);
    }

    fn answer(&mut self, query: Query) {
        // Whoever asked may have left meanwhile; that is no error here.
        match query {
            Query::Flows(reply) => drop(reply.send(self.flows.list())),
            Query::Denials(reply) => drop(reply.send(self.denials.list())),
            Query::Events(after, reply) => {
                let events = self.events.iter().filter(|event| event.sequence > after);
                drop(reply.send(events.take(ANSWERED_EVENTS).cloned().collect()));
            }
            Query::Totals(reply) => {
                let mut events: Vec<_> = self.totals.iter().map(|(k, n)| (*k, *n)).collect();
                events.sort();
                let (flows, denials) = (self.flows.len(), self.denials.len());
                let problem = self.kept.as_ref().and_then(Store::problem);
                let sinks = self.sinks.as_ref();
                let totals = Totals {
                    flows,
                    denials,
                    events,
                    lost: self.lost,
                    has_store_problem: problem.is_some(),
                    problems: problem
                        .into_iter()
                        .chain(sinks.into_iter().flat_map(Sinks::problems))
                        .collect(),
                    store_lost: self.kept.as_ref().map_or(0, Store::lost),
                    sinks_lost: sinks.map(Sinks::lost).unwrap_or_default(),
                };
                drop(reply.send(totals));
            }
            Query::Sinks(settings) => {
                let former = self.sinks.replace(Sinks::start(&settings));
                // What it still has to send holds nobody up.
                tokio::task::spawn_blocking(move || former.map(|sinks| sinks.close(LAST_WRITES)));
            }
            Query::Note(kind, workload, message) => {
                let event = self.event(kind, None, message);
                self.push(Event { workload, ..event });
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// A denial in one line.
fn said(denial: &Denial) -> String {
    let DenialKey { workload, at, enforced, client, server, carried } = &denial.key;
    let verb = if *enforced { "denied" } else { "would be denied" };
    let way = match at {
        Where::In => format!("at {workload}, on its way in"),
        Where::Out => format!("at {workload}, on its way out"),
        Where::Transit => format!("at {workload}, on its way through"),
        Where::Raw => format!("at {workload}, from a raw or packet socket"),
    };
    let reply = if denial.is_reply { ", in a connection that was there before" } else { "" };
    let by = match (&denial.process, denial.uid) {
        (Some(process), Some(uid)) => format!(", by {process}, uid {uid}"),
        (Some(process), None) => format!(", by {process}"),
        (None, Some(uid)) => format!(", by uid {uid}"),
        (None, None) => String::new(),
    };
    format!("{client} → {server} on {carried} {verb} {way}{reply}{by}")
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
