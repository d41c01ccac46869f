//! Owns following Docker: events first, then everything there is, and again after each loss of the connection.
//!
//! The loop never waits for a container: every reading is a task of its own whose answer comes back to the loop,
//! where `sequence` drops what is stale.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reader::Reader;
use super::{DockerError, DockerSource};
use crate::input::Text;
use crate::metadata::observation::{NetworkFacts, Observation, Source};
use crate::metadata::sequence::{Backoff, Depth, Sequence};
use crate::metadata::workload::{Workload, WorkloadId};

/// How long an inspection is waited for: longer than a start ever takes.
const INSPECT_PATIENCE: Duration = Duration::from_secs(60);

impl DockerSource {
    /// Follows Docker until nobody listens to `tx` any more.
    ///
    /// Sends [`Observation::Networks`] and [`Observation::Snapshot`] after each (re)connection, then what changes, and
    /// [`Observation::Down`] once per loss.
    pub async fn watch(self, tx: mpsc::Sender<Observation>) {
        let mut backoff = Backoff::new();
        let mut last_event = None;
        let mut last_error = None;
        while !tx.is_closed() {
            let mut session = Session::new(tx.clone(), last_event);
            let error = match self.connect().await {
                Ok(docker) => {
                    let reader = Reader::new(docker, self.resolvers.clone());
                    match session.run(reader).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            last_event = session.last_event;
            let was_up = session.is_listed;
            if was_up {
                backoff = Backoff::new();
            }
            let error = chain(&error);
            // Said once, not at every attempt.
            if was_up || last_error.as_ref() != Some(&error) {
                last_error = Some(error.clone());
                if tx.send(Observation::Down { source: Source::Docker, error }).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.step()) => {}
                () = tx.closed() => return,
            }
        }
    }
}

/// An error with all its causes.
fn chain(error: &DockerError) -> Text {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    Text::new(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// What the tasks of a session bring back.
enum Answer {
    Container { id: String, generation: u64, depth: Depth, workload: Box<Workload> },
    Networks(Result<Vec<NetworkFacts>, DockerError>),
    Listed(Result<Vec<(String, Workload)>, DockerError>),
}

/// One connection.
struct Session {
    tx: mpsc::Sender<Observation>,
    sequence: Sequence,
    /// When the newest event seen happened, in nanoseconds since 1970 by Docker's clock.
    last_event: Option<i64>,
    /// That of the former session.
    told_until: Option<i64>,
    is_listed: bool,
    /// Whether the networks are being read, and whether they changed since that began.
    networks_asked: bool,
    networks_dirty: bool,
    /// Aborts all readings when the session ends.
    tasks: JoinSet<()>,
}

/// Nobody listens any more.
struct Closed;

impl Session {
    fn new(tx: mpsc::Sender<Observation>, last_event: Option<i64>) -> Self {
        Self {
            tx,
            sequence: Sequence::default(),
            last_event,
            told_until: last_event,
            is_listed: false,
            networks_asked: false,
            networks_dirty: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the connection is lost (an error) or nobody listens any more.
    async fn run(&mut self, reader: Reader) -> Result<(), DockerError> {
        let (answers_tx, mut answers) = mpsc::channel(64);
        let ask = Ask { reader, answers: answers_tx };
        let events = self.events(&ask.reader);
        tokio::pin!(events);
        self.sequence.begin_listing();
        self.networks_asked = true;
        let listing = ask.clone();
        self.tasks.spawn(async move { listing.everything().await });
        loop {
            // Each arm is cancel-safe: a channel's and a stream's next item stays where it is.
            let told = tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(&ask, event).await,
                    Some(Err(source)) => {
                        return Err(DockerError::Ask { action: "follow the events", source: Box::new(source) });
                    }
                    None => return Err(DockerError::StreamEnded),
                },
                Some(answer) = answers.recv() => self.answer(&ask, answer).await?,
                Some(_) = self.tasks.join_next() => Ok(()),
                () = self.tx.closed() => return Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }

    /// The stream of events. Docker keeps the last ones: asking for those since the connection was lost, or since just
    /// before now, leaves no gap between subscribing and listing.
    fn events(
        &self,
        reader: &Reader,
    ) -> impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + use<> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = match self.last_event {
            Some(nanos) => format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000),
            None => format!("{}.{:09}", now.as_secs(), now.subsec_nanos()),
        };
        let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let actions = [
            "create",
            "start",
            "die",
            "destroy",
            "rename",
            "pause",
            "unpause",
            "update",
            "connect",
            "disconnect",
            "remove",
        ];
        let filters = [
            ("type".to_owned(), of(&["container", "network"])),
            ("event".to_owned(), of(&actions)),
        ];
        let options =
            EventsOptions { since: Some(since), until: None, filters: Some(filters.into()) };
        reader.docker().events(Some(options))
    }

    async fn event(&mut self, ask: &Ask, event: EventMessage) -> Result<(), Closed> {
        let time = event.time_nano.unwrap_or_default();
        // Only against the former session: within one, events of several containers are not ordered by their times.
        if self.told_until.is_some_and(|until| time <= until && time != 0) {
            return Ok(()); // told again after a reconnection
        }
        self.last_event = self.last_event.max(Some(time).filter(|time| *time != 0));
        let actor = event.actor.unwrap_or_default();
        let id = actor.id.unwrap_or_default();
        let action = event.action.unwrap_or_default();
        match (event.typ, action.as_str()) {
            (Some(EventMessageTypeEnum::CONTAINER), "destroy") => {
                self.sequence.remove(&id);
                self.send(Observation::Removed(WorkloadId::new(&id))).await?;
            }
            (Some(EventMessageTypeEnum::CONTAINER), action) => {
                let generation = self.sequence.begin(&id);
                match action {
                    "start" => self.sequence.started(&id),
                    "die" => {
                        self.sequence.ended(&id);
                        self.send(Observation::Stopped(WorkloadId::new(&id))).await?;
                    }
                    _ => {}
                }
                self.ask_for(ask, id, generation);
            }
            (Some(EventMessageTypeEnum::NETWORK), "connect" | "disconnect") => {
                if !ask.reader.knows_network(&id) {
                    self.ask_networks(ask);
                }
                let container = actor.attributes.unwrap_or_default().remove("container");
                // A container that is gone already is also disconnected.
                if let Some(container) = container.filter(|id| self.sequence.knows(id)) {
                    let generation = self.sequence.begin(&container);
                    self.ask_for(ask, container, generation);
                }
            }
            (Some(EventMessageTypeEnum::NETWORK), _) => self.ask_networks(ask),
            _ => {}
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        ask: &Ask,
        answer: Answer,
    ) -> Result<Result<(), Closed>, DockerError> {
        Ok(match answer {
            Answer::Container { id, generation, depth, workload } => {
                match self.sequence.accept(&id, generation, depth, *workload) {
                    Some(workload) => self.send(Observation::Upsert(Box::new(workload))).await,
                    None => Ok(()),
                }
            }
            Answer::Networks(networks) => {
                let networks = networks?;
                self.networks_asked = false;
                if std::mem::take(&mut self.networks_dirty) {
                    self.ask_networks(ask);
                }
                self.send(Observation::Networks(networks)).await
            }
            Answer::Listed(listed) => {
                let workloads = self.sequence.finish_listing(listed?);
                self.is_listed = true;
                self.send(Observation::Snapshot { source: Source::Docker, workloads }).await
            }
        })
    }

    fn ask_for(&mut self, ask: &Ask, id: String, generation: u64) {
        let (ask, again, inspected) = (ask.clone(), ask.clone(), id.clone());
        self.tasks.spawn(async move { ask.summary(id, generation).await });
        self.tasks.spawn(async move { again.inspection(inspected, generation).await });
    }

    fn ask_networks(&mut self, ask: &Ask) {
        if self.networks_asked {
            self.networks_dirty = true;
            return;
        }
        self.networks_asked = true;
        let ask = ask.clone();
        self.tasks.spawn(async move {
            let networks = ask.reader.refresh_networks().await;
            ask.tell(Answer::Networks(networks)).await;
        });
    }

    async fn send(&self, observation: Observation) -> Result<(), Closed> {
        self.tx.send(observation).await.map_err(|_| Closed)
    }
}

/// What a task needs to ask and to answer.
#[derive(Clone)]
struct Ask {
    reader: Reader,
    answers: mpsc::Sender<Answer>,
}

impl Ask {
    async fn everything(&self) {
        // Networks first: containers are read with them at hand.
        let networks = self.reader.refresh_networks().await;
        let is_read = networks.is_ok();
        self.tell(Answer::Networks(networks)).await;
        if is_read {
            self.tell(Answer::Listed(self.reader.list().await)).await;
        }
    }

    async fn summary(&self, id: String, generation: u64) {
        match self.reader.summary(&id).await {
            Ok(Some(workload)) => self.container(id, generation, Depth::Summary, workload).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(container = %id, error = %chain(&error), "no summary"),
        }
    }

    async fn inspection(&self, id: String, generation: u64) {
        match tokio::time::timeout(INSPECT_PATIENCE, self.reader.inspect(&id)).await {
            Ok(Ok(Some(workload))) => self.container(id, generation, Depth::Full, workload).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(container = %id, error = %chain(&error), "cannot inspect; its facts are incomplete");
            }
            Err(_) => {
                tracing::warn!(container = %id, "Docker does not answer; its facts are incomplete")
            }
        }
    }

    async fn container(&self, id: String, generation: u64, depth: Depth, workload: Workload) {
        let workload = Box::new(workload);
        self.tell(Answer::Container { id, generation, depth, workload }).await;
    }

    /// The session is over when this fails, and the task with it.
    async fn tell(&self, answer: Answer) {
        let _ = self.answers.send(answer).await;
    }
}
