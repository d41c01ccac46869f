//! Properties of generation that hold for any inventory: projects stay apart, replicas and identities do not matter.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture::{Make, compose, enforce, make, operator, without_members, world, world_with};
use super::statement::Peer;
use super::text::render;
use super::{Settings, UnknownTreatment};
use crate::metadata::{NetworkMode, WorkloadId};

const MODELS: [&str; 8] =
    ["", "nginx", "node", "postgres", "pgadmin", "redis", "postfix", "wireguard"];
const HOSTS: [&str; 6] = ["s0", "s1:8080", "s2", "b-s0-1", "db", "n3:22"];
const LABELS: [(&str, &str); 6] = [
    ("seawall.provides", "8080/tcp,http"),
    ("seawall.uses", "s0,redis,exposed"),
    ("seawall.egress", "internet:443/tcp"),
    ("seawall.mode", "enforce"),
    ("seawall.provides", "not, a, list"),
    ("seawall.tag", "edge"),
];

/// What one container is like, identity and addresses apart.
#[derive(Clone, Debug)]
struct Shape {
    project: Option<usize>,
    model: usize,
    wires: BTreeSet<usize>,
    label: Option<usize>,
    exposes: bool,
    networks: BTreeSet<usize>,
    alias: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let project = prop::option::weighted(0.7, 0..3usize);
    let wires = prop::collection::btree_set(0..HOSTS.len(), 0..3);
    let networks = prop::collection::btree_set(0..3usize, 0..3);
    let label = prop::option::of(0..LABELS.len());
    (project, 0..MODELS.len(), wires, label, any::<bool>(), networks, any::<bool>()).prop_map(
        |(project, model, wires, label, exposes, networks, alias)| Shape {
            project,
            model,
            wires,
            label,
            exposes,
            networks,
            alias,
        },
    )
}

fn build(shape: &Shape, index: usize, last: u8) -> Make {
    let mut made = match shape.project {
        Some(project) => {
            let project = ["a", "b", "c"][project];
            compose(&format!("{project}/s{}", index % 4), MODELS[shape.model], last)
        }
        None => make(&format!("n{index}"), MODELS[shape.model]),
    };
    made = made.id(&format!("id{index}"));
    for network in &shape.networks {
        let network = ["shared", "other", "bridge"][*network];
        made = made.on(network, last);
        if shape.alias {
            made = made.alias(network, "db");
        }
    }
    for host in &shape.wires {
        made = made.wire(HOSTS[*host]);
    }
    if shape.exposes {
        made = made.expose("8080/tcp");
    }
    match shape.label {
        Some(label) => made.label(LABELS[label].0, LABELS[label].1),
        None => made,
    }
}

fn build_all(shapes: &[Shape]) -> Vec<Make> {
    shapes
        .iter()
        .zip(2u8..)
        .enumerate()
        .map(|(index, (shape, last))| build(shape, index, last))
        .collect()
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(shape(), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_statement_ever_crosses_a_project(shapes in shapes()) {
        let world = world(&build_all(&shapes));
        for policy in world.policies.policies.values() {
            let own = world.inventory.get(&policy.workload).unwrap();
            for statement in &policy.statements {
                if let Peer::Workloads { members, .. } = &statement.peer {
                    for member in members {
                        let member = world.inventory.get(member).unwrap();
                        prop_assert_eq!(&own.project, &member.project);
                        prop_assert_ne!(&own.id, &member.id);
                        if own.project.is_none() {
                            let shared = own.networks.iter().any(|(key, network)| {
                                !network.is_default_bridge && member.networks.contains_key(key)
                            });
                            prop_assert!(shared);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn statements_are_sorted_and_never_empty(shapes in shapes()) {
        let world = world(&build_all(&shapes));
        for policy in world.policies.policies.values() {
            prop_assert!(policy.statements.is_sorted_by(|a, b| a < b));
            prop_assert!(policy.statements.iter().all(|statement| !statement.traffic.is_empty()));
        }
    }

    #[test]
    fn the_text_depends_neither_on_identities_nor_on_addresses(shapes in shapes(), offset in 1u8..100) {
        let here = build_all(&shapes);
        let there: Vec<Make> = shapes
            .iter()
            .zip(offset + 2..)
            .enumerate()
            .map(|(index, (shape, last))| build(shape, index, last).id(&format!("{:x}", 7919 * (50 - index))))
            .collect();
        let text = |makes: &[Make]| render(world(makes).policies.policies.values());
        prop_assert_eq!(text(&here), text(&there));
    }

    #[test]
    fn another_replica_changes_members_only(shapes in shapes(), which in any::<prop::sample::Index>()) {
        let makes = build_all(&shapes);
        let scaled = which.get(&makes).clone();
        prop_assume!(scaled.workload.service.is_some());
        // Who names one container means that one, and not its replicas: such a wire is no part of scaling.
        let name = scaled.workload.name.clone();
        prop_assume!(makes.iter().all(|made| made.workload.wires.iter().all(|wire| wire.host != name)));
        // Replicas are made from one definition; two different ones under one name are no replicas.
        let is_other = |made: &Make| made.workload.project == scaled.workload.project
            && made.workload.service == scaled.workload.service
            && made.workload.id != scaled.workload.id;
        let mut makes: Vec<Make> = makes.into_iter().filter(|made| !is_other(made)).collect();
        let before = world(&makes);
        let mut replica = scaled.id("replica").name("replica");
        for network in replica.workload.networks.values_mut() {
            network.addresses = ["192.0.2.77".parse().unwrap()].into();
        }
        makes.push(replica);
        let after = world(&makes);
        for (id, policy) in &before.policies.policies {
            prop_assert_eq!(without_members(policy), without_members(&after.policies.policies[id]));
        }
    }

    #[test]
    fn a_connection_needs_both_ends(shapes in shapes()) {
        let world = world(&build_all(&shapes));
        for from in world.inventory.iter() {
            for to in world.inventory.iter().filter(|to| to.id != from.id) {
                let verdict = world.test(from.id.as_str(), to.id.as_str(), "8080/tcp");
                let (Some(egress), Some(ingress)) = (verdict.egress, verdict.ingress) else { continue };
                prop_assert_eq!(verdict.allowed, !egress.blocks && !ingress.blocks);
            }
        }
    }

    #[test]
    fn no_configuration_makes_it_panic(
        shapes in shapes(),
        unknown in prop::sample::select(vec![UnknownTreatment::Observe, UnknownTreatment::Baseline, UnknownTreatment::Deny]),
        circle in any::<bool>(),
        key in "seawall\\.(mode|provides|uses|egress|tag|x)",
        value in "\\PC{0,40}",
    ) {
        let mut makes = build_all(&shapes);
        makes[0] = makes[0].clone().label(&key, &value);
        if circle {
            let last = makes.len() - 1;
            makes[0] = makes[0].clone().mode(NetworkMode::Container(WorkloadId::new(&format!("id{last}"))));
            makes[last] = makes[last].clone().mode(NetworkMode::Container(WorkloadId::new("id0")));
        }
        let rules = "[[allow]]\nfrom = \"any\"\nto = [\"self\", \"world\", \"tag:*\"]\n[[deny]]\nfrom = \"category:*\"\nto = \"any\"";
        prop_assert_eq!(operator(rules).statements.len(), 2);
        let settings = Settings { unknown, ..enforce() };
        let world = world_with(&makes, settings, rules);
        prop_assert_eq!(world.policies.policies.len(), makes.len());
    }
}
