//! Kernel layer: what is heard of a netns is the kernel's word and no process's, and what another process listens to is
//! listened to as soon as it does not any more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/traffic.rs"]
#[allow(dead_code, reason = "only its policies and addresses are used here")]
mod traffic;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use std::os::fd::{AsRawFd as _, OwnedFd};

use netns::{TestNetns, inside_of};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use seawall::metadata::L4Proto;
use seawall::nft::listen::{Ear, Heard, Listeners, hear};
use seawall::nft::netns::Entrance;
use seawall::nft::{KernelTable, Netns, log, plan};
use seawall::policy::Direction;
use seawall::policy::evaluate::Packet;
use traffic::{DENIED, PEER, enforced};
use veth::Wire;

/// `NETLINK_NETFILTER` in `/proc/net/netlink`.
const NETFILTER: &str = "12";

fn listen(netns: &TestNetns, former: Option<&Listeners>) -> Listeners {
    Entrance::start().unwrap().listen(&Netns::open(&netns.path()).unwrap(), former).unwrap()
}

fn open(netns: &TestNetns) -> KernelTable {
    Entrance::start().unwrap().open_table(&Netns::open(&netns.path()).unwrap()).unwrap()
}

/// A netlink message with the header that the kernel's have.
fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A packet that was logged, as NFLOG tells it: one attribute, the prefix.
fn denial() -> Vec<u8> {
    let prefix = b"seawall deny out\0";
    let mut payload = vec![2, 0, 0, 0];
    payload.extend((4 + prefix.len() as u16).to_ne_bytes());
    payload.extend(10u16.to_ne_bytes());
    payload.extend(prefix);
    message(4 << 8, 0, 0, &payload)
}

/// Sends what the kernel might say to every netfilter socket of the calling thread's netns. Returns how many there are, and how
/// many messages were taken.
fn forge() -> (usize, usize) {
    let told = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let sockets = told.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_netfilter = words.next() == Some(NETFILTER);
        let port = words.next()?.parse::<u32>().ok()?;
        (is_netfilter && port != 0).then_some(port)
    });
    let sockets: Vec<u32> = sockets.collect();
    let forger = forger();
    let error = |errno: i32| message(2, 0, 1, &[&errno.to_ne_bytes()[..], &[0; 16]].concat());
    let mut taken = 0;
    for port in &sockets {
        let to = NetlinkAddr::new(*port, 0);
        // What is asked first, second and third: whatever its number, an answer to it.
        let ends = (0..50).map(|sequence| message(3, 2, sequence, &0i32.to_ne_bytes()));
        for forged in [denial(), error(-1), error(0)].into_iter().chain(ends) {
            taken += usize::from(send(&forger, &forged, &to).is_ok());
        }
    }
    (sockets.len(), taken)
}

fn forger() -> OwnedFd {
    let kind = (AddressFamily::Netlink, SockType::Raw);
    socket(kind.0, kind.1, SockFlag::empty(), SockProtocol::NetlinkNetFilter).unwrap()
}

fn send(forger: &OwnedFd, message: &[u8], to: &NetlinkAddr) -> nix::Result<usize> {
    sendto(forger.as_raw_fd(), message, to, MsgFlags::MSG_DONTWAIT)
}

fn heard(ear: &Ear) -> Vec<String> {
    let (mut buffer, mut prefixes) = (vec![0; 1 << 16], Vec::new());
    loop {
        match hear(ear, &mut buffer).unwrap() {
            Heard::Nothing => return prefixes,
            Heard::Lost => {}
            Heard::Bytes(length) => {
                prefixes.extend(log::logged(&buffer[..length]).map(|one| one.prefix));
            }
        }
    }
}

#[test]
fn what_a_process_sends_to_our_sockets_is_no_word_of_the_kernels() {
    let netns = TestNetns::new();
    let mut table = open(&netns);
    let listeners = listen(&netns, None);
    let wanted = enforced();
    assert_eq!(inside_of(&netns, forge), (4, 0), "the table's and what is heard by take nothing");
    // Neither refused nor taken for done: the kernel's own answer counts.
    let before = table.dump().unwrap();
    assert!(before.ruleset.is_none(), "there is nothing yet, whoever says there is");
    inside_of(&netns, forge);
    table.commit(&plan(None, Some(&wanted)), None).unwrap();
    inside_of(&netns, forge);
    assert_eq!(table.dump().unwrap().ruleset.as_ref(), Some(&wanted));
    for ear in [listeners.denials.as_ref().unwrap(), listeners.answers.as_ref().unwrap()] {
        assert_eq!(heard(ear), Vec::<String>::new());
    }
    let mut buffer = vec![0; 1 << 16];
    assert_eq!(hear(&listeners.connections, &mut buffer).unwrap(), Heard::Nothing);

    // What is sent to all who are told of connections comes, and is nothing, and each is one look.
    const MANY: usize = 100;
    inside_of(&netns, || {
        let (forger, group) = (forger(), NetlinkAddr::new(0, 1));
        let connection = message(1 << 8, 0, 0, &[2, 0, 0, 0]);
        (0..MANY).for_each(|_| assert!(send(&forger, &connection, &group).is_ok()));
    });
    for _ in 0..MANY {
        assert_eq!(hear(&listeners.connections, &mut buffer).unwrap(), Heard::Bytes(0));
    }
    assert_eq!(hear(&listeners.connections, &mut buffer).unwrap(), Heard::Nothing);
}

#[test]
fn what_another_process_listens_to_is_asked_for_again_and_the_rest_is_heard_meanwhile() {
    let remotes: Vec<_> = PEER.iter().map(|peer| peer.parse().unwrap()).collect();
    let wire = Wire::new(&remotes, ["10.77.0.2", "fd77::2"]);
    let own = &wire.inside;
    let mut table = open(own);
    table.commit(&plan(None, Some(&enforced())), None).unwrap();
    let deny = || {
        let udp = Packet::Port { proto: L4Proto::Udp, port: DENIED };
        let flows: Vec<_> = remotes.iter().map(|to| (Direction::Egress, *to, udp)).collect();
        assert!(wire.probe(&flows).iter().all(|is_reached| !is_reached));
    };

    let Listeners { denials: others, answers, .. } = listen(own, None);
    drop(answers);
    let first = listen(own, None);
    assert_eq!(first.missing(), Some("another process listens to NFLOG group 5747 there"));
    assert!(first.answers.is_ok(), "what is free is heard");
    deny();
    let mut again = listen(own, Some(&first));
    assert!(again.denials.is_err(), "it is still another's");

    drop(others);
    again = listen(own, Some(&again));
    assert_eq!(again.missing(), None);
    deny();
    let told = heard(again.denials.as_ref().unwrap());
    assert!(!told.is_empty() && told.iter().all(|one| one.starts_with("seawall deny")), "{told:?}");

    // Who takes over finds nothing in the way, though the former still holds its sockets.
    let taken = listen(own, Some(&again));
    assert_eq!(taken.missing(), None);
    drop(again);
    deny();
    assert!(!heard(taken.denials.as_ref().unwrap()).is_empty());
}
