//! Two namespaces joined by a veth pair, servers on both sides, and probes with real packets.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, accept,
    bind, connect, getsockopt, listen, recv, recvfrom, send, sendto, setsockopt, socket, sockopt,
};
use seawall::metadata::L4Proto;
use seawall::policy::Direction;
use seawall::policy::evaluate::Packet;

use crate::netns::{TestNetns, inside_of};

/// How long a packet may take; what is dropped is waited for this long.
const PATIENCE: Duration = Duration::from_millis(500);
/// Flows tried at once.
const AT_ONCE: usize = 250;
const PORTS: [u16; 6] = [22, 53, 80, 443, 5432, 8005];

/// Inside is the workload under test; outside has every other address.
pub(crate) struct Wire {
    pub(crate) inside: TestNetns,
    pub(crate) outside: TestNetns,
    own: Vec<IpAddr>,
    servers: Vec<Server>,
}

struct Server {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn new(remotes: &[IpAddr], own: [&str; 2]) -> Self {
        let (inside, outside) = (TestNetns::new(), TestNetns::new());
        let (a, b) = ("eth0", "wire0");
        inside.ip(&["link", "add", a, "type", "veth", "peer", "name", b, "netns", &outside.name]);
        let own: Vec<IpAddr> = own.iter().map(|address| address.parse().unwrap()).collect();
        let sides = [(&inside, a, own.as_slice()), (&outside, b, remotes)];
        for (netns, device, addresses) in sides {
            netns.run(&["sysctl", "-qw", "net.ipv4.ping_group_range=0 0"]);
            for address in addresses {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let text = format!("{address}/{bits}");
                let mut words = vec!["addr", "add", text.as_str(), "dev", device];
                if address.is_ipv6() {
                    words.push("nodad");
                }
                netns.ip(&words);
            }
            netns.ip(&["link", "set", device, "up"]);
            netns.ip(&["route", "add", "default", "dev", device]);
            netns.ip(&["-6", "route", "add", "default", "dev", device]);
        }
        let servers = vec![serve(&inside, own.clone()), serve(&outside, remotes.to_vec())];
        let wire = Self { inside, outside, own, servers };
        wire.wait_until_up(remotes);
        wire
    }

    /// A new veth needs a moment for its link-local address and the first neighbour discovery.
    fn wait_until_up(&self, remotes: &[IpAddr]) {
        let flows: Vec<_> =
            remotes.iter().map(|remote| (Direction::Egress, *remote, Packet::Ping)).collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.probe(&flows).contains(&false) {
            assert!(Instant::now() < deadline, "the veth pair does not carry packets");
        }
    }

    /// Tries flows with real packets. Returns for each whether an answer came back.
    pub(crate) fn probe(&self, flows: &[(Direction, IpAddr, Packet)]) -> Vec<bool> {
        flows.chunks(AT_ONCE).flat_map(|chunk| self.probe_chunk(chunk)).collect()
    }

    fn probe_chunk(&self, flows: &[(Direction, IpAddr, Packet)]) -> Vec<bool> {
        let attempts = flows.iter().map(|(direction, remote, packet)| {
            let own =
                self.own.iter().copied().find(|own| own.is_ipv4() == remote.is_ipv4()).unwrap();
            match direction {
                Direction::Ingress => (&self.outside, *remote, own, *packet),
                Direction::Egress => (&self.inside, own, *remote, *packet),
            }
        });
        let mut open: Vec<(usize, OwnedFd, Packet)> = Vec::new();
        let mut reached = vec![false; flows.len()];
        let attempts: Vec<_> = attempts.collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            let own: Vec<(usize, IpAddr, IpAddr, Packet)> = attempts
                .iter()
                .enumerate()
                .filter(|(index, _)| flows[*index].0 == direction)
                .map(|(index, (_, from, to, packet))| (index, *from, *to, *packet))
                .collect();
            let netns = if direction == Direction::Ingress { &self.outside } else { &self.inside };
            open.extend(inside_of(netns, move || {
                own.into_iter()
                    .filter_map(|(index, from, to, packet)| {
                        Some((index, start(from, to, packet)?, packet))
                    })
                    .collect::<Vec<_>>()
            }));
        }
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(timeout) = PollTimeout::try_from(left) else { break };
            if left.is_zero() {
                break;
            }
            let mut fds: Vec<PollFd<'_>> = open
                .iter()
                .map(|(_, fd, packet)| {
                    let is_tcp = matches!(packet, Packet::Port { proto: L4Proto::Tcp, .. });
                    PollFd::new(
                        fd.as_fd(),
                        if is_tcp { PollFlags::POLLOUT } else { PollFlags::POLLIN },
                    )
                })
                .collect();
            poll(&mut fds, timeout).unwrap();
            let ready: Vec<bool> = fds
                .iter()
                .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
                .collect();
            let mut ready = ready.into_iter();
            open.retain(|(index, fd, packet)| {
                let is_ready = ready.next().unwrap();
                if is_ready {
                    reached[*index] = is_answered(fd, *packet);
                }
                !is_ready
            });
        }
        reached
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.stop.write_all(b"x");
            if let Some(thread) = server.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn new_socket(address: IpAddr, kind: SockType, proto: Option<SockProtocol>) -> OwnedFd {
    socket(family(address), kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, proto).unwrap()
}

fn storage(address: IpAddr, port: u16) -> SockaddrStorage {
    SocketAddr::new(address, port).into()
}

/// Sends the first packet. `None` when the system refuses at once.
fn start(from: IpAddr, to: IpAddr, packet: Packet) -> Option<OwnedFd> {
    match packet {
        Packet::Port { proto: L4Proto::Tcp, port } => {
            let fd = new_socket(from, SockType::Stream, None);
            bind(fd.as_raw_fd(), &storage(from, 0)).unwrap();
            match connect(fd.as_raw_fd(), &storage(to, port)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Some(fd),
                Err(_) => None,
            }
        }
        Packet::Port { port, .. } => {
            let fd = new_socket(from, SockType::Datagram, None);
            bind(fd.as_raw_fd(), &storage(from, 0)).unwrap();
            connect(fd.as_raw_fd(), &storage(to, port)).unwrap();
            send(fd.as_raw_fd(), b"hello", MsgFlags::empty()).ok().map(|_| fd)
        }
        Packet::Ping => {
            let (proto, kind) = match from {
                IpAddr::V4(_) => (SockProtocol::Icmp, 8),
                IpAddr::V6(_) => (SockProtocol::IcmpV6, 128),
            };
            let fd = new_socket(from, SockType::Datagram, Some(proto));
            bind(fd.as_raw_fd(), &storage(from, 0)).unwrap();
            let request = [kind, 0, 0, 0, 0, 0, 0, 1];
            sendto(fd.as_raw_fd(), &request, &storage(to, 0), MsgFlags::empty()).ok().map(|_| fd)
        }
    }
}

fn is_answered(fd: &OwnedFd, packet: Packet) -> bool {
    match packet {
        Packet::Port { proto: L4Proto::Tcp, .. } => {
            matches!(getsockopt(fd, sockopt::SocketError), Ok(0))
        }
        _ => recv(fd.as_raw_fd(), &mut [0; 64], MsgFlags::empty()).is_ok(),
    }
}

/// Accepts TCP and echoes UDP on every address and port until the wire is dropped.
fn serve(netns: &TestNetns, addresses: Vec<IpAddr>) -> Server {
    let (stop, stopped) = UnixStream::pair().unwrap();
    let sockets: Vec<(OwnedFd, bool)> = inside_of(netns, move || {
        let mut sockets = Vec::new();
        for port in PORTS {
            let any = new_socket("::".parse().unwrap(), SockType::Stream, None);
            setsockopt(&any, sockopt::ReuseAddr, &true).unwrap();
            bind(any.as_raw_fd(), &storage("::".parse().unwrap(), port)).unwrap();
            listen(&any, Backlog::new(1024).unwrap()).unwrap();
            sockets.push((any, true));
            for address in &addresses {
                let echo = new_socket(*address, SockType::Datagram, None);
                bind(echo.as_raw_fd(), &storage(*address, port)).unwrap();
                sockets.push((echo, false));
            }
        }
        sockets
    });
    let thread = std::thread::spawn(move || {
        let by_fd: HashMap<i32, bool> =
            sockets.iter().map(|(fd, is_tcp)| (fd.as_raw_fd(), *is_tcp)).collect();
        loop {
            let mut fds: Vec<PollFd<'_>> =
                sockets.iter().map(|(fd, _)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
            fds.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
            poll(&mut fds, PollTimeout::NONE).unwrap();
            let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            if is_ready(&fds[fds.len() - 1]) {
                break;
            }
            for fd in fds.iter().filter(|fd| is_ready(fd)) {
                let raw = fd.as_fd().as_raw_fd();
                if by_fd[&raw] {
                    while let Ok(connection) = accept(raw) {
                        let _ = nix::unistd::close(connection);
                    }
                } else {
                    let mut buffer = [0; 64];
                    // One, then the others' turn: on one processor a client that asks as fast as it is answered would
                    // keep all others waiting for as long as it likes.
                    if let Ok((length, Some(from))) = recvfrom::<SockaddrStorage>(raw, &mut buffer)
                    {
                        let _ = sendto(raw, &buffer[..length], &from, MsgFlags::empty());
                    }
                }
            }
        }
    });
    Server { stop, thread: Some(thread) }
}
