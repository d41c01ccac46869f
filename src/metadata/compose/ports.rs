//! Owns a service's published ports, short and long syntax.

use std::collections::BTreeSet;

use super::yaml::{Content, Node, Reader};
use crate::metadata::container::host_ip;
use crate::metadata::port::{L4Proto, PortError, PortRange, Ports};
use crate::metadata::workload::PublishedPort;

const HELP: &str = "write it as [[HOST_IP:]HOST_PORT:]PORT[/PROTOCOL]; if it holds variables, use what `docker compose config` prints";

/// What a port entry can have wrong.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("`{0}` is not an address of this host")]
    HostIp(crate::input::Text),
    #[error("the host's ports {host} and the container's ports {container} are not equally many")]
    Unequal { host: PortRange, container: PortRange },
}

/// The ports a service publishes.
pub(super) fn published(reader: &mut Reader<'_>, service: &Node) -> BTreeSet<PublishedPort> {
    let mut published = BTreeSet::new();
    for item in reader.items(service, "ports") {
        let result = match &item.content {
            Content::Scalar(text) => short(text),
            Content::Map(_) => long(item),
            Content::List(_) | Content::Null => Err(PortError::NotANumber("".into()).into()),
        };
        match result {
            Ok(ports) => published.extend(ports),
            Err(error) => {
                reader.problem_with_help(item, "compose/invalid-port", error.to_string(), HELP);
            }
        }
    }
    published
}

fn short(text: &str) -> Result<Vec<PublishedPort>, EntryError> {
    let (addresses, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (front, container) = match addresses.rsplit_once(':') {
        Some((front, container)) => (Some(front), container),
        None => (None, addresses),
    };
    let (host_ip, host) = match front.map(|front| front.rsplit_once(':').ok_or(front)) {
        None => ("", ""),
        Some(Ok((host_ip, host))) => (host_ip, host),
        Some(Err(host)) => ("", host),
    };
    expanded(host_ip, host, container, protocol)
}

fn long(item: &Node) -> Result<Vec<PublishedPort>, EntryError> {
    let field = |key: &str| item.get(key).and_then(Node::as_str).unwrap_or_default();
    let protocol = match field("protocol") {
        "" => "tcp",
        protocol => protocol,
    };
    expanded(field("host_ip"), field("published"), field("target"), protocol)
}

fn expanded(
    address: &str,
    host: &str,
    container: &str,
    protocol: &str,
) -> Result<Vec<PublishedPort>, EntryError> {
    let proto: L4Proto = protocol.parse()?;
    let container = container.parse::<Ports>()?.range;
    let host_ip = host_ip(address).ok_or_else(|| EntryError::HostIp(address.into()))?;
    let port =
        |range, host_port| PublishedPort { container: Ports { proto, range }, host_ip, host_port };
    // Docker chooses: any port of its own, or one out of a range.
    if matches!(host, "" | "0") {
        return Ok(vec![port(container, None)]);
    }
    let host = host.parse::<Ports>()?.range;
    if container.is_single() && !host.is_single() {
        return Ok(vec![port(container, None)]);
    }
    if host.last() - host.first() != container.last() - container.first() {
        return Err(EntryError::Unequal { host, container });
    }
    (host.first()..=host.last())
        .zip(container.first()..=container.last())
        .map(|(host, container)| Ok(port(PortRange::single(container)?, Some(host))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let line = |port: PublishedPort| {
            let ip = port.host_ip.map_or("*".into(), |ip| ip.to_string());
            let host = port.host_port.map_or("?".into(), |host| host.to_string());
            format!("{ip} {host} {}", port.container)
        };
        match short(text) {
            Ok(ports) => ports.into_iter().map(line).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn short_syntax_reads_as_compose_does() {
        for (text, expected) in [
            ("80", "* ? 80/tcp"),
            ("3000-3005", "* ? 3000-3005/tcp"),
            ("8080:80", "* 8080 80/tcp"),
            ("8080-8081:80-81/udp", "* 8080 80/udp, * 8081 81/udp"),
            ("8000-8010:80", "* ? 80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080 80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ? 80/tcp"),
            ("0.0.0.0:53:53/udp", "* 53 53/udp"),
            ("[::1]:80:80", "::1 80 80/tcp"),
            ("::1:80:80", "::1 80 80/tcp"),
            ("80:80/gre", "`gre` is not a protocol with ports; use tcp, udp or sctp"),
            (
                "80-82:80-81",
                "the host's ports 80-82 and the container's ports 80-81 are not equally many",
            ),
            ("eth0:80:80", "`eth0` is not an address of this host"),
            ("80:web", "`web` is not a port; ports go from 1 to 65535"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in ["", ":", "0", "70000", "1:2:3:4", "a\n:80"] {
            assert!(short(text).is_err(), "{text}");
        }
    }
}
