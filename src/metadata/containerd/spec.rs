//! Owns turning what containerd says of a container (labels, image, OCI runtime spec) into a [`Workload`].
//!
//! Pure. Sources of the formats: OCI runtime specification 1.2 (`config.json`), nerdctl's and CRI's labels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::input::Text;
use crate::metadata::container::{addresses, host_ip, netns_of};
use crate::metadata::json::{at, text, texts};
use crate::metadata::workload::{
    Attachment, Capabilities, NetnsRef, NetworkKey, NetworkMode, PublishedPort, Runtime, State,
    Wire, Workload, WorkloadId,
};
use crate::metadata::{affiliation, command, wires};

/// What an OCI runtime spec says that facts are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFacts {
    /// Names of environment variables.
    pub env_names: BTreeSet<Text>,
    /// Whom environment values name.
    pub wires: BTreeSet<Wire>,
    /// The first words of the command line.
    pub args: Vec<Text>,
    /// Capabilities that any process in the container can come to have.
    pub capabilities: Capabilities,
    /// Which network namespace it gets.
    pub netns: SpecNetns,
}

/// The network namespace of an OCI runtime spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecNetns {
    /// A new one.
    Own,
    /// The one seawall itself is in: the host's.
    Host,
    /// One that exists already, at this path.
    At(PathBuf),
}

/// One containerd container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described<'a> {
    pub(super) namespace: &'a str,
    pub(super) id: &'a str,
    pub(super) image: &'a str,
    pub(super) labels: &'a BTreeMap<Text, Text>,
    pub(super) spec: &'a Value,
    /// The pid of its running task.
    pub(super) pid: Option<u32>,
    /// Whose task a pid is, to find the owner of a shared netns.
    pub(super) owners: &'a BTreeMap<u32, WorkloadId>,
    pub(super) resolvers: &'a BTreeSet<IpAddr>,
}

/// The identity of a container. Docker, nerdctl and CRI choose 64 hexadecimal digits at random; an id that a person chose
/// is only unique within its namespace, and is told as `NAMESPACE/ID`.
pub fn identity(namespace: &str, id: &str) -> WorkloadId {
    let is_random = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_random { WorkloadId::new(id) } else { WorkloadId::new(&format!("{namespace}/{id}")) }
}

/// Reads an OCI runtime spec. What is missing reads as nothing; without any `linux.namespaces` it shares the host's network.
pub fn facts(spec: &Value) -> SpecFacts {
    let mut env_names = BTreeSet::new();
    let mut wires = BTreeSet::new();
    for variable in texts(spec, &["process", "env"]) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        env_names.insert(Text::new(name));
        wires.extend(wires::from_env(name, value));
    }
    let sets = ["bounding", "permitted", "effective", "inheritable", "ambient"];
    let held: BTreeSet<&str> =
        sets.iter().flat_map(|set| texts(spec, &["process", "capabilities", set])).collect();
    let network = at(spec, &["linux", "namespaces"])
        .as_array()
        .into_iter()
        .flatten()
        .find(|namespace| text(namespace, &["type"]) == "network");
    SpecFacts {
        env_names,
        wires,
        args: command::redacted(texts(spec, &["process", "args"])),
        capabilities: Capabilities {
            // The spec has no such flag; no default profile grants this.
            privileged: held.contains("CAP_SYS_ADMIN") && held.contains("CAP_SYS_MODULE"),
            net_admin: held.contains("CAP_NET_ADMIN"),
            net_raw: held.contains("CAP_NET_RAW"),
        },
        netns: match network.map(|network| text(network, &["path"])) {
            None | Some("/proc/1/ns/net" | "/proc/self/ns/net") => SpecNetns::Host,
            Some("") => SpecNetns::Own,
            Some(path) => SpecNetns::At(PathBuf::from(path)),
        },
    }
}

/// The facts of a container outside Docker's namespace. Addresses are not known here: they are read from the netns.
pub(super) fn workload(described: Described<'_>) -> Workload {
    let label = |key: &str| described.labels.get(key).map(Text::as_str).filter(|v| !v.is_empty());
    let facts = facts(described.spec);
    let id = identity(described.namespace, described.id);
    let is_sandbox = label("io.cri-containerd.kind") == Some("sandbox");
    let name = label("nerdctl/name")
        .or_else(|| label("io.kubernetes.container.name"))
        .or_else(|| label("io.kubernetes.pod.name").filter(|_| is_sandbox))
        .unwrap_or(described.id);
    let runtime = Runtime::Containerd(Text::new(described.namespace));
    let mut workload = Workload::new(id, Text::new(name), runtime);
    workload.image.reference = described.image.parse().ok();
    workload.image.cmd = facts.args;
    workload.labels = described.labels.clone();
    workload.env_names = facts.env_names;
    workload.wires = facts.wires;
    // Labels of the image are among these, and which they are is not known here. Of a pod's container the kubelet wrote
    // its own labels over the image's, and no image can make the annotation (security model 7).
    let is_pods =
        !text(described.spec, &["annotations", "io.kubernetes.cri.container-type"]).is_empty();
    (workload.project, workload.service) = affiliation::from_labels(&workload.labels, |key| {
        is_pods && key.starts_with("io.kubernetes.pod.")
    });
    workload.capabilities = facts.capabilities;
    workload.network_mode = network_mode(&facts.netns, described);
    let dns: Value = parsed(label("nerdctl/dns"));
    let own = addresses(texts(&dns, &["DNSServers"]));
    workload.resolvers = if own.is_empty() { described.resolvers.clone() } else { own };
    if workload.network_mode == NetworkMode::Own {
        workload.networks = networks(&parsed(label("nerdctl/networks")), &workload);
        workload.published = published(&parsed(label("nerdctl/ports")));
    }
    if let Some(pid) = described.pid {
        workload.state = State::Running;
        workload.netns = Some(netns(pid, &facts.netns));
    }
    workload
}

fn network_mode(netns: &SpecNetns, described: Described<'_>) -> NetworkMode {
    let annotation = |key: &str| text(described.spec, &["annotations", key]);
    let sandbox = annotation("io.kubernetes.cri.sandbox-id");
    match netns {
        SpecNetns::Host => NetworkMode::Host,
        _ if annotation("io.kubernetes.cri.container-type") == "container"
            && !sandbox.is_empty() =>
        {
            NetworkMode::Container(identity(described.namespace, sandbox))
        }
        SpecNetns::Own => NetworkMode::Own,
        SpecNetns::At(path) => match pid_of(path).and_then(|pid| described.owners.get(&pid)) {
            Some(owner) if *owner != identity(described.namespace, described.id) => {
                NetworkMode::Container(owner.clone())
            }
            _ => NetworkMode::Own,
        },
    }
}

/// The pid in `/proc/PID/ns/net`.
fn pid_of(path: &Path) -> Option<u32> {
    path.to_str()?.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
}

/// A netns that CNI made has a name that outlives its first process.
fn netns(pid: u32, netns: &SpecNetns) -> NetnsRef {
    let named = match netns {
        SpecNetns::At(path) => Some(path).filter(|path| {
            ["/run/netns", "/var/run/netns"]
                .iter()
                .any(|folder| path.parent() == Some(Path::new(folder)))
        }),
        SpecNetns::Own | SpecNetns::Host => None,
    };
    let by_pid = netns_of(pid);
    NetnsRef { path: named.cloned().unwrap_or(by_pid.path), ..by_pid }
}

fn parsed(label: Option<&str>) -> Value {
    label.and_then(|label| serde_json::from_str(label).ok()).unwrap_or_default()
}

fn networks(names: &Value, workload: &Workload) -> BTreeMap<NetworkKey, Attachment> {
    let own_names = [Some(&workload.name), workload.service.as_ref()];
    let aliases: BTreeSet<Text> = own_names
        .into_iter()
        .flatten()
        .map(|name| Text::new(&name.as_str().to_ascii_lowercase()))
        .collect();
    let attachment = |name: &str| Attachment {
        name: Text::new(name),
        driver: None,
        is_default_bridge: name == "bridge",
        addresses: BTreeSet::new(),
        gateways: BTreeSet::new(),
        aliases: aliases.clone(),
    };
    texts(names, &[]).map(|name| (NetworkKey(Text::new(name)), attachment(name))).collect()
}

fn published(ports: &Value) -> BTreeSet<PublishedPort> {
    let port = |entry: &Value| {
        let number = |key: &str| at(entry, &[key]).as_u64().and_then(|n| u16::try_from(n).ok());
        let protocol = text(entry, &["Protocol"]).to_ascii_lowercase();
        let container = format!("{}/{protocol}", number("ContainerPort")?).parse().ok()?;
        let host_ip = host_ip(text(entry, &["HostIP"]))?;
        Some(PublishedPort {
            container,
            host_ip,
            host_port: number("HostPort").filter(|p| *p != 0),
        })
    };
    ports.as_array().into_iter().flatten().filter_map(port).collect()
}

/// A spec as containerd keeps it: JSON in a protobuf `Any`.
pub fn decoded(bytes: &[u8]) -> Value {
    serde_json::from_str(&String::from_utf8_lossy(bytes)).unwrap_or_else(|_| json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)], spec: &Value, pid: Option<u32>) -> Workload {
        let labels = labels.iter().map(|(k, v)| (Text::new(k), Text::new(v))).collect();
        let owners = BTreeMap::from([(7, WorkloadId::new("owner"))]);
        let resolvers = BTreeSet::from(["1.1.1.1".parse().unwrap()]);
        workload(Described {
            namespace: "ns",
            id: "c1",
            image: "docker.io/library/nginx:1.27",
            labels: &labels,
            spec,
            pid,
            owners: &owners,
            resolvers: &resolvers,
        })
    }

    fn spec(netns: &Value) -> Value {
        json!({"process": {"args": ["nginx", "-g", "daemon off;"], "env": ["DB_URL=postgres://u:hunter2@db:5432/x"],
            "capabilities": {"bounding": ["CAP_NET_RAW"]}},
            "linux": {"namespaces": [{"type": "pid"}, netns]}})
    }

    #[test]
    fn a_nerdctl_container_is_read() {
        let labels = [
            ("nerdctl/name", "web"),
            ("nerdctl/networks", r#"["bridge","shop"]"#),
            (
                "nerdctl/ports",
                r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"0.0.0.0"},{"x":1}]"#,
            ),
            ("nerdctl/dns", r#"{"DNSServers":["9.9.9.9"]}"#),
        ];
        let netns = json!({"type": "network", "path": "/var/run/netns/cni-1"});
        let web = read(&labels, &spec(&netns), Some(42));
        assert_eq!((web.id.as_str(), web.name.as_str()), ("ns/c1", "web"));
        assert_eq!(web.image.reference.as_ref().unwrap().repository, "nginx");
        assert_eq!(web.networks.len(), 2);
        assert!(web.networks[&NetworkKey("bridge".into())].is_default_bridge);
        assert_eq!(web.published.len(), 1);
        assert_eq!(web.resolvers, BTreeSet::from(["9.9.9.9".parse().unwrap()]));
        assert_eq!(web.netns.unwrap().path, Path::new("/var/run/netns/cni-1"));
        assert!(web.wires.iter().any(|wire| wire.host == "db" && wire.port == Some(5432)));
        assert!(web.capabilities.net_raw && !web.capabilities.net_admin);
    }

    #[test]
    fn the_netns_decides_the_network_mode() {
        let mode = |netns: Value| read(&[], &spec(&netns), Some(42)).network_mode;
        assert_eq!(mode(json!({"type": "network"})), NetworkMode::Own);
        assert_eq!(mode(json!({"type": "mount"})), NetworkMode::Host);
        assert_eq!(mode(json!({"type": "network", "path": "/proc/1/ns/net"})), NetworkMode::Host);
        let shared = mode(json!({"type": "network", "path": "/proc/7/ns/net"}));
        assert_eq!(shared, NetworkMode::Container(WorkloadId::new("owner")));
        let elsewhere = read(&[], &spec(&json!({"type": "network", "path": "/tmp/x"})), Some(42));
        assert_eq!(elsewhere.netns.unwrap().path, Path::new("/proc/42/ns/net"));
        assert_eq!(read(&[], &json!(null), None).network_mode, NetworkMode::Host);
    }

    #[test]
    fn a_pods_containers_live_in_their_sandbox() {
        let sandbox = "a".repeat(64);
        let mut spec = spec(&json!({"type": "network", "path": "/proc/9/ns/net"}));
        spec["annotations"] = json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox});
        let labels = [
            ("io.cri-containerd.kind", "container"),
            ("io.kubernetes.pod.namespace", "prod"),
            ("io.kubernetes.pod.name", "web-1"),
            ("io.kubernetes.container.name", "nginx"),
        ];
        let workload = read(&labels, &spec, Some(42));
        assert_eq!(workload.network_mode, NetworkMode::Container(WorkloadId::new(&sandbox)));
        assert_eq!(
            (workload.name.as_str(), workload.display_name().as_str()),
            ("nginx", "prod/web-1")
        );
    }

    #[test]
    fn an_odd_spec_reads_as_little() {
        for bytes in [&b"\xff"[..], b"[]", b"5", br#"{"process":5,"linux":{"namespaces":{}}}"#] {
            assert!(facts(&decoded(bytes)).env_names.is_empty());
        }
    }
}
