//! That deciding again, and keeping what a change does not touch, answers what deciding from nothing does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::input::diagnostic::SourceFile;
use crate::metadata::{
    Attachment, NetnsRef, NetworkKey, Project, ProjectKind, Runtime, Wire, WireVia,
};
use crate::policy::{Mode, Settings, operator};

const IMAGES: [&str; 5] = ["nginx", "node", "postgres", "redis", "nobody/knows"];
const SERVICES: [&str; 4] = ["web", "api", "db", "cache"];
const STATED: &str = "[[allow]]\nfrom = \"service:web\"\nto = \"name:w5\"\nports = [\"9/tcp\"]\n";

/// What is known of one container.
#[derive(Clone, Debug)]
struct Facts {
    project: Option<usize>,
    service: usize,
    image: usize,
    networks: Vec<usize>,
    last: u8,
    guest_of: Option<usize>,
    is_host: bool,
    is_running: bool,
    inode: Option<u64>,
    is_admin: bool,
    wire: usize,
    mode: Option<usize>,
}

/// Something that is observed: of which container, and what; nothing where it is gone.
type Change = (usize, Option<Facts>);

fn facts() -> impl Strategy<Value = Facts> {
    let place = (prop::option::weighted(0.7, 0..2usize), 0..4usize, 0..5usize);
    let network = (prop::collection::vec(0..3usize, 0..3), 2..9u8);
    let life = (
        prop::option::weighted(0.3, 0..6usize),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.8),
        prop::option::of(1..4u64),
    );
    let rest = (any::<bool>(), 0..4usize, prop::option::weighted(0.3, 0..3usize));
    (place, network, life, rest).prop_map(|(place, network, life, rest)| Facts {
        project: place.0,
        service: place.1,
        image: place.2,
        networks: network.0,
        last: network.1,
        guest_of: life.0,
        is_host: life.1,
        is_running: life.2,
        inode: life.3,
        is_admin: rest.0,
        wire: rest.1,
        mode: rest.2,
    })
}

fn id(number: usize) -> WorkloadId {
    WorkloadId::new(&format!("w{number}"))
}

fn workload(number: usize, facts: &Facts) -> Workload {
    let name = format!("w{number}");
    let mut workload = Workload::new(id(number), Text::new(&name), Runtime::Docker);
    workload.image.reference = IMAGES[facts.image].parse().ok();
    workload.image.labels = Some(BTreeMap::new());
    workload.image.exposed = ["8080/tcp".parse().unwrap()].into();
    workload.project = facts.project.map(|project| Project {
        kind: ProjectKind::Compose,
        name: Text::new(["a", "b"][project]),
    });
    workload.service = facts.project.map(|_| Text::new(SERVICES[facts.service]));
    workload.wires =
        [Wire { host: Text::new(SERVICES[facts.wire]), port: Some(8080), via: WireVia::DependsOn }]
            .into();
    workload.capabilities.net_admin = facts.is_admin;
    workload.resolvers = [IpAddr::from([192, 0, 2, 53])].into();
    if let Some(mode) = facts.mode {
        let mode = Text::new(["off", "observe", "enforce"][mode]);
        workload.labels.insert(Text::new("seawall.mode"), mode);
    }
    workload.network_mode = match facts.guest_of {
        Some(of) => NetworkMode::Container(id(of)),
        None if facts.is_host => NetworkMode::Host,
        None => NetworkMode::Own,
    };
    workload.state = if facts.is_running { State::Running } else { State::Exited };
    if facts.is_running {
        let path = "/proc/7/ns/net".into();
        workload.netns = Some(NetnsRef { pid: 7, path, inode: facts.inode });
    }
    for network in &facts.networks {
        let name = Text::new(["n0", "n1", "n2"][*network]);
        let address = IpAddr::from([10, 0, u8::try_from(*network).unwrap(), facts.last]);
        let attachment = Attachment {
            name: name.clone(),
            driver: None,
            is_default_bridge: false,
            addresses: if facts.is_running { [address].into() } else { [].into() },
            gateways: [].into(),
            aliases: [].into(),
        };
        workload.networks.insert(NetworkKey(name), attachment);
    }
    workload
}

fn rules() -> Rules {
    let catalogue = Catalogue::builtin().unwrap();
    let file = SourceFile { name: "policy.toml".as_ref(), text: STATED };
    let operator = operator::parse(&[file], &catalogue).unwrap();
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    let options = compile::Options { settings, ..compile::Options::default() };
    Rules { catalogue, operator, options }
}

fn apply(inventory: &mut Inventory, (number, facts): &Change) {
    match facts {
        Some(facts) => {
            inventory.upsert(workload(*number, facts));
        }
        None => {
            inventory.remove(&id(*number));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_decided_again_is_what_is_decided_from_nothing(
        changes in prop::collection::vec((0..6usize, prop::option::weighted(0.9, facts())), 1..24)
    ) {
        let rules = rules();
        let (mut inventory, mut decider) = (Inventory::new(), Decider::default());
        for change in &changes {
            apply(&mut inventory, change);
            prop_assert_eq!(&*decider.decide(&inventory, &rules), &desire(&inventory, &rules));
            prop_assert!(decider.is_right(&rules));
        }
    }
}

#[test]
fn what_a_change_does_not_touch_is_the_very_same() {
    let rules = rules();
    let one = |project, last| Facts {
        project: Some(project),
        service: 0,
        image: 0,
        networks: vec![project],
        last,
        guest_of: None,
        is_host: false,
        is_running: true,
        inode: Some(1),
        is_admin: false,
        wire: 1,
        mode: None,
    };
    let (mut inventory, mut decider) = (Inventory::new(), Decider::default());
    for (number, (project, last)) in [(0, 2), (0, 3), (1, 4)].into_iter().enumerate() {
        apply(&mut inventory, &(number, Some(one(project, last))));
    }
    let before = decider.decide(&inventory, &rules);
    apply(&mut inventory, &(2, Some(one(1, 9))));
    let after = decider.decide(&inventory, &rules);
    let is_kept = |number| Arc::ptr_eq(&before.rulesets[&id(number)], &after.rulesets[&id(number)]);
    assert_eq!([0, 1, 2].map(is_kept), [true, true, false]);
    assert!(decider.is_right(&rules));

    // What nobody uses is let go of; and a decision that is no longer right is found.
    drop((before, after));
    for number in 0..3 {
        apply(&mut inventory, &(number, None));
    }
    decider.decide(&inventory, &rules);
    assert!(decider.is_right(&rules));
    assert_eq!(format!("{:?}", decider.made), "Made({})");
    decider.last.as_mut().unwrap().inventory.upsert(workload(0, &one(0, 2)));
    assert!(!decider.is_right(&rules));
}
