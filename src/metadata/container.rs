//! Owns turning one Docker container object (`GET /containers/ID/json`, `docker inspect`) into a [`Workload`].
//!
//! Source of the format: Docker Engine API reference, `ContainerInspect`, versions 1.41 to 1.53.
//! Pure. Fields that are missing or of the wrong type read as not known; everything read goes through [`Text`]
//! (security model 7: input is hostile).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::image::{ImageFacts, ImageRef};
use super::json::{at, entries, flag, parsed_keys, text, text_map, texts};
use super::observation::NetworkFacts;
use super::port::{self, Ports};
use super::workload::{
    Attachment, Capabilities, NetnsRef, NetworkKey, NetworkMode, PublishedPort, Runtime, State,
    Workload, WorkloadId,
};
use super::{affiliation, command, wires};
use crate::input::Text;

const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// What a container object does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Who runs the container. The pid of a container read from a file belongs to another time or host and is not kept.
    pub runtime: &'a Runtime,
    /// The resolvers of containers that have none of their own.
    pub resolvers: &'a BTreeSet<IpAddr>,
    /// Image objects (`docker image inspect`) by image id.
    pub images: &'a BTreeMap<String, Value>,
    /// The networks known.
    pub networks: &'a [NetworkFacts],
}

/// Why an object is no container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// None of a container's own fields is there.
    #[error("this is no container: it has none of HostConfig, NetworkSettings, State and Config")]
    NotAContainer,
    /// Neither `Id` nor `Name`.
    #[error("the container has neither Id nor Name")]
    Unidentified,
}

/// Reads one container object. `container:x` network modes are kept as they are written: see [`resolve_shared`].
pub fn workload(object: &Value, around: Surroundings<'_>) -> Result<Workload, ContainerError> {
    let is_container = ["HostConfig", "NetworkSettings", "State", "Config"]
        .iter()
        .any(|field| at(object, &[field]).is_object());
    if !is_container {
        return Err(ContainerError::NotAContainer);
    }
    let name = text(object, &["Name"]).trim_start_matches('/');
    let id = match text(object, &["Id"]) {
        "" if name.is_empty() => return Err(ContainerError::Unidentified),
        "" => WorkloadId::new(&format!("file:{name}")),
        id => WorkloadId::new(id),
    };
    let name = if name.is_empty() { Text::new(id.short()) } else { Text::new(name) };
    let mut workload = Workload::new(id, name, around.runtime.clone());
    workload.image = image(object, around.images);
    workload.labels = text_map(object, &["Config", "Labels"]);
    (workload.project, workload.service) = affiliation::of(&workload);
    wires_of(object, around, &mut workload);
    workload.network_mode = network_mode(text(object, &["HostConfig", "NetworkMode"]));
    workload.capabilities = capabilities(
        flag(object, &["HostConfig", "Privileged"]),
        texts(object, &["HostConfig", "CapAdd"]),
        texts(object, &["HostConfig", "CapDrop"]),
    );
    let own_resolvers = addresses(texts(object, &["HostConfig", "Dns"]));
    workload.resolvers =
        if own_resolvers.is_empty() { around.resolvers.clone() } else { own_resolvers };
    life(object, &mut workload);
    if workload.network_mode == NetworkMode::Own {
        workload.networks = networks(object, &workload, around.networks);
        workload.published = published(object, &workload);
    }
    Ok(workload)
}

/// Replaces what `container:x` modes say (an id, a part of one, or a name) with the identity of the workload meant.
/// What fits none stays as it is written.
pub fn resolve_shared(workloads: &mut [Workload]) {
    let known: Vec<_> = workloads.iter().map(|one| (one.id.clone(), one.name.clone())).collect();
    for workload in workloads {
        if let NetworkMode::Container(wanted) = &mut workload.network_mode {
            let wanted_text = wanted.as_str();
            let is_part = |id: &WorkloadId| {
                wanted_text.len() >= 12
                    && wanted_text.bytes().all(|b| b.is_ascii_hexdigit())
                    && id.as_str().starts_with(wanted_text)
            };
            let found = known
                .iter()
                .find(|(id, _)| id == wanted)
                .or_else(|| known.iter().find(|(_, name)| name == wanted_text))
                .or_else(|| known.iter().find(|(id, _)| is_part(id)));
            if let Some((id, _)) = found {
                *wanted = id.clone();
            }
        }
    }
}

/// Docker's `NetworkMode` string.
pub(crate) fn network_mode(written: &str) -> NetworkMode {
    match (written, written.strip_prefix("container:")) {
        ("none", _) => NetworkMode::None,
        ("host", _) => NetworkMode::Host,
        (_, Some(other)) => NetworkMode::Container(WorkloadId::new(other)),
        _ => NetworkMode::Own,
    }
}

/// What of Docker's default capabilities is left after adding and dropping. Names go with or without `CAP_`, in any case.
pub(crate) fn capabilities<'a>(
    is_privileged: bool,
    add: impl Iterator<Item = &'a str>,
    drop: impl Iterator<Item = &'a str>,
) -> Capabilities {
    let canonical = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
    };
    let add: BTreeSet<_> = add.map(canonical).collect();
    let drop: BTreeSet<_> = drop.map(canonical).collect();
    let holds = |name: &str, is_default: bool| {
        is_privileged
            || add.contains(name)
            || (!drop.contains(name)
                && (add.contains("ALL") || (is_default && !drop.contains("ALL"))))
    };
    Capabilities {
        privileged: is_privileged,
        net_admin: holds("NET_ADMIN", false),
        net_raw: holds("NET_RAW", true),
    }
}

/// The texts that are addresses.
pub(crate) fn addresses<'a>(written: impl Iterator<Item = &'a str>) -> BTreeSet<IpAddr> {
    written.filter_map(|address| address.parse().ok()).collect()
}

fn image(object: &Value, images: &BTreeMap<String, Value>) -> ImageFacts {
    let id = text(object, &["Image"]);
    let known = images.get(id).unwrap_or(&Value::Null);
    let mut reference: Option<ImageRef> = text(object, &["Config", "Image"]).parse().ok();
    if let Some(reference) = &mut reference
        && reference.digest.is_none()
    {
        reference.digest = repo_digest(known, reference);
    }
    let mut exposed: BTreeSet<Ports> = parsed_keys(object, &["Config", "ExposedPorts"]);
    exposed.extend(parsed_keys::<Ports>(known, &["Config", "ExposedPorts"]));
    ImageFacts {
        reference,
        id: (!id.is_empty()).then(|| Text::new(id)),
        labels: (!known.is_null()).then(|| text_map(known, &["Config", "Labels"])),
        exposed: port::declared(exposed),
        entrypoint: command::redacted(texts(object, &["Config", "Entrypoint"])),
        cmd: command::redacted(texts(object, &["Config", "Cmd"])),
    }
}

/// The digest under which the image was pulled from the repository the reference names.
fn repo_digest(image: &Value, reference: &ImageRef) -> Option<String> {
    texts(image, &["RepoDigests"])
        .filter_map(|digest| digest.parse::<ImageRef>().ok())
        .find(|digest| {
            digest.registry == reference.registry && digest.repository == reference.repository
        })
        .and_then(|digest| digest.digest)
}

/// What the container talks to. An image's own variables and labels name nobody: who builds an image must not open
/// anything with it (security model 7).
fn wires_of(object: &Value, around: Surroundings<'_>, workload: &mut Workload) {
    let image = around.images.get(text(object, &["Image"]));
    let of_image: Option<BTreeSet<&str>> =
        image.map(|image| texts(image, &["Config", "Env"]).collect());
    for variable in texts(object, &["Config", "Env"]) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        workload.env_names.insert(Text::new(name));
        let is_of_container = match &of_image {
            Some(of_image) => !of_image.contains(variable),
            None => workload.runtime == Runtime::File,
        };
        if is_of_container {
            workload.wires.extend(wires::from_env(name, value));
        }
    }
    let own_links = texts(object, &["HostConfig", "Links"]);
    let network_links = entries(object, &["NetworkSettings", "Networks"])
        .flat_map(|(_, endpoint)| texts(endpoint, &["Links"]));
    workload.wires.extend(own_links.chain(network_links).filter_map(wires::from_link));
    // From the object itself: the label as it is kept may be cut.
    if affiliation::is_from_compose(workload, DEPENDS_ON) {
        let depends_on = text(object, &["Config", "Labels", DEPENDS_ON]);
        workload.wires.extend(wires::from_depends_on(depends_on));
    }
}

fn life(object: &Value, workload: &mut Workload) {
    let is = |field: &str| flag(object, &["State", field]);
    workload.state = match text(object, &["State", "Status"]) {
        "running" | "paused" => State::Running,
        "created" => State::Created,
        "" if (is("Running") || is("Paused")) && !is("Restarting") => State::Running,
        "" => State::Created,
        // Restarting means waiting for the next process; it has none now.
        _ => State::Exited,
    };
    let pid = at(object, &["State", "Pid"]).as_u64().and_then(|pid| u32::try_from(pid).ok());
    if let Some(pid @ 1..) = pid
        && workload.state == State::Running
        && workload.runtime != Runtime::File
    {
        workload.netns = Some(netns_of(pid));
    }
}

/// The netns of a process.
pub(crate) fn netns_of(pid: u32) -> NetnsRef {
    NetnsRef { pid, path: PathBuf::from(format!("/proc/{pid}/ns/net")), inode: None }
}

/// The inode of the netns that a process is in now; none when it has ended, or nobody may look.
pub fn netns_inode(pid: u32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(netns_of(pid).path).ok().map(|netns| netns.ino())
}

fn networks(
    object: &Value,
    workload: &Workload,
    known: &[NetworkFacts],
) -> BTreeMap<NetworkKey, Attachment> {
    let own_names = [Some(&workload.name), workload.service.as_ref()];
    let own_names: Vec<_> = own_names.into_iter().flatten().map(Text::as_str).collect();
    let mut networks = BTreeMap::new();
    for (name, endpoint) in entries(object, &["NetworkSettings", "Networks"]) {
        let id = text(endpoint, &["NetworkID"]);
        // Before its first start a container's endpoints have no network id yet.
        let facts = match id {
            "" => known.iter().find(|facts| facts.name == name),
            id => known.iter().find(|facts| facts.key.0 == id),
        };
        let key = match (facts, id) {
            (Some(facts), _) => facts.key.clone(),
            (None, "") => NetworkKey(Text::new(name)),
            (None, id) => NetworkKey(Text::new(id)),
        };
        // The name is Docker's own: no other network can be made with it.
        let is_default_bridge = name == "bridge" || facts.is_some_and(|f| f.is_default_bridge);
        let mut gateways = facts.map(|facts| facts.gateways.clone()).unwrap_or_default();
        gateways.extend(addresses(
            ["Gateway", "IPv6Gateway"].iter().map(|field| text(endpoint, &[field])),
        ));
        let own = ["IPAddress", "GlobalIPv6Address"].iter().map(|field| text(endpoint, &[field]));
        let aliases = texts(endpoint, &["Aliases"])
            .chain(texts(endpoint, &["DNSNames"]))
            .chain(own_names.iter().copied());
        networks.insert(
            key,
            Attachment {
                name: Text::new(name),
                driver: match facts {
                    Some(facts) => facts.driver.clone(),
                    None => is_default_bridge.then(|| Text::new("bridge")),
                },
                is_default_bridge,
                // An address is its owner's only while it runs (security model 3: no stale identity).
                addresses: match workload.state {
                    State::Running => addresses(own),
                    State::Created | State::Exited => BTreeSet::new(),
                },
                gateways,
                aliases: aliases.map(|alias| Text::new(&alias.to_ascii_lowercase())).collect(),
            },
        );
    }
    networks
}

fn published(object: &Value, workload: &Workload) -> BTreeSet<PublishedPort> {
    let mut published = BTreeSet::new();
    let mut bound = BTreeSet::new();
    if workload.state == State::Running {
        for (port, bindings) in entries(object, &["NetworkSettings", "Ports"]) {
            let Ok(container) = port.parse() else { continue };
            let before = published.len();
            published.extend(port_bindings(container, bindings));
            if published.len() > before {
                bound.insert(container);
            }
        }
    }
    for (port, bindings) in entries(object, &["HostConfig", "PortBindings"]) {
        if let Ok(container) = port.parse()
            && !bound.contains(&container)
        {
            published.extend(port_bindings(container, bindings));
            bound.insert(container);
        }
    }
    if flag(object, &["HostConfig", "PublishAllPorts"]) {
        let others = workload.image.exposed.iter().filter(|ports| !bound.contains(ports));
        published.extend(others.map(|ports| PublishedPort {
            container: *ports,
            host_ip: None,
            host_port: None,
        }));
    }
    published
}

fn port_bindings(container: Ports, bindings: &Value) -> impl Iterator<Item = PublishedPort> + '_ {
    bindings.as_array().into_iter().flatten().filter_map(move |binding| {
        let host_ip = host_ip(text(binding, &["HostIp"]))?;
        // A range of host ports (`8000-8010`) means that Docker chooses at start.
        let host_port = text(binding, &["HostPort"]).parse().ok().filter(|port| *port != 0);
        Some(PublishedPort { container, host_ip, host_port })
    })
}

/// The host address of a binding; `Some(None)` is every address. What is no address is no binding:
/// better too little open than too much.
pub(crate) fn host_ip(written: &str) -> Option<Option<IpAddr>> {
    match written {
        "" => Some(None),
        written => {
            let address: IpAddr = written.trim_matches(['[', ']']).parse().ok()?;
            Some((!address.is_unspecified()).then_some(address))
        }
    }
}
