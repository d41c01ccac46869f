//! Kernel layer: a container that writes other addresses than its own into packets opens nothing with them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use netns::{TestNetns, inside_of};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use seawall::compile::{Options, compile};
use seawall::input::Text;
use seawall::metadata::{Inventory, Runtime, Workload, WorkloadId};
use seawall::nft::netns::Entrance;
use seawall::nft::{Netns, plan};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};

use std::os::fd::AsRawFd;

const OWN: &str = "10.9.0.2";
const OTHER: &str = "10.9.0.1";
/// Published to the world.
const PUBLISHED: u16 = 81;
/// What only other programs on other machines provide.
const ELSEWHERE: u16 = 2222;

/// Two joined namespaces.
fn joined() -> (TestNetns, TestNetns) {
    let (inside, outside) = (TestNetns::new(), TestNetns::new());
    inside.ip(&[
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &outside.name,
    ]);
    for (netns, own) in [(&inside, OWN), (&outside, OTHER)] {
        netns.ip(&["addr", "add", &format!("{own}/24"), "dev", "eth0"]);
        netns.run(&["ip", "link", "set", "eth0", "up"]);
    }
    (inside, outside)
}

/// A published UDP port and nothing else.
fn enforce(netns: &TestNetns) {
    let workload = Workload::new(WorkloadId::new("w"), Text::new("w"), Runtime::Docker);
    let policy = Policy {
        workload: workload.id.clone(),
        label: Text::new("w"),
        mode: Mode::Enforce,
        mode_from: Provenance::Setting { key: "mode" },
        statements: vec![Statement {
            action: Action::Allow,
            direction: Direction::Ingress,
            peer: Peer::World,
            traffic: [Traffic::Ports(format!("{PUBLISHED}/udp").parse().unwrap())].into(),
            provenance: Provenance::Builtin { rule: "host" },
        }],
        routes: false,
    };
    let inventory: Inventory = [workload].into_iter().collect();
    let ruleset = compile(&[&policy], &inventory, &Options::default()).unwrap();
    let netns = Netns::open(&netns.path()).unwrap();
    let mut table = Entrance::start().unwrap().open_table(&netns).unwrap();
    table.commit(&plan(None, Some(&ruleset)), None).unwrap();
}

/// Sends the published port a packet from somebody else's address, as CAP_NET_RAW allows.
fn pretend(other: IpAddr, own: IpAddr) {
    let kind = SockType::Datagram;
    let fd = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::IpTransparent, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(other, ELSEWHERE))).unwrap();
    let to = SockaddrStorage::from(SocketAddr::new(own, PUBLISHED));
    sendto(fd.as_raw_fd(), b"hello", &to, MsgFlags::empty()).unwrap();
}

#[test]
fn an_entry_made_over_lo_makes_no_reply_of_a_connection_to_others() {
    let (inside, outside) = joined();
    let (own, other): (IpAddr, IpAddr) = (OWN.parse().unwrap(), OTHER.parse().unwrap());
    let theirs = SocketAddr::new(other, ELSEWHERE);
    let server = inside_of(&outside, move || UdpSocket::bind(theirs).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    enforce(&inside);
    let socket = inside_of(&inside, move || {
        pretend(other, own);
        UdpSocket::bind(SocketAddr::new(own, PUBLISHED)).unwrap()
    });
    let sent = socket.send_to(b"out", theirs);
    assert!(server.recv_from(&mut [0; 8]).is_err(), "it reached others: {sent:?}");
    // The container still talks to itself.
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(b"self", SocketAddr::new(own, PUBLISHED)).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().0, 4);
}

#[test]
fn a_rejection_goes_to_nobody_but_the_container_itself() {
    let (inside, outside) = joined();
    enforce(&inside);
    let caught = inside_of(&outside, || {
        let (family, kind) = (AddressFamily::Inet, SockType::Raw);
        socket(family, kind, SockFlag::empty(), SockProtocol::Icmp).unwrap()
    });
    setsockopt(&caught, sockopt::ReceiveTimeout, &TimeVal::new(0, 500_000)).unwrap();
    inside_of(&inside, || {
        // What is denied and quoted in the rejection, with the address of the one who shall get it as its source.
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None).unwrap();
        setsockopt(&fd, sockopt::IpTransparent, &true).unwrap();
        let at = |address: &str, port| {
            SockaddrStorage::from(SocketAddr::new(address.parse().unwrap(), port))
        };
        bind(fd.as_raw_fd(), &at(OTHER, ELSEWHERE)).unwrap();
        let sent = sendto(fd.as_raw_fd(), b"secret", &at("10.9.0.77", 9), MsgFlags::empty());
        assert!(sent.is_err(), "it is rejected");
    });
    assert!(recv(caught.as_raw_fd(), &mut [0; 256], MsgFlags::empty()).is_err());
}
