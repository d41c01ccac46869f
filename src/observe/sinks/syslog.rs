//! Owns telling a syslog, in the form of RFC 5424, over a unix datagram socket or UDP (RFC 5426).

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::outlet::Undelivered;
use crate::config::events::SyslogTarget;
use crate::input::time;
use crate::observe::record::Event;

/// How long the receiver may let us wait before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The facility `daemon` (RFC 5424, 6.2.1).
const FACILITY: u8 = 3;
/// Where the machine's name stands.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// A syslog.
#[derive(Debug)]
pub(super) struct Syslog {
    target: SyslogTarget,
    hostname: String,
}

impl Syslog {
    pub(super) fn new(target: SyslogTarget) -> Self {
        let hostname = std::fs::read_to_string(HOSTNAME).unwrap_or_default();
        Self { target, hostname: hostname.trim_end().to_owned() }
    }

    pub(super) fn deliver(&mut self, event: &Event) -> Result<(), Undelivered> {
        let message = message(event, &self.hostname, std::process::id());
        self.send(message.as_bytes()).map_err(|error| {
            let why = format!("{}: {error}", self.target);
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => Undelivered::Never(why),
                _ => Undelivered::Later(why),
            }
        })
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        match &self.target {
            SyslogTarget::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.send_to(message, path)?;
            }
            SyslogTarget::Udp { host, port } => {
                // Asked each time, because names move; this thread waits for nobody else.
                let found = (host.as_str(), *port).to_socket_addrs()?.next();
                let to = found.ok_or_else(|| io::Error::other("the name has no address"))?;
                let own: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                UdpSocket::bind(own)?.send_to(message, to)?;
            }
        }
        Ok(())
    }
}

/// One message. It has no line break, whatever is in the event.
pub(super) fn message(event: &Event, hostname: &str, pid: u32) -> String {
    let priority = FACILITY * 8 + event.kind.severity();
    let moment = time::utc(event.at_us / 1_000_000);
    let (moment, micros) = (moment.trim_end_matches('Z'), event.at_us % 1_000_000);
    let host: String = hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let kind = event.kind.word();
    let mut parameters = format!("kind=\"{kind}\" sequence=\"{}\"", event.sequence);
    let mut parameter = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(parameters, " {name}=\"{}\"", escaped(value));
    };
    if let Some(workload) = &event.workload {
        parameter("workload", workload.as_str());
    }
    if let Some(denial) = &event.denial {
        parameter("client", &denial.key.client.to_string());
        parameter("server", &denial.key.server.to_string());
        parameter("port", &denial.key.carried.to_string());
    }
    // 32473 is the enterprise number of examples (RFC 5612): seawall has none.
    format!(
        "<{priority}>1 {moment}.{micros:06}Z {host} seawall {pid} {kind} [seawall@32473 {parameters}] {}",
        event.message
    )
}

/// The value of a parameter (RFC 5424, 6.3.3).
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
