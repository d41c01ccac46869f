//! Owns a test's view of one running container.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::netns::Netns;
use super::probe::{Probe, Server};

/// Long enough for a busy machine, shorter than TCP's second SYN.
const LIMIT: Duration = Duration::from_millis(800);

/// A running container, as `docker inspect` told when it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its full id.
    pub(crate) id: String,
    /// Its name, without the slash.
    pub(crate) name: String,
    /// The pid of its first process.
    pub(crate) pid: u32,
    /// Its addresses by network name.
    pub(crate) addresses: BTreeMap<String, (Option<Ipv4Addr>, Option<Ipv6Addr>)>,
}

impl Container {
    pub(super) fn from_inspect(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let networks =
            value["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
        let pid = value["State"]["Pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default();
        let name = text(&value["Name"]).trim_start_matches('/').to_owned();
        assert!(pid != 0, "container {name} does not run: {}", value["State"]);
        Self {
            id: text(&value["Id"]),
            name,
            pid,
            addresses: networks
                .iter()
                .map(|(name, network)| {
                    let v4 = text(&network["IPAddress"]).parse().ok();
                    let v6 = text(&network["GlobalIPv6Address"]).parse().ok();
                    (name.clone(), (v4, v6))
                })
                .collect(),
        }
    }

    /// Its netns.
    pub(crate) fn netns(&self) -> Netns {
        Netns::of_pid(self.pid)
    }

    /// All its addresses.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let both = |(v4, v6): &(Option<Ipv4Addr>, Option<Ipv6Addr>)| {
            [v4.map(IpAddr::from), v6.map(IpAddr::from)].into_iter().flatten()
        };
        self.addresses.values().flat_map(both).collect()
    }

    /// Its addresses on networks that `other` is attached to as well: those `other` can reach it by without the host.
    pub(crate) fn ips_shared_with(&self, other: &Self) -> Vec<IpAddr> {
        let shared =
            self.addresses.iter().filter(|(network, _)| other.addresses.contains_key(*network));
        Self { addresses: shared.map(|(k, v)| (k.clone(), *v)).collect(), ..self.clone() }.ips()
    }

    /// From inside: a TCP connection.
    pub(crate) fn tcp(&self, ip: IpAddr, port: u16) -> Probe {
        self.netns().tcp(SocketAddr::new(ip, port), LIMIT)
    }

    /// From inside: a datagram and its echo.
    pub(crate) fn udp(&self, ip: IpAddr, port: u16) -> Probe {
        self.netns().udp(SocketAddr::new(ip, port), LIMIT)
    }

    /// From inside: an echo request.
    pub(crate) fn ping(&self, ip: IpAddr) -> Probe {
        self.netns().ping(ip, LIMIT)
    }

    /// An echo server inside, besides what the image runs.
    pub(crate) fn tcp_server(&self, port: u16) -> Server {
        self.netns().tcp_server(port)
    }

    /// A UDP echo server inside.
    pub(crate) fn udp_server(&self, port: u16) -> Server {
        self.netns().udp_server(port)
    }
}
