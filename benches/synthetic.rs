//! Synthetic hosts for benchmarks: applications of five containers each, with addresses of both families, and one store
//! that all of them use.
//!
//! Each container has about 50 tuples in its sets, however many containers there are: an application grows no larger,
//! there are more of them.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use seawall::compile::Options;
use seawall::input::Text;
use seawall::input::diagnostic::SourceFile;
use seawall::metadata::{
    Attachment, Inventory, NetworkKey, Project, ProjectKind, PublishedPort, Runtime, State, Wire,
    WireVia, Workload, WorkloadId,
};
use seawall::model::Catalogue;
use seawall::policy::{Mode, Settings, operator};
use seawall::reconcile::Rules;

/// Service, image, exposed port, and whom it names in its environment with which port.
type Role = (&'static str, &'static str, Option<u16>, &'static [(&'static str, u16)]);

/// The containers of an application.
const APPLICATION: [Role; 5] = [
    ("web", "nginx:1.27", Some(80), &[("api", 3000)]),
    ("api", "node:22", Some(3000), &[("db", 5432), ("cache", 6379)]),
    ("worker", "python:3.12", None, &[("db", 5432), ("cache", 6379)]),
    ("db", "postgres:16", Some(5432), &[]),
    ("cache", "redis:7", Some(6379), &[]),
];
/// The network everybody is attached to beside the application's own.
pub(crate) const BACKBONE: &str = "backbone";
/// The workload everybody uses: it belongs to no application.
pub(crate) const STORE: &str = "store";
/// Addresses of those who get new ones begin here.
const MOVED: usize = 30_000;
/// What lets them: no fact relates an application to what is outside it.
const STATED: &str = "[[allow]]\nfrom = \"any\"\nto = \"name:store\"\nports = [\"9000/tcp\"]\n";

/// The built-in catalogue, everything enforced, and the one statement that lets all use the store.
pub(crate) fn rules() -> Rules {
    let catalogue = Catalogue::builtin().expect("the built-in catalogue is valid");
    let file = SourceFile { name: "policy.toml".as_ref(), text: STATED };
    let operator = operator::parse(&[file], &catalogue).expect("the statement is valid");
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    Rules { catalogue, operator, options: Options { settings, ..Options::default() } }
}

/// A host of so many containers, all running; the first is the store.
pub(crate) fn host(workloads: usize) -> Inventory {
    (0..workloads).map(workload).collect()
}

/// The container of this number: the store is 0.
pub(crate) fn workload(number: usize) -> Workload {
    if number == 0 {
        return store(number);
    }
    let (application, role) = ((number - 1) / APPLICATION.len(), (number - 1) % APPLICATION.len());
    let (service, image, exposed, uses) = APPLICATION[role];
    let project = format!("app{application}");
    let mut workload = new(number, &format!("{project}-{service}-1"), image, exposed);
    workload.project = Some(Project { kind: ProjectKind::Compose, name: Text::new(&project) });
    workload.service = Some(Text::new(service));
    workload.wires = uses
        .iter()
        .map(|(host, port)| Wire {
            host: Text::new(host),
            port: Some(*port),
            via: WireVia::Env(Text::new(&format!("{}_URL", host.to_uppercase()))),
        })
        .collect();
    if role == 0 {
        workload.published = [PublishedPort {
            container: "80/tcp".parse().expect("a port"),
            host_ip: None,
            host_port: Some(8000),
        }]
        .into();
    }
    let own = format!("{project}_default");
    workload.networks.extend([
        attachment(BACKBONE, addresses(0, number), service),
        attachment(&own, addresses(1, number), service),
    ]);
    workload
}

fn store(number: usize) -> Workload {
    let mut store = new(number, STORE, "minio/minio:latest", Some(9000));
    store.networks.extend([attachment(BACKBONE, addresses(0, number), STORE)]);
    store
}

fn new(number: usize, name: &str, image: &str, exposed: Option<u16>) -> Workload {
    let id = WorkloadId::new(&format!("{number:064x}"));
    let mut workload = Workload::new(id, Text::new(name), Runtime::Docker);
    workload.image.reference = image.parse().ok();
    workload.image.labels = Some(BTreeMap::new());
    workload.image.exposed =
        exposed.iter().filter_map(|port| format!("{port}/tcp").parse().ok()).collect();
    workload.env_names = ["PATH", "LANG", "TZ"].map(Text::new).into();
    workload.capabilities.net_raw = true;
    workload.resolvers = [IpAddr::from([192, 0, 2, 53])].into();
    workload.state = State::Running;
    workload
}

/// The addresses of a container on a network of all (0) or of its own (1): of both families, each of one container.
pub(crate) fn addresses(network: u16, number: usize) -> BTreeSet<IpAddr> {
    let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    let v4 = Ipv4Addr::new(10, 64 + network.to_be_bytes()[1], high, low);
    let v6 = Ipv6Addr::new(0xfd64, 0, 0, network, 0, 0, 1, u16::from_be_bytes([high, low]));
    [IpAddr::V4(v4), IpAddr::V6(v6)].into()
}

/// The same container with other addresses, which nobody else has.
pub(crate) fn moved(mut workload: Workload, number: usize) -> Workload {
    for (key, attachment) in &mut workload.networks {
        attachment.addresses = addresses(u16::from(key.0 != *BACKBONE), MOVED + number);
    }
    workload
}

fn attachment(name: &str, addresses: BTreeSet<IpAddr>, alias: &str) -> (NetworkKey, Attachment) {
    let name = Text::new(name);
    let attachment = Attachment {
        name: name.clone(),
        driver: Some(Text::new("bridge")),
        is_default_bridge: false,
        addresses,
        gateways: [IpAddr::from([10, 127, 255, 254])].into(),
        aliases: [Text::new(alias)].into(),
    };
    (NetworkKey(name), attachment)
}
