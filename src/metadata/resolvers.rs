//! Owns which resolvers a container without any of its own gets: Docker's, if it is configured with some, else the host's, as
//! Docker chooses them.
//!
//! A container's own `/etc/resolv.conf` is never read: the container can write it (security model 4: no bypass from inside).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde_json::Value;

use super::container::addresses;
use super::json::texts;

/// What systemd-resolved listens on; alone in a file it means that the real servers are in [`SYSTEMD_FILE`].
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const HOST_FILE: &str = "/etc/resolv.conf";
const SYSTEMD_FILE: &str = "/run/systemd/resolve/resolv.conf";

/// What Docker gives a container when the host has no resolver that a container can reach.
const FALLBACK: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
];

/// The host's resolvers as Docker gives them to containers. A file that cannot be read has none.
pub fn host_resolvers() -> BTreeSet<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    chosen(&read(HOST_FILE), || read(SYSTEMD_FILE))
}

/// What Docker gives a container that names no resolvers: the `dns` of its configuration file, else the host's.
pub fn docker_resolvers(config: &Path) -> BTreeSet<IpAddr> {
    let own = configured(&std::fs::read_to_string(config).unwrap_or_default());
    if own.is_empty() { host_resolvers() } else { own }
}

/// The `dns` of a `daemon.json`; none in what is no JSON, with which dockerd does not start.
/// Source: <https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file>.
fn configured(text: &str) -> BTreeSet<IpAddr> {
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    addresses(texts(&config, &["dns"]))
}

/// Docker's choice: loopback servers are left out, because a container's loopback is its own.
fn chosen(host: &str, systemd: impl FnOnce() -> String) -> BTreeSet<IpAddr> {
    let mut servers = nameservers(host);
    if servers == BTreeSet::from([SYSTEMD_STUB]) {
        servers = nameservers(&systemd());
    }
    servers.retain(|server| !server.is_loopback());
    if servers.is_empty() { FALLBACK.into() } else { servers }
}

/// The `nameserver` lines of a resolv.conf(5); a zone (`%eth0`) is left out.
fn nameservers(text: &str) -> BTreeSet<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address = words.next()?.split('%').next()?.parse().ok()?;
        is_server.then_some(address)
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str, systemd: &str) -> String {
        let servers = chosen(host, || systemd.to_owned());
        servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_docker_is_configured_with_comes_first() {
        let read =
            |text: &str| configured(text).into_iter().map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(
            read(r#"{"dns": ["192.0.2.53", "2001:db8::53", "x", 1]}"#),
            ["192.0.2.53", "2001:db8::53"]
        );
        for none in ["", "{}", "{broken", r#"{"dns": []}"#, "[]"] {
            assert!(read(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn resolvers_are_chosen_as_docker_does() {
        let fallback = "8.8.4.4 8.8.8.8 2001:4860:4860::8844 2001:4860:4860::8888";
        for (host, systemd, expected) in [
            ("nameserver 1.1.1.1\nnameserver fe80::1%eth0", "", "1.1.1.1 fe80::1"),
            ("# nameserver 2.2.2.2\noptions x\nnameserver\t9.9.9.9 # x", "", "9.9.9.9"),
            ("nameserver 127.0.0.1\nnameserver 1.1.1.1", "nameserver 5.5.5.5", "1.1.1.1"),
            ("nameserver 127.0.0.53", "nameserver 5.5.5.5", "5.5.5.5"),
            ("nameserver 127.0.0.53", "", fallback),
            ("nameserver 127.0.0.1\nnameserver ::1", "nameserver 5.5.5.5", fallback),
            ("", "", fallback),
            ("nameserver nonsense", "", fallback),
        ] {
            assert_eq!(read(host, systemd), expected, "{host:?}");
        }
    }
}
