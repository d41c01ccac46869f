//! Owns what this module's tests are made of: a small catalogue, workloads built in one line, and short questions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use super::evaluate::Packet;
use super::operator::{self, OperatorPolicy};
use super::statement::{Direction, Peer, Policy, PolicySet, Statement};
use super::verdict::{Endpoint, Verdict, test_connection};
use super::{Settings, generate};
use crate::input::Place;
use crate::input::diagnostic::SourceFile;
use crate::metadata::*;
use crate::model::catalogue::{Egress, EgressTarget};
use crate::model::*;

pub(crate) fn place(line: u32) -> Place {
    Place { file: "models.toml".into(), line, column: 1 }
}

/// `name category provides(service>audience…) uses egress`.
fn model(
    name: &str,
    category: &str,
    provides: &[(&str, &[&str])],
    uses: &[&str],
    egress: &[(EgressTarget, &str)],
    line: u32,
) -> Model {
    let audience = |text: &&str| match text.split_once(':') {
        Some(("category", name)) => Audience::Category(Category::new(name).unwrap()),
        Some(("model", name)) => Audience::Model(ModelName::new(name).unwrap()),
        _ => Audience::Any,
    };
    Model {
        name: ModelName::new(name).unwrap(),
        title: name.into(),
        category: Category::new(category).unwrap(),
        images: [name.parse().unwrap()].into(),
        base: false,
        distinctive: BTreeSet::new(),
        commands: BTreeSet::new(),
        env: BTreeSet::new(),
        provides: provides
            .iter()
            .map(|(service, to)| Provided {
                ports: BTreeSet::new(),
                service: ServiceName::new(service).unwrap(),
                to: to.iter().map(audience).collect(),
                place: place(line + 1),
            })
            .collect(),
        uses: uses.iter().map(|name| ServiceName::new(name).unwrap()).collect(),
        egress: egress
            .iter()
            .map(|(to, ports)| Egress {
                to: *to,
                ports: ports.split(' ').map(|text| text.parse().unwrap()).collect(),
                place: place(line + 2),
            })
            .collect(),
        routes: name == "wireguard",
        source: "https://example.org".into(),
        place: place(line),
    }
}

pub(crate) fn catalogue() -> Catalogue {
    let services = [
        ("postgresql", "5432/tcp"),
        ("http", "80/tcp 443/tcp"),
        ("redis", "6379/tcp"),
        ("smtp", "25/tcp"),
        ("wireguard", "51820/udp"),
        ("ftp", "21/tcp"),
        ("tftp", "69/udp"),
    ];
    let any: &[&str] = &["any"];
    let to_app: &[&str] = &["category:application", "model:pgadmin"];
    let models = [
        model("nginx", "proxy", &[("http", any)], &["exposed", "http"], &[], 10),
        model("node", "application", &[("exposed", any)], &[], &[], 20),
        model("postgres", "database", &[("postgresql", to_app)], &["postgresql"], &[], 30),
        model("pgadmin", "tool", &[("http", any)], &["postgresql"], &[], 40),
        model("redis", "cache", &[("redis", &["category:application"])], &[], &[], 50),
        model(
            "postfix",
            "mail",
            &[("smtp", any)],
            &[],
            &[(EgressTarget::World, "25/tcp 53/udp")],
            60,
        ),
        model("certbot", "tool", &[], &[], &[(EgressTarget::Internet, "80/tcp 443/tcp")], 70),
        model("envoy", "proxy", &[("exposed", any)], &["exposed"], &[], 90),
        model("wireguard", "vpn", &[("wireguard", any)], &[], &[], 80),
    ];
    Catalogue {
        services: services
            .iter()
            .map(|(name, ports)| {
                let ports = ports.split(' ').map(|text| text.parse().unwrap()).collect();
                (
                    ServiceName::new(name).unwrap(),
                    Service { ports, helper: name.parse().ok(), place: place(1) },
                )
            })
            .collect(),
        models: models.into_iter().map(|model| (model.name.clone(), model)).collect(),
    }
}

/// A workload under construction.
#[derive(Clone)]
pub(crate) struct Make {
    pub(crate) workload: Workload,
    model: Option<&'static str>,
}

/// `name` is both container name and identity; `model` is `""` for unknown.
pub(crate) fn make(name: &str, model: &'static str) -> Make {
    let mut workload = Workload::new(WorkloadId::new(name), name.into(), Runtime::Docker);
    workload.image.labels = Some(BTreeMap::new());
    let made = Make { workload, model: Some(model).filter(|model| !model.is_empty()) };
    if model.is_empty() { made } else { made.image(model) }
}

/// A compose service: `shop/web`, replica 1, on the project's network `shop_default`, answering to its service name.
pub(crate) fn compose(path: &str, model: &'static str, last: u8) -> Make {
    let (project, service) = path.split_once('/').unwrap();
    let network = format!("{project}_default");
    make(&format!("{project}-{service}-1"), model)
        .project(project, service)
        .on(&network, last)
        .alias(&network, service)
}

/// web (nginx) → api (node, wired to db) → db (postgres), cache (redis).
pub(crate) fn shop(project: &str) -> Vec<Make> {
    let path = |service: &str| format!("{project}/{service}");
    vec![
        compose(&path("web"), "nginx", 2).expose("80/tcp").publish("80/tcp", None),
        compose(&path("api"), "node", 3).expose("3000/tcp").wire("db").wire("cache:6379"),
        compose(&path("db"), "postgres", 4).expose("5432/tcp"),
        compose(&path("cache"), "redis", 5).expose("6379/tcp"),
    ]
}

fn subnet(network: &str) -> u8 {
    network.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte))
}

impl Make {
    pub(crate) fn id(mut self, id: &str) -> Self {
        self.workload.id = WorkloadId::new(id);
        self
    }
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.workload.name = name.into();
        self
    }
    pub(crate) fn image(mut self, reference: &str) -> Self {
        self.workload.image.reference = Some(reference.parse().unwrap());
        self
    }
    pub(crate) fn project(mut self, project: &str, service: &str) -> Self {
        self.workload.project = Some(Project { kind: ProjectKind::Compose, name: project.into() });
        self.workload.service = Some(service.into());
        self
    }
    /// Attaches it, with an IPv4 and an IPv6 address that end in `last` (0: none).
    pub(crate) fn on(mut self, network: &str, last: u8) -> Self {
        let net = subnet(network);
        let both = |host: u8| -> BTreeSet<IpAddr> {
            [format!("172.20.{net}.{host}"), format!("fd00:{net:x}::{host:x}")]
                .map(|text| text.parse().unwrap())
                .into()
        };
        let attachment = Attachment {
            name: network.into(),
            driver: Some("bridge".into()),
            is_default_bridge: network == "bridge",
            addresses: if last == 0 { BTreeSet::new() } else { both(last) },
            gateways: both(1),
            aliases: BTreeSet::new(),
        };
        self.workload.networks.insert(NetworkKey(network.into()), attachment);
        self
    }
    pub(crate) fn alias(mut self, network: &str, alias: &str) -> Self {
        let key = NetworkKey(network.into());
        self.workload.networks.get_mut(&key).unwrap().aliases.insert(alias.into());
        self
    }
    pub(crate) fn expose(mut self, ports: &str) -> Self {
        self.workload
            .image
            .exposed
            .extend(ports.split(' ').map(|text| text.parse::<Ports>().unwrap()));
        self
    }
    /// `host` or `host:port`.
    pub(crate) fn wire(mut self, to: &str) -> Self {
        let (host, port) = match to.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().unwrap())),
            None => (to, None),
        };
        self.workload.wires.insert(Wire { host: host.into(), port, via: WireVia::DependsOn });
        self
    }
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.workload.labels.insert(key.into(), value.into());
        self
    }
    pub(crate) fn publish(mut self, ports: &str, host_ip: Option<&str>) -> Self {
        self.workload.published.insert(PublishedPort {
            container: ports.parse().unwrap(),
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            host_port: None,
        });
        self
    }
    pub(crate) fn mode(mut self, mode: NetworkMode) -> Self {
        self.workload.network_mode = mode;
        self
    }
    pub(crate) fn resolver(mut self, address: &str) -> Self {
        self.workload.resolvers.insert(address.parse().unwrap());
        self
    }
    pub(crate) fn build(self) -> Workload {
        self.workload
    }
}

pub(crate) fn operator(text: &str) -> OperatorPolicy {
    let file = SourceFile { name: Path::new("policy.d/test.toml"), text };
    operator::parse(&[file], &catalogue()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Workloads, settings and operators' statements, and what they generate.
pub(crate) struct World {
    pub(crate) inventory: Inventory,
    pub(crate) settings: Settings,
    pub(crate) policies: PolicySet,
}

pub(crate) fn enforce() -> Settings {
    Settings {
        mode: super::Mode::Enforce,
        unknown: super::UnknownTreatment::Baseline,
        ..Settings::default()
    }
}

pub(crate) fn world(makes: &[Make]) -> World {
    world_with(makes, enforce(), "")
}

/// What each of them is, for certain.
pub(crate) fn resolutions(makes: &[Make]) -> BTreeMap<WorkloadId, Resolution> {
    let resolution = |make: &Make| Resolution {
        model: make.model.and_then(ModelName::new),
        confidence: 1.0,
        evidence: Vec::new(),
        reason: None,
    };
    makes.iter().map(|make| (make.workload.id.clone(), resolution(make))).collect()
}

pub(crate) fn world_with(makes: &[Make], settings: Settings, statements: &str) -> World {
    let resolutions = resolutions(makes);
    let inventory: Inventory = makes.iter().map(|make| make.clone().build()).collect();
    let policies =
        generate(&inventory, &resolutions, &catalogue(), &operator(statements), &settings);
    World { inventory, settings, policies }
}

impl World {
    pub(crate) fn policy(&self, id: &str) -> &Policy {
        &self.policies.policies[&WorkloadId::new(id)]
    }

    /// `from` and `to` are identities, `host`, or addresses.
    pub(crate) fn test(&self, from: &str, to: &str, packet: &str) -> Verdict {
        let endpoint = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Endpoint::Address(address),
            Err(_) if text == "host" => Endpoint::Host,
            Err(_) => Endpoint::Workload(WorkloadId::new(text)),
        };
        let packet: Packet = packet.parse().unwrap();
        test_connection(
            &self.inventory,
            &self.policies,
            &self.settings,
            &endpoint(from),
            &endpoint(to),
            packet,
        )
    }

    /// Whether both ends' policies allow it, whatever the modes.
    pub(crate) fn allows(&self, from: &str, to: &str, packet: &str) -> bool {
        let verdict = self.test(from, to, packet);
        let ends = || verdict.egress.iter().chain(&verdict.ingress);
        ends().next().is_some() && !ends().any(|end| end.would_deny)
    }

    /// The statements of `id` in one direction about `peer` (as printed).
    pub(crate) fn about(&self, id: &str, direction: Direction, peer: &str) -> Vec<&Statement> {
        self.policy(id)
            .statements
            .iter()
            .filter(|statement| {
                statement.direction == direction && statement.peer.to_string() == peer
            })
            .collect()
    }

    /// The other workloads that any statement of `id` names.
    pub(crate) fn peers(&self, id: &str) -> BTreeSet<String> {
        self.policy(id)
            .statements
            .iter()
            .filter_map(|statement| match &statement.peer {
                Peer::Workloads { members, .. } => Some(members),
                _ => None,
            })
            .flatten()
            .map(|member| member.to_string())
            .collect()
    }

    pub(crate) fn problem_codes(&self) -> Vec<&'static str> {
        self.policies.problems.iter().map(|problem| problem.code).collect()
    }
}

/// Statements with members left out.
pub(crate) fn without_members(policy: &Policy) -> BTreeSet<Statement> {
    let strip = |statement: &Statement| {
        let mut statement = statement.clone();
        if let Peer::Workloads { members, .. } = &mut statement.peer {
            members.clear();
        }
        statement
    };
    policy.statements.iter().map(strip).collect()
}
