//! Owns following containerd: events first, then everything there is, and again after each loss of the connection.
//!
//! What matters most here is time: `/tasks/create` comes some milliseconds before the container's first instruction,
//! so it is told straight from the stream, before anything is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use containerd_client::events::{
    ContainerCreate, ContainerDelete, ContainerUpdate, TaskCreate, TaskDelete, TaskExit, TaskStart,
};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::tonic::{Response, Status};
use containerd_client::types::Envelope;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Connection, ContainerdError, ContainerdSource, Listing, ask, is_dockers, spec};
use crate::input::Text;
use crate::metadata::observation::{Observation, Source};
use crate::metadata::sequence::{Backoff, Depth, Sequence};
use crate::metadata::workload::{Workload, WorkloadId};

/// containerd confirms a subscription only with its first event, so there may be a moment between the first listing and the
/// subscription; a second listing this much later closes it.
const SECOND_LISTING: Duration = Duration::from_millis(250);

const TOPICS: [&str; 7] = [
    "/tasks/create",
    "/tasks/start",
    "/tasks/exit",
    "/tasks/delete",
    "/containers/create",
    "/containers/update",
    "/containers/delete",
];

impl ContainerdSource {
    /// Follows containerd until nobody listens to `tx` any more.
    ///
    /// Sends [`Observation::Tasks`] and [`Observation::Snapshot`] after each (re)connection, then what changes, and
    /// [`Observation::Down`] once per loss. A socket that is not there is told once and waited for.
    pub async fn watch(self, tx: mpsc::Sender<Observation>) {
        let mut backoff = Backoff::new();
        let mut last_error = None;
        while !tx.is_closed() {
            let mut session = Session::new(tx.clone());
            let error = match self.connect().await {
                Ok(connection) => match session.run(connection).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if session.is_listed {
                backoff = Backoff::new();
            }
            let error = chain(&error);
            // Said once, not at every attempt.
            if session.is_listed || last_error.as_ref() != Some(&error) {
                last_error = Some(error.clone());
                if tx.send(Observation::Down { source: Source::Containerd, error }).await.is_err() {
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
fn chain(error: &ContainerdError) -> Text {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    Text::new(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// What the tasks of a session bring back.
enum Answer {
    Container { key: String, generation: u64, workload: Box<Workload> },
    Listed(Result<Listing, ContainerdError>),
}

/// Nobody listens any more.
struct Closed;

/// One connection.
struct Session {
    tx: mpsc::Sender<Observation>,
    sequence: Sequence,
    /// What happened to first processes since listing began.
    created: BTreeMap<WorkloadId, u32>,
    exited: BTreeSet<(WorkloadId, u32)>,
    is_listed: bool,
    is_listed_twice: bool,
    /// Aborts all readings when the session ends.
    tasks: JoinSet<()>,
}

impl Session {
    fn new(tx: mpsc::Sender<Observation>) -> Self {
        Self {
            tx,
            sequence: Sequence::default(),
            created: BTreeMap::new(),
            exited: BTreeSet::new(),
            is_listed: false,
            is_listed_twice: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the connection is lost (an error) or nobody listens any more.
    async fn run(&mut self, connection: Connection) -> Result<(), ContainerdError> {
        let (answers_tx, mut answers) = mpsc::channel(64);
        let reader = Reader { connection, answers: answers_tx };
        let events = events(&reader.connection);
        tokio::pin!(events);
        self.list(&reader, Duration::ZERO);
        loop {
            // Each arm is cancel-safe: a channel's and a stream's next item stays where it is.
            let told = tokio::select! {
                biased;
                envelope = events.next() => match envelope {
                    Some(Ok(envelope)) => self.event(&reader, envelope).await,
                    Some(Err(source)) => return Err(ask("follow the events", source)),
                    None => return Err(ContainerdError::StreamEnded),
                },
                Some(answer) = answers.recv() => self.answer(&reader, answer).await?,
                Some(_) = self.tasks.join_next() => Ok(()),
                () = self.tx.closed() => return Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }

    fn list(&mut self, reader: &Reader, after: Duration) {
        let reader = reader.clone();
        // The second listing begins later, but what happens until then is only newer than it.
        self.sequence.begin_listing();
        self.created.clear();
        self.exited.clear();
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            let listing = reader.connection.list().await;
            reader.tell(Answer::Listed(listing)).await;
        });
    }

    async fn event(&mut self, reader: &Reader, envelope: Envelope) -> Result<(), Closed> {
        let Envelope { namespace, topic, event, .. } = envelope;
        let Some(mut event) = event else { return Ok(()) };
        // containerd writes the bare name of the type; decoding wants a URL.
        event.type_url.insert(0, '/');
        let id = match topic.as_str() {
            "/tasks/create" => {
                let Ok(TaskCreate { container_id, pid, .. }) = event.to_msg() else {
                    return Ok(());
                };
                self.task_created(&namespace, &container_id, pid).await?;
                container_id
            }
            "/tasks/start" => {
                let Ok(TaskStart { container_id, pid }) = event.to_msg() else { return Ok(()) };
                self.task_created(&namespace, &container_id, pid).await?;
                container_id
            }
            "/tasks/exit" => {
                let Ok(TaskExit { container_id, id, pid, .. }) = event.to_msg() else {
                    return Ok(());
                };
                // The end of an exec says nothing of the container.
                if id != container_id {
                    return Ok(());
                }
                self.task_exited(&namespace, &container_id, pid).await?;
                container_id
            }
            "/tasks/delete" => {
                let Ok(TaskDelete { container_id, id, pid, .. }) = event.to_msg() else {
                    return Ok(());
                };
                if !id.is_empty() && id != container_id {
                    return Ok(());
                }
                self.task_exited(&namespace, &container_id, pid).await?;
                container_id
            }
            "/containers/create" => {
                event.to_msg().map(|e: ContainerCreate| e.id).unwrap_or_default()
            }
            "/containers/update" => {
                event.to_msg().map(|e: ContainerUpdate| e.id).unwrap_or_default()
            }
            "/containers/delete" => {
                let id = event.to_msg().map(|e: ContainerDelete| e.id).unwrap_or_default();
                // Docker deletes its container here whenever it stops.
                if !is_dockers(&namespace) {
                    self.sequence.remove(&key(&namespace, &id));
                    self.send(Observation::Removed(spec::identity(&namespace, &id))).await?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if !is_dockers(&namespace) && !id.is_empty() {
            self.read(reader, namespace, id);
        }
        Ok(())
    }

    async fn task_created(&mut self, namespace: &str, id: &str, pid: u32) -> Result<(), Closed> {
        let id = spec::identity(namespace, id);
        self.send(Observation::TaskCreated { id: id.clone(), pid }).await?;
        self.created.insert(id, pid);
        Ok(())
    }

    async fn task_exited(&mut self, namespace: &str, id: &str, pid: u32) -> Result<(), Closed> {
        let id = spec::identity(namespace, id);
        self.send(Observation::TaskExited { id: id.clone(), pid }).await?;
        if self.created.get(&id) == Some(&pid) {
            self.created.remove(&id);
        }
        if !self.is_listed_twice {
            self.exited.insert((id, pid));
        }
        Ok(())
    }

    fn read(&mut self, reader: &Reader, namespace: String, id: String) {
        let key = key(&namespace, &id);
        let generation = self.sequence.begin(&key);
        let reader = reader.clone();
        self.tasks.spawn(async move {
            match reader.connection.read(&namespace, &id).await {
                Ok(Some(workload)) => {
                    let workload = Box::new(workload);
                    reader.tell(Answer::Container { key, generation, workload }).await;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(container = %Text::new(&key), error = %chain(&error), "cannot read"),
            }
        });
    }

    async fn answer(
        &mut self,
        reader: &Reader,
        answer: Answer,
    ) -> Result<Result<(), Closed>, ContainerdError> {
        Ok(match answer {
            Answer::Container { key, generation, workload } => {
                match self.sequence.accept(&key, generation, Depth::Full, *workload) {
                    Some(workload) => self.send(Observation::Upsert(Box::new(workload))).await,
                    None => Ok(()),
                }
            }
            Answer::Listed(listing) => {
                let told = self.listed(listing?).await;
                if self.is_listed {
                    self.is_listed_twice = true;
                } else {
                    self.list(reader, SECOND_LISTING);
                }
                self.is_listed = true;
                told
            }
        })
    }

    async fn listed(&mut self, listing: Listing) -> Result<(), Closed> {
        let mut tasks = listing.tasks;
        tasks.retain(|id, pid| !self.exited.contains(&(id.clone(), *pid)));
        tasks.append(&mut self.created);
        let keyed = listing.workloads.into_iter().map(|workload| (key_of(&workload), workload));
        let workloads = self.sequence.finish_listing(keyed.collect());
        let undecided = listing.undecided;
        self.send(Observation::Tasks { running: tasks, undecided }).await?;
        self.send(Observation::Snapshot { source: Source::Containerd, workloads }).await
    }

    async fn send(&self, observation: Observation) -> Result<(), Closed> {
        self.tx.send(observation).await.map_err(|_| Closed)
    }
}

/// What a workload is known by within a session: its identity.
fn key(namespace: &str, id: &str) -> String {
    spec::identity(namespace, id).as_str().to_owned()
}

fn key_of(workload: &Workload) -> String {
    workload.id.as_str().to_owned()
}

/// The stream of events of all namespaces. It is asked for when it is first polled.
fn events(connection: &Connection) -> impl Stream<Item = Result<Envelope, Status>> + use<> {
    let mut client = EventsClient::new(connection.channel.clone());
    let filters = TOPICS.iter().map(|topic| format!("topic==\"{topic}\"")).collect();
    let subscription = async move {
        client.subscribe(SubscribeRequest { filters }).await.map(Response::into_inner)
    };
    stream::once(subscription).try_flatten()
}

/// What a task needs to ask and to answer.
#[derive(Clone)]
struct Reader {
    connection: Connection,
    answers: mpsc::Sender<Answer>,
}

impl Reader {
    /// The session is over when this fails, and the task with it.
    async fn tell(&self, answer: Answer) {
        let _ = self.answers.send(answer).await;
    }
}
