//! Owns reading a compose file as the containers it would make.
//!
//! Pure: no environment, no other file. What needs those (`extends`, `include`, variables without defaults) is what
//! `docker compose config` resolves; problems say so. Source of the format: the Compose specification.
//! All problems of a file are reported at once, each with its place.

mod interpolate;
mod network;
mod ports;
mod service;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

pub use network::Placeholders;
use network::{Network, networks};
use service::{Mode, Service};
use yaml::{Node, Reader};

use super::container::resolve_shared;
use super::workload::{
    Attachment, NetworkKey, NetworkMode, Project, ProjectKind, Runtime, State, Workload, WorkloadId,
};
use crate::input::diagnostic::SourceFile;
use crate::input::{Diagnostics, Text};

/// What the file does not say itself.
#[derive(Debug)]
pub struct ComposeOptions<'a> {
    /// The project's name where the file has no `name`: usually the directory's; it is normalised as compose does.
    pub project: &'a str,
    /// The resolvers of services that have none of their own.
    pub resolvers: &'a BTreeSet<IpAddr>,
    /// Where containers get placeholder addresses from. With it the containers are as if running, without it as if created.
    pub placeholders: Option<&'a mut Placeholders>,
}

/// The containers of a compose file, in the order of service names, replicas in their order.
///
/// Problems have codes that begin with `compose/`.
pub fn parse(
    file: &Path,
    text: &str,
    options: ComposeOptions<'_>,
) -> Result<Vec<Workload>, Diagnostics> {
    let (mut reader, root) = Reader::parse(SourceFile { name: file, text });
    let Some(root) = root else { return Err(reader.problems) };
    check_root(&mut reader, &root);
    let written_name = reader.scalar(&root, "name").map(|(_, name)| name);
    let project = normalised_project(written_name.unwrap_or(options.project));
    if project.is_empty() {
        reader.problem_with_help(
            &root,
            "compose/no-project",
            "the project has no name",
            "give the file a top-level `name`",
        );
    }
    let mut networks = networks(&mut reader, &root, &project);
    let mut services = services(&mut reader, &root, &networks);
    settle_special_networks(&mut services, &networks);
    let is_running = options.placeholders.is_some();
    if let Some(placeholders) = options.placeholders {
        prepare(&mut reader, &services, &mut networks, placeholders);
    }
    let mut workloads = Vec::new();
    for service in &services {
        for replica in 1..=service.replicas {
            let mut workload = container(service, replica, &project, options.resolvers);
            if is_running {
                workload.state = State::Running;
            }
            attach(&mut reader, service, &mut networks, &mut workload);
            workloads.push(workload);
        }
    }
    resolve_shared(&mut workloads);
    reader.problems.into_result(workloads)
}

/// A project name as compose makes it of a directory's: lower case, only letters, digits, `_` and `-`,
/// the first no `_` or `-`.
pub fn normalised_project(name: &str) -> String {
    let kept: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

fn check_root(reader: &mut Reader<'_>, root: &Node) {
    const KEYS: [&str; 9] = [
        "version", "name", "services", "networks", "volumes", "configs", "secrets", "models",
        "include",
    ];
    for (key, _) in root.entries() {
        let name = key.as_str().unwrap_or_default();
        if name == "include" {
            reader.problem_with_help(
                key,
                "compose/include",
                "`include` is not resolved here",
                "use what `docker compose config` prints: it has everything resolved",
            );
        } else if !name.starts_with("x-") && !KEYS.contains(&name) {
            let message = format!("a compose file has no top-level key `{}`", Text::new(name));
            reader.problem(key, "compose/unknown-key", message);
        }
    }
    if root.get("services").is_none() && root.get("include").is_none() {
        reader.problem_with_help(
            root,
            "compose/no-services",
            "there are no services in this file",
            "a compose file has a top-level `services`",
        );
    }
}

fn services(
    reader: &mut Reader<'_>,
    root: &Node,
    networks: &BTreeMap<String, Network>,
) -> Vec<Service> {
    let entries = reader.map(root, "services");
    let names: BTreeSet<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).collect();
    let networks: BTreeSet<String> = networks.keys().cloned().collect();
    let mut services = Vec::new();
    for (key, node) in entries {
        if !matches!(node.content, yaml::Content::Map(_)) {
            reader.problem(key, "compose/wrong-type", "a service must be a mapping");
            continue;
        }
        services.push(service::service(reader, (key, node), &names, &networks));
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Networks that are Docker's own `host` and `none` under another name are no networks but modes.
fn settle_special_networks(services: &mut [Service], networks: &BTreeMap<String, Network>) {
    for service in services {
        let is_attached_to = |wanted: &str| {
            let named = service.connections.keys().filter_map(|key| networks.get(key));
            named.into_iter().any(|network| network.name == wanted)
        };
        let mode = match (is_attached_to("host"), is_attached_to("none")) {
            (true, _) => NetworkMode::Host,
            (_, true) => NetworkMode::None,
            _ => continue,
        };
        service.mode = Mode::Settled(mode);
        service.connections.clear();
    }
}

fn prepare(
    reader: &mut Reader<'_>,
    services: &[Service],
    networks: &mut BTreeMap<String, Network>,
    placeholders: &mut Placeholders,
) {
    for (key, network) in networks {
        let attached = services.iter().filter_map(|service| {
            service.connections.get(key).map(|connection| (service, connection))
        });
        let hosts: usize = attached.clone().map(|(service, _)| service.replicas).sum();
        if hosts > 0 {
            let fixed = attached.flat_map(|(_, connection)| connection.fixed.iter().copied());
            network.prepare(reader, placeholders, fixed, hosts);
        }
    }
}

/// The identity of one replica: `file:PROJECT/SERVICE`, with `-N` where there are several.
fn identity(project: &str, service: &str, replica: usize, replicas: usize) -> WorkloadId {
    let suffix = if replicas > 1 { format!("-{replica}") } else { String::new() };
    WorkloadId::new(&format!("file:{project}/{service}{suffix}"))
}

fn container(
    service: &Service,
    replica: usize,
    project: &str,
    resolvers: &BTreeSet<IpAddr>,
) -> Workload {
    let id = identity(project, &service.name, replica, service.replicas);
    let name = match &service.container_name {
        Some(name) => Text::new(name),
        None => Text::new(&format!("{project}-{}-{replica}", service.name)),
    };
    let mut workload = Workload::new(id, name, Runtime::File);
    workload.image = service.image.clone();
    workload.labels = service.labels.clone();
    // As compose will set them, so that selectors by label find the containers.
    for (key, value) in [
        ("com.docker.compose.project", project),
        ("com.docker.compose.service", service.name.as_str()),
        ("com.docker.compose.container-number", &replica.to_string()),
    ] {
        workload.labels.insert(Text::new(key), Text::new(value));
    }
    workload.env_names = service.env_names.clone();
    workload.wires = service.wires.clone();
    workload.project = Some(Project { kind: ProjectKind::Compose, name: Text::new(project) });
    workload.service = Some(Text::new(&service.name));
    workload.published = service.published.clone();
    workload.capabilities = service.capabilities.clone();
    workload.resolvers =
        if service.resolvers.is_empty() { resolvers.clone() } else { service.resolvers.clone() };
    workload.network_mode = match &service.mode {
        Mode::Settled(mode) => mode.clone(),
        Mode::DefaultBridge => NetworkMode::Own,
        // Compose takes the first container of the other service; `resolve_shared` finds it by name.
        Mode::Service(other) => {
            NetworkMode::Container(WorkloadId::new(&format!("{project}-{other}-1")))
        }
    };
    if workload.network_mode != NetworkMode::Own {
        workload.published.clear();
    }
    workload
}

fn attach(
    reader: &mut Reader<'_>,
    service: &Service,
    networks: &mut BTreeMap<String, Network>,
    workload: &mut Workload,
) {
    if service.mode == Mode::DefaultBridge {
        let bridge = attachment("bridge", Some(Text::new("bridge")), true);
        workload.networks.insert(NetworkKey(Text::new("bridge")), bridge);
        return;
    }
    for (key, connection) in &service.connections {
        let Some(network) = networks.get_mut(key) else { continue };
        let is_default_bridge = network.is_default_bridge();
        let mut attachment = attachment(&network.name, network.driver.clone(), is_default_bridge);
        if workload.state == State::Running {
            attachment.addresses = network.allocate(reader, &connection.fixed);
        }
        attachment.gateways = network.gateways.clone();
        let own = [Text::new(&service.name), workload.name.clone()];
        let own = own.iter().map(|name| Text::new(&name.as_str().to_ascii_lowercase()));
        attachment.aliases = connection.aliases.iter().cloned().chain(own).collect();
        workload.networks.insert(NetworkKey(Text::new(&network.name)), attachment);
    }
}

fn attachment(name: &str, driver: Option<Text>, is_default_bridge: bool) -> Attachment {
    Attachment {
        name: Text::new(name),
        driver,
        is_default_bridge,
        addresses: BTreeSet::new(),
        gateways: BTreeSet::new(),
        aliases: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests;
