//! Owns [`Workload`]: one container, as facts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::image::ImageFacts;
use super::port::Ports;
use crate::input::Text;

/// A container's identity: Docker's 64 hexadecimal digits, containerd's id, or `file:NAME` for one read from a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct WorkloadId(Text);

impl WorkloadId {
    /// An identity as the runtime gives it.
    pub fn new(raw: &str) -> Self {
        Self(Text::new(raw))
    }

    /// The whole identity.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The first 12 characters, as Docker shows it.
    pub fn short(&self) -> &str {
        let end = self.as_str().char_indices().nth(12).map_or(self.as_str().len(), |(at, _)| at);
        &self.as_str()[..end]
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who runs the workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// containerd, in the named containerd namespace (never one of Docker's).
    Containerd(Text),
    /// Nobody yet: it was read from a saved inspect or a compose file.
    File,
}

/// What kind of thing groups workloads that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectKind {
    /// Compose project (label `com.docker.compose.project`).
    Compose,
    /// Swarm stack (label `com.docker.stack.namespace`).
    Swarm,
    /// Kubernetes namespace (label `io.kubernetes.pod.namespace`).
    Kubernetes,
}

/// The group a workload belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Project {
    /// Its kind.
    pub kind: ProjectKind,
    /// Its name.
    pub name: Text,
}

/// How a workload names another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WireVia {
    /// Compose `depends_on` (label `com.docker.compose.depends_on` on a running container).
    DependsOn,
    /// Docker `--link` or compose `links`.
    Link,
    /// The environment variable of this name holds a URL or `host:port` with this host.
    Env(Text),
}

/// A workload says that it talks to `host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Wire {
    /// A service name, container name, network alias or host name, in lower case.
    pub host: Text,
    /// The port, where one was written (URL-shaped values only).
    pub port: Option<u16>,
    /// Where it says so.
    pub via: WireVia,
}

/// A network's identity within one host: Docker's network id, or the name where no id is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NetworkKey(pub Text);

/// One network a workload is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The network's name (`shop_default`).
    pub name: Text,
    /// Docker's driver (`bridge`, `macvlan`, `overlay`…), where known.
    pub driver: Option<Text>,
    /// Whether this is Docker's shared default bridge, which relates nobody.
    pub is_default_bridge: bool,
    /// The workload's own addresses on it; empty while it is not running.
    pub addresses: BTreeSet<IpAddr>,
    /// The network's gateways: the host's addresses on a bridge network.
    pub gateways: BTreeSet<IpAddr>,
    /// Names it answers to there.
    pub aliases: BTreeSet<Text>,
}

impl Attachment {
    /// The addresses by which the host itself meets the workload here: the gateways, which on a bridge network are the
    /// host's own. On macvlan and ipvlan the gateway is somebody else's router, and the host has no address at all.
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let is_on_host =
            !self.driver.as_ref().is_some_and(|driver| *driver == "macvlan" || *driver == "ipvlan");
        self.gateways.iter().copied().filter(move |_| is_on_host)
    }
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PublishedPort {
    /// The container's port.
    pub container: Ports,
    /// The host address it is bound to; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` when it is chosen at start.
    pub host_port: Option<u16>,
}

/// How the container's network is set up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A netns of its own, attached to networks.
    Own,
    /// A netns of its own with nothing in it.
    None,
    /// The host's netns. Never filtered by seawall.
    Host,
    /// The netns of another container (`container:x`, Kubernetes pod sandbox).
    Container(WorkloadId),
}

/// What the container may do beyond an ordinary process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// `--privileged`.
    pub privileged: bool,
    /// May change its own network configuration, firewall included.
    pub net_admin: bool,
    /// May send raw packets.
    pub net_raw: bool,
}

/// Where the workload is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Exists; has no process.
    Created,
    /// Has a process (paused counts as running: it keeps its netns and addresses).
    Running,
    /// Its process has ended.
    Exited,
}

/// The kernel's network namespace of a running workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetnsRef {
    /// The pid of the container's first process, in seawall's pid namespace.
    pub pid: u32,
    /// A path to the namespace (`/proc/PID/ns/net`, `/var/run/docker/netns/…`).
    pub path: PathBuf,
    /// The namespace's inode number, once it was opened.
    pub inode: Option<u64>,
}

/// One container, as facts. No secret is in here: environment values are never kept, but for the host part of URL-shaped ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Identity.
    pub id: WorkloadId,
    /// Name (`shop-web-1`), without Docker's leading slash.
    pub name: Text,
    /// Who runs it.
    pub runtime: Runtime,
    /// Its image.
    pub image: ImageFacts,
    /// Container labels.
    pub labels: BTreeMap<Text, Text>,
    /// Names of environment variables.
    pub env_names: BTreeSet<Text>,
    /// Whom it says it talks to.
    pub wires: BTreeSet<Wire>,
    /// The group it belongs to.
    pub project: Option<Project>,
    /// Its service (compose, swarm) or pod (Kubernetes) within the project; replicas share it.
    pub service: Option<Text>,
    /// Networks by key.
    pub networks: BTreeMap<NetworkKey, Attachment>,
    /// Published ports.
    pub published: BTreeSet<PublishedPort>,
    /// The network mode.
    pub network_mode: NetworkMode,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// The resolvers its DNS queries end up at: its own `--dns`, else the host's (loopback ones left out, as Docker does).
    pub resolvers: BTreeSet<IpAddr>,
    /// Where it is in its life.
    pub state: State,
    /// Its network namespace, while it runs.
    pub netns: Option<NetnsRef>,
}

impl Workload {
    /// A workload of which only identity, name and runtime are known; sources fill in the rest.
    pub fn new(id: WorkloadId, name: Text, runtime: Runtime) -> Self {
        Self {
            id,
            name,
            runtime,
            image: ImageFacts::default(),
            labels: BTreeMap::new(),
            env_names: BTreeSet::new(),
            wires: BTreeSet::new(),
            project: None,
            service: None,
            networks: BTreeMap::new(),
            published: BTreeSet::new(),
            network_mode: NetworkMode::Own,
            capabilities: Capabilities::default(),
            resolvers: BTreeSet::new(),
            state: State::Created,
            netns: None,
        }
    }

    /// What operators call it: `project/service`, or the name where there is no project.
    pub fn display_name(&self) -> Text {
        match (&self.project, &self.service) {
            (Some(project), Some(service)) => Text::new(&format!("{}/{service}", project.name)),
            (Some(project), None) => Text::new(&format!("{}/{}", project.name, self.name)),
            (None, _) => self.name.clone(),
        }
    }

    /// All its addresses on all networks.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.networks.values().flat_map(|attachment| attachment.addresses.iter().copied())
    }

    /// A container label's value, if it is certain that whoever started the container wrote it.
    ///
    /// Runtimes merge an image's labels into the container's, so a label the image carries was written by whoever
    /// made the image; where the image's own labels are not known, nothing is certain (security model 7).
    /// A file read for a dry run is taken as it is.
    pub fn operator_label(&self, key: &str) -> Option<&Text> {
        let value = self.label(key)?;
        let is_certain = match &self.image.labels {
            Some(of_image) => of_image.get(key) != Some(value),
            None => self.runtime == Runtime::File,
        };
        is_certain.then_some(value)
    }

    /// A container label's value.
    pub fn label(&self, key: &str) -> Option<&Text> {
        self.labels.get(key)
    }
}
