//! Generated worlds: a workload with a random policy among peers, and the flows to try.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use seawall::input::Text;
use seawall::metadata::{
    Attachment, Inventory, L4Proto, NetworkKey, PortRange, Ports, Runtime, Workload, WorkloadId,
};
use seawall::model::Helper;
use seawall::policy::evaluate::Packet;
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};

/// The own addresses of the workload under test.
pub(crate) const OWN: [&str; 2] = ["10.50.0.2", "fd50::2"];
const HOST: [&str; 2] = ["10.50.0.1", "fd50::1"];
const PEERS: [[&str; 2]; 3] =
    [["10.50.0.11", "fd50::11"], ["10.50.0.12", "fd50::12"], ["10.50.0.13", "fd50::13"]];
/// A peer that shares no network with the workload under test.
const FAR: [&str; 2] = ["10.60.0.11", "fd60::11"];
const RESOLVERS: [&str; 2] = ["192.168.77.53", "fd77::53"];
/// Addresses nobody has: in private ranges and on the internet.
const OTHERS: [&str; 6] =
    ["172.20.1.1", "203.0.113.9", "198.51.100.7", "9.9.9.9", "fd99::9", "2001:db8::9"];
const PORTS: [u16; 5] = [22, 80, 443, 5432, 8005];

/// Every address the workload under test may meet.
pub(crate) fn remotes() -> Vec<IpAddr> {
    HOST.iter()
        .chain(PEERS.iter().flatten())
        .chain(&FAR)
        .chain(&RESOLVERS)
        .chain(&OTHERS)
        .map(|address| address.parse().unwrap())
        .collect()
}

/// Peers, addresses and a policy.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) inventory: Inventory,
    statements: Vec<Statement>,
}

impl World {
    pub(crate) fn policy(&self, mode: Mode) -> Policy {
        Policy {
            workload: WorkloadId::new("own"),
            label: Text::new("own"),
            mode,
            mode_from: Provenance::Setting { key: "mode" },
            statements: self.statements.clone(),
            routes: false,
        }
    }

    pub(crate) fn own_address(&self, v4: bool) -> IpAddr {
        OWN[usize::from(!v4)].parse().unwrap()
    }

    /// Every address, in both directions, on every port and by ping.
    pub(crate) fn probes(&self) -> Vec<(Direction, IpAddr, Packet)> {
        let ports = [L4Proto::Tcp, L4Proto::Udp, L4Proto::Sctp]
            .into_iter()
            .flat_map(|proto| PORTS.map(|port| Packet::Port { proto, port }));
        let dns = [L4Proto::Tcp, L4Proto::Udp].map(|proto| Packet::Port { proto, port: 53 });
        let packets: Vec<Packet> = ports.chain(dns).chain([Packet::Ping]).collect();
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .flat_map(|direction| remotes().into_iter().map(move |remote| (direction, remote)))
            .flat_map(|(direction, remote)| {
                packets.iter().map(move |packet| (direction, remote, *packet)).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn workload(id: &str, network: &str, addresses: &[&str]) -> Workload {
    let mut workload = Workload::new(WorkloadId::new(id), Text::new(id), Runtime::Docker);
    let attachment = Attachment {
        name: Text::new(network),
        driver: None,
        is_default_bridge: false,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        gateways: if network == "net" {
            HOST.iter().map(|address| address.parse().unwrap()).collect()
        } else {
            BTreeSet::new()
        },
        aliases: BTreeSet::new(),
    };
    workload.networks = BTreeMap::from([(NetworkKey(Text::new(network)), attachment)]);
    workload.resolvers = RESOLVERS.iter().map(|address| address.parse().unwrap()).collect();
    workload
}

fn inventory() -> Inventory {
    let peers = PEERS
        .iter()
        .enumerate()
        .map(|(number, addresses)| workload(&format!("peer{number}"), "net", addresses));
    peers.chain([workload("own", "net", &OWN), workload("far", "other", &FAR)]).collect()
}

fn peer() -> impl Strategy<Value = Peer> {
    let members = prop::collection::btree_set(
        prop::sample::select(vec!["peer0", "peer1", "peer2", "far"]).prop_map(WorkloadId::new),
        1..4,
    );
    let networks = [
        "10.0.0.0/8",
        "10.50.0.8/29",
        "172.16.0.0/12",
        "203.0.113.0/24",
        "0.0.0.0/0",
        "9.9.9.9/32",
        "fd50::/64",
        "fd00::/8",
        "2001:db8::/32",
        "::/0",
    ];
    prop_oneof![
        4 => members.prop_map(|members| Peer::Workloads { label: Text::new("peers"), members }),
        1 => Just(Peer::Host),
        1 => Just(Peer::Dns),
        1 => Just(Peer::World),
        1 => Just(Peer::Internet),
        3 => prop::sample::select(networks.to_vec()).prop_map(|net| Peer::Cidr(net.parse().unwrap())),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let proto = prop::sample::select(L4Proto::ALL.to_vec());
    let single = (proto.clone(), prop::sample::select(PORTS.to_vec())).prop_map(|(proto, port)| {
        Traffic::Ports(Ports { proto, range: PortRange::single(port).unwrap() })
    });
    let range = (proto, 1u16..9000, prop::sample::select(vec![1u16, 20, 40, 5000])).prop_map(
        |(proto, first, span)| {
            Traffic::Ports(Ports { proto, range: PortRange::new(first, first + span).unwrap() })
        },
    );
    let control = prop::sample::select(PORTS.to_vec()).prop_map(|port| {
        let ports = Ports { proto: L4Proto::Tcp, range: PortRange::single(port).unwrap() };
        Traffic::Control(ports, Helper::Ftp)
    });
    prop_oneof![4 => single, 2 => range, 1 => Just(Traffic::Ping), 2 => control]
}

fn statement() -> impl Strategy<Value = Statement> {
    let action = prop_oneof![4 => Just(Action::Allow), 1 => Just(Action::Deny)];
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    (action, direction, peer(), prop::collection::btree_set(traffic(), 1..4)).prop_map(
        |(action, direction, peer, traffic)| Statement {
            action,
            direction,
            peer,
            traffic,
            provenance: Provenance::Baseline,
        },
    )
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    prop::collection::vec(statement(), 0..12)
        .prop_map(|statements| World { inventory: inventory(), statements })
}
