//! Owns what was seen, in one task: takes what is read of each netns, counts it, and says what is news.
//!
//! Nothing that is enforced depends on it: when it is slow or fails, less is told and nothing else changes.

mod denied;
mod search;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};

use search::Search;

use super::attribution::Place;
use super::book::{Book, Found};
use super::denials::Denials;
use super::events::Events;
use super::flows::Flows;
use super::party::Party;
use super::reader::{self, Report};
use super::record::{Denial, Event, EventKind, Flow};
use super::seen::Seen;
use super::settling::Settling;
use super::sinks::Sinks;
use super::store::{self, Limits, Store};
use crate::config::{EventSettings, SinkSettings};
use crate::input::Text;
use crate::nft::conntrack::Change;
use crate::policy::{Endpoint, resolvers};
use crate::reconcile::Inlet;
use crate::reconcile::feed::{Listening, News};

/// What changed is handed to the store so often.
const KEEPING: Duration = Duration::from_secs(1);
/// How long the end may take for what is not on disk yet, and not sent.
const LAST_WRITES: Duration = Duration::from_millis(1500);

/// Longer than anything that was told waits.
const LONG: Duration = Duration::from_secs(60);

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

/// What was seen.
#[derive(Default)]
pub struct Observer {
    book: Book,
    places: HashMap<u64, Place>,
    last_place: u64,
    flows: Flows,
    denials: Denials,
    events: Events,
    lost: u64,
    kept: Option<Store>,
    settling: Settling,
    search: Search,
}

impl Observer {
    /// The number of the last event, for who follows.
    pub fn sequence(&self) -> watch::Receiver<u64> {
        self.events.sequence()
    }

    /// Keeps what is seen in this folder, and sends events where these settings say. Blocking: it waits for the disk.
    fn keep(&mut self, folder: &Path, settings: &EventSettings) {
        let (store, restored) = Store::open(folder, Limits::from(settings));
        self.flows.restore(restored.flows);
        self.denials.restore(restored.denials);
        self.events.restore(restored.events);
        self.kept = Some(store);
        self.events.send_to(&settings.sinks);
    }

    /// Hands to the store what changed.
    fn write(&mut self) {
        let Some(kept) = &self.kept else { return };
        let mut changes: Vec<store::Change> =
            self.flows.take_changed().into_iter().map(store::Change::Flow).collect();
        changes.extend(self.denials.take_changed().into_iter().map(store::Change::Denial));
        changes.extend(self.events.take_untold().into_iter().map(store::Change::Event));
        kept.put(changes);
    }

    /// Writes and sends what is left. Blocking, for a moment.
    fn close(mut self) {
        self.write();
        if let Some(store) = self.kept.take() {
            store.close(LAST_WRITES);
        }
        self.events.close(LAST_WRITES);
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
        let mut found = self.search.answers();
        let opened = tokio::task::spawn_blocking(move || {
            self.keep(&folder, &settings);
            self
        });
        let Ok(mut this) = opened.await else { return };
        let mut keeping = tokio::time::interval(KEEPING);
        keeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            let next = this.settling.next(|place| this.is_known(place));
            if next.is_some_and(|next| next <= Instant::now()) {
                this.take_settled(Instant::now());
                continue;
            }
            // Every arm is cancel-safe: receiving loses nothing when another arm wins. None goes before the others: what
            // comes in a flood from one side keeps nobody on the other waiting.
            tokio::select! {
                () = &mut stop => break,
                _ = keeping.tick() => this.write(),
                Ok(()) = inlet.view.changed() => {
                    let view = Arc::clone(&inlet.view.borrow_and_update());
                    this.book.renew(view, now_us());
                }
                Some(news) = inlet.news.recv() => match news {
                    News::Netns(listening) => this.listen(*listening, &reports),
                    News::Entry(entry) => this.events.entry(&entry),
                },
                Some(query) = queries.recv() => this.answer(query),
                Some(looked) = found.recv() => this.tell(looked),
                Some(report) = read.recv(), if this.settling.has_room() => {
                    this.settling.push(report, Instant::now());
                    // All that is there at once: looking at what waits costs the more the more often it is done.
                    while this.settling.has_room() && let Ok(report) = read.try_recv() {
                        this.settling.push(report, Instant::now());
                    }
                }
                () = sleep_until(next), if next.is_some() => {}
            }
        }
        // Nothing is lost for want of a moment: what waits is told as what it is taken for now.
        this.take_settled(Instant::now() + LONG);
        let _ = tokio::task::spawn_blocking(move || this.close()).await;
    }

    /// Whether it is known who stands for a netns; of one that is no longer listened to nothing better will be known.
    fn is_known(&self, place: u64) -> bool {
        let place = self.places.get(&place);
        let inventory = &self.book.view().inventory;
        place.is_none_or(|place| inventory.get(&place.owner).is_some())
    }

    fn take_settled(&mut self, now: Instant) {
        let mut settling = std::mem::take(&mut self.settling);
        for report in settling.settled(now, |place| self.is_known(place)) {
            if report.is_last {
                settling.end(report.place);
            }
            self.take(report);
        }
        self.settling = settling;
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
        if let Some(error) = listeners.missing() {
            let message = format!("not all of its denials are listed, they are counted: {error}");
            self.note(EventKind::Daemon, Some(&own.party), &message);
        }
        let place = Place::new(owner.clone(), *pid, *inode, own, addresses.clone());
        self.last_place += 1;
        self.places.insert(self.last_place, place);
        self.settling.begin(self.last_place, Instant::now());
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

    fn answer(&mut self, query: Query) {
        // Whoever asked may have left meanwhile; that is no error here.
        match query {
            Query::Flows(reply) => drop(reply.send(self.flows.list())),
            Query::Denials(reply) => drop(reply.send(self.denials.list())),
            Query::Events(after, reply) => {
                drop(reply.send(self.events.after(after)));
            }
            Query::Totals(reply) => drop(reply.send(self.totals())),
            Query::Sinks(settings) => {
                let former = self.events.send_to(&settings);
                // What it still has to send holds nobody up.
                tokio::task::spawn_blocking(move || former.map(|sinks| sinks.close(LAST_WRITES)));
            }
            Query::Note(kind, workload, message) => {
                let event = self.events.event(kind, now_us(), None, message);
                self.events.push(Event { workload, ..event });
            }
        }
    }

    fn totals(&self) -> Totals {
        let problem = self.kept.as_ref().and_then(Store::problem);
        let sinks = self.events.sinks();
        let sending = sinks.into_iter().flat_map(Sinks::problems);
        Totals {
            flows: self.flows.len(),
            denials: self.denials.len(),
            events: self.events.totals(),
            lost: self.lost,
            has_store_problem: problem.is_some(),
            problems: problem.into_iter().chain(sending).collect(),
            store_lost: self.kept.as_ref().map_or(0, Store::lost),
            sinks_lost: sinks.map(Sinks::lost).unwrap_or_default(),
        }
    }

    fn note(&mut self, kind: EventKind, party: Option<&Party>, message: &str) {
        let event = self.events.event(kind, now_us(), party, Text::new(message));
        self.events.push(event);
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
