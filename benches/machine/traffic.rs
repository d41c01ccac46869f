//! Allowed traffic under rulesets of 10, 1,000 and 100,000 tuples, beside no rules, connection tracking alone, the plainest
//! stateful ruleset, and a linear chain as iptables-nft writes it.
//!
//! Turn by turn within each round, so that what else the machine does is everybody's; each figure is of one round, and a
//! ratio the median of each round's own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use seawall::compile::guard::Terms;
use seawall::config::Ownership;
use seawall::metadata::WorkloadId;
use seawall::reconcile::{Kernel, Target, Wanted};

use crate::effort::Effort;
use crate::figures::{Figure, Samples, Sheet};
use crate::loads::{peer, ruleset};
use crate::rate::{Rate, rate};
use crate::spaces::{Hub, Space, fed};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PORT: u16 = 4321;
/// What everybody would write.
const ESTABLISHED: &str = "table inet plain {
    chain out {
        type filter hook output priority filter; policy drop;
        ct state established accept
        ip daddr 10.9.0.1 tcp dport 4321 accept
        ip daddr 10.9.0.1 udp dport 4321 accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain in {
        type filter hook input priority filter; policy drop;
        ct state established accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
}";
/// What makes the kernel track connections, and nothing else.
const TRACKED: &str = "table inet plain {
    chain out { type filter hook output priority filter; ct state new accept; }
    chain in { type filter hook input priority filter; ct state new accept; }
}";

/// What stands in the netns while traffic flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    None,
    Tracked,
    Established,
    Seawall(usize),
    /// The same without what keeps packet sockets in check.
    Unguarded(usize),
    /// One rule for each tuple, the one that matters last; no state is asked.
    Linear(usize),
}

impl Rules {
    /// Those that are measured, with at most so many tuples and linear rules; the first three are always there.
    fn all((tuples, rules): (usize, usize)) -> Vec<Self> {
        let mut all = vec![Self::Established, Self::None, Self::Tracked];
        all.extend(
            [10, 1_000, 100_000].into_iter().filter(|one| *one <= tuples).map(Self::Seawall),
        );
        all.push(Self::Unguarded(tuples));
        all.extend([10, 1_000, 10_000].into_iter().filter(|one| *one <= rules).map(Self::Linear));
        all
    }

    fn is_large(self) -> bool {
        match self {
            Self::Seawall(many) | Self::Unguarded(many) | Self::Linear(many) => many >= VERY_MANY,
            Self::None | Self::Tracked | Self::Established => false,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::None => "no firewall".to_owned(),
            Self::Tracked => "connection tracking alone".to_owned(),
            Self::Established => "established accept".to_owned(),
            Self::Seawall(tuples) => format!("seawall, {tuples} tuples"),
            Self::Unguarded(tuples) => format!("seawall without guard, {tuples} tuples"),
            Self::Linear(rules) => format!("iptables-nft, {rules} rules"),
        }
    }
}

/// How long the kernel is left alone after it took very many elements or rules: what it has still to do with them takes
/// processor time, whatever the traffic meets.
const SETTLE: Duration = Duration::from_secs(3);
/// So many.
const VERY_MANY: usize = 10_000;

type Measure = fn(&Space, Duration) -> Rate;
const MEASURES: [(&str, &str, Measure); 4] = [
    ("TCP bulk", "MB/s", bulk),
    ("small datagrams", "1/s", small),
    ("UDP round trips", "1/s", round_trips),
    ("TCP connections", "1/s", connections),
];

pub(crate) fn measure(effort: Effort) -> Sheet {
    let hub = Hub::new("t");
    let space = hub.space(0, &[OWN.into()]);
    hub.connect(0..1);
    let (rounds, time) = effort.traffic;
    let all = Rules::all(effort.most);
    let outside = format!("addr add {OTHER}/16 dev v0\nlink set lo up\n");
    fed(Command::new("ip").args(["-n", hub.name(), "-batch", "-"]), &outside);
    serve(&hub);
    let bed = Bed { space, kernel: Kernel::start().unwrap().with_ownership(Ownership::Off) };
    let mut rates = vec![[const { Vec::new() }; 4]; all.len()];
    for round in 0..rounds {
        for turn in 0..all.len() {
            let which = (turn + round) % all.len();
            let held = bed.put(all[which]);
            if all[which].is_large() {
                std::thread::sleep(SETTLE);
            }
            for (kept, (_, _, measure)) in rates[which].iter_mut().zip(MEASURES) {
                kept.push(measure(&bed.space, time));
            }
            bed.clear(held);
        }
        eprintln!("traffic: round {} of {rounds}", round + 1);
    }
    Sheet::new("traffic", effort.is_quick, figures(&all, &rates))
}

fn figures(all: &[Rules], rates: &[[Vec<Rate>; 4]]) -> Vec<Figure> {
    let of = |rules: Rules| Some(&rates[all.iter().position(|one| *one == rules)?]);
    let mut figures = Vec::new();
    for (at, (what, unit, _)) in MEASURES.into_iter().enumerate() {
        for (rules, own) in all.iter().zip(rates) {
            let own = &own[at];
            let walls = |rates: &[Rate]| Samples::new(rates.iter().map(|one| one.wall).collect());
            let mut figure = Figure::new(format!("{what}: {}", rules.name()), unit, walls(own));
            let beside =
                [Rules::None, Rules::Established, Rules::Seawall(10), Rules::Linear(10_000)];
            for other in beside.into_iter().filter(|other| other != rules) {
                let Some(theirs) = of(other).map(|theirs| &theirs[at]) else { continue };
                let by = |value: fn(&Rate) -> f64| {
                    let each = own.iter().zip(theirs).map(|(own, other)| value(own) / value(other));
                    Samples::new(each.collect()).p50
                };
                figure = figure.beside_by(&other.name(), walls(theirs), by(|one| one.wall));
                let name = format!("{}, by processor time", other.name());
                figure = figure.beside_by(&name, walls(theirs), by(|one| one.processor));
            }
            figures.push(figure);
        }
    }
    figures
}

/// The netns traffic leaves from.
struct Bed {
    space: Space,
    kernel: Kernel,
}

impl Bed {
    /// Brings rules into force; what is returned is held as long as they are.
    fn put(&self, rules: Rules) -> Option<Target> {
        let load = |program: &'static str, text: String| {
            self.space.inside(move || fed(Command::new(program).args(["-f", "-"]), &text));
        };
        match rules {
            Rules::None => None,
            Rules::Tracked => {
                load("nft", TRACKED.to_owned());
                None
            }
            Rules::Established => {
                load("nft", ESTABLISHED.to_owned());
                None
            }
            Rules::Linear(many) => {
                let text = linear(many);
                self.space.inside(move || fed(&mut Command::new("iptables-nft-restore"), &text));
                None
            }
            Rules::Seawall(tuples) => Some(self.apply(tuples, true)),
            Rules::Unguarded(tuples) => Some(self.apply(tuples, false)),
        }
    }

    fn apply(&self, tuples: usize, guards: bool) -> Target {
        let wanted = ruleset(tuples, 0, Some(&format!("{OTHER}/32")));
        let mut target = Target {
            owner: WorkloadId::new("w"),
            pid: self.space.pid(),
            process: None,
            wanted: Wanted {
                table: Some(Arc::new(wanted)),
                guard: Terms { guards, denies: true, ..Terms::default() },
            },
            is_fresh: true,
            known: None,
            socket: None,
            watching: None,
        };
        self.kernel.apply(&mut target).unwrap();
        target
    }

    fn clear(&self, held: Option<Target>) {
        drop(held);
        self.space.inside(|| fed(Command::new("nft").args(["-f", "-"]), "flush ruleset\n"));
    }
}

/// A chain of one rule for each tuple, that of what is used last.
fn linear(many: usize) -> String {
    let mut text =
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n".to_owned();
    for number in 0..many.saturating_sub(2) {
        text +=
            &format!("-A OUTPUT -d {}/32 -p tcp -m tcp --dport 443 -j ACCEPT\n", peer(number, 0));
    }
    for proto in ["tcp", "udp"] {
        text +=
            &format!("-A OUTPUT -d {OTHER}/32 -p {proto} -m {proto} --dport {PORT} -j ACCEPT\n");
    }
    text + "COMMIT\n"
}

/// Takes what is sent over TCP; echoes datagrams of one byte and takes others.
fn serve(hub: &Hub) {
    let file = std::fs::File::open(format!("/run/netns/{}", hub.name())).unwrap();
    let opened = std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        (TcpListener::bind((OTHER, PORT)).unwrap(), UdpSocket::bind((OTHER, PORT)).unwrap())
    });
    let (listener, socket) = opened.join().unwrap();
    std::thread::spawn(move || {
        let mut taken = vec![0; 1 << 20];
        // One after the other: only one client is there at a time.
        while let Ok((mut stream, _)) = listener.accept() {
            while stream.read(&mut taken).is_ok_and(|length| length > 0) {}
        }
    });
    std::thread::spawn(move || {
        let mut taken = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut taken) {
            if length == 1 {
                // Who asked may have gone.
                let _ = socket.send_to(&taken[..1], from);
            }
        }
    });
}

fn there() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(OTHER), PORT)
}

fn bulk(space: &Space, time: Duration) -> Rate {
    space.inside(move || {
        let mut stream = TcpStream::connect(there()).unwrap();
        let data = vec![0; 256 << 10];
        // Past the slow start.
        for _ in 0..32 {
            stream.write_all(&data).unwrap();
        }
        let Rate { wall, processor } =
            rate(time, || stream.write_all(&data).map_or(0, |()| data.len()));
        Rate { wall: wall / 1e6, processor: processor / 1e6 }
    })
}

fn datagrams() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.connect(there()).unwrap();
    socket
}

fn small(space: &Space, time: Duration) -> Rate {
    space.inside(move || {
        let socket = datagrams();
        rate(time, || (0..50).filter(|_| socket.send(&[0; 64]).is_ok()).count())
    })
}

fn round_trips(space: &Space, time: Duration) -> Rate {
    space.inside(move || {
        let socket = datagrams();
        rate(time, || {
            socket.send(&[1]).unwrap();
            usize::from(socket.recv(&mut [0; 8]).is_ok())
        })
    })
}

fn connections(space: &Space, time: Duration) -> Rate {
    space.inside(move || {
        rate(time, || {
            let mut stream = TcpStream::connect(there()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // Closed first by the other end: it keeps the wait.
            usize::from(stream.read(&mut [0; 8]).is_ok())
        })
    })
}
