//! Properties of proposals that hold whatever was seen: they parse, they do what they say, and they open nothing else.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture::{Scene, allows, scene};
use super::*;
use crate::observe::{Carried, Party};
use crate::policy::fixture::{Make, compose, make};
use crate::policy::{Endpoint, Packet, Traffic, is_internet, test_connection};

const IMAGES: [&str; 7] =
    ["postgres", "redis", "nginx", "node", "acme/app", "acme/job", "reg.example/acme/x"];
const ADDRESSES: [&str; 5] =
    ["10.20.0.1", "10.20.0.2", "93.184.216.34", "a.example=93.184.216.35", "2606:4700::1"];
const PORTS: [&str; 12] = [
    "5432/tcp",
    "6379/tcp",
    "80/tcp",
    "3000/tcp",
    "7000/udp",
    "7002/udp",
    "7004/udp",
    "7006/udp",
    "40000/tcp",
    "45000/tcp",
    "50000/tcp",
    "55000/tcp",
];
/// What nobody was seen to do.
const UNSEEN: [&str; 5] = ["22/tcp", "5433/tcp", "6500/udp", "61000/tcp", "9/sctp"];
const STRANGERS: [&str; 2] = ["10.77.0.1", "fd77::1"];

#[derive(Clone, Debug)]
struct Seen {
    client: usize,
    server: usize,
    port: usize,
    connections: u64,
    unanswered: u64,
}

fn build(kinds: &[(usize, usize)], seen: &[Seen]) -> (Scene, Vec<String>) {
    let makes: Vec<Make> = kinds
        .iter()
        .zip(2u8..)
        .map(|((image, project), last)| {
            let image = IMAGES[*image];
            match *project {
                0 => make(&format!("n{last}"), "").image(image).on("shared", last),
                one => compose(&format!("{}/s{last}", ["", "a", "b"][one]), "", last)
                    .image(image)
                    .on("shared", last),
            }
        })
        .collect();
    let mut names: Vec<String> = makes.iter().map(|make| make.workload.id.to_string()).collect();
    let workloads = names.len();
    names.push("host".to_owned());
    names.extend(ADDRESSES.map(str::to_owned));
    let mut scene = scene(&makes);
    for one in seen {
        let (client, server) = (one.client % names.len(), one.server % names.len());
        if client == server || client >= workloads && server >= workloads {
            continue;
        }
        let unanswered = one.unanswered.min(one.connections);
        let port = PORTS[one.port];
        scene.add(&names[client], &names[server], port, None, one.connections, unanswered, 0);
    }
    names.truncate(workloads);
    (scene, names)
}

fn scenes() -> impl Strategy<Value = (Vec<(usize, usize)>, Vec<Seen>)> {
    let kinds = prop::collection::vec((0..IMAGES.len(), 0..3usize), 2..7);
    let seen = (
        0..14usize,
        0..14usize,
        0..PORTS.len(),
        1..9u64,
        prop_oneof![3 => Just(0u64), 1 => 0..9u64],
    )
        .prop_map(|(client, server, port, connections, unanswered)| Seen {
            client,
            server,
            port,
            connections,
            unanswered,
        });
    (kinds, prop::collection::vec(seen, 1..24))
}

/// What a model speaks of: the model, or else the image.
fn class(scene: &Scene, known: &Known<'_>, party: &Party) -> String {
    let selector = match party {
        Party::Workload { selector, .. } => selector,
        // Some of it may stand for all of it.
        Party::Address { address, .. } if is_internet(*address) => return "internet".to_owned(),
        _ => return party.to_string(),
    };
    let who = seen::Who::Workloads(selector.clone());
    let workload = known.workloads(&who).next().unwrap();
    assert!(scene.inventory.get(&workload.id).is_some());
    match known.model(&workload.id) {
        Some(model) => format!("model {model}"),
        None => format!("image {}", workload.image.reference.as_ref().unwrap().repository),
    }
}

/// Whether anything like this was seen: between workloads of the same kinds, on that port or between ports that were seen.
fn was_seen(scene: &Scene, known: &Known<'_>, client: &str, server: &str, port: &str) -> bool {
    let wanted = [client, server].map(|name| class(scene, known, &scene.party(name)));
    let alike: Vec<Carried> = scene
        .flows
        .iter()
        .filter(|flow| {
            [&flow.key.client, &flow.key.server].map(|party| class(scene, known, party)) == wanted
        })
        .map(|flow| flow.key.carried)
        .collect();
    let Carried::Port { proto, port } = port.parse().unwrap() else { return false };
    let ports = alike.iter().filter_map(|carried| match carried {
        Carried::Port { proto: other, port } if *other == proto => Some(*port),
        _ => None,
    });
    let (least, most) =
        ports.fold((u16::MAX, 0), |(least, most), one| (least.min(one), most.max(one)));
    (least..=most).contains(&port)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_proposal_parses_and_does_what_it_says((kinds, seen) in scenes(), seed in 0..6usize) {
        let (scene, names) = build(&kinds, &seen);
        let seed = names[seed % names.len()].as_str();
        let proposal = scene.learn(&[seed]);
        let after = scene.applied(&proposal);
        prop_assert_eq!(after.rules.operator.statements.len(), proposal.allow.len());
        prop_assert_eq!(&proposal.unmet, &Vec::<Text>::new());
        for allow in &proposal.allow {
            let ends = [&allow.from, &allow.to].map(|selectors| endpoints(&after, selectors));
            for (from, to) in ends[0].iter().flat_map(|from| ends[1].iter().map(move |to| (from, to))) {
                for traffic in &allow.ports {
                    let packet = match traffic {
                        Traffic::Ports(ports) | Traffic::Control(ports, _) => {
                            Packet::Port { proto: ports.proto, port: ports.range.last() }
                        }
                        Traffic::Ping => Packet::Ping,
                    };
                    let settings = &after.rules.options.settings;
                    let verdict =
                        test_connection(&scene.inventory, &after.policies, settings, from, to, packet);
                    let denies = verdict.egress.iter().chain(&verdict.ingress).any(|end| end.would_deny);
                    prop_assert!(!denies, "{:?} {:?} {:?}", from, to, packet);
                }
            }
        }
        let again = scene.learn(&[seed]);
        prop_assert_eq!(proposal, again);
    }

    #[test]
    fn nothing_is_opened_that_was_neither_seen_nor_allowed((kinds, seen) in scenes()) {
        let (scene, names) = build(&kinds, &seen);
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let proposal = scene.learn(&all);
        let (before, after) = (scene.known(), scene.applied(&proposal));
        let others = all.iter().copied().chain(STRANGERS).chain(ADDRESSES);
        let others: BTreeSet<&str> = others.collect();
        for here in &all {
            for there in &others {
                for port in PORTS.iter().chain(&UNSEEN) {
                    for (client, server) in [(*here, *there), (*there, *here)] {
                        if client == server || !allows(&scene, &after, client, server, port) {
                            continue;
                        }
                        let is_justified = allows(&scene, &before, client, server, port)
                            || was_seen(&scene, &before, client, server, port);
                        prop_assert!(
                            is_justified,
                            "{} {} {}\n{}\n{}", client, server, port, proposal.models_toml, proposal.policy_toml
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn unknown_applications_on_a_port_with_a_name_get_into_nothing_else_of_that_name() {
    const APPLICATION: usize = 4;
    const POSTGRES: usize = 0;
    let seen = Seen { client: 2, server: 0, port: 0, connections: 3, unanswered: 0 };
    let (scene, names) = build(&[(APPLICATION, 2), (POSTGRES, 2), (APPLICATION, 2)], &[seen]);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let after = scene.applied(&scene.learn(&all));
    assert!(allows(&scene, &after, all[2], all[0], "5432/tcp"), "what was seen");
    assert!(!allows(&scene, &after, all[2], all[1], "5432/tcp"), "PostgreSQL was not asked");
    assert!(!allows(&scene, &after, all[1], all[0], "5432/tcp"), "and did not ask");
}

/// What selectors of a statement name.
fn endpoints(known: &Known<'_>, selectors: &[String]) -> Vec<Endpoint> {
    selectors
        .iter()
        .flat_map(|text| match text.strip_prefix("cidr:") {
            Some(address) => vec![Endpoint::Address(address.parse().unwrap())],
            None if text == "host" => vec![Endpoint::Host],
            None if text == "internet" => vec![Endpoint::Address("93.184.216.99".parse().unwrap())],
            None => {
                known.choose(&text.parse().unwrap()).into_iter().map(Endpoint::Workload).collect()
            }
        })
        .collect()
}
