//! Owns containerd as a source of facts: where its API is, and one reading of everything.
//!
//! Docker's own containers live in a containerd namespace of theirs (`moby`). Of those only the first processes are told: Docker
//! describes them better. `watch` follows containerd, `spec` turns what it says into facts.

pub mod spec;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    Container, GetContainerRequest, ListContainersRequest, ListNamespacesRequest, ListTasksRequest,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{self, Code, Request, Status};
use containerd_client::types::v1::Process;

use super::container::netns_inode;
use super::workload::{Workload, WorkloadId};
use crate::input::Text;
use spec::{Described, SpecFacts};

/// Whether a containerd namespace has Docker's containers: `moby`, or with `userns-remap` `moby-UID.GID`, where root is the
/// host's user UID (as Docker 26.1 does). A name that `dockerd --containerd-namespace` was given is not known.
fn is_dockers(namespace: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match namespace.strip_prefix("moby") {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('-')
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(user, group)| is_number(user) && is_number(group)),
        None => false,
    }
}

/// Where dockerd runs a containerd of its own.
const DOCKERS_OWN: &str = "/var/run/docker/containerd/containerd.sock";

/// Lists carry every container's whole spec.
const MAX_ANSWER: usize = 256 << 20;

/// `containerd.v1.types.Status` of a task whose process has ended. In all others it has its netns.
const STOPPED: i32 = 3;

/// Why containerd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// There is no socket.
    #[error("there is no containerd socket at {} nor at {DOCKERS_OWN}", .0.display())]
    NoSocket(PathBuf),
    /// No connection.
    #[error("cannot connect to containerd at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A request failed.
    #[error("cannot {action} of containerd")]
    Ask {
        /// What was asked: `list the tasks`.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<Status>,
    },
    /// The event stream ended.
    #[error("the stream of containerd's events ended")]
    StreamEnded,
}

/// containerd at one address. Nothing is connected until it is asked.
#[derive(Clone, Debug)]
pub struct ContainerdSource {
    address: PathBuf,
    resolvers: BTreeSet<IpAddr>,
}

/// Everything containerd runs now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The containers that are not Docker's.
    pub workloads: Vec<Workload>,
    /// The first process of every running container, Docker's among them.
    pub tasks: BTreeMap<WorkloadId, u32>,
    /// Docker's containers of whose process containerd cannot tell now: their shims do not answer while the runtime
    /// is starting them.
    pub undecided: BTreeSet<WorkloadId>,
}

impl ContainerdSource {
    /// containerd at the socket `address`, or at that of Docker's own when there is none at `address`.
    /// Containers without resolvers of their own have `resolvers`.
    pub fn new(address: impl Into<PathBuf>, resolvers: BTreeSet<IpAddr>) -> Self {
        Self { address: address.into(), resolvers }
    }

    /// The socket to use now.
    fn socket(&self) -> Result<&Path, ContainerdError> {
        [self.address.as_path(), Path::new(DOCKERS_OWN)]
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| ContainerdError::NoSocket(self.address.clone()))
    }

    /// Everything there is now, in all namespaces.
    pub async fn list(&self) -> Result<Listing, ContainerdError> {
        self.connect().await?.list().await
    }

    /// Its version, and the socket it answers on.
    pub async fn version(&self) -> Result<(PathBuf, Text), ContainerdError> {
        let path = self.socket()?.to_owned();
        let mut client = VersionClient::new(self.connect().await?.channel);
        let answer = client.version(()).await.map_err(|source| ask("ask the version", source))?;
        Ok((path, Text::new(&answer.into_inner().version)))
    }

    /// What the OCI spec of one container says, a Docker container's too: containerd answers while Docker is
    /// starting it. None when there is no such container.
    pub async fn spec_facts(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<SpecFacts>, ContainerdError> {
        let container = self.connect().await?.container(namespace, id).await?;
        Ok(container.map(|container| spec::facts(&spec_of(&container))))
    }

    async fn connect(&self) -> Result<Connection, ContainerdError> {
        let path = self.socket()?;
        let failed = |source| ContainerdError::Connect { path: path.to_owned(), source };
        let channel = containerd_client::connect(path).await.map_err(failed)?;
        Ok(Connection { channel, resolvers: self.resolvers.clone() })
    }
}

/// One connection.
#[derive(Clone, Debug)]
struct Connection {
    channel: Channel,
    resolvers: BTreeSet<IpAddr>,
}

impl Connection {
    async fn list(&self) -> Result<Listing, ContainerdError> {
        let namespaces = NamespacesClient::new(self.channel.clone())
            .list(ListNamespacesRequest::default())
            .await
            .map_err(|source| ask("list the namespaces", source))?
            .into_inner()
            .namespaces;
        let mut listing = Listing::default();
        for namespace in namespaces {
            let namespace = namespace.name;
            let known = self.tasks(&namespace).await?;
            let containers = self.containers(&namespace).await?;
            let tasks = living(&known);
            if is_dockers(&namespace) {
                // Docker deletes a container here when it ends: one without a task is on its way up or down.
                let undecided = containers.iter().filter(|one| !known.contains_key(&one.id));
                let undecided = undecided.map(|one| spec::identity(&namespace, &one.id));
                listing.undecided.extend(undecided);
            } else {
                let owners: BTreeMap<_, _> =
                    tasks.iter().map(|(id, pid)| (*pid, spec::identity(&namespace, id))).collect();
                for container in containers {
                    let pid = tasks.get(&container.id).copied();
                    listing.workloads.push(self.workload(&namespace, &container, pid, &owners));
                }
            }
            let of_namespace =
                tasks.into_iter().map(|(id, pid)| (spec::identity(&namespace, &id), pid));
            listing.tasks.extend(of_namespace);
        }
        Ok(listing)
    }

    /// One container outside Docker's namespace; none when there is no such container.
    async fn read(&self, namespace: &str, id: &str) -> Result<Option<Workload>, ContainerdError> {
        let Some(container) = self.container(namespace, id).await? else { return Ok(None) };
        let tasks = living(&self.tasks(namespace).await?);
        let owners = tasks.iter().map(|(id, pid)| (*pid, spec::identity(namespace, id))).collect();
        Ok(Some(self.workload(namespace, &container, tasks.get(id).copied(), &owners)))
    }

    fn workload(
        &self,
        namespace: &str,
        container: &Container,
        pid: Option<u32>,
        owners: &BTreeMap<u32, WorkloadId>,
    ) -> Workload {
        let labels = container.labels.iter();
        let labels = labels.map(|(key, value)| (Text::new(key), Text::new(value))).collect();
        let mut workload = spec::workload(Described {
            namespace,
            id: &container.id,
            image: &container.image,
            labels: &labels,
            spec: &spec_of(container),
            pid,
            owners,
            resolvers: &self.resolvers,
        });
        if let Some(netns) = &mut workload.netns {
            netns.inode = netns_inode(netns.pid);
        }
        workload
    }

    async fn container(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Container>, ContainerdError> {
        let request = within(namespace, GetContainerRequest { id: id.to_owned() })?;
        match ContainersClient::new(self.channel.clone()).get(request).await {
            Ok(answer) => Ok(answer.into_inner().container),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(source) => Err(ask("get a container", source)),
        }
    }

    async fn containers(&self, namespace: &str) -> Result<Vec<Container>, ContainerdError> {
        let request = within(namespace, ListContainersRequest::default())?;
        let answer = ContainersClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .list(request)
            .await
            .map_err(|source| ask("list the containers", source))?;
        Ok(answer.into_inner().containers)
    }

    /// The first process of each container: its pid, or none when it has ended.
    async fn tasks(
        &self,
        namespace: &str,
    ) -> Result<BTreeMap<String, Option<u32>>, ContainerdError> {
        let request = within(namespace, ListTasksRequest::default())?;
        let answer = TasksClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .list(request)
            .await
            .map_err(|source| ask("list the tasks", source))?;
        let pid = |task: &Process| Some(task.pid).filter(|_| task.status != STOPPED);
        // Of a first process containerd tells the container's id as the process's, the other field is empty.
        let id = |task: &Process| match task.container_id.as_str() {
            "" => task.id.clone(),
            id => id.to_owned(),
        };
        // Without a pid it is one whose shim does not answer in time, because the runtime is starting it.
        let told = answer.into_inner().tasks.into_iter().filter(|task| task.pid != 0);
        Ok(told.map(|task| (id(&task), pid(&task))).collect())
    }
}

/// The pids of those that live.
fn living(tasks: &BTreeMap<String, Option<u32>>) -> BTreeMap<String, u32> {
    tasks.iter().filter_map(|(id, pid)| Some((id.clone(), (*pid)?))).collect()
}

fn spec_of(container: &Container) -> serde_json::Value {
    spec::decoded(container.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default())
}

/// A request in a containerd namespace.
fn within<T>(namespace: &str, message: T) -> Result<Request<T>, ContainerdError> {
    let mut request = Request::new(message);
    let namespace = namespace
        .parse()
        .map_err(|_| ask("name a namespace", Status::invalid_argument("not ASCII")))?;
    request.metadata_mut().insert("containerd-namespace", namespace);
    Ok(request)
}

fn ask(action: &'static str, source: Status) -> ContainerdError {
    ContainerdError::Ask { action, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_namespaces_are_known_with_and_without_users_of_their_own() {
        for namespace in ["moby", "moby-100000.100000", "moby-0.1"] {
            assert!(is_dockers(namespace), "{namespace}");
        }
        for namespace in [
            "",
            "k8s.io",
            "default",
            "mobydick",
            "moby-",
            "moby-1",
            "moby-1.",
            "moby-a.b",
            "plugins.moby",
        ] {
            assert!(!is_dockers(namespace), "{namespace}");
        }
    }
}
