//! Owns one private Docker host with the application, its database and somebody outside who counts what gets there.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::contender::{Contender, Running};
use crate::harness::{Container, DockerHost, OUTSIDE_NET4, eventually};

/// The network of both containers.
pub(crate) const NETWORK: &str = "shop";
/// What the application may use: this port of the database.
pub(crate) const PORT: u16 = 5432;
/// What it may not: this port outside.
const DENIED: u16 = 47_474;
const SUBNET: &str = "172.24.77.0/24";
/// The database's addresses, by turns.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 24, 77, 200), Ipv4Addr::new(172, 24, 77, 201)];
const IMAGE: &str = "peers-inside:1";
const LIMIT: Duration = Duration::from_secs(30);

/// One contender on a host of its own.
pub(crate) struct Stand {
    pub(crate) contender: Contender,
    running: Running,
    outside: UdpSocket,
    moves: usize,
    length: Duration,
    // Last: the contender ends before its host does.
    host: DockerHost,
}

/// One start of the application.
#[derive(Debug)]
pub(crate) struct Start {
    /// How long `docker start` took.
    pub(crate) took: Duration,
    /// How many datagrams got out to where they must not.
    pub(crate) leaked: usize,
    /// When the last of them was sent, since the first instruction.
    pub(crate) enforced: Duration,
    /// When the first connection that is allowed was made, since the first instruction.
    pub(crate) allowed: Duration,
}

impl Stand {
    /// A host on which the database runs and the contender is ready. Each start sends for `length`.
    pub(crate) fn new(contender: Contender, length: Duration) -> Self {
        let host = DockerHost::start();
        import(&host);
        host.docker_ok(&["network", "create", "--subnet", SUBNET, NETWORK]);
        serve(&host, ADDRESSES[0]);
        let outside = host.outside().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DENIED)));
        let outside = outside.unwrap();
        nix::sys::socket::setsockopt(&outside, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))
            .unwrap();
        outside.set_nonblocking(true).unwrap();
        let running = contender.start(&host);
        Self { contender, running, outside, moves: 0, length, host }
    }

    pub(crate) fn processor_time(&self) -> Option<Duration> {
        self.running.processor_time()
    }

    /// Starts the application; it runs on. Its address is one that no start before had: rules that were left behind for
    /// another would be mistaken for its own.
    pub(crate) fn start(&self) -> Start {
        let own = application(self.moves).to_string();
        let millis = self.length.as_millis().to_string();
        let denied = SocketAddr::new(OUTSIDE_NET4, DENIED).to_string();
        let allowed = SocketAddr::from((self.address(), PORT)).to_string();
        let mut create = vec!["create", "--name", "app", "--runtime", self.contender.runtime()];
        create.extend(["--network", NETWORK, "--ip", &own, "--stop-timeout=0"]);
        create.extend(["--label", "com.docker.compose.project=shop"]);
        create.extend(["--label", "com.docker.compose.service=app"]);
        create.extend(["--label", "seawall.model=python"]);
        create.extend(["--env", "DATABASE_URL=postgresql://db:5432/shop"]);
        create.extend([IMAGE, "send", &millis, &denied, &allowed]);
        self.host.docker_ok(&create);
        self.drain();
        let began = Instant::now();
        self.host.docker_ok(&["start", "app"]);
        let took = began.elapsed();
        said(&self.host, "app", "sent");
        // What was sent last is on its way for much less.
        std::thread::sleep(Duration::from_millis(50));
        let out = self.drain();
        Start {
            took,
            leaked: out.len(),
            enforced: out.into_iter().max().unwrap_or_default(),
            allowed: Duration::from_micros(said(&self.host, "app", "allowed")),
        }
    }

    /// Exchanges the database for one at another address; how long after it serves the application gets to it.
    pub(crate) fn move_database(&mut self) -> Duration {
        let app = self.host.container("app");
        self.host.docker_ok(&["rm", "--force", "db"]);
        self.moves += 1;
        let to = self.address();
        introduce(&app, to);
        let reached = std::thread::scope(|scope| {
            let reached = scope.spawn(|| first_connection(&app, SocketAddr::from((to, PORT))));
            serve(&self.host, to);
            reached.join().unwrap()
        });
        let serves = Duration::from_micros(said(&self.host, "db", "serves"));
        reached.saturating_sub(serves)
    }

    /// Takes the application away.
    pub(crate) fn remove(&self) {
        self.host.docker_ok(&["rm", "--force", "app"]);
    }

    fn address(&self) -> Ipv4Addr {
        ADDRESSES[self.moves % ADDRESSES.len()]
    }

    /// What came outside since it was asked last: when each was sent, since the first.
    fn drain(&self) -> Vec<Duration> {
        let mut datagram = [0; 8];
        std::iter::from_fn(|| self.outside.recv(&mut datagram).ok().map(|_| datagram))
            .map(|datagram| Duration::from_micros(u64::from_be_bytes(datagram)))
            .collect()
    }
}

/// The application's address in a round.
fn application(round: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 24, 77, 10 + u8::try_from(round).expect("few rounds"))
}

/// Makes the image of both containers.
fn import(host: &DockerHost) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("inside");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-Copt-level=2", "-Ctarget-feature=+crt-static", "-o"]);
    rustc.arg(&program).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/inside.rs"));
    assert!(rustc.status().unwrap().success());
    let archive = folder.path().join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.path()).arg("-cf").arg(&archive).arg("inside");
    assert!(tar.status().unwrap().success());
    let archive = archive.display().to_string();
    host.docker_ok(&["import", "--change", "ENTRYPOINT [\"/inside\"]", &archive, IMAGE]);
}

/// Starts the database.
fn serve(host: &DockerHost, address: Ipv4Addr) {
    let (address, port) = (address.to_string(), PORT.to_string());
    let mut run = vec!["run", "--detach", "--name", "db", "--network", NETWORK, "--ip", &address];
    run.extend(["--stop-timeout=0", "--label", "com.docker.compose.project=shop"]);
    run.extend(["--label", "com.docker.compose.service=db"]);
    run.extend(["--label", "seawall.model=postgres", IMAGE, "serve", &port]);
    host.docker_ok(&run);
}

/// The number after a word at the beginning of a line of a container's output, when it is there.
fn said(host: &DockerHost, container: &str, word: &str) -> u64 {
    eventually(&format!("'{word}' of {container}"), LIMIT, || {
        let logs = host.docker_ok(&["logs", container]);
        let number = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
        logs.lines().find_map(number)
    })
}

/// Tells a container the link address of the database's next address, which Docker makes of that address. Otherwise the
/// container would ask before anybody has the address, and then not again for a second.
fn introduce(container: &Container, address: Ipv4Addr) {
    let [a, b, c, d] = address.octets();
    let link = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", container.netns().path().display()));
    command.args(["ip", "neigh", "replace", &address.to_string(), "lladdr", &link]);
    assert!(command.args(["nud", "permanent", "dev", "eth0"]).status().unwrap().success());
}

/// When the first connection from a container is made, since 1970.
fn first_connection(container: &Container, to: SocketAddr) -> Duration {
    container.netns().run(|| {
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect_timeout(&to, Duration::from_millis(5)).is_err() {
            assert!(Instant::now() < deadline, "no connection to {to} within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    })
}
