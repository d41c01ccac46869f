//! A netns with a guard beside one without: what they hold, and ordinary traffic between them.
#![allow(dead_code, reason = "not every test uses everything")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seawall::compile::guard::{DENY, Terms};
use seawall::compile::sender::SENDER;
use seawall::compile::{Options, Ruleset, compile};
use seawall::config::Ownership;
use seawall::input::Text;
use seawall::metadata::{Inventory, Runtime, Workload, WorkloadId};
use seawall::nft::netns::Entrance;
use seawall::nft::socket::Dump;
use seawall::nft::{KernelTable, Netns};
use seawall::policy::{Action, Direction, Mode, Peer, Policy, Provenance, Statement, Traffic};
use seawall::reconcile::{Applied, Kernel, Target, Wanted, Watching};

use crate::netns::{TestNetns, inside_of};

pub(crate) const OWN4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
/// What may be reached, in both directions.
pub(crate) const PORT: u16 = 4321;
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Guarded {
    pub(crate) inside: TestNetns,
    pub(crate) outside: TestNetns,
    pub(crate) terms: Terms,
    pub(crate) mode: Mode,
    kernel: Kernel,
    target: Target,
    /// Whose netns it is.
    process: Child,
}

impl Guarded {
    /// Two namespaces joined by a veth pair, with addresses of both families.
    pub(crate) fn new() -> Self {
        Self::joined(|inside, outside| join(inside, "eth0", outside, "eth0"))
    }

    /// The same by a link of another kind (`ipvlan`, `mode l2`), on top of one whose other end is `eth0` outside.
    pub(crate) fn over(kind: &[&str]) -> Self {
        Self::joined(|inside, outside| {
            outside.ip(&["link", "add", "parent0", "type", "veth", "peer", "name", "eth0"]);
            outside.ip(&["link", "set", "parent0", "up"]);
            let made = ["link", "add", "made0", "link", "parent0", "type"];
            outside.ip(&[&made[..], kind].concat());
            outside.ip(&["link", "set", "made0", "netns", &inside.name]);
            inside.ip(&["link", "set", "made0", "name", "eth0"]);
        })
    }

    fn joined(join: impl FnOnce(&TestNetns, &TestNetns)) -> Self {
        let (inside, outside) = (TestNetns::new(), TestNetns::new());
        join(&inside, &outside);
        for (netns, v4, v6) in [(&inside, OWN4, OWN6), (&outside, OTHER4, OTHER6)] {
            netns.ip(&["addr", "add", &format!("{v4}/24"), "dev", "eth0"]);
            netns.ip(&["addr", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
            // A link-local address is used as soon as it is there.
            netns.run(&["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0"]);
            netns.ip(&["link", "set", "eth0", "up"]);
        }
        // Where what is off the link goes, for both families.
        inside.ip(&["route", "add", "default", "via", &OTHER4.to_string()]);
        inside.ip(&["-6", "route", "add", "default", "via", &OTHER6.to_string()]);
        let process = Command::new("ip")
            .args(["netns", "exec", &inside.name, "sleep", "600"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for_netns(process.id(), &inside);
        let target = Target {
            owner: WorkloadId::new("w"),
            pid: process.id(),
            process: None,
            wanted: Wanted::default(),
            is_fresh: false,
            known: None,
            socket: None,
            watching: None,
        };
        Self {
            inside,
            outside,
            terms: Terms { guards: true, denies: true, ..Terms::default() },
            mode: Mode::Enforce,
            kernel: Kernel::start().unwrap(),
            target,
            process,
        }
    }

    /// Brings the policy and its guard into force.
    pub(crate) fn apply(&mut self) -> Applied {
        self.target.wanted = Wanted {
            table: Some(ruleset(self.mode, &self.terms).into()),
            guard: self.terms.clone(),
        };
        self.bring()
    }

    /// Only the policy.
    pub(crate) fn apply_unguarded(&mut self) -> Applied {
        self.target.wanted =
            Wanted { table: Some(ruleset(self.mode, &self.terms).into()), guard: Terms::default() };
        self.bring()
    }

    fn bring(&mut self) -> Applied {
        let applied = self.kernel.apply(&mut self.target).unwrap();
        self.target.known = Some(applied.known.clone());
        if let Some(watching) = &mut self.target.watching {
            watching.inode = watching.opened.as_ref().map(|(inode, _)| *inode).or(watching.inode);
        }
        let dump = self.dump();
        assert_eq!(dump.ruleset, applied.known.ruleset, "what is read back is what was written");
        assert_eq!(dump.guard, applied.known.guard, "what is read back is what was written");
        applied
    }

    /// From the next change on somebody would be told of others' changes, so that nothing is read again. Nobody listens.
    pub(crate) fn watch(&mut self) {
        self.target.watching = Some(Watching::default());
    }

    /// Leaves the tables to everybody.
    pub(crate) fn share(&mut self) {
        self.kernel = Kernel::start().unwrap().with_ownership(Ownership::Off);
    }

    /// Takes everything of ours out of it.
    pub(crate) fn clear(&self) -> bool {
        self.kernel.clear(&Netns::open(&self.inside.path()).unwrap()).unwrap()
    }

    /// How many small datagrams leave in a second.
    pub(crate) fn packets_a_second(&self) -> u64 {
        inside_of(&self.inside, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect((OTHER4, PORT)).unwrap();
            let (began, time) = (Instant::now(), Duration::from_millis(100));
            let mut sent = 0;
            while began.elapsed() < time {
                for _ in 0..100 {
                    // Nobody listens, and says so.
                    sent += u64::from(socket.send(b"small").is_ok());
                }
            }
            sent * 10
        })
    }

    /// What the first transaction takes, without a guard and with: the middle of 21.
    pub(crate) fn first_transactions(&mut self) -> [Duration; 2] {
        self.share();
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..21 {
            for (guards, took) in took.iter_mut().enumerate() {
                self.clear();
                self.doubt();
                let applied = if guards == 0 { self.apply_unguarded() } else { self.apply() };
                took.push(applied.took);
            }
        }
        took.map(|mut took| {
            took.sort();
            took[took.len() / 2]
        })
    }

    /// As if nothing were known of the kernel.
    pub(crate) fn doubt(&mut self) {
        self.target.known = None;
    }

    pub(crate) fn dump(&self) -> Dump {
        self.table().dump().unwrap()
    }

    fn table(&self) -> KernelTable {
        let netns = Netns::open(&self.inside.path()).unwrap();
        Entrance::start().unwrap().open_table(&netns).unwrap()
    }

    /// How many packets were stopped by the guard, or because of whom they say they are from.
    pub(crate) fn denied(&self) -> u64 {
        let counts = self.dump().counts;
        [DENY, SENDER]
            .into_iter()
            .filter_map(|chain| counts.get(chain))
            .map(|one| one.packets)
            .sum()
    }

    /// The number of a link inside.
    pub(crate) fn link(&self, name: &str) -> u32 {
        let netns = Netns::open(&self.inside.path()).unwrap();
        let links = Entrance::start().unwrap().look(&netns, false).unwrap().links;
        links.iter().find(|link| link.name == name).unwrap().index
    }

    pub(crate) fn mac(&self, netns: &TestNetns) -> [u8; 6] {
        let netns = Netns::open(&netns.path()).unwrap();
        let links = Entrance::start().unwrap().look(&netns, false).unwrap().links;
        links.iter().find(|link| link.name == "eth0").unwrap().mac.unwrap()
    }

    /// Sends something the policy allows.
    pub(crate) fn say(&self, to: IpAddr, words: &'static [u8]) {
        inside_of(&self.inside, move || {
            let socket = UdpSocket::bind(any(to)).unwrap();
            socket.send_to(words, (to, PORT)).unwrap();
        });
    }

    pub(crate) fn forget_neighbours(&self) {
        for netns in [&self.inside, &self.outside] {
            for family in ["-4", "-6"] {
                netns.ip(&[family, "neigh", "flush", "dev", "eth0"]);
            }
        }
    }

    pub(crate) fn ping(&self, to: IpAddr, size: usize) {
        ping(&self.inside, to, size);
    }

    /// The other end pings.
    pub(crate) fn ping_back(&self, of: IpAddr) {
        ping(&self.outside, if of.is_ipv4() { OWN4.into() } else { OWN6.into() }, 56);
    }

    /// Sends a datagram of this size, and returns the size of its echo.
    pub(crate) fn echo_udp(&self, to: IpAddr, size: usize) -> usize {
        let server = inside_of(&self.outside, move || UdpSocket::bind((to, PORT)).unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = inside_of(&self.inside, move || UdpSocket::bind(any(to)).unwrap());
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(&vec![7; size], (to, PORT)).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
        client.recv_from(&mut buffer).unwrap().0
    }

    /// Sends much by TCP, in packets larger than the link's, which the kernel cuts later.
    pub(crate) fn bulk_tcp(&self, to: IpAddr, size: usize) {
        let server = inside_of(&self.outside, move || TcpListener::bind((to, PORT)).unwrap());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all.len()
        });
        let mut client = inside_of(&self.inside, move || {
            TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE).unwrap()
        });
        client.write_all(&vec![7; size]).unwrap();
        drop(client);
        assert_eq!(reader.join().unwrap(), size);
    }

    /// Nobody listens inside: the error that says so reaches who asked.
    pub(crate) fn refused_udp(&self, of: IpAddr) {
        let own: IpAddr = if of.is_ipv4() { OWN4.into() } else { OWN6.into() };
        let error = inside_of(&self.outside, move || {
            let socket = UdpSocket::bind(any(of)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((own, PORT)).unwrap();
            socket.send(b"anybody?").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err()
        });
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Joins two namespaces by a veth pair.
pub(crate) fn join(left: &TestNetns, left_name: &str, right: &TestNetns, right_name: &str) {
    let peer = ["peer", "name", right_name, "netns", &right.name];
    left.ip(&[&["link", "add", left_name, "type", "veth"][..], &peer].concat());
}

/// `ip netns exec` enters the namespace only after it has begun.
fn wait_for_netns(pid: u32, netns: &TestNetns) {
    use std::os::unix::fs::MetadataExt as _;
    let inode = std::fs::metadata(netns.path()).unwrap().ino();
    let path = format!("/proc/{pid}/ns/net");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::metadata(&path).unwrap().ino() != inode {
        assert!(Instant::now() < deadline, "the process never entered its namespace");
        std::thread::yield_now();
    }
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn ping(netns: &TestNetns, to: IpAddr, size: usize) {
    let (to, size) = (to.to_string(), size.to_string());
    netns.run(&["ping", "-n", "-c", "1", "-W", "5", "-s", &size, &to]);
}

/// One port and ping, in both directions, within the two networks.
fn ruleset(mode: Mode, terms: &Terms) -> Ruleset {
    let mut workload = Workload::new(WorkloadId::new("w"), Text::new("w"), Runtime::Docker);
    workload.capabilities.net_raw = true;
    workload.capabilities.net_admin = terms.is_admin;
    let networks = ["10.9.0.0/24", "fd09::/64"];
    let ends = [Direction::Ingress, Direction::Egress];
    let statements = ends.into_iter().flat_map(|direction| {
        networks.map(|network| Statement {
            action: Action::Allow,
            direction,
            peer: Peer::Cidr(network.parse().unwrap()),
            traffic: [
                Traffic::Ports(format!("{PORT}/udp").parse().unwrap()),
                Traffic::Ports(format!("{PORT}/tcp").parse().unwrap()),
                Traffic::Ping,
            ]
            .into(),
            provenance: Provenance::Baseline,
        })
    });
    let policy = Policy {
        workload: workload.id.clone(),
        label: Text::new("w"),
        mode,
        mode_from: Provenance::Setting { key: "mode" },
        statements: statements.collect(),
        routes: terms.routes,
    };
    let inventory: Inventory = [workload].into_iter().collect();
    compile(&[&policy], &inventory, &Options::default()).unwrap()
}
