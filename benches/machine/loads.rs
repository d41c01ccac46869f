//! Rulesets of so many tuples, transactions as the nft command reads them, and the bare socket that sends their bytes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use seawall::compile::{Options, Ruleset, TABLE, TableFamily, compile};
use seawall::input::Text;
use seawall::metadata::{Inventory, Runtime, Workload, WorkloadId};
use seawall::nft::message::encode;
use seawall::nft::render::{element_text, rule_text};
use seawall::nft::{Op, Transaction, render};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement};

/// Room for the largest batch, in bytes.
const BUFFER: usize = 64 << 20;

/// A ruleset that allows `port` to and from `network` and so many tuples besides; `salt` makes it another's tuples.
pub(crate) fn ruleset(tuples: usize, salt: u8, open: Option<&str>) -> Ruleset {
    let ports = |text: &str| [seawall::policy::Traffic::Ports(text.parse().unwrap())].into();
    let state = |direction, network: &str, port: &str| Statement {
        action: Action::Allow,
        direction,
        peer: Peer::Cidr(network.parse().unwrap()),
        traffic: ports(port),
        provenance: Provenance::Baseline,
    };
    let mut statements: Vec<Statement> = (0..tuples)
        .map(|number| state(Direction::Egress, &format!("{}/32", peer(number, salt)), "443/tcp"))
        .collect();
    for direction in [Direction::Ingress, Direction::Egress] {
        for port in open.iter().flat_map(|_| ["4321/tcp", "4321/udp"]) {
            statements.extend(open.map(|address| state(direction, address, port)));
        }
    }
    let mut workload = Workload::new(WorkloadId::new("w"), Text::new("w"), Runtime::Docker);
    workload.capabilities.net_raw = true;
    let policy = Policy {
        workload: workload.id.clone(),
        label: Text::new("w"),
        mode: Mode::Enforce,
        mode_from: Provenance::Setting { key: "mode" },
        statements,
        routes: false,
    };
    let inventory: Inventory = [workload].into_iter().collect();
    compile(&[&policy], &inventory, &Options::default()).unwrap()
}

/// The address of a tuple.
pub(crate) fn peer(number: usize, salt: u8) -> IpAddr {
    let [_, high, middle, low] = u32::try_from(number).unwrap().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(11 + salt, high, middle, low))
}

/// The bytes of a transaction.
pub(crate) fn bytes(transaction: &Transaction) -> Vec<u8> {
    encode(transaction.operations(), None).bytes
}

/// What takes both tables away.
pub(crate) fn removal(of: &Transaction) -> Vec<u8> {
    let tables = of.operations().filter(|(_, op)| matches!(op, Op::AddTable | Op::AddOwnedTable));
    let ops: Vec<_> = tables.map(|(family, _)| (family, Op::DeleteTable)).collect();
    encode(ops.iter().map(|(family, op)| (*family, op)), None).bytes
}

/// A transaction as `nft -f` reads it: the tables as a whole where they are made, else one command for each operation.
pub(crate) fn script(transaction: &Transaction) -> String {
    let parts = std::iter::once(transaction).chain(transaction.with.as_deref());
    parts.map(script_of).collect()
}

fn script_of(transaction: &Transaction) -> String {
    let is_made = |op: &Op| matches!(op, Op::AddTable | Op::AddOwnedTable);
    match &transaction.target {
        Some(target) if transaction.ops.iter().any(is_made) => render(target),
        _ => transaction.ops.iter().map(|op| command(transaction.family, op)).collect(),
    }
}

fn command(family: TableFamily, op: &Op) -> String {
    let mut text = String::new();
    let listed = |set: &seawall::compile::ruleset::Set| {
        let all = set.elements.iter().map(|(element, comment)| element_text(set, element, comment));
        all.collect::<Vec<_>>().join(", ")
    };
    let bare = |set: &seawall::compile::ruleset::Set| {
        let none = seawall::compile::ruleset::Comment::default();
        let all = set.elements.keys().map(|element| element_text(set, element, &none));
        all.collect::<Vec<_>>().join(", ")
    };
    let table = format!("{family} {TABLE}");
    match op {
        Op::AddElements { name, set } => {
            write!(text, "add element {table} {name} {{ {} }}", listed(set))
        }
        Op::DeleteElements { name, set } => {
            write!(text, "delete element {table} {name} {{ {} }}", bare(set))
        }
        Op::FlushChain { chain } => write!(text, "flush chain {table} {chain}"),
        Op::AddRule { chain, rule } => {
            write!(text, "add rule {table} {chain} {}", rule_text(rule))
        }
        other => panic!("a change of elements does not need to {other}"),
    }
    .unwrap();
    text + "\n"
}

/// A netlink socket with nothing around it.
pub(crate) struct Bare(OwnedFd);

impl Bare {
    /// Opens it in the calling thread's netns.
    pub(crate) fn open() -> Self {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, kind, flags, SockProtocol::NetlinkNetFilter).unwrap();
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        setsockopt(&fd, sockopt::SndBufForce, &BUFFER).unwrap();
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).unwrap();
        Self(fd)
    }

    /// Sends a batch, which must be taken.
    pub(crate) fn send(&self, bytes: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), bytes, MsgFlags::empty()), Ok(bytes.len()));
        // Acknowledgements, if any: the error number, behind the header, is none.
        let mut answer = [0; 1 << 16];
        loop {
            match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return,
                said => assert_eq!((said.is_ok(), &answer[16..20]), (true, &[0; 4][..]), "refused"),
            }
        }
    }
}
