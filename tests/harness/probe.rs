//! Owns probes: what becomes of a connection attempt, a datagram or a ping, and servers that answer them.
//!
//! All of it is done from here, in the netns of a container, so that it works the same in any image.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockProtocol, SockType, shutdown, socket,
};

use super::netns::Netns;

/// What became of an attempt. A denial shows as any of the last three, a pass only as the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Probe {
    /// The other side answered.
    Reached,
    /// Reset, or ICMP port unreachable: nobody listens there, or a firewall rejects.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// No route, ICMP administratively prohibited, or the local kernel refused to send.
    Unreachable,
}

impl Probe {
    /// Whether the other side answered.
    pub(crate) fn is_reached(self) -> bool {
        self == Self::Reached
    }

    #[track_caller]
    fn from_error(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied => Self::Unreachable,
            _ => panic!("a probe failed in an unexpected way: {error}"),
        }
    }

    fn of<T>(result: std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Reached,
            Err(error) => Self::from_error(&error),
        }
    }
}

impl Netns {
    /// Makes a TCP connection to `to`, and closes it.
    pub(crate) fn tcp(&self, to: SocketAddr, limit: Duration) -> Probe {
        self.run(|| Probe::of(TcpStream::connect_timeout(&to, limit)))
    }

    /// Sends a datagram to `to` and waits for its echo.
    pub(crate) fn udp(&self, to: SocketAddr, limit: Duration) -> Probe {
        self.run(|| {
            let attempt = || -> std::io::Result<()> {
                let socket = UdpSocket::bind((unspecified(to.ip()), 0))?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(limit))?;
                socket.send(b"seawall")?;
                socket.recv(&mut [0; 16]).map(drop)
            };
            Probe::of(attempt())
        })
    }

    /// Sends one ICMP or ICMPv6 echo request to `to` (RFC 792, RFC 4443) and waits for the reply.
    pub(crate) fn ping(&self, to: IpAddr, limit: Duration) -> Probe {
        self.run(|| Probe::of(echo(to, limit)))
    }

    /// Opens a connection that stays.
    pub(crate) fn flow(&self, to: SocketAddr, limit: Duration) -> std::io::Result<Flow> {
        self.run(|| TcpStream::connect_timeout(&to, limit).map(Flow))
    }

    /// Sends one HTTP request; status and body, or what went wrong.
    pub(crate) fn http(
        &self,
        to: SocketAddr,
        path: &str,
        limit: Duration,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = self.run(|| TcpStream::connect_timeout(&to, limit))?;
        stream.set_read_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(ErrorKind::InvalidData)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or(ErrorKind::InvalidData)?;
        Ok((status, body.to_owned()))
    }

    /// Serves TCP on `port`, IPv4 and IPv6, echoing what comes, until dropped.
    pub(crate) fn tcp_server(&self, port: u16) -> Server {
        let listener = self
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .unwrap_or_else(|error| panic!("cannot listen on TCP {port} in {self:?}: {error}"));
        let accepting = listener.try_clone().expect("a listener can be cloned");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                std::thread::spawn(move || {
                    let mut reader = stream.try_clone()?;
                    std::io::copy(&mut reader, &mut stream)
                });
            }
        });
        Server::Tcp(listener)
    }

    /// Echoes UDP on `port`, IPv4 and IPv6, until dropped.
    pub(crate) fn udp_server(&self, port: u16) -> Server {
        let socket = self
            .run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .unwrap_or_else(|error| panic!("cannot listen on UDP {port} in {self:?}: {error}"));
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !seen.load(Ordering::Relaxed) {
                if let Ok((size, from)) = socket.recv_from(&mut datagram) {
                    // The reply may be denied: then the prober sees no answer, which is what it asks.
                    let _ = socket.send_to(&datagram[..size], from);
                }
            }
        });
        Server::Udp(ended)
    }
}

/// A server in some netns; dropping it frees its port.
pub(crate) enum Server {
    /// A TCP listener.
    Tcp(TcpListener),
    /// Tells a UDP server to end.
    Udp(Arc<AtomicBool>),
}

impl Drop for Server {
    fn drop(&mut self) {
        match self {
            // Closing alone would not wake the thread that accepts.
            Self::Tcp(listener) => drop(shutdown(listener.as_raw_fd(), Shutdown::Both)),
            Self::Udp(ended) => ended.store(true, Ordering::Relaxed),
        }
    }
}

/// A TCP connection to a server that echoes.
pub(crate) struct Flow(TcpStream);

impl Flow {
    /// Sends a byte and waits for it to come back: whether the connection still passes packets.
    pub(crate) fn exchange(&mut self, limit: Duration) -> Probe {
        let attempt = |stream: &mut TcpStream| -> std::io::Result<()> {
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(b"s")?;
            match stream.read(&mut [0; 1])? {
                0 => Err(ErrorKind::ConnectionReset.into()),
                _ => Ok(()),
            }
        };
        match attempt(&mut self.0) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Probe::Refused,
            result => Probe::of(result),
        }
    }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn echo(to: IpAddr, limit: Duration) -> std::io::Result<()> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    // A raw socket behaves like any other to send_to and recv_from, which is all that is asked of it here.
    let socket = UdpSocket::from(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?);
    let identifier = (std::process::id() as u16).to_be_bytes();
    let mut message = vec![request, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    if to.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    socket.send_to(&message, (to, 0))?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; 2048];
        let (size, from) = socket.recv_from(&mut buffer)?;
        // IPv4 raw sockets give the IP header too; its length is in its first byte.
        let start = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let answer = &buffer[start.min(size)..size];
        if from.ip() == to && answer.len() >= 8 && answer[0] == reply && answer[4..6] == identifier
        {
            return Ok(());
        }
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
