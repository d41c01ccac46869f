//! Owns one service of a compose file: what it says, as the facts each of its containers has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::network::address;
use super::ports;
use super::yaml::{Content, Node, Reader};
use crate::input::Text;
use crate::metadata::image::ImageFacts;
use crate::metadata::port::Ports;
use crate::metadata::workload::{NetworkMode, Wire, WireVia};
use crate::metadata::{Capabilities, ImageRef, PublishedPort, WorkloadId, container, wires};

/// Keys a service may have (Compose specification, "Services"), besides `x-…`.
const KEYS: [&str; 94] = [
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec",
    "depends_on",
    "deploy",
    "develop",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extends",
    "external_links",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation",
    "label_file",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_start",
    "pre_stop",
    "privileged",
    "profiles",
    "provider",
    "pull_policy",
    "pull_refresh_after",
    "read_only",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket",
    "user",
    "userns_mode",
    "uts",
    "volume_driver",
    "volumes",
    "volumes_from",
    "working_dir",
];

/// More containers of one service than any host runs.
const MAX_REPLICAS: usize = 4096;

/// How a service is attached to one network.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    pub(super) aliases: BTreeSet<Text>,
    /// Addresses written in the file.
    pub(super) fixed: Vec<IpAddr>,
}

/// One service, read.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) container_name: Option<String>,
    pub(super) replicas: usize,
    pub(super) image: ImageFacts,
    pub(super) labels: BTreeMap<Text, Text>,
    pub(super) env_names: BTreeSet<Text>,
    pub(super) wires: BTreeSet<Wire>,
    pub(super) published: BTreeSet<PublishedPort>,
    pub(super) mode: Mode,
    pub(super) capabilities: Capabilities,
    pub(super) resolvers: BTreeSet<IpAddr>,
    /// By the name of the network within the file.
    pub(super) connections: BTreeMap<String, Connection>,
}

/// `network_mode` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// None is written, or one that is settled already.
    Settled(NetworkMode),
    /// `bridge`: Docker's shared default bridge.
    DefaultBridge,
    /// `service:x`.
    Service(String),
}

/// Reads a service; `names` are all services of the file, `networks` all its networks.
pub(super) fn service(
    reader: &mut Reader<'_>,
    (key, node): (&Node, &Node),
    names: &BTreeSet<&str>,
    networks: &BTreeSet<String>,
) -> Service {
    let name = key.as_str().unwrap_or_default().to_owned();
    check_keys(reader, node);
    let published = ports::published(reader, node);
    let (env_names, mut wires) = environment(reader, node);
    wires.extend(relations(reader, node, names));
    let mode = mode(reader, node, names);
    let adds = reader.scalars(node, "cap_add");
    let drops = reader.scalars(node, "cap_drop");
    let capabilities = container::capabilities(
        reader.flag(node, "privileged"),
        adds.iter().map(|(_, name)| *name),
        drops.iter().map(|(_, name)| *name),
    );
    let dns = reader.scalars(node, "dns");
    let resolvers = dns.into_iter().filter_map(|(at, text)| address(reader, at, text)).collect();
    let container_name = reader.scalar(node, "container_name").map(|(_, name)| name.to_owned());
    let replicas = replicas(reader, node);
    if container_name.is_some() && replicas > 1 {
        reader.problem(
            key,
            "compose/conflict",
            "a service with a container_name cannot have replicas",
        );
    }
    Service {
        image: image(reader, node, &published),
        labels: reader
            .assignments(node, "labels")
            .into_iter()
            .map(|(key, value)| (Text::new(&key), Text::new(&value)))
            .collect(),
        connections: connections(reader, node, &mode, networks),
        name,
        container_name,
        replicas,
        env_names,
        wires,
        published,
        mode,
        capabilities,
        resolvers,
    }
}

fn check_keys(reader: &mut Reader<'_>, node: &Node) {
    for (key, _) in node.entries() {
        let name = key.as_str().unwrap_or_default();
        if name == "extends" {
            reader.problem_with_help(
                key,
                "compose/extends",
                "`extends` is not resolved here",
                "use what `docker compose config` prints: it has everything resolved",
            );
        } else if !name.starts_with("x-") && !KEYS.contains(&name) {
            let message = format!("a service has no key `{}`", Text::new(name));
            reader.problem(key, "compose/unknown-key", message);
        }
    }
}

fn image(reader: &mut Reader<'_>, node: &Node, published: &BTreeSet<PublishedPort>) -> ImageFacts {
    let mut image = ImageFacts::default();
    if let Some((at, written)) = reader.scalar(node, "image") {
        match written.parse::<ImageRef>() {
            Ok(reference) => image.reference = Some(reference),
            // A bare image id is allowed and tells nothing.
            Err(_)
                if written.trim_start_matches("sha256:").bytes().all(|b| b.is_ascii_hexdigit()) => {
            }
            Err(error) => reader.problem(at, "compose/invalid-image", error.to_string()),
        }
    }
    for (at, text) in reader.scalars(node, "expose") {
        match text.parse::<Ports>() {
            Ok(ports) => {
                image.exposed.insert(ports);
            }
            Err(error) => reader.problem(at, "compose/invalid-port", error.to_string()),
        }
    }
    // Docker exposes what is published.
    image.exposed.extend(published.iter().map(|port| port.container));
    let words = |reader: &mut Reader<'_>, key| {
        crate::metadata::command::redacted(
            reader.scalars(node, key).into_iter().map(|(_, word)| word),
        )
    };
    image.entrypoint = words(reader, "entrypoint");
    image.cmd = words(reader, "command");
    image
}

fn environment(reader: &mut Reader<'_>, node: &Node) -> (BTreeSet<Text>, BTreeSet<Wire>) {
    let variables = reader.assignments(node, "environment");
    let names = variables.iter().map(|(name, _)| Text::new(name)).collect();
    let wires = variables.iter().flat_map(|(name, value)| wires::from_env(name, value)).collect();
    (names, wires)
}

fn relations(reader: &mut Reader<'_>, node: &Node, names: &BTreeSet<&str>) -> Vec<Wire> {
    let mut wires = Vec::new();
    let depends_on: Vec<_> = match node.get("depends_on").map(Node::entries) {
        Some(entries) if !entries.is_empty() => entries
            .iter()
            .filter_map(|(key, on)| {
                let is_required = on.get("required").and_then(Node::as_str) != Some("false");
                Some((key, key.as_str()?, is_required))
            })
            .collect(),
        _ => reader
            .scalars(node, "depends_on")
            .into_iter()
            .map(|(at, name)| (at, name, true))
            .collect(),
    };
    let links = reader.scalars(node, "links").into_iter();
    let links = links.map(|(at, link)| (at, link.split(':').next().unwrap_or(link), true));
    let written = depends_on
        .into_iter()
        .map(|one| (one, WireVia::DependsOn))
        .chain(links.map(|one| (one, WireVia::Link)));
    for ((at, target, is_required), via) in written {
        if names.contains(target) {
            wires.push(Wire { host: Text::new(&target.to_ascii_lowercase()), port: None, via });
        } else if is_required {
            unknown_service(reader, at, target);
        }
    }
    let external = reader.scalars(node, "external_links");
    wires.extend(external.into_iter().filter_map(|(_, link)| wires::from_link(link)));
    wires
}

fn unknown_service(reader: &mut Reader<'_>, at: &Node, name: &str) {
    let message = format!("there is no service `{}` in this file", Text::new(name));
    reader.problem(at, "compose/unknown-service", message);
}

fn mode(reader: &mut Reader<'_>, node: &Node, names: &BTreeSet<&str>) -> Mode {
    let Some((at, written)) = reader.scalar(node, "network_mode") else {
        return Mode::Settled(NetworkMode::Own);
    };
    if node.get("networks").is_some_and(|networks| !networks.is_null()) {
        let message = "`network_mode` and `networks` exclude each other";
        reader.problem(at, "compose/conflict", message);
    }
    match (written, written.strip_prefix("service:"), written.strip_prefix("container:")) {
        ("none", ..) => Mode::Settled(NetworkMode::None),
        ("host", ..) => Mode::Settled(NetworkMode::Host),
        ("bridge" | "default", ..) => Mode::DefaultBridge,
        (_, Some(service), _) => {
            if !names.contains(service) {
                unknown_service(reader, at, service);
            }
            Mode::Service(service.to_owned())
        }
        (_, _, Some(other)) => Mode::Settled(NetworkMode::Container(WorkloadId::new(other))),
        _ => {
            reader.problem_with_help(
                at,
                "compose/network-mode",
                format!("`{}` is not a network mode", Text::new(written)),
                "use none, host, bridge, service:NAME or container:NAME, or list the network under `networks`",
            );
            Mode::Settled(NetworkMode::Own)
        }
    }
}

fn connections(
    reader: &mut Reader<'_>,
    node: &Node,
    mode: &Mode,
    networks: &BTreeSet<String>,
) -> BTreeMap<String, Connection> {
    let mut connections = BTreeMap::new();
    if *mode != Mode::Settled(NetworkMode::Own) {
        return connections;
    }
    let mut add = |reader: &mut Reader<'_>, at: &Node, name: &str, connection| {
        if !networks.contains(name) {
            reader.problem_with_help(
                at,
                "compose/unknown-network",
                format!("there is no network `{}` in this file", Text::new(name)),
                "declare it under the top-level `networks`",
            );
        }
        connections.insert(name.to_owned(), connection);
    };
    match node.get("networks").map(|networks| &networks.content) {
        Some(Content::Map(entries)) => {
            for (key, value) in entries {
                let mut connection = Connection::default();
                for (_, alias) in reader.scalars(value, "aliases") {
                    connection.aliases.insert(Text::new(&alias.to_ascii_lowercase()));
                }
                for family in ["ipv4_address", "ipv6_address"] {
                    if let Some((at, text)) = reader.scalar(value, family) {
                        connection.fixed.extend(address(reader, at, text));
                    }
                }
                add(reader, key, key.as_str().unwrap_or_default(), connection);
            }
        }
        _ => {
            for (at, name) in reader.scalars(node, "networks") {
                add(reader, at, name, Connection::default());
            }
        }
    }
    if node.get("networks").is_none_or(Node::is_null) {
        connections.insert("default".to_owned(), Connection::default());
    }
    connections
}

fn replicas(reader: &mut Reader<'_>, node: &Node) -> usize {
    let deployed = node.get("deploy").and_then(|deploy| deploy.get("replicas"));
    let Some(at) = deployed.or_else(|| node.get("scale")).filter(|at| !at.is_null()) else {
        return 1;
    };
    match at.as_str().map(str::parse::<usize>) {
        Some(Ok(count)) if count <= MAX_REPLICAS => count,
        // A variable without a default.
        _ if at.as_str() == Some("") => 1,
        _ => {
            let message = format!("replicas must be a number from 0 to {MAX_REPLICAS}");
            reader.problem(at, "compose/invalid-replicas", message);
            1
        }
    }
}
